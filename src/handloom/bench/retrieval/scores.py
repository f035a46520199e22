"""Scores of rankings: average precision, and intervals of means over queries."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

K = 10
SAMPLES, LEVEL = 2000, 0.95


def average_precision(relevant: Sequence[bool], num_relevant: int, k: int = K) -> float:
    """Average precision of the first `k` results: the mean, over the relevant ones that could be among them, of the
    precision at each that is.

    relevant: of each result, best first. num_relevant: of all clips that are searched.

    Source: Manning et al., Introduction to Information Retrieval, 2008, section 8.4, cut at k.
    """
    hits = np.asarray(relevant[:k], bool)
    possible = min(num_relevant, k)
    if not possible:
        return float("nan")
    precision = np.cumsum(hits) / np.arange(1, len(hits) + 1)
    return float((precision * hits).sum() / possible)


def interval(values: Sequence[float]) -> dict[str, Any]:
    """`mean`, `low`, `high` (95 % of bootstrap samples of the queries; equal on every machine) and `num`; None of
    nothing."""
    known = np.asarray([value for value in values if np.isfinite(value)], float)
    if not len(known):
        return {"mean": None, "low": None, "high": None, "num": 0}
    rng = np.random.default_rng(0)
    means = known[rng.integers(0, len(known), (SAMPLES, len(known)))].mean(1)
    low, high = np.quantile(means, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    told = {"mean": known.mean(), "low": low, "high": high}
    return {name: round(float(value), 4) for name, value in told.items()} | {"num": len(known)}


def overlap(one: tuple[float, float], other: tuple[float, float]) -> float:
    """Intersection over union of two spans of time, seconds."""
    both = min(one[1], other[1]) - max(one[0], other[0])
    whole = max(one[1], other[1]) - min(one[0], other[0])
    return max(both, 0.0) / whole if whole > 0 else 0.0
