"""The state of the points that are followed, one row per point; rows of points that ended are removed."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from handloom.models.tracks.hand_regions import FAR, STATIC
from handloom.models.tracks.patches import NOISE_GREY, Patches

Array = NDArray[np.float32]
Indices = NDArray[np.integer]
Mask = NDArray[np.bool_]

FLOOR_PX = 0.2
"""Least standard deviation of a place, however often it is measured: interpolation, surfaces that are not flat."""
SHARED = 0.4
"""Share of a step's error that is the same in all steps, so that it adds up; chosen on four rendered scenes and ten
shots of a virtual camera."""
MOST_PX = 200.0
"""Largest standard deviation; beyond it nothing is known of a place."""


class PositionCovariance:
    """Covariances of N places, working pixels; 0 at first.

    own: (N, 3) as xx, xy, yy, since a point's patch was taken. taken: (N,) variance of the place where it was taken.
    drift: (N,) standard deviation of the error that steps have in common.
    """

    def __init__(self, num: int) -> None:
        self._own = np.zeros((num, 3))
        self._taken = np.zeros(num)
        self._drift = np.zeros(num)

    def select(self, some: NDArray[np.bool_]) -> PositionCovariance:
        """The rows that `some` (N,) marks."""
        out = PositionCovariance(0)
        out._own, out._taken, out._drift = self._own[some], self._taken[some], self._drift[some]
        return out

    def concatenate(self, more: PositionCovariance) -> PositionCovariance:
        """These rows, then those of `more`."""
        out = PositionCovariance(0)
        pairs = ((self._own, more._own), (self._taken, more._taken), (self._drift, more._drift))
        out._own, out._taken, out._drift = (np.concatenate(pair) for pair in pairs)
        return out

    def renew(self, at: Indices) -> None:
        """The patches of the points numbered `at` are taken again: their present error stays."""
        self._taken[at] = np.minimum(self._taken[at] + self._variance(at), MOST_PX**2)
        self._own[at] = 0

    def step(self, grow_px: Array) -> None:
        """All points move by a step of standard deviation `grow_px` (N,)."""
        self._own += (grow_px.astype(np.float64) ** 2)[:, None] * np.array([1.0, 0.0, 1.0])
        self._drift = np.minimum(self._drift + SHARED * grow_px, MOST_PX)
        self._own *= np.minimum(1, MOST_PX**2 / np.maximum(self._own[:, ::2].mean(axis=1), 1e-12))[:, None]

    def found(self, at: Indices, tensor: Array, difference: Array) -> None:
        """The patches of the points numbered `at` were found. tensor: (n, 3) as `Patches.tensor`; difference: (n,) root
        mean square grey difference that is left."""
        noise = NOISE_GREY**2 + difference.astype(np.float64) ** 2
        xx, xy, yy = tensor.astype(np.float64).T / noise
        xx, yy = np.maximum(xx, 0), np.maximum(yy, 0)
        most = np.sqrt(xx * yy)  # after noise was subtracted from xx and yy, xy may be too large
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
        """(N,) standard deviation per axis: the root of the mean variance of x and y."""
        return np.sqrt(self._variance(slice(None)) + self._taken + self._drift**2).astype(np.float32)

    def independent_sigma(self) -> Array:
        """(N,) the same if the errors of all steps were independent."""
        return np.sqrt(self._variance(slice(None)) + self._taken).astype(np.float32)

    def _variance(self, at: Indices | slice) -> NDArray[np.float64]:
        return np.clip((self._own[at, 0] + self._own[at, 2]) / 2, 0, MOST_PX**2)


_MORE, _MORE_A_S = np.array([1.0, 1.6, 1.6, 3.0], np.float32), np.array([0.0, 1.8, 1.8, 3.5], np.float32)
_MOST = np.float32(8.0)
"""By layer: the factor of points' errors over what their patches say, at first, per second since, and at most: skin
turns, objects roll, and their patches are taken again. Measured on three rendered scenes."""
_UNLIKE, _UNLIKE_MORE = np.float32(0.85), np.float32(4.0)
"""Correlation below which the error of a point of the static scene is larger, and the factor per unit of it."""


@dataclass
class PointStates:
    """n points in one frame. ids: (n,) given when they start.

    at: (n, 2) working pixels, the expected place while a point is hidden. seen: visible. started: followed; false once
    given up. layer: what a point moves with. strong: it has texture. warp: (n, 2, 2) now_from_patch. inside: depth in a
    hand's area, palm lengths. waiting: visible before the blank frames.
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
    spread: PositionCovariance

    @staticmethod
    def begin(ids: Indices, at: Array, layer: NDArray[np.int8], hidden_s: float = 0.0) -> PointStates:
        """New points, visible, without their patches yet. hidden_s: the time for which they count as hidden already."""
        num = len(ids)
        yes, none, one = np.ones(num, bool), np.zeros(num, np.float32), np.ones(num, np.float32)
        warp = np.tile(np.eye(2, dtype=np.float32), (num, 1, 1))
        return PointStates(
            ids, at.astype(np.float32), yes, yes.copy(), ~yes, layer, ~yes, warp, np.zeros((num, 2), np.float32),
            np.full(num, float(hidden_s)), none, np.full(num, FAR), one, Patches.empty(num), PositionCovariance(num),
        )  # fmt: skip

    @staticmethod
    def none() -> PointStates:
        """No point."""
        return PointStates.begin(np.zeros(0, np.int64), np.zeros((0, 2), np.float32), np.zeros(0, np.int8))

    def select(self, some: Mask) -> PointStates:
        """The points that `some` (n,) marks."""
        if some.all():
            return self
        rows = {one.name: getattr(self, one.name) for one in fields(self)}
        chosen: dict[str, Any] = {
            name: own[some] if isinstance(own, np.ndarray) else own.select(some) for name, own in rows.items()
        }
        return PointStates(**chosen)

    def concatenate(self, more: PointStates) -> PointStates:
        """These, then `more`."""
        if not len(self.ids):
            return more
        both = ((getattr(self, one.name), getattr(more, one.name)) for one in fields(self))
        joined = (np.concatenate([a, b]) if isinstance(a, np.ndarray) else a.concatenate(b) for a, b in both)
        return PointStates(*joined)

    @property
    def sigma(self) -> Array:
        """(n,) standard deviation per axis, working pixels."""
        more = np.minimum(_MORE[self.layer] + _MORE_A_S[self.layer] * self.age_s, _MOST)
        unlike = np.where(self.strong & (self.layer == STATIC), np.maximum(_UNLIKE - self.likeness, 0), np.float32(0))
        own = self.spread.sigma() * more * (1 + _UNLIKE_MORE * unlike)
        return np.where(own > 0, np.sqrt(own**2 + FLOOR_PX**2), np.float32(0))

    def by_id(self, rows: NDArray, num: int, first: int = 0) -> NDArray:
        """(num, ...) of `rows` (n, ...) for ids `first`, `first` + 1, ...; NaN or False for points not here."""
        out = np.full((num, *rows.shape[1:]), False if rows.dtype == bool else np.nan, rows.dtype)
        mine = (self.ids >= first) & (self.ids < first + num)
        out[self.ids[mine] - first] = rows[mine]
        return out
