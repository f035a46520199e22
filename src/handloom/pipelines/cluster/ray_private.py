"""Everything that is taken from Ray's inside, where its public calls give no way: one function each.

Each says why it is needed. tests/pipelines/test_ray_private.py holds the installed Ray to what they rely on. A Ray that
has lost one of the names ends in an error that says which version was tested.
"""

from __future__ import annotations

import inspect
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager

import ray
from ray.job_config import JobConfig

from handloom.errors import HandloomError

TESTED = "2.60.0"
"""The Ray that the whole suite runs on."""

WAIT_S = 0.5
"""The longest that Ray Data waits for results before it looks for other work."""

Amounts = Mapping[str, float]
"""CPUs, GPUs and bytes of memory by Ray's names: `CPU`, `GPU`, `memory`."""


@contextmanager
def _inside(what: str) -> Iterator[None]:
    """Translate the loss of a private name."""
    try:
        yield
    except (AttributeError, ImportError) as error:
        problem = f"Ray {ray.__version__} has changed inside, {what} needs a name that is not there: {error}"
        hint = f"install the Ray that handloom is tested with: pip install 'ray=={TESTED}'"
        raise HandloomError(problem, hint) from error


def free_by_node() -> dict[str, Amounts]:
    """`{node id: what nobody has reserved}`.

    `ray.available_resources` adds the nodes up, and an actor must fit into one.
    """
    with _inside("counting what each node has free"):
        return dict(ray._private.state.available_resources_per_node())


def gets_more_nodes() -> bool:
    """Whether an autoscaler adds nodes to this cluster. Only one that does tells Ray how large it may grow."""
    with _inside("asking for the autoscaler"):
        return bool(ray._private.state.state.get_max_resources_from_cluster_config())


def never_start_unasked() -> None:
    """A call of Ray after `ray.shutdown` is an error from now on.

    Ray would start a second cluster for it (seen: a thread's progress line after the end). RAY_ENABLE_AUTO_CONNECT does
    the same where it is set before Ray is imported, which a library cannot see to.
    """
    with _inside("keeping Ray from starting by itself"):
        _look_up(ray._private.auto_init_hook, "enable_auto_connect")
        ray._private.auto_init_hook.enable_auto_connect = False


@contextmanager
def groups_of_their_own() -> Iterator[None]:
    """Let the processes of a Ray that is started inside leave our process group.

    SIGTERM to the group (`timeout`, a shell, a batch system) is for the driver, which ends the run in order. Ray's own
    processes would end at once, and the driver, asking them, hung for a minute and ended without its summary: Ray
    blocks SIGINT only. They still end with the driver (PDEATHSIG): this runs beside the call that sees to it.
    """
    with _inside("starting Ray's processes in groups of their own"):
        utils = ray._private.utils
        before = utils.set_kill_on_parent_death_linux

    def between_fork_and_exec() -> None:
        before()
        os.setpgrp()

    utils.set_kill_on_parent_death_linux = between_fork_and_exec
    try:
        yield
    finally:
        utils.set_kill_on_parent_death_linux = before


@contextmanager
def nobody_watches() -> Iterator[None]:
    """A local Ray that is started inside has no process that reads logs, and Ray Data gathers no numbers for it.

    They feed a dashboard, and a driver that asks for logs: there is neither. Log reader and gathering actor took 1.5 s
    of processor time in a run of a minute, most of it while they started.
    """
    with _inside("starting Ray without what watches it"):
        from ray._private.node import Node
        from ray.data._internal.stats import _StatsManager as Numbers

        told = ("update_execution_metrics", "update_iteration_metrics", "register_dataset_to_stats_actor")
        quiet = [(Node, "start_log_monitor"), *((Numbers, name) for name in told)]
        before = [(where, name, inspect.getattr_static(where, name)) for where, name in quiet]
    with _set([(where, name, staticmethod(_nothing)) for where, name in quiet], before):
        yield


