"""Atomic actions of a clip: from the arrays of its row to segments with phases, contacts, poses and trajectories."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from handloom.geometry.interactions.beside import bridge_gaps
from handloom.geometry.interactions.contacts import Contact, find_contacts
from handloom.geometry.interactions.cutting import Piece, cut_movements
from handloom.geometry.interactions.moving import point_motion
from handloom.geometry.interactions.objects import Thing, find_things
from handloom.geometry.interactions.rigid import inverse
from handloom.geometry.interactions.scene import Scene
from handloom.geometry.interactions.signals import HandMotion, hand_motion
from handloom.geometry.interactions.words import grasping_words, manipulation_words
from handloom.schemas.values import NUM_HANDS

Floats = NDArray[np.float64]

GRASPING, MANIPULATION = "grasping", "manipulation"
HANDS = ("left", "right")
SCENE = "scene"
NUM_KEYPOINTS_OF_PATH = 10
NEAR_M = 0.04
"""A held thing acts on another one whose box it comes nearer to than this, or that the other hand holds."""
BY_SHAPE = 0.3
"""Factor of the confidence where no pose of the thing is known."""
WITHOUT_METRES = 0.5
"""Factor of the confidence where lengths follow from the usual size of a hand alone."""


@dataclass(frozen=True)
class Segment:
    """One atomic action: the fields of the column `segments` (docs/segments.md), arrays instead of lists."""

    start_s: float
    end_s: float
    start_frame: int
    end_frame: int
    hand: str
    phase: str | None
    master: str
    slave: str
    contact_start_s: float | None
    contact_end_s: float | None
    keyframes: tuple[int, ...]
    object_tracks: tuple[int, ...]
    object_box_m: Floats | None
    grasp_pose: Floats | None
    trajectory: Floats
    trajectory_keypoints: Floats | None
    confidence: float
    text: str | None = None


@dataclass(frozen=True)
class Found:
    """What was found in a clip, beside its segments."""

    segments: list[Segment]
    contacts: list[Contact]
    things: dict[int, Thing]
    hands: tuple[HandMotion, HandMotion]


def find_segments(scene: Scene, contact_m: float, min_path_m: float) -> Found:
    """The segments of a clip, by start, then hand. The same arrays give the same segments.

    Args:
        contact_m: VLMimic's epsilon, the distance below which a hand touches a thing. min_path_m: its gamma, the least
            length of a movement.
    """
    shot = scene.shot
    left, right = (
        hand_motion(scene.hands_m[:, hand], scene.frame_s, shot, scene.poses, hand) for hand in range(NUM_HANDS)
    )
    motion = point_motion(scene)
    hands = (bridge_gaps(left, scene, motion), bridge_gaps(right, scene, motion))
    contacts = find_contacts(scene, motion, hands, contact_m)
    things = find_things(scene, motion, hands, contacts)
    pieces = [
        piece
        for hand in range(NUM_HANDS)
        for piece in cut_movements(hands[hand], scene.frame_s, shot, hand, contacts, min_path_m)
    ]
    maker = _Maker(scene, hands, contacts, things)
    segments = [maker.segment(piece) for piece in sorted(pieces, key=lambda one: (one.start, one.hand))]
    return Found(segments, contacts, things, hands)


@dataclass(frozen=True)
class _Maker:
    """Makes segments of pieces."""

    scene: Scene
    hands: tuple[HandMotion, HandMotion]
    contacts: list[Contact]
    things: dict[int, Thing]

    def segment(self, piece: Piece) -> Segment:
        contact = piece.contact or piece.comes_to
        thing = None if contact is None else self.things.get(contact.thing)
        phase = None if contact is None else MANIPULATION if piece.contact else GRASPING
        hand_name = f"hand_{HANDS[piece.hand]}"
        if contact is None:
            master, slave = SCENE, hand_name
        elif phase == GRASPING:
            master, slave = f"object_{contact.thing}", hand_name
        else:
            master, slave = self._master(piece, contact, thing), f"object_{contact.thing}"
        trajectory = self._trajectory(piece, thing, master, slave)
        frames = range(piece.start, piece.end)
        touch = None if contact is None else contact.start
        keyframes = {piece.start, self._fastest(piece), piece.end - 1} | ({touch} & {*frames} if touch else set())
        return Segment(
            float(self.scene.frame_s[piece.start]),
            self._time(piece.end),
            piece.start,
            piece.end,
            HANDS[piece.hand],
            phase,
            master,
            slave,
            None if contact is None else float(self.scene.frame_s[contact.start]),
            None if contact is None else self._time(contact.end),
            tuple(sorted(keyframes)),
            () if thing is None else tuple(thing.points[~self.scene.later[thing.points]].tolist()),
            None if thing is None else thing.box_m,
            None if contact is None else self._grasp(piece.hand, contact, thing),
            trajectory,
            keypoints_of_path(trajectory),
            self._confidence(piece, contact, thing),
            self._text(piece, contact, thing, master),
        )

    def _time(self, frame: int) -> float:
        """Time at which a frame begins; the end of the clip's last one by the usual time between frames."""
        times = self.scene.frame_s
        if frame < len(times):
            return float(times[frame])
        return float(times[-1] + (np.median(np.diff(times)) if len(times) > 1 else 0.0))

    def _fastest(self, piece: Piece) -> int:
        speed = self.hands[piece.hand].speed[piece.start : piece.end]
        return piece.start + (int(np.nanargmax(speed)) if np.isfinite(speed).any() else 0)

    def _master(self, piece: Piece, contact: Contact, thing: Thing | None) -> str:
        """What a thing is moved in relation to: another known thing that the other hand holds, or that it comes to."""
        for other in self.contacts:
            held = min(other.end, piece.end) - max(other.start, piece.start) > 0.5 * (piece.end - piece.start)
            is_other = other.hand != piece.hand and other.thing != contact.thing and other.thing in self.things
            if held and is_other:
                return f"object_{other.thing}"
        if thing is None:
            return SCENE
        end = thing.poses[piece.end - 1]
        gaps = {
            number: _gap_m(end @ _corners(thing), other, piece.end - 1)
            for number, other in self.things.items()
            if number != contact.thing
        }
        near = [number for number, gap in gaps.items() if gap < NEAR_M]
        return f"object_{min(near, key=lambda number: gaps[number])}" if near else SCENE

    def _pose(self, name: str, frames: slice) -> Floats:
        """(n, 4, 4) world_from_NAME in some frames, NaN unknown."""
        if name.startswith("hand_"):
            return self.hands[HANDS.index(name.removeprefix("hand_"))].frame[frames]
        num = len(range(*frames.indices(len(self.scene.frame_s))))
        if name == SCENE:
            known = np.isfinite(self.scene.poses[frames]).all(axis=(1, 2)) & self.scene.on_path[frames]
            return np.where(known[:, None, None], np.eye(4), np.nan)
        thing = self.things.get(int(name.removeprefix("object_")))
        return np.full((num, 4, 4), np.nan) if thing is None else thing.poses[frames]

    def _trajectory(self, piece: Piece, thing: Thing | None, master: str, slave: str) -> Floats:
        frames = slice(piece.start, piece.end)
        path = inverse(self._pose(master, frames)) @ self._pose(slave, frames)
        return np.where(np.isfinite(path).all(axis=(1, 2), keepdims=True), path, np.nan)

    def _grasp(self, hand: int, contact: Contact, thing: Thing | None) -> Floats | None:
        if thing is None:
            return None
        pose = inverse(thing.poses[contact.start]) @ self.hands[hand].frame[contact.start]
        return pose if np.isfinite(pose).all() else None

    def _text(self, piece: Piece, contact: Contact | None, thing: Thing | None, master: str) -> str | None:
        if contact is None:
            return None
        name = f"object_{contact.thing}"
        if piece.contact is None:
            return grasping_words(name)
        if thing is None:
            return None
        first = next(one for one in self.contacts if one.thing == contact.thing)
        return manipulation_words(thing.poses[piece.start : piece.end], thing.poses[first.start], name, master)

    def _confidence(self, piece: Piece, contact: Contact | None, thing: Thing | None) -> float:
        """Share of frames in which the hand was seen, times that in which its thing has a pose, halved without
        metres."""
        frames = slice(piece.start, piece.end)
        share = float(self.scene.seen[frames, piece.hand].mean())
        if contact is not None:
            share *= BY_SHAPE if thing is None else float(np.isfinite(thing.poses[frames, 0, 0]).mean())
        return share * (1.0 if self.scene.is_metric and self.scene.on_path[frames].all() else WITHOUT_METRES)


