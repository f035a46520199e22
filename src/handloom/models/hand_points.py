"""Assigned detections as the arrays of a clip."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from handloom.geometry.tracklets import Detections
from handloom.schemas.values import NUM_HANDS, NUM_KEYPOINTS, HandPoints


def in_slots(
    num_frames: int, detections: Detections, hand: NDArray[np.int64], model_m: NDArray[np.float64], view: str | None
) -> HandPoints:
    """hand: (D,) 0 left, 1 right; model_m: (D, 21, 3). At most one detection a frame and hand; none is infilled."""
    visible = np.zeros((num_frames, NUM_HANDS), bool)
    confidence = np.full((num_frames, NUM_HANDS), np.nan, np.float32)
    keypoints_px = np.full((num_frames, NUM_HANDS, NUM_KEYPOINTS, 2), np.nan, np.float32)
    model = np.full((num_frames, NUM_HANDS, NUM_KEYPOINTS, 3), np.nan, np.float32)
    where = (detections.frame, hand)
    visible[where] = True
    confidence[where] = detections.confidence
    keypoints_px[where] = detections.keypoints_px
    model[where] = model_m
    return HandPoints(visible, np.zeros_like(visible), confidence, keypoints_px, model, view)


def not_across(points: HandPoints, cuts: NDArray[np.integer]) -> HandPoints:
    """The same without what was infilled from one shot to the next. cuts: (C,) first frames of shots."""
    drop = np.zeros_like(points.infilled)
    for cut in cuts:
        for hand in range(NUM_HANDS):
            seen = np.flatnonzero(points.visible[:, hand] & ~points.infilled[:, hand])
            before, after = seen[seen < cut], seen[seen >= cut]
            start = before[-1] + 1 if len(before) else 0
            drop[start : after[0] if len(after) else len(drop), hand] = True
    drop &= points.infilled
    if not drop.any():
        return points
    names = ("confidence", "keypoints_px", "model_m")
    values = {name: getattr(points, name).copy() for name in names}
    for value in values.values():
        value[drop] = np.nan
    return replace(points, visible=points.visible & ~drop, infilled=points.infilled & ~drop, **values)
