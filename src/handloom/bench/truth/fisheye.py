"""Project Aria's and Quest's fisheye lens, and its images rectified to a pinhole.

Published evaluations use rectified images, so this one does, too; the truth is that of the rectified camera.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from handloom.geometry.camera.intrinsics import project
from handloom.schemas.values import Camera

Floats = NDArray[np.floating]


@dataclass(frozen=True)
class Fisheye624:
    """FISHEYE624: an equidistant lens with six radial, two tangential and four thin-prism coefficients, in that order.

    focal_px: (2,); centre_px: (2,); coefficients: (12,); size: width, height.

    Source: Project Aria's documentation, camera intrinsic models, FisheyeRadTanThinPrism.
    """

    focal_px: Floats
    centre_px: Floats
    coefficients: Floats
    size: tuple[int, int]

    @staticmethod
    def of_params(params: list[float], size: tuple[int, int]) -> Fisheye624:
        """From f cx cy and 12 coefficients (Aria), or fx fy cx cy and 12 (Quest). Raises ValueError for other
        numbers."""
        values = np.asarray(params, np.float64)
        if values.shape not in ((15,), (16,)) or not np.isfinite(values).all() or values[0] <= 0:
            raise ValueError(f"{values.size} projection parameters, expected 15 or 16 finite numbers, a focal first")
        head = values[:-12]
        return Fisheye624(np.array([head[0], head[-3]]), head[-2:], values[-12:], size)

    def project(self, points_cam: Floats) -> NDArray[np.float64]:
        """(..., 3) in front of the camera, x right, y down, z forward, to (..., 2) pixels."""
        matrix = np.array(
            [[self.focal_px[0], 0, self.centre_px[0]], [0, self.focal_px[1], self.centre_px[1]], [0, 0, 1]]
        )
        return project(points_cam, Camera(matrix, "given", self.coefficients, "fisheye624"))


@dataclass(frozen=True)
class Rectified:
    """A pinhole view of a fisheye image. camera_matrix: (3, 3); size: width, height; fisheye_from_view: (3, 3) rotation
    between the two cameras. Pixels outside of the lens's view are black."""

    camera_matrix: Floats
    size: tuple[int, int]
    fisheye_from_view: Floats
    maps: tuple[NDArray[np.float32], NDArray[np.float32]]

    def image(self, fisheye_rgb: NDArray[np.uint8]) -> NDArray[np.uint8]:
        return cv2.remap(fisheye_rgb, *self.maps, cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT)


def rectified(lens: Fisheye624, quarter_turns: int) -> Rectified:
    """The pinhole camera with the lens's focal length and image size, turned clockwise by quarter turns.

    The focal length is the lens's on its axis: 609 px of 1408 on Aria, 98 degrees. ViDiHand's protocol has the same
    camera (207.8 px of 480).
    """
    width, height = lens.size if quarter_turns % 2 == 0 else lens.size[::-1]
    angle = -np.pi / 2 * quarter_turns  # the image turns clockwise when the camera turns the other way
    turn = np.round([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]])
    focal = lens.focal_px if quarter_turns % 2 == 0 else lens.focal_px[::-1]
    matrix = np.array([[focal[0], 0, (width - 1) / 2], [0, focal[1], (height - 1) / 2], [0, 0, 1]])
    x, y = np.meshgrid((np.arange(width) - matrix[0, 2]) / focal[0], (np.arange(height) - matrix[1, 2]) / focal[1])
    rays = np.stack([x, y, np.ones_like(x)], axis=-1) @ turn.T
    px = lens.project(rays).astype(np.float32)
    return Rectified(matrix, (width, height), turn, (px[..., 0], px[..., 1]))
