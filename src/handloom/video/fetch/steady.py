"""Bytes from a web server as they arrive. One that sends almost nothing is given up: a clip's time is limited."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

PIECE_BYTES = 1 << 20


@dataclass(frozen=True)
class Pace:
    """The slowest server that is waited for: `least_bytes` in every `within_s` seconds. alive is called each `beat_s`.

    2 KB/s: an hour of video would take days.
    """

    least_bytes: int = 64 << 10
    within_s: float = 30.0
    beat_s: float = 5.0


PACE = Pace()


class NoRangesError(Exception):
    """The server sends whole files only."""


def web_pieces(
    filesystem: Any, name: str, alive: Callable[[], None], part: tuple[int, int] | None = None, pace: Pace = PACE
) -> Iterator[bytes]:
    """The file, or bytes [start, end) of it, in one response.

    Args:
        filesystem: fsspec's, of http(s)://.
        alive: called every few seconds while bytes arrive, and at the end.

    Raises:
        NoRangesError: a part was requested, and the server sends the whole file.
        TimeoutError: the server is slower than `pace`. OSError and aiohttp's errors.
    """
    headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={part[0]}-{part[1] - 1}"} if part else {})
    with filesystem.open(name, "rb", block_size=0, size=1, headers=headers) as remote:  # a given size saves a request
        if part and remote.r.status != 206:
            raise NoRangesError
        num_bytes, since, beat = 0, time.monotonic(), time.monotonic()
        while piece := remote.read(PIECE_BYTES):
            yield piece
            num_bytes += len(piece)
            now = time.monotonic()
            if now - since >= pace.within_s:
                if num_bytes < pace.least_bytes:
                    seconds = f"{now - since:.1f} s"
                    raise TimeoutError(f"{num_bytes} bytes came in {seconds}, expected {pace.least_bytes} at least")
                num_bytes, since = 0, now
            if now - beat >= pace.beat_s:
                beat = now
                alive()
    alive()
