"""Shares of keypoints that are right, and the error along the optical axis."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from handloom.bench.metrics.hands import TrueHands, palm_width_px
from handloom.bench.metrics.parts import Parts, part

Floats = NDArray[np.floating]
Bools = NDArray[np.bool_]

BOX_SHARES = np.linspace(0, 0.5, 101)
ERRORS_MM = np.linspace(0, 50, 101)


def pck(px: Floats, cam_m: Floats, truth: TrueHands, scored: Bools) -> Parts:
    """Keypoints within a distance of the truth, of all keypoints of visible hands: those of missed hands are not.

    pck_box_02: within 0.2 of the longer side of the true keypoints' box, in the picture; pck_box_auc: mean over 101
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


def depth_axis(cam_m: Floats, truth: TrueHands, scored: Bools) -> Parts:
    """The error along the optical axis alone, predicted less true, mm; positive is too far.

    root_z_mm, z_mm: its mean over wrists, over all keypoints; root_z_abs_mm, z_abs_mm: of its size.
    """
    error = 1000 * (np.asarray(cam_m, float)[..., 2] - truth.keypoints_cam_m[..., 2])[scored]
    named = {"root_z_mm": error[:, 0], "z_mm": error}
    return {name: part(values) for name, values in named.items()} | {
        name.replace("z_mm", "z_abs_mm"): part(np.abs(values)) for name, values in named.items()
    }


def _box_side_px(px: Floats) -> Floats:
    """(n,) the longer side of the box around known keypoints (n, 21, 2); NaN where fewer than two are known."""
    known = np.isfinite(px).all(axis=-1, keepdims=True)
    low, high = np.where(known, px, np.inf).min(axis=1), np.where(known, px, -np.inf).max(axis=1)
    side = (high - low).max(axis=-1, initial=-np.inf)
    return np.where(np.isfinite(side) & (side > 0), side, np.nan)


def _area(away: Floats, limits: Floats) -> float:
    """Sum over keypoints of the share of limits that each is within."""
    return float((away[:, None] <= limits).mean(axis=1).sum())
