"""Patches of surface points: stored once, found again by Gauss-Newton with a prior on their place.

A patch is 6 x 6 samples, 2.5 px apart, of a lightly blurred frame, so it covers 14 x 14 px. It is compared without its
mean, tilt and contrast, and sampled through an affine warp, so light and viewpoint may change. All points are handled
at once.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import cv2
import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]

# Chosen by hand on three rendered scenes, not fitted: 36 samples have the 2D average Jaccard of 64 (0.73, four scenes).
SIDE, STRIDE_PX = 6, 2.5
_STEPS = (np.arange(SIDE, dtype=np.float32) - (SIDE - 1) / 2) * np.float32(STRIDE_PX)
_X, _Y = (np.ascontiguousarray(a.ravel()) for a in np.meshgrid(_STEPS, _STEPS))  # (36,) each
NUM = SIDE * SIDE
_TILTS = tuple((tilt, np.float32(1 / (tilt @ tilt))) for tilt in (np.ones(NUM, np.float32), _X, _Y))
"""A constant and the gradients along x and y, and one over their squared norms."""
REACH_PX = 9.0
"""A patch whose point is farther than this from the border is inside the image."""
_SHIFTS = np.array([[1, 0], [-1, 0], [0, 1], [0, -1]], np.float32)
OFFSETS = np.stack([_X, _Y], -1)  # (36, 2)
BLUR_PX = 1.4
_MIDDLE_GREY = np.float32(128)  # subtracted first: squares of large float32 numbers lose the contrast of plain surfaces
NOISE_GREY = 1.5
"""Standard deviation of the difference of two images of one surface after the blur, grey levels."""
SHORT_PX = 0.7
"""After a last shift up to this, the patch is not sampled again: its gradients predict the samples."""
SENSOR_GREY = 0.8
"""The part of `NOISE_GREY` that comes from the sensor's noise."""
NOISE_SLOPE = 0.3
"""Standard deviation of the gradients of noise alone, grey levels per pixel."""
_GAIN_RANGE = (0.5, 2.0)
BLANK_GREY = 2.0
"""A frame with a smaller standard deviation of its grey levels is blank."""


