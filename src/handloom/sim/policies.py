"""Policies that act in a world: the protocol, scripted experts, random actions, and those of other packages."""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from handloom.errors import ConfigError
from handloom.named import load_named
from handloom.sim.rendering import Camera
from handloom.sim.replay import Replay
from handloom.sim.tasks import Task
from handloom.sim.world import ACTION_WIDTH, Observation, scripted_expert

FORMS = (
    "expert, random, replay:DATASET, arm4r:CHECKPOINT, arvrm:CHECKPOINT, or package.module:CLASS for one of your own"
)


@runtime_checkable
class Policy(Protocol):
    """What acts in a world.

    A policy that wants pictures has an attribute `camera` (`rendering.Camera`), and may have a method `looks(step)`:
    whether it wants one at that step; without it there is one for each call of `act`.
    """

    def reset(self, task: str, seed: int) -> None:
        """A new episode begins: what to do, in words; and the seed of all that the policy draws at random."""

    def act(self, observation: Observation) -> NDArray[Any]:
        """The next n actions, (n, 4), n >= 1, each -1 to 1 (`world.ACTION_NAMES`); asked again when they are done."""


class Expert:
    """Meta-World's scripted expert of one task, which knows where everything is."""

    def __init__(self, task: Task) -> None:
        self._expert: Any = scripted_expert(task)
        self._task = task

    def reset(self, task: str, seed: int) -> None:
        self._expert = scripted_expert(self._task)

    def act(self, observation: Observation) -> NDArray[np.float64]:
        return np.clip(self._expert.get_action(observation.vector), -1, 1)[None]


class Random:
    """Uniform actions of so many numbers: what chance alone achieves."""

    def __init__(self, width: int = ACTION_WIDTH) -> None:
        self._width = width

    def reset(self, task: str, seed: int) -> None:
        self._rng = np.random.default_rng(seed)

    def act(self, observation: Observation) -> NDArray[np.float64]:
        return self._rng.uniform(-1, 1, (1, self._width))


def find_policy(name: str, task: Task) -> Policy:
    """A policy for one task by its name, see `FORMS`. Raises ConfigError: no such policy, or one that does not fit."""
    if name == "expert":
        return Expert(task)
    if name == "random":
        return Random()
    kind, _, rest = name.partition(":")
    if kind == "replay" and rest:
        return Replay(rest, task)
    if kind in ("arm4r", "arvrm") and rest:
        from handloom.sim.recipes import Trained  # needs torch, which other policies do not

        return Trained(kind, rest, task)
    if not kind or not rest or "/" in name:
        raise ConfigError(f"there is no policy {name!r}", f"give {FORMS}")
    return own_policy(name)


def own_policy(name: str) -> Policy:
    """An instance of a class of another package, `package.module:CLASS`. Raises ConfigError: there is none, or it is
    no policy."""
    found = load_named(f"the policy {name}", name)
    needed = "a class with reset(task, seed) and act(observation); docs/sim.md shows one"
    if not callable(found):
        raise ConfigError(f"the policy {name} is a {type(found).__name__}", f"it must be {needed}")
    try:
        policy = found()
    except TypeError as error:
        raise ConfigError(f"the policy {name}: {error}", "it is made without arguments") from error
    camera = getattr(policy, "camera", None)
    if not isinstance(camera, Camera | None):
        problem = f"the policy {name}: its camera is a {type(camera).__name__}"
        raise ConfigError(problem, 'expected handloom.sim.rendering.Camera("corner4", 128, 128), or None')
    if not isinstance(policy, Policy):
        lacks = " and ".join(part for part in ("reset", "act") if not hasattr(policy, part))
        raise ConfigError(f"the policy {name}: {type(policy).__name__} has no {lacks}", f"it must be {needed}")
    return policy


def actions_of(policy: Policy, observation: Observation, width: int = ACTION_WIDTH) -> NDArray[np.float64]:
    """The policy's next actions, (n, width). Raises ConfigError where it returns something else."""
    given = policy.act(observation)
    try:
        actions = np.asarray(given, np.float64)
    except (TypeError, ValueError) as error:
        actions, problem = np.empty(0), f"a {type(given).__name__}: {error}"
    else:
        problem = f"an array of shape {actions.shape}"
    if actions.ndim != 2 or actions.shape[1] != width or not len(actions):
        name = f"{type(policy).__module__}:{type(policy).__name__}"
        raise ConfigError(f"the policy {name} returned {problem}", f"act() must return (n, {width}), n >= 1")
    return actions
