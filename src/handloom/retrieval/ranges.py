"""A piece of a stored clip: the frames between two times."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from handloom.errors import ConfigError
from handloom.models.embeddings.flow_course import step_ends
from handloom.plural import plural
from handloom.schemas.values import Hands, Tracks, VideoInfo

SLACK_S = 1e-3  # a clip's times are printed with two or three digits


def check_range(from_s: float | None, to_s: float | None) -> None:
    """Raise ConfigError for times that are not in order."""
    for name, value in (("from_s", from_s), ("to_s", to_s)):
        if value is not None and not np.isfinite(value):
            raise ConfigError(f"{name} is {value}", "a time in seconds")
    if from_s is not None and to_s is not None and from_s >= to_s:
        raise ConfigError(f"the range begins at {from_s:g} s and ends at {to_s:g} s", "the start comes before the end")


def frames_in(row: dict[str, Any], from_s: float | None, to_s: float | None) -> NDArray[np.int64]:
    """Indices of the row's frames in [from_s, to_s], seconds of the video's clock.

    Raises:
        ConfigError: the range lies outside the clip, or holds fewer than two frames.
    """
    times, clip_id = np.asarray(row["frame_s"], np.float64), row["clip_id"]
    start_s, end_s = float(row["start_s"]), row["end_s"]
    end_s = float(times[-1]) if end_s is None else float(end_s)
    low, high = start_s if from_s is None else from_s, end_s if to_s is None else to_s
    if low < start_s - SLACK_S or high > end_s + SLACK_S or low >= high:
        asked = [f"{value:g}" if value is not None else end for value, end in ((from_s, "start"), (to_s, "end"))]
        raise ConfigError(
            f"the range {asked[0]} to {asked[1]} s is not inside clip {clip_id}, which is {start_s:g} to {end_s:g} s",
            "times count from the start of the clip's video, as in the clip's id and in search results",
        )
    inside = np.flatnonzero((times >= low - SLACK_S) & (times <= high + SLACK_S))
    if len(inside) < 2:
        step = f"; its frames are {np.median(np.diff(times)):.3g} s apart" if len(times) > 1 else ""
        raise ConfigError(
            f"the range {low:g} to {high:g} s holds {plural(len(inside), 'frame')} of clip {clip_id}, expected two or "
            f"more{step}",
            "give a longer range",
        )
    return inside


def piece(row: dict[str, Any], frames: NDArray[np.int64]) -> dict[str, Any]:
    """The columns of hands, tracks and images for these frames alone; what the row lacks is left out."""
    times = np.asarray(row["frame_s"], np.float64)[frames]
    kept: dict[str, Any] = {"frame_s": times}
    for name in ("hand_visible", "hand_infilled", "hand_confidence", "hand_keypoints_px", "hand_keypoints_cam_m"):
        kept[name] = None if row.get(name) is None else row[name][frames]
    for name in ("track_points_px", "track_visible"):
        kept[name] = None if row.get(name) is None else row[name][frames]
    for name in ("track_query_frame", "track_kind"):
        kept[name] = row.get(name)
    if row.get("motion_steps") is not None:
        ends = step_ends(len(row["motion_steps"]), np.asarray(row["frame_s"], np.float64))
        middles = (ends[:-1] + ends[1:]) / 2
        kept["motion_steps"] = row["motion_steps"][(middles >= times[0]) & (middles <= times[-1])]
    if row.get("frame_jpeg") is not None:
        kept["frame_jpeg"] = [row["frame_jpeg"][i] for i in frames]
    return kept | {name: row.get(name) for name in ("clip_id", "width", "height", "fps", "codec")}


def motion_of(row: dict[str, Any], *, mirrored: bool = False) -> NDArray[np.float32] | None:
    """The embedding `motion` of a row or of a piece; None if its columns were not computed, or nothing is seen."""
    from handloom.models.embeddings.motion import encode_motion

    if row.get("hand_visible") is None or row.get("track_visible") is None or row.get("hand_keypoints_cam_m") is None:
        return None
    hands = Hands(*(row[f"hand_{n}"] for n in ("visible", "infilled", "confidence", "keypoints_px", "keypoints_cam_m")))
    tracks = Tracks(*(row[f"track_{n}"] for n in ("points_px", "visible", "query_frame", "kind")))
    times_s = row["frame_s"]
    size = (row["width"], row["height"], row["fps"], row["codec"], "", 0)
    info = VideoInfo(*size, float(times_s[0]), float(times_s[-1]), len(times_s))
    return encode_motion(hands, tracks, times_s, info, mirrored=mirrored)
