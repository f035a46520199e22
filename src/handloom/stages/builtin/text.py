"""The stage of a clip's words: what they mean, as a vector."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

from handloom.models.language.sentences import LICENCE, MODEL, NAME, WEIGHTS, SentenceEncoder, sentence_identity
from handloom.models.language.words import vector_of
from handloom.stages.stage import ClipInput, Stage, embedding_field

COLUMN = f"embedding_{NAME}"


class Text(Stage):
    """`embedding_text`: narration, verb and noun by meaning; null where a clip has none of them."""

    version = "1"
    columns = ("narration", "verb", "noun")

    def fields(self) -> Sequence[pa.Field]:
        return [embedding_field(NAME, SentenceEncoder.dim, model=MODEL, version=WEIGHTS.digest, licence=LICENCE)]

    def identity(self) -> Mapping[str, str]:
        return sentence_identity()

    def load(self) -> None:
        self._encoder = SentenceEncoder()

    def compute(self, clips: Sequence[ClipInput]) -> Sequence[Mapping[str, Any]]:
        rows = [clip.row for clip in clips]
        return [{COLUMN: vector_of(self._encoder, row["narration"], row["verb"], row["noun"])} for row in rows]

    def close(self) -> None:
        del self._encoder
