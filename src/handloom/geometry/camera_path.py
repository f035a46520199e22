"""Where a moving camera was, from the corners of the still scene.

World of an estimated path: the camera's own frame in the first frame with a pose (x right, y down, z forward, so the
direction of gravity is not known). Its unit is the metre where the scale could be found, else the median distance of
the scene's points from that first camera.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from handloom.geometry.camera import slopes
from handloom.geometry.camera_lens import ASSUMED_SIGMA, camera_of, find_lens
from handloom.geometry.camera_turns import (
    ALL_THIRDS,
    LASTING,
    MIN_PER_FRAME,
    MIN_THIRDS,
    is_static,
    longest_run,
    num_thirds,
    turn_path,
)
from handloom.geometry.path_scale import metric_scale
from handloom.geometry.sfm import (
    MAX_SUPPORT_RAD,
    NotReconstructed,
    Reconstructed,
    reconstruct,
    support_rad,
)
from handloom.geometry.sfm_solver import Sightings
from handloom.geometry.sfm_views import BLURRED, SHARP, Exactness, reprojection_error, with_slack
from handloom.schemas.values import Camera, CameraPath, DepthMaps, FeatureTracks, Hands, VideoInfo

Floats = NDArray[np.float64]

VERSION = "corners, lens, incremental bundle adjustment 2"
REASONS = {
    "too_short": "fewer than four frames, and they differ",
    "too_long": "more than 1500 frames of a moving camera: cut the video into clips",
    "few_tracks": "too few corners of the scene can be followed, or only in one part of the picture",
    "no_parallax": "the picture changes too little for depth, and not as by a camera that only turns",
    "high_error": "no camera motion explains most of what is seen: much of the scene moves, or the tracks are bad",
    "ambiguous": "a path was found, but from neither half of the tracks alone",
    "static": "there is a path: the camera was measured not to move",
    "pure_rotation": "there is a path: the camera turned on the spot, or moved too little to tell how far",
}
"""Of `CameraPath.reason`. The last two stand beside a path, and say how it is known."""
PICTURE_PX = 640.0  # thresholds are for pictures whose longer side has so many pixels
MIN_LENGTH = 3  # sightings of a track
USUAL_THIRDS = 6
"""Of the picture's nine parts, in the median frame, hold corners that agree: 7 to 9 where the path is right, 5 where it
followed a box."""
MIN_EXPLAINED = 0.7
"""Share of the sightings of lasting tracks that the still scene explains. EgoDex: 0.88 to 0.95, and 0.56 where a box
filled a bare room (its path would have been wrong by 20 degrees)."""
MIN_EXPLAINED_EVERYWHERE = 0.55  # in ALL_THIRDS parts: what moves does not fill eight of the picture's nine parts
SURE_EXPLAINED = 0.9  # where less is explained, half of the tracks must lead to the same turns (`support_rad`)
MIN_COVERAGE = 0.4  # of the frames; the others are NaN
MIN_PART = 0.25  # of the frames, of a moving camera: the part that could be followed
WHOLE = 0.6
"""Where less of a clip could be placed, what agrees must lie all over the picture: before a bare wall a box that was
closed carried 0.44 of a clip along, 12 degrees off, with 0.8 explained (EgoDex)."""
MIN_FRAMES, MAX_FRAMES = 4, 1500
"""A moving camera's path drifts: 0.3 degrees over 900 frames, 1.5 degrees and 0.14 m over 1500 (synthetic)."""
MUCH_CLOSER = 0.04
"""By this share a moving camera must explain more sightings closely than a turning one, which has fewer parameters."""
MUCH_PARALLAX_PX = 10.0  # between the first two views: nothing that only turns
LITTLE = 0.8  # of the assumed focal length's uncertainty: where more is left, nothing was learned


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


def estimate_path(
    features: FeatureTracks,
    hands: Hands | None,
    camera: Camera,
    frame_s: Floats,
    info: VideoInfo,
    depth: DepthMaps | None = None,
) -> EstimatedPath:
    """The camera's path from corners of the still scene; `none` with a reason (`REASONS`) where it cannot be told.

    A camera that stands still, or only turns, is a path too, if that was measured: corners all over the picture that
    stay within half a pixel (of 640), or that one rotation per frame explains. The camera has then moved by less than
    0.2 percent or so of the distance to the scene; what it sees needs no scale to be placed in the world: `metric`.

    Args:
        features: corners, hands masked.
        hands: for the metric scale; None or without metres: `arbitrary`.
        depth: metric maps say more about the scale than hands do.
    """
    estimated = _estimated(features, camera, len(frame_s), info)
    return with_scale(estimated, hands, frame_s, info, depth)


