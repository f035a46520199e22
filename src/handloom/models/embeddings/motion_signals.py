"""The signals of the embedding `motion`: what moves in a clip, on one time grid, without the camera's motion."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from handloom.geometry.camera.motion import dominant_homography, warp
from handloom.models.embeddings.descriptors import FASTEST, NUM_DIRECTIONS, NUM_FLOW, NUM_LAGS, direction_votes
from handloom.schemas.values import NUM_HANDS, NUM_KEYPOINTS, Hands, Tracks, VideoInfo

Floats = NDArray[np.float64]

STEP_S = 0.1
"""Time grid of the descriptor."""
MAX_GAP_S = 0.5
"""A hand that is not seen for less than this is interpolated, for the embedding only."""
STILL = 0.05
"""Speed below which a point is at rest, in sqrt(width * height) per second: 0.4 px a frame in IJCV 2013's videos."""
MAX_STEPS_PER_FRAME = 16
"""A video sampled more slowly than 0.5 Hz is described on a coarser grid."""
AT_MOST = 1.0
"""A point counts for the square of its speed above `STILL`, up to this: the hand at the end of an arm moves most."""
NOTHING = 2e-4  # of such squares, a mean over all points: what moves less is mostly noise
RASTER = (12, 16)  # rows, columns on which the residual flow is differentiated
HAND_MARGIN = 0.3  # the box around a hand grows by this share of its size on each side before tracks are masked


@dataclass(frozen=True)
class MotionSignals:
    """A clip on the even time grid of S steps, camera motion removed; lengths in sqrt(width * height).

    hand: (S+1, 2, 21, 2) positions. hand_velocity: (S, 2, 21, 2) per second. Both NaN where a hand is not seen.
    flow: (S, 10) of the points that move: in which of 8 directions, as shares of all points; mean velocity x, y.
    flow_mbh: (S, 2, 4, 8), by quarter of the image. flow_lags: (13,).
    """

    step_s: float
    hand: Floats
    hand_velocity: Floats
    flow: Floats
    flow_mbh: Floats
    flow_lags: Floats
    any_flow: bool


def measure(
    hands: Hands,
    tracks: Tracks,
    frame_s: NDArray[np.float64],
    frames: NDArray[np.int64],
    info: VideoInfo,
    *,
    flow_alone: bool = False,
) -> MotionSignals:
    """Compute the signals in one pass over the time grid; memory does not grow with tracks times steps.

    flow_alone: leave out `flow_mbh` and `flow_lags`, which are zeros then.
    """
    times = frame_s[frames]
    steps = int(np.clip(round((times[-1] - times[0]) / STEP_S), 1, MAX_STEPS_PER_FRAME * len(times)))
    grid = np.linspace(times[0], times[-1], steps + 1)
    step_s = (times[-1] - times[0]) / steps
    unit = float(np.sqrt(info.width * info.height))
    hand_px = np.stack([_hand_on_grid(hands, h, times, frames, grid, info) for h in range(NUM_HANDS)], axis=1)
    hand_velocity = np.full((steps, *hand_px.shape[1:]), np.nan)
    moving, mbh = np.zeros((steps, NUM_FLOW)), np.zeros((steps, 2, 4, 8))
    lags, energy = np.zeros(NUM_LAGS), 0.0
    recent: deque[Any] = deque(maxlen=NUM_LAGS)
    any_flow = False
    before = _tracks_at(tracks, times, frames, grid[0], info)
    for k in range(steps):
        after = _tracks_at(tracks, times, frames, grid[k + 1], info)
        both = np.isfinite(before[:, 0]) & np.isfinite(after[:, 0])
        voters = both & ~_near_hands(before, hand_px[k])
        homography, _ = dominant_homography(before[voters], after[voters], info.width, info.height)
        if not np.isfinite(homography).all():
            homography = np.eye(3)  # unknown: the camera's motion is not removed
        scale = 1 / (unit * step_s)
        hand_velocity[k] = (hand_px[k + 1] - warp(homography, hand_px[k])) * scale
        flow = np.zeros_like(before)
        flow[both] = (after[both] - warp(homography, before[both])) * scale
        length = np.hypot(flow[:, 0], flow[:, 1])
        flow *= np.minimum(1, FASTEST / np.maximum(length, FASTEST))[:, None]
        if both.any():
            any_flow = True
            moving[k] = _moving(flow[both])
            if not flow_alone:
                mbh[k] = _motion_boundaries(before[both], flow[both], info)
        before = after
        if flow_alone:
            continue
        for i, earlier in enumerate(reversed(recent)):
            lags[i] += np.sum(earlier * flow)
        energy += float(np.sum(flow**2) + 0.25 * STILL**2 * both.sum())
        recent.append(flow.astype(np.float32))
    lags = lags / energy if energy > 0 else lags
    return MotionSignals(step_s, hand_px / unit, hand_velocity, moving, mbh, lags, any_flow)


