"""The points that are followed, row by row: they come and go, so that nothing is computed for those that are gone."""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from handloom.models.tracks.hands import FAR, STILL
from handloom.models.tracks.patches import NOISE_GREY, Patches

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


Mask = NDArray[np.bool_]

_MORE, _MORE_A_S, _MOST = np.float32([1.0, 1.6, 1.6, 3.0]), np.float32([0.0, 1.8, 1.8, 3.5]), np.float32(8.0)
"""By layer: how much further off points are than their patches say, at first and for every second since, at most: flesh
turns, things roll, and patches of them are taken anew. Measured on three rendered scenes."""
_UNLIKE, _UNLIKE_MORE = np.float32(0.85), np.float32(4.0)
"""Likeness below which a patch of the still scene is further off, too, and by how much more for each unit of it."""


@dataclass
class Points:
    """n points in one frame. ids: (n,) what they were called when they began.

    at: (n, 2) working pixels, also where a point should be while it is hidden. seen: it is visible. started: it is
    followed; else it was given up. layer: what it moves with. strong: it has texture. warp: (n, 2, 2) now_from_patch.
    inside: how deep in a hand's flesh, palm lengths. waiting: it was visible before the frames that show nothing.
    """

    ids: Indices
    at: Array
    started: Mask
    seen: Mask
    waiting: Mask
    layer: NDArray[np.int8]
    strong: Mask
    warp: Array
    speed: Array
    hidden_s: NDArray[np.float64]
    age_s: Array
    inside: Array
    likeness: Array
    patches: Patches
    spread: Spread

    @staticmethod
    def begin(ids: Indices, at: Array, layer: NDArray[np.int8], hidden_s: float = 0.0) -> Points:
        """Points that begin, visible, without their patches yet.

        hidden_s: after this time, as it were, without being seen.
        """
        num = len(ids)
        yes, none, one = np.ones(num, bool), np.zeros(num, np.float32), np.ones(num, np.float32)
        warp = np.tile(np.eye(2, dtype=np.float32), (num, 1, 1))
        return Points(
            ids, at.astype(np.float32), yes, yes.copy(), ~yes, layer, ~yes, warp, np.zeros((num, 2), np.float32),
            np.full(num, float(hidden_s)), none, np.full(num, FAR), one, Patches.empty(num), Spread(num),
        )  # fmt: skip

    @staticmethod
    def none() -> Points:
        """No point."""
        return Points.begin(np.zeros(0, np.int64), np.zeros((0, 2), np.float32), np.zeros(0, np.int8))

    def only(self, some: Mask) -> Points:
        """Those that `some` (n,) marks."""
        if some.all():
            return self
        rows = (getattr(self, one.name) for one in fields(self))
        return Points(*(own[some] if isinstance(own, np.ndarray) else own.only(some) for own in rows))

    def and_also(self, more: Points) -> Points:
        """These, then `more`."""
        if not len(self.ids):
            return more
        both = ((getattr(self, one.name), getattr(more, one.name)) for one in fields(self))
        return Points(*(np.concatenate([a, b]) if isinstance(a, np.ndarray) else a.and_also(b) for a, b in both))

    @property
    def sigma(self) -> Array:
        """(n,) one standard deviation of x and of y, working pixels."""
        more = np.minimum(_MORE[self.layer] + _MORE_A_S[self.layer] * self.age_s, _MOST)
        unlike = np.where(self.strong & (self.layer == STILL), np.maximum(_UNLIKE - self.likeness, 0), np.float32(0))
        own = self.spread.sigma() * more * (1 + _UNLIKE_MORE * unlike)
        return np.where(own > 0, np.sqrt(own**2 + FLOOR_PX**2), np.float32(0))

    def by_id(self, rows: NDArray, num: int, first: int = 0) -> NDArray:
        """(num, ...) of `rows` (n, ...), for the points called `first`, `first` + 1, ...; NaN or False for those that
        are not here."""
        out = np.full((num, *rows.shape[1:]), False if rows.dtype == bool else np.nan, rows.dtype)
        mine = (self.ids >= first) & (self.ids < first + num)
        out[self.ids[mine] - first] = rows[mine]
        return out
