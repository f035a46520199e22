"""The teacher: experts that know the reference and the forces in the joints, combined by a gate.

RoboGhost's teacher is a mixture of networks trained by reinforcement learning, a = sum p_i a_i. Here each expert is a
law of control, so nothing is trained; the gate weighs them by where each would bring the joints within one step.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from handloom.errors import ConfigError
from handloom.sim.humanoid.reference import Reference
from handloom.sim.humanoid.robot import POLICY_HZ, SUBSTEPS, Body

Array = NDArray[np.float64]

GATE_RAD = 0.01
"""How sharply the gate prefers: an expert whose predicted error (rms over the joints) is larger than another's by this
weighs exp(-1/2) of it."""
CORRECTION = 0.6
"""Share of the error that `correct` adds to the goal."""


def follow(body: Body, data: Any, joints_rad: Array, speed_rad_s: Array) -> Array:
    """The reference's next position as the goal: a servo lags behind it, and sags under weight."""
    return joints_rad


def lead(body: Body, data: Any, joints_rad: Array, speed_rad_s: Array) -> Array:
    """`follow`, ahead by as much as damping and weight hold the joints back."""
    return joints_rad + (body.kd * speed_rad_s + data.qfrc_bias) / body.kp


def correct(body: Body, data: Any, joints_rad: Array, speed_rad_s: Array) -> Array:
    """`lead`, and beyond the reference by a share of the error in position and speed."""
    error = joints_rad - data.qpos + (speed_rad_s - data.qvel) * body.kd / body.kp
    return lead(body, data, joints_rad, speed_rad_s) + CORRECTION * error


EXPERTS: dict[str, Callable[[Body, Any, Array, Array], Array]] = {"follow": follow, "lead": lead, "correct": correct}


class Teacher:
    """Goals (J,) of the joints from the reference and the true state.

    Args:
        names: of `EXPERTS`; one, or several to be combined.

    Raises:
        ConfigError: an unknown or no name.
    """

    def __init__(self, body: Body, names: Sequence[str]) -> None:
        unknown = [name for name in names if name not in EXPERTS]
        if unknown or not names:
            raise ConfigError(f"there is no expert {', '.join(unknown) or '(none named)'}", f"of: {', '.join(EXPERTS)}")
        self._body, self._experts = body, [EXPERTS[name] for name in names]
        self._inertia = body.kp / (2 * np.pi * body.humanoid.natural_hz) ** 2

    def act(self, data: Any, reference: Reference, step: int) -> Array:
        """The action at `step` of the reference, which leads to `step + 1`."""
        after = min(step + 1, reference.num_steps - 1)
        target, speed = reference.joints_rad[after], reference.speed_rad_s[after]
        given = np.stack([expert(self._body, data, target, speed) for expert in self._experts])
        given = np.clip(given, self._body.low, self._body.high)
        return given[0] if len(given) == 1 else self.weights(data, given, target) @ given

    def weights(self, data: Any, actions: Array, target: Array) -> Array:
        """(E,) of the experts, that sum to 1: by the error of each one's prediction.

        actions: (E, J). Each joint alone is integrated over the step as a servo with its inertia at rest.
        """
        body, dt = self._body, 1.0 / (POLICY_HZ * SUBSTEPS)
        place, speed = np.tile(data.qpos, (len(actions), 1)), np.tile(data.qvel, (len(actions), 1))
        for _ in range(SUBSTEPS):
            force = body.kp * (actions - place) - body.kd * speed - data.qfrc_bias
            # Implicit in the speed, as the simulation is.
            speed = speed + dt * force / (self._inertia + dt * body.kd)
            place = place + dt * speed
        squared = ((place - target) ** 2).mean(axis=1) / GATE_RAD**2
        share = np.exp(-0.5 * (squared - squared.min()))
        return share / share.sum()
