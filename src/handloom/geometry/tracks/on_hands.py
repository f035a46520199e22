"""Tracked points on a hand compared with the hand's own keypoints: whether both move alike from frame to frame."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from handloom.schemas.values import NUM_HANDS, Hands, Tracks

Floats = NDArray[np.float64]

ON_HAND = 0.12  # of the hand's size, from the nearest keypoint: beside a bone, not between two fingers
SETTLED_TRACKS = 4  # least number of points to judge a hand by
_NEAREST = 3


def hand_track_residuals(hands: Hands, tracks: Tracks) -> tuple[Floats, Floats]:
    """How far tracked points on a hand move differently from the keypoints nearest to them, over one frame.

    A point should move as its nearest keypoints do, weighted by distance. Interpolated hands are left out.

    Returns:
        All residuals, source pixels, flat; and (T, 2) their median by frame and hand, in hand sizes, of the steps to
        and from the frame the larger one; NaN with fewer than `SETTLED_TRACKS` points.
    """
    num_frames = len(hands.visible)
    by_step = np.full((max(num_frames - 1, 0), NUM_HANDS), np.nan)
    size = hand_sizes_px(hands.keypoints_px.astype(np.float64))
    known = hands.visible & ~hands.infilled & np.isfinite(size) & (size > 0)
    both = tracks.visible[1:] & tracks.visible[:-1] if num_frames > 1 else tracks.visible[:0]
    found: list[Floats] = []
    for t, hand in np.argwhere(known[1:] & known[:-1]):
        off = _residuals(
            hands.keypoints_px[t : t + 2, hand].astype(np.float64), tracks.points_px[t : t + 2, both[t]], size[t, hand]
        )
        if len(off) >= SETTLED_TRACKS:
            found.append(off)
            by_step[t, hand] = np.median(off) / size[t, hand]
    return np.concatenate([np.zeros(0), *found]), either_side(by_step, num_frames)


def either_side(steps: Floats, num_frames: int) -> Floats:
    """(T-1, ...) values of steps to (T, ...) of frames: of the steps to and from a frame the larger one; NaN where both
    are."""
    gap = np.full((min(num_frames, 1), *steps.shape[1:]), np.nan)
    return np.fmax(np.concatenate([gap, steps]), np.concatenate([steps, gap]))


def _residuals(keypoints: Floats, points: NDArray[np.floating[Any]], size_px: float) -> Floats:
    """(m,) residuals, pixels, of the m points on the hand: of (2, n, 2) points and (2, 21, 2) keypoints in two
    frames."""
    reach = ON_HAND * size_px
    low, high = keypoints[0].min(axis=0) - reach, keypoints[0].max(axis=0) + reach
    near = points[:, ((points[0] > low) & (points[0] < high)).all(axis=1)].astype(np.float64)
    if near.shape[1] < SETTLED_TRACKS:
        return np.zeros(0)
    apart = np.linalg.norm(near[0][:, None] - keypoints[0], axis=-1)
    on = apart.min(axis=1) < reach
    near, apart = near[:, on], apart[on]
    nearest = np.argpartition(apart, _NEAREST, axis=1)[:, :_NEAREST]
    weight = 1 / (np.take_along_axis(apart, nearest, axis=1) + 0.02 * size_px)
    expected = (weight[..., None] * (keypoints[1] - keypoints[0])[nearest]).sum(1) / weight.sum(1)[:, None]
    off = np.linalg.norm(near[1] - near[0] - expected, axis=-1)
    return off[np.isfinite(off)]


def hand_sizes_px(keypoints_px: Floats) -> Floats:
    """(..., 21, 2) to (...): the diagonal of the box around a hand's keypoints; NaN where one is unknown."""
    return np.linalg.norm(keypoints_px.max(axis=-2) - keypoints_px.min(axis=-2), axis=-1)
