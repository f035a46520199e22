"""What each clip of a database says of its lens and of its hands, and what was assumed of them, for `calibrate`."""

from __future__ import annotations

import functools
import json
import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from handloom.api import Database
from handloom.geometry.camera.calibration import bend_of
from handloom.geometry.camera.intrinsics import assumed_camera, camera_content, parse_camera
from handloom.geometry.hands.model import HAND_LENGTH_M
from handloom.geometry.metric.posterior import LENGTH_SIGMA, SEEN_SIGMA
from handloom.schemas.calibrated import Seen, before_calibration, is_calibrated, read_calibrated
from handloom.schemas.clip import Clip
from handloom.schemas.hand_size import parse_hand
from handloom.schemas.settings import CameraConfig, HandsConfig, of_any_version
from handloom.schemas.values import Camera
from handloom.store.runs.runs import stored_settings

COLUMNS = (
    *("clip_id", "camera", "hand", "width", "height", "quality"),
    *("camera_matrix", "camera_distortion", "camera_model", "camera_focal_sigma", "camera_source"),
)
FOUND = {
    "camera": ("focal_found", "focal_found_sigma"),
    "hand": ("hand_length_found_m", "hand_length_found_sigma"),
}
"""Members of `quality`: what a clip says alone, and its relative standard deviation."""
MIN_SIGMA = 1e-4  # less is no measurement
ANY_SIZE = (1600, 900)  # of a picture, where a lens is a field of view: its focal length is a share of the longer side


@dataclass(frozen=True)
class Words:
    """Of one clip. lens, hand: what it says alone; of hands the length as drawn, which is the length times
    `drawn_size`. told: what was known of the lens before its motion said anything: what was assumed, and what hands
    tell. known: why its lens is left alone: `given`, or it has a distortion of its own. assumed: focal length
    over the longer side and its relative standard deviation; is_default: by the settings, for want of anything else.
    hand_known: the length of its hand was given. drawn: length as drawn that was assumed, and how sure. now: lens of
    its row. size: of its picture. camera_before, hand_before: JSON without what `calibrate` wrote.
    """

    clip: Clip
    lens: Seen | None
    hand: Seen | None
    told: Seen | None
    known: str | None
    assumed: tuple[float, float]
    is_default: bool
    hand_known: bool
    drawn: tuple[float, float]
    drawn_size: float
    now: tuple[Camera, float] | None
    size: tuple[int, int] | None
    camera_before: str | None
    hand_before: str | None


def words_of(db: Database, clips: Iterable[Clip]) -> list[Words]:
    """What the clips of the list say, in their order. Raises StoreError where the rows cannot be read."""
    config, drawn_by_default = _settings(db)
    table = db.table("clips")
    there = [name for name in COLUMNS if table is not None and name in table.schema.names]  # 0.3 had fewer
    rows = {
        row["clip_id"]: dict.fromkeys(COLUMNS) | row
        for batch in db.batches(there, batch_size=1024)
        for row in batch.to_pylist()
    }
    assumed = functools.lru_cache(maxsize=4096)(functools.partial(_assumed, config))
    return [_words(clip, rows.get(clip.clip_id), assumed, drawn_by_default) for clip in clips]


def _settings(db: Database) -> tuple[CameraConfig, float]:
    """What the rows were made with: lenses that nothing is said of, and how large hands are drawn."""
    stored = stored_settings(db)
    made = of_any_version(stored.settings) if stored else {}
    camera = {name: value for name, value in made.get("camera", {}).items() if name in CameraConfig.model_fields}
    return CameraConfig(**camera), made.get("hands", {}).get("seen_size", HandsConfig().seen_size)


def _words(clip: Clip, row: dict[str, Any] | None, assumed, drawn_by_default: float) -> Words:
    size = None if row is None else (row["width"], row["height"])
    camera_before, hand_before = before_calibration(clip.camera), before_calibration(clip.hand)
    known, lens_assumed = assumed(camera_before, size)
    length, hand_known, drawn_size, sigma = _assumed_hand(hand_before, drawn_by_default)
    return Words(
        clip,
        _lens_seen(row, clip.camera),
        _hand_seen(row, clip.hand, drawn_by_default),
        _told(row if _assumed_so(row, camera_before) else None, clip.camera),
        known,
        lens_assumed,
        camera_before is None,
        hand_known,
        (length * drawn_size, sigma),
        drawn_size,
        _lens_now(row),
        size,
        camera_before,
        hand_before,
    )


def _lens_seen(row: dict[str, Any] | None, listed: str | None) -> Seen | None:
    """What a clip's row says alone, to a few digits; else what was kept of it when it was calibrated."""
    found = None if row is None else _found(row, *FOUND["camera"])
    if found is None:
        return _kept(None if row is None else row["camera"], listed)
    bend = bend_of(row["camera_model"] or "opencv", row["camera_distortion"])
    return Seen(round(found[0], 5), round(found[1], 5), round(bend, 4))


