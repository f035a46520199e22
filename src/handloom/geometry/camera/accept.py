"""A path that was found, and when it is believed."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from handloom.geometry.camera.rest import MIN_PER_FRAME, MIN_THIRDS, num_thirds
from handloom.geometry.camera.turns import ALL_THIRDS, LASTING
from handloom.geometry.sfm.pieces import support_of_pieces
from handloom.geometry.sfm.reconstruct import MAX_SUPPORT_RAD, Reconstructed
from handloom.geometry.sfm.solver import Observations
from handloom.geometry.sfm.views import reprojection_error
from handloom.schemas.values import Camera, CameraPath

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]

USUAL_THIRDS = 6
"""Of the picture's nine parts, in the median frame, hold corners that agree: 7 to 9 where the path is right, 5 where it
followed a box."""
MIN_EXPLAINED = 0.7
"""Share of the sightings of lasting tracks that the still scene explains. EgoDex: 0.88 to 0.95, and 0.56 where a box
filled a bare room (its path would have been wrong by 20 degrees)."""
MIN_EXPLAINED_EVERYWHERE = 0.56
"""In ALL_THIRDS parts: what moves does not fill eight of the picture's nine parts. A wall of 16 videos: 0.554."""
SURE_EXPLAINED = 0.9  # where less is explained, half of the tracks must lead to the same turns (`support_rad`)
MIN_COVERAGE = 0.4  # of the frames of a part; the others are NaN
MIN_PART = 0.25  # of the clip's frames have a pose
WHOLE = 0.6
"""Where less of a part could be placed, what agrees must lie all over the picture: before a bare wall a box that was
closed carried 0.44 of a clip along, 12 degrees off, with 0.8 explained (EgoDex)."""


@dataclass(frozen=True)
class EstimatedPath:
    """path: as in `CameraPath`. camera: the given one, or with its focal length refined (`estimated`).

    points_world: (P, 3) still points of the scene, in the path's world and unit; empty without parallax.
    frame, point: (M,) which point was seen in which frame, and agrees with it. numbers: for the row's `quality`.
    turning: the path of a camera that only turns, where that explains nearly as much.
    """

    path: CameraPath
    camera: Camera
    points_world: Floats
    frame: NDArray[np.int64]
    point: NDArray[np.int64]
    numbers: dict[str, float]
    turning: CameraPath | None = None


def no_path(reason: str, camera: Camera) -> EstimatedPath:
    """None, with the reason."""
    none = np.zeros(0, np.int64)
    return EstimatedPath(CameraPath(None, "none", "none", reason), camera, np.zeros((0, 3)), none, none, {})


def unmoved(poses: Floats, sightings: Observations, camera: Camera, part: Flags) -> EstimatedPath:
    """A path whose places are all the same, in a part (T,) of the clip. Frames without enough corners are NaN: nothing
    was measured there."""
    poses = poses.copy()
    poses[np.diff(sightings.first) < MIN_PER_FRAME] = np.nan
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
    found: Reconstructed, sightings: Observations, camera: Camera, half_size: Floats, part: Flags
) -> EstimatedPath:
    """The reconstruction of a part (T,) of the clip where it explains what was seen; frames without enough support are
    NaN."""
    num_frames = len(sightings.first) - 1
    scene, kept = found.scene, found.sightings
    per_frame = np.bincount(kept.frame, minlength=num_frames)
    thirds = np.array([num_thirds(kept.at(f)[1], half_size) for f in range(num_frames)])
    valid = np.isfinite(scene.poses).all(axis=(1, 2)) & (per_frame >= MIN_PER_FRAME) & (thirds >= MIN_THIRDS)
    explained = _explained(sightings, kept, valid)
    everywhere = valid.any() and np.median(thirds[valid]) >= ALL_THIRDS
    whole = valid.sum() >= WHOLE * part.sum()
    if explained < (MIN_EXPLAINED_EVERYWHERE if everywhere and whole else MIN_EXPLAINED):
        return no_path("high_error", camera)
    if explained < SURE_EXPLAINED and not (everywhere or whole):
        return no_path("ambiguous", camera)
    if explained < SURE_EXPLAINED and support_of_pieces(scene, sightings) > MAX_SUPPORT_RAD:
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


def _explained(sightings: Observations, kept: Observations, valid: Flags) -> float:
    """Share of the sightings of lasting tracks, in frames with a pose, that the scene agrees with."""
    length = np.bincount(sightings.track, minlength=sightings.num_tracks)
    lasting = length >= LASTING
    total = np.sum(lasting[sightings.track] & valid[sightings.frame])
    return float(np.sum(lasting[kept.track] & valid[kept.frame]) / max(total, 1))


def close(found: Reconstructed, sightings: Observations) -> float:
    """Share of the sightings of lasting tracks that the reconstruction explains within half a pixel."""
    length = np.bincount(sightings.track, minlength=sightings.num_tracks)
    error = (reprojection_error(found.scene, sightings) * sightings.slack[sightings.frame])[
        length[sightings.track] >= LASTING
    ]
    return float(np.mean(np.nan_to_num(error, nan=np.inf) <= 0.5)) if len(error) else 0.0
