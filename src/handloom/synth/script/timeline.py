"""Motions of the hands and the things over a clip: keys on channels, evaluated at frame times.

Everything here is in the acting hand's own frame, as if it were the right hand; `stage` mirrors a left-handed clip. The
helping hand's own frame is the mirror image of that (x -> -x). Seconds count from the clip's first frame.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.spatial.transform import Rotation

from handloom.synth.objects import ObjectShape
from handloom.synth.script.poses import ease, elbow_position, hand_rotation

Array = NDArray[np.float64]

MAIN, HELPER = 0, 1
_FLIP = np.diag([-1.0, 1.0, 1.0, 1.0])
_LEVEL_RAD = np.radians(-14.0)  # slope of a levelled hand along its length, before its own extension


class Channel:
    """A value over time: minimum-jerk moves from key to key, constant elsewhere, plus extras that are added."""

    def __init__(self, value: ArrayLike) -> None:
        self._times, self._values = [0.0], [np.asarray(value, float)]
        self._extras: list[Callable[[Array], Array]] = []

    @property
    def last(self) -> Array:
        return self._values[-1]

    def to(self, start_s: float, end_s: float, value: ArrayLike) -> None:
        """Move to `value` between two times; a move begins after the last one has ended."""
        start_s = max(start_s, self._times[-1])
        self._times += [start_s, max(end_s, start_s + 1e-3)]
        self._values += [self.last, np.asarray(value, float)]

    def add(self, extra: Callable[[Array], Array]) -> None:
        """Add a function of (T,) seconds that returns (T, ...)."""
        self._extras.append(extra)

    def bump(self, start_s: float, end_s: float, size: ArrayLike) -> None:
        """Add a smooth bump of height `size` between two times."""

        def extra(at: Array) -> Array:
            share = np.clip((at - start_s) / (end_s - start_s), 0.0, 1.0)
            return (np.sin(np.pi * share) ** 2).reshape(-1, *(1,) * np.ndim(size)) * np.asarray(size, float)

        self.add(extra)

    def at(self, since_s: Array) -> Array:
        """(T, ...) values."""
        if len(self._times) == 1:
            out = np.tile(self.last, (len(since_s), *(1,) * self.last.ndim))
        else:
            out = ease(self._times, self._values, since_s)
        for extra in self._extras:
            out = out + extra(since_s)
        return out


class Actor:
    """One hand's channels. side: MAIN or HELPER. holding: the thing in the hand."""

    def __init__(self, side: int, rest_m: Array, offset_m: Array, fingers_rad: Array) -> None:
        self.side, self.rest_m = side, rest_m
        self.holding: Thing | None = None
        self.touching: Thing | None = None
        self.grip = Channel(rest_m)
        self.offset = Channel(offset_m)
        self.turn = Channel(np.radians([10.0, 8.0, 0.0]))  # pronation, extension, deviation (`poses.hand_rotation`)
        self.level = Channel(0.0)  # 1: the forearm's slope does not tip the hand
        self.fingers = Channel(fingers_rad)

    def own(self, point_m: Array) -> Array:
        """A point of the scene in this hand's own frame, or back."""
        return point_m * [-1.0, 1.0, 1.0] if self.side == HELPER else point_m

    def path(self, since_s: Array, shoulder_m: Array) -> tuple[Array, Array, Array]:
        """Wrist (T, 3), world-from-hand rotation (T, 3, 3) and elbow (T, 3), in the hand's own frame.

        The rotation depends on the wrist through the forearm, so all three are found by fixed-point iteration.
        """
        grip, offset, turn, level = (c.at(since_s) for c in (self.grip, self.offset, self.turn, self.level))
        wrist = grip - [0.0, 0.08, 0.0]
        for _ in range(10):
            elbow = elbow_position(shoulder_m, wrist)
            along = wrist - elbow
            slope = np.arcsin(np.clip(along[:, 2] / np.linalg.norm(along, axis=1), -1.0, 1.0))
            extension = turn[:, 1] + level * (_LEVEL_RAD - slope)
            rotation = hand_rotation(elbow, wrist, turn[:, 0], extension, turn[:, 2])
            wrist = grip - np.einsum("tij,tj->ti", rotation, offset)
        return wrist, rotation, elbow


@dataclass(frozen=True)
class Contact:
    """A thing moves with a hand from `start_s` to `end_s`.

    how: `hold` (rigidly), `slide` (horizontally, with the grip point) or `turn` (about its own axis, with the hand).
    goal_m: the place of its middle at the end, upright, for a thing that is put down; None leaves it where it is.
    """

    side: int
    start_s: float
    end_s: float
    how: str
    goal_m: Array | None = None


