"""The windows of motion: which clips can be used, who is held out, and the scales of the numbers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from handloom.errors import ConfigError
from handloom.geometry.bodies import NUM_BODY_KEYPOINTS, SEEN_VISIBILITY, hips_in_camera
from handloom.geometry.camera.intrinsics import slopes
from handloom.plural import plural
from handloom.schemas.tables.row import frames_from_arrow, row_camera
from handloom.store.embodiment import HUMAN, narrowed
from handloom.store.filters import both, in_list
from handloom.train.parts.hand_clips import WITH_HANDS, usable
from handloom.train.parts.table_checks import STATISTICS_WINDOWS, TOLERANCE, count_clips, evenly, rates_of
from handloom.train.recipe import RecipeData
from handloom.train.robomirror.data.motion import HANDS_AND_HEAD, MotionLayout, motion_of
from handloom.train.robomirror.settings import RobomirrorSettings
from handloom.windows.split import held_out_videos

if TYPE_CHECKING:
    from handloom.api import Database
    from handloom.windows.api import Windows

DECIMALS = 6
"""Of statistics; they are in every checkpoint."""
_FIELDS = ("hand_keypoints_cam_m", "hand_infilled", "world_from_camera", "world_unit_m", "narration")
_BODY = ("body_person", "body_keypoints_px", "body_keypoint_visibility", "body_keypoints_hip_m")
_CAMERA = ("camera_matrix", "camera_distortion", "camera_model")
_COUNTED = ("body_keypoint_visibility", "body_keypoints_hip_m")
WITH_BODY = f"{_BODY[0]} = 'actor'"
DECLARE = (
    'declare the stage of bodies and run it (docs/bodies.md): [stages.body] class = "handloom.stages.learned:Body" in '
    "a TOML file, and `handloom run --db DB --config FILE`; or leave `body` out"
)
NOBODY = (
    "the stage of bodies was run, and tells no body of the person whose hands are seen (docs/bodies.md): add clips "
    "whose view shows that person, or leave `body` out"
)


@dataclass(frozen=True)
class MotionSample:
    """The transform of windows: `clip_id`, `now_s`, `text`, `motion` (T, D) float32, `valid` (T,) bool.

    A hand that was not seen but interpolated is unknown here. So is a body's keypoint that the network guessed, and the
    whole body in clips where nothing tells that the hands are that body's.
    """

    layout: MotionLayout = HANDS_AND_HEAD

    @property
    def columns(self) -> dict[str, Any]:
        """What is read: parameters of `Database.windows`."""
        further = (*_BODY, *_CAMERA) if self.layout.body else ()
        return {"fields": (*_FIELDS, *further), "optional": ("world_from_camera", *further)}

    def __call__(self, sample: Mapping[str, Any]) -> dict[str, Any]:
        seen = ~sample["hand_infilled"][..., None, None]
        points = np.where(seen, sample["hand_keypoints_cam_m"], np.nan)
        body = body_of(sample) if self.layout.body else None
        motion = motion_of(points, sample["world_from_camera"], sample["world_unit_m"], body)
        return {
            "clip_id": sample["clip_id"],
            "now_s": sample["now_s"],
            "text": sample["narration"],
            "motion": motion,
            "valid": sample["valid"],
        }


def body_of(sample: Mapping[str, Any]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The hips (T, 3) and keypoints (T, 33, 3), as `motion_of` takes them, of a row or window with the columns."""
    num = len(sample["frame_s"])
    hip_m, hips = np.full((num, NUM_BODY_KEYPOINTS, 3), np.nan), np.full((num, 3), np.nan)
    if sample["body_person"] != "actor":
        return hips, hip_m
    seen = np.asarray(sample["body_keypoint_visibility"]) >= SEEN_VISIBILITY
    hip_m[seen] = np.asarray(sample["body_keypoints_hip_m"]).reshape(hip_m.shape)[seen]
    if sample["camera_matrix"] is not None:
        points_px = np.asarray(sample["body_keypoints_px"]).reshape(num, NUM_BODY_KEYPOINTS, 2)
        hips = hips_in_camera(slopes(points_px, row_camera(sample)), hip_m)
    return hips, hip_m


