"""How likely a detected hand is the person's own left or right one, by itself: what the model says, and what a camera
on the person's head or chest would see."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from handloom.geometry.tracklets import Detections, hand_size

# The model's belief is kept away from 0 and 1, and counts for less than independent evidence would: its mistakes last
# as long as a hand keeps its pose (one EgoDex clip: the left hand called right for 30 frames on end, at 0.74 to 0.95).
MODEL_FLOOR = 0.03
MODEL_WEIGHT = 0.8
# Both chosen by hand on five EgoDex clips, not fitted.
# A tracklet's frames are no independent witnesses: it counts as 1 observation and 1 more per second, at most 3.
MAX_OBSERVATIONS = 3.0

# The ego explanation, fitted by eye to 547 detections with device truth in five EgoDex clips (wrist to knuckles: left
# 37 to 96 degrees, median 63; right 83 to 161, median 117; wrist 0.1 to 0.6 half widths to its own side) and widened.
# They are the clips of the README's table: its handedness is in-sample.
FOREARM_DEG = (62.0, 118.0)  # left, right; 0 points to the right of the picture, 90 up
FOREARM_KAPPA = 2.5  # concentration of the von Mises distribution
WRIST_X = (-0.3, 0.3)  # in half widths of the picture, from its middle
WRIST_X_STD = 0.4
OUTLIER_SHARE = 0.1  # hands that lie and point anywhere, in an ego clip too
ORDER_FLOOR = 0.04  # hands that have changed sides
ORDER_SLOPE = 4.0  # per hand size of distance


def side_evidence(detections: Detections, width: int, ego: bool) -> NDArray[np.float64]:
    """(D, 2): log-likelihood of each detection if it is the left, the right hand."""
    right = np.clip(detections.right_probability, MODEL_FLOOR, 1 - MODEL_FLOOR)
    evidence = MODEL_WEIGHT * np.log(np.stack([1 - right, right], axis=1))
    if ego:
        evidence = evidence + ego_log_ratio(detections.keypoints_px, width)
    return evidence


def ego_log_ratio(keypoints_px: NDArray[np.float64], width: int) -> NDArray[np.float64]:
    """(D, 2): how much likelier place and direction are for an ego camera's left, right hand than for any hand."""
    wrist = keypoints_px[:, 0]
    forearm = keypoints_px[:, (5, 9, 13, 17)].mean(axis=1) - wrist
    angle = np.arctan2(-forearm[:, 1], forearm[:, 0])[:, None]
    x = (wrist[:, :1] + 0.5) / (width / 2) - 1
    # Both against a uniform distribution: over the circle, and over the two half widths.
    direction = np.exp(FOREARM_KAPPA * np.cos(angle - np.radians(FOREARM_DEG))) / np.i0(FOREARM_KAPPA)
    place = 2 * np.exp(-0.5 * ((x - np.array(WRIST_X)) / WRIST_X_STD) ** 2) / (WRIST_X_STD * np.sqrt(2 * np.pi))
    return np.log((1 - OUTLIER_SHARE) * direction * place + OUTLIER_SHARE)


def order_log_ratio(left_px: NDArray[np.float64], right_px: NDArray[np.float64]) -> NDArray[np.float64]:
    """(P, 21, 2) each to (P,): how much likelier an ego camera is to see the hands in this order than any camera."""
    gap = right_px[..., 0].mean(axis=-1) - left_px[..., 0].mean(axis=-1)
    gap = gap / np.maximum(hand_size(left_px), hand_size(right_px))
    in_order = 1 / (1 + np.exp(-ORDER_SLOPE * np.clip(gap, -5, 5)))
    return np.log(2 * (ORDER_FLOOR + (1 - 2 * ORDER_FLOOR) * in_order))


def num_observations(seconds: NDArray[np.float64]) -> float:
    return min(1.0 + float(seconds[-1] - seconds[0]), MAX_OBSERVATIONS)