@dataclass
class Patches:
    """N patches; rows are overwritten in place. Levelled: without mean and tilt (`_level`).

    share: (N, 36) 1 where a sample belongs to the point's surface, else 0; scale: (N, 3) its norms for `_level`; whole:
    (N,) all samples do. values: (N, 36) grey, levelled. contrast: (N,) standard deviation. slope_x, slope_y: (N, 36)
    grey levels per pixel, levelled. tensor: (N, 3) sums of their products xx, xy, yy, without the noise. colour: (N, 3)
    RGB.
    """

    share: Array
    scale: Array
    whole: NDArray[np.bool_]
    values: Array
    contrast: Array
    slope_x: Array
    slope_y: Array
    tensor: Array
    colour: Array

    @staticmethod
    def empty(num: int) -> Patches:
        one, three, many = (np.zeros((num, *shape), np.float32) for shape in ((), (3,), (NUM,)))
        whole = np.zeros(num, bool)
        return Patches(many, three, whole, many.copy(), one, many.copy(), many.copy(), three.copy(), three.copy())

    def select(self, some: NDArray[np.bool_]) -> Patches:
        """The patches that `some` (N,) marks."""
        return Patches(*(getattr(self, name)[some] for name in Patches.__dataclass_fields__))

    def rows(self, at: NDArray[np.integer]) -> Patches:
        """Copies of the patches numbered `at`."""
        return Patches(*(getattr(self, name).take(at, axis=0) for name in Patches.__dataclass_fields__))

    def concatenate(self, more: Patches) -> Patches:
        """These, then `more`."""
        names = Patches.__dataclass_fields__
        return Patches(*(np.concatenate([getattr(self, name), getattr(more, name)]) for name in names))

    def store(self, at: NDArray[np.integer], view: FrameView, points: Array, share: Array) -> None:
        """Store the image around `points` (n, 2) as the patches numbered `at` (n,). share: (n, 36)."""
        self.share[at] = share
        self.scale[at] = _scale(share)
        self.whole[at] = share.all(axis=1)
        right, left, down, up = (view.samples(points + shift, None) for shift in _SHIFTS)
        self._store_levelled(at, view.samples(points, None), (right - left) / 2, (down - up) / 2)
        self.colour[at] = view.colours(points)

    def _store_levelled(self, at: NDArray[np.integer], values: Array, slope_x: Array, slope_y: Array) -> None:
        share, scale = self.share[at], self.scale[at]
        self.values[at] = grey = _level(values, share, scale)
        self.slope_x[at] = x = _level(slope_x, share, scale)
        self.slope_y[at] = y = _level(slope_y, share, scale)
        self.contrast[at] = np.sqrt(_dot(grey, grey) * scale[:, 0])
        tensor = np.stack([_dot(x, x), _dot(x, y), _dot(y, y)], -1)
        noise = np.float32(NOISE_SLOPE**2) / scale[:, :1]
        self.tensor[at] = tensor - np.minimum(tensor, noise) * np.array([1, 0, 1], np.float32)

    def clipped(self, at: NDArray[np.integer], view: FrameView, points: Array, warp: Array) -> Patches:
        """Copies of the patches numbered `at`, without the samples that are outside the image at `points`."""
        out = self.rows(at)
        near = np.flatnonzero(~view.inside(points, REACH_PX))
        covers = view.covers(points[near], warp[near])
        beyond = ~covers.all(axis=1)
        near = near[beyond]
        if len(near):
            out.share[near] *= covers[beyond]
            out.scale[near] = _scale(out.share[near])
            out.whole[near] = out.share[near].all(axis=1)
            out._store_levelled(near, out.values[near], out.slope_x[near], out.slope_y[near])
        return out

    def corner_strength(self, at: NDArray[np.integer]) -> Array:
        """(n,) smaller eigenvalue of the mean structure tensor, (grey levels per pixel) squared."""
        a, b, c = self.tensor[at].T * self.scale[at, 0]
        return (a + c) / 2 - np.sqrt(((a - c) / 2) ** 2 + b * b)


