"""Choose points that carry information: on hands, on what moves near them, on corners."""

from __future__ import annotations

from dataclasses import dataclass, field

import cv2
import numpy as np
from numpy.typing import NDArray

from handloom.models.tracks.hand_regions import HandRegions
from handloom.models.tracks.scene_motion import SceneMotion
from handloom.schemas.values import NUM_HANDS, TrackKind

Array = NDArray[np.float32]

# Chosen by hand, not fitted.
POINTS_A_HAND = 28
SHARES = {TrackKind.LEFT_HAND: 0.25, TrackKind.RIGHT_HAND: 0.25, TrackKind.MOVING: 0.25, TrackKind.CORNER: 0.25}
"""Largest share of the extra points by kind. A frame may use half of a kind's points, so that later frames get some."""
MOVING_PX = 1.5
NEAR_HAND = 1.2
"""Palm lengths from a hand within which an object may be what it handles."""
_BORDER_PX = 8
_HALF = np.float32(0.5)
_CLOSE_PX = 0.3
"""Of the forward-backward check, in the images at half size."""
_LUCAS_KANADE = {
    "winSize": (9, 9),
    "criteria": (cv2.TERM_CRITERIA_EPS | cv2.TERM_CRITERIA_COUNT, 10, 0.03),
    "flags": cv2.OPTFLOW_USE_INITIAL_FLOW,
}


@dataclass
class Budget:
    """How many of `total` points were chosen so far, by kind."""

    total: int
    used: dict[TrackKind, int] = field(default_factory=lambda: dict.fromkeys(SHARES, 0))

    def left(self, kind: TrackKind) -> int:
        whole = int(self.total * SHARES[kind])
        return min(whole - self.used[kind], max(1, whole // 2))


def choose_queries(
    grey: NDArray[np.uint8], seen: Array, regions: HandRegions, t: int, moving: Array, budget: Budget
) -> tuple[Array, NDArray[np.int8]]:
    """New query points of frame `t`: (m, 2) working pixels and their kinds, (m,).

    Args:
        seen: (n, 2) points that are visible already; new ones keep a distance from them.
        moving: (k, 2) points near hands whose motion is not the camera's.
    """
    strength = corner_map(grey)
    points, kinds = [], []
    taken = seen
    for kind, found in _candidates(strength, taken, regions, t, moving, budget):
        found = found[: budget.left(kind)]
        budget.used[kind] += len(found)
        points.append(found)
        kinds.append(np.full(len(found), kind, np.int8))
    return np.concatenate(points), np.concatenate(kinds)


def _candidates(strength: Array, seen: Array, regions: HandRegions, t: int, moving: Array, budget: Budget):
    """(kind, points), the best points first, of each kind in turn."""
    height, width = 2 * np.array(strength.shape)
    for hand in range(NUM_HANDS):
        palm = float(regions.palm_px[t, hand])
        if not palm > 4:
            yield (TrackKind.LEFT_HAND, TrackKind.RIGHT_HAND)[hand], np.zeros((0, 2), np.float32)
            continue
        spacing = palm / 4
        found = _best_of_cells(strength, spacing)
        found = found[regions.depth(t, hand, found) > 0.02]
        found = _away_from(found, seen, 0.6 * spacing)
        yield (TrackKind.LEFT_HAND, TrackKind.RIGHT_HAND)[hand], found[:POINTS_A_HAND]
    yield TrackKind.MOVING, _away_from(moving, seen, 4.0)
    spacing = float(np.sqrt(height * width / max(budget.total * SHARES[TrackKind.CORNER], 1.0)))
    found = _best_of_cells(strength, spacing)
    found = found[regions.hand_at(t, found, 0.1) == 0]
    yield TrackKind.CORNER, _away_from(found, seen, 4.0)


def corner_map(grey: NDArray[np.uint8]) -> Array:
    """Corner strength of every second pixel."""
    return cv2.cornerMinEigenVal(_half(grey), 5, 3)


def _half(grey: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return cv2.resize(grey, (grey.shape[1] // 2, grey.shape[0] // 2), interpolation=cv2.INTER_AREA)


def _best_of_cells(strength: Array, spacing: float) -> Array:
    """(m, 2) the strongest pixel of every cell of `spacing` px, strongest first, without the image's border."""
    border = _BORDER_PX // 2
    inner = strength[border:-border, border:-border]
    cell = max(2, round(spacing / 2))
    rows, columns = inner.shape[0] // cell, inner.shape[1] // cell
    if rows < 1 or columns < 1:
        return np.zeros((0, 2), np.float32)
    blocks = inner[: rows * cell, : columns * cell].reshape(rows, cell, columns, cell).transpose(0, 2, 1, 3)
    blocks = blocks.reshape(rows * columns, cell * cell)
    best = blocks.argmax(axis=1)
    y, x = np.divmod(np.arange(rows * columns), columns)
    points = 2 * (np.stack([x * cell + best % cell, y * cell + best // cell], -1) + border) + 0.5
    order = np.argsort(-blocks[np.arange(len(best)), best], kind="stable")
    return points[order].astype(np.float32)


def _away_from(points: Array, taken: Array, distance: float) -> Array:
    """Those of (n, 2) points that are farther than `distance` from all (m, 2) others."""
    if not len(points) or not len(taken):
        return points
    x, y = (points[:, None, i] - taken[None, :, i] for i in range(2))
    x *= x
    y *= y
    x += y
    nearest = x.min(axis=1)
    return points[nearest > distance * distance]


def moving_corners(
    before: NDArray[np.uint8], after: NDArray[np.uint8], regions: HandRegions, t: int, motion: SceneMotion
) -> Array:
    """(m, 2) corners of frame `t` (grey `after`) near a hand, not on it, that did not move with the static scene.

    before: grey of the frame before; motion: the static scene's from that frame to `t`.
    """
    none = np.zeros((0, 2), np.float32)
    if not motion.known or not np.isfinite(regions.keypoints[t]).any():
        return none
    corners = _best_of_cells(corner_map(before), max(6.0, float(np.nanmax(regions.palm_px[t])) / 6))
    near = [regions.depth(t, hand, corners) for hand in range(NUM_HANDS)]
    nearest = np.maximum(*near)
    corners = np.ascontiguousarray(corners[(nearest > -NEAR_HAND) & (nearest < -0.1)][:200])
    if not len(corners):
        return none
    guess = motion.moved_points(corners)  # most move so: half the time of a search from the old place
    images = [_half(grey) for grey in (before, after)]
    start, place = (_HALF * (points + _HALF) - _HALF for points in (corners, guess))
    found, ok, _ = cv2.calcOpticalFlowPyrLK(*images, start, place.copy(), maxLevel=2, **_LUCAS_KANADE)
    back, back_ok, _ = cv2.calcOpticalFlowPyrLK(
        *images[::-1], found, found + (start - place), maxLevel=1, **_LUCAS_KANADE
    )
    good = (ok[:, 0] == 1) & (back_ok[:, 0] == 1) & (np.linalg.norm(back - start, axis=1) < _CLOSE_PX)
    found = (found + _HALF) / _HALF - _HALF
    good &= np.linalg.norm(found - guess, axis=1) > MOVING_PX
    height, width = after.shape
    inside = (found >= _BORDER_PX).all(1) & (found < [width - _BORDER_PX, height - _BORDER_PX]).all(1)
    found = found[good & inside]
    outside = np.all([regions.depth(t, hand, found) < -0.1 for hand in range(NUM_HANDS)], axis=0)
    return found[outside]
