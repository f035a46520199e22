"""Averages that can be combined over clips: a sum and a count."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Sums = dict[str, tuple[float, float]]
"""Name to (sum, count). The average is sum / count; over several clips, all sums over all counts: long clips weigh
more."""


def summed(values: NDArray[np.floating]) -> tuple[float, float]:
    """Sum and count of the finite values."""
    known = np.asarray(values, float)[np.isfinite(values)]
    return float(known.sum()), float(known.size)


def averages(clips: Sequence[Sums]) -> dict[str, float]:
    """Name to average over all clips; NaN where the count is 0."""
    out = {}
    for name in dict.fromkeys(name for clip in clips for name in clip):
        total, count = (sum(clip[name][i] for clip in clips if name in clip) for i in (0, 1))
        out[name] = total / count if count else float("nan")
    return out
