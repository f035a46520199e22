"""The bytes of a web server, as they come. One that sends next to nothing is given up: a clip has no time for it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

PIECE_BYTES = 1 << 20
LEAST_BYTES, WITHIN_S = 64 << 10, 30.0  # 2 KB/s: an hour of video would take days
BEAT_S = 5.0


class NoRangesError(Exception):
    """The server sends whole files only."""


def web_pieces(
    filesystem: Any, name: str, alive: Callable[[], None], part: tuple[int, int] | None = None
) -> Iterator[bytes]:
    """The file, or bytes [start, end) of it, in one answer.

    Args:
        filesystem: fsspec's, of http(s)://.
        alive: called every few seconds while bytes come, and at the end.

    Raises:
        NoRangesError: a part was asked for, and the server sends the whole.
        TimeoutError: fewer than `LEAST_BYTES` came within `WITHIN_S` seconds. OSError and aiohttp's errors.
    """
    headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={part[0]}-{part[1] - 1}"} if part else {})
    with filesystem.open(name, "rb", block_size=0, size=1, headers=headers) as remote:  # a size spares a question
        if part and remote.r.status != 206:
            raise NoRangesError
        num_bytes, since, beat = 0, time.monotonic(), time.monotonic()
        while piece := remote.read(PIECE_BYTES):
            yield piece
            num_bytes += len(piece)
            now = time.monotonic()
            if now - since >= WITHIN_S:
                if num_bytes < LEAST_BYTES:
                    seconds = f"{now - since:.1f} s"
                    raise TimeoutError(f"{num_bytes} bytes came in {seconds}, expected {LEAST_BYTES} at least")
                num_bytes, since = 0, now
            if now - beat >= BEAT_S:
                beat = now
                alive()
    alive()
