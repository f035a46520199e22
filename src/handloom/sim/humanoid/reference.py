"""Inverse kinematics: the joints' course that brings wrists and head to their goals, frame by frame (mink).

This is the pose pipeline's last step, and what the teacher tracks. Each frame is solved from the last one's solution,
with the joints' limits of angle and speed; a goal that is out of reach is approached, and counted.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import mink
import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from handloom.schemas.settings import Frozen
from handloom.sim.humanoid.goals import Goals
from handloom.sim.humanoid.robot import POLICY_HZ, Body

Array = NDArray[np.float64]

OUT_OF_REACH_M = 0.05
"""A wrist's goal that the solution misses by more counts as out of reach."""
_SOLVER = "quadprog"
_FIRST = 60
"""Iterations for the first frame, which is far from rest."""


class KinematicsSettings(Frozen):
    """How much each goal matters; only their ratios count."""

    wrist_place: float = Field(10.0, ge=0)
    wrist_turn: float = Field(0.6, ge=0)
    head_turn: float = Field(0.6, ge=0)
    posture: float = Field(0.05, ge=0)
    """Back to the posture at rest; it decides where the goals leave freedom."""
    waist: float = Field(0.6, ge=0)
    """The same, for the joints that come before both arms: the trunk moves little."""
    iterations: int = Field(3, ge=1, le=50)
    """For each frame."""
    max_speed_rad_s: float = Field(4.0, gt=0)
    """Of every joint."""


@dataclass(frozen=True)
class Reference:
    """A course of the joints, `POLICY_HZ` a second, in the order of the body.

    joints_rad, speed_rad_s: (S, J). points_m: (S, P, 3), `Humanoid.sites` there. wrist_goal_m: (S, 2, 3), NaN without a
    goal. frame_missed_m: (T, 2), how far the solution is from each frame's goal; NaN without one.
    """

    joints_rad: Array
    speed_rad_s: Array
    points_m: Array
    wrist_goal_m: Array
    frame_missed_m: Array

    @property
    def num_steps(self) -> int:
        return len(self.joints_rad)

    @property
    def out_of_reach(self) -> float:
        """Share of the goals of wrists that are out of reach; NaN without any."""
        missed = self.frame_missed_m[np.isfinite(self.frame_missed_m)]
        return float((missed > OUT_OF_REACH_M).mean()) if len(missed) else float("nan")


class Kinematics:
    """Solves one frame after the other; `reset` before the first."""

    def __init__(self, body: Body, settings: KinematicsSettings) -> None:
        self._body, self._settings = body, settings
        parts = body.humanoid
        self._wrists = [
            mink.FrameTask(name, "site", settings.wrist_place, settings.wrist_turn, lm_damping=1e-3)
            for name in parts.wrists
        ]
        self._head = mink.FrameTask(parts.head, "site", 0.0, settings.head_turn, lm_damping=1e-3)
        cost = np.full(body.num_joints, settings.posture)
        cost[_before_both_arms(body)] = settings.waist
        self._posture = mink.PostureTask(body.model, cost)
        self._posture.set_target(body.rest)
        self._limits = mink.ConfigurationLimit(body.model)
        speeds = {name: settings.max_speed_rad_s for name in body.joints}
        self._speed = mink.VelocityLimit(body.model, speeds)
        self.reset()

    def reset(self) -> None:
        """Forget the last frame: the next one is solved from the posture at rest, without a limit of speed."""
        self._configuration = mink.Configuration(self._body.model, self._body.rest.copy())
        self._is_first = True

    def solve(self, wrist_m: Array, wrist_turn: Array, head_turn: Array, step_s: float) -> Array:
        """(J,) joints of the next frame, `step_s` after the last one; goals as in `Goals`, of one frame."""
        tasks: list[Any] = [self._posture]
        for task, place, turn in zip(self._wrists, wrist_m, wrist_turn, strict=True):
            if np.isfinite(place).all() and np.isfinite(turn).all():
                task.set_target(_pose(place, turn))
                tasks.append(task)
        if np.isfinite(head_turn).all():
            self._head.set_target(_pose(np.zeros(3), head_turn))
            tasks.append(self._head)
        num = _FIRST if self._is_first else self._settings.iterations
        limits = [self._limits] if self._is_first else [self._limits, self._speed]
        for _ in range(num):
            dt = step_s / num
            velocity = mink.solve_ik(self._configuration, tasks, dt, _SOLVER, damping=1e-4, limits=limits)
            self._configuration.integrate_inplace(velocity, dt)
        self._is_first = False
        return np.clip(self._configuration.q, self._body.low, self._body.high)


def reference_of(goals: Goals, body: Body, settings: KinematicsSettings) -> Reference:
    """The course for a motion's goals."""
    kinematics = Kinematics(body, settings)
    frames = np.array(
        [
            kinematics.solve(*frame, 1.0 / goals.rate_hz)
            for frame in zip(goals.wrist_m, goals.wrist_turn, goals.head_turn, strict=True)
        ]
    )
    wrists = [body.humanoid.sites.index(name) for name in body.humanoid.wrists]
    missed = np.linalg.norm(body.key_points(frames)[:, wrists] - goals.wrist_m, axis=-1)
    frame_s = np.arange(goals.num_frames) / goals.rate_hz
    at_s = np.arange(int(frame_s[-1] * POLICY_HZ + 1e-6) + 1) / POLICY_HZ
    joints, speed = smooth_course(frame_s, frames, at_s)
    joints = np.clip(joints, body.low, body.high)
    wrist_goal = np.stack([_linear(frame_s, goals.wrist_m[:, hand], at_s) for hand in range(2)], axis=1)
    return Reference(joints, speed, body.key_points(joints), wrist_goal, missed)


def smooth_course(frame_s: Array, values: Array, at_s: Array) -> tuple[Array, Array]:
    """(S, J) values and their derivatives between frames (T, J), by cubic Hermite polynomials that do not overshoot.

    Source: Fritsch and Butland, A method for constructing local monotone piecewise cubic interpolants, 1984.
    """
    if len(frame_s) < 2:
        return np.repeat(values, len(at_s), axis=0), np.zeros((len(at_s), values.shape[1]))
    from scipy.interpolate import PchipInterpolator

    course = PchipInterpolator(frame_s, values, axis=0)
    return course(at_s), course.derivative()(at_s)


def _linear(frame_s: Array, values: Array, at_s: Array) -> Array:
    """NaN where a neighbour is NaN."""
    return np.stack([np.interp(at_s, frame_s, column) for column in values.T], axis=1)


def _pose(place: Array, turn: Array) -> Any:
    return mink.SE3.from_rotation_and_translation(mink.SO3.from_matrix(turn), place)


def _before_both_arms(body: Body) -> Array:
    """Numbers of the joints on whose bodies both wrists hang, and the head: the trunk's."""
    model, found = body.model, []
    chains = []
    for name in (*body.humanoid.wrists, body.humanoid.head):
        link, chain = int(model.site(name).bodyid[0]), set()
        while link:
            chain.add(link)
            link = int(model.body_parentid[link])
        chains.append(chain)
    shared = set.intersection(*chains)
    found = [number for number in range(model.njnt) if int(model.jnt_bodyid[number]) in shared]
    return np.array(found, dtype=int)
