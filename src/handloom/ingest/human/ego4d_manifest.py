"""`ego4d.json`: the videos of Ego4D. Format: ego4d-data.org/docs/data/metadata."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import Field, StringConstraints

from handloom.errors import ConfigError
from handloom.ingest.human.cutting import MAX_VIDEO_S, Interval, joined
from handloom.ingest.result import Gathering
from handloom.io.reading import read_json
from handloom.io.remote import Options
from handloom.schemas.json_format import BadEntry, Entry, Expected, Form, Listed, OrElse, Positive, Seconds, shown

_SPLITS = {"train": "train", "val": "validation", "test": "test"}


@dataclass(frozen=True)
class Ego4DVideo:
    """One video. `[start_s, end_s)` is its stream on the container's clock; `redacted` intervals are disjoint, sorted.

    split: the split in which its benchmarks agree, else None. split_fho: that of the hands and objects benchmark.
    """

    uid: str
    start_s: float
    end_s: float
    participant: str | None
    split: str | None
    split_fho: str | None
    is_stereo: bool
    redacted: tuple[Interval, ...]


class _Interval(Entry):
    start_sec: Seconds
    end_sec: Seconds


class _Stream(Entry):
    """Where the video begins on its container's clock, and how long it is."""

    video_start_sec: Annotated[float, Field(ge=0, allow_inf_nan=False), OrElse(0.0)]
    video_duration_sec: Annotated[Positive | None, OrElse(None)]


class _Video(Entry):
    """If its redacted intervals cannot be read the whole video is left out: they must not be used."""

    video_uid: Annotated[
        str,
        StringConstraints(pattern="^[A-Za-z0-9][A-Za-z0-9_.-]{0,127}$"),
        Expected("letters, digits, '-', '_' and '.', at most 128"),
    ]
    duration_sec: Seconds
    video_metadata: Annotated[_Stream, OrElse(_Stream())]
    redacted_intervals: list[_Interval] | None = None
    fb_participant_id: Any = None
    is_stereo: Any = None
    split_em: Any = None
    split_av: Any = None
    split_fho: Any = None


class _Manifest(Entry):
    videos: Listed


_VIDEO, _MANIFEST = Form(_Video), Form(_Manifest)


def read_manifest(path: str, gathering: Gathering, options: Options = None) -> dict[str, Ego4DVideo]:
    """`{video_uid: video}`. An entry that cannot be read is named in the problems.

    Raises:
        ConfigError: the file cannot be read, has another shape, or holds no good video.
    """
    content = read_json(path, "manifest", options)
    hint = "check that it is ego4d.json; annotations go to --narrations and --fho"
    listed = _MANIFEST.read_file(content, f"manifest {path}", hint).videos
    videos: dict[str, Ego4DVideo] = {}
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
    video = _VIDEO.read(entry, where)
    stream = video.video_metadata
    length_s = stream.video_duration_sec
    start_s = stream.video_start_sec
    end_s = video.duration_sec if length_s is None else start_s + length_s
    if not start_s < end_s <= MAX_VIDEO_S:
        expected = "more than 0 s and less than a month"
        raise BadEntry(f"{where}.duration_sec is {shown(entry['duration_sec'])}, expected {expected}")
    participant = video.fb_participant_id
    return Ego4DVideo(
        uid=video.video_uid,
        start_s=start_s,
        end_s=end_s,
        participant=None if participant is None else str(participant),
        split=_agreed(video),
        split_fho=_SPLITS.get(str(video.split_fho)),
        is_stereo=video.is_stereo is True,
        redacted=tuple(joined((gap.start_sec, gap.end_sec) for gap in video.redacted_intervals or ())),
    )


def _agreed(video: _Video) -> str | None:
    splits = (video.split_em, video.split_av, video.split_fho)
    found = {_SPLITS.get(str(split)) for split in splits if split is not None}
    return found.pop() if len(found) == 1 else None
