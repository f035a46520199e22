"""Means and deviations by which a network's inputs and outputs are scaled."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

LEAST_STD = 1e-4
"""A smaller deviation counts as this: scaling up a number that never changes would make noise of it."""


def moments(values: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean and deviation of the known numbers over the first axis; 0 and 1 where no number is known."""
    known = np.isfinite(values)
    count = known.sum(axis=0)
    mean = np.where(known, values, 0.0).sum(axis=0) / np.maximum(count, 1)
    off = np.where(known, values - mean, 0.0)
    std = np.sqrt((off**2).sum(axis=0) / np.maximum(count, 1))
    return mean, np.where(count > 0, np.maximum(std, LEAST_STD), 1.0)
