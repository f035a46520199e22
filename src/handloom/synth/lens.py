"""The lens: OpenCV's k1 k2 p1 p2 on a pinhole, and the larger pinhole picture that a distorted one is cut from.

Pixels: (0, 0) is the centre of the top-left one. Source: OpenCV documentation, "Camera Calibration and 3D
Reconstruction", detailed description.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from handloom.synth.march import View

Array = NDArray[np.float64]

_MAX_ROUNDS, _CLOSE = 200, 1e-12


@dataclass(frozen=True)
class Lens:
    """camera_matrix: (3, 3). params: (4,) k1 k2 p1 p2, or (0,) without distortion. width, height: of the picture."""

    camera_matrix: Array
    params: Array
    width: int
    height: int

    def rays(self, points_px: Array) -> Array:
        """(..., 2) pixels to (..., 3) rays (x, y, 1) of the camera."""
        bent = (np.asarray(points_px, float) - self.camera_matrix[:2, 2]) / np.diag(self.camera_matrix)[:2]
        xy = bent
        for _ in range(_MAX_ROUNDS if len(self.params) and bent.size else 0):
            step = bent - self._distorted(xy)
            xy = xy + step
            if not np.abs(step).max() > _CLOSE:
                break
        return np.concatenate([xy, np.ones((*xy.shape[:-1], 1))], axis=-1)

    def project(self, points_cam_m: Array) -> Array:
        """(..., 3) camera points to (..., 2) pixels; NaN behind the camera and where rays have no picture."""
        with np.errstate(invalid="ignore", over="ignore"):
            depth = np.where(points_cam_m[..., 2:] > 1e-6, points_cam_m[..., 2:], np.nan)
            xy = points_cam_m[..., :2] / depth
            if len(self.params):
                xy = np.where(self._in_reach(xy)[..., None], self._distorted(xy), np.nan)
        return xy * np.diag(self.camera_matrix)[:2] + self.camera_matrix[:2, 2]

    def inside(self, points_px: Array) -> NDArray[np.bool_]:
        """(...) true where a pixel lies in the picture."""
        with np.errstate(invalid="ignore"):
            return (points_px >= -0.5).all(-1) & (points_px < [self.width - 0.5, self.height - 0.5]).all(-1)

    def _distorted(self, xy: Array) -> Array:
        k1, k2, p1, p2 = self.params
        x, y = xy[..., 0], xy[..., 1]
        square = x * x + y * y
        radial = 1 + square * (k1 + k2 * square)
        u = x * radial + 2 * p1 * x * y + p2 * (square + 2 * x * x)
        v = y * radial + p1 * (square + 2 * y * y) + 2 * p2 * x * y
        return np.stack([u, v], axis=-1)

    def _in_reach(self, xy: Array) -> NDArray[np.bool_]:
        """The polynomial folds back far outside the picture: only rays a little beyond its corners are trusted."""
        limit = np.linalg.norm(self._border_rays()[:, :2], axis=1).max() * 1.15
        return (xy * xy).sum(-1) < limit * limit

    def _border_rays(self) -> Array:
        x, y = np.arange(-0.5, self.width, 4.0), np.arange(-0.5, self.height, 4.0)
        right, bottom = self.width - 0.5, self.height - 0.5
        sides = [np.stack([x, np.full_like(x, at)], 1) for at in (-0.5, bottom)]
        sides += [np.stack([np.full_like(y, at), y], 1) for at in (-0.5, right)]
        return self.rays(np.concatenate([*sides, [[right, bottom]]]))

    def view(self) -> View:
        """The pinhole that is rendered: this picture, or one that holds all that a distorted one sees."""
        focal, cx, cy = self.camera_matrix[0, 0], self.camera_matrix[0, 2], self.camera_matrix[1, 2]
        if not len(self.params):
            return View(focal, cx, cy, self.width, self.height)
        seen = self._border_rays()[:, :2] * focal + [cx, cy]
        low, high = np.floor(seen.min(0)) - 1, np.ceil(seen.max(0)) + 1
        width, height = (high - low + 1).astype(int).tolist()
        return View(focal, cx - low[0], cy - low[1], width, height)

    def remap_from(self, view: View) -> tuple[NDArray[np.float32], NDArray[np.float32]] | None:
        """Where each pixel of this picture lies in the pinhole picture `view`: x and y (h, w); None: it is the same."""
        if not len(self.params):
            return None
        grid = np.stack(np.meshgrid(np.arange(self.width), np.arange(self.height)), -1)
        seen = self.rays(grid.astype(float))[..., :2] * view.focal_px + [view.cx, view.cy]
        return seen[..., 0].astype(np.float32), seen[..., 1].astype(np.float32)