def keypoints_of_path(trajectory: Floats) -> Floats | None:
    """(10, 3) places along a trajectory (n, 4, 4), uniform in time, by linear interpolation between known frames; None
    with fewer than two."""
    known = np.flatnonzero(np.isfinite(trajectory[:, 0, 0]))
    if len(known) < 2:
        return None
    at = np.linspace(known[0], known[-1], NUM_KEYPOINTS_OF_PATH)
    return np.stack([np.interp(at, known, trajectory[known, axis, 3]) for axis in range(3)], axis=1)


def _corners(thing: Thing) -> Floats:
    """(4, 8) corners of a thing's box, homogeneous."""
    low, high = thing.box_m[:3], thing.box_m[3:]
    grid = np.array(np.meshgrid(*zip(low, high, strict=True))).reshape(3, -1)
    return np.concatenate([grid, np.ones((1, 8))])


def _gap_m(corners: Floats, other: Thing, frame: int) -> float:
    """Distance of points (4, 8) in the world from another thing's box; inf where unknown."""
    local = (inverse(other.poses[frame]) @ corners)[:3].T
    low, high = other.box_m[:3], other.box_m[3:]
    if not (np.isfinite(local).all() and np.isfinite(low).all()):
        return float("inf")
    middle = local.mean(axis=0)
    inside = np.concatenate([local, middle[None]])
    away = np.maximum(np.maximum(low - inside, inside - high), 0.0)
    return float(np.linalg.norm(away, axis=1).min())
