"""How the still scene moves over a real clip's pictures, told without the tracker or the camera path that are judged.

From every frame to the next one homography, of corners outside hands and forearms; it is what says where a point that
was lost should be. Pixels of the source; T frames.
"""

from __future__ import annotations

from collections.abc import Iterable

import cv2
import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating]
Bools = NDArray[np.bool_]

WRIST, KNUCKLES, INDEX_BASE, LITTLE_BASE, MIDDLE_BASE = 0, (5, 9, 13, 17), 5, 17, 9
_MARGIN_PALMS = 0.4  # around a hand: flesh beside the keypoints, and what the hand holds
_CORNERS, _BACK_PX, _RANSAC_PX = 400, 0.7, 1.5  # of a picture about 256 high
_MIN_INLIERS, _MIN_SHARE, _WIDE = 12, 0.35, 0.2  # of corners; of the picture that they span for a whole homography
_REST_LEVELS, _REST_PX = 2.5, 0.3
_ALIKE_LEVELS = 6.0
_RATIO = 0.75  # of the nearest to the second nearest descriptor


def hand_regions(keypoints_px: Floats, size: tuple[int, int]) -> list[NDArray[np.int32]]:
    """Polygons of hands (H, 21, 2) and of their forearms to the picture's border; a hand that is NaN has none."""
    reach = 2.0 * max(size)
    out = []
    for hand in np.asarray(keypoints_px, float):
        if not np.isfinite(hand).all():
            continue
        length = np.linalg.norm(hand[MIDDLE_BASE] - hand[WRIST])
        palm = max(np.linalg.norm(hand[INDEX_BASE] - hand[LITTLE_BASE]), 0.6 * length, 1.0)
        out.append(_grown(hand, _MARGIN_PALMS * palm))
        along = hand[WRIST] - hand[list(KNUCKLES)].mean(axis=0)
        along = along / max(np.linalg.norm(along), 1e-6)
        aside = np.array([-along[1], along[0]]) * 0.6 * palm
        end = hand[WRIST] + reach * along
        arm = np.stack([hand[WRIST] + aside, end + 1.5 * aside, end - 1.5 * aside, hand[WRIST] - aside])
        out.append(np.rint(arm.clip(-1e5, 1e5)).astype(np.int32))
    return out


def _grown(hand: Floats, by_px: float) -> NDArray[np.int32]:
    """The hull of points, `by_px` wider all around."""
    circle = by_px * np.stack([np.cos(a := np.linspace(0, 2 * np.pi, 12, endpoint=False)), np.sin(a)], axis=1)
    around = (hand[:, None] + circle).reshape(-1, 2).clip(-1e5, 1e5).astype(np.float32)
    return np.rint(cv2.convexHull(around)[:, 0]).astype(np.int32)


def under_hands(points_px: Floats, keypoints_px: Floats, size: tuple[int, int]) -> Bools:
    """Which of points (N, 2) lie on the hands and forearms of frames (F, H, 21, 2), in any of them."""
    out = np.zeros(len(points_px), bool)
    known = np.isfinite(points_px).all(axis=1)
    inside = known & (np.abs(np.nan_to_num(points_px)) < 1e5).all(axis=1)
    for hands in keypoints_px:
        for polygon in hand_regions(hands, size):
            for n in np.flatnonzero(inside & ~out):
                x, y = points_px[n].tolist()
                out[n] = cv2.pointPolygonTest(polygon, (x, y), False) >= 0
    return out


def still_steps(pictures: Iterable[NDArray[np.uint8]], keypoints_px: Floats, size: tuple[int, int]) -> Floats:
    """(T - 1, 3, 3): homographies of source pixels of a frame to those of the next, NaN where it cannot be said.

    pictures: (h, w) grey, all of one size, of any resolution; keypoints_px: (T, H, 21, 2), source pixels.
    """
    out: list[Floats] = []
    before, mask, small_from_source = None, None, np.eye(3)
    for t, grey in enumerate(pictures):
        height, width = grey.shape
        scale = np.array([width / size[0], height / size[1]])
        small_from_source = np.array([[scale[0], 0, scale[0] / 2 - 0.5], [0, scale[1], scale[1] / 2 - 0.5], [0, 0, 1]])
        now = np.full(grey.shape, 255, np.uint8)
        for polygon in hand_regions(keypoints_px[t], size):
            cv2.fillPoly(now, [np.rint(polygon * scale).astype(np.int32)], 0)
        if before is not None:
            step = _step(before, grey, mask & now)
            out.append(np.linalg.inv(small_from_source) @ step @ small_from_source)
        before, mask = grey, now
    return np.array(out).reshape(-1, 3, 3)