@contextmanager
def no_more_nodes() -> Iterator[None]:
    """Ray Data asks nobody for nodes, nor which node its actors are on: a Ray of one machine has one.

    The two actors that it would ask take a second each to start, and 1 % of a core.
    """
    with _inside("keeping Ray Data from asking for nodes"):
        from ray.data._internal.cluster_autoscaler import ClusterAutoscaler
        from ray.data._internal.execution import streaming_executor
        from ray.data._internal.execution.interfaces import ExecutionResources
        from ray.data._internal.execution.operators import actor_pool_map_operator as pool

        places = ("get_or_create_actor_location_tracker", "get_actor_locations")
        names = [(streaming_executor, "create_cluster_autoscaler"), *((pool, name) for name in places)]
        before = [(where, name, getattr(where, name)) for where, name in names]

    class SameNodes(ClusterAutoscaler):
        """All that this Ray has, and no more."""

        def try_trigger_scaling(self) -> None:
            """Nothing to ask for."""

        def on_executor_shutdown(self) -> None:
            """Nothing was asked for."""

        def get_total_resources(self) -> ExecutionResources:
            return ExecutionResources.from_resource_dict(ray.cluster_resources())

    instead = (lambda *_, **__: SameNodes(), _OneNode, lambda _: {})
    with _set([(*one, value) for one, value in zip(names, instead, strict=True)], before):
        yield


class _OneNode:
    """Told by each actor of a pool where it is, in place of an actor that keeps it."""

    @property
    def update_actor_location(self) -> _OneNode:
        return self

    def remote(self, actor: str, node: str) -> None:
        """Nobody asks."""


@contextmanager
def unhurried() -> Iterator[None]:
    """Ray Data looks twice a second whether something is to be done besides taking results, not ten times.

    A result, or the wish to stop, ends the wait at once as before: shards take seconds, and ten looks cost the driver
    and those that it asks 2 % of a core.
    """
    with _inside("letting Ray Data wait"):
        from ray.data._internal.execution import streaming_executor_state as state

        before = [(state, "WAIT_FOR_TASK_COMPLETION_TIMEOUT_S", state.WAIT_FOR_TASK_COMPLETION_TIMEOUT_S)]
    with _set([(*before[0][:2], WAIT_S)], before):
        yield


@contextmanager
def _set(inside: Iterable[tuple[object, str, object]], after: Iterable[tuple[object, str, object]]) -> Iterator[None]:
    """Attributes (owner, name, value) while the block lasts, and those that they have behind it."""
    for owner, name, value in inside:
        setattr(owner, name, value)
    try:
        yield
    finally:
        for owner, name, value in after:
            setattr(owner, name, value)


def _nothing(*_: object, **__: object) -> None:
    """Instead of a call of Ray's that nobody needs."""


class _OtherFolders(list[str]):
    """What Ray puts first on its workers' import path: the script's folder, and not the working directory."""

    def extend(self, folders: Iterable[str]) -> None:
        super().extend(folder for folder in folders if folder != os.path.abspath(os.curdir))


def job_without_working_directory() -> JobConfig:
    """Ray puts the driver's working directory on its workers' import path; with this job it does not."""
    config = JobConfig()
    with _inside("keeping the working directory off the import path"):
        _look_up(config, "_py_driver_sys_path")
        config._py_driver_sys_path = _OtherFolders()
    return config


def stop_dataset(data: ray.data.Dataset, wait_s: float) -> None:
    """Stop the actors of a dataset that is being read, from whatever thread. Nothing to do before it is read."""
    with _inside("stopping a pool"):
        executor = data._current_executor
        if executor is not None:
            executor.shutdown(force=True)
            executor.join(wait_s)  # shutdown itself waits for two seconds only


def ends_for_lack_of_room(failure: Exception) -> bool:
    """Whether Ray Train's workers found no place in the cluster."""
    with _inside("telling how training ended"):
        from ray.train.v2._internal import exceptions

        return isinstance(
            failure, exceptions.WorkerGroupStartupTimeoutError | exceptions.InsufficientClusterResourcesError
        )


def death_behind(failure: Exception) -> Exception | None:
    """The death of a worker or of its node that a failure of Ray Train stands for; None where it is something else."""
    with _inside("telling how training ended"):
        from ray.train.v2._internal import exceptions

        checked = isinstance(failure, exceptions.WorkerHealthCheckFailedError)
        cause = failure.health_check_failure if checked else failure
        deaths = (
            ray.exceptions.RayActorError,
            ray.exceptions.NodeDiedError,
            exceptions.WorkerGroupStartupFailedError,
            exceptions.WorkerHealthCheckTimeoutError,
        )
        return cause if isinstance(cause, deaths) else None


def _look_up(where: object, name: str) -> None:
    """Raise AttributeError where there is no such name: to set it would succeed all the same, without an effect."""
    getattr(where, name)
