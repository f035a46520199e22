"""Where a moving camera was, from the corners of the still scene.

World of an estimated path: the camera's own frame in the first frame with a pose (x right, y down, z forward, so the
direction of gravity is not known). Its unit is the metre where the scale could be found, else the median distance of
the scene's points from that first camera.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from handloom.geometry.camera.accept import MIN_COVERAGE, MIN_PART, EstimatedPath, close, moving, no_path, unmoved
from handloom.geometry.camera.intrinsics import slopes
from handloom.geometry.camera.lens_search import ASSUMED_SIGMA, camera_of, find_lens
from handloom.geometry.camera.rest import MIN_PER_FRAME, MIN_THIRDS, calm_part, longest_run, num_thirds, rest_frames
from handloom.geometry.camera.turn_lens import find_turn_lens
from handloom.geometry.camera.turns import TurnPath, turn_path
from handloom.geometry.metric.path_scale import metric_scale
from handloom.geometry.sfm.pieces import reconstruct_long
from handloom.geometry.sfm.reconstruct import NotReconstructed
from handloom.geometry.sfm.solver import Observations, RadialLens
from handloom.geometry.sfm.views import BLURRED, SHARP, Exactness, apart_rad, with_slack
from handloom.schemas.values import Camera, CameraPath, DepthMaps, FeatureTracks, Hands, VideoInfo

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]

VERSION = "corners, lens, parts, incremental bundle adjustment 6"
REASONS = {
    "too_short": "fewer than four frames, and they differ",
    "too_long": "more than 6000 frames of a moving camera: cut the video into clips",
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
MIN_FRAMES, MAX_FRAMES = 4, 6000
"""A moving camera's path drifts, since loops are not closed. Simulated, a head that looks around a room: 0.1 degrees
and 3 mm over 1800 frames; over 6000 0.1 degrees in the median, 0.45 degrees and 0.10 m at most."""
MUCH_CLOSER = 0.04
"""By this share a moving camera must explain more sightings closely than a turning one, which has fewer parameters."""
MUCH_CLOSER_THAN_TURNS = 0.1
"""The same, of a lens that turns alone explain: cameras that only turned, over real stills, 0.06 to 0.09."""
ALIKE_RAD = np.radians(1.2)
"""EgoDex: turns alone are 0.6 degrees from the path's and 0.4 from the truth where the head moved by 4 cm, 1.8 and 2.7
where it moved by 13 (the path: 0.4 to 0.7, and 0.9)."""
MUCH_AS_WIDE = 0.9
"""Of the frames that a moving camera's path places, those that turns alone must place to stand in for it: of a head
that rested for half of a clip and then went off they placed 0.57."""
MUCH_PARALLAX_PX = 10.0  # between the first two views: nothing that only turns
MOST_COST, GOOD_COST = 1.0, 0.6
"""Of the lens's key frames: above the first no moving camera's path was found with `SHARP` in 110 clips, so it is not
tried; at 0.95 one was, of a virtual room through a fisheye. Below the second the lens that was found serves the second
try, too: searched again it came out alike (372 and 367 px, 324 and 325); at 0.78 it did not (341 and 351), and an Ego4D
clip lost its path."""
LITTLE = 0.8  # of the assumed focal length's uncertainty: where more is left, nothing was learned


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
        return _as_turning(estimated) if hands is not None and _turns_alike(estimated) else estimated
    world_from_camera = path.world_from_camera.copy()
    world_from_camera[:, :3, 3] *= found.metres
    numbers = estimated.numbers | {"camera_scale_sigma": found.sigma}
    path = replace(path, world_from_camera=world_from_camera, scale="metric")
    return replace(estimated, path=path, points_world=points * found.metres, numbers=numbers)


def _turns_alike(estimated: EstimatedPath) -> bool:
    """Whether turns alone are those of the path: a head's way to the side, too, is taken for a turn by them."""
    if estimated.turning is None:
        return False
    moving, turning = estimated.path.world_from_camera, estimated.turning.world_from_camera
    both = np.isfinite(moving).all(axis=(1, 2)) & np.isfinite(turning).all(axis=(1, 2))
    return bool(both.any()) and apart_rad(moving[both, :3, :3], turning[both, :3, :3]) <= ALIKE_RAD


