"""Episodes in several processes, here or on a cluster: each opens a task's world once, and keeps it."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures.process import BrokenProcessPool
from functools import lru_cache
from typing import Any, TypeVar

from handloom.errors import ConfigError, HandloomError
from handloom.machine import cores_allowed
from handloom.pipelines.process_pool import process_pool
from handloom.sim.tasks import Task
from handloom.sim.world import World
from handloom.stages.traces import trace_of

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


def on_cluster(jobs: Iterator[tuple[Any, ...]], run: Callable[..., Found], address: str) -> Iterator[Found]:
    """As `in_order`, in tasks of one core on the Ray cluster at `address`; one whose node is lost runs again elsewhere.

    Raises:
        ConfigError: there is no cluster at `address`, or what `run` raises.
        HandloomError: a task's process died three times.
    """
    import ray

    from handloom.pipelines.cluster.connect import joined

    with joined(address):
        task = ray.remote(num_cpus=1, max_retries=2)(run)
        at_once = 2 * max(1, int(ray.cluster_resources().get("CPU", 1)))
        waiting: deque[Any] = deque()
        for job in jobs:
            waiting.append(task.remote(*job))
            if len(waiting) > at_once:
                yield _result(waiting.popleft())
        while waiting:
            yield _result(waiting.popleft())


def _result(ref: Any) -> Any:
    import ray

    try:
        return ray.get(ref)
    except ray.exceptions.RayTaskError as error:
        if isinstance(error.cause, HandloomError | ModuleNotFoundError):
            raise error.cause from None
        raise
    except ray.exceptions.RayError as error:
        first = str(error).strip().splitlines()[0]
        raise HandloomError(
            f"a process of the simulator died: {first}", "is there enough memory on the nodes?"
        ) from error


def as_far_as_it_goes(
    items: Iterable[Any], run: Callable[[Any], Found], policy: str, place_of: Callable[[Any], str], again: str
) -> tuple[list[Found], HandloomError | None]:
    """`run` of each item, up to one in which the policy raises an error, and that error.

    Args:
        place_of: an item's name in the error. again: what the user can do to meet the error again.
    """
    found: list[Found] = []
    for item in items:
        try:
            found.append(run(item))
        except HandloomError as error:
            return found, error
        except Exception as error:  # noqa: BLE001 - the policy's own, of any kind; it may not be picklable: its trace is
            problem = f"the policy {policy} raised an error in {place_of(item)}\n{trace_of(error)}"
            return found, HandloomError(problem, f"mend it; {again}")
    return found, None


def blocks(num: int, size: int) -> Sequence[range]:
    """`range(num)` in pieces of at most `size`."""
    return [range(start, min(start + size, num)) for start in range(0, num, size)]
