"""Waiting for results of Ray so that the wait can be interrupted, and ends when nobody works any more."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

from handloom.errors import HandloomError

T = TypeVar("T")

POLL_S = 0.5
STALL_S = 300.0
JOIN_S = 30.0
_END = object()


class Stalled(HandloomError):
    """Work is left and no worker has given a sign of life for a long time."""


def arriving(
    results: Iterable[T], close: Callable[[], None], idle_s: Callable[[], float], stall_s: float = STALL_S
) -> Iterator[T]:
    """`results` in their order, read in a thread of its own. Close the generator: that waits for the thread's end.

    Ray Data can wait for ever on an actor that is gone (ray#62746); and a KeyboardInterrupt inside its code may leave
    its locks held. So the caller waits on a queue instead.

    Args:
        close: ends `results` early, from whatever thread.
        idle_s: seconds since any worker was last heard of while it had something to do.

    Raises:
        Stalled: no result has come, and `idle_s` has been above `stall_s`, for `stall_s` seconds.
        Whatever `results` raises.
    """
    arrived: queue.SimpleQueue[tuple[object, BaseException | None]] = queue.SimpleQueue()
    left = threading.Event()

    def read() -> None:
        try:
            for result in results:
                arrived.put((result, None))
                if left.is_set():
                    return
            arrived.put((_END, None))
        except BaseException as error:  # noqa: BLE001 - raised again by the caller's thread
            arrived.put((_END, error))

    reader = threading.Thread(target=read, daemon=True, name="results")
    reader.start()
    heard = time.monotonic()
    try:
        while True:
            try:
                result, error = arrived.get(timeout=POLL_S)
            except queue.Empty:
                if time.monotonic() - heard > stall_s and idle_s() > stall_s:
                    raise _stalled(stall_s) from None
                continue
            heard = time.monotonic()
            if error is not None:
                raise error
            if result is _END:
                return
            yield result
    finally:
        left.set()
        close()
        reader.join(JOIN_S)  # a thread that calls Ray after its shutdown ends the process, silently and with code 1


def _stalled(stall_s: float) -> Stalled:
    problem = f"no worker has given a sign of life for {stall_s:g} s, and clips are left: the run stops"
    hint = "finished clips are committed: run again to go on; look at the nodes' memory and at Ray's logs"
    return Stalled(problem, hint)
