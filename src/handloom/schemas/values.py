"""The inputs and outputs of the stages.

Letters of shapes: T sampled frames, H = 2 hands (0 left, 1 right: the person's own), K = 21 keypoints (in the order of
`schemas.hand_topology`), N tracks. NaN marks a missing value.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

NUM_HANDS = 2
NUM_KEYPOINTS = 21
LEFT, RIGHT = 0, 1
WORLD_SCALES = ("metric", "arbitrary", "none")  # of a camera path's unit
CAMERA_SOURCES = ("given", "estimated", "assumed")  # of intrinsics


@dataclass(frozen=True)
class VideoInfo:
    """A video stream as its container describes it, as players show it: upright, in square pixels.

    width, height: as shown; a stored image may have fewer or more columns (`pixel_aspect`), or lie on its side.
    notes: keys of `VIDEO_NOTES`.
    """

    width: int
    height: int
    fps: float  # average rate of the container
    codec: str
    pix_fmt: str
    rotation: int  # degrees clockwise that were applied: 0, 90, 180, 270
    start_s: float  # time of the first frame
    end_s: float  # time of the last frame plus its duration
    num_frames: int
    mirrored: bool = False  # left and right of the stored image were exchanged, before it was turned
    pixel_aspect: float = 1.0  # width over height of a stored pixel
    stream: int = 0  # number of the stream in its file
    notes: tuple[str, ...] = ()


VIDEO_NOTES: Final[dict[str, str]] = {
    "several_streams": "the file holds several video streams; `video_stream` says which one was read",
    "mirrored": "the file says that players mirror the image; frames are as players show them",
    "turned_askew": "the file turns the image by an angle between quarter turns; the nearest was applied",
    "interlaced": "each frame holds two half images of different times; they were not separated",
    "hdr_pq": "colours are coded for HDR (PQ); they were not tone-mapped, images look pale",
    "hdr_hlg": "colours are coded for HDR (HLG); they were not tone-mapped, images look pale",
    "clock_restarts": "the file's clock starts again (joined files): times go on from the part before",
    "start_left_out": "the first frames need others from before the file's start: the video begins after them",
    "untimed_left_out": "some frames, at most a tenth of a clip's, have no time in the file; they were left out",
    "size_changes": "the image's size changes in the video; `width` and `height` are those of the clip",
}
"""What is unusual about a video: the values that `video_notes` can have."""


@dataclass(frozen=True)
class Camera:
    """Intrinsics in pixels of the source.

    camera_matrix: (3, 3) float64. source: `given`, `estimated` or `assumed`. distortion: the coefficients of `model`,
    or None for a pinhole. model: `opencv` (OpenCV's polynomial; without distortion a pinhole), `fisheye`
    (Kannala-Brandt, OpenCV's four numbers), `fisheye624` (Project Aria) or `thin_prism_fisheye` (COLMAP): their numbers
    in `geometry.camera.distortion.MODELS`. focal_sigma: relative standard deviation of the focal length, None where it
    was given or nothing is known. preset: name of the camera preset it was made from.
    """

    camera_matrix: NDArray[np.float64]
    source: str
    distortion: NDArray[np.float64] | None = None
    model: str = "opencv"
    focal_sigma: float | None = None
    preset: str | None = None


@dataclass(frozen=True)
class HandDoubts:
    """Doubts about visible hands, (T, 2) bool each.

    side_unsure: it may be the person's other hand, or somebody else's. unsupported: no hand lies at its keypoints;
    None: not checked.
    """

    side_unsure: NDArray[np.bool_]
    unsupported: NDArray[np.bool_] | None = None


@dataclass(frozen=True)
class OtherHands:
    """Hands in a first-person view that are not the camera wearer's: O detections, ordered by frame, then by hand.

    frame: (O,) int32, index of the sampled frame. hand: (O,) int32, number of the hand within the clip: 0 for the first
    that is seen; a hand that is lost for long gets a new number. confidence: (O,) float32, the model's score that it
    is a hand. right_probability: (O,) float32, that it is its owner's right one. wearer_confidence: (O,) float32, the
    probability that it is the wearer's after all. keypoints_px: (O, 21, 2) float32, source pixels, as measured.
    """

    frame: NDArray[np.int32]
    hand: NDArray[np.int32]
    confidence: NDArray[np.float32]
    right_probability: NDArray[np.float32]
    wearer_confidence: NDArray[np.float32]
    keypoints_px: NDArray[np.float32]


@dataclass(frozen=True)
class HandPoints:
    """Both hands in 2D over a clip, as a hand model finds them. A hand that is not seen is NaN, with `visible` false.

    visible, infilled: (T, 2) bool; an infilled hand is interpolated over a short gap, and is also `visible`.
    confidence: (T, 2) float32, NaN where not visible. keypoints_px: (T, 2, 21, 2) float32, source pixels.
    model_m: (T, 2, 21, 3) float32, the model's own keypoints in metres: axes as the camera's, any origin, unreliable
    tilt. view: `ego` or `exo`, from the images and the clip list; None: no hand was seen and none was given.
    view_log_odds: natural logarithm of the odds that the images are from the person's head, not from outside; None:
    unknown. doubts: None if the model has none. cam_m: (T, 2, 21, 3) float32, metres in the frame of the clip's first
    camera, of a model that places hands itself; None: they are to be fitted. wearer_confidence: (T, 2) float32, the
    probability that a hand is the camera wearer's, NaN where not visible; others: hands that are somebody else's; both
    None: not told apart.
    """

    visible: NDArray[np.bool_]
    infilled: NDArray[np.bool_]
    confidence: NDArray[np.float32]
    keypoints_px: NDArray[np.float32]
    model_m: NDArray[np.float32]
    view: str | None = None
    view_log_odds: float | None = None
    doubts: HandDoubts | None = None
    cam_m: NDArray[np.float32] | None = None
    wearer_confidence: NDArray[np.float32] | None = None
    others: OtherHands | None = None


@dataclass(frozen=True)
class Hands:
    """Both hands over a clip. A hand that is not seen is NaN, with `visible` false.

    visible, infilled: (T, 2) bool. confidence: (T, 2) float32, NaN where not visible.
    keypoints_px: (T, 2, 21, 2) float32, source pixels. keypoints_cam_m: (T, 2, 21, 3) float32, camera frame
    (x right, y down, z forward), metres; NaN also where the lift failed. sigma_m: (T, 2) float32, one standard
    deviation of the hand's distance from the camera, NaN where unknown; None: not estimated. view: as in HandPoints.
    """

    visible: NDArray[np.bool_]
    infilled: NDArray[np.bool_]
    confidence: NDArray[np.float32]
    keypoints_px: NDArray[np.float32]
    keypoints_cam_m: NDArray[np.float32]
    sigma_m: NDArray[np.float32] | None = None
    view: str | None = None


class TrackKind(IntEnum):
    """Why a point was chosen. The grid comes first, in ARM4R's order; a slot that was not needed is NONE."""

    NONE = -1
    GRID = 0
    LEFT_HAND = 1
    RIGHT_HAND = 2
    MOVING = 3
    CORNER = 4


@dataclass(frozen=True)
class LaterGrid:
    """A grid of points that begins in `query_frame`, tracked through L frames around it.

    points_px: (L, G, 2) float32, source pixels, NaN where unknown. visible: (L, G) bool. sigma_px: (L, G) float32, one
    standard deviation of x and of y, source pixels, NaN where unknown; None: not estimated. num_before: how many of the
    L frames come before the query frame.
    """

    query_frame: int
    points_px: NDArray[np.float32]
    visible: NDArray[np.bool_]
    sigma_px: NDArray[np.float32] | None = None
    num_before: int = 0

    @property
    def first_frame(self) -> int:
        """Index in the clip of the first of the L frames."""
        return self.query_frame - self.num_before


@dataclass(frozen=True)
class Tracks:
    """Surface points tracked through a clip.

    points_px: (T, N, 2) float32, source pixels, NaN where unknown. visible: (T, N) bool, seen in this frame; a point
    that was hidden for a while keeps its n. query_frame: (N,) int32, the frame in which the point was chosen, -1 for an
    unused slot. kind: (N,) int8, `TrackKind`. sigma_px: (T, N) float32, one standard deviation of x and of y, source
    pixels, NaN where not visible; None: the tracker gives none. grids: the later ones, in order; None: none were asked
    for.
    """

    points_px: NDArray[np.float32]
    visible: NDArray[np.bool_]
    query_frame: NDArray[np.int32]
    kind: NDArray[np.int8]
    sigma_px: NDArray[np.float32] | None = None
    grids: tuple[LaterGrid, ...] | None = None

    @staticmethod
    def of_grid(points_px: NDArray[np.float32], visible: NDArray[np.bool_]) -> Tracks:
        """Tracks whose queries all lie on the first frame's grid."""
        num = visible.shape[1]
        return Tracks(points_px, visible, np.zeros(num, np.int32), np.full(num, TrackKind.GRID, np.int8))


@dataclass(frozen=True)
class FeatureTracks:
    """Corners of the scene, each tracked for as long as it is visible. The camera's path is estimated from them.

    frame: (M,) int32; track: (M,) int32; points_px: (M, 2) float32, source pixels; sorted by frame, then by track.
    """

    frame: NDArray[np.int32]
    track: NDArray[np.int32]
    points_px: NDArray[np.float32]


@dataclass(frozen=True)
class CameraPath:
    """The camera's poses over a clip.

    world_from_camera: (T, 4, 4) float64, NaN for frames without a pose; None if no frame has one.
    scale: `metric`, `arbitrary` or `none`. source: `given`, `estimated` or `none`. reason: why there are no poses, or
    "". unit_m: metres per unit of the translations: 1 for a metric scale, measured for a given path in another unit,
    None where unknown.
    """

    world_from_camera: NDArray[np.float64] | None
    scale: str
    source: str
    reason: str = ""
    unit_m: float | None = None


@dataclass(frozen=True)
class DepthMaps:
    """Depth along the optical axis. depth_m: (T, h, w) float16 or float32 over the whole image, NaN unknown.

    scale: `metric` or `arbitrary`. source: the provider and its model.
    """

    depth_m: NDArray[np.floating[Any]]
    scale: str
    source: str


@dataclass(frozen=True)
class LiftedTracks:
    """The tracks in 3D. depth_m: (T, N) float32, along the optical axis of that frame's camera, NaN unknown.

    points_world_m: (T, N, 3) float32, None without poses. grids_depth_m: (L, G) float32 of each later grid; None: not
    measured.
    """

    depth_m: NDArray[np.float32]
    points_world_m: NDArray[np.float32] | None
    grids_depth_m: tuple[NDArray[np.float32], ...] | None = None


@dataclass(frozen=True)
class ClipAnalysis:
    """The outputs of all stages for one clip; None: not computed.

    hands_world_m: (T, 2, 21, 3) metres in the world frame of `path`, NaN where unknown. depth_source: `geometry` or the
    source of the depth maps. quality: values of the column `quality`, None: unknown. flags: (T,) int32, `frame_flags`.
    """

    camera: Camera
    path: CameraPath
    hands: Hands
    tracks: Tracks
    hands_world_m: NDArray[np.floating[Any]] | None = None
    lifted: LiftedTracks | None = None
    depth_source: str | None = None
    quality: Mapping[str, float | None] = field(default_factory=dict)
    flags: NDArray[np.int32] | None = None
