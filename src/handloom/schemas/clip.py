"""One line of the clip list: what should be processed."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass
from typing import Any

MAX_ID_LENGTH = 512


@dataclass(frozen=True)
class Clip:
    """`[start_s, end_s)` of one video: the unit of work, retry and row.

    Times are seconds on the container's own clock, as ffprobe prints them: a video whose first frame stands at 5.0 s
    has no frame at 0.0 s. `end_s` is None where ingest could not read the video's length: the clip then means "to the
    end", and normally ends as a reject.
    """

    clip_id: str
    dataset: str
    video_id: str
    video_uri: str
    start_s: float
    end_s: float | None
    narration: str | None = None
    verb: str | None = None
    noun: str | None = None
    participant: str | None = None
    split: str | None = None
    licence: str | None = None
    view: str | None = None  # "ego", "exo" or None: unknown
    camera: str | None = None  # JSON of its camera: a file's, a preset's, the video file's own words; or None
    hand: str | None = None  # JSON of the size of its hands (`schemas.hand_size`), or None
    # Which file the video is, None where unknown: see `video.version`.
    video_bytes: int | None = None
    video_version: str | None = None
    video_digest: str | None = None

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    def to_json(self) -> str:
        return json.dumps(asdict(self), sort_keys=True)

    @staticmethod
    def from_json(text: str) -> Clip:
        return Clip(**json.loads(text))


def make_clip_id(dataset: str, video_id: str, start_s: float, end_s: float | None) -> str:
    """`{dataset}:{video_id}:{start_ms}-{end_ms}`; `end` stands for an unknown end, `nan` for a time that is none.

    Never a path: the same clip of the same video keeps its id wherever the file lies.
    """
    return f"{dataset}:{video_id}:{_ms(start_s)}-{'end' if end_s is None else _ms(end_s)}"


def words_of(narration: str | None, verb: str | None, noun: str | None) -> str | None:
    """What is said of a clip, to be shown: its narration; without one, verb and noun; None where nothing is said."""
    return narration or " ".join(word for word in (verb, noun) if word) or None


def _ms(seconds: float) -> str:
    return str(round(seconds * 1000)) if math.isfinite(seconds) else "nan"
