"""The hand metrics that other projects report, of one method on one clip."""

from __future__ import annotations

from functools import cache

import numpy as np
from numpy.typing import NDArray

from handloom.bench.metrics.averages import Sums, summed
from handloom.bench.metrics.hands import (
    PredictedHands,
    TrueHands,
    distance_px,
    match,
    mpjpe_mm,
    of_truth,
    palm_width_px,
    procrustes,
)
from handloom.geometry.camera.world import to_camera
from handloom.schemas.values import LEFT, RIGHT
from handloom.synth.hand import forward_kinematics

Bools = NDArray[np.bool_]
# Columns: the directions of the flat hand's x (to the little finger), y (to the fingertips) and z (out of its back) in
# MANO's right hand at rest: fingers along -x, back along y, thumb along z. Left hands are mirror images.
_AS_MANO = np.array([[0.0, -1.0, 0.0], [0.0, 0.0, 1.0], [-1.0, 0.0, 0.0]])


def penalised(truth: TrueHands, predicted: PredictedHands) -> Sums:
    """FAcc, recall, precision, F1 and pose errors over every hand that is present.

    facc: share of frames in which left and right each have the right number of predictions: one if the hand is present,
    else none. recall, precision, f1: of these slots. mpjpe_p_mm: mean distance of keypoints relative to the wrist;
    pa_mpjpe_p_mm: the same for found hands after `procrustes`; ct_p_m: distance of the wrists in the camera frame. A
    hand that was predicted in 2D alone counts as found in the first four and as missed in the poses. Empty without
    `truth.present`.
    """
    if truth.present is None:
        return {}
    num, at = _slots(truth, predicted)
    there, claimed = truth.present, num > 0
    hit = there & claimed
    extra = np.where(there, np.maximum(num - 1, 0), num)
    cam = np.take_along_axis(predicted.keypoints_cam_m, np.maximum(at, 0)[..., None, None], axis=1)
    posed = hit & np.isfinite(cam).all(axis=(2, 3))
    ours = np.where(posed[..., None, None], cam, placeholder_m())[there]
    true = np.asarray(truth.keypoints_cam_m, float)[there]
    wrists_m = np.linalg.norm(np.where(posed[there][:, None], ours[:, 0], 0.0) - true[:, 0], axis=-1)
    relative = mpjpe_mm(ours - ours[:, :1], true - true[:, :1])
    aligned = np.where(posed[there], mpjpe_mm(procrustes(ours, true), true), relative)
    found, asked = float(hit.sum()), float(there.sum())
    wrong = float(extra.sum())
    return {
        "facc": (float((num == there).all(axis=1).sum()), float(len(there))),
        "recall": (found, asked),
        "precision": (found, found + wrong),
        "f1": (2 * found, asked + found + wrong),
        "mpjpe_p_mm": summed(relative),
        "pa_mpjpe_p_mm": summed(aligned),
        "ct_p_m": summed(wrists_m),
    }


def _slots(truth: TrueHands, predicted: PredictedHands) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """How many predictions (T, 2) are labelled left, right, and which of them (T, 2) is nearest to the true hand."""
    there = np.isfinite(predicted.keypoints_px).all(axis=(2, 3))
    num = np.zeros((len(there), 2), np.int64)
    at = np.full((len(there), 2), -1, np.int64)
    for hand in (LEFT, RIGHT):
        claims = there & (predicted.handedness == hand)
        num[:, hand] = claims.sum(axis=1)
        away = distance_px(predicted.keypoints_px, truth.keypoints_px[:, None, hand])
        away = np.where(claims, np.where(np.isfinite(away), away, 1e9), np.inf)
        at[:, hand] = np.where(num[:, hand] > 0, away.argmin(axis=1), -1)
    return num, at


@cache
def placeholder_m() -> NDArray[np.float64]:
    """(2, 21, 3): the flat mean hand, left and right, with the wrist at the camera's centre."""
    right = forward_kinematics(np.zeros((1, 5, 4)))[0][0] @ _AS_MANO.T
    right = right - right[0]
    return np.stack([right * [-1, 1, 1], right])


Floats = NDArray[np.floating]

BOX_SHARES = np.linspace(0, 0.5, 101)
ERRORS_MM = np.linspace(0, 50, 101)


