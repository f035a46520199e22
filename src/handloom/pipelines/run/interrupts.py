"""Ctrl-C and SIGTERM (Slurm, Kubernetes): they end a run while it waits, and are held back while it writes."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

SIGNALS = (signal.SIGINT, signal.SIGTERM)
ONE_PRESS_S = 1.0  # `timeout` and Slurm send a signal to the process and again to its group
MESSAGE = b"\nstopping: what is finished is committed first (once more to stop at once)\n"


class Interrupts:
    """While entered, the first signal raises KeyboardInterrupt; a later one ends the process as usual."""

    def __init__(self, message: bytes = MESSAGE) -> None:
        self._message = message
        self._noticed_at: float | None = None
        self._num_holds = 0
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> Interrupts:
        try:
            self._previous = {number: signal.getsignal(number) for number in SIGNALS}
            self.install()
        except ValueError:  # not in the main thread: the caller's own handlers stay
            self._previous = {}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def install(self) -> None:
        """Set the handlers; again after `ray.init`, which sets its own."""
        for number in self._previous:
            signal.signal(number, self._handle)

    @contextmanager
    def held(self) -> Iterator[None]:
        """No KeyboardInterrupt inside the block; after a signal one is raised at its end, once."""
        self._num_holds += 1
        due = self._noticed_at is None
        try:
            yield
        finally:
            self._num_holds -= 1
        if due and self._noticed_at is not None and not self._num_holds:
            raise KeyboardInterrupt

    def _handle(self, number: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        if self._noticed_at is None:
            self._noticed_at = now
            os.write(2, self._message)
            if not self._num_holds:
                raise KeyboardInterrupt
        elif now - self._noticed_at > ONE_PRESS_S:
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)
