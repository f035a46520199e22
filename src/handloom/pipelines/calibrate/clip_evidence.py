"""What each clip of a database measured of its lens and of its hands, and what was assumed of them, for `calibrate`."""

from __future__ import annotations

import functools
import json
import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from handloom.api import Database
from handloom.geometry.camera.intrinsics import assumed_camera, camera_content, parse_camera
from handloom.geometry.hands.model import HAND_LENGTH_M
from handloom.geometry.metric.posterior import KEYPOINT_SCALE_SIGMA, LENGTH_SIGMA
from handloom.geometry.shared_value import bend_of
from handloom.schemas.calibrated import Seen, before_calibration, is_calibrated, read_calibrated
from handloom.schemas.clip import Clip, given_size
from handloom.schemas.hand_size import parse_hand, with_names_of_today
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
"""Members of `quality`: what a clip measured alone, and its relative standard deviation."""
MIN_SIGMA = 1e-4  # a smaller one is not of a measurement
ANY_SIZE = (1600, 900)  # of the image, if the lens is a field of view: its focal length is a share of the longer side


@dataclass(frozen=True)
class ClipEvidence:
    """What is known of one clip's lens and hands.

    Args:
        lens, hand: its own measurements; of the hand the shown length: its length times `keypoint_scale`.
        told: the lens without the clip's motion: the assumption, and what the reach of the hands says.
        known: why its lens is left alone: `given`, or it has a distortion of its own.
        assumed: focal length over the longer side, and its relative standard deviation.
        is_default: the assumption is that of the settings, because nothing else is known.
        hand_known: the length of its hand was given.
        shown: the shown length of the hand that was assumed, m, and its relative standard deviation.
        now: the lens of its row. size: of its image. camera_before, hand_before: JSON without what `calibrate` wrote.
    """

    clip: Clip
    lens: Seen | None
    hand: Seen | None
    told: Seen | None
    known: str | None
    assumed: tuple[float, float]
    is_default: bool
    hand_known: bool
    shown: tuple[float, float]
    keypoint_scale: float
    now: tuple[Camera, float] | None
    size: tuple[int, int] | None
    camera_before: str | None
    hand_before: str | None


def read_evidence(db: Database, clips: Iterable[Clip]) -> list[ClipEvidence]:
    """The evidence of each clip, in their order. Raises StoreError if the rows cannot be read."""
    config, default_scale = _settings(db)
    table = db.table("clips")
    there = [name for name in COLUMNS if table is not None and name in table.schema.names]  # 0.3 had fewer
    rows = {
        row["clip_id"]: dict.fromkeys(COLUMNS) | row
        for batch in db.batches(there, batch_size=1024)
        for row in batch.to_pylist()
    }
    assumed = functools.lru_cache(maxsize=4096)(functools.partial(_assumed, config))
    return [_words(clip, rows.get(clip.clip_id), assumed, default_scale) for clip in clips]


def _settings(db: Database) -> tuple[CameraConfig, float]:
    """What the rows were made with: the default of unknown lenses, and the default keypoint scale."""
    stored = stored_settings(db)
    made = of_any_version(stored.settings) if stored else {}
    camera = {name: value for name, value in made.get("camera", {}).items() if name in CameraConfig.model_fields}
    return CameraConfig(**camera), made.get("hands", {}).get("keypoint_scale", HandsConfig().keypoint_scale)


def _words(clip: Clip, row: dict[str, Any] | None, assumed, default_scale: float) -> ClipEvidence:
    size = None if row is None else (row["width"], row["height"])
    camera_before, hand_before = before_calibration(clip.camera), before_calibration(clip.hand)
    known, lens_assumed = assumed(camera_before, size)
    length, hand_known, keypoint_scale, sigma = _assumed_hand(hand_before, default_scale)
    return ClipEvidence(
        clip,
        _lens_seen(row, clip.camera),
        _hand_seen(row, clip.hand, default_scale),
        _told(row if _assumed_so(row, camera_before) else None, clip.camera),
        known,
        lens_assumed,
        camera_before is None,
        hand_known,
        (length * keypoint_scale, sigma),
        keypoint_scale,
        _lens_now(row),
        size,
        camera_before,
        hand_before,
    )


