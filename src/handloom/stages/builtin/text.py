"""The stages of a clip's words, and of its captions: what they mean, as a vector."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

from handloom.models.language.sentences import LICENCE, MODEL, NAME, WEIGHTS, SentenceEncoder, sentence_identity
from handloom.models.language.words import caption_sentences, mean_vector, vector_of
from handloom.stages.stage import ClipInput, Stage, StageSettings, embedding_field

COLUMN = f"embedding_{NAME}"


class _Sentences(Stage):
    """An embedding of words by the sentence encoder."""

    encodes: str
    """The embedding's name."""

    def fields(self) -> Sequence[pa.Field]:
        told = {"model": MODEL, "version": WEIGHTS.digest, "licence": LICENCE}
        return [embedding_field(self.encodes, SentenceEncoder.dim, **told)]

    def identity(self) -> Mapping[str, str]:
        return sentence_identity()

    def load(self) -> None:
        self._encoder = SentenceEncoder()

    def close(self) -> None:
        del self._encoder


class Text(_Sentences):
    """`embedding_text`: narration, verb and noun by meaning; null where a clip has none of them."""

    version = "1"
    columns = ("narration", "verb", "noun")
    encodes = NAME

    def compute(self, clips: Sequence[ClipInput]) -> Sequence[Mapping[str, Any]]:
        rows = [clip.row for clip in clips]
        return [{COLUMN: vector_of(self._encoder, row["narration"], row["verb"], row["noun"])} for row in rows]


class CaptionText(_Sentences):
    """`embedding_caption` of the column `caption`: the mean of its sentences by meaning; null without a caption."""

    version = "1"

    class Settings(StageSettings):
        column: str = "caption"
        """The captions: also those of a second stage, such as `rule_caption`."""

    settings: Settings

    def __init__(self, name: str, settings: Settings) -> None:
        super().__init__(name, settings)
        self.columns, self.encodes = (settings.column,), settings.column

    def compute(self, clips: Sequence[ClipInput]) -> Sequence[Mapping[str, Any]]:
        found = [caption_sentences(clip.row[self.encodes]) for clip in clips]
        return [{f"embedding_{self.encodes}": mean_vector(self._encoder, sentences)} for sentences in found]
