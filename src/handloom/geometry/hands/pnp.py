"""Hands in the camera frame by PnP: the model's metric keypoints fitted to their 2D keypoints, frame by frame."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from handloom.geometry.camera.intrinsics import slopes
from handloom.geometry.hands.model import MIN_DEPTH_M
from handloom.geometry.rotations import turn_to
from handloom.schemas.values import Camera, HandPoints, Hands

MAX_TURN_RAD = np.radians(80)


def place_hands(points: HandPoints, camera: Camera) -> Hands:
    """The reference: MediaPipe's metric keypoints as they are, placed frame by frame. `sigma_m` is None: unknown."""
    lifted = np.full(points.model_m.shape, np.nan, np.float32)
    lifted[points.visible] = lift_hands(points.keypoints_px[points.visible], points.model_m[points.visible], camera)
    seen = (points.visible, points.infilled, points.confidence, points.keypoints_px)
    return Hands(*seen, lifted, None, points.view)


def lift_hands(
    keypoints_px: NDArray[np.floating[Any]], model_m: NDArray[np.floating[Any]], camera: Camera
) -> NDArray[np.float64]:
    """Place hands of known metric shape in the camera frame (x right, y down, z forward).

    The pose is the global optimum of the algebraic error (SQPnP). The model's keypoints already have the rotation that
    the hand shows to the camera, up to the direction in which it is seen. Where the optimum is not in front of the
    camera, or turns the hand by more than 80 degrees from the model's rotation (the second solution of a flat hand),
    that rotation is taken and only the place is fitted.

    Against device truth (EgoDex, true intrinsics) SQPnP alone had the smallest error; minimising the reprojection error
    from there moves hands 30 mm too far away, because the model's tilt in depth is not good.

    Args:
        keypoints_px: (D, 21, 2), source pixels, distorted as the camera shows them.
        model_m: (D, 21, 3), metres, axes as the camera's, any origin.
        camera: intrinsics, with distortion where it is known.

    Returns:
        (D, 21, 3) metres; NaN for a hand that cannot be placed in front of the camera.

    Source: Terzakis and Lourakis, A Consistently Fast and Globally Optimal Solution to the PnP Problem, ECCV 2020.
    """
    lifted = np.full((len(keypoints_px), keypoints_px.shape[1], 3), np.nan)
    if not len(keypoints_px):
        return lifted
    for index, (xy, shape) in enumerate(
        zip(slopes(keypoints_px, camera), np.asarray(model_m, np.float64), strict=True)
    ):
        if np.isfinite(xy).all() and np.isfinite(shape).all():
            placed = _place(xy, shape)
            if placed is not None:
                lifted[index] = placed
    return lifted


def _place(xy: NDArray[np.float64], shape: NDArray[np.float64]) -> NDArray[np.float64] | None:
    turn = turn_to(xy.mean(axis=0)[None])[0]
    placed = _sqpnp(xy, shape, turn)
    if placed is None:
        turned = shape @ turn.T
        placed = turned + _fit_place(xy, turned)
    in_front = np.isfinite(placed).all() and placed[:, 2].min() >= MIN_DEPTH_M
    return placed if in_front else None


def _sqpnp(
    xy: NDArray[np.float64], shape: NDArray[np.float64], turn: NDArray[np.float64]
) -> NDArray[np.float64] | None:
    try:
        found, rotation, place = cv2.solvePnP(shape, xy, np.eye(3), np.empty(0), flags=cv2.SOLVEPNP_SQPNP)
    except cv2.error:  # degenerate points: OpenCV checks them with assertions
        return None
    if not found or not np.isfinite(rotation).all():
        return None
    matrix = cv2.Rodrigues(rotation)[0]
    angle = np.arccos(np.clip((np.trace(matrix @ turn.T) - 1) / 2, -1, 1))
    placed = shape @ matrix.T + place.T
    return placed if angle <= MAX_TURN_RAD and placed[:, 2].min() >= MIN_DEPTH_M else None


def _fit_place(xy: NDArray[np.float64], shape: NDArray[np.float64]) -> NDArray[np.float64]:
    """Translation (3,) of a hand whose rotation is known: linear least squares of x = X / Z, y = Y / Z."""
    num = len(shape)
    system = np.zeros((2 * num, 3))
    system[:num, 0] = system[num:, 1] = 1
    system[:, 2] = -xy.T.reshape(-1)
    wanted = np.concatenate([xy[:, 0] * shape[:, 2] - shape[:, 0], xy[:, 1] * shape[:, 2] - shape[:, 1]])
    return np.linalg.lstsq(system, wanted, rcond=None)[0]