def pck(px: Floats, cam_m: Floats, truth: TrueHands, scored: Bools) -> Sums:
    """Share of the keypoints of visible hands within a distance of the truth; those of missed hands are not within.

    pck_box_02: within 0.2 of the longer side of the true keypoints' box, in the image; pck_box_auc: mean over 101
    distances from 0 to 0.5 of it. pck_palm_05: within half a palm's width. auc_50mm: in 3D relative to the wrist, mean
    over 101 distances from 0 to 50 mm. px: (T, 2, 21, 2), cam_m: (T, 2, 21, 3) of each true hand; scored: it was found.
    Keypoints whose true place is unknown are left out.

    Source: Simon et al., Hand Keypoint Detection in Single Images using Multiview Bootstrapping, CVPR 2017 (PCK, AUC);
    0 to 50 mm after Meta's hand tracking toolkit for HOT3D.
    """
    at = truth.visible
    true_px, true_cam = np.asarray(truth.keypoints_px, float)[at], np.asarray(truth.keypoints_cam_m, float)[at]
    known = np.isfinite(true_px).all(axis=-1)
    side_px = _box_side_px(true_px)
    away_px = np.linalg.norm(np.asarray(px, float)[at] - true_px, axis=-1)
    away_px = np.where(scored[at][:, None] & np.isfinite(away_px), away_px, np.inf)
    ours = np.asarray(cam_m, float)[at]
    away_mm = 1000 * np.linalg.norm((ours - ours[:, :1]) - (true_cam - true_cam[:, :1]), axis=-1)
    away_mm = np.where(scored[at][:, None] & np.isfinite(away_mm), away_mm, np.inf)
    count, in_3d = float(known.sum()), np.isfinite(true_cam).all(axis=-1)
    in_boxes, in_palms = (away_px / side[:, None] for side in (side_px, palm_width_px(truth)[at]))
    return {
        "pck_box_02": (float(((in_boxes <= 0.2) & known).sum()), count),
        "pck_box_auc": (_area(in_boxes[known], BOX_SHARES), count),
        "pck_palm_05": (float(((in_palms <= 0.5) & known).sum()), count),
        "auc_50mm": (_area(away_mm[in_3d], ERRORS_MM), float(in_3d.sum())),
    }


def depth_axis(cam_m: Floats, truth: TrueHands, scored: Bools) -> Sums:
    """The error along the optical axis, predicted minus true, mm; positive is too far.

    root_z_mm, z_mm: mean over wrists, over all keypoints; root_z_abs_mm, z_abs_mm: of its absolute value.
    """
    error = 1000 * (np.asarray(cam_m, float)[..., 2] - truth.keypoints_cam_m[..., 2])[scored]
    named = {"root_z_mm": error[:, 0], "z_mm": error}
    return {name: summed(values) for name, values in named.items()} | {
        name.replace("z_mm", "z_abs_mm"): summed(np.abs(values)) for name, values in named.items()
    }


def _box_side_px(px: Floats) -> Floats:
    """(n,) the longer side of the box around known keypoints (n, 21, 2); NaN where fewer than two are known."""
    known = np.isfinite(px).all(axis=-1, keepdims=True)
    low, high = np.where(known, px, np.inf).min(axis=1), np.where(known, px, -np.inf).max(axis=1)
    side = (high - low).max(axis=-1, initial=-np.inf)
    return np.where(np.isfinite(side) & (side > 0), side, np.nan)


def _area(away: Floats, limits: Floats) -> float:
    """Sum over keypoints of the share of limits that each is below."""
    return float((away[:, None] <= limits).mean(axis=1).sum())


HORIZON_S = 1.0
RATE_HZ = 30.0  # of the videos of published jitter


