"""What hands do with things as episodes in the form of a robot's: a hand's pose, its gripper, the thing and the goal.

A clip of people holds the numbers that a control recipe is trained on: where the hand is, how far it is open, where
the thing is that it takes, and, in hindsight, where the thing ends (Andrychowicz et al., Hindsight Experience Replay,
2017). Each contact of a hand with a thing (docs/segments.md) gives up to two episodes: `reach`, the hand comes to the
place at which it takes the thing, and `carry`, it comes, takes the thing and brings it to where it ends.

Frame: along the axes of the thing as it stood, z up, y away from the camera, x right; the origin is where it stood.
That is how frames of robots on tables usually lie. What a left hand does is mirrored, so that all episodes are of one
hand.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from handloom.export.lerobot.dataset import Episode, Layout
from handloom.export.lerobot.meta import Feature
from handloom.geometry.interactions.signals import hand_motion
from handloom.schemas.tables.robot import HUMAN_HAND
from handloom.schemas.values import LEFT, RIGHT

Floats = NDArray[np.float64]

STATE, ENVIRONMENT, ACTION = "observation.state", "observation.environment_state", "action"
STATE_NAMES = ("x", "y", "z", "qx", "qy", "qz", "qw", "gripper")
ENVIRONMENT_NAMES = ("object0.x", "object0.y", "object0.z", "goal.x", "goal.y", "goal.z")
REACH, CARRY = "reach", "carry"
KIND = "kind"
"""The column of the list of episodes that has `reach` or `carry`."""
SOURCE = pa.schema(
    [
        *(pa.field(name, pa.string()) for name in ("clip_id", "source_dataset", "video_id", "hand", KIND, "licence")),
        *(pa.field(name, pa.float64()) for name in ("start_s", "end_s")),
    ]
)
COLUMNS = ("clip_id", "dataset", "video_id", "licence", "narration", "noun", "frame_s", "frame_flags", "world_scale",
           "world_from_camera", "hand_keypoints_world_m", "segments")  # fmt: skip
OPEN_M = 0.10
"""A hand whose fingers are as far from the thumb counts as a gripper that is open."""
BEFORE_S, AFTER_S = 1.5, 0.3
"""A way to a thing that no segment has is at most so long; so long after the contact the hand is still followed."""
MOVED_M = 0.04
"""A thing that is moved by less was not brought anywhere."""
GAP_S = 0.2
"""Over longer gaps in what is known nothing is interpolated."""
LEAST_STEPS = 4
_MIRROR = np.array([-1.0, 1.0, 1.0])


@dataclass(frozen=True)
class Interaction:
    """One hand comes to one thing and moves it; T frames.

    frame_s: (T,). keypoints_m: (T, 21, 3) of the hand. thing_m: (T, 3) where the thing is. Both in the world, NaN
    unknown. poses: (T, 4, 4) world_from_camera. axes: (3, 3), rows x right, y away and z up in the world. hand: `LEFT`
    or `RIGHT`. contact: the frame at which it takes the thing. noun: the thing's name, empty if unknown. text: what is
    done, in words. source: the values of `SOURCE` but `KIND`.
    """

    frame_s: Floats
    keypoints_m: Floats
    thing_m: Floats
    poses: Floats
    axes: Floats
    hand: int
    contact: int
    noun: str
    text: str
    source: Mapping[str, Any]


def interactions_of(row: Mapping[str, Any]) -> list[Interaction]:
    """Of one row of `clips` (`row_arrays`, `COLUMNS`), in order of time; none where the world has no metres.

    An interaction in which the thing is never seen in the scene is left out.
    """
    points, poses = row["hand_keypoints_world_m"], row["world_from_camera"]
    if row["world_scale"] != "metric" or points is None or poses is None or not row["segments"]:
        return []
    groups: dict[tuple[str, str, float], list[Mapping[str, Any]]] = {}
    for one in row["segments"]:
        if one["phase"] is not None and one["contact_start_s"] is not None:
            thing = one["master"] if one["phase"] == "grasping" else one["slave"]
            groups.setdefault((one["hand"], thing, one["contact_start_s"]), []).append(one)
    found = [_interaction(row, points, poses, some) for _, some in sorted(groups.items(), key=lambda item: item[0][2])]
    return [one for one in found if one is not None]


def _interaction(
    row: Mapping[str, Any], points: Floats, poses: Floats, segments: Sequence[Mapping[str, Any]]
) -> Interaction | None:
    frame_s = np.asarray(row["frame_s"], np.float64)
    place = np.full((len(frame_s), 3), np.nan)
    turn: Floats | None = None
    for one in segments:
        if one["phase"] == "grasping" or one["master"] != "scene":
            continue
        path = np.array(one["trajectory"], np.float64).reshape(-1, 4, 4)
        place[one["start_frame"] : one["end_frame"]] = path[:, :3, 3]
        known = np.flatnonzero(np.isfinite(path[:, 0, 0]))
        turn = path[known[0], :3, :3] if turn is None and len(known) else turn
    if turn is None:
        return None
    contact = int(np.searchsorted(frame_s, segments[0]["contact_start_s"] - 1e-6))
    end_s = max(one["contact_end_s"] for one in segments) + AFTER_S
    last = int(np.searchsorted(frame_s, end_s - 1e-6))
    came = [one["start_frame"] for one in segments if one["phase"] == "grasping"]
    first = min(came) if came else int(np.searchsorted(frame_s, frame_s[min(contact, len(frame_s) - 1)] - BEFORE_S))
    hand = LEFT if segments[0]["hand"] == "left" else RIGHT
    some = slice(first, last)
    source = {name: row[name] for name in ("clip_id", "video_id", "licence")} | {"source_dataset": row["dataset"]}
    source |= {"hand": segments[0]["hand"], "start_s": float(frame_s[first]), "end_s": float(frame_s[last - 1])}
    return Interaction(
        frame_s[some], np.asarray(points[some, hand], np.float64), _filled(place)[some],
        np.asarray(poses[some], np.float64), turn.T, hand, contact - first, row["noun"] or "", row["narration"] or "",
        source,
    )  # fmt: skip


def _filled(place: Floats) -> Floats:
    """(T, 3) with the first known place before it, the last one after it, and straight lines over gaps."""
    known = np.flatnonzero(np.isfinite(place[:, 0]))
    frames = np.arange(len(place))
    return np.stack([np.interp(frames, known, column[known]) for column in place.T], axis=1)


def layout_of(hz: float) -> Layout:
    """The features of interactions."""
    metres = {"x": "m", "y": "m", "z": "m"}
    units = tuple(metres.get(name.rpartition(".")[2]) for name in STATE_NAMES)
    features = {
        STATE: Feature("float32", (len(STATE_NAMES),), STATE_NAMES, units),
        ENVIRONMENT: Feature("float32", (len(ENVIRONMENT_NAMES),), ENVIRONMENT_NAMES, ("m",) * 6),
        ACTION: Feature("float32", (len(STATE_NAMES),), STATE_NAMES, units),
    }
    return Layout(features, hz, SOURCE, HUMAN_HAND)


def episodes_of(one: Interaction, hz: float) -> Iterator[Episode]:
    """Its episodes on a grid of `hz` steps a second, NaN where unknown; too short ones are left out.

    `observation.state`: the middle of the tips of thumb, index and middle finger, the hand's orientation
    (`hand_frames`), and how far it is open, 0 to 1. `observation.environment_state`: object0, the thing (unknown in
    `reach`), and the goal: where the hand takes the thing (`reach`), where the thing ends (`carry`). `action`: the
    state one step later.
    """
    state, thing = _state(one), _seen(one.thing_m, one)
    grid = one.frame_s[0] + np.arange(int((one.frame_s[-1] - one.frame_s[0]) * hz + 1e-6) + 1) / hz
    at_contact = int(np.searchsorted(grid, one.frame_s[min(one.contact, len(one.frame_s) - 1)] - 1e-6))
    steps, things = _resampled(state, one.frame_s, grid), _resampled(thing, one.frame_s, grid)
    taken = steps[: at_contact + 1]
    known = np.flatnonzero(np.isfinite(taken[:, 0]))
    if len(known) >= LEAST_STEPS and known[-1] >= len(taken) - 2:
        goal = np.tile(taken[known[-1], :3], (len(taken), 1))
        text = f"reach for the {one.noun or 'thing'}"
        yield _episode(one, REACH, text, taken, np.concatenate([np.full_like(goal, np.nan), goal], axis=1))
    if np.linalg.norm(things[-1] - things[0]) >= MOVED_M and np.isfinite(steps[:, 0]).sum() >= LEAST_STEPS:
        goal = np.tile(things[-1], (len(things), 1))
        yield _episode(one, CARRY, one.text, steps, np.concatenate([things, goal], axis=1))


def _episode(one: Interaction, kind: str, text: str, state: Floats, environment: Floats) -> Episode:
    action = np.concatenate([state[1:], np.full_like(state[:1], np.nan)])
    values = {STATE: state, ENVIRONMENT: environment, ACTION: action}
    values = {name: value.astype(np.float32) for name, value in values.items()}
    return Episode(text, len(state), values, {}, {**one.source, KIND: kind})


def _state(one: Interaction) -> Floats:
    """(T, 8) of the hand, NaN where unknown."""
    shot = np.zeros(len(one.frame_s), np.int64)
    motion = hand_motion(one.keypoints_m, one.frame_s, shot, one.poses, one.hand)
    turn = one.axes @ motion.frame[:, :3, :3]
    if one.hand == LEFT:
        turn = _MIRROR[:, None] * turn * _MIRROR
    known = np.isfinite(turn).all((1, 2))
    quaternion = np.full((len(turn), 4), np.nan)
    if known.any():
        found = Rotation.from_matrix(turn[known]).as_quat()
        flips = np.cumprod(np.where((found[1:] * found[:-1]).sum(-1) < 0, -1.0, 1.0))  # q and -q are one rotation
        quaternion[known] = found * np.concatenate([[1.0], flips])[:, None]
    gripper = np.clip(motion.pinch_m / OPEN_M, 0.0, 1.0)
    return np.concatenate([_seen(motion.grip_m, one), quaternion, gripper[:, None]], axis=1)


def _seen(places_m: Floats, one: Interaction) -> Floats:
    """Places of the world in the interaction's frame."""
    found = (places_m - one.thing_m[0]) @ one.axes.T
    return found * _MIRROR if one.hand == LEFT else found


def _resampled(values: Floats, frame_s: Floats, grid: Floats) -> Floats:
    """(S, D) on straight lines between known frames (T, D); NaN outside of them, and over gaps above `GAP_S`."""
    known = np.flatnonzero(np.isfinite(values).all(1))
    if len(known) < 2:
        return np.full((len(grid), values.shape[1]), np.nan)
    times = frame_s[known]
    after = np.clip(np.searchsorted(times, grid - 1e-6), 1, len(times) - 1)
    out = np.stack([np.interp(grid, times, column[known]) for column in values.T], axis=1)
    beyond = (grid < times[0] - 1e-6) | (grid > times[-1] + 1e-6)
    near = np.minimum(np.abs(grid - times[after]), np.abs(grid - times[after - 1])) < 1e-6
    out[beyond | ((times[after] - times[after - 1] > GAP_S) & ~near)] = np.nan
    return out
