"""Parts of remote videos, fetched when the decode child needs them: two seconds do not cost an hour's download.

The parts lie in a file of the video's size in the cache, with holes, and a map of its blocks beside it. All workers of
a node fill the same one; once half of it is there, the rest is fetched, and it is a fetched video like any other.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from pathlib import Path

from handloom.video.fetch.cache import FetchCache
from handloom.video.fetch.partial_file import BLOCK_BYTES

FIRST_BLOCKS, MAX_BLOCKS = 4, 64  # fetched at once: twice as many with each fetch that continues the last one
WHOLE_SHARE = 0.5

Fetch = Callable[[int, int], bytes]
"""Bytes [start, end) of the video."""


class SparseCopy:
    """The parts of one remote video that this node has fetched.

    Args:
        name: of the whole video in the cache; this file is `some-NAME`.
        alive: called now and then while this worker waits for another one.
    """

    def __init__(
        self,
        cache: FetchCache,
        name: str,
        num_bytes: int,
        fetch: Fetch,
        alive: Callable[[], None] = lambda: None,
        first_blocks: int = FIRST_BLOCKS,
    ) -> None:
        self._cache, self._name, self._num_bytes, self._fetch = cache, name, num_bytes, fetch
        self._alive, self._first_blocks = alive, first_blocks
        self.path = cache.folder / f"some-{name}"
        self._num_blocks = -(-num_bytes // BLOCK_BYTES)
        self._read_until, self._ahead = -1, first_blocks
        with cache.locked(name, alive):
            self._data, self._map = (
                _opened(path) for path in (self.path, self.path.with_name(f"{self.path.name}.map"))
            )
            os.ftruncate(self._data, num_bytes)
            os.ftruncate(self._map, self._num_blocks)
            os.utime(self.path)

    def close(self) -> None:
        os.close(self._data)
        os.close(self._map)

    def supply(self, at: int, size: int) -> int:
        """Fetch what is missing of [at, at + size). Returns up to which byte the file is there from `at` on.

        Raises what `fetch` raises; OSError where it cannot be written.
        """
        first, last = at // BLOCK_BYTES, min(-(-(at + size) // BLOCK_BYTES), self._num_blocks)
        there = self._blocks()
        missing = there.find(0, first, last)
        if missing >= 0:
            self._ahead = min(2 * self._ahead, MAX_BLOCKS) if missing == self._read_until else self._first_blocks
            most = max(min(last, missing + MAX_BLOCKS), min(missing + self._ahead, self._num_blocks))
            end = there.find(1, missing, most)
            end = end if end >= 0 else most
            self._fill(missing, end)
            self._read_until = end
            there = self._blocks()
            if there.count(1) >= WHOLE_SHARE * self._num_blocks:
                there = self._complete()
        end = there.find(0, first)
        return self._num_bytes if end < 0 else end * BLOCK_BYTES

    def _blocks(self) -> bytes:
        return os.pread(self._map, self._num_blocks, 0)

    def _fill(self, first: int, end: int) -> None:
        start, stop = first * BLOCK_BYTES, min(end * BLOCK_BYTES, self._num_bytes)
        self._cache.free_space(stop - start, keep=self.path)
        data = self._fetch(start, stop)
        if len(data) != stop - start:
            raise OSError(f"{len(data)} of {stop - start} bytes came")
        os.pwrite(self._data, data, start)
        os.fdatasync(self._data)  # the map must not promise more than is there, also after a power cut
        os.pwrite(self._map, b"\1" * (end - first), first)
        with contextlib.suppress(FileNotFoundError):  # removed to free space: open handles still read it
            os.utime(self.path)

    def _complete(self) -> bytes:
        """Fetch the rest; then the file is the video, under its own name. Other workers of the node wait for it."""
        with self._cache.locked(self._name, self._alive) as target:
            while (first := self._blocks().find(0)) >= 0:
                end = self._blocks().find(1, first)
                self._fill(first, min(end if end >= 0 else self._num_blocks, first + MAX_BLOCKS))
            with contextlib.suppress(OSError):  # removed to free space, or a disk without hard links: it stays as it is
                os.link(self.path, target)  # both names: a worker that has read a part still opens it by the first
        return self._blocks()


def _opened(path: Path) -> int:
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