def _in_reach(points: Floats, info: VideoInfo) -> NDArray[np.bool_]:
    """Finite and at most half an image size outside the image."""
    x, y = points[..., 0] / info.width, points[..., 1] / info.height
    with np.errstate(invalid="ignore"):  # NaN compares as false
        return (np.abs(x - 0.5) < 1.0) & (np.abs(y - 0.5) < 1.0)


def _hand_on_grid(
    hands: Hands, hand: int, times: Floats, frames: NDArray[np.int64], grid: Floats, info: VideoInfo
) -> Floats:
    """(S+1, 21, 2) keypoints in pixels, interpolated between the frames that saw the hand; NaN across longer gaps."""
    keypoints = hands.keypoints_px[frames, hand].astype(np.float64)
    seen = hands.visible[frames, hand] & _in_reach(keypoints, info).all(-1)
    found = np.full((len(grid), NUM_KEYPOINTS, 2), np.nan)
    if not seen.any():
        return found
    seen_s, values = times[seen], keypoints[seen]
    right = np.clip(np.searchsorted(seen_s, grid), 0, len(seen_s) - 1)
    left = np.maximum(right - 1, 0)
    left = np.where(np.abs(seen_s[right] - grid) < 1e-6, right, left)
    gap = seen_s[right] - seen_s[left]
    share = np.where(gap > 0, (grid - seen_s[left]) / np.where(gap > 0, gap, 1), 0.0)
    longest = max(MAX_GAP_S, 2.5 * float(np.median(np.diff(times))))
    known = (seen_s[left] <= grid + 1e-6) & (grid <= seen_s[right] + 1e-6) & (gap <= longest)
    interpolated = values[left] + (values[right] - values[left]) * share[:, None, None]
    found[known] = interpolated[known]
    return found


def _tracks_at(tracks: Tracks, times: Floats, frames: NDArray[np.int64], at_s: float, info: VideoInfo) -> Floats:
    """(N, 2) pixels at one time, interpolated between the two frames around it; NaN unless seen in both."""
    right = int(np.clip(np.searchsorted(times, at_s), 1, len(times) - 1))
    share = (at_s - times[right - 1]) / (times[right] - times[right - 1])
    share = 0.0 if share < 1e-3 else 1.0 if share > 1 - 1e-3 else share
    total = np.zeros((tracks.visible.shape[1], 2))
    for frame, part in ((frames[right - 1], 1 - share), (frames[right], share)):
        if part > 0:
            points = tracks.points_px[frame].astype(np.float64)
            total += part * np.where((tracks.visible[frame] & _in_reach(points, info))[:, None], points, np.nan)
    return total


def _near_hands(points: Floats, hands_px: Floats) -> NDArray[np.bool_]:
    """(N,) whether a point lies in the grown box around a hand; hands_px (2, 21, 2)."""
    near = np.zeros(len(points), bool)
    for keypoints in hands_px[np.isfinite(hands_px).all((1, 2))]:
        low, high = keypoints.min(0), keypoints.max(0)
        margin = HAND_MARGIN * (high - low).max()
        (left, top), (right, bottom) = low - margin, high + margin
        x, y = points.T
        near |= (x >= left) & (x <= right) & (y >= top) & (y <= bottom)
    return near


def _moving(flow: Floats) -> Floats:
    """(10,) of one step, see `MotionSignals.flow`. flow: (M, 2) without the camera's, sqrt(width * height) a second."""
    length = np.hypot(flow[:, 0], flow[:, 1])
    weight = np.minimum(np.maximum(length - STILL, 0), AT_MOST) ** 2
    moves = weight > 0
    flow, length, weight, num = flow[moves], length[moves], weight[moves], len(flow) + 16
    votes = direction_votes(flow / length[:, None], still=None)
    total = (weight[:, None] * np.concatenate([votes, flow], axis=1)).sum(0) / num
    total[NUM_DIRECTIONS:] /= weight.sum() / num + NOTHING
    return total


def _motion_boundaries(points: Floats, flow: Floats, info: VideoInfo) -> Floats:
    """(2, 4, 8) of one step: directions of the spatial gradient of the flow's x and y component, by quarter of the
    image. points: (M, 2) pixels. flow: (M, 2) residual."""
    inside = np.clip((points + 0.5) / [info.width, info.height], 0, 1 - 1e-9)
    rows, columns = RASTER
    cell = (inside[:, 1] * rows).astype(int) * columns + (inside[:, 0] * columns).astype(int)
    count = np.bincount(cell, minlength=rows * columns).reshape(RASTER)
    result = np.zeros((2, 4, 8))
    for component in range(2):
        mean = np.bincount(cell, flow[:, component], minlength=rows * columns).reshape(RASTER)
        mean = np.where(count > 0, mean / np.maximum(count, 1), np.nan)
        gradient = np.stack([mean[:-1, 1:] - mean[:-1, :-1], mean[1:, :-1] - mean[:-1, :-1]], axis=-1)
        votes = direction_votes(gradient, still=None)
        top, left = rows // 2, columns // 2
        parts = (votes[:top, :left], votes[:top, left:], votes[top:, :left], votes[top:, left:])
        result[component] = np.stack([part.sum((0, 1)) for part in parts]) / votes[..., 0].size
    return result
