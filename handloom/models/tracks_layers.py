"""Where a point should be next by what moves with it: the still scene under the camera's motion, or a hand."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from handloom.geometry.camera_motion import dominant_homography, warp
from handloom.schemas.values import NUM_HANDS, HandPoints

Array = NDArray[np.float32]

STILL, LEFT, RIGHT, OWN = 0, 1, 2, 3
"""What a point moves with: the still scene, a hand, or nothing known."""
_CELLS = (12, 8)
_MAX_MATCHES = 400
MIN_MATCHES = 24
PARALLAX = 0.008
"""Most that nearness adds to the homography in one step, as a share of sqrt(width * height)."""
_ARM_LENGTH, _ARM_HALF = 4.0, 0.5  # palm lengths


@dataclass(frozen=True)
class StillMotion:
    """The still scene's motion of one step: a homography, and what nearness adds to it (parallax), on 12 x 8 cells.

    num: matches it rests on; with too few of them it is the identity and `known` is false.
    """

    homography: NDArray[np.float64]
    parallax_px: Array  # (rows, columns, 2)
    size: Array
    num: int

    @property
    def known(self) -> bool:
        return self.num >= MIN_MATCHES

    def move(self, points: Array) -> Array:
        """(n, 2) to (n, 2)."""
        moved = warp(self.homography, points).astype(np.float32)
        shape = np.array(_CELLS, np.float32)
        at = ((points + 0.5) * (shape / self.size) - 0.5).astype(np.float32)
        inside = np.clip(at, 0, shape - 1)
        more = cv2.remap(self.parallax_px, inside[:, :1], inside[:, 1:], cv2.INTER_LINEAR)
        return moved + more.reshape(-1, 2)

    def stretch(self, points: Array) -> Array:
        """(n, 2, 2) derivative of the homography at the points."""
        h = self.homography
        moved = warp(h, points)
        divisor = h[2, 0] * points[:, 0] + h[2, 1] * points[:, 1] + h[2, 2]
        return ((h[None, :2, :2] - moved[:, :, None] * h[None, None, 2, :2]) / divisor[:, None, None]).astype(
            np.float32
        )


def still_motion(before: Array, after: Array, size: Array) -> StillMotion:
    """From matches (n, 2) of corners outside the hands."""
    chosen = np.linspace(0, len(before) - 1, min(len(before), _MAX_MATCHES)).astype(int)
    blank = np.zeros((_CELLS[1], _CELLS[0], 2), np.float32)
    if len(before) < MIN_MATCHES:
        return StillMotion(np.eye(3), blank, size, 0)
    homography, inliers = dominant_homography(before[chosen], after[chosen], *map(float, size))
    if inliers.sum() < MIN_MATCHES:
        return StillMotion(np.eye(3), blank, size, 0)
    flat = StillMotion(homography, blank, size, int(inliers.sum()))
    excess = after - flat.move(before)
    near = np.linalg.norm(excess, axis=1) < PARALLAX * float(np.sqrt(size[0] * size[1]))
    field = _field(before[near], excess[near], size)
    return StillMotion(homography, field, size, int(near.sum()))


def _field(points: Array, values: Array, size: Array) -> Array:
    """(rows, columns, 2) robust local mean of (n, 2) values at (n, 2) points; 0 far from all of them."""
    cell = np.clip((points + 0.5) * (np.array(_CELLS) / size), 0, np.array(_CELLS) - 1e-3).astype(int)
    flat = cell[:, 1] * _CELLS[0] + cell[:, 0]
    mean = np.zeros((_CELLS[1], _CELLS[0], 2), np.float32)
    for _ in range(2):
        off = np.linalg.norm(values - mean.reshape(-1, 2)[flat], axis=1)
        weight = 1 / (1 + (off / 1.0) ** 2)
        sums = [np.bincount(flat, weight * v, minlength=mean.size // 2) for v in (values[:, 0], values[:, 1], 1.0)]
        stack = np.stack(sums, -1).reshape(_CELLS[1], _CELLS[0], 3).astype(np.float32)
        stack = cv2.GaussianBlur(stack, (0, 0), 0.8, borderType=cv2.BORDER_CONSTANT)
        mean = stack[..., :2] / (stack[..., 2:] + 0.3)
    return mean


@dataclass(frozen=True)
class HandRegions:
    """Both hands in working pixels. keypoints: (T, 2, 21, 2), NaN where not seen. palm_px: (T, 2)."""

    keypoints: Array
    palm_px: Array

    @staticmethod
    def of(hands: HandPoints, scale: Array) -> HandRegions:
        """scale: source over working pixels, x and y."""
        keypoints = ((hands.keypoints_px + np.float32(0.5)) / scale - np.float32(0.5)).astype(np.float32)
        keypoints[~hands.visible] = np.nan
        palm = np.linalg.norm(keypoints[:, :, 9] - keypoints[:, :, 0], axis=-1)
        return HandRegions(keypoints, palm.astype(np.float32))

    def side(self, t: int, points: Array, reach: float) -> NDArray[np.int8]:
        """(n,) STILL, LEFT or RIGHT: the hand whose outline, grown by `reach` palm lengths, a point lies in."""
        out = np.zeros(len(points), np.int8)
        best = np.zeros(len(points), np.float32)
        for hand in range(NUM_HANDS):
            depth = self.depth(t, hand, points) + np.float32(reach)
            mine = (depth > 0) & (depth > best)  # the deeper hand wins where both claim a point
            out[mine], best[mine] = LEFT + hand, depth[mine]
        return out

    def depth(self, t: int, hand: int, points: Array) -> Array:
        """(n,) how far inside a hand's outline, in palm lengths; negative outside, -inf where it is not seen."""
        outline = self.outline(t, hand)
        if outline is None or not self.palm_px[t, hand] > 1:
            return np.full(len(points), -np.inf, np.float32)
        corners = outline[:, 0]
        along = np.roll(corners, -1, axis=0) - corners
        normal = np.stack([-along[:, 1], along[:, 0]], -1)
        normal /= np.maximum(np.linalg.norm(normal, axis=1), 1e-6)[:, None]
        if np.sum(normal[0] * (corners.mean(0) - corners[0])) < 0:
            normal = -normal
        reach = points[:, 0, None] * normal[:, 0] + points[:, 1, None] * normal[:, 1] - np.sum(normal * corners, axis=1)
        return (reach.min(axis=1) / self.palm_px[t, hand]).astype(np.float32)

    def on_arm(self, t: int, points: Array) -> NDArray[np.bool_]:
        """(n,) in the strip behind a wrist in which the forearm lies, as far as it is straight on from the palm."""
        out = np.zeros(len(points), bool)
        for hand in range(NUM_HANDS):
            palm = float(self.palm_px[t, hand])
            if not palm > 1:
                continue
            wrist = self.keypoints[t, hand, 0]
            back = (wrist - self.keypoints[t, hand, 9]) / palm
            offset = (points - wrist) / palm
            along = offset[:, 0] * back[0] + offset[:, 1] * back[1]
            aside = np.abs(offset[:, 0] * back[1] - offset[:, 1] * back[0])
            out |= (along > -0.2) & (along < _ARM_LENGTH) & (aside < _ARM_HALF + 0.15 * along)
        return out

    def outline(self, t: int, hand: int) -> Array | None:
        """(m, 1, 2) convex hull of a hand's keypoints, or None where it is not seen."""
        points = self.keypoints[t, hand]
        return cv2.convexHull(points) if np.isfinite(points).all() else None

    def move(self, t: int, to: int, hand: int, points: Array) -> Array | None:
        """(n, 2) points of frame t in frame `to`, by the hand's nearest keypoints; None where it is not seen."""
        before, after = self.keypoints[t, hand], self.keypoints[to, hand]
        if not (np.isfinite(before).all() and np.isfinite(after).all()):
            return None
        squared = np.sum((points[:, None] - before) ** 2, axis=-1)
        weight = 1 / (squared + (0.15 * self.palm_px[t, hand]) ** 2) ** 2
        weight /= weight.sum(axis=1, keepdims=True)
        return (points + np.sum(weight[..., None] * (after - before), axis=1)).astype(np.float32)

    def turn(self, t: int, to: int, hand: int) -> Array:
        """(2, 2) rotation and scale of a hand's picture from frame t to frame `to`; identity where not seen.

        Source: Umeyama, Least-squares estimation of transformation parameters (PAMI 1991), in the plane.
        """
        before, after = self.keypoints[t, hand], self.keypoints[to, hand]
        if not (np.isfinite(before).all() and np.isfinite(after).all()):
            return np.eye(2, dtype=np.float32)
        b, a = before - before.mean(0), after - after.mean(0)
        total = max(float(np.sum(b * b)), 1e-6)
        c = float(np.sum(b * a)) / total
        s = float(np.sum(b[:, 0] * a[:, 1] - b[:, 1] * a[:, 0])) / total
        return np.array([[c, -s], [s, c]], np.float32)
