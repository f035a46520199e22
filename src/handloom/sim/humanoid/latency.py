"""How long the robot takes from a person's last frame to its first action, after the frame was understood.

Two ways from the same keypoints: the student (encode the motion, denoise an action), and the pose pipeline's end
(retarget, inverse kinematics of all frames, the teacher's action). What finds the keypoints, or the intent, is not in
here.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np

from handloom.sim.humanoid.dagger import StudentPolicy
from handloom.sim.humanoid.experts import Teacher
from handloom.sim.humanoid.goals import goals_of
from handloom.sim.humanoid.motions import PersonMotion
from handloom.sim.humanoid.reference import reference_of
from handloom.sim.humanoid.robot import Body
from handloom.sim.humanoid.settings import ImitateSettings
from handloom.train.robomirror.latents import Latents

REPEATS = 7
"""The median of so many is told."""


def latency_of(
    motion: PersonMotion, body: Body, settings: ImitateSettings, latents: Latents, policy: StudentPolicy
) -> dict[str, Any]:
    """`student` and `kinematics`: {`wall_s`, `cpu_s`} (medians) for one motion, its `frames`, and their ratios."""
    data, teacher = body.state(), Teacher(body, settings.experts)

    def student() -> None:
        encoded = latents.encode(motion.keypoints_cam_m, motion.world_from_camera)
        policy.goals(encoded[-1:], np.zeros((1, settings.student.history * 3 * body.num_joints), np.float32))

    def kinematics() -> None:
        reference = reference_of(goals_of(motion, body, settings.frame), body, settings.kinematics)
        teacher.act(data, reference, 0)

    ours, theirs = _timed(student), _timed(kinematics)
    ratios = {f"{kind}_ratio": ours[f"{kind}_s"] / theirs[f"{kind}_s"] for kind in ("wall", "cpu")}
    return {"student": ours, "kinematics": theirs, **ratios, "frames": motion.num_frames}


def _timed(act: Callable[[], None]) -> dict[str, float]:
    act()  # what is loaded at the first call is not of the latency
    wall, cpu = [], []
    for _ in range(REPEATS):
        began = time.perf_counter(), time.process_time()
        act()
        wall.append(time.perf_counter() - began[0])
        cpu.append(time.process_time() - began[1])
    return {"wall_s": float(np.median(wall)), "cpu_s": float(np.median(cpu))}
