"""The colours of a clip's hands and of their surroundings, learned from its surest detections, whatever the skin,
gloves and light; and a score of how much a skeleton lies on such colours.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from handloom.geometry.hands.tracklets import hand_size
from handloom.models.protocols import ClipFrames
from handloom.schemas.hand_topology import BONES

Floats = NDArray[np.float64]

_ALONG = np.array([0.15, 0.5, 0.85])  # places along a bone where the image is sampled
# Colour bins: brightness, red minus it, blue minus it. These differences are within 80..176 for skin and most things.
_SHAPE = (6, 16, 16)
_BRIGHT, _CHROMA, _LOWEST = 43, 6, 80  # widths of bins, and where those of the differences begin

# All chosen by hand on 37 real clips and 16 rendered ones, not fitted.
SURE = 0.85  # least presence of detections to learn from
LEAST_LEARNT, MOST_LEARNT = 4, 60  # detections
RING = 0.35  # the surroundings reach so far around a hand's box, in hand sizes,
APART = 0.2  # and keep so far from its bones
RING_GRID = 10
FLOOR = 2e-4  # share added to each bin, so that rare colours have log-odds near 0
LIMIT = 2.0  # largest log-odds of one pixel, nats
LEAST_SEEN = 15  # of a skeleton's 69 places, as many must be in the image
TOLD_APART = 0.8  # least median score of the hands learned from; below it hands and surroundings look alike


class HandColours:
    """Made by `learn`. A score is the mean log-odds that the colours on a skeleton are a hand's: 1 to 2 on a hand,
    below 0 beside it. usual: the median score of the hands learned from.
    """

    def __init__(self, log_odds: Floats, usual: float = 0.0) -> None:
        self._log_odds, self.usual = log_odds, usual

    @classmethod
    def learn(
        cls, frames: ClipFrames, points: Floats, shown: NDArray[np.bool_], confidence: NDArray[np.floating]
    ) -> HandColours | None:
        """The colours of a clip; None if there are too few detections, or hands look like their surroundings.

        Args:
            points: (T, 2, 21, 2), pixels of `frames`.
            shown: (T, 2), hands that were detected, not interpolated.
            confidence: (T, 2).
        """
        sure = np.argwhere(shown & (confidence >= SURE))
        chosen = sure if len(sure) >= LEAST_LEARNT else np.argwhere(shown)
        if len(chosen) < LEAST_LEARNT:
            return None
        frame, hand = chosen[:: -(-len(chosen) // MOST_LEARNT)].T
        own, other = points[frame, hand], np.where(shown[frame, 1 - hand, None, None], points[frame, 1 - hand], np.inf)
        around, on = (_spread(_bins(frames, frame, places)) for places in (_around(own, other), _on(own)))
        # Rounded to 1/1024: the last digit of a logarithm differs between processors.
        log_odds = np.round(1024 * np.clip(np.log((on + FLOOR) / (around + FLOOR)), -LIMIT, LIMIT)) / 1024
        scores = cls(log_odds).scores(frames, frame, own)
        scores = scores[np.isfinite(scores)]
        usual = float(np.median(scores)) if len(scores) else 0.0
        return cls(log_odds, usual) if usual >= TOLD_APART else None

    def scores(self, frames: ClipFrames, frame: NDArray[np.integer], points: Floats) -> Floats:
        """(n,) scores of (n, 21, 2) points in the frames numbered (n,); NaN where too few are in the image."""
        bins = _bins(frames, frame, _on(points))
        inside = (bins >= 0).sum(axis=1)
        total = np.where(bins >= 0, self._log_odds[bins], 0.0).sum(axis=1)
        return np.where(inside >= LEAST_SEEN, total / np.maximum(inside, 1), np.nan)


def _on(points: Floats) -> Floats:
    """(n, 69, 2) places on the bones of (n, 21, 2) hands."""
    first, last = (points[:, list(ends), None] for ends in zip(*BONES, strict=True))
    return (first + (last - first) * _ALONG[:, None]).reshape(len(points), len(BONES) * len(_ALONG), 2)


def _around(points: Floats, other: Floats) -> Floats:
    """(n, 100, 2) places around hands; infinite where they are near the hand or the other one.

    points, other: (n, 21, 2), infinite where there is no other hand.
    """
    low, high = points.min(axis=1), points.max(axis=1)
    size = hand_size(points)[:, None]
    steps = np.linspace(-1, 1, RING_GRID)
    places = np.stack(np.meshgrid(steps, steps), axis=-1).reshape(-1, 2)
    places = places * ((high - low) / 2 + RING * size)[:, None] + ((low + high) / 2)[:, None]
    bones = np.concatenate([points, _on(points)[:, 1::3], other], axis=1)  # keypoints, and the bones' middles
    x, y = (np.float32(places[:, :, None, axis]) - np.float32(bones[:, None, :, axis]) for axis in (0, 1))
    apart = (x * x + y * y).min(axis=-1)
    return np.where((apart > (APART * size) ** 2)[..., None], places, np.inf)


def _bins(frames: ClipFrames, frame: NDArray[np.integer], places: Floats) -> NDArray[np.int64]:
    """(n, m) colour bins at (n, m, 2) places of the frames numbered (n,), -1 outside the image.

    Integer arithmetic: the same on every processor.
    """
    height, width = frames.rgb(int(frame[0])).shape[:2] if len(frame) else (1, 1)
    inside = ((places > -0.5) & (places < [width - 0.5, height - 0.5])).all(axis=-1)
    x, y = np.moveaxis(np.round(np.where(inside[..., None], places, 0.0)).astype(np.int64), -1, 0)
    rgb = np.empty((*inside.shape, 3), np.int64)
    for row, number in enumerate(frame):
        rgb[row] = frames.rgb(int(number))[y[row], x[row]]
    red, green, blue = np.moveaxis(rgb, -1, 0)
    bright = (77 * red + 150 * green + 29 * blue) >> 8
    chroma = [128 + ((183 * (red - bright)) >> 8), 128 + ((144 * (blue - bright)) >> 8)]
    red_bin, blue_bin = (np.clip((each - _LOWEST) // _CHROMA, 0, 15) for each in chroma)
    return np.where(inside, ((bright // _BRIGHT) * 16 + red_bin) * 16 + blue_bin, -1)


def _spread(bins: NDArray[np.int64]) -> Floats:
    """The share of every bin, smoothed over neighbouring bins."""
    out = np.bincount(bins[bins >= 0], minlength=int(np.prod(_SHAPE))).reshape(_SHAPE).astype(np.float64)
    for axis, share in ((0, 0.25), (1, 0.5), (2, 0.5)):
        edge = [(1, 1) if each == axis else (0, 0) for each in range(3)]
        wide = np.pad(out, edge, mode="edge")
        size = out.shape[axis]
        before, after = (np.take(wide, range(begin, begin + size), axis=axis) for begin in (0, 2))
        out = out + share * (before + after)
    return out.ravel() / max(out.sum(), 1.0)
