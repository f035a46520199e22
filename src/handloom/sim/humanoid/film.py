"""Pictures of an episode that was run: the robot, and green balls where the person's wrists are."""

from __future__ import annotations

from collections.abc import Iterator

import mujoco
import numpy as np
from numpy.typing import NDArray

from handloom.sim.humanoid.episodes import Outcome
from handloom.sim.humanoid.reference import Reference
from handloom.sim.humanoid.robot import CAMERA, MARKERS, POLICY_HZ, Body
from handloom.sim.rendering import Camera, Painter

VIDEO_HZ = 25.0


class _Drawn:
    """What a painter draws."""

    def __init__(self, body: Body) -> None:
        self.model, self.data = body.model, body.state()


def shown_again(
    body: Body, outcome: Outcome, reference: Reference, size: tuple[int, int], backend: str
) -> Iterator[NDArray[np.uint8]]:
    """Pictures (h, w, 3), `VIDEO_HZ` a second, of an episode's joints. size: width, height, both even."""
    drawn = _Drawn(body)
    painter = Painter(drawn, Camera(CAMERA, *size), backend)
    markers = [body.model.site(name).id for name in MARKERS]
    try:
        for step in range(0, len(outcome.joints_rad), round(POLICY_HZ / VIDEO_HZ)):
            goals = reference.wrist_goal_m[min(step, reference.num_steps - 1)]
            for marker, goal in zip(markers, goals, strict=True):
                is_known = bool(np.isfinite(goal).all())
                body.model.site_pos[marker] = goal if is_known else 0.0
                body.model.site_rgba[marker, 3] = float(is_known)
            drawn.data.qpos[:] = outcome.joints_rad[step]
            mujoco.mj_kinematics(drawn.model, drawn.data)
            mujoco.mj_camlight(drawn.model, drawn.data)
            yield painter.picture()
    finally:
        painter.close()
        body.model.site_rgba[markers, 3] = 0.0
