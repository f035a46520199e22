"""A pool of processes that ends at once when the work is stopped: Ctrl-C while rendering, or in a benchmark."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import active_children, get_context


@contextmanager
def process_pool(workers: int, begin: Callable[[], None] | None = None) -> Iterator[ProcessPoolExecutor]:
    """`workers` spawned processes, each of which calls `begin` first. An exception in the block kills them all.

    A `with ProcessPoolExecutor(...)` would wait for every submitted job, and each of its processes would print a trace,
    because a terminal sends Ctrl-C to them, too.
    """
    others = set(active_children())
    pool = ProcessPoolExecutor(workers, mp_context=get_context("spawn"), initializer=_begin, initargs=(begin,))
    try:
        yield pool
    except BaseException:  # Ctrl-C, too; raised again
        for process in set(active_children()) - others:
            process.kill()
        raise
    finally:
        pool.shutdown(cancel_futures=True)


def _begin(begin: Callable[[], None] | None) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if begin is not None:
        begin()
