"""What the stages hand to each other: frozen values, arrays with fixed letters.

T sampled frames, H = 2 hands (0 left, 1 right: the person's own), K = 21 keypoints (MediaPipe order: wrist, then thumb,
index, middle, ring, little finger, each from base to tip), N tracks. NaN marks a missing value.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

NUM_HANDS = 2
NUM_KEYPOINTS = 21
LEFT, RIGHT = 0, 1


@dataclass(frozen=True)
class VideoInfo:
    """A video stream as its container describes it, after its rotation tag (`width`, `height` are what one sees)."""

    width: int
    height: int
    fps: float  # average rate of the container
    codec: str
    pix_fmt: str
    rotation: int  # degrees clockwise that were applied: 0, 90, 180, 270
    start_s: float  # time of the first frame
    end_s: float  # time of the last frame plus its duration
    num_frames: int


@dataclass(frozen=True)
class Camera:
    """Pinhole intrinsics in pixels of the source.

    camera_matrix: (3, 3) float64. distortion: OpenCV coefficients or None. source: `given`, `estimated` or `assumed`.
    """

    camera_matrix: NDArray[np.float64]
    source: str
    distortion: NDArray[np.float64] | None = None


@dataclass(frozen=True)
class Hands:
    """Both hands over a clip. A hand that was not seen is NaN with `visible` false.

    visible, infilled: (T, 2) bool. confidence: (T, 2) float32, NaN where not visible.
    keypoints_px: (T, 2, 21, 2) float32, source pixels. keypoints_cam_m: (T, 2, 21, 3) float32, camera frame
    (x right, y down, z forward), metres; NaN also where the lift failed.
    """

    visible: NDArray[np.bool_]
    infilled: NDArray[np.bool_]
    confidence: NDArray[np.float32]
    keypoints_px: NDArray[np.float32]
    keypoints_cam_m: NDArray[np.float32]


@dataclass(frozen=True)
class Tracks:
    """Surface points followed through a clip, from queries on its first frame.

    points_px: (T, N, 2) float32, source pixels, NaN once lost. visible: (T, N) bool.
    """

    points_px: NDArray[np.float32]
    visible: NDArray[np.bool_]
