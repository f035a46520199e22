"""What the robot's wrists and head shall do, from a person's motion (retargeting).

RoboGhost retargets whole bodies with GMR; of a person who wears the camera only hands and head are known, so this is an
adaptation: the person's first head pose is the robot's head at rest; places of hands about the middle between the
shoulders are scaled by the length of the arms; directions of hands and head are kept. The robot's head turns and does
not travel, so by default hands are where the person's are from the head as it is now (`Frame`).
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from handloom.schemas.hand_topology import INDEX, LITTLE, MIDDLE, WRIST
from handloom.schemas.values import NUM_HANDS
from handloom.sim.humanoid.motions import PersonMotion
from handloom.sim.humanoid.robot import Body

Array = NDArray[np.float64]

PERSON_REACH_M = 0.55
"""From an adult's shoulder to the wrist (upper arm .30, forearm .25)."""
PERSON_SHOULDERS_M = (-0.12, 0.0, -0.20)
"""The middle between the shoulders from between the eyes of a person who looks at the hands: x forward, y left, z
up."""
USUAL_PITCH_RAD = np.radians(45.0)
"""How far a head camera looks down where it is unknown; that of the scripted people is 35 to 55 degrees."""
LONGEST_GAP_S = 0.5
"""Shorter gaps of a hand are filled; in longer ones the arm has no goal."""
Frame = Literal["head", "first"]
"""`head`: places of hands are from the person's head as it is, turned by its turn since the first frame; when the
person leans forward, the robot's hands stay before its chest. `first`: from where the head was in the first frame; the
robot's hands stay where the person's things are, and what they are told (motion from the head) must be summed up over
time."""
# From the camera's axes (x right, y down, z forward) to the robot's (x forward, y left, z up), looking at the horizon.
_LEVEL = np.array([[0.0, 0.0, 1.0], [-1.0, 0.0, 0.0], [0.0, -1.0, 0.0]])


@dataclass(frozen=True)
class Goals:
    """Of every frame, in the robot's base; NaN where there is none.

    wrist_m: (T, 2, 3). wrist_turn: (T, 2, 3, 3), base_from_wrist with the axes of `Humanoid.wrists`. head_turn:
    (T, 3, 3), base_from_head.
    """

    rate_hz: float
    wrist_m: Array
    wrist_turn: Array
    head_turn: Array

    @property
    def num_frames(self) -> int:
        return len(self.wrist_m)


def goals_of(motion: PersonMotion, body: Body, frame: Frame = "head") -> Goals:
    """The goals of a motion for one robot.

    Where the head's path is not known (no pose; for `first`, no unit), the camera counts as still: the hands' places in
    it are the goals, and the head has none.
    """
    points, turns = _in_first_camera(motion, with_places=frame == "first")
    pitch = motion.pitch_rad if np.isfinite(motion.pitch_rad) else USUAL_PITCH_RAD
    base_from_camera = _about_y(pitch) @ _LEVEL
    upright = points @ base_from_camera.T
    scale = float(np.mean(body.reach_m)) / PERSON_REACH_M
    middle = body.shoulders_m.mean(axis=0)
    wrist = middle + scale * (upright[:, :, WRIST] - PERSON_SHOULDERS_M)
    longest = int(LONGEST_GAP_S * motion.rate_hz)
    palms = palm_axes(upright)
    for hand in range(NUM_HANDS):
        wrist[:, hand] = _filled(wrist[:, hand], longest)
        palms[:, hand] = _filled(palms[:, hand], longest)
    head = base_from_camera @ turns @ base_from_camera.T
    return Goals(motion.rate_hz, wrist, _as_rotations(palms), _as_rotations(_filled(head, longest)))


def palm_axes(points: Array) -> Array:
    """(..., 21, 3) keypoints to (..., 3, 3) the axes of `Humanoid.wrists` as columns; NaN where unknown.

    z: from the knuckle of the middle finger to the wrist; x: across the palm, from the little to the index finger.
    """
    z = points[..., WRIST, :] - points[..., MIDDLE[0], :]
    across = points[..., INDEX[0], :] - points[..., LITTLE[0], :]
    with np.errstate(invalid="ignore", divide="ignore"):
        z = z / np.linalg.norm(z, axis=-1, keepdims=True)
        x = across - (across * z).sum(-1, keepdims=True) * z
        x = x / np.linalg.norm(x, axis=-1, keepdims=True)
    return np.stack([x, np.cross(z, x), z], axis=-1)


def _in_first_camera(motion: PersonMotion, with_places: bool) -> tuple[Array, Array]:
    """(T, 2, 21, 3) keypoints with the axes of the first known camera, from its origin or, without places, from that of
    each frame's camera; (T, 3, 3) turns of the camera since the first."""
    poses = motion.world_from_camera.copy()
    if not with_places:
        poses[:, :3, 3] = 0.0
    known = np.flatnonzero(np.isfinite(poses).all(axis=(1, 2)))
    if not len(known):
        return motion.keypoints_cam_m, np.full((motion.num_frames, 3, 3), np.nan)
    since = np.linalg.inv(poses[known[0]]) @ poses
    points = np.einsum("tij,thkj->thki", since[:, :3, :3], motion.keypoints_cam_m) + since[:, None, None, :3, 3]
    return points, since[:, :3, :3]


def _filled(values: Array, longest: int) -> Array:
    """(T, ...) with gaps of at most `longest` frames between known ones filled linearly; longer ones stay NaN."""
    flat = values.reshape(len(values), -1).copy()
    known = np.flatnonzero(np.isfinite(flat).all(axis=1))
    flat[~np.isfinite(flat).all(axis=1)] = np.nan
    for before, after in pairwise(known):
        if 1 < after - before <= longest + 1:
            share = np.arange(1, after - before)[:, None] / (after - before)
            flat[before + 1 : after] = (1 - share) * flat[before] + share * flat[after]
    return flat.reshape(values.shape)


def _as_rotations(matrices: Array) -> Array:
    """The nearest rotations of (..., 3, 3), NaN where unknown."""
    out = np.full(matrices.shape, np.nan)
    known = np.isfinite(matrices).all(axis=(-1, -2))
    if known.any():
        u, _, vt = np.linalg.svd(matrices[known])
        u[..., :, 2] *= np.linalg.det(u @ vt)[..., None]
        out[known] = u @ vt
    return out


def _about_y(angle: float) -> Array:
    c, s = np.cos(angle), np.sin(angle)
    return np.array([[c, 0.0, s], [0.0, 1.0, 0.0], [-s, 0.0, c]])
