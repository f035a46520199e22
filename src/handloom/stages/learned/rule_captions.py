"""Captions without a model: the clip's words and its segments, read out by rules; intents are image embeddings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Annotated, Any, Literal

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pydantic import Field

from handloom.geometry.interactions.words import segment_words
from handloom.models.embeddings.lite0.weights import LICENCE
from handloom.models.embeddings.look import MODEL, LookEncoder, look_identity
from handloom.stages.learned.intents import intent_fields, intent_values, json_text
from handloom.stages.stage import ClipInput, FrameRequest, Stage, StageSettings

ID = "rules/segments"
"""In the place of a prompt's id."""


class RuleCaption(Stage):
    """The columns of `Caption`, without a vision-language model: the same words for the same row, on every machine."""

    version = "1"
    columns = ("narration", "verb", "noun", "segments")

    class Settings(StageSettings):
        frames: int = Field(8, ge=1, le=256)
        """Steps of `intent`, evenly spread; fewer where the clip has fewer frames."""
        grid: tuple[Annotated[int, Field(ge=1, le=8)], Annotated[int, Field(ge=1, le=8)]] = (1, 1)
        """Rows and columns of equal parts of a frame that `intent` embeds, too, after the whole one: [2, 3] tells where
        things are, and makes a step 7 times as wide. [1, 1]: the whole frame alone."""
        grid_of: Literal["image", "features"] = "image"
        """Parts of the image, each of which the network reads enlarged; or of its features of the whole one, which it
        reads once: for [2, 3] at a seventh of the cost."""
        prefix: str = Field("", pattern=r"^([a-z][a-z0-9_]{0,39})?$")
        """Before the columns' names, for a second stage of captions."""

    def __init__(self, name: str, settings: Settings) -> None:
        super().__init__(name, settings)
        self.frames = FrameRequest(stored=True, count=settings.frames, optional=True)

    def fields(self) -> Sequence[pa.Field]:
        prefix, told = self.settings.prefix, {"model": "rules", "prompt": ID}
        found = [pa.field(f"{prefix}{name}", pa.string(), metadata=told) for name in ("caption", "caption_json")]
        return found + intent_fields(prefix, self.dim, LICENCE)

    def identity(self) -> Mapping[str, str]:
        return look_identity()

    def load(self) -> None:
        self._look = LookEncoder()

    def compute(self, clips: Sequence[ClipInput]) -> Sequence[Mapping[str, Any]]:
        return [self._values(clip) for clip in clips]

    def close(self) -> None:
        del self._look

    def _values(self, clip: ClipInput) -> Mapping[str, Any]:
        caption, value = read_out(clip.row)
        values: dict[str, Any] = {"caption": caption, "caption_json": None if value is None else json_text(value)}
        frames = clip.frames
        states = None if frames is None or len(frames) == 0 else self.embedded(frames)
        values |= intent_values(states, clip.frame_s, self.source)
        return {self.settings.prefix + name: found for name, found in values.items()}

    @property
    def dim(self) -> int:
        """Numbers of a step of `intent`."""
        return LookEncoder.dim * self._parts()

    def embedded(self, frames: NDArray[np.uint8]) -> NDArray[np.float32]:
        """(L, h, w, 3) to (L, 1280 P), of unit length: the whole frame and its parts row by row, of equal weight. The
        stage is loaded."""
        if self.settings.grid_of == "features" and all(self._grid()):
            vectors = self._look.encode_parts(frames, *self._grid())
            return vectors.reshape(len(frames), -1) / self._parts() ** 0.5
        found = [self._look.encode(part) for part in (frames, *parts_of(frames, *self._grid()))]
        return np.concatenate(found, axis=1) / len(found) ** 0.5

    def _grid(self) -> tuple[int, int]:
        rows, columns = self.settings.grid
        return (0, 0) if (rows, columns) == (1, 1) else (rows, columns)

    def _parts(self) -> int:
        rows, columns = self._grid()
        return 1 + rows * columns

    @property
    def source(self) -> str:
        """What `intent_source` says."""
        rows, columns = self._grid()
        of = " of its features" if self.settings.grid_of == "features" else ""
        return f"image embedding ({MODEL})" + (f", whole and {rows} x {columns} parts{of}" if rows else "")


def parts_of(frames: NDArray[np.uint8], rows: int, columns: int) -> list[NDArray[np.uint8]]:
    """(L, h, w, 3) in rows x columns parts, row by row, as nearly equal as pixels allow."""
    height, width = frames.shape[1:3]
    tops, lefts = (
        [round(size * n / max(num, 1)) for n in range(num + 1)] for size, num in ((height, rows), (width, columns))
    )
    spans = ((y, x) for y in pairwise(tops) for x in pairwise(lefts))
    return [np.ascontiguousarray(frames[:, top:bottom, left:right]) for (top, bottom), (left, right) in spans]


def read_out(row: Mapping[str, Any]) -> tuple[str | None, dict[str, Any] | None]:
    """The caption of a row, and the same as a dict; both None where it has neither words nor segments."""
    task = _words(row)
    segments = [_segment(number, one) for number, one in enumerate(row.get("segments") or [], 1)]
    if task is None and not segments:
        return None, None
    texts = ([] if task is None else [task]) + [_with_times(one) for one in segments]
    objects = sorted(
        {one[role] for one in segments for role in ("master", "slave") if str(one[role]).startswith("object")}
    )
    return ". ".join(texts) + ".", {"task": task, "objects": objects, "segments": segments}


def _words(row: Mapping[str, Any]) -> str | None:
    """The narration; else verb and noun."""
    narration = (row.get("narration") or "").strip().rstrip(".")
    return narration or " ".join(filter(None, (row.get("verb"), row.get("noun")))).strip() or None


def _segment(number: int, one: Mapping[str, Any]) -> dict[str, Any]:
    told = {name: one.get(name) for name in ("hand", "phase", "master", "slave")}
    times = {name: round(float(one[name]), 3) for name in ("start_s", "end_s")}
    return {"number": number, **times, **told, "text": segment_words(one)}


def _with_times(one: Mapping[str, Any]) -> str:
    return f"{one['start_s']:.2f} s to {one['end_s']:.2f} s, {one['hand']} hand: {one['text']}"
