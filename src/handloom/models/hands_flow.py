"""A hand between two frames in which it was measured: carried there from both by optical flow.

The network costs ten times as much as following 21 points over a small crop. What both sides agree on is believed; if
they agree on too little, the network has to be asked.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from handloom.geometry.tracklets import hand_size

# Chosen by hand on two EgoDex clips and rendered scenes, not fitted.
WINDOW_PX, LEVELS = 15, 2
MARGIN_PX = 24
AGREE_SIZE, AGREE_PX = 0.02, 0.5  # farthest that a point may land apart from the two sides: shares of the hand, pixels
MIN_POINTS = 10
MAX_SPREAD = 0.025  # median distance of the agreed points from the common motion, in hand sizes

Sight = tuple[NDArray[np.uint8], NDArray[np.float64]]  # a frame (h, w, 3), and the hand's points in it (21, 2)


def carry(before: Sight, after: Sight, middle: NDArray[np.uint8], guess: NDArray[np.float64]) -> NDArray | None:
    """(21, 2) points of the hand in the middle frame, near `guess`; None where the two sides disagree.

    The guess is moved, turned and scaled as a whole (a similarity), as most of the points that both sides carry to the
    same place moved; single fingers keep the guess.
    """
    size = float(hand_size(guess))
    low, high = _window(np.concatenate([before[1], after[1], guess]), middle.shape)
    if (high - low).min() < 2 * WINDOW_PX:
        return None
    now = _grey(middle, low, high)
    start = (guess - low).astype(np.float32)
    ends = []
    for picture, points in (before, after):
        found, status, _ = cv2.calcOpticalFlowPyrLK(
            _grey(picture, low, high),
            now,
            (points - low).astype(np.float32),
            start.copy(),
            winSize=(WINDOW_PX, WINDOW_PX),
            maxLevel=LEVELS,
            flags=cv2.OPTFLOW_USE_INITIAL_FLOW,
        )
        ends.append(np.where(status == 1, found, np.nan).astype(np.float64))
    apart = np.linalg.norm(ends[0] - ends[1], axis=1)
    agreed = apart < AGREE_SIZE * size + AGREE_PX
    if agreed.sum() < MIN_POINTS:
        return None
    target = ((ends[0] + ends[1]) / 2 + low)[agreed]
    moved = _similarity(guess[agreed], target, guess)
    spread = np.median(np.linalg.norm(moved[agreed] - target, axis=1))
    return moved if spread < MAX_SPREAD * size else None


def _window(points: NDArray[np.float64], shape: tuple[int, ...]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    limit = np.array([shape[1], shape[0]])
    low = np.clip(np.floor(points.min(axis=0)).astype(int) - MARGIN_PX, 0, limit)
    return low, np.clip(np.ceil(points.max(axis=0)).astype(int) + MARGIN_PX, 0, limit)


def _grey(picture: NDArray[np.uint8], low: NDArray[np.int64], high: NDArray[np.int64]) -> NDArray[np.uint8]:
    return cv2.cvtColor(picture[low[1] : high[1], low[0] : high[0]], cv2.COLOR_RGB2GRAY)


def _similarity(
    source: NDArray[np.float64], target: NDArray[np.float64], points: NDArray[np.float64]
) -> NDArray[np.float64]:
    """`points` moved by the similarity that takes source to target, (n, 2) each; outliers lose weight."""
    weight = np.ones(len(source))
    moved = points
    for _ in range(3):
        total = weight.sum()
        a, b = weight @ source / total, weight @ target / total
        x, y = (source - a) @ [1, 1j], (target - b) @ [1, 1j]
        turn = (weight * y * x.conj()).sum() / max((weight * np.abs(x) ** 2).sum(), 1e-9)
        image = (points - a) @ [1, 1j] * turn
        moved = np.stack([image.real, image.imag], axis=1) + b
        residual = np.abs(y - turn * x)
        weight = 1 / (1 + (residual / max(float(np.median(residual)), 0.1)) ** 2)
    return moved
