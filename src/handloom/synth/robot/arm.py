"""A robot arm with a two-finger gripper: its links, their poses for a pose of the tool, and its base frame.

World as in `truth`: z up, table top at z = 0, y away from the person's side, metres. The base frame stands on the
table at `BASE_M`: x away from the robot (world y), y to its left (world -x), z up. The tool frame's origin is midway
between the finger tips' pads; z points against the gripper's approach; its fingers move along y. A gripper that points
straight down, with its fingers to the left and right, has the base frame's axes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from handloom.synth.objects import ObjectShape, Part

Array = NDArray[np.float64]

BASE_M = np.array([0.27, -0.40, 0.0])
WORLD_FROM_BASE = np.array([[0.0, -1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])
MAX_OPENING_M = 0.11
"""Distance between the pads of the open gripper; 1.0 in the state."""
STATE_NAMES = ("x", "y", "z", "roll", "pitch", "yaw", "gripper")
STATE_UNITS = ("m", "m", "m", "rad", "rad", "rad", "1")

ARM, GRIPPER = 0, 1
_SHOULDER = BASE_M + np.array([0.0, 0.0, 0.26])
_UPPER_M, _FORE_M = 0.40, 0.38
_TOOL_M = 0.17  # from the wrist's middle to the tool's origin
_POLE = np.array([0.35, -0.35, 1.0])  # the elbow points up and outwards
_LIGHT, _DARK, _PAD = (0.74, 0.75, 0.77), (0.20, 0.21, 0.24), (0.48, 0.50, 0.54)
_FINGER_HALF = (0.010, 0.005, 0.032)  # across, along the way it moves, along the approach
_TIP_M = 0.012  # length of a finger beyond the tool's origin


@dataclass(frozen=True)
class Link:
    """A rigid piece of the robot. owner: ARM or GRIPPER."""

    name: str
    shape: ObjectShape
    owner: int


def _link(name: str, kind: str, half_m: tuple[float, float, float], colour: tuple, owner: int = ARM) -> Link:
    return Link(name, ObjectShape((Part(kind, half_m, colour, "metal"),), half_m), owner)


LINKS = (
    _link("foot", "cylinder", (0.070, 0.070, 0.020), _DARK),
    _link("column", "cylinder", (0.052, 0.052, 0.110), _LIGHT),
    _link("shoulder", "ball", (0.066, 0.066, 0.066), _DARK),
    _link("upper", "cylinder", (0.040, 0.040, _UPPER_M / 2), _LIGHT),
    _link("elbow", "ball", (0.054, 0.054, 0.054), _DARK),
    _link("fore", "cylinder", (0.034, 0.034, _FORE_M / 2), _LIGHT),
    _link("wrist", "ball", (0.044, 0.044, 0.044), _DARK),
    _link("flange", "cylinder", (0.030, 0.030, 0.028), _LIGHT, GRIPPER),
    _link("palm", "box", (0.020, 0.068, 0.020), _DARK, GRIPPER),
    _link("finger_left", "box", _FINGER_HALF, _PAD, GRIPPER),
    _link("finger_right", "box", _FINGER_HALF, _PAD, GRIPPER),
)
"""Every piece, the base first."""


def tool_rotation(heading_rad: Array | float, elevation_rad: Array | float, across: bool = True) -> Array:
    """(..., 3, 3) world-from-tool of a gripper that approaches along a heading, and downwards.

    heading_rad: of the approach, from world y towards world -x. elevation_rad: below the horizon, pi/2 straight down.
    across: the fingers move horizontally, across the approach; else in the vertical plane of the approach.
    """
    heading, elevation = np.broadcast_arrays(heading_rad, elevation_rad)
    ahead = np.stack([-np.sin(heading), np.cos(heading), np.zeros(heading.shape)], -1)
    left = np.stack([-np.cos(heading), -np.sin(heading), np.zeros(heading.shape)], -1)
    up = np.array([0.0, 0.0, 1.0])
    z = np.sin(elevation)[..., None] * up - np.cos(elevation)[..., None] * ahead
    x = np.cross(left, z)
    return np.stack([x, left, z] if across else [left, -x, z], axis=-1)


def state_of(world_from_tool: Array, opening_m: Array) -> Array:
    """(T, 7) in the order of `STATE_NAMES`: position in the base frame, rotation, opening 0 to 1.

    Roll, pitch and yaw are intrinsic X-Y-Z angles of base-from-tool: R = Rx(roll) Ry(pitch) Rz(yaw); they are unwrapped
    over time, so that they do not jump.
    """
    position = (world_from_tool[:, :3, 3] - BASE_M) @ WORLD_FROM_BASE
    angles = Rotation.from_matrix(WORLD_FROM_BASE.T @ world_from_tool[:, :3, :3]).as_euler("XYZ")
    angles = np.unwrap(angles, axis=0)
    return np.concatenate([position, angles, (opening_m / MAX_OPENING_M)[:, None]], axis=1)


def tool_of(state: Array) -> Array:
    """(T, 4, 4) world-from-tool of states (T, 7): the inverse of `state_of`."""
    out = np.tile(np.eye(4), (len(state), 1, 1))
    out[:, :3, :3] = WORLD_FROM_BASE @ Rotation.from_euler("XYZ", state[:, 3:6]).as_matrix()
    out[:, :3, 3] = state[:, :3] @ WORLD_FROM_BASE.T + BASE_M
    return out


def finger_tips(world_from_tool: Array, opening_m: Array) -> Array:
    """(T, 2, 3) world places of the middles of the left and the right pad."""
    half = 0.5 * opening_m[:, None] * world_from_tool[:, :3, 1]
    middle = world_from_tool[:, :3, 3]
    return np.stack([middle + half, middle - half], axis=1)


def lowest_m(world_from_tool: Array, opening_m: Array) -> Array:
    """(T,) height of the lowest point of fingers and palm."""
    poses = _gripper_poses(world_from_tool, opening_m)
    lowest = np.full(len(opening_m), np.inf)
    for pose, link in zip(poses[1:], LINKS[8:], strict=True):
        reach = np.abs(pose[:, 2, :3]) @ np.array(link.shape.half_m)
        lowest = np.minimum(lowest, pose[:, 2, 3] - reach)
    return lowest


def link_poses(world_from_tool: Array, opening_m: Array) -> Array:
    """(T, L, 4, 4) world-from-link of `LINKS`.

    The arm's two bones and its wrist are solved in closed form; the elbow points up and outwards. For a tool beyond its
    reach the arm is straight, with a gap before the wrist (a test checks that no scene has one).
    """
    num = len(opening_m)
    wrist = world_from_tool[:, :3, 3] + _TOOL_M * world_from_tool[:, :3, 2]
    elbow = _elbow(wrist)
    foot, column = (_at(np.broadcast_to(BASE_M + np.array([0.0, 0.0, z]), (num, 3))) for z in (0.02, 0.13))
    shoulder = np.broadcast_to(_SHOULDER, (num, 3))
    arm = [foot, column, _at(shoulder), _between(shoulder, elbow), _at(elbow), _between(elbow, wrist), _at(wrist)]
    return np.stack([*arm, *_gripper_poses(world_from_tool, opening_m)], axis=1)


def within_reach(world_from_tool: Array) -> NDArray[np.bool_]:
    """(T,) whether the arm reaches the tool's pose without a gap."""
    wrist = world_from_tool[:, :3, 3] + _TOOL_M * world_from_tool[:, :3, 2]
    distance = np.linalg.norm(wrist - _SHOULDER, axis=1)
    return (distance < _UPPER_M + _FORE_M) & (distance > abs(_UPPER_M - _FORE_M))


