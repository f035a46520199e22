"""The camera that recorded a video, by the file's tags: maker, model, lens, field of view.

GoPro: `moov/udta` with `FIRM`, `CAME`, `LENS`, and `GPMF` (github.com/gopro/gpmf-parser, README: keys of four letters
in devices; `MINF` model, `VFOV` field of view as set, `ZFOV` degrees from corner to corner). Apple and Android: keys in
a `meta` box of the file or of its video track. Others: boxes like `(c)mak` and `(c)mod` in `udta`.
"""

from __future__ import annotations

import math
import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from handloom.io.addresses import is_remote, local_path
from handloom.io.remote import Options, open_remote, remote_errors
from handloom.video.container.boxes import Box, Boxes, key_values

MAX_TEXT = 80
BLOCK_BYTES = 1 << 16  # of one read of a remote file
_APPLE = "com.apple.quicktime."
_FOCAL = ("camera.focal_length.35mm_equivalent",)
_TEXT_BOXES = {b"\xa9mak": "make", b"\xa9mod": "model", b"\xa9mdl": "model", b"manu": "make", b"modl": "model"}
_GOPRO_BOXES = (b"FIRM", b"CAME", b"GPMF")
_GPMF_SIZES = {"f": (4, 4), "d": (8, 8)}  # bytes of one value, and of all: one number


@dataclass(frozen=True)
class CameraTags:
    """None: the file has no such tag. fov_setting: GoPro's letter, `W` wide, `L` linear, `S` SuperView, `H` HyperView,
    ...; diagonal_fov_deg: from corner to corner; focal_35mm: focal length in mm of a 35 mm camera with this field of
    view; is_android: Android wrote the file.
    """

    make: str | None = None
    model: str | None = None
    lens: str | None = None
    focal_35mm: float | None = None
    fov_setting: str | None = None
    diagonal_fov_deg: float | None = None
    is_android: bool = False

    @property
    def device(self) -> str | None:
        """Maker and model in one text ("GoPro HERO9 Black"); None where neither is known."""
        make, model = self.make or ("Android" if self.is_android else ""), self.model or ""
        return model if make and model.lower().startswith(make.lower()) else f"{make} {model}".strip() or None


def read_camera_tags(uri: str, options: Options = None) -> CameraTags:
    """The tags of the file at a path or URI; all None where it cannot be read or is no MP4 or QuickTime file."""
    try:
        if not is_remote(uri):
            with open(local_path(uri), "rb") as file:
                return tags_of(Boxes(file, file.seek(0, 2)))
        filesystem, path = open_remote(uri, options)
        with filesystem.open(path, "rb", block_size=BLOCK_BYTES) as file:
            return tags_of(Boxes(file, file.seek(0, 2)))
    except remote_errors(ValueError, ImportError):  # ValueError: a scheme that is not opened
        return CameraTags()


def tags_of(boxes: Boxes) -> CameraTags:
    """The tags of an open file."""
    found: dict[str, Any] = {}
    for box in boxes.top():
        if box.kind == b"moov":
            for inner in boxes.children(box):
                _of_movie(boxes, inner, found)
    return _cleaned(found)


def _of_movie(boxes: Boxes, box: Box, found: dict[str, Any]) -> None:
    if box.kind == b"udta":
        for inner in boxes.children(box):
            _of_user_data(boxes, inner, found)
    elif box.kind == b"meta":
        _take(key_values(boxes, box), found)
    elif box.kind == b"trak":
        for inner in boxes.children(box):
            if inner.kind == b"meta":
                _take(key_values(boxes, inner), found)


def _of_user_data(boxes: Boxes, box: Box, found: dict[str, Any]) -> None:
    if box.kind in _GOPRO_BOXES:
        found["make"] = "GoPro"
    if box.kind == b"GPMF":
        _of_gpmf(boxes.read(box), found)
    elif box.kind == b"FOV\x00":  # HERO2: a word
        found.setdefault("fov_setting", _text(boxes.read(box))[:1].upper())
    elif box.kind == b"meta":
        _take(key_values(boxes, box), found)
    elif box.kind in _TEXT_BOXES:
        data = boxes.read(box)
        has_length = len(data) >= 4 and int.from_bytes(data[:2], "big") == len(data) - 4  # QuickTime: length, language
        found.setdefault(_TEXT_BOXES[box.kind], _text(data[4:] if has_length else data))


def _take(values: dict[str, str | float], found: dict[str, Any]) -> None:
    for key, value in values.items():
        short = key.removeprefix(_APPLE)
        if short in ("make", "com.android.manufacturer"):
            found.setdefault("make", str(value))
        elif short in ("model", "com.android.model"):
            found.setdefault("model", str(value))
        elif short == "com.android.version":
            found["is_android"] = True
        elif short == "camera.lens_model":
            found.setdefault("lens", str(value))
        elif short in _FOCAL:
            number = re.match(r"\s*(\d+(?:\.\d+)?)", str(value))
            found.setdefault("focal_35mm", float(number[1]) if number else None)


def _of_gpmf(data: bytes, found: dict[str, Any]) -> None:
    """GoPro's settings. An entry is key, type, size of a value, number of values, content padded to four bytes."""
    for key, kind, _, content in _gpmf(data):
        if key == b"DEVC" and kind == "\x00":
            for inner, letter, num_bytes, value in _gpmf(content):
                if inner == b"MINF" and letter == "c":
                    found.setdefault("model", _text(value))
                elif inner == b"VFOV" and letter == "c":
                    found.setdefault("fov_setting", _text(value)[:1].upper())
                elif inner == b"ZFOV" and _GPMF_SIZES.get(letter) == (num_bytes, len(value)):
                    found.setdefault("diagonal_fov_deg", struct.unpack(f">{letter}", value)[0])


def _gpmf(data: bytes) -> Iterator[tuple[bytes, str, int, bytes]]:
    at = 0
    while at + 8 <= len(data):
        key, kind, size, repeat = struct.unpack(">4scBH", data[at : at + 8])
        length = size * repeat
        if at + 8 + length > len(data) or not key.strip(b"\x00"):
            return
        yield key, kind.decode("latin-1"), size, data[at + 8 : at + 8 + length]
        at += 8 + (length + 3) // 4 * 4


def _text(data: bytes) -> str:
    return data.decode("utf-8", "replace").split("\x00")[0].strip()


def _cleaned(found: dict[str, Any]) -> CameraTags:
    """The tags with printable texts of at most `MAX_TEXT`, and None for numbers that no camera has."""
    tags = CameraTags(**{name: value for name, value in found.items() if value not in ("", None)})
    texts: dict[str, Any] = {n: _printable(getattr(tags, n)) for n in ("make", "model", "lens", "fov_setting")}
    focal, diagonal = tags.focal_35mm, tags.diagonal_fov_deg
    if focal is not None and not 5 <= focal <= 500:
        focal = None
    if diagonal is not None and not (math.isfinite(diagonal) and 10 <= diagonal <= 220):
        diagonal = None
    return replace(tags, **texts, focal_35mm=focal, diagonal_fov_deg=diagonal)


def _printable(text: str | None) -> str | None:
    return "".join(c for c in text if c.isprintable())[:MAX_TEXT].strip() or None if text else None