def with_scale(
    estimated: EstimatedPath,
    hands: Hands | None,
    frame_s: Floats,
    info: VideoInfo,
    depth: DepthMaps | None = None,
) -> EstimatedPath:
    """The same path in metres, where hands or depth maps say how long its unit is (`path_scale`); else as it was."""
    path = estimated.path
    if path.scale != "arbitrary":
        return estimated
    points, camera = estimated.points_world, estimated.camera
    found = metric_scale(path.world_from_camera, points, hands, camera, frame_s, depth, info)
    if found is None:
        return _as_turning(estimated) if estimated.turning is not None and hands is not None else estimated
    world_from_camera = path.world_from_camera.copy()
    world_from_camera[:, :3, 3] *= found.metres
    numbers = estimated.numbers | {"camera_scale_sigma": found.sigma}
    path = replace(path, world_from_camera=world_from_camera, scale="metric")
    return replace(estimated, path=path, points_world=points * found.metres, numbers=numbers)


def _as_turning(estimated: EstimatedPath) -> EstimatedPath:
    """The turns alone: of a camera that moved so little that its unit cannot be told, they place hands in metres."""
    nothing = np.zeros(0, np.int64)
    return EstimatedPath(estimated.turning, estimated.camera, np.zeros((0, 3)), nothing, nothing, estimated.numbers)


def _estimated(features: FeatureTracks, camera: Camera, num_frames: int, info: VideoInfo) -> EstimatedPath:
    sightings = _sightings(features, camera, info, num_frames)
    if num_frames < 2:
        return _none("too_short", camera)
    run = longest_run(sightings)
    sightings = sightings.kept(run[sightings.frame])
    if _too_little(sightings, info):
        return _none("few_tracks", camera)
    if is_static(sightings, _half_size(info), max(PICTURE_PX / max(info.width, info.height), 1.0)):
        return _unmoved(np.tile(np.eye(4), (num_frames, 1, 1)), sightings, camera)
    if num_frames < MIN_FRAMES:
        return _none("too_short", camera)
    if num_frames > MAX_FRAMES:
        return _none("too_long", camera)
    tried = _tried(sightings, features, camera, info, SHARP)
    if tried.path.world_from_camera is None and tried.path.reason in ("high_error", "ambiguous"):
        again = _tried(sightings, features, camera, info, BLURRED)
        return tried if again.path.world_from_camera is None else again
    return tried


def _tried(
    sightings: Sightings, features: FeatureTracks, camera: Camera, info: VideoInfo, exact: Exactness
) -> EstimatedPath:
    """The path of a camera that moves, or only turns, with the lens that was found; none with a reason."""
    num_frames = len(sightings.first) - 1
    seen = np.diff(sightings.first) > 0
    camera = _with_lens(camera, with_slack(sightings, exact), info)
    straight = _sightings(features, camera, info, num_frames)
    sightings = with_slack(straight.kept(seen[straight.frame]), exact)
    half_size = _half_size(info)
    try:
        found = reconstruct(sightings, _focal(camera, info), refine_focal=False)
    except NotReconstructed as error:
        moving, close = _none(error.reason, camera), 0.0
    else:
        moving = _moving(found, sightings, camera, half_size)
        close = _close(found, sightings)
        if moving.path.world_from_camera is not None and found.parallax_px >= MUCH_PARALLAX_PX:
            return moving
    turn = turn_path(sightings, _focal(moving.camera, info), half_size)
    turning = None if turn is None else _unmoved(turn.poses, sightings, moving.camera)
    if turning is None or turning.path.world_from_camera is None:
        return moving
    if moving.path.world_from_camera is None or turn.close >= close - MUCH_CLOSER:
        return turning
    return replace(moving, turning=turning.path)


def _close(found: Reconstructed, sightings: Sightings) -> float:
    """Share of the sightings of lasting tracks that the reconstruction explains within half a pixel."""
    length = np.bincount(sightings.track, minlength=sightings.num_tracks)
    error = (reprojection_error(found.scene, sightings) * sightings.slack[sightings.frame])[
        length[sightings.track] >= LASTING
    ]
    return float(np.mean(np.nan_to_num(error, nan=np.inf) <= 0.5)) if len(error) else 0.0


def _with_lens(camera: Camera, sightings: Sightings, info: VideoInfo) -> Camera:
    """The camera with the lens that the sightings show; itself where it was given, or they show none."""
    if camera.source != "assumed" or camera.distortion is not None:
        return camera
    try:
        lens = find_lens(sightings, _focal(camera, info), camera.focal_sigma)
    except NotReconstructed:
        return camera
    if lens is None:
        return camera
    sigma = float(np.sqrt(lens.covariance[0, 0]))
    if sigma > LITTLE * (camera.focal_sigma or ASSUMED_SIGMA):
        return camera
    matrix = camera.camera_matrix.copy()
    matrix[[0, 1], [0, 1]] *= lens.focal / _focal(camera, info)
    return replace(camera_of(lens), camera_matrix=matrix, focal_sigma=sigma, preset=camera.preset)


