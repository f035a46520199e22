"""How steady predicted hands are, and how well they tell the next second: jitter, Action MPJPE, swaps of labels."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from handloom.bench.metrics.hands import PredictedHands, TrueHands, mpjpe_mm, of_truth
from handloom.bench.metrics.parts import Parts, part
from handloom.geometry.world import to_camera

Floats = NDArray[np.floating]
Bools = NDArray[np.bool_]

HORIZON_S = 1.0
RATE_HZ = 30.0  # of the videos that published jitter is measured on


def jitter(cam_m: Floats, truth: TrueHands, scored: Bools) -> Parts:
    """Mean second difference of keypoints (T, 2, 21, 3), camera frame, over hands scored in three frames in a row.

    jitter_mean_mm: mean over keypoints of |x[t-1] - 2 x[t] + x[t+1]|, mm a frame squared, frames as sampled; true_...:
    the truth's over the same frames. ..._30hz: as accelerations, times (1/30 s) squared: what a video of 30 Hz would
    show of the same motion. Errors that have nothing to do with each other from frame to frame do not shrink with the
    frame interval as motion does, so the second flatters a slow sampling: compare the first at the same rate only.

    Source: the unit of MINT's and ViDiHand's tables (arXiv 2606.30308, Table 1); a mean, `jitter_mm` is a median.
    """
    three = scored[:-2] & scored[1:-1] & scored[2:]
    out: Parts = {}
    for name, points in (("jitter", cam_m), ("true_jitter", truth.keypoints_cam_m)):
        second = 1000 * np.linalg.norm(np.diff(np.asarray(points, float), 2, axis=0), axis=-1).mean(axis=-1)
        second = np.where(three, second, np.nan)
        out[f"{name}_mean_mm"] = part(second)
        if truth.frame_s is not None and len(truth.frame_s) > 2:
            step_s = (np.asarray(truth.frame_s)[2:] - np.asarray(truth.frame_s)[:-2]) / 2
            out[f"{name}_mean_mm_30hz"] = part(second / (step_s[:, None] * RATE_HZ) ** 2)
    return out


def action(world_m: Floats | None, poses: Floats, truth: TrueHands) -> Parts:
    """Keypoints of the next second in the frame's own camera: what a policy is trained to predict.

    For every frame t and every visible hand of a later frame u within `HORIZON_S`: the true hand of u in the true
    camera of t, and the predicted hand of u in the predicted camera of t. No alignment: errors of the path and of its
    scale count. action_mm: mean keypoint distance over the pairs (t, u, hand) that were predicted; action_coverage: the
    share of pairs that were. world_m: (T, 2, 21, 3), NaN where missed, None without a metric world; poses: (T, 4, 4) of
    the same world. Gaps are not interpolated here: the pipeline has filled those it fills.

    Source: Macrodata's Action-MPJPE (their report on HOT3D, 2026): world joints of the next second seen from the
    frame's camera, with coverage beside it. The frames counted and the treatment of gaps are ours, as said above.
    """
    if truth.frame_s is None or truth.world_from_camera is None:
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
        total, count = part(np.where(wanted, mpjpe_mm(ours, true), np.nan))
        error, num = error + total, num + count
    return {"action_mm": (error, num), "action_coverage": (num, asked)}


def swaps(predicted: PredictedHands, found: NDArray[np.int64], scored: Bools) -> Parts:
    """hand_swaps_per_1000: how often a true hand's label changes from one frame in which it was found to the next.

    Source: identity switches, Bernardin and Stiefelhagen, Evaluating Multiple Object Tracking Performance, 2008.
    """
    labels = of_truth(predicted.handedness, found)
    changes = sum(int((np.diff(labels[scored[:, hand], hand]) != 0).sum()) for hand in range(scored.shape[1]))
    return {"hand_swaps_per_1000": (1000.0 * changes, float(scored.sum()))}
