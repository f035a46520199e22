"""What moves in a clip at each step of 0.1 s, as 10 numbers: for finding parts of clips, also where no hand is found.

The numbers of `flow_course`, at the clip's own pace, and each step averaged with its neighbours: in which of eight
directions points move, as roots of shares of all points, and how fast, x and y, in sqrt(width * height) a second.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from handloom.models.embeddings.descriptors import NUM_DIRECTIONS
from handloom.models.embeddings.flow_course import ROOT, increasing
from handloom.models.embeddings.motion_signals import measure
from handloom.schemas.values import NUM_HANDS, NUM_KEYPOINTS, Hands, Tracks, VideoInfo

VERSION = "1"
FASTEST = 8.0
"""Speeds are stored up to this; a homography that failed gives any."""


def flow_steps(
    points_px: NDArray[np.floating],
    visible: NDArray[np.bool_],
    keypoints_px: NDArray[np.floating],
    hand_visible: NDArray[np.bool_],
    frame_s: NDArray[np.float64],
    size_px: tuple[int, int],
) -> NDArray[np.float16] | None:
    """(S, 10): S steps of equal length from the first frame to the last, about 0.1 s each. None where no point is seen
    in two steps in a row.

    Args:
        points_px: (T, N, 2) source pixels. visible: (T, N). keypoints_px: (T, 2, 21, 2). hand_visible: (T, 2).
        frame_s: (T,) seconds. size_px: width, height of the source.
    """
    frames = increasing(frame_s)
    if len(frames) < 2:
        return None
    num = len(frame_s)
    unknown = np.full((num, NUM_HANDS, NUM_KEYPOINTS, 3), np.nan, np.float32)
    none = np.zeros((num, NUM_HANDS), bool)
    hands = Hands(hand_visible, none, np.full((num, NUM_HANDS), np.nan, np.float32), keypoints_px, unknown)
    times = frame_s[frames]
    info = VideoInfo(*size_px, 0.0, "", "", 0, float(times[0]), float(times[-1]), len(times))
    motion = measure(hands, Tracks.of_grid(points_px, visible), frame_s, frames, info, flow_alone=True)
    if not motion.any_flow:
        return None
    padded = np.concatenate([motion.flow[:1], motion.flow, motion.flow[-1:]])
    flow = (padded[:-2] + padded[1:-1] + padded[2:]) / 3
    flow[:, :NUM_DIRECTIONS] **= ROOT
    return np.clip(flow, -FASTEST, FASTEST).astype(np.float16)