def _focal(camera: Camera, info: VideoInfo) -> float:
    return float(camera.camera_matrix[0, 0]) * PICTURE_PX / max(info.width, info.height)


def _half_size(info: VideoInfo) -> Floats:
    return 0.5 * PICTURE_PX * np.array([info.width, info.height]) / max(info.width, info.height)


def _sightings(features: FeatureTracks, camera: Camera, info: VideoInfo, num_frames: int) -> Sightings:
    """Tracks of some length, in the pixels of a pinhole camera whose picture is PICTURE_PX wide."""
    num_tracks = int(features.track.max()) + 1 if len(features.track) else 0
    length = np.bincount(features.track, minlength=num_tracks)
    keep = length[features.track] >= min(MIN_LENGTH, num_frames)
    xy = _focal(camera, info) * slopes(features.points_px[keep].astype(np.float64), camera)
    ahead = np.isfinite(xy).all(axis=1)  # a pinhole shows nothing that lies beside it
    frame, track = features.frame[keep][ahead], features.track[keep][ahead]
    return Sightings.of(frame.astype(np.int64), track.astype(np.int64), xy[ahead], num_frames, num_tracks)


def _too_little(sightings: Sightings, info: VideoInfo) -> bool:
    """Whether most frames have too few corners, or corners in one part of the picture only."""
    count = np.diff(sightings.first)
    enough = np.flatnonzero(count >= MIN_PER_FRAME)
    spread = sum(num_thirds(sightings.at(f)[1], _half_size(info)) >= MIN_THIRDS for f in enough)
    return spread < MIN_COVERAGE * len(count)


def _none(reason: str, camera: Camera) -> EstimatedPath:
    none = np.zeros(0, np.int64)
    return EstimatedPath(CameraPath(None, "none", "none", reason), camera, np.zeros((0, 3)), none, none, {})


def _unmoved(poses: Floats, sightings: Sightings, camera: Camera) -> EstimatedPath:
    """A path whose places are all the same. Frames without enough corners are NaN: nothing was measured there."""
    poses = poses.copy()
    poses[np.diff(sightings.first) < MIN_PER_FRAME] = np.nan
    known = np.isfinite(poses).all(axis=(1, 2))
    if known.mean() < MIN_COVERAGE:
        return _none("few_tracks", camera)
    reason = "static" if (poses[known] == np.eye(4)).all() else "pure_rotation"
    path = CameraPath(_from_first(poses), "metric", "estimated", reason)
    return replace(_none("", camera), path=path, numbers={"camera_coverage": float(known.mean())})


def _from_first(world_from_camera: Floats) -> Floats:
    """The same path in the frame of its first known camera."""
    first = np.flatnonzero(np.isfinite(world_from_camera).all(axis=(1, 2)))[0]
    return np.linalg.inv(world_from_camera[first]) @ world_from_camera


def _moving(found: Reconstructed, sightings: Sightings, camera: Camera, half_size: Floats) -> EstimatedPath:
    """The reconstruction where it explains what was seen; its frames without enough support are NaN."""
    num_frames = len(sightings.first) - 1
    scene, kept = found.scene, found.sightings
    per_frame = np.bincount(kept.frame, minlength=num_frames)
    thirds = np.array([num_thirds(kept.at(f)[1], half_size) for f in range(num_frames)])
    valid = np.isfinite(scene.poses).all(axis=(1, 2)) & (per_frame >= MIN_PER_FRAME) & (thirds >= MIN_THIRDS)
    explained = _explained(sightings, kept, valid)
    everywhere = valid.any() and np.median(thirds[valid]) >= ALL_THIRDS
    whole = valid.mean() >= WHOLE
    if explained < (MIN_EXPLAINED_EVERYWHERE if everywhere and whole else MIN_EXPLAINED):
        return _none("high_error", camera)
    if explained < SURE_EXPLAINED and not (everywhere or whole):
        return _none("ambiguous", camera)
    if explained < SURE_EXPLAINED and support_rad(scene, sightings) > MAX_SUPPORT_RAD:
        return _none("ambiguous", camera)
    if valid.mean() < MIN_PART or np.median(thirds[valid]) < USUAL_THIRDS:
        return _none("few_tracks", camera)
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


def _explained(sightings: Sightings, kept: Sightings, valid: NDArray[np.bool_]) -> float:
    """Share of the sightings of lasting tracks, in frames with a pose, that the scene agrees with."""
    length = np.bincount(sightings.track, minlength=sightings.num_tracks)
    lasting = length >= LASTING
    total = np.sum(lasting[sightings.track] & valid[sightings.frame])
    return float(np.sum(lasting[kept.track] & valid[kept.frame]) / max(total, 1))
