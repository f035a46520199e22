"""Hands that their model has placed in the camera frame itself: nothing is fitted."""

from __future__ import annotations

import numpy as np

from handloom.errors import ShapeError
from handloom.schemas.values import Camera, HandPoints, Hands


def placed_hands(points: HandPoints, before: Camera, camera: Camera) -> Hands:
    """The metres of `points.cam_m`, as they are. `sigma_m` is None: unknown.

    Only where the clip's lens was assumed when the model placed its hands (`before`), and another focal length was
    found since (`camera`), does a hand move along z, as far as its image says: its size and its x and y stay, its
    distance follows the focal length, as in the weak perspective that these models regress.

    Raises:
        ShapeError: the model has placed no hands.
    """
    if points.cam_m is None:
        raise ShapeError("the hands have no metres in the camera frame: they are to be fitted")
    metres = points.cam_m.astype(np.float64)
    longer = float(np.mean(np.diag(camera.camera_matrix)[:2] / np.diag(before.camera_matrix)[:2]))
    if longer != 1.0:
        metres[..., 2] += (longer - 1) * metres[..., 2].mean(axis=2, keepdims=True)
    seen = (points.visible, points.infilled, points.confidence, points.keypoints_px)
    return Hands(*seen, metres.astype(np.float32), None, points.view)
