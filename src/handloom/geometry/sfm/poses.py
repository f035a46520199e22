"""Poses of single views, from the points of a scene that they see."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from handloom.geometry.sfm.key_frames import MIN_COMMON
from handloom.geometry.sfm.solver import Observations, Scene, absolute_pose
from handloom.geometry.sfm.views import filled, medians

Floats = NDArray[np.float64]
Seen = tuple[Floats, Floats]  # points (n, 3) of the scene, and the pixels (n, 2) in which a view shows them

MAX_ERROR_PX = 2.0  # of an observation that agrees, pixels of a 640 px wide image
MIN_SEEN = 0.6 * MIN_COMMON
WARM, MOST_STEPS = 1, 10
MOST_SEEN = 120  # points that a pose is refined with
LEAST_GAIN = 1e-3  # of the cost: a step that lowers it by less is the last
DAMPING, MORE, LESS = 1e-4, 10.0, 0.1  # at first; factors after a step that raised the cost, and that lowered it


def place(scene: Scene, observations: Observations, frame: int) -> Floats | None:
    """Pose (3, 4) of a frame from the points that it sees, starting from the nearest placed frame; None where no pose
    fits."""
    seen = _seen(scene, observations, frame)
    if seen is None:
        return None
    for start in (_nearest(scene, frame), None):
        pose = absolute_pose(*seen, scene.focal, _most_px(observations, frame), start)
        if pose is not None and _fits(pose, seen, scene, observations, frame):
            return pose
    return None


def place_all(scene: Scene, observations: Observations, frames: list[int]) -> Scene:
    """The scene with poses for those of the frames that can be placed (`place`).

    All are refined at once, from the frames that are placed already: one by one took longer.
    """
    seen = {frame: one for frame in frames if (one := _seen(scene, observations, frame)) is not None}
    if not seen:
        return scene
    found = _refined(list(seen.values()), scene.focal, np.stack([_nearest(scene, frame) for frame in seen]))
    poses, left = scene.poses.copy(), []
    for (frame, one), pose in zip(seen.items(), found, strict=True):
        if _fits(pose, one, scene, observations, frame):
            poses[frame] = pose
        else:
            left.append(frame)
    for frame in left:
        pose = place(replace(scene, poses=poses), observations, frame)
        if pose is not None:
            poses[frame] = pose
    return replace(scene, poses=poses)


def placed(scene: Scene) -> list[int]:
    """Frames that have a pose."""
    return np.flatnonzero(np.isfinite(scene.poses).all(axis=(1, 2))).tolist()


def pose_errors(pose: Floats, points: Floats, xy: Floats, focal: float) -> Floats:
    """(n,) pixels; infinite behind the camera."""
    local = points @ pose[:, :3].T + pose[:, 3]
    with np.errstate(divide="ignore", invalid="ignore"):
        error = np.linalg.norm(focal * local[:, :2] / local[:, 2:] - xy, axis=1)
    return np.where(local[:, 2] > 1e-6, error, np.inf)


def _seen(scene: Scene, observations: Observations, frame: int) -> Seen | None:
    """The known points that a frame sees; None where they are too few."""
    tracks, xy = observations.at(frame)
    known = np.isfinite(scene.points[tracks]).all(axis=1)
    return (scene.points[tracks[known]], xy[known]) if known.sum() >= MIN_SEEN else None


def _nearest(scene: Scene, frame: int) -> Floats:
    """The pose of the nearest frame that is placed."""
    there = np.array(placed(scene))
    return scene.poses[there[np.argmin(np.abs(there - frame))]]


def _most_px(observations: Observations, frame: int) -> float:
    return MAX_ERROR_PX * float(observations.slack[frame])


def _fits(pose: Floats, seen: Seen, scene: Scene, observations: Observations, frame: int) -> bool:
    """Whether half of the frame's points are seen where the pose projects them."""
    errors = pose_errors(pose, *seen, scene.focal)
    return bool(np.mean(errors <= 2 * _most_px(observations, frame)) >= 0.5)


