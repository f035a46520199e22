"""Text to numbers of pieces of words: a SentencePiece vocabulary, read and searched without its library.

Source: Kudo, Subword Regularization (ACL 2018), section 3.2: of all divisions of a text into known pieces the one whose
scores have the largest sum. The file's layout is that of sentencepiece_model.proto.
"""

from __future__ import annotations

import struct
import unicodedata
from pathlib import Path

from handloom.errors import ConfigError

SPACE = "▁"
UNKNOWN, BEGIN, END = 0, 1, 2
_UNKNOWN_COSTS = 10.0  # below the score of the least likely piece, for each unknown character
_PIECE, _TEXT, _SCORE = 0x0A, 0x0A, 0x15  # keys of the fields: a piece; in it its text and its score


class Pieces:
    """The vocabulary. Raises ConfigError if the file is none."""

    def __init__(self, path: Path) -> None:
        texts, self._scores = _read(path)
        self._numbers = {text: number for number, text in enumerate(texts)}
        self._longest = max(map(len, texts))
        self._unknown = min(self._scores) - _UNKNOWN_COSTS

    def __len__(self) -> int:
        return len(self._scores)

    def numbers(self, text: str) -> list[int]:
        """The pieces of a text, with a mark at the beginning and one at the end."""
        return [BEGIN, *self._best(normalised(text)), END]

    def _best(self, text: str) -> list[int]:
        """The division with the largest sum of scores; of equal ones that with the longer last piece."""
        sums = [0.0] + [-float("inf")] * len(text)
        last: list[tuple[int, int]] = [(0, UNKNOWN)] * (len(text) + 1)  # where the piece before each place begins
        for start in range(len(text)):
            for end in range(start + 1, min(start + self._longest, len(text)) + 1):
                number = self._numbers.get(text[start:end])
                if number is None and end > start + 1:
                    continue
                total = sums[start] + (self._unknown if number is None else self._scores[number])
                if total > sums[end]:
                    sums[end], last[end] = total, (start, UNKNOWN if number is None else number)
        found, at = [], len(text)
        while at > 0:
            at, number = last[at]
            found.append(number)
        return found[::-1] or [UNKNOWN]


def normalised(text: str) -> str:
    """Compatibility forms, without control characters, with `SPACE` before every word; empty if nothing is left."""
    seen = (" " if char.isspace() else char for char in unicodedata.normalize("NFKC", text))
    words = "".join(char for char in seen if unicodedata.category(char) not in ("Cc", "Cf")).split()
    return "".join(SPACE + word for word in words)


def _read(path: Path) -> tuple[list[str], list[float]]:
    """The pieces' texts and scores: the first fields of the file."""
    data = path.read_bytes()
    texts: list[str] = []
    scores: list[float] = []
    at = 0
    try:
        while at < len(data) and data[at] == _PIECE:
            size, start = data[at + 1], at + 2  # no piece is longer than 127 bytes, so lengths have one byte
            length = data[start + 1]
            if size > 127 or data[start] != _TEXT or data[start + 2 + length] != _SCORE:
                raise ConfigError(f"{path}: the piece {len(texts)} has no text with a score behind it")
            texts.append(data[start + 2 : start + 2 + length].decode())
            scores.append(struct.unpack_from("<f", data, start + 3 + length)[0])
            at = start + size
    except (IndexError, UnicodeDecodeError, struct.error) as error:
        raise ConfigError(f"{path} cannot be read as a SentencePiece vocabulary: {error}") from error
    if not texts:
        raise ConfigError(f"{path} is no SentencePiece vocabulary: it begins with {data[:8]!r}")
    return texts, scores