def _as_turning(estimated: EstimatedPath) -> EstimatedPath:
    """The turns alone: of a camera that moved so little that its unit cannot be told, they place hands in metres."""
    nothing = np.zeros(0, np.int64)
    numbers = {"camera_coverage": float(_placed(estimated.turning).mean())}
    return EstimatedPath(estimated.turning, estimated.camera, np.zeros((0, 3)), nothing, nothing, numbers)


def _placed(path: CameraPath) -> Flags:
    """(T,) frames with a pose."""
    return np.isfinite(path.world_from_camera).all(axis=(1, 2))


def _estimated(features: FeatureTracks, camera: Camera, num_frames: int, info: VideoInfo) -> EstimatedPath:
    """Of the longest run of frames in which corners go on; else of the part of it in which the camera rests."""
    sightings = _sightings(features, camera, info, num_frames)
    if num_frames < 2:
        return no_path("too_short", camera)
    run = longest_run(sightings)
    found = _of_part(run, sightings, features, camera, info)
    if found.path.world_from_camera is None:
        calm = calm_part(sightings.kept(run[sightings.frame]), _coarse(info))
        if calm is not None and calm.mean() >= MIN_PART:
            rest = _of_part(calm, sightings, features, camera, info)
            return found if rest.path.world_from_camera is None else rest
    return found


def _of_part(
    part: Flags, sightings: Observations, features: FeatureTracks, camera: Camera, info: VideoInfo
) -> EstimatedPath:
    """The path in some frames (T,) of the clip; the others are NaN."""
    sightings = sightings.kept(part[sightings.frame])
    num_frames = len(part)
    if _too_little(sightings, info, part):
        return no_path("few_tracks", camera)
    rests = rest_frames(sightings, _half_size(info), _coarse(info))
    if rests is not None:
        poses = np.full((num_frames, 4, 4), np.nan)
        poses[rests] = np.eye(4)
        return unmoved(poses, sightings, camera, part)
    if num_frames < MIN_FRAMES:
        return no_path("too_short", camera)
    if part.sum() > MAX_FRAMES:
        return no_path("too_long", camera)
    lenses = _lenses(camera, with_slack(sightings, SHARP), info)
    tried = _tried(part, features, camera, info, SHARP, lenses)
    if tried.path.world_from_camera is None and tried.path.reason in ("high_error", "ambiguous"):
        if lenses.cost > GOOD_COST:
            lenses = _lenses(camera, with_slack(sightings, BLURRED), info)
        again = _tried(part, features, camera, info, BLURRED, lenses)
        return tried if again.path.world_from_camera is None else again
    return tried


@dataclass(frozen=True)
class _Lenses:
    """The camera with the lens that turns alone show, and with the one that a moving camera's views show; itself where
    they show none. cost: of these views with their lens (`RadialLens.cost`); 0 where none was searched for."""

    turning: Camera
    moving: Camera
    cost: float


def _lenses(camera: Camera, seen: Observations, info: VideoInfo) -> _Lenses:
    turning, _ = _with_lens(camera, seen, info, find_turn_lens)
    return _Lenses(turning, *_with_lens(camera, seen, info, find_lens))


def _tried(
    part: Flags, features: FeatureTracks, camera: Camera, info: VideoInfo, exact: Exactness, lenses: _Lenses
) -> EstimatedPath:
    """The path of a camera that moves, or only turns, with the lens that was found; none with a reason."""

    def straight(camera: Camera) -> Observations:
        pixels = _sightings(features, camera, info, len(part))
        return with_slack(pixels.kept(part[pixels.frame]), exact)

    moving_camera = lenses.moving
    turns_alone = lenses.turning is not camera
    moving_seen = straight(moving_camera)
    turned: tuple[EstimatedPath, TurnPath] | tuple[None, None] | None = None
    if exact is SHARP and lenses.cost > MOST_COST and not turns_alone:
        turned = _turning(moving_seen, moving_camera, info, part)
        if turned[0] is None:
            return no_path("high_error", moving_camera)
    try:
        found = reconstruct_long(moving_seen, _focal(moving_camera, info))
    except NotReconstructed as error:
        moved, share = no_path(error.reason, moving_camera), 0.0
    else:
        moved = moving(found, moving_seen, moving_camera, _half_size(info), part)
        share = close(found, moving_seen)
        much = found.parallax_px >= MUCH_PARALLAX_PX and not turns_alone
        if moved.path.world_from_camera is not None and much:
            return moved
    closer = MUCH_CLOSER_THAN_TURNS if turns_alone else MUCH_CLOSER
    if turns_alone:
        turning, turn = _turning(straight(lenses.turning), lenses.turning, info, part)
        if turn is not None and (moved.path.world_from_camera is None or turn.close >= share - closer):
            return turning
    turning, turn = turned or _turning(moving_seen, moving_camera, info, part)
    if turn is None:
        return moved
    if moved.path.world_from_camera is None or turn.close >= share - closer:
        return turning
    if _placed(turning.path).sum() < MUCH_AS_WIDE * _placed(moved.path).sum():
        return moved
    return replace(moved, turning=turning.path)


