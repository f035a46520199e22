"""The static scene's motion in a real clip's images, independent of the tracker and the camera path that are judged.

One homography from every frame to the next, of corners outside hands and forearms. It gives the expected place of a
lost point. Pixels of the source; T frames.
"""

from __future__ import annotations

from collections.abc import Iterable

import cv2
import numpy as np
from numpy.typing import NDArray

from handloom.schemas.hand_topology import INDEX, KNUCKLES, LITTLE, MIDDLE, WRIST

Floats = NDArray[np.floating]
Bools = NDArray[np.bool_]

_MARGIN_PALMS = 0.4  # around a hand's keypoints: skin, and what the hand holds
_CORNERS, _BACK_PX, _RANSAC_PX = 400, 0.7, 1.5  # of an image about 256 high
_MIN_INLIERS, _MIN_SHARE, _WIDE = 12, 0.35, 0.2  # of corners; share of the image they must span for a full homography
_REST_LEVELS, _REST_PX = 2.5, 0.3
_ALIKE_LEVELS = 6.0
_RATIO = 0.75  # of the nearest to the second nearest descriptor


def hand_polygons(keypoints_px: Floats, size: tuple[int, int]) -> list[NDArray[np.int32]]:
    """Polygons of hands (H, 21, 2) and of their forearms to the image's border; none for a hand that is NaN."""
    reach = 2.0 * max(size)
    out = []
    for hand in np.asarray(keypoints_px, float):
        if not np.isfinite(hand).all():
            continue
        length = float(np.linalg.norm(hand[MIDDLE[0]] - hand[WRIST]))
        palm = max(float(np.linalg.norm(hand[INDEX[0]] - hand[LITTLE[0]])), 0.6 * length, 1.0)
        out.append(_grown(hand, _MARGIN_PALMS * palm))
        along = hand[WRIST] - hand[list(KNUCKLES)].mean(axis=0)
        along = along / max(float(np.linalg.norm(along)), 1e-6)
        aside = np.array([-along[1], along[0]]) * 0.6 * palm
        end = hand[WRIST] + reach * along
        arm = np.stack([hand[WRIST] + aside, end + 1.5 * aside, end - 1.5 * aside, hand[WRIST] - aside])
        out.append(np.rint(arm.clip(-1e5, 1e5)).astype(np.int32))
    return out


def _grown(hand: Floats, by_px: float) -> NDArray[np.int32]:
    """The convex hull of points, grown by `by_px`."""
    circle = by_px * np.stack([np.cos(a := np.linspace(0, 2 * np.pi, 12, endpoint=False)), np.sin(a)], axis=1)
    around = (hand[:, None] + circle).reshape(-1, 2).clip(-1e5, 1e5).astype(np.float32)
    return np.rint(cv2.convexHull(around)[:, 0]).astype(np.int32)


def under_hands(points_px: Floats, keypoints_px: Floats, size: tuple[int, int]) -> Bools:
    """Which points (N, 2) are on a hand or forearm in any of the frames (F, H, 21, 2)."""
    out = np.zeros(len(points_px), bool)
    known = np.isfinite(points_px).all(axis=1)
    inside = known & (np.abs(np.nan_to_num(points_px)) < 1e5).all(axis=1)
    for hands in keypoints_px:
        for polygon in hand_polygons(hands, size):
            for n in np.flatnonzero(inside & ~out):
                x, y = points_px[n].tolist()
                out[n] = cv2.pointPolygonTest(polygon, (x, y), False) >= 0
    return out


def scene_homographies(images: Iterable[NDArray[np.uint8]], keypoints_px: Floats, size: tuple[int, int]) -> Floats:
    """(T - 1, 3, 3): homographies from source pixels of a frame to those of the next, NaN where there is none.

    images: (h, w) grey, all of one size, of any resolution; keypoints_px: (T, H, 21, 2), source pixels.
    """
    out: list[Floats] = []
    last: tuple[NDArray[np.uint8], NDArray[np.uint8]] | None = None
    for t, grey in enumerate(images):
        height, width = grey.shape
        scale = np.array([width / size[0], height / size[1]])
        small_from_source = np.array([[scale[0], 0, scale[0] / 2 - 0.5], [0, scale[1], scale[1] / 2 - 0.5], [0, 0, 1]])
        now = np.full(grey.shape, 255, np.uint8)
        for polygon in hand_polygons(keypoints_px[t], size):
            cv2.fillPoly(now, [np.rint(polygon * scale).astype(np.int32)], 0)
        if last is not None:
            before, mask = last
            step = _step(before, grey, mask & now)
            out.append(np.linalg.inv(small_from_source) @ step @ small_from_source)
        last = grey, now
    return np.array(out).reshape(-1, 3, 3)


def moved_points(points_px: Floats, steps: Floats) -> Floats:
    """Points (N, 2) moved by homographies (S, 3, 3), one after another; NaN once a homography is unknown."""
    out = np.concatenate([points_px, np.ones((len(points_px), 1))], axis=1)
    for step in steps:
        out = out @ step.T
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(out[:, 2:] > 1e-6, out[:, :2] / out[:, 2:], np.nan)


def _step(before: NDArray[np.uint8], now: NDArray[np.uint8], mask: NDArray[np.uint8]) -> Floats:
    """The homography from `before` to `now`, by the pixels inside both masks."""
    open_ = mask > 0
    if not open_.any():
        return np.full((3, 3), np.nan)
    soft = [cv2.GaussianBlur(image, (0, 0), 2.0).astype(np.float32) for image in (before, now)]
    changed = float(np.abs(soft[0] - soft[1])[open_].mean())
    start, end = _matches(before, now, mask)
    shift = float(np.median(np.linalg.norm(end - start, axis=1))) if len(start) else 0.0
    if changed < _REST_LEVELS and shift < _REST_PX:
        return np.eye(3)
    found = _fit_homography(start, end, before.shape)
    if found is None:  # a fast turn
        found = _fit_homography(*_sift_matches(before, now, mask), before.shape)
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


def _sift_matches(before: NDArray[np.uint8], now: NDArray[np.uint8], mask: NDArray[np.uint8]) -> tuple[Floats, Floats]:
    """As `_matches`, by SIFT descriptors, for any displacement."""
    finder = cv2.SIFT_create(nfeatures=600, contrastThreshold=0.02)
    (points, words), (others, other_words) = (finder.detectAndCompute(image, mask) for image in (before, now))
    if words is None or other_words is None or len(others) < 2:
        return np.empty((0, 2)), np.empty((0, 2))
    pairs = cv2.BFMatcher().knnMatch(words, other_words, k=2)
    good = [pair[0] for pair in pairs if len(pair) == 2 and pair[0].distance < _RATIO * pair[1].distance]
    start, end = [points[one.queryIdx].pt for one in good], [others[one.trainIdx].pt for one in good]
    return np.reshape(start, (-1, 2)), np.reshape(end, (-1, 2))


def _fit_homography(start: Floats, end: Floats, shape: tuple[int, ...]) -> Floats | None:
    """A homography if the corners span enough of the image, else a similarity; None if neither fits."""
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
