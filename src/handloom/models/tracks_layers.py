"""Where points of the still scene go under the camera's motion: a homography, and what nearness adds to it."""

from __future__ import annotations

from dataclasses import dataclass, replace

import cv2
import numpy as np
from numpy.typing import NDArray

from handloom.geometry.camera_motion import dominant_homography, warp

Array = NDArray[np.float32]

_CELLS = (12, 8)
_MAX_MATCHES = 400
MIN_MATCHES = 24
PARALLAX = 0.008
"""Most that nearness adds to the homography in one step, as a share of sqrt(width * height)."""


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
        return warp(self.homography, points).astype(np.float32) + self._read(self.parallax_px, points)

    def _read(self, cells: Array, points: Array) -> Array:
        if not len(points):
            return np.zeros((0, cells[0, 0].size), np.float32)
        shape = np.array(_CELLS, np.float32)
        at = np.clip((points + 0.5) * (shape / self.size) - 0.5, 0, shape - 1).astype(np.float32)
        return cv2.remap(cells, at[:, :1], at[:, 1:], cv2.INTER_LINEAR).reshape(len(points), -1)

    def bent(self, before: Array, after: Array) -> StillMotion:
        """The same homography with the parallax of other matches (n, 2); those far off it do not count."""
        if not self.known or not len(before):
            return self
        excess = after - warp(self.homography, before).astype(np.float32)
        near = np.linalg.norm(excess, axis=1) < PARALLAX * float(np.sqrt(self.size[0] * self.size[1]))
        return replace(self, parallax_px=_field(before[near], excess[near], self.size))

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
    blank = np.zeros((_CELLS[1], _CELLS[0], 2), np.float32)
    unknown = StillMotion(np.eye(3), blank, size, 0)
    if len(before) < MIN_MATCHES:
        return unknown
    chosen = np.linspace(0, len(before) - 1, min(len(before), _MAX_MATCHES)).astype(int)
    homography, inliers = dominant_homography(before[chosen], after[chosen], *map(float, size))
    if inliers.sum() < MIN_MATCHES:
        return unknown
    return replace(unknown, homography=homography, num=int(inliers.sum())).bent(before, after)


def cell_of(points: Array, size: Array) -> NDArray[np.int64]:
    """(n,) number of the cell that a point lies in."""
    cell = np.clip((points + 0.5) * (np.array(_CELLS) / size), 0, np.array(_CELLS) - 1e-3).astype(int)
    return cell[:, 1] * _CELLS[0] + cell[:, 0]


def _field(points: Array, values: Array, size: Array) -> Array:
    """Robust local mean (rows, columns, 2) of (n, 2) values at (n, 2) points, 0 far from all."""
    flat = cell_of(points, size)
    mean = np.zeros((_CELLS[1], _CELLS[0], 2), np.float32)
    for _ in range(2):
        off = np.linalg.norm(values - mean.reshape(-1, 2)[flat], axis=1)
        weight = 1 / (1 + (off / 1.0) ** 2)
        sums = [np.bincount(flat, weight * v, minlength=mean.size // 2) for v in (values[:, 0], values[:, 1], 1.0)]
        stack = np.stack(sums, -1).reshape(_CELLS[1], _CELLS[0], 3).astype(np.float32)
        stack = cv2.GaussianBlur(stack, (0, 0), 0.8, borderType=cv2.BORDER_CONSTANT)
        mean = stack[..., :2] / (stack[..., 2:] + 0.3)
    return mean
