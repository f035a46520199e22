"""How a number is distributed over the clips: the bins of its histogram, and where one value stands."""

from __future__ import annotations

from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

BINS = 24
UNKNOWN_BIN = 255


class Distribution:
    """Of one number of all clips.

    values: (N,), NaN is unknown. edges: (`BINS` + 1,), equally wide between the 1st and the 99th percentile; the first
    and the last bin hold what lies beyond, and their outer edges are the least and the largest value. Where all clips
    have one value, all edges are that value; where none is known, 0.
    """

    def __init__(self, values: NDArray[np.floating[Any]]) -> None:
        known = ~np.isnan(values)
        self._values = values
        self._bins = np.full(len(values), UNKNOWN_BIN, np.uint8)
        edges = np.zeros(BINS + 1)
        if known.any():
            least, most = float(values[known].min()), float(values[known].max())
            low, high = np.percentile(values[known], (1, 99))
            edges = np.linspace(low, high, BINS + 1) if high > low else np.linspace(least, most, BINS + 1)
            self._bins[known] = np.clip(np.digitize(values[known], edges[1:-1]), 0, BINS - 1)
            edges[0], edges[-1] = min(edges[0], least), max(edges[-1], most)
        self.edges: list[float] = edges.tolist()
        self._everyone = np.bincount(self._bins, minlength=256)

    def histogram(self, at: NDArray[np.intp]) -> dict[str, Any]:
        """How many of the clips `at` these places are in each bin, of how many it is unknown; `all`: of all clips."""
        counts = self._everyone if len(at) == len(self._bins) else np.bincount(self._bins[at], minlength=256)
        return {
            "edges": self.edges,
            "counts": counts[:BINS].tolist(),
            "all": self._everyone[:BINS].tolist(),
            "unknown": int(counts[UNKNOWN_BIN]),
        }

    def standing(self, value: float | None) -> dict[str, float | None]:
        """`place` and `equal`: of the other clips whose number is known, the share with a smaller one than a clip's
        `value`, and the share with the same, 0 to 1. None: its value is unknown, or there is no other clip."""
        values = self._sorted
        if value is None or len(values) < 2 or np.isnan(value):
            return {"place": None, "equal": None}
        below, end = (int(np.searchsorted(values, values.dtype.type(value), side)) for side in ("left", "right"))
        return {"place": below / (len(values) - 1), "equal": (end - below - 1) / (len(values) - 1)}

    @cached_property
    def _sorted(self) -> NDArray[np.floating[Any]]:
        return np.sort(self._values[~np.isnan(self._values)])


def floats(column: pa.ChunkedArray | pa.Array) -> NDArray[np.floating[Any]]:
    """(n,) NaN for null; whole numbers as float64."""
    kind = column.type if pa.types.is_floating(column.type) else pa.float64()
    return column.cast(kind).to_numpy(zero_copy_only=False) if len(column) else np.empty(0)
