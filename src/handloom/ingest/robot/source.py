"""What every source of robot episodes yields: raw episodes one by one, or a reason for each that is left out."""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from handloom.schemas.clip import Clip
from handloom.schemas.tables.robot import Signal

DEPTH_FORMAT = re.compile(r"gray(?:9|1[0-9]|f)")
"""Pixel formats of depth videos: one channel of more than 8 bits. One channel of 8 bits is a grey image."""
KEY_VERSION = "1"  # increase it if the same source gives other rows

SKIP_REASONS: Mapping[str, str] = {
    "data_missing": "the file with its states and actions is not there",
    "data_unreadable": "that file cannot be read, or was never closed by its writer",
    "not_in_data": "the file is there but does not hold the episode",
    "not_in_meta": "the episode is in the data but not in the list of episodes",
    "duplicated": "the episode is there twice, with different contents",
    "length_differs": "the list of episodes and the data disagree about the number of frames",
    "bad_timestamps": "its frame times are missing, not finite, or do not rise",
    "bad_values": "states or actions have another width or type than announced",
    "bad_entry": "its entry in the list of episodes lacks a number, or has one that is not whole",
    "video_missing": "a camera's video is not there",
    "video_unreadable": "a camera's video cannot be read",
    "outside_video": "the video does not reach as far as the episode",
    "frames_missing": "too many of its frames are not in the video, or not among the images",
    "bad_pictures": "its images cannot be decoded, are no 8-bit images, or differ in size",
    "damaged": "a camera's video is damaged inside the episode",
    "too_large": "its images are more than a row can hold",
}
"""Why an episode is left out. Other reasons that concern videos are those of rejects (docs/reasons.md)."""


NOTES: Mapping[str, str] = {
    "irregular_times": "timestamps off the grid of its rate",
    "unknown_values": "states or actions that are not finite",
    "no_task": "no text describes its task",
    "no_camera": "no video of this camera is listed for it",
    "depth_camera": "a camera's video holds depth; it is left out",
    "other_file": "its frames lie in another file than the list names",
    "end_differs": "the listed end is not that of the data",
    "video_missing": "only without images: no file, so no clip of this camera",
    "video_clock": "the video's times are off by more than a tenth of a frame",
    "video_count": "the video holds another number of frames than the episodes in it",
    "frames_missing": "a few of its images are missing",
}
"""What may be unusual about an episode that is used."""
WHAT_TO_DO: Mapping[str, str] = {
    "unknown_values": "they are NaN, and training leaves them out; exports of handloom have them on purpose, such as "
    "the last action",
}
"""What some notes mean for a user."""
LEFT_OUT = "; left out"
"""The end of a line about an episode that is not used."""


@dataclass(frozen=True)
class Skip:
    """An episode that is left out: it is counted, printed, and listed by --json."""

    episode_index: int
    reason: str
    detail: str

    def __str__(self) -> str:
        return f"episode {self.episode_index}: {self.reason}: {self.detail}"


class Unusable(Exception):
    """This episode cannot be used; it becomes a `Skip`."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(reason, detail)
        self.reason = reason
        self.detail = detail


@dataclass(frozen=True)
class VideoCamera:
    """A camera whose images are frames of a video: step i is the frame at `clip.start_s + frame_s[i]` seconds.

    present: whether the file was found. tag: part of the episode's key, the file's size in bytes. num_listed: frames of
    all episodes that the dataset lists for this video; None if unknown.
    """

    name: str
    clip: Clip
    present: bool
    tag: str = ""
    num_listed: int | None = None


@dataclass(frozen=True)
class ImageCamera:
    """A camera whose images are single images.

    has(i): whether step i has one. image(i): (h, w, 3) uint8 RGB of it; raises `Unusable` if it cannot be decoded.
    tag: part of the episode's key, a digest of the images.
    """

    name: str
    has: Callable[[int], bool]
    image: Callable[[int], NDArray[np.uint8]]
    tag: str


@dataclass(frozen=True)
class RawEpisode:
    """An episode as its source yields it, its images not yet read.

    frame_s: (T,) float64 seconds from its first frame, which is 0, strictly rising. state, action: None if the source
    has none. notes: (name, detail) of what is unusual about it, see `NOTES`. success: whether the task was done; None
    where the dataset does not say.
    """

    index: int
    frame_s: NDArray[np.float64]
    state: Signal | None
    action: Signal | None
    cameras: tuple[VideoCamera | ImageCamera, ...]
    task: str | None = None
    split: str | None = None
    notes: tuple[tuple[str, str], ...] = ()
    success: bool | None = None


@dataclass(frozen=True)
class SourceFacts:
    """Facts about all episodes of a source. version: "lerobot v3.0", "calvin". num_listed: episodes of its list."""

    dataset: str
    uri: str
    version: str
    fps: float
    robot_type: str | None
    licence: str | None
    view: str | None
    num_listed: int


class RobotSource(Protocol):
    """A dataset of robot episodes. problems: what is wrong with it as a whole, one line each.

    num_unread: number of lists of episodes that cannot be read; each is among the problems.
    """

    facts: SourceFacts
    problems: list[str]
    num_unread: int

    def episodes(self) -> Iterator[RawEpisode | Skip]:
        """Every announced episode exactly once, whole or as a `Skip`; one in memory at a time."""
        ...


@dataclass
class EpisodeTally:
    """Counts of an ingest. reasons: skips by reason. notes: by name. lines: one per skip or note, to be printed."""

    skips: list[Skip] = field(default_factory=list)
    notes: Counter[str] = field(default_factory=Counter)
    lines: list[str] = field(default_factory=list)

    def skip(self, skip: Skip) -> None:
        self.skips.append(skip)
        self.lines.append(f"{skip}{LEFT_OUT}")

    def note(self, index: int, name: str, detail: str) -> None:
        self.notes[name] += 1
        self.lines.append(f"episode {index}: {name}: {detail}")

    @property
    def reasons(self) -> dict[str, int]:
        return dict(sorted(Counter(skip.reason for skip in self.skips).items()))


def source_key(facts: SourceFacts, raw: RawEpisode, images: Mapping[str, Any]) -> str:
    """Hash of everything that an episode's row is made from: 16 hex digits. images: the settings of its images."""
    digest = hashlib.sha256()
    cameras = [[c.name, c.tag, c.clip.to_json() if isinstance(c, VideoCamera) else ""] for c in raw.cameras]
    signals = [None if s is None else [s.names, s.units] for s in (raw.state, raw.action)]
    constant = replace(facts, num_listed=0)
    words = [KEY_VERSION, vars(constant), raw.index, raw.task, raw.split, cameras, signals, dict(images)]
    words += [] if raw.success is None else [{"success": raw.success}]  # keys of before, where it is not known
    digest.update(json.dumps(words, sort_keys=True).encode())
    arrays: list[NDArray[Any]] = [raw.frame_s, *(s.values for s in (raw.state, raw.action) if s is not None)]
    for array in arrays:
        digest.update(f"{array.dtype}{array.shape}".encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()[:16]
