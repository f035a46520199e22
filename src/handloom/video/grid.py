"""Which frames of a video a clip uses: a regular sampling grid laid over the container's timestamps."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from handloom.errors import ClipError
from handloom.schemas.clip import Clip
from handloom.schemas.values import VideoInfo

EDGE_S = 0.0005  # clip times are often rounded to milliseconds
OVERHANG_S = 0.5  # annotations may exceed the video this much at either end (EPIC's are of another frame rate)
MIN_SIDE_PX = 16
TIE_S = 5e-7


def clip_range(clip: Clip, info: VideoInfo) -> tuple[float, float]:
    """The part of the clip's `[start_s, end_s)` that its video holds, seconds; an unknown end means the video's end.

    Raises:
        ClipError: `bad_range`: no valid range; `outside_video`: more than `OVERHANG_S` of it lies outside of the video.
    """
    check_range(clip)
    end_s = info.end_s if clip.end_s is None else clip.end_s
    start_s = max(clip.start_s, info.start_s) if clip.end_s is None else clip.start_s
    where = f"its video runs from {info.start_s:.3f} s to {info.end_s:.3f} s"
    inside = start_s < info.end_s - EDGE_S and end_s > info.start_s + EDGE_S
    if not inside or start_s < info.start_s - OVERHANG_S or end_s > info.end_s + OVERHANG_S:
        raise ClipError(
            clip.clip_id,
            "decode",
            "outside_video",
            f"the clip runs from {start_s:.3f} s to {end_s:.3f} s, but {where}",
            "check that the annotation belongs to this file, and that its times are seconds of the container's clock",
        )
    # The grid begins and ends with the video: beyond it the nearest frames would not be evenly spaced.
    return max(start_s, info.start_s), min(end_s, info.end_s)


def check_range(clip: Clip) -> None:
    """Raise ClipError `bad_range` unless start < end, both finite; the end may be None, and times may be negative."""
    end_s = math.inf if clip.end_s is None else clip.end_s
    finite = math.isfinite(clip.start_s) and (clip.end_s is None or math.isfinite(end_s))
    if not finite or end_s <= clip.start_s:
        raise ClipError(
            clip.clip_id,
            "decode",
            "bad_range",
            f"start_s {clip.start_s} and end_s {clip.end_s} are no range: start must be before end",
            "correct the annotation and ingest it again",
        )


def sample_frames(
    frame_times_s: NDArray[np.float64], start_s: float, end_s: float, sample_hz: float
) -> NDArray[np.intp]:
    """Indices of the frames nearest to the grid `start_s + k / sample_hz`, each frame at most once.

    Only frames with `start_s <= t < end_s` are taken; a range between two frames takes the frame shown at its start.
    A source slower than the grid, or with gaps, therefore gives fewer frames than grid points, never a repeated one.

    Args:
        frame_times_s: (F,) presentation times, ascending.

    Returns:
        (T,) ascending indices into frame_times_s, T >= 1.
    """
    first = int(np.searchsorted(frame_times_s, start_s - EDGE_S, side="left"))
    last = int(np.searchsorted(frame_times_s, end_s - EDGE_S, side="left"))
    if first >= last:
        return np.array([max(first - 1, 0)], dtype=np.intp)
    num_points = max(math.ceil((end_s - start_s) * sample_hz - 1e-6), 1)
    times = frame_times_s[first:last]
    # A frame is taken if a grid point lies between the middles of its two intervals. Ties go to the earlier frame; the
    # small bias keeps float noise from deciding them. Points are counted, not made: a damaged clock may span years.
    middles_s = (times[:-1] + times[1:]) / 2 + TIE_S
    points_before = np.clip(np.floor((middles_s - start_s) * sample_hz) + 1, 0, num_points)
    num_nearest = np.diff(points_before, prepend=0, append=num_points)
    return first + np.flatnonzero(num_nearest).astype(np.intp)


def working_size(width: int, height: int, short_side_px: int) -> tuple[int, int]:
    """(width, height) of the shrunk frame: the short side at most `short_side_px`, both even, never enlarged."""
    scale = min(1.0, short_side_px / min(width, height))
    return max(2, 2 * round(width * scale / 2)), max(2, 2 * round(height * scale / 2))
