"""Do two fingerprints show one recording?

First the place of one's picture in the other's, mirrored or not, from their means over time; then which frames show
the same moment: the times of a copy are a line in those of its clip; then the place exactly (ECC), and the line. What
decides is how the pictures *differ from their mean over the clip*: a background at rest, which two executions of an
action share, is taken away.

Source: Evangelidis and Psarakis, Parametric Image Alignment Using Enhanced Correlation Coefficient Maximization, PAMI
2008.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache

import cv2
import numpy as np
from numpy.typing import NDArray

from handloom.video.fingerprint.crops import FINE, HEIGHT_PX, WIDTH_PX, Pictures, mirrored, unit
from handloom.video.fingerprint.pictures import LEAST_FRAMES, Fingerprint, evened

ROUGH = 0.3
"""Correlation of the changes at the first look, below which two clips are told to be different."""
ROUGH_FRAMES = 32
SHORTEST = 0.35
"""Share of a clip that a copy of a part of it has at least."""
STILL = 0.05
"""Changes of pictures (of unit contrast) below which nothing can be told."""
BLUR_PX = 0.8
CROPPED, COUNTED_OF_CROP = 0.85, 0.5
"""Of a crop below this share of the area the disagreement counts half: its pixels were larger, and interpolated."""
_STEPS = (cv2.TERM_CRITERIA_EPS | cv2.TERM_CRITERIA_COUNT, 30, 1e-4)
_SMOOTHED_PX = 3
_OF_MEAN = 0.25
_SIZE = (WIDTH_PX, HEIGHT_PX)


def agreement(one: Fingerprint, other: Fingerprint) -> float:
    """How well two clips show one course of pictures, at the moment where they agree least: 1 for an exact copy.

    Symmetric only if the order of the two is: give them in an order that depends on the clips alone.

    Returns:
        NaN if that cannot be told: fewer than four frames, or nothing changes.
    """
    if min(len(one.grey), len(other.grey)) < LEAST_FRAMES:
        return float("nan")
    whole, part, turned, crop = _placed(one, other)
    few, few_part = (_spread(len(some.grey)) for some in (whole, part))
    cut = FINE.of_all(crop, whole.small[few])
    seen = part.small[few_part, :, ::-1] if turned else part.small[few_part]
    line = _rough_line(_flat(cut), _flat(seen))
    rough = _correlation(*(_changes(pictures) for pictures in line.frames(cut, seen)))
    if rough < ROUGH:
        return rough
    line = line.finer(len(few), len(few_part), len(whole.grey), len(part.grey))
    greys = (whole.grey.astype(np.float32), (part.grey[:, :, ::-1] if turned else part.grey).astype(np.float32))
    of_whole, of_part = (pictures.mean(0) for pictures in line.frames(*greys))
    place = _place(of_whole, of_part, FINE.crops[crop].pixels())
    area = abs(float(np.linalg.det(place[:, :2])))
    width = BLUR_PX * np.sqrt(max(1 / area - 1, 0.0))  # a crop is less sharp
    moved = np.stack([evened(_warped(picture, place)) for picture in greys[0]])
    even = np.stack([evened(_blurred(picture, width)) for picture in greys[1]])
    line = _fine_line(_flat(moved), _flat(even), line, max(len(moved) / len(few), len(even) / len(few_part)))
    agreed = _least_agreement(*(_changes(pictures) for pictures in line.frames(moved, even)))
    return 1 - COUNTED_OF_CROP * (1 - agreed) if area < CROPPED else agreed


@dataclass(frozen=True)
class _Line:
    """Which frames show the same moments: those of one clip, all, go evenly from `first` to `last` of the other's.

    of_first: whether it is the first clip of which a part is meant.
    """

    first: float
    last: float
    of_first: bool

    def frames(self, ours: Pictures, theirs: Pictures) -> tuple[Pictures, Pictures]:
        """(n, ...), (m, ...) to pictures of the same moments, as many of both; interpolated between frames."""
        if not self.of_first:
            return replace(self, of_first=True).frames(theirs, ours)[::-1]
        low, share = _between(np.linspace(self.first, self.last, len(theirs)), len(ours))
        share = share.reshape(-1, *[1] * (ours.ndim - 1)).astype(np.float32)
        return ours[low] * (1 - share) + ours[low + 1] * share, theirs

    def finer(self, few: int, few_part: int, num: int, num_part: int) -> _Line:
        """The same line in all frames, of which `_spread` took few."""
        before, after = (few, num) if self.of_first else (few_part, num_part)
        first, last = (np.clip((at + 0.5) * after / before - 0.5, 0, after - 1) for at in (self.first, self.last))
        return replace(self, first=float(first), last=float(last))


def _spread(num: int) -> NDArray[np.int64]:
    """At most `ROUGH_FRAMES` of `num` frames, the middles of equal parts."""
    kept = min(num, ROUGH_FRAMES)
    return ((2 * np.arange(kept, dtype=np.int64) + 1) * num) // (2 * kept)


def _placed(one: Fingerprint, other: Fingerprint) -> tuple[Fingerprint, Fingerprint, bool, int]:
    """(the whole, the part that it is compared with, whether this is mirrored, which of `FINE` it is)."""
    found = []
    for whole, part in ((one, other), (other, one)):
        for turned, mean in ((False, part.mean), (True, mirrored(part.mean[None])[0])):
            likeness = np.einsum("vd,d->v", whole.crops, mean)  # no BLAS: its threads cost more than they save
            found.append((float(likeness.max()), whole, part, turned, int(likeness.argmax())))
    return max(found, key=lambda some: some[0])[1:]


def _rough_line(ours: Pictures, theirs: Pictures) -> _Line:
    """The line along which (n, d) and (m, d) pictures are most alike."""
    alike = unit(ours) @ unit(theirs).T
    return _best([(alike, _every_line(*alike.shape), True), (alike.T, _every_line(*alike.T.shape), False)])


def _fine_line(ours: Pictures, theirs: Pictures, line: _Line, reach: float) -> _Line:
    """The best line that begins and ends within `reach` frames and one of this one."""
    alike = unit(ours) @ unit(theirs).T
    table = alike if line.of_first else alike.T
    steps = np.arange(-np.ceil(reach + 1), np.ceil(reach + 1) + 0.25, 0.5)
    ends = [np.unique(np.clip(np.rint(2 * at) / 2 + steps, 0, len(table) - 1)) for at in (line.first, line.last)]
    lines = np.stack([some.ravel() for some in np.meshgrid(*ends)], axis=1)
    return _best([(table, lines[lines[:, 1] > lines[:, 0]], line.of_first)])


def _best(found: list[tuple[Pictures, NDArray[np.float64], bool]]) -> _Line:
    """Of tables (n, m) of likeness, and lines (L, 2) in each: the line with the largest mean."""
    best = []
    for table, lines, of_first in found:
        num, num_part = table.shape
        at = lines[:, :1] + (lines[:, 1:] - lines[:, :1]) * np.linspace(0, 1, num_part)
        low, share = _between(at, num)
        columns = np.arange(num_part)
        means = (table[low, columns] * (1 - share) + table[low + 1, columns] * share).mean(1)
        first, last = lines[means.argmax()]
        best.append((float(means.max()), _Line(float(first), float(last), of_first)))
    return max(best, key=lambda some: some[0])[1]


@lru_cache(maxsize=256)
def _every_line(num: int, num_part: int) -> NDArray[np.float64]:
    """(L, 2) first and last of `num` frames that `num_part` frames may show."""
    shortest = max(int(np.ceil(SHORTEST * num)), 1)
    ends = [(first, last) for first in range(num) for last in range(first + shortest, num)]
    return np.array(ends or [(0, num - 1)], float)


def _between(at: NDArray[np.float64], num: int) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """The frame before each place, of `num`, and the share of the next one."""
    low = np.clip(np.floor(at).astype(np.int64), 0, num - 2)
    return low, at - low


def _place(whole: Pictures, part: Pictures, start: NDArray[np.float32]) -> NDArray[np.float32]:
    """(2, 3) from pixels of the part to those of the whole; the start where there is no better one."""
    target, source = evened(part), evened(whole)
    try:
        found = cv2.findTransformECC(target, source, start.copy(), cv2.MOTION_AFFINE, _STEPS, None, _SMOOTHED_PX)[1]
    except cv2.error:  # it does not converge
        return start
    return np.asarray(found, np.float32)


def _warped(picture: Pictures, place: NDArray[np.float32]) -> Pictures:
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    return np.asarray(cv2.warpAffine(picture, place, _SIZE, flags=flags, borderMode=cv2.BORDER_REPLICATE), np.float32)


def _blurred(picture: Pictures, width_px: float) -> Pictures:
    return picture if width_px < 0.2 else np.asarray(cv2.GaussianBlur(picture, (0, 0), width_px), np.float32)


def _flat(pictures: Pictures) -> Pictures:
    return pictures.reshape(len(pictures), -1)


def _changes(pictures: Pictures) -> Pictures:
    """(n, d) how pictures differ from their mean over time."""
    return _flat(pictures - pictures.mean(0))


def _correlation(ours: Pictures, theirs: Pictures) -> float:
    length = float(np.linalg.norm(ours) * np.linalg.norm(theirs))
    return float((ours * theirs).sum()) / length if length > 0 else 0.0


def _least_agreement(ours: Pictures, theirs: Pictures) -> float:
    """Of changes (n, d): the correlation at the frame where it is least; a frame near to the mean counts less."""
    energy = np.sqrt((ours**2).sum(1) * (theirs**2).sum(1))
    usual = float(energy.mean())
    if usual < STILL**2 * ours.shape[1]:
        return float("nan")
    return float((((ours * theirs).sum(1) + _OF_MEAN * usual) / (energy + _OF_MEAN * usual)).min())
