"""`ego4d.json`: the videos of Ego4D. Format: ego4d-data.org/docs/data/metadata."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from handloom.errors import ConfigError
from handloom.ingest.files import Options, read_json
from handloom.ingest.human.cutting import MAX_VIDEO_S, Interval, joined
from handloom.ingest.json_shape import BadEntry, entries, is_number, need_list, seconds, text
from handloom.ingest.result import Gathering

_UID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,127}")
_SPLITS = {"train": "train", "val": "validation", "test": "test"}
_SPLIT_KEYS = ("split_em", "split_av", "split_fho")


@dataclass(frozen=True)
class Ego4DVideo:
    """One video. `[start_s, end_s)` is its stream on the container's clock; `redacted` intervals are disjoint, sorted.

    split: what its benchmarks agree on, or None. split_fho: the one of the hands and objects benchmark.
    """

    uid: str
    start_s: float
    end_s: float
    participant: str | None
    split: str | None
    split_fho: str | None
    is_stereo: bool
    redacted: tuple[Interval, ...]


def read_manifest(path: str, gathering: Gathering, options: Options = None) -> dict[str, Ego4DVideo]:
    """`{video_uid: video}`. An entry that cannot be read is named in the problems.

    Raises:
        ConfigError: the file cannot be read, has another shape, or holds no good video.
    """
    content = read_json(path, "manifest", options)
    videos: dict[str, Ego4DVideo] = {}
    listed = need_list(content, "videos", path, "manifest", "ego4d.json; annotations go to --narrations and --fho")
    for i, entry in enumerate(listed):
        try:
            video = _read_video(entry, f"videos[{i}]")
        except BadEntry as error:
            gathering.counts["bad_videos"] += 1
            gathering.problems.append(f"{path.rpartition('/')[2]}: {error}")
        else:
            if videos.setdefault(video.uid, video) != video:
                gathering.counts["bad_videos"] += 1
                text = f"videos[{i}] lists {video.uid} again, with other facts; the first ones count"
                gathering.problems.append(f"{path.rpartition('/')[2]}: {text}")
    if not videos:
        first = f"; the first: {gathering.problems[-len(listed)]}" if listed else ""
        raise ConfigError(f"manifest {path} holds no usable video among {len(listed)}{first}", "expected ego4d.json")
    return videos


def _read_video(entry: Any, where: str) -> Ego4DVideo:
    uid = text(entry, "video_uid", where)
    if not _UID.fullmatch(uid):
        raise BadEntry(f"{where}.video_uid", uid, "letters, digits, '-', '_' and '.'")
    start_s, end_s = _stream(entry, where)
    intervals = []
    for i, interval in enumerate(entries(entry, "redacted_intervals", where)):
        # a video whose redactions cannot be read is left out whole: what must not be seen is not guessed at
        here = f"{where}.redacted_intervals[{i}]"
        intervals.append((seconds(interval, "start_sec", here), seconds(interval, "end_sec", here)))
    participant = entry.get("fb_participant_id")
    return Ego4DVideo(
        uid=uid,
        start_s=start_s,
        end_s=end_s,
        participant=None if participant is None else str(participant),
        split=_agreed(entry),
        split_fho=_SPLITS.get(str(entry.get("split_fho"))),
        is_stereo=entry.get("is_stereo") is True,
        redacted=tuple(joined(intervals)),
    )


def _stream(entry: Any, where: str) -> Interval:
    """From `video_metadata` where it says, else `[0, duration_sec)`."""
    duration_s = seconds(entry, "duration_sec", where)
    metadata = entry.get("video_metadata")
    metadata = metadata if isinstance(metadata, dict) else {}
    start_s, length_s = metadata.get("video_start_sec"), metadata.get("video_duration_sec")
    start_s = float(start_s) if is_number(start_s) and start_s >= 0 else 0.0
    end_s = start_s + float(length_s) if is_number(length_s) and length_s > 0 else duration_s
    if not start_s < end_s <= MAX_VIDEO_S:
        raise BadEntry(f"{where}.duration_sec", duration_s, "more than 0 s and less than a month")
    return start_s, end_s


def _agreed(entry: Any) -> str | None:
    found = {_SPLITS.get(str(entry[key])) for key in _SPLIT_KEYS if entry.get(key) is not None}
    return found.pop() if len(found) == 1 else None