def _lens_seen(row: dict[str, Any] | None, listed: str | None) -> Seen | None:
    """The measurement in the clip's row, to a few digits; else the one that was kept when it was calibrated."""
    found = None if row is None else _found(row, *FOUND["camera"])
    if row is None or found is None:
        return _kept(None if row is None else row["camera"], listed)
    bend = bend_of(row["camera_model"] or "opencv", row["camera_distortion"])
    return Seen(round(found[0], 5), round(found[1], 5), round(bend, 4))


def _told(row: dict[str, Any] | None, listed: str | None) -> Seen | None:
    """The row's focal length without the measurement of its motion: the exact inverse of how a row combines them."""
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
    """Whether a clip's row was made with the present assumption of its lens, not with that of an earlier ingest."""
    made = None if row is None else before_calibration(row["camera"])
    if made == camera_before or made is None or camera_before is None:
        return made == camera_before
    return json.loads(made) == json.loads(camera_before)


def _hand_seen(row: dict[str, Any] | None, listed: str | None, default_scale: float) -> Seen | None:
    found = None if row is None else _found(row, *FOUND["hand"])
    if row is None or found is None:
        return _kept(None if row is None else row["hand"], listed)
    return Seen(round(found[0] * _keypoint_scale(row["hand"], default_scale), 5), round(found[1], 5))


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
    """Why a lens is left alone, else None; focal length over the longer side, and its relative standard deviation."""
    width, height = size or ANY_SIZE
    default = assumed_camera(width, height, config.assumed_fov_deg, config.assumed_focal_sigma)
    if text is None:
        return None, _focal(default, width, height)
    if '"camera_matrix":' in text and '"source":' not in text:  # at a glance: there may be poses, 5 ms a clip to parse
        return "given", _focal(default, width, height)
    try:
        content = camera_content(text)
        if size is None and given_size(content) is not None:
            width, height = (round(side) for side in given_size(content))
        elif size is None and content.get("camera_matrix") is not None:
            is_given = content.get("source") in (None, "given")
            return "given" if is_given else "matrix, no row yet", _focal(default, width, height)
        camera = parse_camera(text, width, height)
    except (ValueError, TypeError):
        return "unusable", _focal(default, width, height)  # its clips are rejected
    if camera.source == "given":
        return "given", _focal(camera, width, height)
    return ("own distortion" if camera.distortion is not None else None), _focal(camera, width, height)


def _focal(camera: Camera, width: int, height: int) -> tuple[float, float]:
    return float(camera.camera_matrix[0, 0]) / max(width, height), camera.focal_sigma or 0.0


def _lens_now(row: dict[str, Any] | None) -> tuple[Camera, float] | None:
    """The row's lens in units of the image's longer side, and its sigma."""
    if row is None or row["camera_matrix"] is None:
        return None
    matrix = np.array(row["camera_matrix"], np.float64).reshape(3, 3) / max(row["width"], row["height"])
    distortion = None if row["camera_distortion"] is None else np.array(row["camera_distortion"])
    sigma = row["camera_focal_sigma"] or math.nan  # given, or of a version that did not store it
    return Camera(matrix, "estimated", distortion, row["camera_model"] or "opencv"), sigma


def _assumed_hand(text: str | None, default_scale: float) -> tuple[float, bool, float, float]:
    """Length, m; whether it was given; keypoint scale; relative standard deviation of the shown length."""
    try:
        hand = parse_hand(text)
    except ValueError:
        return HAND_LENGTH_M, True, default_scale, 0.0  # its clips are rejected: left alone
    length_sigma = LENGTH_SIGMA if hand.sigma is None else hand.sigma
    scale_sigma = KEYPOINT_SCALE_SIGMA if hand.keypoint_scale_sigma is None else hand.keypoint_scale_sigma
    known = hand.length_m is not None
    sigma = (length_sigma**2 + scale_sigma**2) ** 0.5
    return hand.length_m or HAND_LENGTH_M, known, hand.keypoint_scale or default_scale, sigma


def _keypoint_scale(text: str | None, default_scale: float) -> float:
    """The keypoint scale that a row was made with."""
    return with_names_of_today(json.loads(text or "{}")).get("keypoint_scale") or default_scale