def _told(row: dict[str, Any] | None, listed: str | None) -> Seen | None:
    """The row's focal length without what its motion says: the way back from how a row is made, which is exact."""
    if row is None or is_calibrated(row["camera"]):
        kept = (read_calibrated(text) for text in (None if row is None else row["camera"], listed))
        return next((one.told for one in kept if one is not None and one.told is not None), None)
    sigma, found = row["camera_focal_sigma"], _found(row, *FOUND["camera"])
    if not sigma or row["camera_matrix"] is None:
        return None
    log, precision = math.log(row["camera_matrix"][0] / max(row["width"], row["height"])), sigma**-2.0
    if found is not None and row["camera_source"] == "estimated":
        motion = found[1] ** -2.0
        if not precision > motion:
            return None
        log, precision = (log * precision - math.log(found[0]) * motion) / (precision - motion), precision - motion
    return Seen(round(math.exp(log), 5), round(precision**-0.5, 5))


def _assumed_so(row: dict[str, Any] | None, camera_before: str | None) -> bool:
    """Whether a clip's row was made with what is assumed of its lens now. After another ingest it holds what was
    assumed before, which counts no more."""
    made = None if row is None else before_calibration(row["camera"])
    if made == camera_before or made is None or camera_before is None:
        return made == camera_before
    return json.loads(made) == json.loads(camera_before)


def _hand_seen(row: dict[str, Any] | None, listed: str | None, drawn_by_default: float) -> Seen | None:
    found = None if row is None else _found(row, *FOUND["hand"])
    if found is None:
        return _kept(None if row is None else row["hand"], listed)
    return Seen(round(found[0] * _drawn_size(row["hand"], drawn_by_default), 5), round(found[1], 5))


def _kept(*texts: str | None) -> Seen | None:
    for text in texts:
        calibrated = read_calibrated(text)
        if calibrated is not None and calibrated.seen is not None:
            return calibrated.seen
    return None


def _found(row: dict[str, Any], name: str, sigma_name: str) -> tuple[float, float] | None:
    quality = row["quality"] or {}
    value, sigma = quality.get(name), quality.get(sigma_name)
    if value is None or sigma is None or not (0 < value < math.inf and MIN_SIGMA <= sigma < math.inf):
        return None
    return value, sigma


def _assumed(config: CameraConfig, text: str | None, size: tuple[int, int] | None) -> tuple[str | None, Any]:
    """Why a lens is left alone, None where it is not; focal length over the longer side, and how sure it is."""
    width, height = size or ANY_SIZE
    default = assumed_camera(width, height, config.assumed_fov_deg, config.assumed_focal_sigma)
    if text is None:
        return None, _focal(default, width, height)
    if '"camera_matrix":' in text and '"source":' not in text:  # at a glance: there may be poses, 5 ms a clip to parse
        return "given", _focal(default, width, height)
    try:
        content = camera_content(text)
        if size is None and content.get("picture_size") is not None:
            width, height = (round(side) for side in content["picture_size"])
        elif size is None and content.get("camera_matrix") is not None:
            is_given = content.get("source") in (None, "given")
            return "given" if is_given else "matrix, no row yet", _focal(default, width, height)
        camera = parse_camera(text, width, height)
    except (ValueError, TypeError):
        return "unusable", _focal(default, width, height)  # its clips are rejected, or were: not ours to mend
    if camera.source == "given":
        return "given", _focal(camera, width, height)
    return ("own distortion" if camera.distortion is not None else None), _focal(camera, width, height)


def _focal(camera: Camera, width: int, height: int) -> tuple[float, float]:
    return float(camera.camera_matrix[0, 0]) / max(width, height), camera.focal_sigma or 0.0


def _lens_now(row: dict[str, Any] | None) -> tuple[Camera, float] | None:
    """The row's lens in units of the picture's longer side, and its sigma."""
    if row is None or row["camera_matrix"] is None:
        return None
    matrix = np.array(row["camera_matrix"], np.float64).reshape(3, 3) / max(row["width"], row["height"])
    distortion = None if row["camera_distortion"] is None else np.array(row["camera_distortion"])
    sigma = row["camera_focal_sigma"] or math.nan  # given, or of a version that did not say it
    return Camera(matrix, "estimated", distortion, row["camera_model"] or "opencv"), sigma


def _assumed_hand(text: str | None, drawn_by_default: float) -> tuple[float, bool, float, float]:
    """Length, whether it was given, size as drawn over it, and how sure the length as drawn is."""
    try:
        hand = parse_hand(text)
    except ValueError:
        return HAND_LENGTH_M, True, drawn_by_default, 0.0  # its clips are rejected: left alone
    length_sigma = LENGTH_SIGMA if hand.sigma is None else hand.sigma
    seen_sigma = SEEN_SIGMA if hand.seen_sigma is None else hand.seen_sigma
    known = hand.length_m is not None
    sigma = (length_sigma**2 + seen_sigma**2) ** 0.5
    return hand.length_m or HAND_LENGTH_M, known, hand.seen_size or drawn_by_default, sigma


def _drawn_size(text: str | None, drawn_by_default: float) -> float:
    """How large hands of a row are drawn, as it took it."""
    return json.loads(text).get("seen_size") or drawn_by_default if text is not None else drawn_by_default
