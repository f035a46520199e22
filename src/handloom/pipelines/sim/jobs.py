"""Episodes in several processes, here or on a cluster: results in order, whatever dies meanwhile.

A process opens a task's world once, and keeps it. One that dies costs nothing but time: its job is tried again in
another one, at last with no other at work, so that memory that was short for several does not count. A job on which
`TRIES` processes died is lost: it counts as a failure, or ends the command with an error that names it.
"""

from __future__ import annotations

import logging
import sys
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Generic, TypeVar

from handloom.errors import ConfigError, HandloomError
from handloom.machine import cores_allowed
from handloom.pipelines.sim.executors import Died, Executor, Worker, actors, processes
from handloom.plural import plural
from handloom.sim.tasks import Task
from handloom.sim.world import World
from handloom.stages.traces import trace_of

log = logging.getLogger(__name__)

TRIES = 3
MOST_LOST = 3
"""Jobs that may be lost; more are no accident."""
AHEAD = 3
"""Jobs for each worker that are begun before their turn in the order."""
INTERRUPTED = "it was interrupted (Ctrl-C)"
"""Why an evaluation ended before its end, beside errors."""

Found = TypeVar("Found")
Item = TypeVar("Item")


@lru_cache(maxsize=4)
def world_of(task: Task) -> World:
    """The world of a task, opened once in a process."""
    return World(task)


