"""The exact truth of rendered clips at sampled frames, and a row of the table against it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from handloom.bench.metrics.camera import align_world, camera_errors
from handloom.bench.metrics.hands import HandErrors, PredictedHands, TrueHands, hand_errors, hand_scores, match
from handloom.errors import ConfigError
from handloom.geometry.camera.world import scaled_poses
from handloom.schemas.values import LEFT, RIGHT
from handloom.synth.truth import Truth

Floats = NDArray[np.floating[Any]]

SAME_FRAME = 0.2  # steps of the truth: one of its frames is the row's if their times lie so near
NUMBERS = {
    "error_px": ("px", "median distance of keypoints from the true ones in the image, source pixels"),
    "camera_mm": ("mm", "median distance in the camera's frame: place, turn and shape"),
    "root_relative_mm": ("mm", "median distance with the wrists put on each other"),
    "pa_mm": ("mm", "median distance after the best similarity: the hand's pose and proportions alone"),
    "world_mm": ("mm", "median distance in the world; an estimated world is laid on the true one by a rigid motion"),
    "coverage": (None, "share of the truly visible hand-frames in which a hand was found"),
    "handedness": (None, "share of the found hands that have the right side"),
    "false_hands": (None, "found hands where there is none, per truly visible hand"),
    "camera_rotation_deg": ("°", "mean angle between found and true cameras after the one turn that fits them best"),
    "camera_ate_m": ("m", "rms distance of the camera's places after the best rigid motion: an error of scale counts"),
}
"""(unit, what it is) of each number of `Compared`: those of `handloom bench accuracy`, of one clip."""


def hands_at(truth: Truth, index: NDArray[np.intp], there: NDArray[np.bool_] | None = None) -> TrueHands:
    """The true hands at frames (n,) of the truth; where `there` (n,) is false, unknown and not visible."""
    matrix, there = truth.camera_matrix, np.ones(len(index), np.bool_) if there is None else there

    def at(values: Floats) -> Floats:
        return np.where(there.reshape(-1, *(1,) * (values.ndim - 1)), values[index], np.nan)

    px = at(truth.keypoints_px)
    return TrueHands(
        px,
        at(truth.keypoints_cam_m),
        at(truth.keypoints_world_m),
        truth.hand_visible[index] & there[:, None],
        float(np.sqrt(matrix[0, 0] * matrix[1, 1])),
        truth.frame_s[index],
        at(truth.world_from_camera),
        truth.lens.inside(px).any(axis=-1),
    )


@dataclass(frozen=True)
class Compared:
    """A row's hands and cameras against the truth. Axis 1 is the true hand, left, right; NaN: unknown, or not there.

    keypoints_px: (T, 2, 21, 2) source pixels, as the lens shows them. keypoints_cam_m: (T, 2, 21, 3), camera frame.
    keypoints_world_m, world_from_camera: true hands (T, 2, 21, 3) and cameras (T, 4, 4) in the row's world, metres: an
    estimated one is laid on the truth by one rigid motion (`align_world`). None where the row's world has no metres.
    visible, present: (T, 2) more than half of the hand is in the image and not hidden, so that it should be found; a
    keypoint of it is in the image.
    error_px, error_camera_mm, error_world_mm: (T, 2) mean distance of the keypoints from the true ones, of visible
    hands that were found, by their place and whatever their side (`metrics.hands.match`); NaN for others.
    numbers: of the whole clip, by the names of `NUMBERS`; NaN where nothing was measured.
    """

    keypoints_px: Floats
    keypoints_cam_m: Floats
    keypoints_world_m: Floats | None
    world_from_camera: Floats | None
    visible: NDArray[np.bool_]
    present: NDArray[np.bool_]
    error_px: Floats
    error_camera_mm: Floats
    error_world_mm: Floats
    numbers: Mapping[str, float]


def compare(row: Mapping[str, Any], path: Path) -> Compared:
    """A row (`row_arrays`) against the truth in `path`.

    Raises ConfigError: the file is no truth, or that of another video: another size of images, or other times.
    """
    true = _truth_of(row, path)
    cameras = np.asarray(true.world_from_camera)
    poses = scaled_poses(row.get("world_from_camera"), row.get("world_unit_m"))
    is_estimated = row.get("camera_path_source") == "estimated"  # a given path is the truth: nothing to be measured
    onto = np.full((4, 4), np.nan)  # true_from_row
    if poses is not None:
        onto = align_world(poses, cameras) if is_estimated else np.eye(4)
    back = np.linalg.inv(onto) if np.isfinite(onto).all() else None
    found = _found(row, None if back is None else onto)
    errors, scored = hand_errors(true, found), true.visible & (match(true, found)[0] >= 0)

    def of_frames(values: Floats) -> Floats:
        out = np.full(scored.shape, np.nan)
        out[scored] = values
        return out

    return Compared(
        true.keypoints_px,
        true.keypoints_cam_m,
        None if back is None else true.keypoints_world_m @ back[:3, :3].T + back[:3, 3],
        None if back is None else back @ cameras,
        true.visible,
        np.asarray(true.present),
        of_frames(errors.error_px),
        of_frames(errors.cam_mm),
        of_frames(errors.world_mm),
        _numbers(errors, camera_errors(poses, cameras) if poses is not None and is_estimated else {}),
    )


def _truth_of(row: Mapping[str, Any], path: Path) -> TrueHands:
    """The true hands at the row's frames; nothing is known of frames that the truth does not have."""
    truth = Truth.load(path, maps=False)
    hint = f"{path.name} is of another video: render the clip again, or remove the file"
    size = (int(truth.size[0]), int(truth.size[1]))
    if (row["width"], row["height"]) != size:
        problem = f"the truth of clip {row['clip_id']} has images of {size[0]}x{size[1]} pixels"
        raise ConfigError(f"{problem}, its video {row['width']}x{row['height']}", hint)
    frame_s = np.asarray(row["frame_s"], np.float64)
    index = np.abs(truth.frame_s[None] - frame_s[:, None]).argmin(axis=1)
    step_s = float(np.median(np.diff(truth.frame_s))) if len(truth.frame_s) > 1 else 1.0
    there = np.abs(truth.frame_s[index] - frame_s) <= SAME_FRAME * step_s
    if not there.any():
        raise ConfigError(f"the truth of clip {row['clip_id']} has none of its {len(frame_s)} frames", hint)
    return hands_at(truth, index, there)


