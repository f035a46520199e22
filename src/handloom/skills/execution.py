"""What a clip shows of a skill: the steps that act on things, from its segments, in frames that other clips share.

Things are named by the order in which they are first taken: `A`, `B`, ... Hands are `main` (the one that acts longer)
and `other`. An execution by the left hand is mirrored (x becomes -x), so that both hands teach one skill. Where the
master is the scene, places are relative to where the thing stood when the step began, along the axes of the thing when
it was first taken: the world's own axes mean nothing to another clip.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

Floats = NDArray[np.float64]

GRASPING, MANIPULATION, SCENE, HAND = "grasping", "manipulation", "scene", "hand"
MAIN, OTHER, HOLD = "main", "other", "hold"
UNKNOWN_WORDS = "do something with"
"""An action that the segments do not name."""
NUM_KEYPOINTS = 10
LEAST_KNOWN = 3
"""A path with fewer known frames says nothing about how it goes."""
_MIRROR = np.diag([-1.0, 1.0, 1.0, 1.0])
_OBJECT = re.compile(r"\b(to |from |into )?object[ _]\d+\b")


@dataclass(frozen=True)
class Step:
    """One sub-task of an execution.

    action: words without names of things (`lift`); empty: unknown. master, slave: `hand`, `scene` or a thing's letter.
    grasp: (4, 4) thing_from_hand at contact; None: unknown. path: (10, 6) keypoints uniform in time, x, y, z in metres
    and the turn since the step began as a rotation vector in radians; None: unknown, and for grasping. box, master_box:
    (6) least and largest x, y, z of the thing that is moved or taken, and of the master, metres; None: unknown.
    """

    phase: str
    action: str
    hand: str
    master: str
    slave: str
    start_s: float
    end_s: float
    grasp: Floats | None = None
    path: Floats | None = None
    box: Floats | None = None
    master_box: Floats | None = None

    @property
    def is_told(self) -> bool:
        """Whether it is known what is done with the thing; that it was taken does not say it."""
        return self.phase == MANIPULATION and bool(self.action)

    @property
    def words(self) -> str:
        """`lift A`, `lower A to B`."""
        thing = self.master if self.phase == GRASPING else self.slave
        to = f" to {self.master}" if self.phase == MANIPULATION and self.master != SCENE else ""
        return f"{self.action or UNKNOWN_WORDS} {thing}{to}"


@dataclass(frozen=True)
class Execution:
    """The steps of a clip in order of time; without any, nothing that is known was taken. verb: what the clip is
    called; empty: unknown."""

    clip_id: str
    steps: tuple[Step, ...]
    verb: str = ""

    @property
    def words(self) -> str:
        return ", ".join(step.words for step in self.steps) or "no step with a thing"


def read_execution(clip_id: str, segments: Sequence[Mapping[str, Any]], verb: str = "") -> Execution:
    """The steps of a clip from its column `segments`. Movements without a thing, and a thing that is only held,
    are left out; neighbours that say the same of the same things are one step."""
    acting = [one for one in segments if one["phase"] is not None and action_of(one["text"]) != HOLD]
    joined: list[dict[str, Any]] = []
    for one in sorted(acting, key=lambda item: (item["start_s"], item["hand"])):
        now = {**one, "poses": _poses(one), "action": action_of(one["text"])}
        last = next((item for item in reversed(joined) if item["hand"] == one["hand"]), None)
        if last is not None and _goes_on(last, now):
            gap = max(now["start_frame"] - last["end_frame"], 0)
            last["poses"] = np.concatenate([last["poses"], np.full((gap, 4, 4), np.nan), now["poses"]])
            last |= {"end_s": now["end_s"], "end_frame": now["end_frame"]}
        else:
            joined.append(now)
    main = _main_hand(joined)
    letters = _letters(joined)
    boxes = {_thing_of(one): one["object_box_m"] for one in joined if one["object_box_m"] is not None}
    axes: dict[str, Floats] = {}
    steps = [_step(one, main, letters, boxes, axes) for one in joined]
    return Execution(clip_id, tuple(steps), verb)


def action_of(text: str | None) -> str:
    """`lift` of `lift object 1`; the empty string of no text."""
    return " ".join(_OBJECT.sub("", text or "").split())


def mirrored(pose: Floats) -> Floats:
    """(..., 4, 4) what a mirror at x = 0 shows of a pose."""
    return _MIRROR @ pose @ _MIRROR


def _poses(one: Mapping[str, Any]) -> Floats:
    return np.array(one["trajectory"] or [], float).reshape(-1, 4, 4)


def _goes_on(last: Mapping[str, Any], now: Mapping[str, Any]) -> bool:
    same = all(last[name] == now[name] for name in ("phase", "master", "slave", "action"))
    return same and bool(now["action"])


def _thing_of(one: Mapping[str, Any]) -> str:
    return one["master"] if one["phase"] == GRASPING else one["slave"]


def _main_hand(steps: Sequence[Mapping[str, Any]]) -> str:
    seconds = {hand: sum(s["end_s"] - s["start_s"] for s in steps if s["hand"] == hand) for hand in ("right", "left")}
    return max(seconds, key=lambda hand: seconds[hand])


def _letters(steps: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    names: dict[str, str] = {}
    for one in steps:
        for name in (_thing_of(one), one["master"]):
            if name.startswith("object"):
                names.setdefault(name, chr(ord("A") + min(len(names), 25)))
    return names


def _step(
    one: Mapping[str, Any], main: str, letters: Mapping[str, str], boxes: Mapping[str, Any], axes: dict[str, Floats]
) -> Step:
    thing, flip = _thing_of(one), main == "left"
    grasp = None if one["grasp_pose"] is None else np.array(one["grasp_pose"], float).reshape(4, 4)
    grasp = grasp if grasp is not None and np.isfinite(grasp).all() else None
    path = None
    if one["phase"] == MANIPULATION:
        path = _path(one["poses"], None if one["master"] != SCENE else axes, thing)
        if path is not None and flip:
            path = path * [-1, 1, 1, 1, -1, -1]
    return Step(
        one["phase"],
        one["action"],
        MAIN if one["hand"] == main else OTHER,
        letters.get(one["master"], one["master"]),
        letters.get(one["slave"], HAND),
        float(one["start_s"]),
        float(one["end_s"]),
        grasp if grasp is None or not flip else mirrored(grasp),
        path,
        _box(boxes.get(thing), flip),
        _box(boxes.get(one["master"]), flip) if one["phase"] == MANIPULATION else None,
    )


def _box(box: Sequence[float] | None, flip: bool) -> Floats | None:
    """None: unknown, and where a thing has no size along any axis, as one of a single point."""
    if box is None or not np.isfinite(box).all():
        return None
    out = np.array(box, float)
    sides = out[3:] - out[:3]
    if (sides < 0).any() or not (sides > 0).any():
        return None
    return np.array([-out[3], *out[1:3], -out[0], *out[4:]]) if flip else out


def _path(poses: Floats, axes: dict[str, Floats] | None, thing: str) -> Floats | None:
    """(10, 6) keypoints; axes: of the things that were taken before, where places are those of the scene."""
    known = np.flatnonzero(np.isfinite(poses[:, 0, 0]))
    if len(known) < LEAST_KNOWN:
        return None
    places, turns = poses[known, :3, 3], poses[known, :3, :3]
    if axes is not None:
        frame = axes.setdefault(thing, turns[0])
        places, turns = (places - places[0]) @ frame, frame.T @ turns @ frame
    since = Rotation.from_matrix(turns @ turns[0].T).as_rotvec()
    at = np.linspace(known[0], known[-1], NUM_KEYPOINTS)
    values = np.concatenate([places, _unwrapped(since)], axis=1)
    return np.stack([np.interp(at, known, column) for column in values.T], axis=1)


def _unwrapped(turns: Floats) -> Floats:
    """Rotation vectors (n, 3) without jumps: beyond half a turn an axis would flip."""
    out = turns.copy()
    for i in range(1, len(out)):
        angle = float(np.linalg.norm(out[i]))
        if angle > 0.5 * np.pi:
            other = out[i] * (1 - 2 * np.pi / angle)
            if np.linalg.norm(other - out[i - 1]) < np.linalg.norm(out[i] - out[i - 1]):
                out[i] = other
    return out
