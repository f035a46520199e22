"""Which estimated paths are accepted, and as what."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from handloom.geometry.camera.static_camera import MIN_PER_FRAME, MIN_THIRDS, num_thirds
from handloom.geometry.camera.turns import ALL_THIRDS, LASTING
from handloom.geometry.sfm.long_clips import split_half_error_of_pieces
from handloom.geometry.sfm.reconstruct import MAX_SPLIT_HALF_RAD, Reconstructed
from handloom.geometry.sfm.solver import Observations
from handloom.geometry.sfm.views import reprojection_error
from handloom.schemas.values import Camera, CameraPath

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]

USUAL_THIRDS = 6
"""Least number of the image's nine parts with corners that agree, in the median frame: 7 to 9 where the path is right,
5 where it followed a box."""
MIN_EXPLAINED = 0.7
"""Least share of the observations of lasting tracks that the still scene explains. EgoDex: 0.88 to 0.95, and 0.56 where
a box filled a bare room (its path would have been wrong by 20 degrees)."""
MIN_EXPLAINED_EVERYWHERE = 0.56
"""The same where corners agree in ALL_THIRDS parts: nothing that moves fills eight of the image's nine parts. A wall of
16 videos has 0.554."""
SURE_EXPLAINED = 0.9
"""Where less is explained, a reconstruction from half of the tracks must have the same turns (`MAX_SPLIT_HALF_RAD`)."""
MIN_COVERAGE = 0.4  # least share of a part's frames with a pose; the others are NaN
MIN_PART = 0.25  # least share of the clip's frames with a pose
WHOLE = 0.6
"""Where fewer frames of a part are placed, corners must agree all over the image: before a bare wall 0.44 of a clip
followed a box that was being closed, 12 degrees off, with 0.8 explained (EgoDex)."""


@dataclass(frozen=True)
class EstimatedPath:
    """A camera path, or the reason why there is none (`path.reason`).

    camera: the one that came in, or with the lens that was found (`estimated`). points_world: (P, 3) still points of
    the scene, in the path's world and unit; empty without parallax. frame, point: (M,) observations that agree: of
    which point, in which frame. numbers: for the row's `quality`. turning: the path of a camera that only turns, where
    that explains nearly as much.
    """

    path: CameraPath
    camera: Camera
    points_world: Floats
    frame: NDArray[np.int64]
    point: NDArray[np.int64]
    numbers: dict[str, float]
    turning: CameraPath | None = None


def no_path(reason: str, camera: Camera) -> EstimatedPath:
    """No path, and the reason (a key of `path.REASONS`)."""
    none = np.zeros(0, np.int64)
    return EstimatedPath(CameraPath(None, "none", "none", reason), camera, np.zeros((0, 3)), none, none, {})


def unmoved(poses: Floats, observations: Observations, camera: Camera, part: Flags) -> EstimatedPath:
    """The path of a camera that stays in one place, in a part (T,) of the clip. Frames without enough corners are NaN:
    nothing was measured there."""
    poses = poses.copy()
    poses[np.diff(observations.first) < MIN_PER_FRAME] = np.nan
    known = np.isfinite(poses).all(axis=(1, 2))
    if known.sum() < MIN_COVERAGE * part.sum() or known.mean() < MIN_PART:
        return no_path("few_tracks", camera)
    reason = "static" if (poses[known] == np.eye(4)).all() else "pure_rotation"
    path = CameraPath(_from_first(poses), "metric", "estimated", reason)
    return replace(no_path("", camera), path=path, numbers={"camera_coverage": float(known.mean())})


def _from_first(world_from_camera: Floats) -> Floats:
    """The same path in the frame of its first known camera."""
    first = np.flatnonzero(np.isfinite(world_from_camera).all(axis=(1, 2)))[0]
    return np.linalg.inv(world_from_camera[first]) @ world_from_camera


def moving(
    found: Reconstructed, observations: Observations, camera: Camera, half_size: Floats, part: Flags
) -> EstimatedPath:
    """The reconstruction of a part (T,) of the clip as a path, if it explains the observations; frames in which too few
    agree are NaN."""
    num_frames = len(observations.first) - 1
    scene, kept = found.scene, found.observations
    per_frame = np.bincount(kept.frame, minlength=num_frames)
    thirds = np.array([num_thirds(kept.at(f)[1], half_size) for f in range(num_frames)])
    valid = np.isfinite(scene.poses).all(axis=(1, 2)) & (per_frame >= MIN_PER_FRAME) & (thirds >= MIN_THIRDS)
    explained = _explained(observations, kept, valid)
    everywhere = valid.any() and np.median(thirds[valid]) >= ALL_THIRDS
    whole = valid.sum() >= WHOLE * part.sum()
    if explained < (MIN_EXPLAINED_EVERYWHERE if everywhere and whole else MIN_EXPLAINED):
        return no_path("high_error", camera)
    if explained < SURE_EXPLAINED and not (everywhere or whole):
        return no_path("ambiguous", camera)
    if explained < SURE_EXPLAINED and split_half_error_of_pieces(scene, observations) > MAX_SPLIT_HALF_RAD:
        return no_path("ambiguous", camera)
    if valid.mean() < MIN_PART or np.median(thirds[valid]) < USUAL_THIRDS:
        return no_path("few_tracks", camera)
    world_from_camera = np.full((num_frames, 4, 4), np.nan)
    world_from_camera[valid] = np.eye(4)
    turn = scene.poses[valid, :, :3].transpose(0, 2, 1)
    world_from_camera[valid, :3, :3] = turn
    world_from_camera[valid, :3, 3] = -np.einsum("fij,fj->fi", turn, scene.poses[valid, :, 3])
    first = world_from_camera[np.flatnonzero(valid)[0]]
    used = np.unique(kept.track[valid[kept.frame]])
    points = (scene.points[used] - first[:3, 3]) @ first[:3, :3]
    unit = float(np.median(np.linalg.norm(points, axis=1)))
    world_from_camera = _from_first(world_from_camera)
    world_from_camera[:, :3, 3] /= unit
    keep = valid[kept.frame]
    numbers = {
        "camera_error_px": found.error_px,
        "camera_explained": explained,
        "camera_parallax_px": found.parallax_px,
        "camera_coverage": float(valid.mean()),
    }
    path = CameraPath(world_from_camera, "arbitrary", "estimated")
    return EstimatedPath(
        path, camera, points / unit, kept.frame[keep], np.searchsorted(used, kept.track[keep]), numbers
    )


def _explained(observations: Observations, kept: Observations, valid: Flags) -> float:
    """Share of the observations of lasting tracks, in frames with a pose, that agree with the scene."""
    length = np.bincount(observations.track, minlength=observations.num_tracks)
    lasting = length >= LASTING
    total = np.sum(lasting[observations.track] & valid[observations.frame])
    return float(np.sum(lasting[kept.track] & valid[kept.frame]) / max(total, 1))


def close(found: Reconstructed, observations: Observations) -> float:
    """Share of the observations of lasting tracks that the reconstruction explains within half a pixel."""
    length = np.bincount(observations.track, minlength=observations.num_tracks)
    error = (reprojection_error(found.scene, observations) * observations.slack[observations.frame])[
        length[observations.track] >= LASTING
    ]
    return float(np.mean(np.nan_to_num(error, nan=np.inf) <= 0.5)) if len(error) else 0.0
