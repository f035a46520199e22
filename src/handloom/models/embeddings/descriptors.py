"""Building blocks of descriptors: soft direction histograms, cosine coefficients, balanced blocks. Pure, float64."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import numpy as np
from numpy.typing import NDArray

from handloom.schemas.hand_topology import PALM

Floats = NDArray[np.float64]

NUM_DIRECTIONS = 8
NUM_FLOW = NUM_DIRECTIONS + 2
"""Numbers of a step of flow: directions, and a mean velocity."""
NUM_LAGS = 13
FASTEST = 2.0
"""Votes are capped at this speed, in sqrt(width * height) per second."""


def direction_votes(vectors: Floats, still: float | None, cap: float = np.inf) -> Floats:
    """Votes of 2D vectors for 8 directions, shared linearly between the two nearest, and for being at rest.

    Args:
        vectors: (..., 2); NaN votes for nothing.
        still: length below which a vector counts (linearly) as at rest; None: no such bin.
        cap: largest weight of a vote, a length, so that a few outliers do not decide.

    Returns:
        (..., 8) or, with `still`, (..., 9): the last bin weighs `still` for a vector of length zero.

    Source: HOF with its zero bin, Laptev et al., Learning realistic human actions from movies, CVPR 2008, and Wang et
    al., Dense trajectories, IJCV 2013, section 3.2.
    """
    known, length, lower, share = _directions(vectors, cap)
    bins = np.arange(NUM_DIRECTIONS)
    low = (bins == (lower % NUM_DIRECTIONS)[..., None]) * (length * (1 - share))[..., None]
    high = (bins == ((lower + 1) % NUM_DIRECTIONS)[..., None]) * (length * share)[..., None]
    if still is None:
        return low + high
    moving = np.clip(length / still, 0, 1)
    rest = np.where(known, still * (1 - moving), 0.0)
    return np.concatenate([(low + high) * moving[..., None], rest[..., None]], axis=-1)


def _directions(vectors: Floats, cap: float) -> tuple[NDArray[np.bool_], Floats, Floats, Floats]:
    """Which vectors are known; their lengths up to `cap`; the lower of the two nearest directions; the upper one's
    share."""
    known = np.isfinite(vectors[..., 0]) & np.isfinite(vectors[..., 1])
    x, y = np.where(known, vectors[..., 0], 0.0), np.where(known, vectors[..., 1], 0.0)
    length = np.minimum(np.hypot(x, y), cap)
    place = np.arctan2(y, x) * (NUM_DIRECTIONS / (2 * np.pi)) % NUM_DIRECTIONS
    lower = np.floor(place)
    return known, length, lower, place - lower


def cosine_coefficients(signals: Floats, first: int, num: int, samples: int = 32) -> Floats:
    """Coefficients of the DCT-II of each signal, `num` from number `first` on; they keep direction and order.

    Args:
        signals: (T, C), T >= 1, finite, evenly spaced in time; any length is averaged to `samples`.

    Returns:
        (C * num,), scaled so that the length does not matter; number 0 is the mean.
    """
    order = np.arange(first, first + num)[:, None]
    waves = np.cos(np.pi * order * (np.arange(samples) + 0.5) / samples) / samples
    waves *= np.where(order == 0, 1.0, np.sqrt(2))
    even = average_resample(signals, samples)
    return np.sum(waves[None] * even.T[:, None], axis=-1).reshape(-1)


def average_resample(signals: Floats, samples: int) -> Floats:
    """(T, C) to (samples, C): the mean of the piecewise constant signal over each of `samples` equal intervals."""
    edges = np.linspace(0, len(signals), samples + 1)
    sums = np.vstack([np.zeros(signals.shape[1]), np.cumsum(signals, axis=0)])
    whole = np.arange(len(sums))
    integral = np.stack([np.interp(edges, whole, column) for column in sums.T], axis=1)
    return np.diff(integral, axis=0) * (samples / len(signals))


def balance(
    blocks: Mapping[str, Floats],
    floors: Mapping[str, float],
    weights: Mapping[str, float],
    plain: Collection[str] = (),
) -> Floats | None:
    """Concatenate blocks by weight: signed square root, L2 norm per block, weight, L2 norm over all.

    plain: blocks that are no histograms, of which no root is taken.

    A block smaller than its floor is mostly noise and counts less (as with the epsilon of HOG's L2 norm).

    Returns:
        (D,) unit norm, or None where every block is zero.

    Source: power normalisation, Perronnin et al., Improving the Fisher kernel, ECCV 2010, section 3.
    """
    parts = []
    for name, values in blocks.items():
        rooted = values if name in plain else np.sign(values) * np.sqrt(np.abs(values))
        parts.append(weights[name] * rooted / np.sqrt(np.sum(rooted**2) + floors[name]))
    whole = np.concatenate(parts)
    norm = np.sqrt(np.sum(whole**2))
    return whole / norm if norm > 0 else None


def to_unit_float32(vector: Floats) -> NDArray[np.float32]:
    """A float64 vector of length one as float32."""
    return (vector / np.sqrt(np.sum(vector**2))).astype(np.float32)


def hand_size(keypoints: Floats) -> Floats:
    """Root mean square distance of a hand's keypoints from its palm; (S, 21, 2) to (S,). NaN where not seen."""
    palm = keypoints[:, PALM].mean(1, keepdims=True)
    return np.maximum(np.sqrt(np.sum((keypoints - palm) ** 2, axis=-1).mean(-1)), 1e-3)
