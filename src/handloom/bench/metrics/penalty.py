"""Scores under which a missed hand counts as an error, so that leaving out the hard hands does not pay.

The protocol is ViDiHand's (arXiv 2606.30308, Table 1), which MINT's Table 1 takes over: left and right are two fixed
slots; a hand is there where at least one of its 21 keypoints lies in the picture; a hand that is there and not
predicted gets the pose error of a placeholder, an unposed hand at the camera's own place. Theirs is MANO's mean hand;
MANO's licence keeps it out of this package, so ours is the mean hand of `synth.hand`, flat, turned as MANO's is. It
decides how much one missed hand weighs, and nothing else.

The placeholder is not aligned in PA-MPJPE-p either. No source that was read says so, but the published rows do:
recall a + (1 - recall) b, fitted to PA-MPJPE-p of the eight baselines, gives a = 9 mm for found hands and b = 105 mm
for missed ones on ARCTIC, 12 and 122 mm on HOT3D. On HOT3D's samples a flat hand costs 17 mm aligned, 128 not aligned.
"""

from __future__ import annotations

from functools import cache

import numpy as np
from numpy.typing import NDArray

from handloom.bench.metrics.hands import (
    PredictedHands,
    TrueHands,
    distance_px,
    mpjpe_mm,
    procrustes,
)
from handloom.bench.metrics.parts import Parts, part
from handloom.schemas.values import LEFT, RIGHT
from handloom.synth.hand import forward_kinematics

Bools = NDArray[np.bool_]
# Columns: where the flat hand's x (to the little finger), y (to the fingertips) and z (out of its back) point when
# MANO's right hand is not turned: fingers along -x, its back along y, the thumb along z. Left hands are mirror images.
_AS_MANO = np.array([[0.0, -1.0, 0.0], [0.0, 0.0, 1.0], [-1.0, 0.0, 0.0]])


def penalised(truth: TrueHands, predicted: PredictedHands) -> Parts:
    """FAcc, recall, precision, F1 and pose errors over every hand that is there.

    facc: share of frames in which each slot holds exactly the hands it should: one where the hand is there, else none.
    recall, precision, f1: of slots. mpjpe_p_mm: mean distance of keypoints relative to the wrist; pa_mpjpe_p_mm: that
    of found hands after `procrustes`; ct_p_m: distance of the wrists in the camera frame. A hand that was predicted in
    2D alone counts as found in the first four and as missed in the poses. Empty without `truth.present`.
    """
    if truth.present is None:
        return {}
    num, at = _slots(truth, predicted)
    there, said = truth.present, num > 0
    hit = there & said
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
        "mpjpe_p_mm": part(relative),
        "pa_mpjpe_p_mm": part(aligned),
        "ct_p_m": part(wrists_m),
    }


def _slots(truth: TrueHands, predicted: PredictedHands) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """How many predictions (T, 2) claim to be left, right, and which of them (T, 2) is nearest to the true hand."""
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
    """(2, 21, 3): the flat mean hand, left and right, wrist at the camera's place."""
    right = forward_kinematics(np.zeros((1, 5, 4)))[0][0] @ _AS_MANO.T
    right = right - right[0]
    return np.stack([right * [-1, 1, 1], right])
