"""What both hands do at each step of an even time grid, as vectors to compare: for matching parts of clips.

A function of stored columns: a hand's keypoints in the camera frame. Directions are taken in place of pixels, so that
the lens and the image size do not matter, and shapes in units of the hand's size.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from handloom.errors import ShapeError
from handloom.schemas.hand_topology import MIDDLE, PALM, TIPS, WRIST
from handloom.schemas.values import NUM_HANDS, NUM_KEYPOINTS

Floats = NDArray[np.float64]

GRID_S = 0.1
LONGEST_GAP_S = 0.5
"""A hand that is not seen for less than this is interpolated, as in the embedding `motion`."""
SEEN, PLACE, SPEED, SHAPE = 3.0, 2.0, 0.7, 0.5
"""Weights of the parts of a step: whether the hand is seen, where (tangents), how fast (tangents per second), the
fingertips from the wrist (hand sizes). With 1 for a hand that is seen, hands that are hardly ever seen came first: they
differ less from a hand than another hand does."""
FASTEST = 3.0  # tangents per second; a faster hand is a detection that jumped
WIDTH = 1 + 2 + 2 + 3 * 5  # numbers of one hand


@dataclass(frozen=True)
class HandSteps:
    """S steps of a clip. times_s: (S,) on the clip's clock. values: (S, 2 * WIDTH) float32, zeros for a hand that is
    not seen. seen: (S, 2), which hands are."""

    times_s: Floats
    values: NDArray[np.float32]
    seen: NDArray[np.bool_]


def hand_steps(
    keypoints_cam_m: NDArray[np.floating], frame_s: NDArray[np.floating], *, mirrored: bool = False
) -> HandSteps:
    """The steps of a clip or of a piece of it, from its first to its last frame.

    Args:
        keypoints_cam_m: (T, 2, 21, 3), left and right hand, camera frame, metres; NaN where not seen.
        frame_s: (T,) increasing.
        mirrored: the clip in a mirror.

    Raises:
        ShapeError: the arrays disagree in T.
    """
    points = np.asarray(keypoints_cam_m, np.float64)
    if points.shape != (len(frame_s), NUM_HANDS, NUM_KEYPOINTS, 3):
        raise ShapeError(f"hand keypoints of {points.shape} for {len(frame_s)} frames, expected (T, 2, 21, 3)")
    if mirrored:
        points = points[:, ::-1] * np.array([-1.0, 1.0, 1.0])
    times = np.asarray(frame_s, np.float64)
    if len(times) < 2:
        grid = times.copy()
    else:
        grid = times[0] + GRID_S * np.arange(int(np.floor((times[-1] - times[0]) / GRID_S + 1e-6)) + 1)
    parts, seen = zip(*(_one_hand(points[:, hand], times, grid) for hand in range(NUM_HANDS)), strict=True)
    return HandSteps(grid, np.concatenate(parts, axis=1).astype(np.float32), np.stack(seen, axis=1))


def _one_hand(points: Floats, times: Floats, grid: Floats) -> tuple[Floats, NDArray[np.bool_]]:
    """(S, WIDTH) and (S,) of a hand's (T, 21, 3)."""
    size = np.linalg.norm(points[:, MIDDLE[0]] - points[:, WRIST], axis=-1)
    palm = points[:, list(PALM)].mean(1)
    with np.errstate(invalid="ignore"):
        there = np.isfinite(points).all((1, 2)) & (palm[:, 2] > 0) & (size > 0)
    place = np.full((len(times), 2), np.nan)
    place[there] = palm[there, :2] / palm[there, 2:]
    shape = np.full((len(times), 3 * len(TIPS)), np.nan)
    from_wrist = points[there][:, list(TIPS)] - points[there][:, [WRIST]]
    shape[there] = (from_wrist / size[there, None, None]).reshape(-1, 3 * len(TIPS))
    on_grid = _interpolated(np.concatenate([place, shape], axis=1), there, times, grid)
    seen = np.isfinite(on_grid).all(1)
    speed = _speed(on_grid[:, :2], grid)
    step = np.concatenate(
        [np.full((len(grid), 1), SEEN), PLACE * on_grid[:, :2], SPEED * speed, SHAPE * on_grid[:, 2:]], axis=1
    )
    return np.where(seen[:, None], np.nan_to_num(step), 0.0), seen


def _interpolated(values: Floats, there: NDArray[np.bool_], times: Floats, grid: Floats) -> Floats:
    """(T, C) on the grid, between frames at most `LONGEST_GAP_S` apart; NaN elsewhere."""
    found = np.full((len(grid), values.shape[1]), np.nan)
    if not there.any():
        return found
    seen_s, seen = times[there], values[there]
    right = np.clip(np.searchsorted(seen_s, grid - 1e-9), 0, len(seen_s) - 1)
    left = np.where(seen_s[right] <= grid + 1e-9, right, np.maximum(right - 1, 0))
    gap = seen_s[right] - seen_s[left]
    share = np.where(gap > 0, (grid - seen_s[left]) / np.where(gap > 0, gap, 1), 0.0)
    longest = max(LONGEST_GAP_S, 2.5 * float(np.median(np.diff(times)))) if len(times) > 1 else LONGEST_GAP_S
    known = (seen_s[left] <= grid + 1e-6) & (grid <= seen_s[right] + 1e-6) & (gap <= longest)
    between = seen[left] + (seen[right] - seen[left]) * share[:, None]
    found[known] = between[known]
    return found


def _speed(place: Floats, grid: Floats) -> Floats:
    """(S, 2) per second by central differences, one-sided beside a gap; NaN for a step alone."""
    if len(grid) < 2:
        return np.full_like(place, np.nan)
    step = np.diff(place, axis=0) / GRID_S
    before = np.concatenate([np.full((1, 2), np.nan), step])
    after = np.concatenate([step, np.full((1, 2), np.nan)])
    before, after = np.where(np.isfinite(before), before, after), np.where(np.isfinite(after), after, before)
    return np.clip((before + after) / 2, -FASTEST, FASTEST)
