"""From a human hand to a parallel gripper: which pose of the gripper is the same grasp.

A hand that holds a thing has its fingers on one side and its thumb on the other; it came along the middle between the
direction of its fingers and that out of its palm. The gripper comes the same way, its fingers close across that way in
the plane in which fingers and thumb did. Its middle is put into the thing where the hand's was: a hand is known to two
or three centimetres only, a gripper misses by less.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from handloom.sim.tabletop.model import OPEN_M
from handloom.sim.tabletop.scene import Kind
from handloom.skills.skill import Region

Floats = NDArray[np.float64]

GRIP_IN_HAND_M = (0.0, 0.088, -0.045)
FINGERTIPS_IN_HAND_M = (0.0, 0.165, -0.016)
SPARE_M = 0.006
"""What an open gripper must be wider than the thing, in all."""
INSIDE = 0.6
"""The middle of the gripper lies within this share of the thing's half size."""
BALL = 0.2
"""Of that share, for a ball: held beside its middle it is squeezed out."""
DEPTH_M = 0.02
"""How far below a thing's top the fingertips' middle may come: the fingers are 4.5 cm long, and the hand is wide."""
ABOVE_TABLE_M = 0.012
SNAP_RAD = np.radians(46.0)


@dataclass(frozen=True)
class Grip:
    """One grasp. pose: (4, 4) scene_from_grip, z the way that the gripper comes, x across its fingers. width_m: of the
    thing between them. tilt_rad: how far the way was turned down after it was converted."""

    pose: Floats
    width_m: float
    tilt_rad: float = 0.0

    @property
    def fits(self) -> bool:
        """Whether the gripper opens wide enough."""
        return self.width_m <= 2 * OPEN_M - SPARE_M


@dataclass(frozen=True)
class Block:
    """What is known of a thing before it is taken: (4, 4) scene_from_box, the half sizes of its box, and its shape."""

    pose: Floats
    half_m: Floats
    kind: Kind

    @property
    def is_round(self) -> bool:
        """Whether it is as wide in all directions across its z."""
        return self.kind != "box"

    def width(self, axis: Floats) -> float:
        """Its size along a direction (3,) of the scene."""
        own = np.abs(self.pose[:3, :3].T @ axis)
        if self.kind == "ball":
            return float(2 * np.linalg.norm(own * self.half_m))
        if self.is_round:
            return float(2 * (np.hypot(own[0], own[1]) * self.half_m[0] + own[2] * self.half_m[2]))
        return float(2 * own @ self.half_m)


def sampled_hands(region: Region, num: int, rng: np.random.Generator) -> Floats:
    """(num, 4, 4) thing_from_hand, uniform in a region; the first is its middle (VLMimic, section 4.2)."""
    values = rng.uniform(region.low, region.high, (num, 6))
    values[0] = 0.5 * (region.low + region.high)
    out = np.tile(region.middle, (num, 1, 1))
    out[:, :3, :3] = Rotation.from_rotvec(values[:, 3:]).as_matrix() @ region.middle[:3, :3]
    out[:, :3, 3] += values[:, :3]
    return out


def converted(hand: Floats, block: Block, tilt_rad: float = 0.0) -> Grip:
    """The gripper's pose for a hand (4, 4) in the scene.

    tilt_rad: turns the way of the gripper towards straight down by so much, at most.
    """
    along, palm = hand[:3, 1], -hand[:3, 2]
    way = along + palm
    way /= np.linalg.norm(way)
    across = along - palm
    across /= np.linalg.norm(across)
    if tilt_rad > 0:
        way, across = _tilted(way, across, tilt_rad)
    across, way = _square(across, way, block)
    middle = _inside(hand[:3, 3] + hand[:3, :3] @ np.array(GRIP_IN_HAND_M), across, way, block)
    return Grip(_pose(across, way, middle), block.width(across), tilt_rad)


def from_above(block: Block, yaw_rad: float) -> Grip:
    """Straight down onto a thing's middle: what one does who knows nothing of how it is held."""
    across = np.array([np.cos(yaw_rad), np.sin(yaw_rad), 0.0])
    way = np.array([0.0, 0.0, -1.0])
    across, way = _square(across, way, block)
    return Grip(_pose(across, way, _inside(block.pose[:3, 3], across, way, block)), block.width(across))


def fingertips(hand: Floats) -> Floats:
    """(3,) where a stretched hand (4, 4) ends."""
    return hand[:3, 3] + hand[:3, :3] @ np.array(FINGERTIPS_IN_HAND_M)


def _pose(across: Floats, way: Floats, middle: Floats) -> Floats:
    # A gripper is the same turned by half a turn: the one whose x points to the scene's right, as in the rest posture.
    across = -across if across[0] > 0 else across
    out = np.eye(4)
    out[:3, :3] = np.stack([across, np.cross(way, across), way], axis=1)
    out[:3, 3] = middle
    return out


def _tilted(way: Floats, across: Floats, most_rad: float) -> tuple[Floats, Floats]:
    down = np.array([0.0, 0.0, -1.0])
    axis = np.cross(way, down)
    length = float(np.linalg.norm(axis))
    if length < 1e-6:
        return way, across
    angle = min(most_rad, float(np.arctan2(length, way @ down)))
    turn = Rotation.from_rotvec(axis / length * angle)
    return turn.apply(way), turn.apply(across)


def _square(across: Floats, way: Floats, block: Block) -> tuple[Floats, Floats]:
    """The closing direction turned to the nearest side of a box, or level across a round thing; and the way of the
    gripper, square to it again."""
    if block.is_round:
        up = block.pose[:3, 2]
        sides = [across - up * (up @ across)]
    else:
        sides = list(block.pose[:3, :3].T)
    best, found = SNAP_RAD, across
    for side in sides:
        length = float(np.linalg.norm(side))
        angle = float(np.arccos(min(abs(float(side @ across)) / max(length, 1e-9), 1.0)))
        if angle < best and length > 0.3:
            best, found = angle, side / length * (1.0 if side @ across > 0 else -1.0)
    way = way - found * (found @ way)
    return found, way / np.linalg.norm(way)


def _inside(middle: Floats, across: Floats, way: Floats, block: Block) -> Floats:
    """The nearest place in the thing, in its middle across the fingers, not deeper than fingers reach."""
    off = middle - block.pose[:3, 3]
    off = off - across * (across @ off)
    own = block.pose[:3, :3].T @ off
    inside = INSIDE * block.half_m * (BALL if block.kind == "ball" else 1.0)
    own = np.clip(own, -inside, inside)
    if block.is_round:
        own[:2] *= 0.5
    out = block.pose[:3, 3] + block.pose[:3, :3] @ own
    out -= across * (across @ (out - block.pose[:3, 3]))
    up = 0.5 * block.width(np.array([0.0, 0.0, 1.0]))
    if way[2] < -0.7:  # from above: fingers of 4.5 cm
        out[2] = max(out[2], block.pose[2, 3] + up - 2 * DEPTH_M)
    out[2] = max(out[2], ABOVE_TABLE_M)
    return out
