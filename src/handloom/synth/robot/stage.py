"""A robot that does what a person does in a scene: the same moves, with a gripper in place of the hand.

The tool's origin follows the hand's grip point and turns with the wrist; for each grasp the gripper has a rotation of
its own relative to the wrist (`_Take`), as steep as suits the thing. Its opening follows the distance of the tips of
thumb and index, scaled so that the fingers touch the thing they hold.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation, Slerp

from handloom.schemas.hand_topology import INDEX, THUMB
from handloom.synth.bystanders import place_bystanders
from handloom.synth.hand import forward_kinematics
from handloom.synth.objects import ObjectShape
from handloom.synth.robot.arm import MAX_OPENING_M, link_poses, lowest_m, state_of, tool_rotation
from handloom.synth.script.actions import write_play
from handloom.synth.script.poses import ease
from handloom.synth.script.scene import SceneSpec
from handloom.synth.script.timeline import Thing
from handloom.synth.script.verbs import Play

Array = NDArray[np.float64]

_SHOULDER = np.array([0.19, -0.40, 0.20])  # of the person who is followed
_CLEARANCE_M, _SPARE_M = 0.003, 0.03
_HANDLE_M, _RIM_M = 0.012, 0.006
_ELEVATION_DEG = {"power": 50.0, "pinch": 78.0, "claw": 84.0, "hook": 35.0, "flat": 62.0, "wipe": 76.0}


@dataclass(frozen=True)
class RobotStage:
    """The exact truth of a demonstration; world as in `Truth`.

    frame_s: (T,) from 0. state: (T, 7), see `arm.state_of`. opening_m: (T,). world_from_tool: (T, 4, 4).
    world_from_link: (T, L, 4, 4) of `arm.LINKS`. world_from_object: (T, O, 4, 4); shapes, nouns: O, the acted thing
    first. held: (T,) whether the gripper holds a thing.
    """

    frame_s: Array
    state: Array
    opening_m: Array
    world_from_tool: Array
    world_from_link: Array
    world_from_object: Array
    shapes: tuple[ObjectShape, ...]
    nouns: tuple[str, ...]
    held: NDArray[np.bool_]

    @property
    def action(self) -> Array:
        """(T, 7) the state of the next frame; the last one is repeated."""
        return np.concatenate([self.state[1:], self.state[-1:]])


@dataclass(frozen=True)
class _Take:
    """The gripper at a thing from `start_s` to `end_s`. kind: of the approach. width_m: to which it closes.

    across: the fingers move horizontally; else in the vertical plane of the approach. grasps: the thing is between the
    fingers.
    """

    thing: Thing
    start_s: float
    end_s: float
    kind: str
    width_m: float
    across: bool = True
    grasps: bool = True


def build_robot_stage(spec: SceneSpec) -> RobotStage:
    """A demonstration frame by frame; the same spec gives the same stage."""
    rng = np.random.default_rng([spec.seed, 1])
    since_s = np.arange(spec.num_frames) / spec.fps
    play = write_play(spec.action, spec.noun, rng, spec.num_frames / spec.fps, "none", helps=False)
    takes = _takes(play)
    changes = np.array([at_s for take in takes for at_s in (take.start_s, take.end_s)])
    every_s = np.union1d(since_s, changes[changes < since_s[-1]])
    drawn = np.searchsorted(every_s, since_s)

    _, wrist, _ = play.main.path(every_s, _SHOULDER)
    rotation = _rotation(takes, every_s, wrist)
    opening = _opening(takes, every_s, _pinch_m(play, every_s, spec.hand_scale))
    tool = np.tile(np.eye(4), (len(every_s), 1, 1))
    tool[:, :3, :3], tool[:, :3, 3] = rotation, play.main.grip.at(every_s)
    tool[:, 2, 3] += np.maximum(_CLEARANCE_M - lowest_m(tool, opening), 0.0)

    hand = tool.copy()
    hand[:, :3, :3] = wrist
    paths = [thing.path(every_s, (hand, hand), (tool[:, :3, 3],) * 2)[drawn] for thing in play.things]
    others = _bystanders(spec, play.things, np.stack(paths, axis=1), tool[drawn])
    still = [np.broadcast_to(thing.first_pose, (len(since_s), 4, 4)) for thing in others]
    held = np.zeros(len(since_s), bool)
    for take in takes:
        held |= take.grasps & (since_s >= take.start_s) & (since_s <= take.end_s)
    tool, opening, cast = tool[drawn], opening[drawn], [*play.things, *others]
    return RobotStage(
        since_s, state_of(tool, opening), opening, tool, link_poses(tool, opening), np.stack([*paths, *still], axis=1),
        tuple(thing.shape for thing in cast), tuple(thing.noun for thing in cast), held,
    )  # fmt: skip


def _takes(play: Play) -> list[_Take]:
    """The takes of the gripper, in order. A thing that is only reached for is taken as the clip ends."""
    found = []
    for thing in play.things:
        for contact in thing.contacts:
            found.append(_take(thing, contact.how, contact.start_s, contact.end_s))
    found.sort(key=lambda take: take.start_s)
    reached = play.main.touching
    if reached is not None and all(take.thing is not reached or take.end_s < play.length_s - 0.1 for take in found):
        found.append(_take(reached, "reach", play.length_s, play.length_s + 1.0))
    return found


def _take(thing: Thing, how: str, start_s: float, end_s: float) -> _Take:
    if thing.noun == "drawer":
        return _Take(thing, start_s, end_s, "hook", _HANDLE_M, across=False)
    if thing.noun == "bowl" and how == "reach":
        return _Take(thing, start_s, end_s, "pinch", _RIM_M, across=False)
    height_m = thing.shape.half_m[2] * (0.99 if how == "turn" else 0.35)
    width = 2 * _half_width_m(thing.shape, height_m)
    if how == "slide" or width > MAX_OPENING_M - 0.01:
        return _Take(thing, start_s, end_s, "wipe" if thing.noun == "cloth" else "flat", 0.0, grasps=False)
    return _Take(thing, start_s, end_s, "claw" if how == "turn" else thing.shape.hold, width)


def _half_width_m(shape: ObjectShape, height_m: float) -> float:
    """Distance from the middle to the left and right sides, at `height_m` above the middle."""
    there = [part.half_m[0] for part in shape.parts if abs(height_m - part.centre_m[2]) <= part.half_m[2]]
    return max(there, default=shape.half_m[0])


def _rotation(takes: list[_Take], every_s: Array, wrist: Array) -> Array:
    """(n, 3, 3) world-from-tool.

    During a take, before the first and after the last, the gripper is rigid relative to the wrist (n, 3, 3); between
    takes it turns from one relative rotation to the next.
    """
    if not takes:
        level = tool_rotation(0.0, np.radians(_ELEVATION_DEG["flat"]))
        return wrist @ (wrist[0].T @ level)
    seats: list[Array] = []
    times: list[float] = []
    for take in takes:
        at = min(int(np.searchsorted(every_s, take.start_s)), len(every_s) - 1)
        tool = tool_rotation(_heading(take, wrist[at]), np.radians(_ELEVATION_DEG[take.kind]), take.across)
        start_s = max(take.start_s, times[-1] + 1e-3) if times else take.start_s
        seats += [wrist[at].T @ tool] * 2
        times += [start_s, max(take.end_s, start_s + 1e-3)]
    share = ease(times, list(range(len(times))), every_s)
    turning = Slerp(np.arange(len(seats)), Rotation.from_matrix(np.stack(seats)))
    return wrist @ turning(np.clip(share, 0, len(seats) - 1)).as_matrix()


def _heading(take: _Take, wrist: Array) -> float:
    """Heading of the gripper's approach: the hand's, or normal to a face of a box that it grasps."""
    heading = float(np.arctan2(-wrist[0, 1], wrist[1, 1]))
    if take.kind == "hook":
        return 0.0
    if take.grasps and take.thing.shape.parts[0].kind == "box":
        return take.thing.yaw_rad
    return heading


def _pinch_m(play: Play, every_s: Array, scale: float) -> Array:
    """(n,) distance between the tips of the person's thumb and index, metres."""
    keypoints = forward_kinematics(play.main.fingers.at(every_s), scale)[0]
    return np.linalg.norm(keypoints[:, THUMB[-1]] - keypoints[:, INDEX[-1]], axis=1)