def clips_with_body(db: Database, settings: RobomirrorSettings, version: int | None) -> set[str]:
    """Ids of the clips with hands in which a keypoint of the body of these counts; none where it is not asked.

    Raises ConfigError: it is asked, and the table has no such columns, or no clip shows it.
    """
    if not settings.body:
        return set()
    table = db.table("clips", version)
    if table is None or not set(_BODY) <= set(table.schema.names):
        raise ConfigError(f"`body` is true, and the table of {db.uri} has no column {_BODY[1]}", DECLARE)
    asked = narrowed(db, both(settings.where, WITH_HANDS), HUMAN)
    of_actors = both(asked, WITH_BODY)
    found: set[str] = set()
    for batch in db.batches(["clip_id", *_COUNTED], of_actors, version):
        columns = (batch.column(name) for name in ("clip_id", *_COUNTED))
        found |= {clip_id.as_py() for clip_id, *cells in zip(*columns, strict=True) if _is_seen(*cells)}
    if not found:
        problem = f"`body` is true, and none of the {count_clips(db, asked, version)} clips with hands shows their body"
        if num_actors := count_clips(db, of_actors, version):
            is_actor = plural(num_actors, "clip with", "clips with")
            problem += f": in the {is_actor} {WITH_BODY} no keypoint has a visibility of {SEEN_VISIBILITY:g} or more"
        was_run = num_actors or count_clips(db, both(asked, f"{_COUNTED[0]} IS NOT NULL"), version)
        raise ConfigError(problem, NOBODY if was_run else DECLARE)
    return found


def _is_seen(visibility: pa.ListScalar, hip_m: pa.ListScalar) -> bool:
    """Whether a keypoint of a clip's body is known in a frame, and not guessed."""
    seen = frames_from_arrow(visibility, (NUM_BODY_KEYPOINTS,))
    points = frames_from_arrow(hip_m, (NUM_BODY_KEYPOINTS, 3))
    if seen is None or points is None:
        return False
    return bool(((seen >= SEEN_VISIBILITY) & np.isfinite(points).all(-1)).any())


def held_out_without_body(counts: Mapping[str, Any]) -> list[str]:
    """A sentence where the body is asked for and no held-out clip shows it. counts: of `both_sides`."""
    number = counts.get("held_out", {}).get("clips", 0)
    if not number or counts.get("held_out_with_body") != 0:
        return []
    which = plural(number, "held-out clip does", "held-out clips do")
    return [f"The {which} not show the body: `error_body` and `error_hips` are unknown."]


def motion_data(db: Database, settings: RobomirrorSettings, version: int | None = None, **changed: Any) -> RecipeData:
    """Training and held-out windows of human clips in which a hand was seen.

    changed: parameters of `Database.windows` that replace those of `motion_windows`. facts: `counts`, and the
    results of `scales_of` over training windows.

    Raises:
        ConfigError: there are no clips, none with hands or none as long as a window; steps come faster than frames;
            the body is asked for, and unknown in all.
        StoreError: the version no longer exists.
    """
    train, held_out, counts = both_sides(db, settings, version, **changed)
    scales = scales_of(train, MotionLayout(settings.body))
    return RecipeData(train, held_out, train.version, scales | {"counts": counts})


