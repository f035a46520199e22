"""How far off a point may be: a covariance that every step makes larger and every look at the point smaller."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from handloom.models.tracks_patches import NOISE_GREY

Array = NDArray[np.float32]
Indices = NDArray[np.integer]

FLOOR_PX = 0.2
"""What a place is off by however often it is looked at: interpolation, a surface that is not flat."""
SHARED = 0.4
"""Of what a step may be off by, the share that is the same in all steps, so that it adds up; chosen on four
rendered scenes and ten shots of a virtual camera."""
MOST_PX = 200.0
"""Beyond this nothing is known of a place."""


class Spread:
    """Covariances of N places, working pixels, as xx, xy, yy; at first they are where they are said to be.

    own: (N, 3), of what happened since a point's patch was taken; taken: (N,) variance of the place it was taken at;
    drift: (N,) standard deviation of what steps have in common.
    """

    def __init__(self, num: int) -> None:
        self._own = np.zeros((num, 3))
        self._taken = np.zeros(num)
        self._drift = np.zeros(num)

    def only(self, some: NDArray[np.bool_]) -> Spread:
        """Of those that `some` (N,) marks."""
        out = Spread(0)
        out._own, out._taken, out._drift = self._own[some], self._taken[some], self._drift[some]
        return out

    def and_also(self, more: Spread) -> Spread:
        """Of these, then of `more`."""
        out = Spread(0)
        pairs = ((self._own, more._own), (self._taken, more._taken), (self._drift, more._drift))
        out._own, out._taken, out._drift = (np.concatenate(pair) for pair in pairs)
        return out

    def renew(self, at: Indices) -> None:
        """The patches of points number `at` are taken anew: how far off they are now stays."""
        self._taken[at] = np.minimum(self._taken[at] + self._variance(at), MOST_PX**2)
        self._own[at] = 0

    def step(self, grow_px: Array) -> None:
        """Everything moves, by motions that are off by `grow_px` (N,), each step for itself."""
        self._own += (grow_px.astype(np.float64) ** 2)[:, None] * np.array([1.0, 0.0, 1.0])
        self._drift = np.minimum(self._drift + SHARED * grow_px, MOST_PX)
        self._own *= np.minimum(1, MOST_PX**2 / np.maximum(self._own[:, ::2].mean(axis=1), 1e-12))[:, None]

    def found(self, at: Indices, tensor: Array, difference: Array) -> None:
        """The pictures of points number `at` were found: tensor (n, 3) as `Patches.tensor`, and the root mean square
        grey difference that was left, (n,)."""
        noise = NOISE_GREY**2 + difference.astype(np.float64) ** 2
        xx, xy, yy = tensor.astype(np.float64).T / noise
        xx, yy = np.maximum(xx, 0), np.maximum(yy, 0)
        most = np.sqrt(xx * yy)  # the noise that was taken out of xx and yy may leave more of xy than there can be
        xy = np.clip(xy, -most, most)
        a, b, c = self._own[at].T
        before = a + c + 2e-6
        a, c = a + 1e-6, c + 1e-6
        det = np.maximum(a * c - b * b, 1e-12)
        xx, xy, yy = xx + c / det, xy - b / det, yy + a / det
        det = np.maximum(xx * yy - xy * xy, 1e-12)
        self._own[at] = np.stack([yy / det, -xy / det, xx / det], -1)
        self._drift[at] *= np.sqrt(np.minimum(1, (xx + yy) / det / before))

    def sigma(self) -> Array:
        """(N,) standard deviation of x and of y: the root of their mean variance."""
        return np.sqrt(self._variance(slice(None)) + self._taken + self._drift**2).astype(np.float32)

    def scatter(self) -> Array:
        """(N,) the same, if all steps erred for themselves."""
        return np.sqrt(self._variance(slice(None)) + self._taken).astype(np.float32)

    def _variance(self, at: Indices | slice) -> NDArray[np.float64]:
        return np.clip((self._own[at, 0] + self._own[at, 2]) / 2, 0, MOST_PX**2)