def _refined(seen: list[Seen], focal: float, guesses: Floats) -> Floats:
    """(P, 3, 4) poses of P views, refined from the guesses (P, 3, 4) by Levenberg-Marquardt (Cauchy, one pixel).

    The first round scales errors by their median instead of one pixel: without it, more rounds are needed. Three such
    rounds led to poses that follow what moves, where that is nearly half of the image.
    """
    seen = [(points[step], xy[step]) for points, xy in seen for step in [_thinned(len(points))]]
    there = np.arange(max(len(points) for points, _ in seen)) < np.array([len(points) for points, _ in seen])[:, None]
    points, xy = (filled([one[side] for one in seen], there) for side in (0, 1))
    poses = guesses
    for _ in range(WARM):
        _, normal, vector = _normal_equations(poses, points, xy, there, focal, warm=True)
        poses = _moved(poses, _step(normal, vector, np.full(len(seen), DAMPING)))
    damping = np.full(len(seen), DAMPING)
    cost, normal, vector = _normal_equations(poses, points, xy, there, focal)
    for _ in range(MOST_STEPS):
        tried = _moved(poses, _step(normal, vector, damping))
        new_cost, new_normal, new_vector = _normal_equations(tried, points, xy, there, focal)
        better = new_cost < cost
        gain = np.where(better, cost - new_cost, 0.0) / np.maximum(cost, 1e-12)
        damping = np.where(better, LESS, MORE) * damping
        poses = np.where(better[:, None, None], tried, poses)
        cost, vector = np.where(better, new_cost, cost), np.where(better[:, None], new_vector, vector)
        normal = np.where(better[:, None, None], new_normal, normal)
        if (gain < LEAST_GAIN).all():
            break
    return poses


def _thinned(num: int) -> slice:
    return slice(None, None, -(-num // MOST_SEEN))


def _step(normal: Floats, vector: Floats, damping: Floats) -> Floats:
    """(P, 6) damped Gauss-Newton steps."""
    diagonal = np.einsum("pii->pi", normal)
    damped = normal + (damping[:, None] * diagonal + 1e-9)[:, :, None] * np.eye(6)
    return np.linalg.solve(damped, -vector[..., None])[..., 0]


def _normal_equations(
    poses: Floats, points: Floats, xy: Floats, there: NDArray[np.bool_], focal: float, warm: bool = False
) -> tuple[Floats, Floats, Floats]:
    """Cost (P,), normal matrix (P, 6, 6) and gradient (P, 6) of small turns and shifts of the cameras' frames."""
    local = np.einsum("pij,pnj->pni", poses[:, :, :3], points) + poses[:, None, :, 3]
    ahead = local[..., 2] > 1e-6
    depth = np.where(ahead, local[..., 2], 1.0)
    x, y = local[..., 0] / depth, local[..., 1] / depth
    off = focal * np.stack([x, y], axis=-1) - xy
    square = np.where(ahead, (off * off).sum(axis=-1), 1e4)
    usual = np.maximum(medians(square, there), 1.0) if warm else np.ones(len(x))
    weight = np.where(there & ahead, 1 / (1 + square / usual[:, None]), 0.0)
    none, inverse = np.zeros_like(x), 1 / depth
    across = focal * np.stack([-x * y, 1 + x * x, -y, inverse, none, -x * inverse], axis=-1)
    down = focal * np.stack([-1 - y * y, x * y, x, none, inverse, -y * inverse], axis=-1)
    normal, vector = np.zeros((len(x), 6, 6)), np.zeros((len(x), 6))
    for slope, left in ((across, off[..., 0]), (down, off[..., 1])):
        weighted = weight[..., None] * slope
        normal += np.einsum("pni,pnj->pij", weighted, slope)
        vector += np.einsum("pni,pn->pi", weighted, left)
    return np.where(there, np.log1p(square), 0.0).sum(axis=1), normal, vector


def _moved(poses: Floats, step: Floats) -> Floats:
    """Poses (P, 3, 4), their frames turned and shifted by small steps (P, 6)."""
    turn = Rotation.from_rotvec(step[:, :3]).as_matrix()
    moved = np.einsum("pij,pjk->pik", turn, poses)
    moved[:, :, 3] += step[:, 3:]
    return moved
