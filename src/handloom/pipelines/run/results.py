"""Waits for results of Ray: the wait can be interrupted, and ends when no worker works any more."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Generic, TypeVar, cast

from handloom.errors import HandloomError

T = TypeVar("T")

POLL_S = 0.5
STALL_S = 300.0
JOIN_S = 30.0
_END = object()


class Stalled(HandloomError):
    """Work is left, and no worker has reported for a long time."""


class ResultStream(Generic[T]):
    """Iterates over `results` in their order, and gives None after each `POLL_S` seconds without a result, so that the
    caller can do other things. A thread reads them; leaving the context waits for its end.

    Ray Data can wait for ever on an actor that is gone (ray#62746), and a KeyboardInterrupt inside its code may leave
    its locks held. So the caller waits on a queue instead.

    Args:
        close: ends `results` early, from any thread.
        idle_s: seconds since a worker with something to do has last reported.
    """

    def __init__(
        self, results: Iterable[T], close: Callable[[], None], idle_s: Callable[[], float], stall_s: float = STALL_S
    ) -> None:
        self._results, self._close, self._idle_s, self._stall_s = results, close, idle_s, stall_s
        self._arrived: queue.SimpleQueue[tuple[object, BaseException | None]] = queue.SimpleQueue()
        self._left = threading.Event()
        self._reader = threading.Thread(target=self._read, daemon=True, name="results")

    def __enter__(self) -> ResultStream[T]:
        self._reader.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._left.set()
        self._close()
        self._reader.join(JOIN_S)  # a thread that calls Ray after its shutdown ends the process, silently, with code 1

    def _read(self) -> None:
        try:
            for result in self._results:
                self._arrived.put((result, None))
                if self._left.is_set():
                    return
            self._arrived.put((_END, None))
        except BaseException as error:  # noqa: BLE001 - raised again by the caller's thread
            self._arrived.put((_END, error))

    def __iter__(self) -> Iterator[T | None]:
        """Raises Stalled after `stall_s` seconds without a result, if `idle_s` is above `stall_s` too; and whatever
        `results` raises.
        """
        heard = time.monotonic()
        while True:
            try:
                result, error = self._arrived.get(timeout=POLL_S)
            except queue.Empty:
                if time.monotonic() - heard > self._stall_s and self._idle_s() > self._stall_s:
                    raise _stalled(self._stall_s) from None
                yield None
                continue
            heard = time.monotonic()
            if error is not None:
                raise error
            if result is _END:
                return
            yield cast("T", result)

    def drain(self, quiet_s: float, limit_s: float) -> Iterator[T]:
        """After the iteration has ended: results that still arrive, until none has for `quiet_s` seconds."""
        until = time.monotonic() + limit_s
        while time.monotonic() < until:
            try:
                result, _ = self._arrived.get(timeout=quiet_s)
            except queue.Empty:
                return
            if result is _END:
                return
            yield cast("T", result)


def _stalled(stall_s: float) -> Stalled:
    problem = f"no worker has reported for {stall_s:g} s, and clips are left: the run stops"
    hint = "finished clips are committed: run again to go on; look at the nodes' memory and at Ray's logs"
    return Stalled(problem, hint)