def both_sides(
    db: Database, settings: RobomirrorSettings, version: int | None = None, **changed: Any
) -> tuple[Windows, Windows, dict[str, Any]]:
    """Training and held-out windows, none of which is read, and counts of clips. Raises as `motion_data`."""
    version = version or settings.version or db.version
    counts: dict[str, Any] = {**usable(db, settings.where, version)}
    of_people = narrowed(db, both(settings.where, WITH_HANDS), HUMAN)
    hz, counts["slower"] = rates_of(db, of_people, version, settings.rate_hz)
    if settings.rate_hz > TOLERANCE * hz:
        raise ConfigError(
            f"rate_hz is {settings.rate_hz:g}, and the frames come at {hz:.3g} Hz",
            "lower rate_hz, or extract with a higher video.sample_hz",
        )
    with_body = clips_with_body(db, settings, version)
    train, held_out = (motion_windows(db, settings, version, split, **changed) for split in ("train", "held_out"))
    if with_body and not with_body & set(train.clip_ids):
        trained = plural(len(set(train.clip_ids)), "clip to train on does", "clips to train on do")
        others = plural(len(with_body), "clip that does is", "clips that do are")
        raise ConfigError(
            f"`body` is true, and the {trained} not show it: the {others} held out, or shorter than a window",
            "give another seed or a lower held_out_share, or leave `body` out",
        )
    counts["with_body"] = len(with_body)
    if settings.body:
        counts["held_out_with_body"] = len(with_body & set(held_out.clip_ids))
    counts |= {"train": dict(train.counts), "held_out": dict(held_out.counts)}
    return train, held_out, counts


def motion_windows(
    db: Database,
    settings: RobomirrorSettings,
    version: int | None,
    split: str | None,
    among: str = WITH_HANDS,
    **changed: Any,
) -> Windows:
    """Windows of the clips with hands.

    among: another filter in place of "with hands". changed: parameters of `Database.windows` that replace those given
    here.
    """
    where = both(settings.where, among)
    if split is not None and settings.held_out_by == "participant" and settings.held_out_share:
        where, split = both(where, _of_participants(db, settings, version, split, where)), None
    sample = MotionSample(MotionLayout(settings.body))
    asked = {
        **sample.columns,
        "past": 1,
        "future": settings.steps - 1,
        "rate_hz": settings.rate_hz,
        "stride": settings.stride,
        "where": where,
        "split": split,
        "held_out_share": settings.held_out_share,
        "seed": settings.seed,
        "version": version,
        "transform": sample,
    }
    return db.windows(**(asked | changed))


def _of_participants(db: Database, settings: RobomirrorSettings, version: int | None, split: str, where: str) -> str:
    """The filter of a split by participants. Raises ConfigError where they are unknown, or there is only one."""
    asked = narrowed(db, where, HUMAN)
    found = db.read("clips", ["participant"], asked, version).column(0).to_pylist()
    people = sorted({name for name in found if name is not None})
    if len(people) < 2:
        raise ConfigError(
            f"held_out_by is participant, and the {len(found)} clips are of {plural(len(people), 'known participant')}",
            "name them with --participant at ingest, or hold out videos: held_out_by=video",
        )
    chosen = sorted(held_out_videos(people, settings.seed, settings.held_out_share))
    return in_list("participant", chosen if split == "held_out" else sorted(set(people) - set(chosen)))


def scales_of(windows: Windows, layout: MotionLayout) -> dict[str, Any]:
    """From at most 512 windows: `motion_mean` of each number; `motion_scale`, the root mean square difference from it,
    one for all numbers of a group of `layout`, 0 and 1 for what is nowhere known; `motion_components`, (D, D) the
    principal components of frames in these units, unit vectors, the largest first.
    """
    mean, scale, components = np.zeros(layout.dim), np.ones(layout.dim), np.eye(layout.dim)
    if len(windows):
        picked = evenly(len(windows), STATISTICS_WINDOWS)
        motion = np.concatenate([windows[index]["motion"] for index in picked]).astype(np.float64)
        known = np.isfinite(motion)
        mean = np.where(known, motion, 0).sum(0) / np.maximum(known.sum(0), 1)
        for slices in layout.groups.values():
            columns = np.concatenate([np.arange(one.start, one.stop) for one in slices])
            scale[columns] = _spread((motion - mean)[:, columns])
        values = np.where(known, (motion - mean) / scale, 0)
        components = np.linalg.eigh(values.T @ values)[1].T[::-1]
    found = {"motion_mean": mean, "motion_scale": scale, "motion_components": components}
    return {name: np.round(array, DECIMALS).tolist() for name, array in found.items()}


def _spread(values: NDArray[np.float64]) -> float:
    known = values[np.isfinite(values)]
    found = float(np.sqrt(np.mean(known**2))) if known.size else 0.0
    return found if found > 1e-9 else 1.0
