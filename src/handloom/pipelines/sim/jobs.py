"""Episodes in several processes: each opens a task's world once, and keeps it."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures.process import BrokenProcessPool
from functools import lru_cache
from typing import Any, TypeVar

from handloom.errors import ConfigError, HandloomError
from handloom.machine import cores_allowed
from handloom.pipelines.process_pool import process_pool
from handloom.sim.tasks import Task
from handloom.sim.world import World

Found = TypeVar("Found")


@lru_cache(maxsize=4)
def world_of(task: Task) -> World:
    """The world of a task, opened once in a process."""
    return World(task)


def workers_for(workers: int | None, num_jobs: int) -> int:
    """How many processes: by default one per core, and no more than there are jobs. Raises ConfigError: below 1."""
    if workers is not None and workers < 1:
        raise ConfigError(f"{workers} workers", "at least one")
    return max(1, min(workers or cores_allowed(), num_jobs))


def in_order(jobs: Iterator[tuple[Any, ...]], run: Callable[..., Found], workers: int) -> Iterator[Found]:
    """The results of `run(*job)` in the order of the jobs, which are read as they are needed; one worker: in here.

    Raises:
        HandloomError: a process died.
    """
    if workers == 1:
        for job in jobs:
            yield run(*job)
        return
    with process_pool(workers) as pool:
        waiting: deque[Any] = deque()
        try:
            for job in jobs:
                waiting.append(pool.submit(run, *job))
                if len(waiting) > 2 * workers:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        except BrokenProcessPool as error:
            raise HandloomError(
                "a process of the simulator died", "is there enough memory? give fewer --workers: 1 shows its error"
            ) from error


def blocks(num: int, size: int) -> Sequence[range]:
    """`range(num)` in pieces of at most `size`."""
    return [range(start, min(start + size, num)) for start in range(0, num, size)]
