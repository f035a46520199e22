"""Points of a frame's camera in the world of a camera path, and back."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from handloom.geometry.camera.intrinsics import slopes
from handloom.schemas.values import Camera, CameraPath, Hands

Floats = NDArray[np.floating[Any]]


def metric_poses(path: CameraPath) -> NDArray[np.float64] | None:
    """(T, 4, 4) world_from_camera with translations in metres; None without poses or where their unit is unknown."""
    return scaled_poses(path.world_from_camera, path.unit_m)


def scaled_poses(world_from_camera: Floats | None, unit_m: float | None) -> NDArray[np.float64] | None:
    """`metric_poses` of a row's two columns: (T, 4, 4), and how many metres one unit of its world is."""
    if world_from_camera is None or unit_m is None:
        return None
    poses = np.array(world_from_camera, np.float64)
    poses[:, :3, 3] *= unit_m
    return poses


def to_world(points_cam: Floats, world_from_camera: Floats) -> NDArray[np.float64]:
    """(T, ..., 3) points of each frame's camera in the world of (T, 4, 4) poses, in the poses' unit; NaN stays NaN."""
    shift = world_from_camera[:, :3, 3].reshape(len(points_cam), *(1,) * (points_cam.ndim - 2), 3)
    return np.einsum("tij,t...j->t...i", world_from_camera[:, :3, :3], points_cam) + shift


def to_camera(points_world: Floats, world_from_camera: Floats) -> NDArray[np.float64]:
    """(T, ..., 3) world points in each frame's camera: the inverse of `to_world`."""
    shift = world_from_camera[:, :3, 3].reshape(len(points_world), *(1,) * (points_world.ndim - 2), 3)
    return np.einsum("tji,t...j->t...i", world_from_camera[:, :3, :3], points_world - shift)


def hands_to_world(hands: Hands, path: CameraPath) -> NDArray[np.float32] | None:
    """(T, 2, 21, 3) metres; None without poses or where their unit is unknown."""
    poses = metric_poses(path)
    return None if poses is None else to_world(hands.keypoints_cam_m, poses).astype(np.float32)


def rays_of(points_px: NDArray[np.floating[Any]], camera: Camera) -> NDArray[np.float64]:
    """(..., 2) source pixels to (..., 3) rays (x, y, 1) of the camera frame; NaN stays NaN."""
    xy = slopes(points_px, camera)
    return np.concatenate([xy, np.ones_like(xy[..., :1])], axis=-1)