def _opening(takes: list[_Take], every_s: Array, pinch_m: Array) -> Array:
    """(n,) metres between the pads: closed on each thing while it is held, else as far open as the hand is."""
    widest = pinch_m.max()
    if not takes:
        return MAX_OPENING_M * np.clip(pinch_m / widest, 0, 1)
    profiles = []
    for take in takes:
        inside = (every_s >= take.start_s) & (every_s <= take.end_s)
        closed_m = np.interp(take.start_s, every_s, pinch_m)
        share = np.clip((pinch_m - closed_m) / max(widest - closed_m, 1e-3), 0, 1)
        free = min(take.width_m + 0.04, MAX_OPENING_M) if take.grasps else 0.02
        profiles.append(np.where(inside, take.width_m, take.width_m + share * (free - take.width_m)))
    out = profiles[0]
    for before, after, profile in zip(takes[:-1], takes[1:], profiles[1:], strict=True):
        gap = (before.end_s, max(after.start_s, before.end_s + 1e-3))
        weight = ease(list(gap), [0.0, 1.0], every_s)
        out = (1 - weight) * out + weight * profile
    return out


def _bystanders(spec: SceneSpec, things: list[Thing], world_from_object: Array, tool: Array) -> list[Thing]:
    """Things that are not touched, away from moving things and from the gripper."""
    taken = [(world_from_object[:, i, :2, 3], thing.shape.radius_m) for i, thing in enumerate(things)]
    taken.append((tool[:, :2, 3], MAX_OPENING_M / 2 + 0.02))
    taken.append((tool[:, :2, 3] + 0.12 * tool[:, :2, 2], 0.07))
    return place_bystanders(spec, things, taken, _SPARE_M)
