"""The path of a camera, from the corners of the still scene.

The world of an estimated path is the camera's own frame in the first frame with a pose (x right, y down, z forward;
the direction of gravity is not known). Its unit is the metre where the scale was found, else the median distance of the
scene's points from that first camera.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from handloom.geometry.camera.accept import MIN_COVERAGE, MIN_PART, EstimatedPath, close, moving, no_path, unmoved
from handloom.geometry.camera.intrinsics import slopes
from handloom.geometry.camera.lens_search import ASSUMED_SIGMA, camera_of, find_lens
from handloom.geometry.camera.static_camera import (
    MIN_PER_FRAME,
    MIN_THIRDS,
    calm_part,
    longest_run,
    num_thirds,
    rest_frames,
)
from handloom.geometry.camera.turn_lens import find_turn_lens
from handloom.geometry.camera.turns import TurnPath, turn_path
from handloom.geometry.metric.path_scale import metric_scale
from handloom.geometry.rotations import apart_rad
from handloom.geometry.sfm.key_frames import NotReconstructed
from handloom.geometry.sfm.long_clips import reconstruct_long
from handloom.geometry.sfm.solver import Observations, RadialLens
from handloom.geometry.sfm.views import BLURRED, SHARP, Exactness, with_slack
from handloom.schemas.values import Camera, CameraPath, DepthMaps, FeatureTracks, Hands, VideoInfo

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]

VERSION = "corners, lens, parts, incremental bundle adjustment 6"
REASONS = {
    "too_short": "fewer than four frames, and they differ",
    "too_long": "more than 6000 frames of a moving camera: cut the video into clips",
    "few_tracks": "too few corners of the scene can be followed, or only in one part of the image",
    "no_parallax": "the image changes too little for depth, and not as by a camera that only turns",
    "high_error": "no camera motion explains most of what is seen: much of the scene moves, or the tracks are bad",
    "ambiguous": "a path was found, but from neither half of the tracks alone",
    "static": "there is a path: the camera was measured not to move",
    "pure_rotation": "there is a path: the camera turned on the spot, or moved too little to tell how far",
}
"""Meanings of `CameraPath.reason`. The last two come with a path."""
IMAGE_PX = 640.0  # thresholds are for images whose longer side has so many pixels
MIN_LENGTH = 3  # least observations of a track
MIN_FRAMES, MAX_FRAMES = 4, 6000
"""A moving camera's path drifts, since loops are not closed. Simulated, a head that looks around a room: 0.1 degrees
and 3 mm over 1800 frames; over 6000 0.1 degrees in the median, 0.45 degrees and 0.10 m at most."""
MUCH_CLOSER = 0.04
"""By this share a moving camera must explain more observations closely than a turning one, which has fewer
parameters."""
MUCH_CLOSER_THAN_TURNS = 0.1
"""The same where the lens was found from turns alone: cameras that only turned, over real stills, have 0.06 to 0.09."""
ALIKE_RAD = np.radians(1.2)
"""Largest difference of turns alone from the path's turns, to replace them. EgoDex: 0.6 degrees (0.4 from the truth)
where the head moved by 4 cm, 1.8 (2.7) where it moved by 13; the path itself is 0.4 to 0.7, and 0.9 from the truth."""
MUCH_AS_WIDE = 0.9
"""Least share of the frames placed by a moving camera's path that turns alone must place to replace it: 0.57 for a head
that rested for half of a clip and then moved on."""
MUCH_PARALLAX_PX = 10.0  # between the first two views: the camera did not only turn
MOST_COST, GOOD_COST = 1.0, 0.6
"""Costs of the lens's key frames. Above the first no path of a moving camera was found with `SHARP` in 110 clips, so it
is not tried; one was at 0.95, in a virtual room through a fisheye. Below the second the second try uses the same lens:
searched again it was nearly the same (372 and 367 px, 324 and 325); at 0.78 it was not (341 and 351), and an Ego4D clip
lost its path."""
LITTLE = 0.8  # of the assumed focal length's uncertainty: a lens with more of it left is not used


def estimate_path(
    features: FeatureTracks,
    hands: Hands | None,
    camera: Camera,
    frame_s: Floats,
    info: VideoInfo,
    depth: DepthMaps | None = None,
) -> EstimatedPath:
    """The camera's path from corners of the still scene; `none` with a reason (`REASONS`) where it is not found.

    A camera that stands still, or only turns, has a path, too, if that was measured: corners all over the image that
    stay within half a pixel (of 640), or that one rotation per frame explains. The camera has then moved by less than
    about 0.2 percent of the distance to the scene, and its world needs no scale: `metric`.

    Args:
        features: corners, hands masked.
        hands: for the metric scale; None or without metres: `arbitrary`.
        frame_s: (T,) seconds.
        depth: metric maps; they go before the hands.
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
    """The same path in metres, where hands or depth maps give its unit (`metric.path_scale`); else unchanged."""
    path = estimated.path
    if path.scale != "arbitrary" or path.world_from_camera is None:
        return estimated
    points, camera = estimated.points_world, estimated.camera
    found = metric_scale(path.world_from_camera, points, hands, camera, frame_s, depth, info)
    if found is None:
        turning = estimated.turning
        alike = hands is not None and turning is not None and _turns_alike(path, turning)
        return _as_turning(turning, camera) if turning is not None and alike else estimated
    world_from_camera = path.world_from_camera.copy()
    world_from_camera[:, :3, 3] *= found.metres
    numbers = estimated.numbers | {"camera_scale_sigma": found.sigma}
    path = replace(path, world_from_camera=world_from_camera, scale="metric")
    return replace(estimated, path=path, points_world=points * found.metres, numbers=numbers)


