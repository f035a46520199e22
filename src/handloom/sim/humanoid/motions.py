"""Motions of people: of rows of the table, and of the scripted people that `handloom synth` renders."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from handloom.errors import ConfigError
from handloom.schemas.tables.row import row_arrays
from handloom.store.embodiment import HUMAN, narrowed
from handloom.store.filters import both
from handloom.synth.script.demo import sequence_specs, synth_specs
from handloom.synth.stage import build_stage

if TYPE_CHECKING:
    from handloom.api import Database

Array = NDArray[np.float64]

MIN_S = 1.0
"""A shorter motion is left out."""
MIN_SEEN = 0.3
"""Least share of the frames in which a hand is known."""
_COLUMNS = [
    "clip_id", "dataset", "video_id", "frame_s", "hand_keypoints_cam_m", "hand_infilled", "world_from_camera",
    "world_unit_m", "hand_view",
]  # fmt: skip


@dataclass(frozen=True)
class PersonMotion:
    """How the hands and the head of a camera's wearer move; NaN where unknown.

    name: the clip's id, or the script's. frame_s: (T,) seconds from 0, evenly `rate_hz` a second. keypoints_cam_m:
    (T, 2, 21, 3) in the camera of each frame. world_from_camera: (T, 4, 4) in metres. pitch_rad: how far the first
    frame's camera looks down below the horizon; NaN: unknown. intent, intent_s: (L, D) and (L,), what a model sees in
    the clip, and seconds of that since the first frame; None: there is none. video: of a row,
    `{dataset}/{video_id}`.
    """

    name: str
    rate_hz: float
    keypoints_cam_m: Array
    world_from_camera: Array
    pitch_rad: float = float("nan")
    intent: NDArray[np.float32] | None = None
    intent_s: Array | None = None
    video: str = ""

    @property
    def num_frames(self) -> int:
        return len(self.keypoints_cam_m)

    @property
    def frame_s(self) -> Array:
        return np.arange(self.num_frames) / self.rate_hz


def scripted_motions(num: int, seed: int, rate_hz: float) -> list[PersonMotion]:
    """`num` motions of scripted people at a table, exact: single actions and sequences of them, half each."""
    single = synth_specs(num - num // 2, seed, fps=rate_hz)
    several = sequence_specs(num // 2, seed, turns=2, fps=rate_hz)
    found = []
    for number, spec in enumerate([*single, *several]):
        # The lens and what it sees do not matter: a small picture makes the stage's tests of visibility cheap.
        truth = build_stage(replace(spec, width=64, height=48, distortion=(), distractors=0)).truth
        down = -truth.world_from_camera[0, 2, 2]  # the world is z up, the camera's z is its axis
        name = f"script_{seed}_{number:04d}_{spec.action}"
        found.append(
            PersonMotion(
                name, rate_hz, truth.keypoints_cam_m, truth.world_from_camera, float(np.arcsin(np.clip(down, -1, 1)))
            )
        )
    return found


def row_motions(db: Database, where: str, rate_hz: float) -> tuple[list[PersonMotion], dict[str, int]]:
    """The motions of clips of people with hands, and how many were left out, by reason.

    Left out: `no_hands`, `not_ego` (the camera is not the person's head), `short` (below `MIN_S`), `few_hands`.

    Raises:
        ConfigError: no clip is left.
    """
    asked = narrowed(db, where or None, HUMAN)
    table = db.table("clips")
    has_rows = table is not None
    named = [] if table is None else [name for name in ("intent", "intent_s") if name in table.schema.names]
    rows = (
        db.read("clips", _COLUMNS + named, both(asked, "(hand_left OR hand_right)")).sort_by("clip_id")
        if has_rows
        else []
    )
    num = db.read("clips", ["clip_id"], asked).num_rows if has_rows else 0
    left_out = {"no_hands": num - len(rows), "not_ego": 0, "short": 0, "few_hands": 0}
    found = []
    for number in range(len(rows)):
        row = row_arrays(rows, number)
        if row["hand_view"] == "exo":
            left_out["not_ego"] += 1
            continue
        motion = motion_of_row(row, rate_hz)
        seen = np.isfinite(motion.keypoints_cam_m[..., 0, 0]).any(axis=1).mean()
        if motion.frame_s[-1] < MIN_S:
            left_out["short"] += 1
        elif seen < MIN_SEEN:
            left_out["few_hands"] += 1
        else:
            found.append(motion)
    if not found:
        told = ", ".join(f"{count} {reason}" for reason, count in left_out.items() if count) or "it has no clips"
        hint = f"first-person clips of at least {MIN_S:g} s that show hands are needed; or leave --db out"
        raise ConfigError(f"no clip of {db.uri} can be imitated: {told}", hint)
    return found, {reason: count for reason, count in left_out.items() if count}


def motion_of_row(row: Mapping[str, Any], rate_hz: float) -> PersonMotion:
    """The motion of one row (`row_arrays`), at `rate_hz`: between two frames that are known, linearly.

    Hands that were interpolated by the extraction are unknown. Without poses, or where their unit is not known, the
    camera's places are unknown; its rotations do not depend on the unit.
    """
    frame_s = np.asarray(row["frame_s"], np.float64)
    points = np.where(np.asarray(row["hand_infilled"])[..., None, None], np.nan, row["hand_keypoints_cam_m"])
    poses = row["world_from_camera"]
    poses = np.full((len(frame_s), 4, 4), np.nan) if poses is None else np.array(poses, np.float64)
    poses[:, :3, 3] *= np.nan if row["world_unit_m"] is None else row["world_unit_m"]
    at_s = np.arange(int((frame_s[-1] - frame_s[0]) * rate_hz + 1e-6) + 1) / rate_hz + frame_s[0]
    video = f"{row['dataset']}/{row['video_id']}"
    points, poses = at_times(frame_s, points, at_s), _poses_at(frame_s, poses, at_s)
    motion = PersonMotion(str(row["clip_id"]), rate_hz, points, poses, video=video)
    if row.get("intent") is None or row.get("intent_s") is None:
        return motion
    return replace(motion, intent=np.asarray(row["intent"]), intent_s=np.asarray(row["intent_s"]) - frame_s[0])


def at_times(frame_s: Array, values: NDArray[Any], at_s: Array) -> Array:
    """(T, ...) values at other times: linear between two neighbours that are known, else NaN."""
    if len(frame_s) == 1:
        return np.repeat(np.asarray(values, np.float64), len(at_s), axis=0)
    after = np.clip(np.searchsorted(frame_s, at_s), 1, len(frame_s) - 1)
    share = np.clip((at_s - frame_s[after - 1]) / (frame_s[after] - frame_s[after - 1]), 0, 1)
    share = share.reshape(-1, *[1] * (values.ndim - 1))
    before_values, after_values = np.asarray(values[after - 1], np.float64), np.asarray(values[after], np.float64)
    between = (1 - share) * before_values + share * after_values
    # On a frame exactly its neighbour need not be known.
    return np.where(share == 0, before_values, np.where(share == 1, after_values, between))


def _poses_at(frame_s: Array, poses: Array, at_s: Array) -> Array:
    """Poses at other times; the rotation of the mean of two matrices is made one again."""
    found = at_times(frame_s, poses, at_s)
    known = np.isfinite(found[:, :3, :3]).all(axis=(1, 2))
    u, _, vt = np.linalg.svd(found[known, :3, :3])
    found[known, :3, :3] = u @ vt
    return found
