"""MP4 files that say which camera recorded them: boxes as GoPro, Apple and Android write them, and any video's own."""

from __future__ import annotations

import struct
from pathlib import Path


def box(kind: bytes, *contents: bytes) -> bytes:
    content = b"".join(contents)
    return struct.pack(">I4s", 8 + len(content), kind) + content


def gpmf(key: bytes, letter: str, content: bytes, size: int = 1) -> bytes:
    """One value of GoPro's format, padded to four bytes."""
    kind = 0 if not letter else ord(letter)
    head = struct.pack(">4sBBH", key, kind, size, len(content) // size)
    return head + content + bytes(-len(content) % 4)


def gopro(model: bytes = b"HERO7 Black", setting: bytes | None = b"W", diagonal_deg: float | None = None) -> bytes:
    """`udta` of a GoPro, with its settings; without a setting as of HERO4, which has none."""
    settings = gpmf(b"MINF", "c", model)
    settings += b"" if setting is None else gpmf(b"VFOV", "c", setting)
    settings += b"" if diagonal_deg is None else gpmf(b"ZFOV", "f", struct.pack(">f", diagonal_deg), 4)
    has_settings = setting is not None or diagonal_deg is not None
    device = box(b"GPMF", gpmf(b"DEVC", "", gpmf(b"DVID", "L", bytes(4), 4) + settings)) if has_settings else b""
    return box(b"udta", box(b"FIRM", b"HD7.01.01.90.00"), box(b"CAME", bytes(16)), device)


def keys(values: dict[str, str | int | float], has_version: bool = False) -> bytes:
    """A `meta` box: QuickTime's, or with a version before its boxes as MP4 has it."""
    names = b"".join(box(b"mdta", name.encode()) for name in values)
    items = b""
    for number, value in enumerate(values.values(), 1):
        kind, form = {str: (1, ""), int: (21, ">i"), float: (23, ">f")}[type(value)]
        content = struct.pack(form, value) if form else value.encode()
        items += struct.pack(">II", 8 + 16 + len(content), number) + box(b"data", struct.pack(">II", kind, 0), content)
    inside = (
        box(b"hdlr", bytes(8), b"mdta", bytes(13)),
        box(b"keys", struct.pack(">II", 0, len(values)), names),
        box(b"ilst", items),
    )
    return box(b"meta", bytes(4) if has_version else b"", *inside)


def iphone(model: str = "iPhone 13", focal_mm: int | str | None = 27, lens: str | None = None) -> bytes:
    """Model in the file's own keys, lens and focal length in those of its video track."""
    of_file = keys({"com.apple.quicktime.make": "Apple", "com.apple.quicktime.model": model})
    of_track: dict[str, str | int] = {}
    if lens is not None:
        of_track["com.apple.quicktime.camera.lens_model"] = lens
    if focal_mm is not None:
        of_track["com.apple.quicktime.camera.focal_length.35mm_equivalent"] = focal_mm
    return of_file + (box(b"trak", keys(of_track)) if of_track else b"")


def android(**values: str) -> bytes:
    return keys({"com.android.version": "14"} | {f"com.android.{k}": v for k, v in values.items()}, has_version=True)


def tag(video: Path, inside: bytes) -> Path:
    """Put boxes at the end of a video's `moov`, which must be the last box of its file, and return the file."""
    data = video.read_bytes()
    at = data.rindex(b"moov") - 4
    (size,) = struct.unpack(">I", data[at : at + 4])
    assert at + size == len(data), "moov is not the last box"
    video.write_bytes(data[:at] + struct.pack(">I", size + len(inside)) + data[at + 4 :] + inside)
    return video


def file_of(inside: bytes) -> bytes:
    """A file of these boxes alone."""
    return box(b"ftyp", b"mp42", bytes(4)) + box(b"mdat", bytes(64)) + box(b"moov", inside)
