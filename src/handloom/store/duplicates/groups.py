"""Groups from pairs of rows, and the pairs that cuts of one video make."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Pairs = NDArray[np.int64]
"""(P, 2) numbers of rows that belong together."""


def components(num: int, pairs: Pairs) -> NDArray[np.int64]:
    """(num,) the smallest number of each one's group: all that pairs join, directly or through others."""
    first = np.arange(num)
    left, right = pairs.T
    while (first[left] != first[right]).any():
        smaller = np.minimum(first[left], first[right])
        for side in (first[left], first[right], left, right):
            np.minimum.at(first, side, smaller)
        while (first != first[first]).any():
            first = first[first]
    return first


def equal_pairs(codes: NDArray[np.int64]) -> Pairs:
    """Pairs that join all rows of equal codes; a code below 0 is none."""
    order = np.argsort(codes, kind="stable")
    before, after = order[:-1], order[1:]
    same = (codes[before] == codes[after]) & (codes[before] >= 0)
    return np.stack([before[same], after[same]], axis=1).astype(np.int64)


def overlapping_pairs(
    videos: NDArray[np.int64], start_s: NDArray[np.floating[Any]], end_s: NDArray[np.floating[Any]]
) -> Pairs:
    """Pairs that join cuts `[start_s, end_s)` of one video that share some time. videos: below 0: unknown."""
    order = np.lexsort((start_s, videos))
    found: list[tuple[int, int]] = []
    video, until, at = -1, -np.inf, -1
    for row in order.tolist():
        if videos[row] != video:
            video, until = int(videos[row]), -np.inf
        if video >= 0 and start_s[row] < until:
            found.append((at, row))
        if not end_s[row] <= until:
            until, at = end_s[row], row
    return np.array(found, np.int64).reshape(-1, 2)