def _turns_alike(path: CameraPath, turning: CameraPath) -> bool:
    """Whether turns alone are those of the path: they take a head's way to the side for a turn, too."""
    moved, turned = path.world_from_camera, turning.world_from_camera
    if moved is None or turned is None:
        return False
    both = _placed(path) & _placed(turning)
    return bool(both.any()) and apart_rad(moved[both, :3, :3], turned[both, :3, :3]) <= ALIKE_RAD


def _as_turning(turning: CameraPath, camera: Camera) -> EstimatedPath:
    """The turns alone: of a camera that moved too little for a unit, they place hands in metres."""
    nothing = np.zeros(0, np.int64)
    numbers = {"camera_coverage": float(_placed(turning).mean())}
    return EstimatedPath(turning, camera, np.zeros((0, 3)), nothing, nothing, numbers)


def _placed(path: CameraPath) -> Flags:
    """(T,) frames with a pose; (0,) without poses."""
    poses = path.world_from_camera
    return np.zeros(0, bool) if poses is None else np.isfinite(poses).all(axis=(1, 2))


def _estimated(features: FeatureTracks, camera: Camera, num_frames: int, info: VideoInfo) -> EstimatedPath:
    """The path in the longest run of frames that corners connect; else in the part of it in which the camera rests."""
    observations = _observations(features, camera, info, num_frames)
    if num_frames < 2:
        return no_path("too_short", camera)
    run = longest_run(observations)
    found = _of_part(run, observations, features, camera, info)
    if found.path.world_from_camera is None:
        calm = calm_part(observations.kept(run[observations.frame]), _coarse(info))
        if calm is not None and calm.mean() >= MIN_PART:
            rest = _of_part(calm, observations, features, camera, info)
            return found if rest.path.world_from_camera is None else rest
    return found


def _of_part(
    part: Flags, observations: Observations, features: FeatureTracks, camera: Camera, info: VideoInfo
) -> EstimatedPath:
    """The path in some frames (T,) of the clip; the others are NaN."""
    observations = observations.kept(part[observations.frame])
    num_frames = len(part)
    if _too_little(observations, info, part):
        return no_path("few_tracks", camera)
    rests = rest_frames(observations, _half_size(info), _coarse(info))
    if rests is not None:
        poses = np.full((num_frames, 4, 4), np.nan)
        poses[rests] = np.eye(4)
        return unmoved(poses, observations, camera, part)
    if num_frames < MIN_FRAMES:
        return no_path("too_short", camera)
    if part.sum() > MAX_FRAMES:
        return no_path("too_long", camera)
    lenses = _lenses(camera, with_slack(observations, SHARP), info)
    tried = _tried(part, features, camera, info, SHARP, lenses)
    if tried.path.world_from_camera is None and tried.path.reason in ("high_error", "ambiguous"):
        if lenses.cost > GOOD_COST:
            lenses = _lenses(camera, with_slack(observations, BLURRED), info)
        again = _tried(part, features, camera, info, BLURRED, lenses)
        return tried if again.path.world_from_camera is None else again
    return tried


