"""Where in a longer sequence a short one is: subsequence dynamic time warping with STRAP's steps.

Each step of the query takes one or two steps of the reference: (+1, +1) or (+1, +2). So a match is as fast as the query
or up to twice as slow. `best_match` also tries the query at half its rate, which finds matches up to twice as fast.

Source: Memmel et al., STRAP: Robot sub-trajectory retrieval for augmented policy learning, ICLR 2025.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating]
OTHER_PACE = 0.75
"""A match at another pace must have this share of the distance at the query's own: half as many steps fit more easily,
and on 31 real clips most matches were at double speed without it."""
SHORTEST = 4  # steps of a query of which every second one is still tried: fewer say too little


class Match(NamedTuple):
    """distance: mean over the query's steps. first, last: steps of the reference, both in the match."""

    distance: float
    first: int
    last: int


def match(query: Floats, reference: Floats) -> Match | None:
    """The best match of the whole query (n, D) in the reference (m, D) by Euclidean distances; None where the reference
    has fewer steps. Of equals the earliest end, and single steps before double ones. Memory grows with m alone.
    """
    return matches(query, [reference])[0]


def matches(query: Floats, references: Sequence[Floats]) -> list[Match | None]:
    """`match` in each of the references, together: a step of the query costs the calls of numpy once."""
    kept = [one for one in references if len(one) >= len(query)]
    if not kept:
        return [None] * len(references)
    lengths = np.array([len(one) for one in kept])
    ends = np.cumsum(lengths)
    place = np.arange(ends[-1]) - np.repeat(ends - lengths, lengths)
    whole, query = np.concatenate(kept).astype(np.float64), np.asarray(query, np.float64)
    squares = (whole**2).sum(1)
    total, first = _distances(query[0], whole, squares), place
    for step in query[1:]:
        one, two = _shifted(total, 1, np.inf), _shifted(total, 2, np.inf)
        one[place < 1], two[place < 2] = np.inf, np.inf  # no step leads from one reference into the next
        doubled = two < one
        first = np.where(doubled, _shifted(first, 2, -1), _shifted(first, 1, -1))
        total = _distances(step, whole, squares) + np.where(doubled, two, one)
    starts = ends - lengths
    least = np.minimum.reduceat(total, starts)
    ties = np.flatnonzero(total == np.repeat(least, lengths))
    last = ties[np.searchsorted(ties, starts)]  # of equals the earliest
    found = map(Match, (least / len(query)).tolist(), first[last].tolist(), (last - starts).tolist())
    return [None if len(one) < len(query) else next(found) for one in references]


def _distances(step: Floats, reference: Floats, squares: Floats) -> NDArray[np.float64]:
    """(m,) of one step (D,) to every step of the reference. squares: of the reference's lengths."""
    return np.sqrt(np.maximum(squares - 2 * (reference @ step) + step @ step, 0))


def best_match(query: Floats, reference: Floats) -> Match | None:
    """The better match of the query and of every second step of it (and its last), which must be clearly better."""
    return best_matches(query, [reference])[0]


def best_matches(query: Floats, references: Sequence[Floats]) -> list[Match | None]:
    """`best_match` in each of the references."""
    whole = matches(query, references)
    if len(query) < SHORTEST:
        return whole
    last = query[[-1]] if len(query) % 2 == 0 else query[:0]
    halved = matches(np.concatenate([query[::2], last]), references)
    return [_better(*pair) for pair in zip(whole, halved, strict=True)]


def _better(whole: Match | None, halved: Match | None) -> Match | None:
    if whole is None or (halved is not None and halved.distance < OTHER_PACE * whole.distance):
        return halved
    return whole


def _shifted(values: NDArray, by: int, fill: float) -> NDArray:
    """Values moved to the right; `fill` at the left."""
    moved = np.full_like(values, fill)
    moved[by:] = values[: len(values) - by]
    return moved


def alignments(queries: Floats, references: Floats, band: int, penalty: float) -> NDArray[np.float64]:
    """(Q, R) distances of whole sequences of equal length by dynamic time warping: from first step to first, from last
    to last, at most `band` steps apart, divided by their number.

    Args:
        queries: (Q, n, D). references: (R, n, D).
        penalty: of each step that one side takes alone, beside its distance: without it, any pace is as good.

    Source: Sakoe and Chiba, Dynamic programming algorithm optimization for spoken word recognition, 1978.
    """
    num, width = queries.shape[1:]
    left, right = (np.asarray(one, np.float64).reshape(-1, width) for one in (queries, references))
    squares = (left**2).sum(1)[:, None] + (right**2).sum(1) - 2 * left @ right.T
    apart = np.sqrt(np.maximum(squares, 0)).reshape(len(queries), num, len(references), num)
    apart = np.ascontiguousarray(apart.transpose(1, 3, 0, 2))  # (n, n, Q, R)
    total = np.full((num + 1, num + 1, *apart.shape[2:]), np.inf)
    total[0, 0] = 0
    for i in range(num):
        for j in range(max(0, i - band), min(num, i + band + 1)):
            alone = np.minimum(total[i, j + 1], total[i + 1, j]) + penalty
            total[i + 1, j + 1] = apart[i, j] + np.minimum(total[i, j], alone)
    return total[num, num] / num
