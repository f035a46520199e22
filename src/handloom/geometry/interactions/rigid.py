"""Rigid motions: between two sets of points (robust Procrustes), and of known points from their rays."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from handloom.geometry.rotations import nearest_rotation

Floats = NDArray[np.float64]

_ROUNDS = 12
_SAMPLES = 48


def procrustes(source: Floats, target: Floats, weight: Floats | None = None) -> Floats:
    """(4, 4) rigid motion that brings points (n, 3) nearest to others, weighted least squares; NaN for fewer than 3.

    Source: Kabsch, A solution for the best rotation to relate two sets of vectors, Acta Cryst. A32, 1976.
    """
    if len(source) < 3:
        return np.full((4, 4), np.nan)
    share: Floats = np.full(len(source), 1 / len(source)) if weight is None else weight / weight.sum()
    middle, there = share @ source, share @ target
    turn = nearest_rotation((target - there).T @ (share[:, None] * (source - middle)))
    out = np.eye(4)
    out[:3, :3], out[:3, 3] = turn, there - turn @ middle
    return out


def robust_procrustes(source: Floats, target: Floats, noise_m: float) -> tuple[Floats, NDArray[np.bool_]]:
    """The rigid motion of most of the points, though up to half of them go elsewhere; and which follow it (n,).

    noise_m: standard deviation of a point. Triples of points, always the same ones, give candidates; the one with the
    least truncated error is refined with Cauchy weights. Fewer than 3 points: NaN, none.
    """
    known = np.flatnonzero(np.isfinite(source).all(1) & np.isfinite(target).all(1))
    inliers = np.zeros(len(source), bool)
    if len(known) < 3:
        return np.full((4, 4), np.nan), inliers
    a, b = source[known], target[known]
    best, motion = np.inf, procrustes(a, b)
    for some in [np.arange(len(a)), *_triples(len(a))]:
        candidate = procrustes(a[some], b[some])
        cost = float(np.minimum(_apart(candidate, a, b) / (3 * noise_m), 1.0).sum())
        if cost < best - 1e-12:
            best, motion = cost, candidate
    for _ in range(_ROUNDS):
        weight = 1 / (1 + (_apart(motion, a, b) / (2 * noise_m)) ** 2) ** 2
        motion = procrustes(a, b, weight)
    inliers[known] = _apart(motion, a, b) < 4 * noise_m
    return motion, inliers


def _triples(num: int) -> list[NDArray[np.int64]]:
    """The same triples for the same number of points: far from each other in number, as neighbours lie together."""
    rng = np.random.default_rng(num)
    return [rng.choice(num, 3, replace=False) for _ in range(_SAMPLES if num > 3 else 1)]


def _apart(motion: Floats, source: Floats, target: Floats) -> Floats:
    return np.linalg.norm(source @ motion[:3, :3].T + motion[:3, 3] - target, axis=-1)


def inverse(poses: Floats) -> Floats:
    """(..., 4, 4) inverse rigid motions; NaN stays NaN."""
    out = np.full(poses.shape, np.nan)
    turned = np.swapaxes(poses[..., :3, :3], -1, -2)
    out[..., :3, :3] = turned
    out[..., :3, 3] = -np.einsum("...ij,...j->...i", turned, poses[..., :3, 3])
    out[..., 3, :] = poses[..., 3, :]
    return out


def pose_from_rays(
    points_m: Floats, rays: Floats, start: Floats, noise: float, spread: tuple[float, float, float]
) -> tuple[Floats, Floats]:
    """(4, 4) pose of a body of which (n, 3) points are seen along (n, 3) rays (x, y, 1), in the rays' frame; and how
    far its points are from the rays (n,), in slopes.

    Gauss-Newton with Cauchy weights from the pose `start`, which is also the prior. noise: standard deviation of a ray,
    in slopes. spread: of the prior: of the rotation in radians, across the line of sight and along it in metres.
    """
    pose = start.copy()
    prior = np.diag([1 / spread[0]] * 3 + [1 / spread[1], 1 / spread[1], 1 / spread[2]]) ** 2
    off = np.full(len(points_m), np.inf)
    for round_ in range(10):
        turned = points_m @ pose[:3, :3].T
        cam = turned + pose[:3, 3]
        z = np.maximum(cam[:, 2], 1e-3)
        wrong = cam[:, :2] / z[:, None] - rays[:, :2]
        off = np.linalg.norm(wrong, axis=1)
        width = noise * max(2.0, 12.0 / 2**round_)
        weight = 1 / (1 + (off / width) ** 2) / noise**2
        slope = _slopes(turned, cam, z)
        normal = np.einsum("n,nai,naj->ij", weight, slope, slope) + prior
        side = np.einsum("n,nai,na->i", weight, slope, wrong) + prior @ _between(start, pose)
        step = -np.linalg.solve(normal, side)
        pose[:3, :3] = Rotation.from_rotvec(step[:3]).as_matrix() @ pose[:3, :3]
        pose[:3, 3] += step[3:]
        if np.abs(step).max() < 1e-7 and round_ > 3:
            break
    return pose, off


def _slopes(turned: Floats, cam: Floats, z: Floats) -> Floats:
    """(n, 2, 6) derivatives of the slopes by a turn about the body's origin and by a shift."""
    point = np.zeros((len(z), 2, 3))
    point[:, 0, 0] = point[:, 1, 1] = 1 / z
    point[:, :, 2] = -cam[:, :2] / z[:, None] ** 2
    skew = np.zeros((len(z), 3, 3))
    skew[:, 0, 1], skew[:, 0, 2], skew[:, 1, 2] = turned[:, 2], -turned[:, 1], turned[:, 0]
    skew -= np.swapaxes(skew, 1, 2)
    return np.concatenate([point @ skew, point], axis=2)


