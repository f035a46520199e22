"""Hands, tracks and the camera's path compared with each other: numbers of a clip, and flags of its frames.

What is measured twice is compared: the motion of a hand by the model and by the points on it, points at rest as the
camera's path projects them and as they are seen, a hand's bones over time. Unknown is None, or no flag.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from handloom.geometry.camera.intrinsics import project
from handloom.geometry.camera.world import metric_poses, to_camera, to_world
from handloom.geometry.image_stats import ImageNumbers
from handloom.geometry.tracks.on_hands import either_side, hand_sizes_px, hand_track_residuals
from handloom.geometry.tracks.quality import lost_shares
from handloom.schemas.hand_topology import BONES, PALM
from handloom.schemas.tables.frame_flags import NOT_THERE, FrameFlag
from handloom.schemas.values import (
    LEFT,
    RIGHT,
    Camera,
    CameraPath,
    HandDoubts,
    Hands,
    LiftedTracks,
    TrackKind,
    Tracks,
    VideoInfo,
)

Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]

# Limits of flags, chosen by hand, not fitted: rendered clips with one fault get the flag of that fault and no other.
# The images.
BLUR_SHARE = 0.35  # of the median detail of the frames around: left by a motion blur of some pixels
BLUR_AROUND_S = 1.0  # to either side: the detail changes as the camera turns
NO_DETAIL = 2.0  # variance of the Laplacian at working size: less than that of a decoded image's noise
DARK = 16 / 255  # black in video levels
SATURATED_SHARE = 0.3  # a window or a lamp covers less
# The hands.
HAND_SPEED_M_S = 5.0  # reaching is below 2 m/s, quick throws come to 5 (with a blur in which no model finds a hand)
LEAST_CONFIDENCE = 0.3
SIGMA_SHARE = 0.35  # of the distance; hand size and tilt give 0.15. The focal length's share is added
SAME_PLACE = 0.25  # mean distance of the two hands' corresponding keypoints, in hand sizes
OFF_TRACKS = 0.15  # median residual of the tracked points, in hand sizes: about half a palm's width a frame
# The tracks and the path.
FEW_SHARE = 0.15  # of the points chosen so far
LOST_SHARE = 1 / 3  # of the grid's visible points, in one step
COMPARED = 300  # points at most, evenly taken from all
STILL_TRACKS = 8  # least number of points to judge a pose by
STILL_SHARE = 0.6  # least share of a point's frames in which it has one place in the world
STILL_SPREAD = 1e-4  # of its distance: `tracks.lift` gives a point at rest the same place in all frames
CAMERA_OFF = 0.01  # median residual over the focal length: 4 px at 400 px, four standard deviations of a track

_HELD = (TrackKind.NONE, TrackKind.LEFT_HAND, TrackKind.RIGHT_HAND)


@dataclass(frozen=True)
class _Signs:
    """(T,) or (T, 2) numbers from which flags are set; NaN unknown."""

    speed_m_s: Floats  # (T, 2), the faster of the steps to and from the frame
    off_tracks: Floats  # (T, 2), in hand sizes
    camera_px: Floats  # (T,)


def cross_quality(
    hands: Hands,
    tracks: Tracks,
    lifted: LiftedTracks | None,
    path: CameraPath,
    camera: Camera,
    info: VideoInfo,
    frame_s: NDArray[np.float64],
    images: ImageNumbers,
    cuts: Sequence[int] | NDArray[np.integer[Any]] = (),
    doubts: HandDoubts | None = None,
    lost: Floats | None = None,
) -> tuple[dict[str, float | None], NDArray[np.int32]]:
    """The numbers named in `FIELDS`, None unknown (`schemas.tables.arrow` has their meanings); and (T,) frame flags.

    Hands are measured in the world where poses are metric, else in the camera frame, whose own motion then adds to
    theirs.

    cuts: first frames of all shots but the first. lost: (T,) of `lost_shares`; None: computed here.
    """
    poses = metric_poses(path)
    points = hands.keypoints_cam_m.astype(np.float64)
    points[~hands.visible] = np.nan
    if poses is not None:
        placed = np.isfinite(poses).all(axis=(1, 2))
        points[placed] = to_world(points[placed], poses[placed])
        points[~placed] = np.nan
    speed = palm_speeds(points, frame_s)
    residual_px, by_hand = hand_track_residuals(hands, tracks)
    camera_px, of_frame = camera_residuals(tracks, lifted, poses, camera)
    signs = _Signs(either_side(speed, len(points)), by_hand, of_frame)
    flags = _flags(hands, tracks, path, camera, frame_s, images, signs, doubts)
    lost = lost_shares(tracks, hands, info, cuts) if lost is None else lost
    with np.errstate(invalid="ignore"):
        flags[lost > LOST_SHARE] |= FrameFlag.TRACKS_LOST.value
    flags[np.asarray(cuts, np.int64)] |= FrameFlag.CUT.value
    sigma = np.zeros(0) if hands.sigma_m is None else hands.sigma_m[hands.visible]
    suspect = (flags & ~int(NOT_THERE)) != 0
    numbers = {
        "hand_jitter_mm": _median(1000 * _bends(points)),
        "hand_bone_cv": bone_variation(hands),
        "hand_sigma_mm": _median(1000 * sigma),
        "hand_max_speed_m_s": float(np.nanmax(speed)) if np.isfinite(speed).any() else None,
        "hand_track_residual_px": _median(residual_px),
        "camera_residual_px": _median(camera_px),
        "share_flagged": float(suspect.mean()) if len(suspect) else None,
    }
    return numbers, flags


FIELDS = (
    "hand_jitter_mm",
    "hand_bone_cv",
    "hand_sigma_mm",
    "hand_max_speed_m_s",
    "hand_track_residual_px",
    "camera_residual_px",
    "share_flagged",
)


def camera_residuals(
    tracks: Tracks, lifted: LiftedTracks | None, poses: Floats | None, camera: Camera
) -> tuple[Floats, Floats]:
    """Reprojection residuals, source pixels, flat, of the points that have one place in the world in most of their
    frames; and their median by frame, (T,), NaN with fewer than `STILL_TRACKS` visible points."""
    of_frame = np.full(len(tracks.visible), np.nan)
    if lifted is None or lifted.points_world_m is None or poses is None or not tracks.visible.any():
        return np.zeros(0), of_frame
    visible = tracks.visible & np.isfinite(poses).all(axis=(1, 2))[:, None]
    known = visible & np.isfinite(lifted.points_world_m).all(-1)
    some = np.flatnonzero((known.sum(0) >= 3) & ~np.isin(tracks.kind, _HELD))
    some = some[:: -(-len(some) // COMPARED) or 1]
    world, visible = lifted.points_world_m[:, some], visible[:, some]
    place = _middle(world)
    near = np.abs(world - place).max(-1) <= np.maximum(STILL_SPREAD * _middle(lifted.depth_m[:, some]), 1e-5)
    still = near.sum(0) >= STILL_SHARE * visible.sum(0)
    some, place, visible = some[still], place[still].astype(np.float64), visible[:, still]
    seen_from = to_camera(np.broadcast_to(place, (len(poses), *place.shape)), poses)
    seen_from[~visible] = np.nan
    off = np.linalg.norm(project(seen_from, camera) - tracks.points_px[:, some], axis=-1)
    enough = np.isfinite(off).sum(1) >= STILL_TRACKS
    of_frame[enough] = np.nanmedian(off[enough], axis=1)
    return off[enough], of_frame


def _middle(values: NDArray[np.floating[Any]]) -> NDArray[np.floating[Any]]:
    """Lower median of the known values over axis 0: always one of them, unlike the median of an even number."""
    ordered = np.sort(values, axis=0)  # NaN last
    middle = np.maximum(np.isfinite(values).sum(axis=0) - 1, 0) // 2
    return np.take_along_axis(ordered, middle[None], axis=0)[0]


def bone_variation(hands: Hands) -> float | None:
    """Standard deviation of bone lengths over their mean, averaged over a hand's bones; of both hands the larger.

    None without a hand that is known in three frames.
    """
    found = []
    for hand in (LEFT, RIGHT):
        points = hands.keypoints_cam_m[hands.visible[:, hand], hand].astype(np.float64)
        points = points[np.isfinite(points).all(axis=(1, 2))]
        if len(points) >= 3:
            first, second = np.array(BONES).T
            lengths = np.linalg.norm(points[:, first] - points[:, second], axis=-1)
            found.append(float(np.mean(lengths.std(axis=0) / np.maximum(lengths.mean(axis=0), 1e-9))))
    return max(found, default=None)


def _flags(
    hands: Hands,
    tracks: Tracks,
    path: CameraPath,
    camera: Camera,
    frame_s: NDArray[np.float64],
    images: ImageNumbers,
    signs: _Signs,
    doubts: HandDoubts | None,
) -> NDArray[np.int32]:
    num = len(frame_s)
    poses = path.world_from_camera
    chosen = (tracks.query_frame >= 0) & (tracks.query_frame <= np.arange(num)[:, None])
    focal_px = float(np.sqrt(camera.camera_matrix[0, 0] * camera.camera_matrix[1, 1]))
    unsure = hands.visible & (hands.confidence < LEAST_CONFIDENCE)
    if hands.sigma_m is not None:
        distance = np.linalg.norm(hands.keypoints_cam_m[:, :, 0], axis=-1)
        unsure |= hands.visible & (hands.sigma_m > np.hypot(SIGMA_SHARE, camera.focal_sigma or 0.0) * distance)
    flagged: dict[FrameFlag, Mask] = {
        FrameFlag.BLURRED: _blurred(images.sharpness, frame_s),
        FrameFlag.DARK: images.brightness < DARK,
        FrameFlag.SATURATED: images.white_share > SATURATED_SHARE,
        FrameFlag.DUPLICATE: images.repeat,
        FrameFlag.NO_HANDS: ~hands.visible.any(axis=1),
        FrameFlag.HANDS_OVERLAP: _same_place(hands),
        FrameFlag.FEW_TRACKS: (tracks.visible & chosen).sum(1) < FEW_SHARE * chosen.sum(1),
        FrameFlag.NO_POSE: np.ones(num, bool) if poses is None else ~np.isfinite(poses).all(axis=(1, 2)),
        FrameFlag.CAMERA_RESIDUAL: signs.camera_px > CAMERA_OFF * focal_px,
    }
    for hand, side in ((LEFT, "LEFT"), (RIGHT, "RIGHT")):
        flagged[FrameFlag[f"HAND_INFILLED_{side}"]] = hands.infilled[:, hand]
        flagged[FrameFlag[f"HAND_JUMP_{side}"]] = signs.speed_m_s[:, hand] > HAND_SPEED_M_S
        flagged[FrameFlag[f"HAND_UNSURE_{side}"]] = unsure[:, hand]
        flagged[FrameFlag[f"HAND_OFF_TRACKS_{side}"]] = signs.off_tracks[:, hand] > OFF_TRACKS
        if doubts is not None:
            flagged[FrameFlag[f"HAND_SIDE_UNSURE_{side}"]] = doubts.side_unsure[:, hand]
        if doubts is not None and doubts.unsupported is not None:
            flagged[FrameFlag[f"HAND_UNSUPPORTED_{side}"]] = doubts.unsupported[:, hand]
    flags = np.zeros(num, np.int32)
    for flag, frames in flagged.items():
        flags[frames] |= flag.value
    return flags


def _blurred(sharpness: Floats, frame_s: NDArray[np.float64]) -> Mask:
    """(T,) frames without detail, or with much less than the median of the frames around."""
    begin = np.searchsorted(frame_s, frame_s - BLUR_AROUND_S, "left")
    end = np.searchsorted(frame_s, frame_s + BLUR_AROUND_S, "right")
    usual = np.array([np.median(sharpness[b:e]) for b, e in zip(begin, end, strict=True)])
    return (sharpness < NO_DETAIL) | (sharpness < BLUR_SHARE * usual)


def _same_place(hands: Hands) -> Mask:
    points = hands.keypoints_px.astype(np.float64)
    apart = np.linalg.norm(points[:, LEFT] - points[:, RIGHT], axis=-1).mean(axis=-1)
    size = np.maximum(*hand_sizes_px(points).T)
    return hands.visible.all(axis=1) & (apart < SAME_PLACE * size)


def palm_speeds(points: Floats, frame_s: NDArray[np.float64]) -> Floats:
    """(T-1, 2) speed of the palm's middle between consecutive frames, m/s; NaN unknown. points: (T, 2, 21, 3) m."""
    middle = points[:, :, PALM].mean(axis=2)
    return np.linalg.norm(np.diff(middle, axis=0), axis=-1) / np.maximum(np.diff(frame_s), 1e-6)[:, None]


def _bends(points: Floats) -> Floats:
    return np.linalg.norm(points[:-2] - 2 * points[1:-1] + points[2:], axis=-1)


def _median(values: NDArray[np.floating[Any]]) -> float | None:
    known = values[np.isfinite(values)]
    return float(np.median(known.astype(np.float64))) if known.size else None
