"""Where points of the still scene go under the camera's motion: a homography, and what nearness adds to it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property, lru_cache

import cv2
import numpy as np
from numpy.typing import NDArray

from handloom.geometry.camera.motion import dominant_homography, warp
from handloom.models.tracks.align import covariance_of, homography_px, tangents

Array = NDArray[np.float32]

_CELLS = (12, 8)
_MAX_MATCHES = 400
_MIDDLES = np.stack(np.meshgrid(*(np.arange(n, dtype=np.float32) + np.float32(0.5) for n in _CELLS)), -1).reshape(-1, 2)
MIN_MATCHES = 24
PARALLAX = 0.008
"""Most that nearness adds to the homography in one step, as a share of sqrt(width * height)."""
_MATCH_PX = 0.15
"""Standard deviation of a match, at least."""
_FAR_PX = 0.05
"""Least standard deviation of what nearness adds where no match is near."""
AGAIN = 2.0
"""What is nearer than its neighbours misses them the same way in several steps; chosen on four rendered scenes."""
KNOWN = 0.008
"""A motion that is less sure than this, as a share of sqrt(width * height), is not known; 3.8 px at 640 x 360."""


@dataclass(frozen=True)
class StillMotion:
    """The still scene's motion of one step: a homography, and what nearness adds to it (parallax), on 12 x 8 cells.

    covariance: (8, 8) of the homography, by `tracks_align.tangents`. off_px: (rows, columns) standard deviation of what
    the cells miss. typical_px: how far off the homography is in the middle of the cells, in the median. With too little
    to tell it the homography is the identity and `known` is false.
    """

    homography: NDArray[np.float64]
    covariance: NDArray[np.float64]
    parallax_px: Array  # (rows, columns, 2)
    off_px: Array  # (rows, columns)
    size: Array
    typical_px: float

    @staticmethod
    def of(homography: NDArray[np.float64], covariance: NDArray[np.float64], size: Array) -> StillMotion:
        blank = np.zeros((_CELLS[1], _CELLS[0], 3), np.float32)
        typical = float(np.median(homography_px(covariance, _middles(*size.tolist()), size)))
        return StillMotion(homography, covariance, blank[..., :2], blank[..., 2] + _FAR_PX, size, typical)

    @cached_property
    def known(self) -> bool:
        return self.typical_px < KNOWN * float(np.sqrt(np.prod(self.size)))

    @cached_property
    def shift_px(self) -> float:
        """How far the homography moves the middles of the cells, in the median."""
        middles = _middles(*self.size.tolist())
        return float(np.median(np.linalg.norm(warp(self.homography, middles) - middles, axis=1)))

    def step_px(self, points: Array) -> Array:
        """(n,) standard deviation of x and of y of where (n, 2) points go."""
        off = self._read(self.off_px, points)[:, 0]
        return np.sqrt(homography_px(self.covariance, points, self.size) ** 2 + (AGAIN * off) ** 2).astype(np.float32)

    def move(self, points: Array) -> Array:
        """(n, 2) to (n, 2)."""
        return warp(self.homography, points).astype(np.float32) + self._read(self.parallax_px, points)

    def _read(self, cells: Array, points: Array) -> Array:
        if not len(points):
            return np.zeros((0, cells[0, 0].size), np.float32)
        shape = np.array(_CELLS, np.float32)
        at = np.maximum(np.minimum((points + 0.5) * (shape / self.size) - 0.5, shape - 1), 0).astype(np.float32)
        return cv2.remap(cells, at[:, :1], at[:, 1:], cv2.INTER_LINEAR).reshape(len(points), -1)

    def bent(self, before: Array, after: Array) -> StillMotion:
        """The same homography with the parallax of other matches (n, 2); those far off it do not count."""
        if not self.known or not len(before):
            return self
        excess = after - warp(self.homography, before).astype(np.float32)
        near = np.linalg.norm(excess, axis=1) < PARALLAX * float(np.sqrt(self.size[0] * self.size[1]))
        parallax, off = _field(before[near], excess[near], self.size)
        return replace(self, parallax_px=parallax, off_px=off)

    def back(self) -> StillMotion:
        """The way back, as sure as the way there; without parallax."""
        homography = np.linalg.inv(self.homography)
        return StillMotion.of(homography / homography[2, 2], self.covariance, self.size)

    def stretch(self, points: Array) -> Array:
        """(n, 2, 2) derivative of the homography at the points."""
        h = self.homography
        moved = warp(h, points)
        divisor = h[2, 0] * points[:, 0] + h[2, 1] * points[:, 1] + h[2, 2]
        return ((h[None, :2, :2] - moved[:, :, None] * h[None, None, 2, :2]) / divisor[:, None, None]).astype(
            np.float32
        )


@lru_cache(maxsize=8)
def _middles(width: float, height: float) -> Array:
    """(n, 2) of the cells, in a picture of this size."""
    return _MIDDLES * (np.array([width, height], np.float32) / np.float32(_CELLS))


def still_motion(before: Array, after: Array, size: Array) -> StillMotion:
    """From matches (n, 2) of corners outside the hands; the identity, and not known, where they are too few."""
    if len(before) < MIN_MATCHES:
        return _unknown(size)
    chosen = np.linspace(0, len(before) - 1, min(len(before), _MAX_MATCHES)).astype(int)
    homography, inliers = dominant_homography(before[chosen], after[chosen], *map(float, size))
    if inliers.sum() < MIN_MATCHES:
        return _unknown(size)
    voters = chosen[inliers]
    off = warp(homography, before[voters]) - after[voters]
    variance = max(_MATCH_PX**2, float((off**2).sum() / max(2 * len(off) - 8, 1)))
    along, down = tangents(before[voters], size)
    information = np.einsum("ni,nj->ij", along, along) + np.einsum("ni,nj->ij", down, down)
    return StillMotion.of(homography, covariance_of(information, variance, size), size).bent(before, after)


def _unknown(size: Array) -> StillMotion:
    return StillMotion.of(np.eye(3), covariance_of(np.zeros((8, 8)), 1.0, size), size)


def cell_of(points: Array, size: Array) -> NDArray[np.int64]:
    """(n,) number of the cell that a point lies in."""
    cell = np.maximum(np.minimum((points + 0.5) * (np.array(_CELLS) / size), np.array(_CELLS) - 1e-3), 0).astype(int)
    return cell[:, 1] * _CELLS[0] + cell[:, 0]


def cells_of(points: Array, size: Array) -> float:
    """Share of the cells that hold a point."""
    return len(np.unique(cell_of(points, size))) / len(_MIDDLES)


def _field(points: Array, values: Array, size: Array) -> tuple[Array, Array]:
    """Robust local mean (rows, columns, 2) of (n, 2) values at (n, 2) points, 0 far from all; and (rows, columns), the
    standard deviation of x and of y about it: where no value is near, that of 0."""
    flat = cell_of(points, size)
    mean = np.zeros((_CELLS[1], _CELLS[0], 2), np.float32)
    for _ in range(2):
        off = values - mean.reshape(-1, 2)[flat]
        off = off[:, 0] ** 2 + off[:, 1] ** 2
        weight = 1 / (1 + off)
        sums = [
            np.bincount(flat, weight * v, minlength=mean.size // 2) for v in (values[:, 0], values[:, 1], off / 2, 1.0)
        ]
        stack = np.stack(sums, -1).reshape(_CELLS[1], _CELLS[0], 4).astype(np.float32)
        stack = cv2.GaussianBlur(stack, (0, 0), 0.8, borderType=cv2.BORDER_CONSTANT)
        mean = stack[..., :2] / (stack[..., 3:] + 0.3)
    far = _FAR_PX**2 + (float((mean**2).sum(-1).mean()) / 2 if len(values) else 0.0)
    return mean, np.sqrt((stack[..., 2] + 0.3 * far) / (stack[..., 3] + 0.3))
