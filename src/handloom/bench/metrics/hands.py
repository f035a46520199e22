"""How far predicted hands are from true ones: presence, handedness, 2D, 3D and jitter.

T frames, D predictions a frame, H = 2 true hands (0 left, 1 right), K = 21 keypoints. Predictions are matched to the
true hands of their frame by 2D distance, whatever their handedness, which is a separate metric.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from handloom.schemas.hand_topology import INDEX, LITTLE, PALM_TRIANGLE

Floats = NDArray[np.floating]

MATCH_PALMS = 1.5
"""Palm widths; a prediction whose keypoints are farther from a hand, in the mean, is not matched to it."""


@dataclass(frozen=True)
class TrueHands:
    """keypoints_px: (T, 2, 21, 2); keypoints_cam_m, keypoints_world_m: (T, 2, 21, 3); visible: (T, 2) bool, hands that
    must be predicted. Others may be predicted without penalty if half of their keypoints are known.

    frame_s: (T,), world_from_camera: (T, 4, 4), present: (T, 2) bool, a keypoint of the hand is in the image; metrics
    that need one that is None are left out."""

    keypoints_px: Floats
    keypoints_cam_m: Floats
    keypoints_world_m: Floats
    visible: NDArray[np.bool_]
    focal_px: float
    frame_s: Floats | None = None
    world_from_camera: Floats | None = None
    present: NDArray[np.bool_] | None = None


@dataclass(frozen=True)
class PredictedHands:
    """keypoints_px: (T, D, 21, 2), NaN where there is no prediction; handedness: (T, D), 0 left, 1 right;
    keypoints_cam_m, keypoints_world_m: (T, D, 21, 3), NaN where unknown; keypoints_world_m None without poses.
    world_from_camera: (T, 4, 4), the cameras of that world; None: the true ones."""

    keypoints_px: Floats
    handedness: NDArray[np.integer]
    keypoints_cam_m: Floats
    keypoints_world_m: Floats | None = None
    world_from_camera: Floats | None = None


@dataclass(frozen=True)
class HandErrors:
    """Errors of one clip: counts, and one value per visible hand-frame that was found (NaN: no 3D).

    jitter arrays: one value per hand and three frames in a row; the truth's over the same frames.
    """

    num_visible: int
    num_found: int
    num_false: int
    num_right_handed: int
    error_px: Floats
    error_palms: Floats
    root_mm: Floats
    pa_mm: Floats
    cam_mm: Floats
    world_mm: Floats
    jitter_px: Floats
    jitter_mm: Floats
    true_jitter_px: Floats
    true_jitter_mm: Floats


def palm_width_px(truth: TrueHands) -> Floats:
    """(T, 2): the palm's width, from the base of the index to that of the little finger, if it faced the camera."""
    cam = np.asarray(truth.keypoints_cam_m, float)
    width_m = np.linalg.norm(cam[:, :, INDEX[0]] - cam[:, :, LITTLE[0]], axis=-1)
    depth_m = cam[:, :, PALM_TRIANGLE, 2].mean(axis=-1)
    return truth.focal_px * width_m / np.where(depth_m > 1e-3, depth_m, np.nan)


def match(truth: TrueHands, predicted: PredictedHands) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Index (T, 2) of the prediction that is each true hand, -1 for none, and the predictions (T, D) that are no hand.

    The assignment of a frame has the smallest sum of mean 2D distances in palm widths.
    """
    palms = palm_width_px(truth)
    found = np.full(truth.visible.shape, -1, np.int64)
    there = np.isfinite(predicted.keypoints_px).all(axis=(2, 3))
    false = there.copy()
    for t in np.flatnonzero(there.any(axis=1)):
        cost = distance_px(predicted.keypoints_px[t, :, None], truth.keypoints_px[t, None]) / palms[t]  # (D, 2)
        cost = np.where(np.isfinite(cost) & (cost <= MATCH_PALMS), cost, 1e6)
        for d, h in zip(*linear_sum_assignment(cost), strict=True):
            if cost[d, h] < 1e6:
                found[t, h], false[t, d] = d, False
    return found, false


def hand_errors(truth: TrueHands, predicted: PredictedHands) -> HandErrors:
    """All errors of one clip's hands."""
    found, false = match(truth, predicted)
    scored = truth.visible & (found >= 0)
    at = np.nonzero(scored)
    px, cam = of_truth(predicted.keypoints_px, found), of_truth(predicted.keypoints_cam_m, found)
    error_px = distance_px(px[at], truth.keypoints_px[at])
    true_cam = truth.keypoints_cam_m[at]
    world_mm = np.full(len(at[0]), np.nan)
    if predicted.keypoints_world_m is not None:
        world_mm = mpjpe_mm(of_truth(predicted.keypoints_world_m, found)[at], truth.keypoints_world_m[at])
    jitter_px, true_jitter_px = _jitter(px, truth.keypoints_px, scored)
    jitter_mm, true_jitter_mm = _jitter(1000.0 * cam, 1000.0 * truth.keypoints_cam_m, scored)
    return HandErrors(
        num_visible=int(truth.visible.sum()),
        num_found=int(scored.sum()),
        num_false=int(false.sum()),
        num_right_handed=int((of_truth(predicted.handedness, found)[at] == at[1]).sum()),
        error_px=error_px,
        error_palms=error_px / palm_width_px(truth)[at],
        root_mm=mpjpe_mm(cam[at] - cam[at][:, :1], true_cam - true_cam[:, :1]),
        pa_mm=mpjpe_mm(procrustes(cam[at], true_cam), true_cam),
        cam_mm=mpjpe_mm(cam[at], true_cam),
        world_mm=world_mm,
        jitter_px=jitter_px,
        jitter_mm=jitter_mm,
        true_jitter_px=true_jitter_px,
        true_jitter_mm=true_jitter_mm,
    )


