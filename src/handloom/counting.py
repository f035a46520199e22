"""A plain counter on stderr for commands that only count: ingest and export."""

from __future__ import annotations

import sys
import time
from types import TracebackType

EVERY_S = 0.2
LINE_EVERY_S = 10.0


class Counting:
    """Call it with (done, total or None). One line that is rewritten on a terminal; a line now and then elsewhere."""

    def __init__(self, unit: str) -> None:
        self._unit = unit
        self._terminal = sys.stderr.isatty()
        self._next = time.monotonic() + (0.0 if self._terminal else LINE_EVERY_S)
        self._written = False

    def __enter__(self) -> Counting:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._written and self._terminal:
            print(file=sys.stderr)

    def __call__(self, done: int, total: int | None) -> None:
        now = time.monotonic()
        if now < self._next:
            return
        self._next = now + (EVERY_S if self._terminal else LINE_EVERY_S)
        self._written = True
        text = f"{done}/{total} {self._unit}" if total else f"{done} {self._unit}"
        print(
            f"\r{text}\x1b[K" if self._terminal else text,
            end="" if self._terminal else "\n",
            file=sys.stderr,
            flush=True,
        )
