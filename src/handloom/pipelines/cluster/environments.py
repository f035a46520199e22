"""Environments of groups of stages: Ray builds them on each node. They are tried before a pool starts."""

from __future__ import annotations

import json
import time
from collections.abc import Collection, Sequence
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from handloom.errors import ConfigError
from handloom.kernels import for_workers
from handloom.stages.pools.groups import SHARED, Group
from handloom.workers.place import here
from handloom.workers.setup import WorkerSetup

MAX_WORDS = 600
HINT = (
    "correct env in [stages.NAME] (Ray's runtime environment: pip, env_vars, working_dir); pip needs the package "
    "virtualenv and a package index that the node can reach; resources.load_s is the longest wait"
)


def environment_of(group: Group) -> dict[str, Any]:
    """Ray's runtime environment of a group's actors: its own, with the variables that all workers have."""
    own = json.loads(group.needs.env)
    return own | {"env_vars": {**own.get("env_vars", {}), **for_workers()}}


def failing_environments(setup: WorkerSetup, node_ids: Collection[str]) -> dict[str, ConfigError]:
    """Build the environments of all groups on these nodes, and check versions in them.

    Returns:
        `{node id: why it cannot work}` of the nodes on which one cannot be built within `resources.load_s`, or makes
        other rows; each names the stages.

    Raises:
        ConfigError: one is none that Ray can build on any node.
    """
    groups = [group for group in setup.groups if group.needs.env != SHARED.env]
    refs = [(_try(setup, group, node_id), group, node_id) for group in groups for node_id in node_ids]
    until = time.monotonic() + setup.resources.load_s
    failed: dict[str, ConfigError] = {}
    for ref, group, node_id in refs:
        try:
            _check(ref, group, max(0.0, until - time.monotonic()), setup.resources.load_s)
        except ConfigError as error:
            failed.setdefault(node_id, error)
    return failed


def _try(setup: WorkerSetup, group: Group, node_id: str) -> ray.ObjectRef:
    """A task in the group's environment on the node. Raises ConfigError for what is no environment."""
    there = NodeAffinitySchedulingStrategy(node_id, soft=False)
    options = {"num_cpus": 0, "max_retries": 0, "scheduling_strategy": there, "runtime_env": environment_of(group)}
    try:
        return ray.remote(_works).options(**options).remote(setup, group)
    except (ValueError, TypeError, RuntimeError) as error:  # how Ray refuses what it cannot understand
        problem = f"the environment of [stages.{group.name}] is none that Ray can build: {error}"
        raise ConfigError(problem, HINT) from None


def _works(setup: WorkerSetup, group: Group) -> tuple[str, str] | None:
    """In the environment: why it cannot be used, as problem and hint."""
    try:
        setup.check_group(group, here().host)
    except ConfigError as error:
        return error.problem, error.hint
    return None


def _check(ref: ray.ObjectRef, group: Group, wait_s: float, limit_s: float) -> None:
    where = f"the environment of [stages.{group.name}]"
    try:
        found = ray.get(ref, timeout=wait_s)
    except ray.exceptions.GetTimeoutError:
        raise ConfigError(f"{where} was not ready within {limit_s:g} s", HINT) from None
    except ray.exceptions.RuntimeEnvSetupError as error:
        raise ConfigError(f"{where} cannot be built: {_last_words(str(error))}", HINT) from None
    except ray.exceptions.RayError as error:
        raise ConfigError(f"{where} cannot be used: {_last_words(str(error))}", HINT) from None
    if found is not None:
        raise ConfigError(f"{where} cannot be used: {found[0]}", found[1] or HINT)


def _last_words(text: str) -> str:
    """The lines that say what went wrong: pip marks them, and says at length what it did before."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    marked: Sequence[str] = [line for line in lines if line.startswith(("ERROR", "ModuleNotFoundError"))]
    return " ".join(marked or lines[-3:])[-MAX_WORDS:]