def hand_scores(clips: Sequence[HandErrors]) -> dict[str, float]:
    """The scores of all clips: every visible hand-frame has the same weight. NaN where nothing was measured."""
    visible, found, false, right = (
        sum(getattr(clip, name) for clip in clips)
        for name in ("num_visible", "num_found", "num_false", "num_right_handed")
    )
    return {
        "visible_hand_frames": visible,
        "coverage": _share(found, visible),
        "false_hands": _share(false, visible),
        "handedness": _share(right, found),
        "error_px": _mean(clips, "error_px"),
        "error_palms": _mean(clips, "error_palms"),
        "lifted": _share(sum(int(np.isfinite(clip.cam_mm).sum()) for clip in clips), found),
        "in_world": _share(sum(int(np.isfinite(clip.world_mm).sum()) for clip in clips), found),
        "root_relative_mm": _mean(clips, "root_mm"),
        "pa_mm": _mean(clips, "pa_mm"),
        "camera_mm": _mean(clips, "cam_mm"),
        "world_mm": _mean(clips, "world_mm"),
        "jitter_px": _median(clips, "jitter_px"),
        "true_jitter_px": _median(clips, "true_jitter_px"),
        "jitter_mm": _median(clips, "jitter_mm"),
        "true_jitter_mm": _median(clips, "true_jitter_mm"),
    }


def distance_px(predicted: Floats, truth: Floats) -> Floats:
    """Mean distance (...) of keypoints (..., 21, 2) over those with a known true place, which one outside of the lens's
    view does not have. NaN if more than half have none, or the prediction is NaN."""
    away = np.linalg.norm(np.asarray(predicted, float) - truth, axis=-1)
    known = np.broadcast_to(np.isfinite(truth).all(axis=-1), away.shape)
    num = known.sum(axis=-1)
    total = np.where(known, away, 0.0).sum(axis=-1)
    return np.where(2 * num >= away.shape[-1], total / np.maximum(num, 1), np.nan)


def mpjpe_mm(predicted_m: Floats, truth_m: Floats) -> Floats:
    """Mean per joint position error (n,), millimetres, of (n, K, 3) metres. NaN where a keypoint is unknown."""
    return 1000 * np.linalg.norm(np.asarray(predicted_m, float) - truth_m, axis=-1).mean(axis=-1)


def procrustes(predicted: Floats, truth: Floats) -> Floats:
    """(n, K, 3) `predicted`, each aligned to `truth` by the best similarity (no reflection). NaN stays.

    Source: Umeyama, Least-squares estimation of transformation parameters between two point patterns, PAMI 1991; as
    PA-MPJPE in Kanazawa et al., End-to-end Recovery of Human Shape and Pose, CVPR 2018.
    """
    out = np.full(predicted.shape, np.nan)
    known = np.isfinite(predicted).all(axis=(1, 2)) & np.isfinite(truth).all(axis=(1, 2))
    a, b = np.asarray(predicted, float)[known], np.asarray(truth, float)[known]
    if not len(a):
        return out
    mean_a, mean_b = a.mean(axis=1, keepdims=True), b.mean(axis=1, keepdims=True)
    a, b = a - mean_a, b - mean_b
    u, s, vt = np.linalg.svd(np.einsum("nki,nkj->nij", b, a))
    sign = np.ones_like(s)
    sign[:, 2] = np.sign(np.linalg.det(u @ vt))
    turn = u @ (sign[:, :, None] * vt)
    spread = (a * a).sum(axis=(1, 2))
    scale = (s * sign).sum(axis=1) / np.maximum(spread, 1e-18)
    out[known] = scale[:, None, None] * np.einsum("nij,nkj->nki", turn, a) + mean_b
    return out


def of_truth(values: NDArray, found: NDArray[np.int64]) -> NDArray:
    """(T, D, ...) of predictions as (T, 2, ...) of true hands; a hand that was not found gets the frame's prediction
    0."""
    return np.asarray(values)[np.arange(len(found))[:, None], np.maximum(found, 0)]


def _jitter(predicted: Floats, truth: Floats, scored: NDArray[np.bool_]) -> tuple[Floats, Floats]:
    """Norm of the second difference, mean over keypoints, of hands scored in three consecutive frames; and the
    truth's."""
    three = scored[:-2] & scored[1:-1] & scored[2:]
    ours, true = (np.linalg.norm(np.diff(x.astype(float), 2, axis=0), axis=-1).mean(-1) for x in (predicted, truth))
    at = three & np.isfinite(ours) & np.isfinite(true)
    return ours[at], true[at]


def _share(part: int, whole: int) -> float:
    return part / whole if whole else float("nan")


def _together(clips: Sequence[HandErrors], name: str) -> Floats:
    values = np.concatenate([getattr(clip, name) for clip in clips]) if clips else np.zeros(0)
    return values[np.isfinite(values)]


def _mean(clips: Sequence[HandErrors], name: str) -> float:
    values = _together(clips, name)
    return float(values.mean()) if len(values) else float("nan")


def _median(clips: Sequence[HandErrors], name: str) -> float:
    values = _together(clips, name)
    return float(np.median(values)) if len(values) else float("nan")
