"""One episode of a policy in a world, step by step, and what came of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from handloom.sim.failures import ACTION_NOT_FINITE, DIVERGED, SHARED
from handloom.sim.policies import Policy, actions_of
from handloom.sim.rendering import Camera, Painter, backend
from handloom.sim.world import HZ, Observation, World

FAILURES = {"not_done": "the task was not done in the time allowed", **SHARED}
"""Why an episode counts as failed."""


@dataclass(frozen=True)
class Move:
    """One step of an episode. action: (4,), clipped to -1 and 1. failure: a key of `FAILURES`, with its detail."""

    before: Observation
    action: NDArray[np.float32]
    reward: float
    success: bool
    failure: str = ""
    detail: str = ""


@dataclass(frozen=True)
class Outcome:
    """What came of one episode.

    scene_seed, seed: of the scene and of the policy. steps: until the task was done, None if it was not. num_steps:
    that were made. failure: a key of `FAILURES`, empty after a success. reward: the highest of any step, 0 to 10; NaN
    where nothing is known of the episode (`worker_died`).
    actions: (num_steps, 4) float32, by which the episode can be shown again.
    """

    scene_seed: int
    seed: int
    success: bool
    steps: int | None
    num_steps: int
    failure: str
    detail: str
    reward: float
    actions: NDArray[np.float32]


def moves(
    world: World,
    policy: Policy,
    scene_seed: int,
    seed: int,
    max_steps: int,
    look: Callable[[int], None] = lambda number: None,
) -> Iterator[Move]:
    """The steps of one episode, until one fails or `max_steps` are made; a success does not end it.

    Args:
        look: called with the number of each step just before it is made, to draw the world as it is then.

    Raises:
        ConfigError: the policy returns something that is no action; or it wants pictures, and none can be drawn.
    """
    observation = world.reset(scene_seed)
    policy.reset(world.task.text, seed)
    camera: Camera | None = getattr(policy, "camera", None)
    painter = None if camera is None else Painter(world, camera, backend())
    looks: Callable[[int], bool] = getattr(policy, "looks", lambda step: True)
    num = 0
    try:
        while num < max_steps:
            seen = observation
            if painter is not None and looks(num):
                seen = replace(observation, picture=painter.picture())
            for action in actions_of(policy, seen)[: max_steps - num]:
                if not np.isfinite(action).all():
                    yield Move(observation, action.astype(np.float32), 0.0, False, ACTION_NOT_FINITE, str(action))
                    return
                clipped = np.clip(action, -1, 1).astype(np.float32)
                look(num)
                step = world.step(clipped)
                failure = DIVERGED if step.diverged else ""
                yield Move(observation, clipped, step.reward, step.success, failure, step.diverged)
                if failure:
                    return
                observation, num = step.after, num + 1
    finally:
        if painter is not None:
            painter.close()


def roll_out(world: World, policy: Policy, scene_seed: int, seed: int, max_steps: int) -> Outcome:
    """Run one episode until the task is done, it fails, or `max_steps` are made. Raises as `moves`."""
    actions: list[NDArray[np.float32]] = []
    reward = 0.0
    success, failure, detail = False, "not_done", f"{max_steps} steps"
    for move in moves(world, policy, scene_seed, seed, max_steps):
        if move.failure:
            failure, detail = move.failure, move.detail
            break
        actions.append(move.action)
        reward = max(reward, move.reward)
        if move.success:
            success, failure, detail = True, "", ""
            break
    done = np.array(actions, np.float32).reshape(-1, 4)
    steps = len(done) if success else None
    return Outcome(scene_seed, seed, success, steps, len(done), failure, detail, reward, done)


def shown_again(world: World, outcome: Outcome, camera: Camera, hz: float, backend: str) -> Iterator[NDArray[np.uint8]]:
    """Pictures (h, w, 3) of an episode that was run, about `hz` a second of the simulation, the last one included."""
    world.reset(outcome.scene_seed)
    painter = Painter(world, camera, backend)
    every = max(1, round(HZ / hz))
    try:
        for number, action in enumerate(outcome.actions):
            if number % every == 0:
                yield painter.picture()
            world.step(action)
        yield painter.picture()
    finally:
        painter.close()
