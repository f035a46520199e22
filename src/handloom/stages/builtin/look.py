"""The stage of what is to be seen in a clip, by a small learned network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

from handloom.models.embeddings.lite0.weights import FILE, LICENCE
from handloom.models.embeddings.look import FRAMES, MODEL, NAME, LookEncoder, look_identity
from handloom.stages.stage import ClipInput, FrameRequest, Stage, embedding_field

COLUMN = f"embedding_{NAME}"


class Look(Stage):
    """`embedding_look`: the mean over frames of the clip; null where the row stores none."""

    version = "1"
    frames = FrameRequest(stored=True, count=FRAMES, optional=True)
    _encoder: LookEncoder | None = None

    def fields(self) -> Sequence[pa.Field]:
        return [embedding_field(NAME, LookEncoder.dim, model=MODEL, version=FILE.digest, licence=LICENCE)]

    def identity(self) -> Mapping[str, str]:
        return look_identity()

    def compute(self, clips: Sequence[ClipInput]) -> Sequence[Mapping[str, Any]]:
        return [{COLUMN: self._one(clip)} for clip in clips]

    def _one(self, clip: ClipInput) -> Any:
        if clip.frames is None or not len(clip.frames):
            return None
        if self._encoder is None:  # 0.2 s: not where nobody stores frames
            self._encoder = LookEncoder()
        return self._encoder.encode_clip(clip.frames)

    def close(self) -> None:
        self._encoder = None
