"""ARM4R's image of 912 x 512, its grid of 36 x 36 points, and its normalisation. Needs numpy alone."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

SIDE = 36
WIDTH, HEIGHT = 912, 512
PER_PX = 0.002
"""ARM4R's normalisation: u' = 0.002 u, v' = 0.002 v, z' = z."""


def at_912x512(points_px: NDArray[np.floating[Any]], width: int, height: int) -> NDArray[np.float64]:
    """(..., 2) pixels of a `width` x `height` image to pixels of ARM4R's; u and v are scaled separately, and (0, 0)
    stays the first pixel's centre. NaN stays NaN."""
    return (np.asarray(points_px, np.float64) + 0.5) * np.array([WIDTH / width, HEIGHT / height]) - 0.5


def from_912x512(points_px: NDArray[np.floating[Any]], width: int, height: int) -> NDArray[np.float64]:
    """The inverse of `at_912x512`."""
    return (np.asarray(points_px, np.float64) + 0.5) / np.array([WIDTH / width, HEIGHT / height]) - 0.5


def subgrid(side: int, of: int = SIDE) -> NDArray[np.int64]:
    """(side * side,) indices of a regular sub-grid, equally far from all borders, of an `of` x `of` grid (row by row).

    Raises ValueError where `side` does not divide `of`.
    """
    if side < 1 or of % side:
        raise ValueError(f"a grid of {of} x {of} has no regular sub-grid of {side} x {side}")
    step = of // side
    rows = np.arange(side) * step + (step - 1) // 2
    return (rows[:, None] * of + rows[None]).reshape(-1)
