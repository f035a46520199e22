"""Ray Train, started again as long as it is machines that fail: what dies resumes, what is wrong is told."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import ray

from handloom.errors import ConfigError, HandloomError
from handloom.pipelines.cluster.broker import no_room
from handloom.pipelines.cluster.capacity import amounts_text, look, place
from handloom.pipelines.cluster.ray_private import death_behind, ends_for_lack_of_room
from handloom.pipelines.train.progress import TrainProgress
from handloom.schemas.training import TrainResources
from handloom.workers.training.peers import RankLost
from handloom.workers.training.training import TrainingPlan, training_worker


def settled(resources: TrainResources, is_own: bool) -> TrainResources:
    """With `cpus_per_worker` filled in. is_own: Ray was started for this job, which has the machine alone."""
    if resources.cpus_per_worker is not None:
        return resources
    cpus = int(look().total["CPU"]) // resources.workers if is_own else 1
    return resources.model_copy(update={"cpus_per_worker": float(max(cpus, 1))})


def bundles(resources: TrainResources) -> list[dict[str, float]]:
    """What every worker reserves on its node."""
    one = {"CPU": resources.cpus_per_worker or 1.0, "GPU": resources.gpus_per_worker}
    return [{name: amount for name, amount in one.items() if amount}] * resources.workers


def check_could_fit(resources: TrainResources) -> None:
    """Refuse at once what the cluster, if nobody else were on it, could not hold.

    A cluster that gets more nodes is asked all the same, and `wait_s` decides.

    Raises:
        ConfigError: with what is asked and what the cluster has.
    """
    room, asked = look(), bundles(resources)
    placed = place(room.nodes, asked[0], len(asked))[1]
    if placed < len(asked) and not room.scales:
        raise ConfigError(
            f"the cluster has {amounts_text(room.total)}, but {len(asked)} workers of {amounts_text(asked[0])} "
            "were asked for",
            "lower --workers, resources.cpus_per_worker or resources.gpus_per_worker, or add nodes",
        )


log = logging.getLogger(__name__)

POLL_S = 0.25
STORAGE = ".ray"


@dataclass(frozen=True)
class End:
    """exit: `done` or `interrupted`. deaths: how often workers died and the job went on."""

    exit: str
    deaths: int


class WorkersDied(HandloomError):
    """Training workers died more often than `resources.max_failures` allows."""


def run_attempts(plan: TrainingPlan, resources: TrainResources, ledger, progress: TrainProgress) -> End:
    """Train to the end. A first Ctrl-C or SIGTERM makes the workers write a checkpoint and end.

    Ray Train itself is told not to try again: it would repeat wrong settings and bugs as often as deaths.

    Raises:
        HandloomError: one that a worker raised; WorkersDied; ConfigError where there is no room.
        ray.train.TrainingFailedError: a bug, with the worker's trace.
    """
    deaths = 0
    try:
        while True:
            error = _attempt(plan, resources, ledger, progress)
            if error is None:
                stopped = ray.get(ledger.is_stopped.remote())
                return End("interrupted" if stopped else "done", deaths)
            death = _death(error, plan, resources)
            deaths += 1
            if deaths > resources.max_failures:
                raise WorkersDied(
                    f"training workers died {deaths} times, the last time: {death}",
                    "most often it is memory: lower batch_size or loader_workers; `--set resources.max_failures=N` "
                    "tries more often; the same command goes on from the newest checkpoint",
                ) from error
            progress.say(f"a training worker died ({death}): going on from the newest checkpoint")
    finally:
        plan.out.remove(STORAGE)


def _attempt(plan, resources, ledger, progress) -> Exception | None:
    """One start of Ray Train, in a thread, so that signals are ours; its error, or None."""
    outcome: list[Exception | None] = []

    def fit() -> None:
        try:
            _trainer(plan, resources, ledger).fit()
            outcome.append(None)
        except (ray.train.TrainingFailedError, ray.exceptions.RayError) as error:
            outcome.append(error)

    with _environment(resources):
        thread = threading.Thread(target=fit, daemon=True, name="ray-train")
        thread.start()
        while thread.is_alive():
            try:
                thread.join(POLL_S)
                progress.show()
            except KeyboardInterrupt:
                ray.get(ledger.stop.remote())
                if not ray.get(ledger.pids.remote()):  # nobody trains yet: nothing to save
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


def _death(error: Exception, plan: TrainingPlan, resources: TrainResources) -> str:
    """How a worker died, on one line. Raises what is no death: our own errors, no room, and bugs."""
    failures = _failures(error)
    for failure in failures:
        if isinstance(failure, HandloomError) and not isinstance(failure, RankLost):
            raise failure from None
        if ends_for_lack_of_room(failure):
            raise no_room(f"training {plan.recipe}", bundles(resources), resources.wait_s) from None
    deaths = [death for failure in failures if (death := death_behind(failure)) is not None]
    lost = [failure for failure in failures if isinstance(failure, RankLost)]
    for cause in [*deaths, *lost]:  # who died, before who missed it
        return str(cause).strip().splitlines()[0]
    raise error


def _failures(error: Exception) -> list[Exception]:
    """The errors of the ranks, or of the controller."""
    if isinstance(error, ray.train.WorkerGroupError):
        return list(error.worker_failures.values())
    return [error.controller_failure if isinstance(error, ray.train.ControllerError) else error]


@contextmanager
def _environment(resources: TrainResources) -> Iterator[None]:
    """What Ray Train reads from the environment of the process that starts it; what a user has set there stays."""
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