def jitter(cam_m: Floats, truth: TrueHands, scored: Bools) -> Sums:
    """Mean second difference of keypoints (T, 2, 21, 3), camera frame, over hands scored in three frames in a row.

    jitter_mean_mm: mean over keypoints of |x[t-1] - 2 x[t] + x[t+1]|, mm a frame squared, frames as sampled; true_...:
    the truth's over the same frames. ..._30hz: as accelerations times (1/30 s) squared, as a video of 30 Hz shows the
    same motion. Independent errors of frames do not shrink with the frame interval as motion does, so the second
    favours slow sampling; compare the first at the same rate only.

    Source: the unit of MINT's and ViDiHand's tables (arXiv 2606.30308, Table 1); a mean, `jitter_mm` is a median.
    """
    three = scored[:-2] & scored[1:-1] & scored[2:]
    out: Sums = {}
    for name, points in (("jitter", cam_m), ("true_jitter", truth.keypoints_cam_m)):
        second = 1000 * np.linalg.norm(np.diff(np.asarray(points, float), 2, axis=0), axis=-1).mean(axis=-1)
        second = np.where(three, second, np.nan)
        out[f"{name}_mean_mm"] = summed(second)
        if truth.frame_s is not None and len(truth.frame_s) > 2:
            step_s = (np.asarray(truth.frame_s)[2:] - np.asarray(truth.frame_s)[:-2]) / 2
            out[f"{name}_mean_mm_30hz"] = summed(second / (step_s[:, None] * RATE_HZ) ** 2)
    return out


def action(world_m: Floats | None, poses: Floats | None, truth: TrueHands) -> Sums:
    """Error of the next second's keypoints in the frame's own camera: what a policy learns to predict.

    For every frame t and every visible hand of a later frame u within `HORIZON_S`: the true hand of u in the true
    camera of t, and the predicted hand of u in the predicted camera of t. No alignment: errors of the path and of its
    scale count. action_mm: mean keypoint distance over the pairs (t, u, hand) that were predicted; action_coverage: the
    share of pairs that were. world_m: (T, 2, 21, 3), NaN where missed, None without a metric world; poses: (T, 4, 4) of
    the same world. Gaps are not interpolated here.

    Source: Macrodata's Action-MPJPE (their report on HOT3D, 2026): world joints of the next second in the frame's
    camera, reported with coverage. Which frames count and how gaps are treated are ours, as described above.
    """
    if truth.frame_s is None or truth.world_from_camera is None or poses is None:
        return {}
    frame_s, error, num, asked = np.asarray(truth.frame_s), 0.0, 0.0, 0.0
    for ahead in range(1, len(frame_s)):
        within = frame_s[ahead:] - frame_s[:-ahead] <= HORIZON_S + 1e-6
        if not within.any():
            break
        at, later = np.flatnonzero(within), np.flatnonzero(within) + ahead
        wanted = truth.visible[later]
        asked += float(wanted.sum())
        if world_m is None:
            continue
        ours = to_camera(np.asarray(world_m, float)[later], poses[at])
        true = to_camera(np.asarray(truth.keypoints_world_m, float)[later], truth.world_from_camera[at])
        total, count = summed(np.where(wanted, mpjpe_mm(ours, true), np.nan))
        error, num = error + total, num + count
    return {"action_mm": (error, num), "action_coverage": (num, asked)}


def swaps(predicted: PredictedHands, found: NDArray[np.int64], scored: Bools) -> Sums:
    """hand_swaps_per_1000: how often a true hand's label changes from one frame in which it was found to the next.

    Source: identity switches, Bernardin and Stiefelhagen, Evaluating Multiple Object Tracking Performance, 2008.
    """
    labels = of_truth(predicted.handedness, found)
    changes = sum(int((np.diff(labels[scored[:, hand], hand]) != 0).sum()) for hand in range(scored.shape[1]))
    return {"hand_swaps_per_1000": (1000.0 * changes, float(scored.sum()))}


def comparable(truth: TrueHands, predicted: PredictedHands) -> Sums:
    """All metrics of this module. Predictions are matched to hands by place, as in `hand_errors`, except in
    `penalised`, whose slots are left and right."""
    found, _ = match(truth, predicted)
    scored = truth.visible & (found >= 0)
    px, cam = of_truth(predicted.keypoints_px, found), of_truth(predicted.keypoints_cam_m, found)
    world = predicted.keypoints_world_m
    if world is not None:
        world = of_truth(world, found)
        world[found < 0] = float("nan")
    poses = truth.world_from_camera if predicted.world_from_camera is None else predicted.world_from_camera
    return (
        penalised(truth, predicted)
        | pck(px, cam, truth, scored)
        | depth_axis(cam, truth, scored)
        | jitter(cam, truth, scored)
        | action(world, poses, truth)
        | swaps(predicted, found, scored)
    )
