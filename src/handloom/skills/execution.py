"""What a clip shows of a skill: the steps that act on things, from its segments, in frames that other clips share.

Things are named by the order in which they are first taken: `A`, `B`, ... Hands are `main` (the one that acts longer)
and `other`. An execution by the left hand is mirrored (x becomes -x), so that both hands teach one skill. Where the
master is the scene, places are relative to where the thing stood when the step began, along the axes of the thing when
it was first taken: the world's own axes mean nothing to another clip.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

Floats = NDArray[np.float64]

GRASPING, MANIPULATION, SCENE, HAND = "grasping", "manipulation", "scene", "hand"
MAIN, OTHER, HOLD = "main", "other", "hold"
TAKEN = "reach for"
UNKNOWN_WORDS = "do something with"
"""An action that the segments do not name."""
NUM_KEYPOINTS = 10
LEAST_KNOWN = 3
"""A path with fewer known frames says nothing about how it goes."""
THING_M, SMEARED = 0.15, 0.6
"""Things that a hand moves are about as long as the first."""
USELESS_M = 0.045
"""A path that is likely to be off by more says nothing: hands move things over some ten centimetres."""
_MIRROR = np.diag([-1.0, 1.0, 1.0, 1.0])
_FLIPPED = np.array([-1.0, 1.0, 1.0, 1.0, -1.0, -1.0])
"""The same of a place and a rotation vector."""
_OBJECT = re.compile(r"\b(to |from |into )?object[ _]\d+\b")


@dataclass(frozen=True)
class Step:
    """One sub-task of an execution.

    action: words without names of things (`lift`); empty: unknown. master, slave: `hand`, `scene` or a thing's letter.
    grasp: (4, 4) thing_from_hand at contact; None: unknown. path: (10, 6) keypoints uniform in time, x, y, z in metres
    and the turn since the step began as a rotation vector in radians; None: unknown, and for grasping. box, master_box:
    (6) least and largest x, y, z of the thing that is moved or taken, and of the master, metres; None: unknown. gap:
    (6) place and turn of the thing where the step begins, from where the step before it had left it in the same hand;
    None: unknown, and where it was not in that hand. error_m: what the places may be off along the line of sight.
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
    gap: Floats | None = None
    error_m: float = 0.0

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
    joined = _with_grasps(joined)
    main = _main_hand(joined)
    letters = _letters(joined)
    boxes = {_thing_of(one): one["object_box_m"] for one in joined if one["object_box_m"] is not None}
    axes: dict[str, Floats] = {}
    steps = [_step(one, main, letters, boxes, axes) for one in joined]
    steps = [replace(step, gap=gap) for step, gap in zip(steps, _gaps(joined, axes, main == "left"), strict=True)]
    return Execution(clip_id, tuple(steps), verb)


def _with_grasps(steps: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The same with a grasp before the first movement of each thing in a hand: what a hand moves it has taken, whether
    or not the hand was seen as it came."""
    out: list[dict[str, Any]] = []
    held: dict[str, str] = {}
    for one in steps:
        thing = _thing_of(one)
        if one["phase"] == MANIPULATION and held.get(one["hand"]) != thing:
            began = one["start_s"] if one["contact_start_s"] is None else one["contact_start_s"]
            came = {"phase": GRASPING, "master": thing, "slave": f"hand_{one['hand']}", "action": TAKEN}
            when = {"start_s": began, "end_s": began, "end_frame": one["start_frame"]}
            out.append({**one, **came, **when, "poses": _poses({"trajectory": None})})
        held[one["hand"]] = thing
        out.append(one)
    return out


def _gaps(steps: Sequence[Mapping[str, Any]], axes: Mapping[str, Floats], flip: bool) -> list[Floats | None]:
    """(6) of each step (`Step.gap`)."""
    out: list[Floats | None] = []
    left: dict[str, tuple[str, Floats]] = {}
    for one in steps:
        known = one["poses"][np.isfinite(one["poses"][:, 0, 0])]
        thing, moves = _thing_of(one), one["phase"] == MANIPULATION
        before = left.pop(one["hand"], None)
        gap = None
        if moves and len(known) and one["master"] == SCENE:
            if before is not None and before[0] == thing and thing in axes:
                now, then, frame = known[0], before[1], axes[thing]
                turn = frame.T @ now[:3, :3] @ then[:3, :3].T @ frame
                gap = np.concatenate([(now[:3, 3] - then[:3, 3]) @ frame, Rotation.from_matrix(turn).as_rotvec()])
                gap = gap * _FLIPPED if flip else gap
            left[one["hand"]] = (thing, known[-1])
        out.append(gap)
    return out


def action_of(text: str | None) -> str:
    """`lift` of `lift object 1`; the empty string of no text."""
    return " ".join(_OBJECT.sub("", text or "").split())


def place_error_m(one: Mapping[str, Any]) -> float:
    """How far off along the line of sight a segment's grasp or path is likely to be; 0 without a thing with a box.

    Points that lie farther apart than those of a thing that a hand moves are smeared along the line of sight. They move
    the middle of the thing, from which grasps count, by half of that. What it errs on its way averages out over the
    points: in 61 rendered segments the way from the first frame to the last was wrong by 1.5 cm (median) where this is
    below 3 cm, by 5.1 cm from there to 5 cm, and by 6.7 cm above.
    """
    box, num = one["object_box_m"], len(one["object_tracks"] or ())
    if box is None or not num or not np.isfinite(box).all():
        return 0.0
    smeared_m = max(float(max(np.subtract(box[3:], box[:3]))) - THING_M, 0.0)
    return 0.5 * smeared_m if one["phase"] == GRASPING else SMEARED * smeared_m / float(np.sqrt(num))


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
            path = path * _FLIPPED
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
        error_m=place_error_m(one),
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
    values = np.concatenate([places, unwrapped(since)], axis=1)
    return np.stack([np.interp(at, known, column) for column in values.T], axis=1)


def unwrapped(turns: Floats) -> Floats:
    """Rotation vectors (n, 3) without jumps: beyond half a turn an axis would flip."""
    out = turns.copy()
    for i in range(1, len(out)):
        angle = float(np.linalg.norm(out[i]))
        if angle > 0.5 * np.pi:
            other = out[i] * (1 - 2 * np.pi / angle)
            if np.linalg.norm(other - out[i - 1]) < np.linalg.norm(out[i] - out[i - 1]):
                out[i] = other
    return out
