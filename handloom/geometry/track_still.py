"""Places of still points, triangulated over a whole clip from a known camera path."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from handloom.geometry.camera import undistort
from handloom.schemas.values import Camera, Tracks

Floats = NDArray[np.float64]

NOISE_SHARE = 0.0025
"""Standard deviation of a track's place, as a share of the picture's focal length: 1 px at 400 px."""
MAX_OFF = 4.0
"""A frame in which a point is further than this many standard deviations from its place does not show it at rest."""
MIN_FRAMES = 4
MIN_SHARE = 0.6
"""Least share of a point's frames that must agree on its place."""
MIN_SHARE_OF_HALF = 0.9
MAX_DEPTH_ERROR = 0.1
"""Largest standard deviation of the distance, as a share of it: what too little parallax is judged by."""
_ROUNDS, _CHUNK = 8, 256


@dataclass(frozen=True)
class StillPoints:
    """place: (N, 3) in the path's units, world, NaN where a point could not be placed. at_rest: (T, N), the frames in
    which a visible point is where its place says. moves: (N,) seen often enough, and in no one place."""

    place: Floats
    at_rest: NDArray[np.bool_]
    moves: NDArray[np.bool_]


def rays_of(points_px: NDArray[np.floating], camera: Camera) -> Floats:
    """(..., 2) source pixels to (..., 3) rays (x, y, 1) of the camera frame; NaN stays NaN."""
    ideal = undistort(points_px, camera)
    matrix = camera.camera_matrix
    y = (ideal[..., 1] - matrix[1, 2]) / matrix[1, 1]
    x = (ideal[..., 0] - matrix[0, 2] - matrix[0, 1] * y) / matrix[0, 0]
    return np.stack([x, y, np.ones_like(x)], axis=-1)


