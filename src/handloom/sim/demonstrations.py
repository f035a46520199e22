"""Demonstrations by scripted experts, as episodes of a LeRobot dataset."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from handloom.export.lerobot.dataset import Episode, Layout
from handloom.export.lerobot.meta import Feature, video_feature
from handloom.export.lerobot.robots import PICTURE_VALID, video_key
from handloom.sim.policies import Expert
from handloom.sim.rendering import Camera, Painter
from handloom.sim.replay import ACTION, ENVIRONMENT
from handloom.sim.rollouts import Move, moves
from handloom.sim.tasks import MAX_STEPS, Task
from handloom.sim.world import ACTION_NAMES, HZ, ROBOT_TYPE, STATE_NAMES, World

STATE, REWARD, SUCCESS, DONE = "observation.state", "next.reward", "next.success", "next.done"
AFTER_STEPS = 40
"""Steps that a demonstration goes on after the task is done, so that it shows how the hand comes to rest: at the first
step at which `reach` is done, the hand still moves at half a metre a second."""
SOURCE = pa.schema(
    [
        pa.field("sim_task", pa.string()),
        pa.field("scene_seed", pa.int64()),
        pa.field("success", pa.bool_()),
        pa.field("steps_to_success", pa.int64()),
    ]
)


@dataclass(frozen=True)
class Pictures:
    """How a demonstration is filmed: a picture every `every` steps. backend: what `rendering.backend` gave."""

    camera: Camera
    every: int
    backend: str


@dataclass(frozen=True)
class Demonstration:
    """An expert's episode; T steps. failure: a key of `rollouts.FAILURES`, empty after a success.

    steps: until the task was done. values: by feature, (T, D). pictures: (P, h, w, 3), one of every `Pictures.every`
    steps.
    """

    scene_seed: int
    failure: str
    detail: str
    steps: int
    values: dict[str, NDArray[Any]]
    pictures: NDArray[np.uint8] | None


def demonstrate(world: World, scene_seed: int, pictures: Pictures | None) -> Demonstration:
    """The expert's episode in one scene, to `AFTER_STEPS` after the task is done; without values if it fails."""
    painter = None if pictures is None else Painter(world, pictures.camera, pictures.backend)
    shown: list[NDArray[np.uint8]] = []

    def look(number: int) -> None:
        if pictures is not None and painter is not None and number % pictures.every == 0:
            shown.append(painter.picture())

    found: list[Move] = []
    first: int | None = None
    try:
        for number, move in enumerate(moves(world, Expert(world.task), scene_seed, 0, MAX_STEPS, look)):
            found.append(move)
            first = number if move.success and first is None else first
            if move.failure or (first is not None and number >= first + AFTER_STEPS):
                break
    finally:
        if painter is not None:
            painter.close()
    failed = found[-1].failure or ("not_done" if first is None else "")
    if failed or first is None:
        detail = found[-1].detail or f"{MAX_STEPS} steps"
        return Demonstration(scene_seed, failed, detail, 0, {}, None)
    images = None if pictures is None else np.stack(shown)
    return Demonstration(scene_seed, "", "", first + 1, _values(found), images)


def _values(found: Sequence[Move]) -> dict[str, NDArray[Any]]:
    """(T, D) of each feature but the pictures."""
    last = np.arange(len(found)) == len(found) - 1
    return {
        STATE: np.stack([move.before.state for move in found]),
        ENVIRONMENT: np.stack([move.before.environment for move in found]),
        ACTION: np.stack([move.action for move in found]),
        REWARD: np.array([[move.reward] for move in found]),
        SUCCESS: np.array([[move.success] for move in found]),
        DONE: last[:, None],
    }


def layout_of(environment_names: Sequence[str], pictures: Pictures | None) -> Layout:
    """The features of a task's demonstrations. environment_names: `World.environment_names`."""
    metres = {"x": "m", "y": "m", "z": "m"}
    features: dict[str, Feature] = {}
    if pictures is not None:
        camera = pictures.camera
        features[video_key(camera.name)] = video_feature(camera.width, camera.height)
        features[PICTURE_VALID] = Feature("bool", (1,), (video_key(camera.name),))
    state_units = tuple(metres.get(name) for name in STATE_NAMES)
    features[STATE] = Feature("float32", (len(STATE_NAMES),), STATE_NAMES, state_units)
    units = tuple(metres.get(name.rpartition(".")[2]) for name in environment_names)
    features[ENVIRONMENT] = Feature("float32", (len(environment_names),), tuple(environment_names), units)
    features[ACTION] = Feature("float32", (len(ACTION_NAMES),), ACTION_NAMES)
    features[REWARD] = Feature("float32", (1,))
    features |= {name: Feature("bool", (1,)) for name in (SUCCESS, DONE)}
    return Layout(features, HZ, SOURCE, ROBOT_TYPE)


def episode_of(demonstration: Demonstration, task: Task, pictures: Pictures | None) -> Episode:
    """A demonstration that succeeded as an episode: where a step has no picture, the last one is repeated."""
    values, num = dict(demonstration.values), len(demonstration.values[ACTION])
    images = {}
    if pictures is not None and demonstration.pictures is not None:
        every, shown = pictures.every, demonstration.pictures
        values[PICTURE_VALID] = (np.arange(num) % every == 0)[:, None]
        images[video_key(pictures.camera.name)] = lambda: (shown[number // every] for number in range(num))
    source = {
        "sim_task": task.name,
        "scene_seed": demonstration.scene_seed,
        "success": True,
        "steps_to_success": demonstration.steps,
    }
    return Episode(task.text, num, values, images, source)