def _elbow(wrist: Array) -> Array:
    reach = wrist - _SHOULDER
    distance = np.linalg.norm(reach, axis=1, keepdims=True)
    along = reach / distance
    distance = np.clip(distance, abs(_UPPER_M - _FORE_M) + 1e-3, _UPPER_M + _FORE_M - 1e-3)
    a = (_UPPER_M**2 - _FORE_M**2 + distance**2) / (2.0 * distance)
    height = np.sqrt(np.maximum(_UPPER_M**2 - a**2, 0.0))
    pole = _POLE - along * (along @ _POLE)[:, None]
    return _SHOULDER + a * along + height * pole / np.linalg.norm(pole, axis=1, keepdims=True)


def _gripper_poses(world_from_tool: Array, opening_m: Array) -> list[Array]:
    """Flange, palm and both fingers, each (T, 4, 4)."""
    middle = _TIP_M - _FINGER_HALF[2]
    beside = 0.5 * opening_m + _FINGER_HALF[1]
    zero = np.zeros(len(opening_m))
    palm_z = 2 * _FINGER_HALF[2] - _TIP_M + 0.018
    places = [(zero, palm_z + 0.046), (zero, palm_z), (beside, -middle), (-beside, -middle)]
    out = []
    for y, z in places:
        pose = world_from_tool.copy()
        pose[:, :3, 3] += y[:, None] * pose[:, :3, 1] + z * pose[:, :3, 2]
        out.append(pose)
    return out


def _at(point: Array) -> Array:
    out = np.tile(np.eye(4), (len(point), 1, 1))
    out[:, :3, 3] = point
    return out


def _between(start: Array, end: Array) -> Array:
    """(T, 4, 4) a frame halfway from start to end, z along that line."""
    z = (end - start) / np.linalg.norm(end - start, axis=1, keepdims=True)
    x = np.cross(np.broadcast_to([0.0, 1.0, 0.0], z.shape), z)
    x = x / np.linalg.norm(x, axis=1, keepdims=True)
    out = _at(0.5 * (start + end))
    out[:, :3, :3] = np.stack([x, np.cross(z, x), z], axis=2)
    return out
