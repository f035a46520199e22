"""Episodes of a humanoid that follows motions, several side by side, and what came of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from handloom.sim.failures import ACTION_NOT_FINITE, DIVERGED, SHARED
from handloom.sim.humanoid.experts import Teacher
from handloom.sim.humanoid.reference import Reference
from handloom.sim.humanoid.robot import Body, act, put

Array = NDArray[np.float64]

FAILURES = {
    "left_goal": "a key point was farther from its reference than allowed",
    **{name: SHARED[name] for name in (DIVERGED, ACTION_NOT_FINITE)},
}
"""Why an episode counts as failed."""


@dataclass(frozen=True)
class Task:
    """One motion to follow. latents: (S, D) float32, the motion's latent at each step of the reference."""

    name: str
    reference: Reference
    latents: NDArray[np.float32]


@dataclass(frozen=True)
class Seen:
    """What policies may know of the episodes that still run, at one step.

    tasks, states (`mujoco.MjData`), numbers: of each, (B). history: (B, H, 3 J) float32, for each of the last H steps,
    the newest last: joints from rest, their speeds, the action before, all in radians and seconds; before the first
    step it is repeated. latents: (B, D).
    """

    step: int
    numbers: Sequence[int]
    tasks: Sequence[Task]
    states: Sequence[Any]
    history: NDArray[np.float32]
    latents: NDArray[np.float32]


class Policy(Protocol):
    """Goals of the joints, (B, J) radians, for the episodes of `Seen`."""

    def act(self, seen: Seen) -> Array: ...


@dataclass(frozen=True)
class Outcome:
    """What came of one episode.

    success: it came to its end within the allowed distance. num_steps: that were made, of `of_steps`. failure: a key of
    `FAILURES`, with its detail. mpkpe_mm: mean distance of the key points (head, elbows, wrists) from the reference,
    over the steps that were made. mpjpe_rad: mean difference of the joints. wrist_mm: mean distance of the wrists from
    the person's own, retargeted, where known; NaN where nowhere. worst_mm: the farthest that a key point ever was.
    joints_rad: (num_steps + 1, J), by which the episode can be shown again.
    """

    name: str
    success: bool
    num_steps: int
    of_steps: int
    failure: str
    detail: str
    mpkpe_mm: float
    mpjpe_rad: float
    wrist_mm: float
    worst_mm: float
    joints_rad: NDArray[np.float32]


class Expert:
    """The teacher as a policy."""

    def __init__(self, teacher: Teacher) -> None:
        self._teacher = teacher

    def act(self, seen: Seen) -> Array:
        pairs = zip(seen.states, seen.tasks, strict=True)
        return np.stack([self._teacher.act(data, task.reference, seen.step) for data, task in pairs])


class Hold:
    """Stays in the first posture of the motion: what success means without following anything."""

    def act(self, seen: Seen) -> Array:
        return np.stack([task.reference.joints_rad[0] for task in seen.tasks])


def run_episodes(
    body: Body,
    tasks: Sequence[Task],
    policy: Policy,
    *,
    seed: int,
    history: int,
    allowed_m: float,
    start_noise_rad: float,
    watch: Callable[[Seen, Array], Array] | None = None,
) -> list[Outcome]:
    """Run one episode of each task, all side by side.

    Args:
        seed: of the noise of the joints at the start, normal with `start_noise_rad` as its deviation.
        history: steps that the policy sees. allowed_m: of every key point, from its reference.
        watch: called with what was seen and the policy's actions; returns the actions that are made.
    """
    runs = [
        _Run(body, number, task, np.random.default_rng([seed, number]), history, allowed_m, start_noise_rad)
        for number, task in enumerate(tasks)
    ]
    step = 0
    while going := [run for run in runs if run.outcome is None]:
        seen = Seen(
            step,
            [run.number for run in going],
            [run.task for run in going],
            [run.data for run in going],
            np.stack([run.history for run in going]),
            np.stack([run.task.latents[step] for run in going]),
        )
        actions = policy.act(seen)
        if watch is not None:
            actions = watch(seen, actions)
        for run, action in zip(going, actions, strict=True):
            run.advance(step, action)
        step += 1
    return [run.outcome for run in runs if run.outcome is not None]


def in_groups(tasks: Sequence[Task], size: int) -> Iterator[Sequence[Task]]:
    """Tasks of like length together: episodes that run side by side then end together."""
    order = sorted(range(len(tasks)), key=lambda number: tasks[number].reference.num_steps)
    for start in range(0, len(order), size):
        yield [tasks[number] for number in order[start : start + size]]


class _Run:
    """One episode as it runs."""

    def __init__(
        self,
        body: Body,
        number: int,
        task: Task,
        rng: np.random.Generator,
        history: int,
        allowed_m: float,
        noise_rad: float,
    ) -> None:
        self.number, self.task, self.data = number, task, body.state()
        self.outcome: Outcome | None = None
        self._body, self._allowed_m = body, allowed_m
        first = task.reference.joints_rad[0]
        start = np.clip(first + rng.normal(0, noise_rad, len(first)), body.low, body.high)
        put(body.model, self.data, start)
        self.history = np.tile(self._observed(start), (history, 1))
        self._joints = [start.astype(np.float32)]
        self._errors: list[tuple[float, float, float]] = []
        self._worst = 0.0
        self._wrists = [body.humanoid.sites.index(name) for name in body.humanoid.wrists]

    def advance(self, step: int, action: Array) -> None:
        """Make one action; the episode may end by it."""
        if not np.isfinite(action).all():
            self._end(ACTION_NOT_FINITE, f"at step {step}")
            return
        action = np.clip(action, self._body.low, self._body.high)
        problem = act(self._body.model, self.data, action)
        if problem:
            self._end(DIVERGED, f"at step {step}: {problem}")
            return
        reference = self.task.reference
        after = min(step + 1, reference.num_steps - 1)
        self._joints.append(self.data.qpos.astype(np.float32))
        self.history = np.concatenate([self.history[1:], self._observed(action)[None]])
        points = self.data.site_xpos[self._body.site_ids]
        apart = np.linalg.norm(points - reference.points_m[after], axis=1)
        goal = np.linalg.norm(points[self._wrists] - reference.wrist_goal_m[after], axis=1)
        known = np.isfinite(goal)
        turned = float(np.abs(self.data.qpos - reference.joints_rad[after]).mean())
        self._errors.append((float(apart.mean()), turned, float(goal[known].mean()) if known.any() else np.nan))
        self._worst = max(self._worst, float(apart.max()))
        if apart.max() > self._allowed_m:
            name = self._body.humanoid.sites[int(apart.argmax())]
            self._end("left_goal", f"{name} {1000 * apart.max():.0f} mm away at step {after}")
        elif after == reference.num_steps - 1:
            self._end("", "")

    def _observed(self, action: Array) -> NDArray[np.float32]:
        rest = self._body.rest
        return np.concatenate([self.data.qpos - rest, self.data.qvel, action - rest]).astype(np.float32)

    def _end(self, failure: str, detail: str) -> None:
        errors = np.array(self._errors).reshape(-1, 3)
        means = [float(np.mean(column)) if len(column) else np.nan for column in errors.T[:2]]
        goal = errors[np.isfinite(errors[:, 2]), 2]
        self.outcome = Outcome(
            self.task.name,
            not failure,
            len(errors),
            self.task.reference.num_steps - 1,
            failure,
            detail,
            1000 * means[0],
            means[1],
            1000 * float(goal.mean()) if len(goal) else float("nan"),
            1000 * self._worst if len(errors) else float("nan"),
            np.stack(self._joints),
        )
