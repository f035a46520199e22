"""The motion of the static scene in the image under the camera's motion: a homography plus parallax."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property, lru_cache

import cv2
import numpy as np
from numpy.typing import NDArray

from handloom.geometry.camera.motion import dominant_homography, warp
from handloom.models.tracks.alignment import covariance_of, homography_jacobian, homography_sigma_px

Array = NDArray[np.float32]

_CELLS = (12, 8)
_MAX_MATCHES = 400
_MIDDLES = np.stack(np.meshgrid(*(np.arange(n, dtype=np.float32) + np.float32(0.5) for n in _CELLS)), -1).reshape(-1, 2)
MIN_MATCHES = 24
MAX_PARALLAX = 0.008
"""Largest parallax in one step, as a share of sqrt(width * height)."""
_MIN_MATCH_PX = 0.15
"""Least standard deviation of a match."""
_MIN_RESIDUAL_PX = 0.05
"""Least standard deviation of the parallax where no match is near."""
REPEATED_RESIDUAL = 2.0
"""Factor on the cells' residual: what is nearer than its neighbours departs from them in the same way in several steps.
Chosen on four rendered scenes."""
MAX_SIGMA = 0.008
"""A motion of a larger standard deviation is not known; a share of sqrt(width * height), 3.8 px at 640 x 360."""


@dataclass(frozen=True)
class SceneMotion:
    """The static scene's motion of one step: a homography, and parallax (what nearness adds) on 12 x 8 cells.

    covariance: (8, 8) of the homography's parameters (`alignment.homography_jacobian`). residual_px: (rows, columns)
    standard deviation of what is left beside the cells' parallax. median_sigma_px: standard deviation of the homography
    at the cells' centres, median over cells. With too few matches the homography is the identity and `known` is false.
    """

    homography: NDArray[np.float64]
    covariance: NDArray[np.float64]
    parallax_px: Array  # (rows, columns, 2)
    residual_px: Array  # (rows, columns)
    size: Array
    median_sigma_px: float

    @staticmethod
    def of(homography: NDArray[np.float64], covariance: NDArray[np.float64], size: Array) -> SceneMotion:
        blank = np.zeros((_CELLS[1], _CELLS[0], 3), np.float32)
        typical = float(np.median(homography_sigma_px(covariance, _middles(*size.tolist()), size)))
        return SceneMotion(homography, covariance, blank[..., :2], blank[..., 2] + _MIN_RESIDUAL_PX, size, typical)

    @cached_property
    def known(self) -> bool:
        return self.median_sigma_px < MAX_SIGMA * float(np.sqrt(np.prod(self.size)))

    @cached_property
    def shift_px(self) -> float:
        """How far the homography moves the cells' centres: the median."""
        middles = _middles(*self.size.tolist())
        return float(np.median(np.linalg.norm(warp(self.homography, middles) - middles, axis=1)))

    def sigma_px(self, points: Array) -> Array:
        """(n,) standard deviation, per axis, of the moved places of (n, 2) points."""
        off = self._sample(self.residual_px, points)[:, 0]
        sigma = homography_sigma_px(self.covariance, points, self.size)
        return np.sqrt(sigma**2 + (REPEATED_RESIDUAL * off) ** 2).astype(np.float32)

    def moved_points(self, points: Array) -> Array:
        """(n, 2) points to their places after the step."""
        return warp(self.homography, points).astype(np.float32) + self._sample(self.parallax_px, points)

    def _sample(self, cells: Array, points: Array) -> Array:
        if not len(points):
            return np.zeros((0, cells[0, 0].size), np.float32)
        shape = np.array(_CELLS, np.float32)
        at = np.maximum(np.minimum((points + 0.5) * (shape / self.size) - 0.5, shape - 1), 0).astype(np.float32)
        return cv2.remap(cells, at[:, :1], at[:, 1:], cv2.INTER_LINEAR).reshape(len(points), -1)

    def with_parallax(self, before: Array, after: Array) -> SceneMotion:
        """The same homography with the parallax of other matches (n, 2), without those that are too large."""
        if not self.known or not len(before):
            return self
        excess = after - warp(self.homography, before).astype(np.float32)
        near = np.linalg.norm(excess, axis=1) < MAX_PARALLAX * float(np.sqrt(self.size[0] * self.size[1]))
        parallax, off = _local_mean(before[near], excess[near], self.size)
        return replace(self, parallax_px=parallax, residual_px=off)

    def back(self) -> SceneMotion:
        """The inverse motion, of the same covariance, without parallax."""
        homography = np.linalg.inv(self.homography)
        return SceneMotion.of(homography / homography[2, 2], self.covariance, self.size)

    def jacobian_at(self, points: Array) -> Array:
        """(n, 2, 2) Jacobian of the homography at the points."""
        h = self.homography
        moved = warp(h, points)
        divisor = h[2, 0] * points[:, 0] + h[2, 1] * points[:, 1] + h[2, 2]
        return ((h[None, :2, :2] - moved[:, :, None] * h[None, None, 2, :2]) / divisor[:, None, None]).astype(
            np.float32
        )


@lru_cache(maxsize=8)
def _middles(width: float, height: float) -> Array:
    """(n, 2) centres of the cells in an image of this size."""
    return _MIDDLES * (np.array([width, height], np.float32) / np.array(_CELLS, np.float32))


def fit_scene_motion(before: Array, after: Array, size: Array) -> SceneMotion:
    """Fitted to matches (n, 2) of corners outside the hands; the identity, and not known, if they are too few."""
    if len(before) < MIN_MATCHES:
        return _unknown_motion(size)
    chosen = np.linspace(0, len(before) - 1, min(len(before), _MAX_MATCHES)).astype(int)
    homography, inliers = dominant_homography(before[chosen], after[chosen], *map(float, size))
    if inliers.sum() < MIN_MATCHES:
        return _unknown_motion(size)
    voters = chosen[inliers]
    off = warp(homography, before[voters]) - after[voters]
    variance = max(_MIN_MATCH_PX**2, float((off**2).sum() / max(2 * len(off) - 8, 1)))
    along, down = homography_jacobian(before[voters], size)
    information = np.einsum("ni,nj->ij", along, along) + np.einsum("ni,nj->ij", down, down)
    return SceneMotion.of(homography, covariance_of(information, variance, size), size).with_parallax(before, after)


def _unknown_motion(size: Array) -> SceneMotion:
    return SceneMotion.of(np.eye(3), covariance_of(np.zeros((8, 8)), 1.0, size), size)


def cell_of(points: Array, size: Array) -> NDArray[np.int64]:
    """(n,) number of the cell that a point lies in."""
    cell = np.maximum(np.minimum((points + 0.5) * (np.array(_CELLS) / size), np.array(_CELLS) - 1e-3), 0).astype(int)
    return cell[:, 1] * _CELLS[0] + cell[:, 0]


def share_of_cells(points: Array, size: Array) -> float:
    """Share of the cells that hold a point."""
    return len(np.unique(cell_of(points, size))) / len(_MIDDLES)


def _local_mean(points: Array, values: Array, size: Array) -> tuple[Array, Array]:
    """Robust local mean (rows, columns, 2) of (n, 2) values at (n, 2) points, 0 far from all; and the standard
    deviation per axis about it (rows, columns)."""
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
    far = _MIN_RESIDUAL_PX**2 + (float((mean**2).sum(-1).mean()) / 2 if len(values) else 0.0)
    return mean, np.sqrt((stack[..., 2] + 0.3 * far) / (stack[..., 3] + 0.3))
