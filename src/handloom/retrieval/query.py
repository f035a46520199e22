"""The parts of a query: which embeddings are compared and with which weight, and what a part is that cannot be used."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from handloom.errors import ConfigError
from handloom.store.search.fusion import Ranking
from handloom.store.search.scope import NoEmbedding

By = str | Sequence[str] | Mapping[str, float] | None
DEFAULT_BY = "motion"
ARVRM = "arvrm"


class NoPart(ConfigError):
    """A part of a query says nothing here: no hand in the video, no words in the table. The other parts are used."""


UNUSABLE = (NoPart, NoEmbedding)
"""Errors that leave out a part where a query has others."""


@dataclass(frozen=True)
class PartQuery:
    """One part, ready to rank. scores: exact scores of given row ids, by clip; None: only ranked clips have one."""

    name: str
    rank: Callable[[int], Ranking]
    scores: Callable[[Sequence[int]], Mapping[str, float]] | None = None
    scoring: str = "cosine"


def weights_of(by: By) -> dict[str, float]:
    """`{name: weight}` of `"motion"`, `["motion", "look=0.5"]` or `{"look": 0.5}`. Raises ConfigError for a weight that
    is no number above 0, and for a name that is given twice."""
    if by is None:
        return {}
    if isinstance(by, Mapping):
        pairs = list(by.items())
    else:
        pairs = [_pair(one) for one in ([by] if isinstance(by, str) else by)]
    for name, weight in pairs:
        if not 0 < weight < float("inf"):
            raise ConfigError(f"by {name}={weight:g}: a weight is a number above 0", "leave the embedding out instead")
    found = dict(pairs)
    if len(found) < len(pairs):
        twice = next(name for name, _ in pairs if sum(name == other for other, _ in pairs) > 1)
        raise ConfigError(f"by names {twice!r} twice", "name each embedding once, with its weight: motion=0.5")
    return found


def _pair(text: str) -> tuple[str, float]:
    name, sign, number = text.partition("=")
    if not sign:
        return name, 1.0
    try:
        return name.strip(), float(number)
    except ValueError as error:
        raise ConfigError(f"by {text!r}: {number!r} is no number", "expected NAME or NAME=WEIGHT: look=0.5") from error
