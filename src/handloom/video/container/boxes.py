"""The boxes of an MP4 or QuickTime file, found by their headers; no image data is read.

Files come from anywhere: sizes are checked against the box around, and every search is bounded (`MAX_BOXES`,
`MAX_DEPTH`, `MAX_BYTES`).

Source: ISO/IEC 14496-12, 4.2 (boxes); Apple, QuickTime File Format, metadata (`keys`, `ilst`).
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

MAX_BOXES = 2000  # read of one file; an hour of GoPro video has 80 up to its metadata
MAX_DEPTH = 6
MAX_BYTES = 1 << 20  # of one box that is read whole: GoPro's settings have 25 kB
FIRST = (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip", b"pnot")  # the kinds of a file's first box
_INTEGERS = {21: True, 65: True, 66: True, 67: True, 74: True, 22: False, 75: False, 76: False, 77: False, 78: False}
_FLOATS = {23: ">f", 24: ">d"}


@dataclass(frozen=True)
class Box:
    """start, end: of its content, in bytes of the file. depth: 0 at the top."""

    kind: bytes
    start: int
    end: int
    depth: int


class Boxes:
    """Reads a file's boxes: `top` first, then `children` and `read` of any box."""

    def __init__(self, file: BinaryIO, num_bytes: int) -> None:
        self._file, self._num_bytes, self._left = file, num_bytes, MAX_BOXES

    def top(self) -> Iterator[Box]:
        """The boxes at the top; none where the file is no MP4 or QuickTime file."""
        self._file.seek(0)
        if self._file.read(8)[4:8] in FIRST:
            yield from self._between(0, self._num_bytes, 0)

    def children(self, box: Box, skip: int = 0) -> Iterator[Box]:
        """The boxes in a box, after its first `skip` bytes."""
        if box.depth < MAX_DEPTH:
            yield from self._between(box.start + skip, box.end, box.depth + 1)

    def read(self, box: Box) -> bytes:
        """Its content, at most the first `MAX_BYTES`."""
        self._file.seek(box.start)
        return self._file.read(min(box.end - box.start, MAX_BYTES))

    def _between(self, at: int, end: int, depth: int) -> Iterator[Box]:
        while at + 8 <= end and self._left > 0:
            self._left -= 1
            self._file.seek(at)
            head = self._file.read(16)
            if len(head) < 8:
                return
            size, kind = struct.unpack(">I4s", head[:8])
            start = at + 8
            if size == 1 and len(head) == 16:
                size, start = struct.unpack(">Q", head[8:])[0], at + 16
            elif size == 0:
                size = end - at
            if size < start - at or at + size > end:
                return
            yield Box(kind, start, at + size, depth)
            at += size


def key_values(boxes: Boxes, meta: Box) -> dict[str, str | float]:
    """`{key: value}` of a `meta` box with `keys` and `ilst`: texts and finite numbers; others are left out."""
    skip = 0 if boxes.read(meta)[4:8] == b"hdlr" else 4  # MP4 has a version before its boxes, QuickTime has none
    inside = {box.kind: box for box in boxes.children(meta, skip)}
    if b"keys" not in inside or b"ilst" not in inside:
        return {}
    names = _names(boxes.read(inside[b"keys"]))
    found: dict[str, str | float] = {}
    for item in boxes.children(inside[b"ilst"]):
        number = int.from_bytes(item.kind, "big")
        for data in boxes.children(item):
            value = _value(boxes.read(data)) if data.kind == b"data" else None
            if 1 <= number <= len(names) and value is not None:
                found.setdefault(names[number - 1], value)
    return found


def _names(data: bytes) -> list[str]:
    names, at = [], 8
    while at + 8 <= len(data):
        size = int.from_bytes(data[at : at + 4], "big")
        if size < 8 or at + size > len(data):
            break
        names.append(data[at + 8 : at + size].decode("utf-8", "replace"))
        at += size
    return names


def _value(data: bytes) -> str | float | None:
    kind, content = int.from_bytes(data[:4], "big"), data[8:]
    if kind == 1:
        return content.decode("utf-8", "replace").strip("\x00 ")
    if kind in _INTEGERS and 1 <= len(content) <= 8:
        return float(int.from_bytes(content, "big", signed=_INTEGERS[kind]))
    if kind in _FLOATS and len(content) == struct.calcsize(_FLOATS[kind]):
        number = struct.unpack(_FLOATS[kind], content)[0]
        return number if math.isfinite(number) else None
    return None