class FrameView:
    """One frame, prepared for sampling: (h, w) grey, blurred, and small colours.

    light: (3,) RGB brightness relative to a follower's first frame; colours are given as in that frame's light.
    """

    _SHRINK = 4

    def __init__(self, grey: NDArray[np.uint8], rgb: NDArray[np.uint8]) -> None:
        self.size = np.array([grey.shape[1], grey.shape[0]], np.float32)
        self.blurred = cv2.GaussianBlur(grey, (0, 0), BLUR_PX)
        small = [max(1, n // self._SHRINK) for n in grey.shape[::-1]]
        half = cv2.resize(rgb, [2 * n for n in small], interpolation=cv2.INTER_AREA)  # a third of the time of one step
        self._small = cv2.resize(half, small, interpolation=cv2.INTER_AREA)
        self.light = np.ones(3, np.float32)

    @cached_property
    def is_blank(self) -> bool:
        """Whether the frame is black or of one colour."""
        return float(cv2.meanStdDev(self.blurred)[1][0, 0]) < BLANK_GREY

    def samples(self, points: Array, warp: Array | None) -> Array:
        """(n, 36) float32 grey around (n, 2) points, through (n, 2, 2) warps of the offsets; the border is repeated."""
        return self.at(points, (_X, _Y) if warp is None else warped(warp))

    def at(self, points: Array, offsets: tuple[Array, Array]) -> Array:
        """The same for offsets (n, 36) that are already warped."""
        if not len(points):
            return np.zeros((0, NUM), np.float32)
        x, y = points[:, :1] + offsets[0], points[:, 1:] + offsets[1]
        found = cv2.remap(self.blurred, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        return found.astype(np.float32, copy=False)

    def covers(self, points: Array, warp: Array) -> Array:
        """(n, 36) 1 where a sample lies in the image, else 0."""
        x, y = (offset + points[:, i : i + 1] for i, offset in enumerate(warped(warp)))
        return ((x >= 0) & (y >= 0) & (x <= self.size[0] - 1) & (y <= self.size[1] - 1)).astype(np.float32)

    def colours(self, points: Array) -> Array:
        """(n, 3) RGB around the points, averaged over about 8 x 8 px."""
        if not len(points):
            return np.zeros((0, 3), np.float32)
        shape = np.array(self._small.shape[1::-1], np.float32)
        at = ((points + 0.5) * (shape / self.size) - 0.5).astype(np.float32)
        found = cv2.remap(self._small, at[:, :1], at[:, 1:], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        return found.reshape(-1, 3).astype(np.float32) / self.light

    def inside(self, points: Array, margin_px: float = 0.0) -> NDArray[np.bool_]:
        x, y = points[..., 0], points[..., 1]
        width, height = self.size.tolist()
        low, right, bottom = margin_px - 0.5, width - 0.5 - margin_px, height - 0.5 - margin_px
        return (x >= low) & (x <= right) & (y >= low) & (y <= bottom)


@dataclass(frozen=True)
class Match:
    """points: (n, 2) where the patches were found. likeness: (n,) normalised cross-correlation, -1 to 1. difference:
    (n,) root mean square grey difference without mean and gain. colour: (n,) largest difference of the RGB means.
    contrast: (n,) standard deviation of the image there."""

    points: Array
    likeness: Array
    difference: Array
    colour: Array
    contrast: Array


def align_patches(
    patches: Patches, view: FrameView, start: Array, warp: Array, prior: Array, prior_px: Array, rounds: int
) -> Match:
    """Find n patches from `start` on, with a Gaussian prior of mean `prior` and standard deviation `prior_px`.

    Where a patch is plain, or only an edge, the prior decides; where it is a corner, the image does.

    Args:
        start, prior: (n, 2) working pixels. warp: (n, 2, 2) now_from_patch. prior_px: (n,).

    Source: Baker and Matthews, Lucas-Kanade 20 Years On (IJCV 2004), inverse compositional, with a Gaussian prior.
    """
    weight = (np.float32(NOISE_GREY) / prior_px) ** 2
    points, offsets = start.copy(), warped(warp)
    slope_x, slope_y = patches.slope_x, patches.slope_y
    own_x, own_y = _dot(patches.values, slope_x), _dot(patches.values, slope_y)
    (xx, xy, yy), (d, e, f, g) = patches.tensor.T, warp.reshape(-1, 4).T
    a, c = xx + weight, yy + weight
    det, area = a * c - xy * xy, weight / (d * g - e * f)
    for _ in range(rounds):
        # In patch pixels: minimise sum (image - patch - slope s)^2 + weight |s - towards|^2 over the shift s.
        grey, power = _sampled(patches, view, points, offsets)
        gain = _gain(_contrast(power, patches), patches)
        now_x, now_y = _dot(grey, slope_x), _dot(grey, slope_y)
        x, y = (prior - points).T
        pull_x = own_x - gain * now_x + area * (g * x - e * y)
        pull_y = own_y - gain * now_y + area * (d * y - f * x)
        x, y = (c * pull_x - xy * pull_y) / det, (a * pull_y - xy * pull_x) / det
        points[:, 0] += np.maximum(np.minimum(d * x + e * y, 3), -3)
        points[:, 1] += np.maximum(np.minimum(f * x + g * y, 3), -3)
    # The samples after the last shift: predicted by the gradients if it was small, else sampled again.
    alike = _dot(grey, patches.values) + (x * own_x + y * own_y) / gain
    power += (2 * (x * now_x + y * now_y) + (x * x * xx + 2 * x * y * xy + y * y * yy) / gain) / gain
    far = np.flatnonzero(x * x + y * y > SHORT_PX**2)
    if len(far):
        some = patches.rows(far)
        grey, power[far] = _sampled(some, view, points[far], (offsets[0][far], offsets[1][far]))
        alike[far] = _dot(grey, some.values)
    return _match(patches, view, points, alike, power)


def compare(patches: Patches, view: FrameView, points: Array, warp: Array) -> Match:
    """Compare n patches with the image at `points`."""
    grey, power = _sampled(patches, view, points, warped(warp))
    return _match(patches, view, points, _dot(grey, patches.values), power)


def warped(warp: Array) -> tuple[Array, Array]:
    """x and y offsets, (n, 36), of patches' samples from their points, through (n, 2, 2) warps."""
    x, y = (warp[:, i, :1] * _X for i in range(2))
    x += warp[:, 0, 1:] * _Y
    y += warp[:, 1, 1:] * _Y
    return x, y


def _match(patches: Patches, view: FrameView, points: Array, alike: Array, power: Array) -> Match:
    """alike: (n,) product of the image's samples with the patch's. power: with themselves; both levelled."""
    shown, alike = _contrast(power, patches), alike * patches.scale[:, 0]
    likeness = alike / np.maximum(shown * patches.contrast, 1e-3)
    gain = _gain(shown, patches)
    off = (shown * gain) ** 2 + patches.contrast**2 - 2 * alike * gain
    colour = np.abs(view.colours(points) - patches.colour).max(axis=1)
    return Match(points, likeness, np.sqrt(np.maximum(off, 0)), colour, shown)


def _contrast(power: Array, patches: Patches) -> Array:
    return np.sqrt(np.maximum(power * patches.scale[:, 0], 0))


def _sampled(patches: Patches, view: FrameView, points: Array, offsets: tuple[Array, Array]) -> tuple[Array, Array]:
    """(n, 36) grey whose products with levelled values equal those of levelled grey, and (n,) its levelled square.

    Where all samples count, mean and tilt cancel in such products, and need not be subtracted.
    """
    grey = view.at(points, offsets)
    grey -= _MIDDLE_GREY
    some = np.flatnonzero(~patches.whole)
    if len(some):
        grey[some] = _level(grey[some], patches.share[some], patches.scale[some])
    power = _dot(grey, grey)
    for tilt, per in _TILTS:
        power -= patches.whole * per * np.einsum("nk,k->n", grey, tilt) ** 2
    return grey, power


def _scale(share: Array) -> Array:
    """(n, 3) one over the number of samples that count, and over the sums of their squared offsets along x and y."""
    sums = [share.sum(axis=1), *(np.einsum("nk,k->n", share, tilt * tilt) for tilt in (_X, _Y))]
    return 1 / np.maximum(np.stack(sums, -1), 1)


def _level(grey: Array, share: Array, scale: Array) -> Array:
    """Grey without mean and tilt, which light and soft shadows change; 0 where a sample is not of the surface."""
    out = grey - (_dot(grey, share) * scale[:, 0])[:, None]
    out *= share
    x = np.einsum("nk,k->n", out, _X) * scale[:, 1]
    y = np.einsum("nk,k->n", out, _Y) * scale[:, 2]
    tilt = x[:, None] * _X
    tilt += y[:, None] * _Y
    tilt *= share
    out -= tilt
    return out


def _gain(shown: Array, patches: Patches) -> Array:
    """(n,) gain from a contrast (n,) to the patches', clipped to `_GAIN_RANGE`."""
    gain = np.maximum(np.minimum(patches.contrast / np.maximum(shown, 1e-3), _GAIN_RANGE[1]), _GAIN_RANGE[0])
    gain[patches.contrast < 2 * NOISE_GREY] = 1  # plain: its contrast is noise
    return gain


def _dot(a: Array, b: Array) -> Array:
    return np.einsum("nk,nk->n", a, b)