def place_still_points(tracks: Tracks, rays: Floats, world_from_camera: Floats) -> StillPoints:
    """Least squares over all frames that see a point, frames that disagree weighed down (Cauchy).

    Args:
        rays: (T, N, 3) from `rays_of`. world_from_camera: (T, 4, 4), NaN for frames without a pose.

    A point that moves agrees with few frames, and one that the camera saw from one direction only has a large error;
    both stay NaN. Source: Hartley and Zisserman, Multiple View Geometry, 2nd ed., section 12.2, weighted by depth.
    """
    num_frames, num = tracks.visible.shape
    place, at_rest = np.full((num, 3), np.nan), np.zeros((num_frames, num), bool)
    moves = np.zeros(num, bool)
    posed = np.flatnonzero(np.isfinite(world_from_camera).all(axis=(1, 2)))
    poses = world_from_camera[posed]
    for start in range(0, num, _CHUNK):
        some = np.arange(start, min(start + _CHUNK, num))
        ray = rays[np.ix_(posed, some)]
        known = tracks.visible[np.ix_(posed, some)] & np.isfinite(ray).all(-1)
        place[some], rest, moves[some] = _place(ray, known, poses, MIN_SHARE)
        # What is picked up or put down rests for a part of the clip: try the first and the last half of its frames.
        order = np.cumsum(known, axis=0)
        for half in (order <= order[-1] // 2, order > order[-1] // 2):
            again = np.flatnonzero(moves[some] & np.isnan(place[some, 0]))
            found, _, _ = _place(ray[:, again], (known & half)[:, again], poses, MIN_SHARE_OF_HALF)
            good = np.isfinite(found[:, 0])
            place[some[again[good]]] = found[good]
            rest[:, again[good]] = known[:, again[good]] & _rests(found[good], ray[:, again[good]], poses)
        at_rest[np.ix_(posed, some)] = rest
    return StillPoints(place, at_rest, moves)


def camera_points(place: Floats, world_from_camera: Floats) -> Floats:
    """(N, 3) world points in every frame's camera, (T, N, 3)."""
    rotation, centre = world_from_camera[:, :3, :3], world_from_camera[:, :3, 3]
    offset = place[None] - centre[:, None]
    return sum(offset[..., i, None] * rotation[:, None, i] for i in range(3))


def _place(
    rays: Floats, known: NDArray[np.bool_], poses: Floats, share: float
) -> tuple[Floats, NDArray[np.bool_], NDArray[np.bool_]]:
    """(n, 3) places, (T, n) frames at rest, (n,) whether a point moves; `share` of the frames must agree on a place."""
    if not known.any():
        return np.full((rays.shape[1], 3), np.nan), np.zeros(known.shape, bool), np.zeros(rays.shape[1], bool)
    rays = np.where(known[..., None], rays, 0.0)
    weight = known.astype(np.float64)
    off = np.zeros(known.shape)
    for round_ in range(_ROUNDS):
        place, normal = _solve(rays, weight, poses)
        cam = camera_points(place, poses)
        depth = np.maximum(cam[..., 2], 1e-3)
        off = np.hypot(cam[..., 0] / depth - rays[..., 0], cam[..., 1] / depth - rays[..., 1]) / NOISE_SHARE
        # From forgiving to strict: first frames that are far off may be right and the start wrong.
        width = max(2.0, 16.0 / 2**round_)
        weight = known / (1 + (off / width) ** 2) / depth**2
    at_rest = known & _rests(place, rays, poses)
    error = _distance_error(place, normal, poses, at_rest)
    count, resting = known.sum(0), at_rest.sum(0)
    agree = (resting >= MIN_FRAMES) & (resting >= share * count)
    good = agree & (error < MAX_DEPTH_ERROR)
    return np.where(good[:, None], place, np.nan), at_rest & good, (count >= MIN_FRAMES) & ~agree


def _rests(place: Floats, rays: Floats, poses: Floats) -> NDArray[np.bool_]:
    """(T, n) frames in which (n, 3) places lie on their rays."""
    cam = camera_points(place, poses)
    depth = np.maximum(cam[..., 2], 1e-9)
    off = np.hypot(cam[..., 0] / depth - rays[..., 0], cam[..., 1] / depth - rays[..., 1])
    return (off < MAX_OFF * NOISE_SHARE) & (cam[..., 2] > 0)


def _solve(rays: Floats, weight: Floats, poses: Floats) -> tuple[Floats, Floats]:
    """(n, 3) points that weighted rays pass nearest to, in image terms, and their (n, 3, 3) normal matrices.

    A ray (x, y, 1) of pose (R, c) asks r1.(X - c) = x r3.(X - c) and r2.(X - c) = y r3.(X - c), r the camera's axes.
    """
    normal = np.zeros((rays.shape[1], 3, 3))
    right = np.zeros((rays.shape[1], 3))
    for pose, ray, w in zip(poses, rays, weight, strict=True):
        axes = pose[:3, :3].T
        for row in (0, 1):
            a = axes[row] - ray[:, row, None] * axes[2]
            normal += w[:, None, None] * a[:, :, None] * a[:, None]
            right += (w * (a * pose[:3, 3]).sum(1))[:, None] * a
    steady = normal + np.eye(3) * (1e-9 + 1e-9 * np.trace(normal, axis1=1, axis2=2)[:, None, None])
    return np.linalg.solve(steady, right[..., None])[..., 0], normal


def _distance_error(place: Floats, normal: Floats, poses: Floats, at_rest: NDArray[np.bool_]) -> Floats:
    """(n,) standard deviation of the distance over the distance, from the spread of the rays that agree."""
    spread = np.linalg.inv(normal + np.eye(3) * 1e-9) * NOISE_SHARE**2
    first = np.argmax(at_rest, axis=0)
    away = place - poses[first, :3, 3]
    distance = np.maximum(np.linalg.norm(away, axis=1), 1e-9)
    along = away / distance[:, None]
    variance = np.einsum("na,nab,nb->n", along, spread, along)
    return np.sqrt(np.maximum(variance, 0)) / distance
