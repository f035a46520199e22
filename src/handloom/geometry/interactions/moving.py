"""Which tracked points move in the world: their motion in the image beyond what the camera's own motion explains."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from handloom.geometry.interactions.scene import Scene

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

STEP_S = 0.12
"""Least time between the two frames that are compared: at 15 Hz the frames before and after."""
MOVES_M_S = 0.035
"""A point moves above this speed across the line of sight. Tracks that are off by half a pixel at 400 px and 0.5 m
give 0.007."""
STILL_M_S = 0.02
CREEP_STEP_S, CREEP_M = 0.4, 0.004
"""A point that is elsewhere by the second between two frames this far apart creeps: things that are turned in place, or
put down with care, never reach `MOVES_M_S`."""
_NEIGHBOURS, _MIN_POINTS = 6, 12


@dataclass(frozen=True)
class PointMotion:
    """velocity: (T, N, 2) m/s along x and y of the frame's camera, NaN unknown; speed: (T, N) its size; slow: (T, N)
    the same over `CREEP_STEP_S`.

    moves, creeps, still: (T, N); creeps: it moves, or does so slowly. depth_m: (T, N), filled from neighbours in the
    image where it was unknown.
    """

    velocity: Floats
    speed: Floats
    slow: Floats
    moves: Bools
    creeps: Bools
    still: Bools
    depth_m: Floats


def point_motion(scene: Scene) -> PointMotion:
    """The points' own motion in the world, from the frames on either side of each frame.

    A point at rest would be seen where the camera's path and the point's depth put it; without a path, where the
    affine motion of most points does. What most points have in common is taken off: errors of the path.
    """
    depth = filled_depth(scene)
    velocity, noise = _velocities(scene, depth, STEP_S)
    speed = np.linalg.norm(velocity, axis=-1)
    slowly, slow_noise = _velocities(scene, depth, CREEP_STEP_S)
    # A path that is wrong moves all points; with half of them moving, only clear motion counts.
    floor, low = np.maximum(MOVES_M_S, 4.0 * noise)[:, None], STILL_M_S + noise[:, None]
    slow_floor = np.maximum(CREEP_M / CREEP_STEP_S, 4.0 * slow_noise)[:, None]
    with np.errstate(invalid="ignore"):
        slow = np.linalg.norm(slowly, axis=-1)
        creeps = (speed > floor) | (slow > slow_floor)
        return PointMotion(velocity, speed, slow, speed > floor, creeps, (speed < low) & ~creeps, depth)


def _velocities(scene: Scene, depth: Floats, step_s: float) -> tuple[Floats, Floats]:
    """(T, N, 2) velocities between frames `step_s` apart or more, NaN unknown; and (T,) the usual speed of the points
    that are not on hands, 0 unknown: what the path is wrong by."""
    rays, num = scene.rays, len(scene.frame_s)
    velocity, noise = np.full((*rays.shape[:2], 2), np.nan), np.zeros(num)
    for t in range(num):
        pair = _around(scene, t, step_s)
        if pair is None:
            continue
        before, after = pair
        both = np.flatnonzero(np.isfinite(rays[before, :, 0]) & np.isfinite(rays[after, :, 0]))
        if len(both) < _MIN_POINTS:
            continue
        off = _off(scene, depth, before, after, both)
        if off is None:
            continue
        still = ~(scene.on_hand | scene.later)[both]
        off -= np.median(off[still] if still.any() else off, axis=0)
        z = np.where(np.isfinite(depth[t, both]), depth[t, both], depth[before, both])
        velocity[t, both] = off * (z / (scene.frame_s[after] - scene.frame_s[before]))[:, None]
        known = np.linalg.norm(velocity[t, both[still]], axis=1)
        known = known[np.isfinite(known)]
        noise[t] = np.median(known) if len(known) else 0.0
    return velocity, noise


def _around(scene: Scene, t: int, step_s: float) -> tuple[int, int] | None:
    """The frames before and after t that are compared: `step_s` apart or more, in one shot, with poses."""
    times, shot = scene.frame_s, scene.shot
    before = max(int(np.searchsorted(times, times[t] - step_s / 2 + 1e-6, side="right")) - 1, 0)
    after = min(int(np.searchsorted(times, times[t] + step_s / 2 - 1e-6)), len(times) - 1)
    before, after = min(before, t), max(after, t)
    while before < t and shot[before] != shot[t]:
        before += 1
    while after > t and shot[after] != shot[t]:
        after -= 1
    if after == before or not np.isfinite(scene.poses[[before, after]]).all():
        return None
    return before, after


def _off(scene: Scene, depth: Floats, before: int, after: int, points: NDArray[np.int64]) -> Floats | None:
    """(n, 2) slopes by which points are elsewhere than if they had rested."""
    first, second = scene.rays[before, points], scene.rays[after, points]
    if not scene.on_path[before]:
        return _beside_affine(first[:, :2], second[:, :2])
    turn = scene.poses[after, :3, :3].T @ scene.poses[before, :3, :3]
    shift = scene.poses[after, :3, :3].T @ (scene.poses[before, :3, 3] - scene.poses[after, :3, 3])
    z = depth[before, points]
    if not np.isfinite(z).any():
        return None
    there = first @ turn.T + shift / z[:, None]
    return second[:, :2] - there[:, :2] / there[:, 2:]


def _beside_affine(first: Floats, second: Floats) -> Floats:
    """(n, 2) second places less those of the affine motion of most points (Cauchy weights)."""
    rows = np.column_stack([first, np.ones(len(first))])
    weight = np.ones(len(first))
    for _ in range(8):
        scaled = rows * weight[:, None]
        fit = np.linalg.lstsq(scaled.T @ rows + 1e-9 * np.eye(3), scaled.T @ second, rcond=None)[0]
        off = second - rows @ fit
        size = np.linalg.norm(off, axis=1)
        weight = 1 / (1 + (size / max(2 * float(np.median(size)), 5e-4)) ** 2)
    return off


def filled_depth(scene: Scene) -> Floats:
    """(T, N) depths; where a visible point has none, the median of its nearest neighbours' in the image; then that of
    the hands, for a clip in which no point has a depth."""
    depth = np.where(np.isfinite(scene.rays[..., 0]), scene.depth_m, np.nan)
    for t in range(len(depth)):
        seen = np.isfinite(scene.rays[t, :, 0])
        known = np.flatnonzero(seen & np.isfinite(depth[t]))
        lacking = np.flatnonzero(seen & ~np.isfinite(depth[t]))
        if not len(lacking):
            continue
        if len(known) < _NEIGHBOURS:
            depth[t, lacking] = _hand_depth(scene, t)
            continue
        tree = cKDTree(scene.rays[t, known, :2])
        nearest = tree.query(scene.rays[t, lacking, :2], k=_NEIGHBOURS)[1]
        depth[t, lacking] = np.median(depth[t, known][nearest], axis=1)
    return depth


def _hand_depth(scene: Scene, t: int) -> float:
    """Mean depth of the hands in a frame, metres; NaN without."""
    away = scene.hands_m[t] - scene.poses[t, :3, 3]
    z = (away * scene.poses[t, :3, 2]).sum(-1)
    return float(np.mean(z[np.isfinite(z)])) if np.isfinite(z).any() else float("nan")