@dataclass(frozen=True)
class _Lenses:
    """The camera with the lens found from turns alone, and from a moving camera's views; unchanged where none was
    found.
    cost: of these views with their lens (`RadialLens.cost`); 0 where no lens was searched for."""

    turning: Camera
    moving: Camera
    cost: float


def _lenses(camera: Camera, seen: Observations, info: VideoInfo) -> _Lenses:
    turning, _ = _with_lens(camera, seen, info, find_turn_lens)
    return _Lenses(turning, *_with_lens(camera, seen, info, find_lens))


def _tried(
    part: Flags, features: FeatureTracks, camera: Camera, info: VideoInfo, exact: Exactness, lenses: _Lenses
) -> EstimatedPath:
    """The path of a camera that moves, or only turns, with the lenses that were found; else none, with the reason."""

    def straight(camera: Camera) -> Observations:
        pixels = _observations(features, camera, info, len(part))
        return with_slack(pixels.kept(part[pixels.frame]), exact)

    moving_camera = lenses.moving
    turns_alone = lenses.turning is not camera
    moving_seen = straight(moving_camera)
    turned: tuple[EstimatedPath, TurnPath] | None = None
    if exact is SHARP and lenses.cost > MOST_COST and not turns_alone:
        turned = _turning(moving_seen, moving_camera, info, part)
        if turned is None:
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
        alone = _turning(straight(lenses.turning), lenses.turning, info, part)
        if alone is not None and (moved.path.world_from_camera is None or alone[1].close >= share - closer):
            return alone[0]
    turned = turned or _turning(moving_seen, moving_camera, info, part)
    if turned is None:
        return moved
    turning, turn = turned
    if moved.path.world_from_camera is None or turn.close >= share - closer:
        return turning
    if _placed(turning.path).sum() < MUCH_AS_WIDE * _placed(moved.path).sum():
        return moved
    return replace(moved, turning=turning.path)


def _turning(
    observations: Observations, camera: Camera, info: VideoInfo, part: Flags
) -> tuple[EstimatedPath, TurnPath] | None:
    """The path of a camera that only turns; None where turns do not explain the observations."""
    turn = turn_path(observations, _focal(camera, info), _half_size(info))
    if turn is None:
        return None
    found = unmoved(turn.poses, observations, camera, part)
    return None if found.path.world_from_camera is None else (found, turn)


def _with_lens(
    camera: Camera,
    observations: Observations,
    info: VideoInfo,
    search: Callable[[Observations, float, float | None], RadialLens | None],
) -> tuple[Camera, float]:
    """The camera with the lens that the observations show, and its cost; itself where it was given, or they show
    none."""
    if camera.source != "assumed" or camera.distortion is not None:
        return camera, 0.0
    try:
        lens = search(observations, _focal(camera, info), camera.focal_sigma)
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
    return float(camera.camera_matrix[0, 0]) * IMAGE_PX / max(info.width, info.height)


def _coarse(info: VideoInfo) -> float:
    """Pixels of a IMAGE_PX wide image per pixel of the clip's, at least 1."""
    return max(IMAGE_PX / max(info.width, info.height), 1.0)


def _half_size(info: VideoInfo) -> Floats:
    return 0.5 * IMAGE_PX * np.array([info.width, info.height]) / max(info.width, info.height)


def _observations(features: FeatureTracks, camera: Camera, info: VideoInfo, num_frames: int) -> Observations:
    """Tracks of `MIN_LENGTH` and more, in pixels of a pinhole camera whose image is IMAGE_PX wide."""
    num_tracks = int(features.track.max()) + 1 if len(features.track) else 0
    length = np.bincount(features.track, minlength=num_tracks)
    keep = length[features.track] >= min(MIN_LENGTH, num_frames)
    xy = _focal(camera, info) * slopes(features.points_px[keep].astype(np.float64), camera)
    ahead = np.isfinite(xy).all(axis=1)  # a pinhole shows nothing beyond 85 degrees
    frame, track = features.frame[keep][ahead], features.track[keep][ahead]
    return Observations.of(frame.astype(np.int64), track.astype(np.int64), xy[ahead], num_frames, num_tracks)


def _too_little(observations: Observations, info: VideoInfo, part: Flags) -> bool:
    """Whether most frames of a part have too few corners, or corners in one region of the image only."""
    count = np.diff(observations.first)
    enough = np.flatnonzero(count >= MIN_PER_FRAME)
    spread = sum(num_thirds(observations.at(f)[1], _half_size(info)) >= MIN_THIRDS for f in enough)
    return spread < MIN_COVERAGE * part.sum()
