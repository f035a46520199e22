"""A video of which only parts are on this disk: the others are fetched before they are read. Runs in the decode child.

Only plain MP4 and QuickTime files are read in parts: their index (`moov`) lies in one place and holds the position of
every packet. While the index is read, zeros stand for the packets' data; for a clip, packets are read from the key
frame before it. Matroska, transport streams and fragmented MP4 spread their index over the file: it must be read whole.
"""

from __future__ import annotations

import os
from collections.abc import Callable

BLOCK_BYTES = 1 << 18  # parts are fetched, and known to be there, in whole blocks
MAX_BOXES = 64
CODEC_TAGS = frozenset({"avc1", "hvc1"})
"""ISO/IEC 14496-15: these keep the headers that set the image's size out of the packets' data."""


class NotRangedError(Exception):
    """The file is of a kind that must be read whole."""


class Ranged:
    """A local file with holes, read by one process; `need(at, size)` fills them and returns up to which byte.

    Raises:
        NotRangedError: it is no plain MP4.
    """

    def __init__(self, path: str, need: Callable[[int, int], int]) -> None:
        self.path = path
        self._file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)  # kept open: its name may be removed
        self.size = os.fstat(self._file).st_size
        self._need = need
        self._there = bytearray(-(-self.size // BLOCK_BYTES))
        payload = packet_data(self.read_at, self.size)
        if payload is None:
            self.close()
            raise NotRangedError
        self.payload = payload

    def read_at(self, at: int, size: int) -> bytes:
        size = min(size, self.size - at)
        while size > 0 and (missing := self._there.find(0, at // BLOCK_BYTES, -(-(at + size) // BLOCK_BYTES))) >= 0:
            first = max(at, missing * BLOCK_BYTES)
            until = self._need(first, at + size - first)
            blocks = range(missing, max(until // BLOCK_BYTES if until < self.size else len(self._there), missing + 1))
            self._there[blocks.start : blocks.stop] = b"\1" * len(blocks)
        return os.pread(self._file, size, at) if size > 0 else b""

    def open(self) -> RangedFile:
        return RangedFile(self)

    def close(self) -> None:
        os.close(self._file)


class RangedFile:
    """What PyAV reads: a `Ranged` and a place in it. skips_data: zeros stand for packets' data, which is not read."""

    def __init__(self, media: Ranged) -> None:
        self.name = media.path
        self.skips_data = False
        self._media = media
        self._at = 0

    def read(self, size: int) -> bytes:
        end = next((end for start, end in self._media.payload if start <= self._at < end), 0) if self.skips_data else 0
        data = bytes(min(size, end - self._at)) if end else self._media.read_at(self._at, size)
        self._at += len(data)
        return data

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        starts = {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._media.size}
        if whence not in starts:  # libav asks for the size
            return self._media.size
        self._at = starts[whence] + offset
        return self._at

    def tell(self) -> int:
        return self._at


def packet_data(read_at: Callable[[int, int], bytes], size: int) -> list[tuple[int, int]] | None:
    """Where the packets' data lies in an MP4 whose index is in one place: [start, end) each; None for other files."""
    payload: list[tuple[int, int]] = []
    kinds: list[bytes] = []
    at = 0
    while at < size:
        head = read_at(at, 16)
        length, kind, start = int.from_bytes(head[:4], "big"), head[4:8], at + 8
        if length == 1:
            length, start = int.from_bytes(head[8:16], "big"), at + 16
        elif length == 0:
            length = size - at
        kinds.append(kind)
        if length < start - at or not kind.isalnum() or kind == b"moof" or len(kinds) > MAX_BOXES:
            return None
        if kind == b"mdat":
            payload.append((start, min(at + length, size)))
        at += length
    return payload if payload and b"moov" in kinds and kinds[0] in (b"ftyp", b"moov", b"mdat", b"wide") else None