@dataclass
class Thing:
    """An object on the table: the first place of its middle, its heading, and its contacts with hands.

    place_m: its place after all moves that were written so far. acted: whether it belongs to the action.
    """

    noun: str
    shape: ObjectShape
    start_m: Array
    yaw_rad: float = 0.0
    acted: bool = True
    contacts: list[Contact] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.place_m = np.array(self.start_m, float)

    @property
    def first_pose(self) -> Array:
        """(4, 4) scene-from-object before anything moves it."""
        pose = np.eye(4)
        pose[:3, :3], pose[:3, 3] = about_z(self.yaw_rad), self.start_m
        return pose

    def path(self, since_s: Array, hands: tuple[Array, Array], grips: tuple[Array, Array]) -> Array:
        """(T, 4, 4) scene-from-object.

        since_s: (T,) rising; it contains the times at which contacts begin and end. hands: (T, 4, 4) of both; grips:
        (T, 3); all in the scene's frame.
        """
        out = np.tile(self.first_pose, (len(since_s), 1, 1))
        for contact in self.contacts:
            frames = np.flatnonzero((since_s >= contact.start_s) & (since_s <= contact.end_s))
            if not len(frames):
                continue
            moved = _moved(contact, out[frames[0]], hands[contact.side][frames], grips[contact.side][frames])
            out[frames] = moved if contact.goal_m is None else _settled(moved, contact.goal_m)
            out[frames[-1] + 1 :] = out[frames[-1]]
        return out


def _moved(contact: Contact, start: Array, hand: Array, grip: Array) -> Array:
    """(n, 4, 4) path of a thing that was at `start` (4, 4) when the hand took it."""
    if contact.how == "hold":
        return hand @ np.linalg.inv(hand[0]) @ start
    out = np.tile(start, (len(hand), 1, 1))
    if contact.how == "slide":
        out[:, :2, 3] += grip[:, :2] - grip[0, :2]
    else:
        heading = np.unwrap(np.arctan2(*np.ascontiguousarray(hand[:, 1::-1, 1].T)))
        out[:, :3, :3] = about_z(heading - heading[0]) @ start[:3, :3]
    return out


def _settled(moved: Array, goal_m: Array) -> Array:
    """The path with its last part changed so that it ends upright with its middle at the goal; the heading stays."""
    end, goal = moved[-1], np.eye(4)
    heading = np.arctan2(end[1, 0] - end[0, 1], end[0, 0] + end[1, 1])
    goal[:3, :3], goal[:3, 3] = about_z(heading), goal_m
    rest = np.linalg.inv(end) @ goal
    turn = Rotation.from_matrix(rest[:3, :3]).as_rotvec()
    share = ease([0.3, 1.0], [0.0, 1.0], np.linspace(0.0, 1.0, len(moved)))[:, None]
    bend = np.tile(np.eye(4), (len(moved), 1, 1))
    bend[:, :3, :3], bend[:, :3, 3] = Rotation.from_rotvec(share * turn).as_matrix(), share * rest[:3, 3]
    return moved @ bend


def about_z(angle_rad: Array | float) -> Array:
    """(..., 3, 3) rotations about the upright axis."""
    c, s, zero = np.cos(angle_rad), np.sin(angle_rad), np.zeros(np.shape(angle_rad))
    rows = [np.stack([c, -s, zero], -1), np.stack([s, c, zero], -1), np.stack([zero, zero, zero + 1], -1)]
    return np.stack(rows, -2)


def mirrored(transforms: Array) -> Array:
    """(..., 4, 4) the mirror image (x -> -x) of rigid transforms."""
    return _FLIP @ transforms @ _FLIP


def wiggle(rng: np.random.Generator, size: float, shape: tuple[int, ...], end_s: float) -> Callable[[Array], Array]:
    """Smooth small motion: three slow sines with random phases; seconds to (T, *shape)."""
    phase = rng.uniform(0, 2 * np.pi, (3, *shape))
    hertz = rng.uniform(0.25, 0.75, (3, *shape)) * min(1.0, 2.5 / end_s + 0.4)

    def extra(at: Array) -> Array:
        at = at.reshape(-1, *(1,) * len(shape))
        return size * sum(np.sin(2 * np.pi * hertz[i] * at + phase[i]) / (i + 1) for i in range(3))

    return extra
