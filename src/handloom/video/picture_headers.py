"""The part of a coded key frame that sets the picture's size, for the codecs that decord may read.

decord scales every frame to one size: where the size changes in the middle of a video its pictures are squashed without
a word. Two key frames with equal headers have pictures of equal size, and nothing needs to be decoded to see that.
"""

from __future__ import annotations

from collections.abc import Iterator

_H264_SPS, _HEVC_SPS = 7, 33
_START_CODE = b"\x00\x00\x01"
_VOL = range(0x20, 0x30)  # MPEG-4's video object layer


def size_header(codec: str, data: bytes) -> bytes | None:
    """The bytes of a key frame that its size hangs on; None: it carries none, or the codec is not known here."""
    if codec in ("h264", "hevc"):
        for unit in _units(data):
            kind = unit[0] & 31 if codec == "h264" else unit[0] >> 1 & 63
            if kind == (_H264_SPS if codec == "h264" else _HEVC_SPS):
                return unit
        return None
    if codec == "vp9":
        return _vp9_header(data)
    if codec == "vp8":
        return data[3:10] if len(data) >= 10 and not data[0] & 1 else None
    if codec == "mpeg4":
        return _mpeg4_layer(data)
    return None


def is_shown(codec: str, data: memoryview) -> bool:
    """Whether the packet shows a frame: VP8 stores frames that only others refer to as packets of their own."""
    return codec != "vp8" or bool(data[0] & 16)


def _units(data: bytes) -> Iterator[bytes]:
    """NAL units, behind start codes (transport streams) or behind their lengths (MP4, Matroska)."""
    if data.startswith((_START_CODE, b"\x00" + _START_CODE)):
        yield from (unit.rstrip(b"\x00") for unit in data.split(_START_CODE) if unit.strip(b"\x00"))
        return
    at = 0
    while at + 4 < len(data):
        length = int.from_bytes(data[at : at + 4], "big")
        if not 0 < length <= len(data) - at - 4:
            return
        yield data[at + 4 : at + 4 + length]
        at += 4 + length


def _vp9_header(data: bytes) -> bytes | None:
    """Sync code, colours, width and height of an 8-bit 4:2:0 key frame: bytes 1 to 8, of the last one half."""
    return data[1:8] + bytes([data[8] & 0xF0]) if len(data) > 8 and data[1:4] == b"\x49\x83\x42" else None


def _mpeg4_layer(data: bytes) -> bytes | None:
    parts = data.split(_START_CODE)
    return next((part for part in parts[1:] if part and part[0] in _VOL), None)
