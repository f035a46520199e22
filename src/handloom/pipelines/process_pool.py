"""Pools of processes that end at once when the work is stopped: Ctrl-C while rendering, a benchmark that is killed."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import active_children, get_context, parent_process

from handloom.video.decode.sandbox import end_with_parent


@contextmanager
def process_pool(workers: int, begin: Callable[[], None] | None = None) -> Iterator[ProcessPoolExecutor]:
    """`workers` spawned processes, each of which calls `begin` first. An exception in the block kills them all.

    A `with ProcessPoolExecutor(...)` would wait for every submitted job, and each of its processes would print a trace,
    because a terminal sends Ctrl-C to them, too. Its processes would also outlive a parent that is killed, for ever.
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
    end_with_parent()
    parent = parent_process()
    if parent is not None and os.getppid() != parent.pid:  # it ended before this process asked to end with it
        os._exit(1)
    if begin is not None:
        begin()
