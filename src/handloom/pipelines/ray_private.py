"""Everything that is taken from Ray's inside, where its public calls give no way: one function each.

Each says why it is needed. tests/pipelines/test_ray_private.py holds the installed Ray to what they rely on. A Ray that
has lost one of the names ends in an error that says which version was tested.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager

import ray
from ray.job_config import JobConfig

from handloom.errors import HandloomError

TESTED = "2.60.0"
"""The Ray that the whole suite runs on."""

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
