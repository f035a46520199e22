"""Hands in the image as surfaces that points move with: the area around the keypoints, its motion, and the forearm."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np
from numpy.typing import NDArray

from handloom.geometry.tracks.hand import BONES
from handloom.schemas.hand_topology import MIDDLE, WRIST
from handloom.schemas.values import NUM_HANDS, HandPoints

Array = NDArray[np.float32]

STATIC, LEFT, RIGHT, INDEPENDENT = 0, 1, 2, 3
"""What a point moves with: the static scene, a hand, or by itself (a moved object)."""
FAR = np.float32(-1.5)
"""Palm lengths; distances from a hand are not told apart beyond this."""
_BONES = BONES[:-1]  # without the web between thumb and palm
# Shares of the palm, in the proportions of `geometry.tracks.hand.RADIUS_M`; chosen by hand, not fitted.
_RADIUS = np.full(len(_BONES), 0.16, np.float32)  # palm lengths; fingers are thinner, the thumb less so
_RADIUS[:16] = 0.10
_RADIUS[:4] = 0.13
_FOREARM_LENGTH, _FOREARM_HALF = 4.0, 0.5  # palm lengths


@lru_cache(maxsize=4)
def _block_centres(columns: int, rows: int, block_px: int) -> Array:
    """(columns * rows, 2) centres of blocks, row by row."""
    blocks = np.stack(np.meshgrid(np.arange(columns), np.arange(rows)), -1).reshape(-1, 2).astype(np.float32)
    return (blocks + np.float32(0.5)) * block_px


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
        palm = np.linalg.norm(keypoints[:, :, MIDDLE[0]] - keypoints[:, :, WRIST], axis=-1)
        return HandRegions(keypoints, palm.astype(np.float32))

    def hand_at(self, t: int, points: Array, reach: float) -> NDArray[np.int8]:
        """(n,) STATIC, LEFT or RIGHT: the hand in whose area, grown by `reach` palm lengths, a point lies."""
        out = np.zeros(len(points), np.int8)
        best = np.zeros(len(points), np.float32)
        for hand in range(NUM_HANDS):
            depth = self.depth(t, hand, points) + np.float32(reach)
            mine = (depth > 0) & (depth > best)  # where the hands overlap, the one in which the point is deeper
            out[mine], best[mine] = LEFT + hand, depth[mine]
        return out

    def depth(self, t: int, hand: int, points: Array) -> Array:
        """(n,) depth of points in a hand, palm lengths; negative outside (at least FAR), -inf if it is not visible."""
        palm = float(self.palm_px[t, hand])
        if not palm > 1 or not len(points):
            return np.full(len(points), -np.inf, np.float32)
        low, high, a_x, a_y, along_x, along_y, length = (part[t, hand] for part in self._bones)
        x, y = points[:, 0] / np.float32(palm), points[:, 1] / np.float32(palm)
        out = np.full(len(points), FAR, np.float32)
        near = np.flatnonzero((x > low[0]) & (x < high[0]) & (y > low[1]) & (y < high[1]))
        if not len(near):
            return out
        x, y = x[near, None] - a_x, y[near, None] - a_y
        share = x * along_x
        share += y * along_y
        share /= length
        np.maximum(share, 0, out=share)
        np.minimum(share, 1, out=share)
        x -= share * along_x
        y -= share * along_y
        x *= x
        y *= y
        x += y
        out[near] = np.maximum((_RADIUS - np.sqrt(x, out=x)).max(axis=1), FAR)
        return out

    @cached_property
    def _bones(self) -> tuple[Array, ...]:
        """Of both hands in all frames, in palm lengths: the corners of their boxes grown by FAR, (T, 2, 2); x and y of
        the bones' starts and of their vectors, and the squared lengths of these, (T, 2, 23)."""
        keypoints = self.keypoints / np.maximum(self.palm_px, 1)[..., None, None]
        a = keypoints[:, :, _BONES[:, 0]]
        along = keypoints[:, :, _BONES[:, 1]] - a
        length = np.maximum(np.sum(along * along, axis=-1), np.float32(1e-6))
        box = keypoints.min(axis=2) + FAR, keypoints.max(axis=2) - FAR
        return (*box, *(np.ascontiguousarray(part[..., i]) for part in (a, along) for i in range(2)), length)

    def same_surface(self, t: int, points: Array, offsets: Array) -> Array:
        """(n, k) 1 where samples at (k, 2) offsets from (n, 2) points are on the hand as their point is, or off it;
        else 0.

        If fewer than half of a point's samples are, all are 1: the keypoints are not exact enough to decide.
        """
        out = np.ones((len(points), len(offsets)), np.float32)
        for hand in range(NUM_HANDS):
            if not self.palm_px[t, hand] > 1:
                continue
            own = self.depth(t, hand, points)
            near = np.flatnonzero(own * self.palm_px[t, hand] > -np.abs(offsets).max() * 1.5)
            if len(near):
                around = (points[near, None] + offsets).reshape(-1, 2)
                other = self.depth(t, hand, around).reshape(len(near), -1)
                out[near] *= (other > 0) == (own[near, None] > 0)
        out[out.sum(axis=1) < 0.5 * len(offsets)] = 1
        return out

    def free_blocks(self, t: int, size: Array, block_px: int, reach: float) -> NDArray[np.bool_]:
        """(h / block, w / block) blocks of the image that are at least `reach` palm lengths from the hands, and not on
        a forearm."""
        columns, rows = (int(n) // block_px for n in size)
        centres = _block_centres(columns, rows, block_px)
        return ((self.hand_at(t, centres, reach) == STATIC) & ~self.on_forearm(t, centres)).reshape(rows, columns)

    def on_forearm(self, t: int, points: Array) -> NDArray[np.bool_]:
        """(n,) whether points are in the strip behind a wrist where a forearm lies that continues the palm."""
        out = np.zeros(len(points), bool)
        for hand in range(NUM_HANDS):
            palm = float(self.palm_px[t, hand])
            if not palm > 1:
                continue
            wrist = self.keypoints[t, hand, WRIST]
            back = (wrist - self.keypoints[t, hand, MIDDLE[0]]) / palm
            offset = (points - wrist) / palm
            along = offset[:, 0] * back[0] + offset[:, 1] * back[1]
            aside = np.abs(offset[:, 0] * back[1] - offset[:, 1] * back[0])
            out |= (along > -0.2) & (along < _FOREARM_LENGTH) & (aside < _FOREARM_HALF + 0.15 * along)
        return out

    def moved_points(self, t: int, to: int, hand: int, points: Array) -> Array | None:
        """(n, 2) points of frame t moved to frame `to` with the nearest keypoints; None if the hand is not visible."""
        before, after = self.keypoints[t, hand], self.keypoints[to, hand]
        if not (np.isfinite(before).all() and np.isfinite(after).all()):
            return None
        squared = np.sum((points[:, None] - before) ** 2, axis=-1)
        weight = 1 / (squared + (0.15 * self.palm_px[t, hand]) ** 2 + 1e-3) ** 2
        weight /= weight.sum(axis=1, keepdims=True)
        return (points + np.sum(weight[..., None] * (after - before), axis=1)).astype(np.float32)

    def rotation_scale(self, t: int, to: int, hand: int) -> Array:
        """(2, 2) rotation and scale of a hand's image from frame t to frame `to`; identity if it is not visible.

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
