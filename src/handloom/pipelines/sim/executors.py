"""What runs jobs beside the command: processes of this machine, or actors of a Ray cluster. Each has one at a time."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, Future, wait
from contextlib import ExitStack, contextmanager
from multiprocessing import active_children
from multiprocessing.process import BaseProcess
from typing import Any, Protocol

from handloom.errors import ConfigError, HandloomError
from handloom.kernels import one_thread_each
from handloom.pipelines.process_pool import process_pool

JOB = "episodes of a simulation"
"""What other jobs on the cluster are told."""
ROOM = "wait for the other jobs to end, give fewer --workers, or add nodes"
LOOK_S, START_S, END_S = 1.0, 60.0, 5.0
WAIT_S = 300.0
"""How long a cluster may have no core for any episode; as `resources.wait_s` of training."""

Run = Callable[..., Any]
Arguments = tuple[Any, ...]


class Died(Exception):
    """A worker ended while it had a job, or before it had one.

    counts: whether it may have been the job's doing; not where the node was lost.
    """

    def __init__(self, how: str, counts: bool = True) -> None:
        super().__init__(how, counts)
        self.how, self.counts = how, counts


class Worker(Protocol):
    """One process."""

    def give(self, run: Run, arguments: Arguments) -> None:
        """Begin `run(*arguments)`."""

    def result(self) -> Any:
        """What that gave; None once the worker is ready for its first job.

        Raises:
            Died: the process ended. What `run` raises, too.
        """


class Executor(Protocol):
    """All processes of a command."""

    num: int
    """How many there shall be."""

    def start(self) -> tuple[Worker, bool]:
        """One more, and whether it is ready; else `done` tells when it is."""

    def done(self, busy: Collection[Worker]) -> list[Worker]:
        """Waits, and gives those that have a result; at least one. Raises HandloomError: nothing can be waited for."""


class _Process:
    """A worker on this machine: a pool of one process, so that what dies with it is its own job."""

    def __init__(self, pool: Any) -> None:
        self._pool = pool
        self._process: BaseProcess | None = None
        self._is_idle = False
        self.future: Future[Any] = Future()

    def give(self, run: Run, arguments: Arguments) -> None:
        before = set(active_children())
        try:
            self.future = self._pool.submit(run, *arguments)  # the first one starts the process
        except BrokenExecutor as error:  # it was ended between two jobs
            self._is_idle, self.future = True, Future()
            self.future.set_exception(error)
        self._process = self._process or next(iter(set(active_children()) - before), None)

    def result(self) -> Any:
        try:
            return self.future.result()
        except BrokenExecutor as error:
            raise Died(_ended(self._process), not self._is_idle) from error


def _ended(process: Any) -> str:
    """How a process ended, in words."""
    if process is None:
        return "its process did not start"
    until = time.monotonic() + END_S
    while (code := process.exitcode) is None and time.monotonic() < until:  # the pool's thread may be asking, too
        time.sleep(0.01)
    if code is None:
        return "its process does not reply"
    return f"its process was ended by signal {-code}" if code < 0 else f"its process exited with code {code}"


class Processes:
    """`num` spawned processes, each on one thread."""

    def __init__(self, num: int, stack: ExitStack) -> None:
        self.num, self._stack = num, stack

    def start(self) -> tuple[Worker, bool]:
        return _Process(self._stack.enter_context(process_pool(1))), True

    def done(self, busy: Collection[Any]) -> list[Any]:
        ready = wait([worker.future for worker in busy], return_when=FIRST_COMPLETED).done
        return [worker for worker in busy if worker.future in ready]


@contextmanager
def processes(num: int) -> Iterator[Executor]:
    """Processes of this machine; they end with the block."""
    with one_thread_each(), ExitStack() as stack:
        yield Processes(num, stack)


class _Actor:
    """A worker on the cluster. Until it has started it is busy with that."""

    def __init__(self, actor: Any) -> None:
        self.actor, self.node_id, self.has_job = actor, "", False
        self.ref = actor.node_id.remote()

    def give(self, run: Run, arguments: Arguments) -> None:
        self.has_job = True
        self.ref = self.actor.call.remote(run, arguments)

    def result(self) -> Any:
        import ray

        try:
            found = ray.get(self.ref)
        except ray.exceptions.RayTaskError as error:
            if isinstance(error.cause, HandloomError | ModuleNotFoundError):
                raise error.cause from None
            raise
        except ray.exceptions.RayError as error:
            ray.kill(self.actor)  # it may only be out of reach, and would go on
            raise Died(str(error).strip().splitlines()[0], not self._is_node_lost()) from error
        if self.has_job:
            return found
        self.node_id = found
        return None

    def _is_node_lost(self) -> bool:
        import ray

        return any(node["NodeID"] == self.node_id and not node["Alive"] for node in ray.nodes())


class Actors:
    """`num` actors of one core each, of which those work that the cluster has room for."""

    def __init__(self, num: int, address: str) -> None:
        import ray

        from handloom.kernels import for_workers
        from handloom.workers.episodes import EpisodeWorker

        self.num, self._address = num, address
        # What dies is started again by the driver: Ray would not say which job it had.
        options = {"num_cpus": 1, "max_restarts": 0, "runtime_env": {"env_vars": for_workers()}}
        self._kind = ray.remote(**options)(EpisodeWorker)
        self._new: list[_Actor] = []
        self._every: list[_Actor] = []
        self._seen_s = time.monotonic()

    def begin(self, num: int) -> None:
        """Start so many, and wait until they have started, or a minute."""
        import ray

        self._new = [self._made() for _ in range(num)]
        ray.wait([one.ref for one in self._new], num_returns=num, timeout=START_S)

    def start(self) -> tuple[Worker, bool]:
        return self._new.pop() if self._new else self._made(), False

    def done(self, busy: Collection[Any]) -> list[Any]:
        import ray

        while True:
            ready = set(ray.wait([worker.ref for worker in busy], timeout=LOOK_S)[0])
            if ready or any(worker.has_job for worker in busy):
                self._seen_s = time.monotonic()
            if ready:
                return [worker for worker in busy if worker.ref in ready]
            if time.monotonic() - self._seen_s > WAIT_S:
                raise _full(self._address)

    def end(self) -> None:
        """End all, also in the middle of their jobs."""
        import ray

        for one in self._every:
            ray.kill(one.actor)

    def _made(self) -> _Actor:
        self._every.append(_Actor(self._kind.remote()))
        return self._every[-1]


def _full(address: str) -> HandloomError:
    from handloom.pipelines.cluster.broker import ClusterView

    problem = f"no core of the cluster at {address} was free for {WAIT_S:g} s: {ClusterView().holders_text('')}"
    return HandloomError(problem, ROOM)


@contextmanager
def actors(num: int | None, most: int, address: str) -> Iterator[Executor]:
    """Actors on the cluster at `address`, which end with the block.

    Args:
        num: how many; runs of extraction scale down for them where the cluster is full. None: as many as it has cores;
            those work that find a free one, and extraction scales down for one. most: no more than this.

    Raises:
        ConfigError: there is no cluster, or its cores are not free within `WAIT_S`.
    """
    import ray

    from handloom.pipelines.cluster.connect import joined
    from handloom.pipelines.cluster.reservation import reserve_resources

    with joined(address):
        asked = min(num or 1, most)
        every = num or int(ray.cluster_resources().get("CPU", 1))
        crew = Actors(max(asked, min(every, most)), address)
        try:
            if ray.available_resources().get("CPU", 0.0) < asked:
                try:
                    with reserve_resources([{"CPU": 1.0}] * asked, JOB, WAIT_S):
                        crew.begin(asked)
                except ConfigError as error:
                    raise ConfigError(error.problem, ROOM) from error
            yield crew
        finally:
            crew.end()
