"""The arrays of one clip that interactions are found from, in metres of one frame of reference."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from handloom.geometry.camera.world import rays_of
from handloom.schemas.hand_topology import MIDDLE, WRIST
from handloom.schemas.values import NUM_HANDS, NUM_KEYPOINTS, Camera

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]


LEVEL = 0.05
INWARD_RAD = np.radians(25.0)
"""By how much fingers point to the other hand's side: 12 degrees (median) in five real clips, 45 in scripted ones. Of
two hands it cancels out: then the way that a person faces is found within 16 degrees in four real clips, and within 12
in 60 scripted ones."""
OFF_PATH_S = 0.5
"""Hands have no place in the world in frames without a pose; a longer stretch of them is one without a path."""


@dataclass(frozen=True)
class Scene:
    """One clip. T frames, N tracks; NaN unknown.

    frame_s: (T,). hands_m: (T, 2, 21, 3) in the world. seen: (T, 2) the hand was seen in the frame, not interpolated.
    rays: (T, N, 3) camera rays (x, y, 1) of the tracks, NaN where not visible. depth_m: (T, N). on_hand: (N,) chosen on
    a hand. later: (N,) of a later grid, chosen as they move: they say nothing about the camera. poses: (T, 4, 4)
    world_from_camera in metres. on_path: (T,) where the camera's path is known; elsewhere the world goes with the
    camera, and has its axes of a path without metres, or those of each frame. starts: first frames of shots after the
    first; the path's beginning and end are such. is_metric: whether lengths come from a metric path and not from the
    usual size of a hand. is_worn: whether the camera is on the person's head.
    """

    frame_s: Floats
    hands_m: Floats
    seen: Bools
    rays: Floats
    depth_m: Floats
    on_hand: Bools
    later: Bools
    poses: Floats
    on_path: Bools
    starts: NDArray[np.int64]
    is_metric: bool
    is_worn: bool = True

    @property
    def shot(self) -> NDArray[np.int64]:
        """(T,) number of each frame's shot."""
        return np.searchsorted(self.starts, np.arange(len(self.frame_s)), side="right")

    def ahead(self, t: int, up: Floats) -> Floats:
        """(3,) unit: the way that the person faces, square to `up`. A camera that is worn looks there; beside other
        cameras it is where the fingers of both hands point, over the clip."""
        camera = self.poses[t]
        way = camera[:3, 2] if self.is_worn else self._fingers_way(up)
        ahead = way - up * (up @ way)
        if not np.linalg.norm(ahead) >= LEVEL:  # a camera that looks straight down: away from it is up in the image
            ahead = camera[:3, 2] if np.linalg.norm(np.cross(camera[:3, 2], up)) >= LEVEL else -camera[:3, 1]
            ahead = ahead - up * (up @ ahead)
        return ahead / np.linalg.norm(ahead)

    def _fingers_way(self, up: Floats) -> Floats:
        """(3,) the mean of the hands' mean ways from the wrist to the middle knuckle; that of one alone is turned back
        by `INWARD_RAD`. NaN without hands."""
        ways = self.hands_m[:, :, MIDDLE[0]] - self.hands_m[:, :, WRIST]
        ways = np.where(self.seen[..., None], ways - (ways @ up)[..., None] * up, np.nan)
        found = []
        for hand in range(NUM_HANDS):
            known = ways[np.isfinite(ways[:, hand, 0]), hand]
            if len(known):
                found.append((hand, known.mean(axis=0) / np.linalg.norm(known.mean(axis=0))))
        if len(found) == 1:
            hand, way = found[0]
            return Rotation.from_rotvec(up * (INWARD_RAD if hand == 0 else -INWARD_RAD)).apply(way)
        return np.sum([way for _, way in found], axis=0) if found else np.full(3, np.nan)


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
    is_worn: bool = True,
) -> Scene:
    """A scene from a row's columns; what is None is unknown. Of a path without a unit in metres only rotations count:
    a head that turns moves no hand. Where a path is unknown for longer than `OFF_PATH_S` the clip goes on without one.

    starts: frames at which another shot begins. is_worn: whether the camera is on the person's head.
    """
    num = len(frame_s)
    keypoints = (
        np.full((num, NUM_HANDS, NUM_KEYPOINTS, 3), np.nan) if hands_cam_m is None else hands_cam_m.astype(float)
    )
    on_path = np.full(num, world_from_camera is not None and unit_m is not None)
    poses = np.tile(np.eye(4), (num, 1, 1))
    if world_from_camera is not None and unit_m is not None:
        poses = world_from_camera.astype(float)
        poses[:, :3, 3] *= unit_m
        on_path = ~_long_gaps(np.isfinite(poses).all(axis=(1, 2)), frame_s)
        poses[~on_path] = np.eye(4)
    elif world_from_camera is not None and np.isfinite(world_from_camera).all():
        poses[:, :3, :3] = world_from_camera[:, :3, :3]
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
    begins = np.concatenate([np.asarray(starts, np.int64), np.flatnonzero(np.diff(on_path)) + 1])
    return Scene(
        np.asarray(frame_s, float), world, seen, rays, depth, on_hand, np.zeros_like(on_hand), poses,
        on_path, np.unique(begins[begins > 0]),
        bool(on_path.any()) and scale == "metric", is_worn,
    )  # fmt: skip


def _long_gaps(known: Bools, frame_s: Floats) -> Bools:
    """(T,) the frames of stretches without a pose that last longer than `OFF_PATH_S`."""
    out = np.zeros(len(known), bool)
    edges = np.flatnonzero(np.diff(np.concatenate([[True], known, [True]]).astype(np.int8)))
    for first, end in edges.reshape(-1, 2):
        out[first:end] = frame_s[end - 1] - frame_s[first] > OFF_PATH_S
    return out
