"""ARM4R's picture: 912 x 512, a grid of 36 x 36 points, and its normalisation. Needs numpy alone."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

SIDE = 36
WIDTH, HEIGHT = 912, 512
PER_PX = 0.002
"""u' = 0.002 u, v' = 0.002 v, z' = z (SPECS 1.3)."""


def at_912x512(points_px: NDArray[np.floating], width: int, height: int) -> NDArray[np.float64]:
    """(..., 2) pixels of a `width` x `height` picture in pixels of ARM4R's; u and v are scaled alone, and pixel (0, 0)
    stays the first pixel's centre. NaN stays NaN."""
    return (np.asarray(points_px, np.float64) + 0.5) * np.array([WIDTH / width, HEIGHT / height]) - 0.5


def from_912x512(points_px: NDArray[np.floating], width: int, height: int) -> NDArray[np.float64]:
    """The inverse of `at_912x512`."""
    return (np.asarray(points_px, np.float64) + 0.5) / np.array([WIDTH / width, HEIGHT / height]) - 0.5


def subgrid(side: int, of: int = SIDE) -> NDArray[np.int64]:
    """(side * side,) indices of a regular sub-grid of an `of` x `of` grid (row by row), as far from all borders alike.

    Raises ValueError where `side` does not divide `of`.
    """
    if side < 1 or of % side:
        raise ValueError(f"a grid of {of} x {of} has no regular sub-grid of {side} x {side}")
    step = of // side
    rows = np.arange(side) * step + (step - 1) // 2
    return (rows[:, None] * of + rows[None]).reshape(-1)
