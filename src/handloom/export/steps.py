"""Sampled frames on a regular grid, for formats with one rate."""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from handloom.errors import ConfigError

_TIE_S = 5e-7


def steps_at(frame_s: NDArray[np.float64], hz: float) -> NDArray[np.intp]:
    """(S,) the frame of each step i, `i / hz` after the first frame: the nearest within half a step, -1 without one.

    The grid ends with the last frame's step. Of two frames at the same distance the earlier one is taken. A frame
    serves several steps only where the grid is finer than the frames, and then those within half a step of it.
    """
    if not len(frame_s):
        return np.empty(0, np.intp)
    since = np.asarray(frame_s, np.float64) - frame_s[0]
    grid = np.arange(math.floor(since[-1] * hz + 0.5 - _TIE_S * hz) + 1) / hz
    right = np.clip(np.searchsorted(since, grid), 0, len(since) - 1)
    left = np.maximum(right - 1, 0)
    nearest = np.where(since[right] - grid < grid - since[left] - _TIE_S, right, left)
    return np.where(np.abs(since[nearest] - grid) <= 0.5 / hz + _TIE_S, nearest, -1)


def rate_of(rates: Iterable[float], hz: float | None, what: str) -> float:
    """The one rate of an export: `hz` where it is given, else the rate that all rows have.

    Raises ConfigError, with every rate and how many rows have it, where they differ and none is given.
    """
    if hz is not None:
        if not (0 < hz <= 1000 and math.isfinite(hz)):
            raise ConfigError(f"--hz {hz:g} is no rate", "give frames per second, above 0 and at most 1000")
        return float(hz)
    counts: dict[float, int] = {}
    for rate in rates:
        counts[round(rate, 3)] = counts.get(round(rate, 3), 0) + 1
    if len(counts) == 1:
        return next(iter(counts))
    text = ", ".join(f"{rate:g} Hz ({count})" for rate, count in sorted(counts.items()))
    raise ConfigError(
        f"the {what} have different rates, and this format has one: {text}",
        "give --hz to resample them all (nearest frame within half a step), or choose some with --where",
    )
