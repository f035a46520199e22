"""Numbers that can be added over clips: a sum and how many things it is over."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Parts = dict[str, tuple[float, float]]
"""Name to (sum, count). The number is sum / count; of several clips, sums over counts: long clips weigh more."""


def part(values: NDArray[np.floating]) -> tuple[float, float]:
    """Sum and count of the finite ones."""
    known = np.asarray(values, float)[np.isfinite(values)]
    return float(known.sum()), float(known.size)


def ratios(clips: Sequence[Parts]) -> dict[str, float]:
    """Name to number over all clips; NaN where nothing was counted."""
    out = {}
    for name in dict.fromkeys(name for clip in clips for name in clip):
        total, count = (sum(clip[name][i] for clip in clips if name in clip) for i in (0, 1))
        out[name] = total / count if count else float("nan")
    return out
