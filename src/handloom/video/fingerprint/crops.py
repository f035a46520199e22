"""Crops of small pictures, as matrices: which part of one picture another one may show."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
from numpy.typing import NDArray

Pictures = NDArray[np.float32]

HEIGHT_PX, WIDTH_PX = 24, 32
SMALL_PX = (12, 16)
"""Height and width of the pictures by which the place of a crop and the times are found first."""


@dataclass(frozen=True)
class Crop:
    """share: of the side. top, left: shares of height and width."""

    share: float
    top: float
    left: float

    def pixels(self) -> NDArray[np.float32]:
        """(2, 3) from a place in the crop, a picture of 24 x 32, to that in the whole; pixel centres are integers."""
        across, down = (self.share * 0.5 - 0.5 + at * side for at, side in
                        ((self.left, WIDTH_PX), (self.top, HEIGHT_PX)))  # fmt: skip
        return np.array([[self.share, 0, across], [0, self.share, down]], np.float32)


class Crops:
    """Crops of these shares, placed every `step` (a share of the side) at most, of pictures of size (height, width)."""

    def __init__(self, shares: Sequence[float], step: float, size: tuple[int, int] = SMALL_PX) -> None:
        self._size = size
        self.crops = [
            Crop(share, float(top), float(left))
            for share in shares
            for top, left in product(*[np.linspace(0, 1 - share, round((1 - share) / step) + 1)] * 2)
        ]
        self._rows = np.stack([_sampling(size[0], one.share, one.top) for one in self.crops])
        self._columns = np.stack([_sampling(size[1], one.share, one.left) for one in self.crops])

    def of(self, pictures: Pictures) -> Pictures:
        """(n, d) pictures to (n, crops, d), each of unit length."""
        whole = pictures.reshape(-1, *self._size)
        cut = np.einsum("vab,nbc,vdc->nvad", self._rows, whole, self._columns, optimize=True)
        return unit(cut.reshape(-1, self._size[0] * self._size[1])).reshape(len(whole), len(self.crops), -1)

    def of_all(self, number: int, pictures: Pictures) -> Pictures:
        """One crop of all pictures; the same shape."""
        if self.crops[number].share == 1:
            return pictures
        both = np.kron(self._rows[number], self._columns[number])
        return np.asarray((pictures.reshape(-1, both.shape[0]) @ both.T).reshape(pictures.shape), np.float32)


def mirrored(pictures: Pictures) -> Pictures:
    """(n, 192) pictures, each left to right."""
    return pictures.reshape(-1, *SMALL_PX)[:, :, ::-1].reshape(len(pictures), -1)


def unit(rows: Pictures) -> Pictures:
    """(n, d) rows less their mean, of unit length; zeros where nothing is left."""
    rest = rows - rows.mean(1, keepdims=True)
    length = np.linalg.norm(rest, axis=1, keepdims=True)
    return np.asarray(np.divide(rest, length, out=np.zeros_like(rest), where=length > 1e-6), np.float32)


def _sampling(num: int, share: float, start: float) -> NDArray[np.float32]:
    """(num, num) linear interpolation at the pixels of a crop of `share` that begins at `start`, shares of the side."""
    at = np.clip((start + share * (np.arange(num) + 0.5) / num) * num - 0.5, 0, num - 1)
    low = np.minimum(np.floor(at).astype(int), num - 2)
    weights = np.zeros((num, num), np.float32)
    weights[np.arange(num), low] = 1 - (at - low)
    weights[np.arange(num), low + 1] += at - low
    return weights


FINE = Crops((1.0, 0.93, 0.86, 0.8, 0.74, 0.68, 0.62), 0.06)