def _turning(
    sightings: Observations, camera: Camera, info: VideoInfo, part: Flags
) -> tuple[EstimatedPath, TurnPath] | tuple[None, None]:
    """The path of a camera that only turns, if that explains what was seen."""
    turn = turn_path(sightings, _focal(camera, info), _half_size(info))
    found = None if turn is None else unmoved(turn.poses, sightings, camera, part)
    return (None, None) if found is None or found.path.world_from_camera is None else (found, turn)


def _with_lens(
    camera: Camera,
    sightings: Observations,
    info: VideoInfo,
    search: Callable[[Observations, float, float | None], RadialLens | None],
) -> tuple[Camera, float]:
    """The camera with the lens that the sightings show, and its cost; itself where it was given, or they show none."""
    if camera.source != "assumed" or camera.distortion is not None:
        return camera, 0.0
    try:
        lens = search(sightings, _focal(camera, info), camera.focal_sigma)
    except NotReconstructed:
        return camera, 0.0
    if lens is None:
        return camera, float("inf")
    sigma = float(np.sqrt(lens.covariance[0, 0]))
    if sigma > LITTLE * (camera.focal_sigma or ASSUMED_SIGMA):
        return camera, lens.cost
    matrix = camera.camera_matrix.copy()
    matrix[[0, 1], [0, 1]] *= lens.focal / _focal(camera, info)
    found = replace(camera_of(lens), camera_matrix=matrix, focal_sigma=sigma, preset=camera.preset)
    return found, lens.cost


def _focal(camera: Camera, info: VideoInfo) -> float:
    return float(camera.camera_matrix[0, 0]) * PICTURE_PX / max(info.width, info.height)


def _coarse(info: VideoInfo) -> float:
    """Pixels of a PICTURE_PX wide picture to one of the clip's, where that is smaller."""
    return max(PICTURE_PX / max(info.width, info.height), 1.0)


def _half_size(info: VideoInfo) -> Floats:
    return 0.5 * PICTURE_PX * np.array([info.width, info.height]) / max(info.width, info.height)


def _sightings(features: FeatureTracks, camera: Camera, info: VideoInfo, num_frames: int) -> Observations:
    """Tracks of some length, in the pixels of a pinhole camera whose picture is PICTURE_PX wide."""
    num_tracks = int(features.track.max()) + 1 if len(features.track) else 0
    length = np.bincount(features.track, minlength=num_tracks)
    keep = length[features.track] >= min(MIN_LENGTH, num_frames)
    xy = _focal(camera, info) * slopes(features.points_px[keep].astype(np.float64), camera)
    ahead = np.isfinite(xy).all(axis=1)  # a pinhole shows nothing that lies beside it
    frame, track = features.frame[keep][ahead], features.track[keep][ahead]
    return Observations.of(frame.astype(np.int64), track.astype(np.int64), xy[ahead], num_frames, num_tracks)


def _too_little(sightings: Observations, info: VideoInfo, part: Flags) -> bool:
    """Whether most frames of a part have too few corners, or corners in one part of the picture only."""
    count = np.diff(sightings.first)
    enough = np.flatnonzero(count >= MIN_PER_FRAME)
    spread = sum(num_thirds(sightings.at(f)[1], _half_size(info)) >= MIN_THIRDS for f in enough)
    return spread < MIN_COVERAGE * part.sum()