@dataclass(frozen=True)
class Where:
    """Where jobs run. workers: processes, or actors on the cluster at `ray_address`; None: one per core.

    Raises:
        ConfigError: fewer than one.
    """

    workers: int | None = None
    ray_address: str | None = None

    def __post_init__(self) -> None:
        if self.workers is not None and self.workers < 1:
            raise ConfigError(f"{self.workers} workers", "at least one")

    def executor(self, num_jobs: int, worth: int = 1) -> AbstractContextManager[Executor] | None:
        """What runs the jobs; None: this process. worth: jobs for which a process of its own is worth its start."""
        if self.ray_address is not None:
            return actors(self.workers, num_jobs, self.ray_address)
        num = min(self.workers or min(cores_allowed(), -(-num_jobs // worth)), num_jobs)
        return processes(num) if num > 1 else None


@dataclass(frozen=True)
class Lost:
    """A job on which processes died. name: of the job. how: each of them ended."""

    name: str
    how: str


@dataclass(frozen=True)
class Jobs(Generic[Item, Found]):
    """What is to be done with each item, and what to say of it.

    run: a function of a module, which the processes import; its result depends on the item alone. name: of an item, for
    messages. lost: the result in place of a job that was lost; None: it is an error. worth: items for which a process
    of its own is worth its start, where it is left open how many there are.
    """

    run: Callable[[Item], Found]
    name: Callable[[Item], str]
    lost: Callable[[Item, Lost], Found] | None = None
    worth: int = 1


def in_order(jobs: Jobs[Item, Found], items: Iterable[Item], num: int, where: Where) -> Generator[Found, None, None]:
    """The results in the order of the items, which are read as they are needed. num: of items, or that are wanted.

    Raises:
        HandloomError: a job was lost, and `jobs.lost` is None; more than `MOST_LOST` were, or one before any was
            finished; processes do not start. What `jobs.run` raises, after the results before it.
    """
    found = where.executor(num, jobs.worth)
    if found is None:
        yield from map(jobs.run, items)
        return
    with found as executor:
        ahead = AHEAD * executor.num
        crew = _Crew(executor, items, jobs, ahead)
        done: dict[int, Any] = {}
        turn = 0
        for number, item, result in crew.results():
            done[number] = item, result
            while turn in done:
                yield crew.checked(*done.pop(turn))
                turn += 1
                crew.limit = turn + ahead


def as_they_end(jobs: Jobs[Item, Found], items: Sequence[Item], where: Where) -> Iterator[tuple[int, Found]]:
    """Number and result of each item as soon as it is there, in no order. Raises as `in_order`, at once."""
    found = where.executor(len(items), jobs.worth) if items else None
    if found is None:
        yield from enumerate(map(jobs.run, items))
        return
    with found as executor:
        crew = _Crew(executor, items, jobs, sys.maxsize)
        for number, item, result in crew.results():
            yield number, crew.checked(item, result)


@dataclass
class _Job:
    number: int
    item: Any
    deaths: list[str] = field(default_factory=list)

    @property
    def is_last_try(self) -> bool:
        return len(self.deaths) == TRIES - 1


@dataclass(frozen=True)
class _Raised:
    error: Exception


class _Crew:
    """Hands out jobs to workers, and puts others in place of those that die. limit: below which numbers are begun."""

    def __init__(self, executor: Executor, items: Iterable[Any], jobs: Jobs[Any, Any], limit: int) -> None:
        self.limit = limit
        self._executor, self._items, self._jobs = executor, enumerate(items), jobs
        self._idle: list[Worker] = []
        self._busy: dict[Worker, _Job | None] = {}
        self._again: deque[_Job] = deque()
        self._num_begun = self._num_finished = self._num_lost = self._num_failed_starts = 0
        self._is_end = False

    def results(self) -> Iterator[tuple[int, Any, Any]]:
        """(number, item, result, or `_Raised`, or `Lost`) of each job as it ends. After an error no others begin."""
        for _ in range(self._executor.num):
            self._start()
        self._hand_out()
        while any(self._busy.values()) or self._again or not self._is_end:
            ended = [self._ended(worker) for worker in self._executor.done(self._busy)]
            self._hand_out()  # before others look at what has ended
            for one in ended:
                if one is not None:
                    yield one
                    self._hand_out()

    def checked(self, item: Any, result: Any) -> Any:
        """A job's result, or what stands for it if it was lost. Raises what it raised, or HandloomError."""
        if isinstance(result, _Raised):
            raise result.error
        if not isinstance(result, Lost):
            return result
        self._num_lost += 1
        if self._jobs.lost is not None and self._num_lost <= MOST_LOST and self._num_finished:
            return self._jobs.lost(item, result)
        others = f"; as in {plural(self._num_lost - 1, 'job')} before it" if self._num_lost > 1 else ""
        problem = f"{plural(TRIES, 'process', 'processes')} of the simulator died in {result.name}: {result.how}"
        hint = "is there enough memory? `--workers 1` runs it in the command's own process"
        raise HandloomError(problem + others, hint)

    def _hand_out(self) -> None:
        """Give idle workers jobs: those whose worker died first."""
        while self._idle and (job := self._next()) is not None:
            worker = self._idle.pop()
            self._busy[worker] = job
            worker.give(self._jobs.run, (job.item,))

    def _next(self) -> _Job | None:
        at_work = [job for job in self._busy.values() if job is not None]
        if any(job.is_last_try for job in at_work):
            return None
        if self._again:
            return self._again.popleft() if not at_work or not self._again[0].is_last_try else None
        if self._is_end or self._num_begun >= self.limit:
            return None
        number, item = next(self._items, (-1, None))
        self._is_end = number < 0
        self._num_begun += not self._is_end
        return None if self._is_end else _Job(number, item)

    def _ended(self, worker: Worker) -> tuple[int, Any, Any] | None:
        """What a worker has done; None: it has started, or its job is tried again."""
        job = self._busy.pop(worker)
        try:
            result = worker.result()
        except Died as error:
            self._start()
            return self._died(job, error)
        except Exception as error:  # of any kind: raised again when it is its turn
            if job is None:
                raise
            result = _Raised(error)
            self._is_end = True
        self._idle.append(worker)
        self._num_finished += job is not None
        return None if job is None else (job.number, job.item, result)

    def _died(self, job: _Job | None, error: Died) -> tuple[int, Any, Any] | None:
        if job is None:
            self._num_failed_starts += error.counts
            if self._num_failed_starts >= TRIES:
                problem = f"processes of the simulator do not start: {error.how}"
                raise HandloomError(problem, "is handloom[sim] installed on all nodes?") from error
            return None
        job.deaths += [error.how] if error.counts else []
        is_over = len(job.deaths) >= TRIES
        name = self._jobs.name(job.item)
        log.warning("%s: %s; %s", name, error.how, "given up" if is_over else "tried again")
        if is_over:
            return job.number, job.item, Lost(name, "; ".join(dict.fromkeys(job.deaths)))
        self._again.append(job)
        return None

    def _start(self) -> None:
        worker, is_ready = self._executor.start()
        if is_ready:
            self._idle.append(worker)
        else:
            self._busy[worker] = None


def or_error(
    run: Callable[[], Found], policy: str, place: str, again: str
) -> tuple[Found | None, HandloomError | None]:
    """What `run` gives, or the error that the policy raises in it.

    Args:
        place: the episode's name. again: what the user can do to meet the error again.
    """
    try:
        return run(), None
    except HandloomError as error:
        return None, error
    except Exception as error:  # noqa: BLE001 - the policy's own, of any kind; it may not be picklable: its trace is
        problem = f"the policy {policy} raised an error in {place}\n{trace_of(error)}"
        return None, HandloomError(problem, f"mend it; {again}")
