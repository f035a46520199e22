"""The points that are followed, row by row: they come and go, so that nothing is computed for those that are gone."""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from handloom.models.tracks_hands import FAR, STILL
from handloom.models.tracks_patches import Patches
from handloom.models.tracks_spread import FLOOR_PX, Spread

Array = NDArray[np.float32]
Mask = NDArray[np.bool_]
Indices = NDArray[np.integer]

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
