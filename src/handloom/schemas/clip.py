"""`Clip`: one row of the clip list."""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

from handloom.schemas.bounded_json import CAMERA, parse

STORED_SIZE = "picture_size"
"""The key `image_size` of camera files as clips store it: its older name, so that the same file gives the same clip."""


@dataclass(frozen=True)
class Clip:
    """`[start_s, end_s)` of one video: the unit of work, retry and row.

    Times are seconds on the container's own clock, as ffprobe prints them: a video whose first frame stands at 5.0 s
    has no frame at 0.0 s. `end_s` is None if ingest could not read the video's length: the clip then ends with the
    video, and is usually rejected.
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
    camera: str | None = None  # JSON of its camera: from a file, a preset or the video file; None: unknown
    hand: str | None = None  # JSON of the size of its hands (`schemas.hand_size`); None: unknown
    # Which file the video is, None where unknown: see `video.fetch.version`.
    video_bytes: int | None = None
    video_version: str | None = None
    video_digest: str | None = None

    @cached_property
    def camera_digest(self) -> str:
        """Of `camera`, which may hold poses and take 30 KB: 16 hex digits, for a clip without a camera too."""
        return digest_of(self.camera)

    def to_dict(self) -> dict[str, Any]:
        """The clip's values by column of `clip_list`."""
        return asdict(self) | {"camera_digest": self.camera_digest}

    def to_json(self) -> str:
        return json.dumps(asdict(self), sort_keys=True)


def digest_of(camera: str | None) -> str:
    """The column `camera_digest` of a clip with this camera JSON; None: no camera, the digest of an empty text."""
    return hashlib.sha256((camera or "").encode()).hexdigest()[:16]


def camera_label(text: str | None) -> str | None:
    """A camera's JSON in a few words: `preset egodex`, `90 degrees`, `matrix, with poses`; None: no camera."""
    if text is None:
        return None
    try:
        content = parse(text, CAMERA)
    except ValueError:  # `parse_camera` says what is wrong with it
        content = None
    if not isinstance(content, dict):
        return "not a camera"
    known = {
        "preset": f"preset {content.get('preset')}",
        "camera_matrix": "matrix",
        "fov_deg": f"{content.get('fov_deg')} degrees".replace(".0 ", " "),
    }
    lens = next((label for name, label in known.items() if content.get(name) is not None), "no lens")
    more = {"calibrated": "calibrated", "world_from_camera": "with poses"}
    return ", ".join([lens, *(label for name, label in more.items() if content.get(name) is not None)])


def given_size(camera: dict[str, Any]) -> Any:
    """[width, height] of the image that a camera's matrix is for, as it is given; None where that is the video."""
    size = camera.get("image_size")
    return camera.get(STORED_SIZE) if size is None else size


def make_clip_id(dataset: str, video_id: str, start_s: float, end_s: float | None) -> str:
    """`{dataset}:{video_id}:{start_ms}-{end_ms}`; `end` for an unknown end, `nan` for a time that is not finite.

    It holds no path: a clip keeps its id when its video file is moved.
    """
    return f"{dataset}:{video_id}:{_ms(start_s)}-{'end' if end_s is None else _ms(end_s)}"


def words_of(narration: str | None, verb: str | None, noun: str | None) -> str | None:
    """A caption for a clip: its narration, else its verb and noun, else None."""
    return narration or " ".join(word for word in (verb, noun) if word) or None


def _ms(seconds: float) -> str:
    return str(round(seconds * 1000)) if math.isfinite(seconds) else "nan"