def _between(start: Floats, pose: Floats) -> Floats:
    turn = Rotation.from_matrix(pose[:3, :3] @ start[:3, :3].T).as_rotvec()
    return np.concatenate([turn, pose[:3, 3] - start[:3, 3]])


def triangulate(
    rays: Floats, body_from_camera: Floats, guess_z: Floats, sigma_z: Floats | float, noise: float
) -> tuple[Floats, Floats]:
    """(n, 3) points of a body from rays (T, n, 3) of cameras with poses (T, 4, 4) in the body's frame, robust; and
    their standard deviations along the line of sight, in metres.

    guess_z, sigma_z: (T, n) depths that are known roughly, NaN unknown, and their standard deviation: all of a point
    together count once. A point without a ray or without any depth is NaN.
    """
    known = np.isfinite(rays[..., 0]) & np.isfinite(body_from_camera).all(axis=(1, 2))[:, None]
    pose = np.where(np.isfinite(body_from_camera), body_from_camera, 0.0)
    ray = np.where(known[..., None], rays, 0.0)
    depth = np.where(known, guess_z, np.nan)
    count = known.sum(axis=0)
    has = np.isfinite(depth).any(axis=0)
    z = np.where(has, _median(depth), np.nan)
    rough = np.where(np.isfinite(depth), depth, z)
    right, down, ahead = (pose[:, :3, i] for i in range(3))
    first = right[:, None] - ray[..., :1] * ahead[:, None]  # across the ray: first . (place - centre) = 0
    second = down[:, None] - ray[..., 1:2] * ahead[:, None]
    centre = pose[:, None, :3, 3]
    weight = known / np.maximum(rough, 0.05) ** 2 / noise**2
    weight = np.nan_to_num(weight)
    guess_weight = np.where(np.isfinite(depth), 1 / sigma_z**2, 0.0) / np.maximum(np.isfinite(depth).sum(0), 1)
    forward = np.broadcast_to(ahead[:, None], (*known.shape, 3))
    aims = np.where(np.isfinite(depth), depth, 0.0) + (forward * centre).sum(-1)
    place = np.full((rays.shape[1], 3), np.nan)
    sigma = np.full(rays.shape[1], np.nan)
    robust = weight
    for _ in range(4):
        normal = np.einsum("tn,tni,tnj->nij", robust, first, first)
        normal += np.einsum("tn,tni,tnj->nij", robust, second, second)
        normal += np.einsum("tn,tni,tnj->nij", guess_weight, forward, forward)
        side = np.einsum("tn,tni->ni", robust * (first * centre).sum(-1), first)
        side += np.einsum("tn,tni->ni", robust * (second * centre).sum(-1), second)
        side += np.einsum("tn,tni->ni", guess_weight * aims, forward)
        some = np.flatnonzero(has & (count > 0))
        steady = normal[some] + 1e-9 * np.trace(normal[some], axis1=1, axis2=2)[:, None, None] * np.eye(3)
        place[some] = np.linalg.solve(steady, side[some][..., None])[..., 0]
        sigma[some] = np.sqrt(np.maximum(np.trace(np.linalg.inv(steady), axis1=1, axis2=2), 0.0))
        from_here = place - centre
        cam_z = np.maximum((forward * from_here).sum(-1), 0.02)
        off = np.hypot((first * from_here).sum(-1), (second * from_here).sum(-1)) / cam_z
        robust = np.nan_to_num(weight / (1 + (off / (3 * noise)) ** 2))
    return place, sigma


def _median(values: Floats) -> Floats:
    """(n,) medians over (T, n) without NaN; NaN where all are."""
    out = np.full(values.shape[1], np.nan)
    for n in np.flatnonzero(np.isfinite(values).any(axis=0)):
        out[n] = np.median(values[np.isfinite(values[:, n]), n])
    return out