def carried(points_px: Floats, steps: Floats) -> Floats:
    """Points (N, 2) after homographies (S, 3, 3), one after another; NaN once they leave what can be said."""
    out = np.concatenate([points_px, np.ones((len(points_px), 1))], axis=1)
    for step in steps:
        out = out @ step.T
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(out[:, 2:] > 1e-6, out[:, :2] / out[:, 2:], np.nan)


def _step(before: NDArray[np.uint8], now: NDArray[np.uint8], mask: NDArray[np.uint8]) -> Floats:
    """Pixels of `before` to those of `now`, by what lies within the mask of both."""
    open_ = mask > 0
    if not open_.any():
        return np.full((3, 3), np.nan)
    soft = [cv2.GaussianBlur(picture, (0, 0), 2.0).astype(np.float32) for picture in (before, now)]
    changed = float(np.abs(soft[0] - soft[1])[open_].mean())
    start, end = _matches(before, now, mask)
    shift = float(np.median(np.linalg.norm(end - start, axis=1))) if len(start) else 0.0
    if changed < _REST_LEVELS and shift < _REST_PX:
        return np.eye(3)
    found = _fitted(start, end, before.shape)
    if found is None:  # a fast turn
        found = _fitted(*_described(before, now, mask), before.shape)
    if found is None:
        return np.eye(3) if changed < _ALIKE_LEVELS and shift < 2 * _REST_PX else np.full((3, 3), np.nan)
    return found


def _matches(before: NDArray[np.uint8], now: NDArray[np.uint8], mask: NDArray[np.uint8]) -> tuple[Floats, Floats]:
    corners = cv2.goodFeaturesToTrack(before, _CORNERS, 0.005, 6, mask=mask)
    if corners is None:
        return np.empty((0, 2)), np.empty((0, 2))
    options = {"winSize": (15, 15), "maxLevel": 4}
    there, ok, _ = cv2.calcOpticalFlowPyrLK(before, now, corners, None, **options)
    back, ok_back, _ = cv2.calcOpticalFlowPyrLK(now, before, there, None, **options)
    good = (ok[:, 0] == 1) & (ok_back[:, 0] == 1)
    good &= np.linalg.norm((back - corners)[:, 0], axis=1) < _BACK_PX
    return corners[good, 0].astype(float), there[good, 0].astype(float)


def _described(before: NDArray[np.uint8], now: NDArray[np.uint8], mask: NDArray[np.uint8]) -> tuple[Floats, Floats]:
    """As `_matches`, by what corners look like, however far they went."""
    finder = cv2.SIFT_create(nfeatures=600, contrastThreshold=0.02)
    (points, words), (others, other_words) = (finder.detectAndCompute(picture, mask) for picture in (before, now))
    if words is None or other_words is None or len(others) < 2:
        return np.empty((0, 2)), np.empty((0, 2))
    pairs = cv2.BFMatcher().knnMatch(words, other_words, k=2)
    good = [pair[0] for pair in pairs if len(pair) == 2 and pair[0].distance < _RATIO * pair[1].distance]
    start, end = [points[one.queryIdx].pt for one in good], [others[one.trainIdx].pt for one in good]
    return np.reshape(start, (-1, 2)), np.reshape(end, (-1, 2))


def _fitted(start: Floats, end: Floats, shape: tuple[int, ...]) -> Floats | None:
    """A homography where the corners span enough of the picture, else a similarity; None where neither holds."""
    if len(start) < _MIN_INLIERS:
        return None
    spread = np.prod(np.ptp(start, axis=0)) / (shape[0] * shape[1])
    if spread > _WIDE:
        found, inliers = cv2.findHomography(start, end, cv2.RANSAC, _RANSAC_PX, maxIters=500, confidence=0.999)
    else:
        found, inliers = cv2.estimateAffinePartial2D(start, end, method=cv2.RANSAC, ransacReprojThreshold=_RANSAC_PX)
        found = None if found is None else np.concatenate([found, [[0, 0, 1]]])
    enough = found is not None and inliers.sum() >= max(_MIN_INLIERS, _MIN_SHARE * len(start))
    return found if enough else None
