"""Where in a longer sequence a short one is: subsequence dynamic time warping with STRAP's steps.

Each step of the query takes one or two steps of the reference: (+1, +1) or (+1, +2). So a match is as fast as the query
or up to twice as slow. `best_match` also tries the query at half its rate, which finds matches up to twice as fast.

Source: Memmel et al., STRAP: Robot sub-trajectory retrieval for augmented policy learning, ICLR 2025.
"""

from __future__ import annotations

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
    if len(reference) < len(query):
        return None
    query, reference = np.asarray(query, np.float64), np.asarray(reference, np.float64)
    squares = (reference**2).sum(1)
    total, first = _distances(query[0], reference, squares), np.arange(len(reference))
    for step in query[1:]:
        one, two = _shifted(total, 1, np.inf), _shifted(total, 2, np.inf)
        doubled = two < one
        first = np.where(doubled, _shifted(first, 2, -1), _shifted(first, 1, -1))
        total = _distances(step, reference, squares) + np.where(doubled, two, one)
    last = int(np.argmin(total))
    return Match(float(total[last]) / len(query), int(first[last]), last)


def _distances(step: Floats, reference: Floats, squares: Floats) -> NDArray[np.float64]:
    """(m,) of one step (D,) to every step of the reference. squares: of the reference's lengths."""
    return np.sqrt(np.maximum(squares - 2 * (reference @ step) + step @ step, 0))


def best_match(query: Floats, reference: Floats) -> Match | None:
    """The better match of the query and of every second step of it (and its last), which must be clearly better."""
    whole = match(query, reference)
    if len(query) < SHORTEST:
        return whole
    last = query[[-1]] if len(query) % 2 == 0 else query[:0]
    halved = match(np.concatenate([query[::2], last]), reference)
    if whole is None or (halved is not None and halved.distance < OTHER_PACE * whole.distance):
        return halved
    return whole


def _shifted(values: NDArray, by: int, fill: float) -> NDArray:
    """Values moved to the right; `fill` at the left."""
    moved = np.full_like(values, fill)
    moved[by:] = values[: len(values) - by]
    return moved
