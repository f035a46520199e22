"""Tracks in the form of ARM4R's authors: (u, v, z) in every frame, of every point of the first frame's grid."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from handloom.errors import ConfigError
from handloom.geometry.camera.intrinsics import project
from handloom.geometry.tracks.arm4r_scale import SIDE, at_912x512
from handloom.geometry.tracks.still import camera_points
from handloom.schemas.values import Camera, CameraPath, LiftedTracks, TrackKind, Tracks, VideoInfo

Floats = NDArray[np.float64]


def arm4r_points(
    tracks: Tracks,
    lifted: LiftedTracks,
    info: VideoInfo,
    camera: Camera | None = None,
    path: CameraPath | None = None,
) -> NDArray[np.float32]:
    """(T, 1296, 3): u, v in pixels at 912 x 512, z metres, each in that frame's own camera.

    The points are those of the first frame's 36 x 36 grid, row by row, x fastest, followed forward. u and v are scaled
    separately: (0, 0) stays the first pixel's centre, and a point outside the image has coordinates outside of it.

    The authors' arrays have no missing values; their tracker extrapolates. Here unknown u, v and z are NaN; an exporter
    decides what to do about them. With `camera` and `path`, a point that rests in the world has u, v and z in every
    frame with a pose, also where it is hidden or outside the image; nothing else is filled in.

    Raises:
        ConfigError: the tracks do not begin with a grid of 36 x 36 points.

    Source: ARM4R, scripts/run_spatracker_mp.py (`grid_size 36`, EPIC's 456 x 256 enlarged twice).
    """
    num = SIDE * SIDE
    is_grid = tracks.kind == TrackKind.GRID
    if is_grid.sum() != num or not is_grid[:num].all():
        raise ConfigError(
            f"ARM4R's view needs a grid of {SIDE} x {SIDE} points, this clip has {int(is_grid.sum())} grid points",
            f"extract with tracks.grid = {SIDE}",
        )
    pixels = np.where(tracks.visible[:, :num, None], tracks.points_px[:, :num], np.nan).astype(np.float64)
    depth = np.where(tracks.visible[:, :num], lifted.depth_m[:, :num], np.nan).astype(np.float64)
    poses = None if path is None else path.world_from_camera
    if camera is not None and poses is not None and lifted.points_world_m is not None:
        pixels, depth = _fill_in(pixels, depth, lifted.points_world_m[:, :num], camera, poses)
    pixels = at_912x512(pixels, info.width, info.height)
    return np.concatenate([pixels, depth[..., None]], axis=-1).astype(np.float32)


def _fill_in(
    pixels: Floats, depth: Floats, world: NDArray[np.float32], camera: Camera, world_from_camera: Floats
) -> tuple[Floats, Floats]:
    """Pixels (T, N, 2) and depths (T, N) with those of points that have one place in the world, in all frames."""
    place = _one_place(world.astype(np.float64))
    cam = camera_points(place, world_from_camera)
    cam[~(cam[..., 2] > 0)] = np.nan
    unknown = np.isnan(depth)
    depth = np.where(unknown, cam[..., 2], depth)
    hidden = np.isnan(pixels[..., 0])
    return np.where(hidden[..., None], project(cam, camera), pixels), depth


def _one_place(world: NDArray[np.float64]) -> NDArray[np.float64]:
    """(N, 3): the first known place of each point, NaN for points that are in more than one, or in none."""
    known = np.isfinite(world[..., 0])
    first = world[np.argmax(known, axis=0), np.arange(world.shape[1])]
    off = np.where(known, np.abs(world - first).max(axis=-1), 0.0).max(axis=0)
    return np.where(((off < 1e-6) & known.any(axis=0))[:, None], first, np.nan)