def _found(row: Mapping[str, Any], onto: Floats | None) -> PredictedHands:
    """The row's hands, in the true world. onto: true_from_row, None without a world."""
    visible = row.get("hand_visible")
    seen = (np.zeros((len(row["frame_s"]), 2), np.bool_) if visible is None else visible)[..., None, None]

    def of(name: str, dim: int) -> Floats:
        values = row.get(name)
        nothing = np.full((*seen.shape[:2], 21, dim), np.nan)
        return nothing if values is None else np.where(seen, values.astype(np.float64), np.nan)

    side = np.tile([LEFT, RIGHT], (len(seen), 1))
    world = None if onto is None else of("hand_keypoints_world_m", 3) @ onto[:3, :3].T + onto[:3, 3]
    return PredictedHands(of("hand_keypoints_px", 2), side, of("hand_keypoints_cam_m", 3), world)


def _numbers(errors: HandErrors, path: Mapping[str, float]) -> dict[str, float]:
    shares = hand_scores([errors])
    of_hands = {"error_px": errors.error_px, "camera_mm": errors.cam_mm, "root_relative_mm": errors.root_mm}
    of_hands |= {"pa_mm": errors.pa_mm, "world_mm": errors.world_mm}
    nothing = float("nan")
    return {
        **{name: float(np.nanmedian(v)) if np.isfinite(v).any() else nothing for name, v in of_hands.items()},
        **{name: float(shares[name]) for name in ("coverage", "handedness", "false_hands")},
        "camera_rotation_deg": path.get("rotation_deg", nothing),
        "camera_ate_m": path.get("ate_rigid_m", nothing),
    }
