"""All uses of Ray's private names, for what its public calls cannot do: one function each, which says why.

tests/pipelines/test_ray_private.py checks the installed Ray. If a Ray has lost one of the names, the command ends with
an error that says which version was tested.
"""

from __future__ import annotations

import inspect
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import ray
from ray.job_config import JobConfig

from handloom.errors import HandloomError

TESTED = "2.60.0"
"""The Ray with which all tests are run."""

WAIT_S = 0.5
"""The longest wait of Ray Data for results before it looks for other work."""

Amounts = Mapping[str, float]
"""CPUs, GPUs and bytes of memory by Ray's names: `CPU`, `GPU`, `memory`."""


@contextmanager
def _inside(what: str) -> Iterator[None]:
    """Raise HandloomError if a private name is missing."""
    try:
        yield
    except (AttributeError, ImportError) as error:
        problem = f"Ray {ray.__version__} has changed inside, {what} needs a name that is missing: {error}"
        hint = f"install the Ray that handloom is tested with: pip install 'ray=={TESTED}'"
        raise HandloomError(problem, hint) from error


def free_by_node() -> dict[str, Amounts]:
    """`{node id: what is not reserved}`. `ray.available_resources` is a sum, but an actor must fit onto one node."""
    with _inside("counting what each node has free"):
        return dict(ray._private.state.available_resources_per_node())


def gets_more_nodes() -> bool:
    """Whether an autoscaler adds nodes to this cluster: then Ray knows how large it may grow."""
    with _inside("asking for the autoscaler"):
        return bool(ray._private.state.state.get_max_resources_from_cluster_config())


def session_folder() -> str:
    """The folder of this process's Ray: logs, sockets, and the environments that it has built (`runtime_resources`)."""
    with _inside("finding Ray's folder"):
        return ray._private.worker._global_node.get_session_dir_path()


def never_start_unasked() -> None:
    """From now on a call of Ray after `ray.shutdown` is an error.

    Ray would start a second cluster for it (seen: a thread's progress line after the end). RAY_ENABLE_AUTO_CONNECT has
    the same effect, but only if it is set before Ray is imported, which a library cannot ensure.
    """
    with _inside("keeping Ray from starting by itself"):
        _look_up(ray._private.auto_init_hook, "enable_auto_connect")
        ray._private.auto_init_hook.enable_auto_connect = False


@contextmanager
def groups_of_their_own() -> Iterator[None]:
    """A Ray that is started inside the block has process groups of its own.

    SIGTERM to the driver's group (`timeout`, a shell, a batch system) is for the driver, which ends the run in order.
    Ray blocks SIGINT only: its processes ended at once, and the driver, which called them, hung for a minute and ended
    without its summary. They still end with the driver (PDEATHSIG): this runs beside the call that arranges it.
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
def without_monitors() -> Iterator[None]:
    """A local Ray that is started inside the block has no log reader, and Ray Data no actor that collects statistics.

    They serve a dashboard, and a driver that prints logs: here is neither. They took 1.5 s of CPU time in a run of a
    minute, most of it while they started.
    """
    with _inside("starting Ray without its monitors"):
        from ray._private.node import Node
        from ray.data._internal.stats import _StatsManager as Statistics

        calls = ("update_execution_metrics", "update_iteration_metrics", "register_dataset_to_stats_actor")
        quiet = [(Node, "start_log_monitor"), *((Statistics, name) for name in calls)]
        before = [(where, name, inspect.getattr_static(where, name)) for where, name in quiet]
    with _set([(where, name, staticmethod(_nothing)) for where, name in quiet], before):
        yield


@contextmanager
def no_more_nodes() -> Iterator[None]:
    """Ray Data requests no nodes, and does not look up the nodes of its actors: a local Ray has one node.

    The two actors that it would start for that take a second each to start, and 1 % of a core.
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

    instead: tuple[Any, ...] = (lambda *_, **__: SameNodes(), _OneNode, lambda _: {})
    with _set([(*one, value) for one, value in zip(names, instead, strict=True)], before):
        yield


class _OneNode:
    """Stands in for the actor that keeps the nodes of a pool's actors."""

    @property
    def update_actor_location(self) -> _OneNode:
        return self

    def remote(self, actor: str, node: str) -> None:
        """Each actor of a pool calls it; the node is not looked up."""


@contextmanager
def polling_less() -> Iterator[None]:
    """Ray Data looks for work besides results twice a second, not ten times.

    A result or a stop still ends the wait at once. Shards take seconds, and ten looks a second cost the driver and the
    processes that it calls 2 % of a core.
    """
    with _inside("letting Ray Data wait"):
        from ray.data._internal.execution import streaming_executor_state as state

        before = [(state, "WAIT_FOR_TASK_COMPLETION_TIMEOUT_S", state.WAIT_FOR_TASK_COMPLETION_TIMEOUT_S)]
    with _set([(*before[0][:2], WAIT_S)], before):
        yield


@contextmanager
def _set(inside: Iterable[tuple[object, str, object]], after: Iterable[tuple[object, str, object]]) -> Iterator[None]:
    """Set attributes (owner, name, value) for the block, and others after it."""
    for owner, name, value in inside:
        setattr(owner, name, value)
    try:
        yield
    finally:
        for owner, name, value in after:
            setattr(owner, name, value)


def _nothing(*_: object, **__: object) -> None:
    """Replaces a call of Ray's that is not needed."""


class _OtherFolders(list[str]):
    """The first folders of the workers' import path: the script's, but not the working directory."""

    def extend(self, folders: Iterable[str]) -> None:
        super().extend(folder for folder in folders if folder != os.path.abspath(os.curdir))


def job_without_working_directory() -> JobConfig:
    """A job whose workers do not have the driver's working directory on their import path, where Ray puts it."""
    config = JobConfig()
    with _inside("keeping the working directory off the import path"):
        _look_up(config, "_py_driver_sys_path")
        config._py_driver_sys_path = _OtherFolders()
    return config


def stop_dataset(data: ray.data.Dataset, wait_s: float) -> None:
    """Stop the actors of a dataset that is being read, from any thread. No effect before it is read."""
    with _inside("stopping a pool"):
        executor = data._current_executor
        if executor is not None:
            executor.shutdown(force=True)
            executor.join(wait_s)  # shutdown itself waits for two seconds only


def lacked_resources(failure: Exception) -> bool:
    """Whether Ray Train's workers found no free resources on the cluster."""
    with _inside("finding out how training ended"):
        from ray.train.v2._internal import exceptions

        return isinstance(
            failure, exceptions.WorkerGroupStartupTimeoutError | exceptions.InsufficientClusterResourcesError
        )


def crash_behind(failure: Exception) -> Exception | None:
    """The crash of a worker or of its node that caused a failure of Ray Train; None if it has another cause."""
    with _inside("finding out how training ended"):
        from ray.train.v2._internal import exceptions

        checked: Any = failure if isinstance(failure, exceptions.WorkerHealthCheckFailedError) else None
        cause = failure if checked is None else checked.health_check_failure
        crashes = (
            ray.exceptions.RayActorError,
            ray.exceptions.NodeDiedError,
            exceptions.WorkerGroupStartupFailedError,
            exceptions.WorkerHealthCheckTimeoutError,
        )
        return cause if isinstance(cause, crashes) else None


def _look_up(where: object, name: str) -> None:
    """Raise AttributeError if there is no such name: setting it would succeed all the same, without effect."""
    getattr(where, name)
