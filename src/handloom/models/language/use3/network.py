"""The Universal Sentence Encoder, multilingual, version 3, on one sentence: numpy alone.

Source: Yang et al., Multilingual Universal Sentence Encoder for Semantic Retrieval (ACL 2020 demonstrations): vectors
of pieces, and convolutions over 2, 3 and 5 of them, are summed over the sentence; dense layers with skips follow.
"""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from handloom.errors import ConfigError

Array = NDArray[np.float32]
DIM = 512
WINDOWS = ((2, 0), (3, 1), (5, 2))
"""Pieces that a convolution sees, and how many of them come before its own."""
NUM_TABLES = 17
"""The vectors of pieces are in so many tables of bytes: that of piece n is row n // 17 of table n % 17."""


class SentenceNetwork:
    """Reads the dense layers (11 MB) at once, and each of the tables (4 MB) with the first piece that needs it: 20 ms.

    Raises:
        ConfigError: the file is not one of these weights.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._tables: dict[int, NDArray[np.uint8]] = {}
        try:
            with np.load(path, allow_pickle=False) as file:
                names = [name for name in file.files if not name.startswith("q")]
                self._weights = {name: file[name] for name in names}
            self._inner = {
                name: np.concatenate([self._weights[f"{name}{width}"] for width, _ in WINDOWS], axis=-1)
                for name in ("proj", "proj_b", "ln_g", "ln_b")
            }
        except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
            raise ConfigError(f"{path} cannot be read as weights of a sentence encoder: {error}") from error

    def __call__(self, pieces: Sequence[int]) -> Array:
        """(512,) of unit length."""
        weights, inner, words = self._weights, self._inner, self._vectors(pieces)
        inputs = self._normalised(words @ inner["proj"] + inner["proj_b"], inner["ln_g"], inner["ln_b"])
        parts = zip(np.split(inputs, len(WINDOWS), axis=1), WINDOWS, strict=True)
        found = [self._convolved(values, *window) for values, window in parts]
        seen = self._normalised(np.concatenate([words, *found], axis=1), weights["ln_g"], weights["ln_b"])
        mean = (seen.sum(0) @ weights["cnn_W"] + len(words) * weights["cnn_b"]) / np.sqrt(np.float32(len(words)))
        first = np.maximum(mean @ weights["d0"], 0)
        second = np.maximum(mean @ weights["p1"] + first @ weights["d1"], 0)
        third = np.maximum(second @ weights["d2"], 0)
        found = np.tanh(second @ weights["p3"] + third @ weights["d3"])
        return (found / np.linalg.norm(found)).astype(np.float32)

    def _vectors(self, pieces: Sequence[int]) -> Array:
        """(T, 512), from bytes."""
        tables = np.array(pieces) % NUM_TABLES
        rows = np.stack([self._table(t)[piece // NUM_TABLES] for piece, t in zip(pieces, tables.tolist(), strict=True)])
        scale, low = self._weights["scale"][tables], self._weights["lo"][tables]
        return rows.astype(np.float32) * scale[:, None] + low[:, None]

    def _table(self, number: int) -> NDArray[np.uint8]:
        if number not in self._tables:
            with np.load(self._path, allow_pickle=False) as file:
                self._tables[number] = file[f"q{number + 1}"]
        return self._tables[number]

    def _convolved(self, values: Array, width: int, before: int) -> Array:
        """(T, 256): two convolutions over `width` pieces, each with a skip; zeros before and behind the sentence."""
        weights, found = self._weights, values
        for layer in ("1", "2"):
            around = np.pad(found, ((before, width - 1 - before), (0, 0)))
            windows = np.concatenate([around[at : at + len(found)] for at in range(width)], axis=1)
            found = np.maximum(windows @ weights[f"w{layer}_{width}"] + weights[f"b{layer}_{width}"], 0) + found
        return found

    def _normalised(self, values: Array, gain: Array, shift: Array) -> Array:
        centred = values - values.mean(1, keepdims=True)
        variance = np.mean(centred * centred, axis=1, keepdims=True)
        return centred / np.sqrt(variance + self._weights["eps"]) * gain + shift
