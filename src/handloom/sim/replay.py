"""Replay of the most similar demonstration: what a policy without learning achieves."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from handloom.errors import ConfigError
from handloom.ingest.robot.lerobot import LeRobotSource
from handloom.ingest.robot.source import Skip
from handloom.sim.tasks import Task
from handloom.sim.world import ACTION_WIDTH, Observation

ENVIRONMENT, ACTION = "observation.environment_state", "action"


class Replay:
    """Does what was done in the demonstration that began most like this episode, and then keeps still.

    Alike: the distance of all numbers of `Observation.environment` at the first step, each divided by its standard
    deviation over the demonstrations.

    Raises:
        ConfigError: no dataset, without a demonstration of this task, or with other numbers than the world has.
    """

    def __init__(self, dataset: str, task: Task) -> None:
        self._starts, self._actions = _demonstrations(dataset, task)
        self._dataset, self._left = dataset, np.empty((0, ACTION_WIDTH))

    def reset(self, task: str, seed: int) -> None:
        """Choose again at the next step."""
        self._left = np.empty((0, ACTION_WIDTH))

    def act(self, observation: Observation) -> NDArray[np.float64]:
        """At the first step the whole demonstration, later the gripper's last command."""
        if not len(self._left):
            if self._starts.shape[1] != len(observation.environment):
                raise ConfigError(
                    f"{self._dataset} has {self._starts.shape[1]} numbers of {ENVIRONMENT}, the task's world "
                    f"{len(observation.environment)}",
                    "record it with `handloom sim record`",
                )
            spread = self._starts.std(axis=0)
            away = (self._starts - observation.environment) / np.where(spread > 1e-6, spread, 1.0)
            self._left = self._actions[int(np.linalg.norm(away, axis=1).argmin())]
            return self._left
        return np.array([[0.0, 0.0, 0.0, self._left[-1, -1]]])


@lru_cache(maxsize=8)
def _demonstrations(dataset: str, task: Task) -> tuple[NDArray[np.float64], list[NDArray[Any]]]:
    """(N, E) what the environment was at the first step of each demonstration of a task; its actions (T, 4)."""
    source = LeRobotSource(dataset, dataset="demonstrations", state=(ENVIRONMENT,), action=(ACTION,))
    starts, actions, others = [], [], set()
    for episode in source.episodes():
        if isinstance(episode, Skip) or episode.state is None or episode.action is None:
            continue
        if episode.task != task.text:
            others.add(episode.task)
        elif episode.action.values.shape[1] == ACTION_WIDTH and len(episode.action.values):
            starts.append(episode.state.values[0])
            actions.append(episode.action.values.astype(np.float64))
    if not starts:
        seen = f": it shows {', '.join(sorted(map(repr, others)))}" if others else ""
        raise ConfigError(
            f"{dataset} has no demonstration of {task.name} ({task.text!r}){seen}",
            f"handloom sim record --task {task.name} --out DATASET",
        )
    return np.stack(starts).astype(np.float64), actions
