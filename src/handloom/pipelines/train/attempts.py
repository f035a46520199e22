"""Starts of Ray Train: after a crash of a worker the job resumes, errors of settings, data and code end it."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import ray

from handloom.errors import ConfigError, HandloomError
from handloom.pipelines.cluster.broker import ClusterView, named, not_free
from handloom.pipelines.cluster.capacity import amounts_text, look, place
from handloom.pipelines.cluster.ray_private import crash_behind, lacked_resources
from handloom.pipelines.train.progress import TrainProgress
from handloom.schemas.training import TrainResources
from handloom.workers.training.peers import RankLost
from handloom.workers.training.training import TrainingPlan, training_worker

POLL_S = 0.25
STORAGE = ".ray"


def settled(resources: TrainResources, is_own: bool) -> TrainResources:
    """The resources with `cpus_per_worker` filled in. is_own: Ray was started for this job alone."""
    if resources.cpus_per_worker is not None:
        return resources
    cpus = int(look().total["CPU"]) // resources.workers if is_own else 1
    return resources.model_copy(update={"cpus_per_worker": float(max(cpus, 1))})


def bundles(resources: TrainResources) -> list[dict[str, float]]:
    """The resources that each worker reserves on its node, one entry for each worker."""
    one = {"CPU": resources.cpus_per_worker or 1.0, "GPU": resources.gpus_per_worker}
    return [{name: amount for name, amount in one.items() if amount}] * resources.workers


def check_could_fit(resources: TrainResources) -> None:
    """Refuse at once what the cluster could not hold even without other jobs.

    A cluster that scales may add nodes: it is not refused here, and `wait_s` limits the wait.

    Raises:
        ConfigError: with the resources that are asked for and those of the cluster.
    """
    cluster, asked = look(), bundles(resources)
    placed = place(cluster.nodes, asked[0], len(asked))[1]
    if placed < len(asked) and not cluster.scales:
        raise ConfigError(
            f"the cluster has {amounts_text(cluster.total)}, but {len(asked)} workers of {amounts_text(asked[0])} "
            "were asked for",
            "lower --workers, resources.cpus_per_worker or resources.gpus_per_worker, or add nodes",
        )


@dataclass(frozen=True)
class End:
    """exit: `done` or `interrupted`. num_crashes: how often workers crashed and the job resumed."""

    exit: str
    num_crashes: int


class WorkersDied(HandloomError):
    """Training workers crashed more often than `resources.max_failures` allows."""


def run_attempts(plan: TrainingPlan, resources: TrainResources, ledger, progress: TrainProgress) -> End:
    """Train to the end. At the first Ctrl-C or SIGTERM the workers write a checkpoint and end.

    Ray Train's own retries are off: they would repeat wrong settings and bugs as often as crashes.

    Raises:
        HandloomError: as a worker raised it.
        WorkersDied: more crashes than `resources.max_failures`.
        ConfigError: the cluster has no free resources within `resources.wait_s`.
        ray.train.TrainingFailedError: a bug, with the worker's trace.
    """
    num_crashes = 0
    try:
        while True:
            error = _attempt(plan, resources, ledger, progress)
            if error is None:
                stopped = ray.get(ledger.is_stopped.remote())
                return End("interrupted" if stopped else "done", num_crashes)
            crash = _crash(error, plan, resources)
            num_crashes += 1
            if num_crashes > resources.max_failures:
                raise WorkersDied(
                    f"training workers died {num_crashes} times, the last time: {crash}",
                    "the most frequent cause is memory: lower batch_size or loader_workers; `--set "
                    "resources.max_failures=N` allows more; the same command resumes from the newest checkpoint",
                ) from error
            progress.say(f"a training worker died ({crash}): resuming from the newest checkpoint")
    finally:
        plan.out.remove(STORAGE)


def _attempt(plan, resources, ledger, progress) -> Exception | None:
    """One start of Ray Train; its error, or None. It runs in a thread, so that signals reach this one.

    Its end is told by an event: in Python 3.11 a `Thread.join` that Ctrl-C interrupts takes the thread for ended.
    """
    outcome: list[Exception | None] = []
    ended = threading.Event()

    def fit() -> None:
        try:
            _trainer(plan, resources, ledger).fit()
            outcome.append(None)
        except (ray.train.TrainingFailedError, ray.exceptions.RayError) as error:
            outcome.append(error)
        finally:
            ended.set()

    with _environment(resources):
        threading.Thread(target=fit, daemon=True, name="ray-train").start()
        while not ended.is_set():
            try:
                ended.wait(POLL_S)
                progress.show()
            except KeyboardInterrupt:
                ray.get(ledger.stop.remote())
                if not ray.get(ledger.pids.remote()):  # no worker has started: there is nothing to save
                    return None
    progress.show()
    if not outcome:
        raise HandloomError("Ray Train ended without a result", "run with `handloom -v train` and look at Ray's logs")
    return outcome[0]


def _trainer(plan: TrainingPlan, resources: TrainResources, ledger):
    from ray.train import FailureConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchConfig, TorchTrainer

    shared_gpu = 0 < resources.gpus_per_worker < 1 and resources.workers > 1  # NCCL refuses two ranks on one GPU
    scaling = ScalingConfig(
        num_workers=resources.workers,
        use_gpu=resources.gpus_per_worker > 0,
        resources_per_worker=bundles(resources)[0],
        placement_strategy=resources.placement,
    )
    run = RunConfig(
        name=f"job-{plan.token}",
        storage_path=plan.out.path(STORAGE),
        storage_filesystem=None if plan.out.is_local else plan.out.filesystem,
        failure_config=FailureConfig(max_failures=0, controller_failure_limit=0),
    )
    return TorchTrainer(
        training_worker,
        train_loop_config={"plan": plan, "ledger": ledger},
        torch_config=TorchConfig(backend="gloo" if shared_gpu else None),
        scaling_config=scaling,
        run_config=run,
    )


def _crash(error: Exception, plan: TrainingPlan, resources: TrainResources) -> str:
    """The cause of a worker's crash, on one line. Raises `error` itself, or the error behind it, if it is no crash: an
    error of handloom's own, a lack of resources, or a bug."""
    failures = _failures(error)
    for failure in failures:
        if isinstance(failure, HandloomError) and not isinstance(failure, RankLost):
            raise failure from None
        if lacked_resources(failure):
            holders = ClusterView().holders_text(named(f"training {plan.recipe}"))
            raise not_free(bundles(resources), resources.wait_s, holders) from None
    crashes = [crash for failure in failures if (crash := crash_behind(failure)) is not None]
    lost = [failure for failure in failures if isinstance(failure, RankLost)]
    for cause in [*crashes, *lost]:  # the rank that crashed goes before those that lost it
        return str(cause).strip().splitlines()[0]
    raise error


def _failures(error: Exception) -> list[Exception]:
    """The errors of the ranks, or the one of the controller."""
    if isinstance(error, ray.train.WorkerGroupError):
        return list(error.worker_failures.values())
    return [error.controller_failure if isinstance(error, ray.train.ControllerError) else error]


@contextmanager
def _environment(resources: TrainResources) -> Iterator[None]:
    """Set the environment variables that Ray Train reads; those that the user has set stay."""
    wanted = {
        "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": f"{resources.wait_s:g}",
        "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "1",
        "RAY_TRAIN_METRICS_ENABLED": "0",
        "RAY_CHDIR_TO_TRIAL_DIR": "0",
        "RAY_TRAIN_ENABLE_PRINT_PATCH": "0",
    }
    ours = {name: value for name, value in wanted.items() if name not in os.environ}
    os.environ.update(ours)
    try:
        yield
    finally:
        for name in ours:
            os.environ.pop(name, None)
