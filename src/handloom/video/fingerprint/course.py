"""The course of a fingerprint in 576 numbers: which pairs of clips are worth a comparison of all their pictures.

Twelve moments of 6 x 8 pixels. Of two courses, the place of one in the other is taken from their means over time (whole
or a crop, mirrored or not), and the changes of whole clips and of parts of them are compared there.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from handloom.video.fingerprint.crops import Crops, Pictures, unit
from handloom.video.fingerprint.pictures import Fingerprint

MOMENTS, HEIGHT_PX, WIDTH_PX = 12, 6, 8
DIM = MOMENTS * HEIGHT_PX * WIDTH_PX
LIKELY, LIKELY_CROP = 0.65, 0.35
"""Correlation of changes below which two clips are no copies; where one shows a crop of the other, which so few pixels
tell badly. Whole copies of rendered and real clips, also halves of them, reach 0.86 at least, crops 0.44."""
SAME_MEAN = 0.9
"""Correlation of the means from which both show the whole picture."""
_BINS = 6
_SPANS = [(start, start + num) for num in (12, 10, 8, 7, 6) for start in range(0, 13 - num)]
"""Parts of a clip that a copy may show, in moments; the whole first."""
_SPANS_OF_CROPS = 4
_CROPS = Crops((1.0, 0.77), 0.07, (HEIGHT_PX, WIDTH_PX))
_SCALE = 42.0  # of int8: contrast is seldom above 3
_DENSE = 6
"""Cells of a table of rows for each pair wanted, up to which the whole table is one product of matrices."""


def course(fingerprint: Fingerprint) -> NDArray[np.int8]:
    """(576,) twelve moments, each the mean of a twelfth of the clip."""
    num = len(fingerprint.small)
    size = (WIDTH_PX, HEIGHT_PX)
    small = np.stack([cv2.resize(one, size, interpolation=cv2.INTER_AREA) for one in fingerprint.small])
    moments = np.einsum("mn,nd->md", _averaging(num, 0, num, MOMENTS), small.reshape(num, -1))
    return np.clip(np.rint(moments * _SCALE), -127, 127).astype(np.int8).reshape(-1)


class Courses:
    """Courses (R, 576), ready to be compared: 50 kB each."""

    def __init__(self, rows: NDArray[np.int8]) -> None:
        self._courses = rows.reshape(-1, MOMENTS, HEIGHT_PX * WIDTH_PX).astype(np.float32)
        means = self._courses.mean(1)
        self._means = np.stack([unit(means), unit(_mirrored(means))], axis=1)
        self._crops = _CROPS.of(means)
        self._parts = _changes(self._courses, _CENTRED)
        self._whole = np.stack([self._parts[:, 0], _mirrored(self._parts[:, 0])], axis=1)

    def likely(self, ours: NDArray[np.int64], theirs: NDArray[np.int64]) -> NDArray[np.bool_]:
        """(P,) whether pairs of rows may be copies."""
        both = ((ours, theirs), (theirs, ours))
        mean = _best(self._crops[:, :1], self._means, ours, theirs)[0]
        crops = [_best(self._crops[:, 1:], self._means, *pair) for pair in both]
        is_whole = mean >= np.maximum(crops[0][0], crops[1][0])
        result = np.zeros(len(ours), bool)
        some = np.flatnonzero(is_whole)
        for one, other in both:
            result[some] |= _best(self._parts, self._whole, one[some], other[some])[0] >= LIKELY
        is_swapped = crops[1][0] > crops[0][0]
        number = np.where(is_swapped, crops[1][1], crops[0][1])
        waiting = ~result & (~is_whole | (mean < SAME_MEAN))
        for value, swapped in sorted({*zip(number[waiting].tolist(), is_swapped[waiting].tolist(), strict=True)}):
            some = np.flatnonzero(waiting & (number == value) & (is_swapped == swapped))
            cut, shown = (theirs[some], ours[some]) if swapped else (ours[some], theirs[some])
            result[some] = self._of_crop(cut, shown, value % 2, 1 + value // 2) >= LIKELY_CROP
        return result

    def _of_crop(self, cut: NDArray[np.int64], shown: NDArray[np.int64], turned: int, crop: int) -> Pictures:
        """(P,) the best correlation of the changes where one shows this crop of the other, turned or not."""
        ours = _changes(_CROPS.of_all(crop, self._courses[cut]), _CENTRED[:_SPANS_OF_CROPS])
        theirs = self._parts[shown, :_SPANS_OF_CROPS]
        theirs = _mirrored(theirs) if turned else theirs
        found = [np.einsum("psd,pd->ps", a, b[:, 0]).max(1) for a, b in ((ours, theirs), (theirs, ours))]
        return np.asarray(np.maximum(*found), np.float32)


def _best(
    left: Pictures, right: Pictures, ours: NDArray[np.int64], theirs: NDArray[np.int64]
) -> tuple[Pictures, NDArray[np.int64]]:
    """(P,) the largest product of (R, A, d) and (R, B, d) at pairs of rows, and its number, a * B + b."""
    if not len(ours):
        return np.empty(0, np.float32), np.empty(0, np.int64)
    rows, at = np.unique(ours, return_inverse=True)
    others, other_at = np.unique(theirs, return_inverse=True)
    a, b, dim = left.shape[1], right.shape[1], left.shape[2]
    if len(rows) * len(others) > _DENSE * len(ours):
        found = np.einsum("pad,pbd->pab", left[ours], right[theirs], optimize=True).reshape(len(ours), -1)
    else:
        table = left[rows].reshape(-1, dim) @ right[others].reshape(-1, dim).T
        found = table.reshape(len(rows), a, len(others), b)[at, :, other_at].reshape(len(ours), -1)
    number = found.argmax(1)
    return found[np.arange(len(found)), number], number


def _changes(courses: Pictures, spans: NDArray[np.float32]) -> Pictures:
    """(P, 12, 48) to (P, S, 288), of unit length: the pictures of each span less their mean over time."""
    rest = (spans.reshape(-1, MOMENTS) @ courses).reshape(len(courses), len(spans), -1)
    length = np.linalg.norm(rest, axis=2, keepdims=True)
    return np.asarray(rest / np.maximum(length, 1e-6), np.float32)


def _mirrored(courses: Pictures) -> Pictures:
    return courses.reshape(-1, HEIGHT_PX, WIDTH_PX)[..., ::-1].reshape(courses.shape)


def _averaging(num: int, start: float, end: float, bins: int) -> NDArray[np.float32]:
    """(bins, num) means over equal parts of `[start, end)`, of `num` values that stand for `[i, i + 1)`."""
    edges, at = np.linspace(start, end, bins + 1), np.arange(num)
    shared = np.maximum(np.minimum(edges[1:, None], at + 1) - np.maximum(edges[:-1, None], at), 0)
    return np.asarray(shared / shared.sum(1, keepdims=True), np.float32)


_AVERAGES = np.stack([_averaging(MOMENTS, start, end, _BINS) for start, end in _SPANS])
_CENTRED = _AVERAGES - _AVERAGES.mean(1, keepdims=True)
