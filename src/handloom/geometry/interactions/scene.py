"""The arrays of one clip that interactions are found from, in metres of one frame of reference."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from handloom.geometry.camera.world import rays_of
from handloom.schemas.values import NUM_HANDS, NUM_KEYPOINTS, Camera

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]


@dataclass(frozen=True)
class Scene:
    """One clip. T frames, N tracks; NaN unknown.

    frame_s: (T,). hands_m: (T, 2, 21, 3) in the world. seen: (T, 2) the hand was seen in the frame, not interpolated.
    rays: (T, N, 3) camera rays (x, y, 1) of the tracks, NaN where not visible. depth_m: (T, N). on_hand: (N,) chosen
    on a hand. poses: (T, 4, 4) world_from_camera in metres; identities where `has_path` is false, and the world is
    then the frame of each image's camera. starts: first frames of shots after the first. is_metric: whether lengths
    come from a metric path and not from the usual size of a hand.
    """

    frame_s: Floats
    hands_m: Floats
    seen: Bools
    rays: Floats
    depth_m: Floats
    on_hand: Bools
    poses: Floats
    has_path: bool
    starts: NDArray[np.int64]
    is_metric: bool

    @property
    def shot(self) -> NDArray[np.int64]:
        """(T,) number of each frame's shot."""
        return np.searchsorted(self.starts, np.arange(len(self.frame_s)), side="right")


def make_scene(
    frame_s: Floats,
    camera: Camera,
    world_from_camera: NDArray[np.floating[Any]] | None,
    unit_m: float | None,
    scale: str | None,
    hands_cam_m: NDArray[np.floating[Any]] | None,
    infilled: Bools | None,
    points_px: NDArray[np.floating[Any]] | None,
    visible: Bools | None,
    depth_m: NDArray[np.floating[Any]] | None,
    kind: NDArray[np.integer[Any]] | None,
    starts: NDArray[np.integer[Any]],
) -> Scene:
    """A scene from a row's columns; what is None is unknown. Of a path without a unit in metres only rotations count:
    such a clip is taken as one without a path.

    starts: frames at which another shot begins.
    """
    num = len(frame_s)
    keypoints = (
        np.full((num, NUM_HANDS, NUM_KEYPOINTS, 3), np.nan) if hands_cam_m is None else hands_cam_m.astype(float)
    )
    has_path = world_from_camera is not None and unit_m is not None
    poses = np.tile(np.eye(4), (num, 1, 1))
    if world_from_camera is not None and unit_m is not None:
        poses = world_from_camera.astype(float)
        poses[:, :3, 3] *= unit_m
    world = np.einsum("tij,thkj->thki", poses[:, :3, :3], keypoints) + poses[:, None, None, :3, 3]
    known = np.isfinite(world).all(axis=(2, 3))
    world[~known] = np.nan
    seen = known if infilled is None else known & ~infilled
    if points_px is None or visible is None:
        points_px, visible = np.empty((num, 0, 2)), np.empty((num, 0), bool)
    rays = rays_of(points_px, camera)
    rays[~visible] = np.nan
    depth = np.full(visible.shape, np.nan) if depth_m is None else depth_m.astype(float)
    on_hand = np.zeros(visible.shape[1], bool) if kind is None else np.isin(kind, (1, 2))
    return Scene(
        np.asarray(frame_s, float), world, seen, rays, depth, on_hand, poses, has_path,
        np.unique(np.asarray(starts, np.int64)[np.asarray(starts) > 0]), has_path and scale == "metric",
    )  # fmt: skip
