"""How the still scene moves, from two pictures as wholes: where too few corners are left to tell.

One homography, refined by Gauss-Newton from coarse to fine on the pixels that have a slope, with robust weights, a gain
and an offset of the light. It says how well the pictures determine it: a plain wall with a soft shadow a little,
a wall of one colour not at all.

Source: Baker and Matthews, Lucas-Kanade 20 Years On (IJCV 2004), inverse compositional; Bartoli, Groupwise Geometric
and Photometric Direct Image Registration (PAMI 2008), for the light.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import cv2
import numpy as np
from numpy.typing import NDArray

from handloom.geometry.camera.motion import dominant_homography, warp

Floats = NDArray[np.float64]
Grey = NDArray[np.uint8]

BLOCK_PX = 8
"""Of the working picture: one pixel of each such block takes part, the one with the largest slope."""
MOST_PIXELS = 1000
_ROUNDS = (6, 3, 2)
_LEAST_SLOPE = (0.25, 0.5, 1.0)
"""Grey levels per pixel of the level, coarse to fine: below it is noise."""
NOISE_GREY = 1.0
CORRELATED = 3.0
"""By how much less the pixels tell than if they were independent; chosen on still and turned pictures."""
PRIOR = 0.04
"""Standard deviation of a step's shift, as a share of sqrt(width * height)."""
_PRIOR_OF = np.array([1, 0.25, 0.25, 1, 0.25, 0.25, 0.1, 0.1])
"""Of the eight numbers, in that: a camera shifts the picture more than it turns or stretches it."""
LEAST_SHARE = 0.5
"""Of the pixels with a slope, those that the homography has to explain."""
_EXPLAINED_PX, _EXPLAINED_GREY = 0.6, 4.0
MIN_PIXELS = 60
_LEAST_SIDE = 32
_CORNERS, _CORNER = 250, 5e-5
"""At most; and OpenCV's least eigenvalue of half the picture that noise does not reach: a slope of 1 grey a pixel."""
_CONTRAST_GREY = 6.0
_LIGHT_GREY, DARK_GREY = 3.0, 4.0
"""Change of the mean that is a jump of the light; below the second a picture is black and says nothing."""
GOOD_START_GREY = 3.0
"""Mean difference of the coarsest level up to which no other beginning is looked for."""


@dataclass(frozen=True)
class Aligned:
    """homography: (3, 3). covariance: (8, 8), of its `tangents`. share: of the pixels, which it explains."""

    homography: Floats
    covariance: Floats
    share: float


def tangents(points: NDArray[np.floating], size: NDArray[np.floating]) -> tuple[Floats, Floats]:
    """(n, 8) each: how x and y of (n, 2) points answer to the eight numbers of a small homography, in pixels."""
    x, y = unit_places(points, size)
    one, none = np.ones_like(x), np.zeros_like(x)
    return (
        np.stack([one, x, y, none, none, none, x * x, x * y], -1),
        np.stack([none, none, none, one, x, y, x * y, y * y], -1),
    )


# Which of the eight numbers x and y answer to in `tangents`, and by which powers of x and y.
_ANSWERS = (
    ([0, 1, 2, 6, 7], [0, 1, 0, 2, 1], [0, 0, 1, 0, 1]),
    ([3, 4, 5, 6, 7], [0, 1, 0, 1, 0], [0, 0, 1, 1, 2]),
)
_FROM = np.concatenate([np.add.outer(8 * np.array(n), n).ravel() for n, _, _ in _ANSWERS])
_TO = np.concatenate([(5 * np.add.outer(y, y) + np.add.outer(x, x)).ravel() for _, x, y in _ANSWERS])


def homography_px(covariance: Floats, points: NDArray[np.floating], size: NDArray[np.floating]) -> Floats:
    """(n,) standard deviation of x and of y of where a homography puts (n, 2) points.

    The sum of row @ covariance @ row over both rows of `tangents`, as one polynomial: a fifth of the time.
    """
    x, y = unit_places(points, size)
    variance = np.zeros_like(x)
    for row in np.bincount(_TO, covariance.ravel()[_FROM], 25).reshape(5, 5)[::-1]:  # powers of y; in each those of x
        across = np.full_like(x, row[4])
        for factor in row[3::-1]:
            across *= x
            across += factor
        variance *= y
        variance += across
    return np.sqrt(np.maximum(variance, 0) / 2)


def unit_places(points: NDArray[np.floating], size: NDArray[np.floating]) -> tuple[Floats, Floats]:
    """x and y of (n, 2) pixels from the picture's middle, in halves of sqrt(width * height)."""
    unit = float(np.sqrt(np.prod(size))) / 2
    x, y = ((points[:, i].astype(np.float64) - (float(size[i]) - 1) / 2) / unit for i in range(2))
    return x, y


def small_homography(change: Floats, size: NDArray[np.floating]) -> Floats:
    """(3, 3) of eight numbers as `tangents` has them."""
    radius, into = _into(size)
    p = change / radius
    moved = np.array([[1 + p[1], p[2], p[0]], [p[4], 1 + p[5], p[3]], [-p[6], -p[7], 1]])
    return np.linalg.inv(into) @ moved @ into


def covariance_of(information: Floats, variance: float, size: NDArray[np.floating]) -> Floats:
    """(8, 8) covariance of a homography from its normal matrix and the variance of what it was fitted to."""
    return np.linalg.inv(information / variance + np.diag(_prior_information(size)))


def _prior_information(size: NDArray[np.floating]) -> Floats:
    return 1 / (PRIOR * float(np.sqrt(np.prod(size))) * _PRIOR_OF) ** 2


def numbers_of(homography: Floats, size: NDArray[np.floating]) -> Floats:
    """The inverse of `small_homography`, to first order."""
    radius, into = _into(size)
    h = into @ homography @ np.linalg.inv(into)
    h = h / h[2, 2]
    return radius * np.array([h[0, 2], h[0, 0] - 1, h[0, 1], h[1, 2], h[1, 0], h[1, 1] - 1, -h[2, 0], -h[2, 1]])


def _into(size: NDArray[np.floating]) -> tuple[float, Floats]:
    """Half of sqrt(width * height), and what brings pixels to its unit, about the middle."""
    radius = float(np.sqrt(np.prod(size))) / 2
    x, y = (size.astype(np.float64) - 1) / 2
    return radius, np.array([[1 / radius, 0, -x / radius], [0, 1 / radius, -y / radius], [0, 0, 1]])


class Pair:
    """Two pictures in a row. Where the light jumped between them, the first is brought to the second's brightness;
    `taken` is it as it was."""

    def __init__(self, before: Grey, after: Grey) -> None:
        self.taken = before
        mean, shown = (float(cv2.mean(grey)[0]) for grey in (before, after))
        if abs(mean - shown) > _LIGHT_GREY and min(mean, shown) > DARK_GREY:
            before = cv2.convertScaleAbs(before, alpha=float(np.clip(shown / mean, 0.3, 3.0)))
        self.before, self.after = before, after

    @cached_property
    def flow(self) -> NDArray[np.float32]:
        """(h / 2, w / 2, 2) at half size, in its pixels.

        Source: Kroeger et al., Fast Optical Flow using Dense Inverse Search (ECCV 2016), as OpenCV has it; 0.6 ms at
        640 x 360.
        """
        if min(self.small[0].shape) < _LEAST_SIDE:
            return np.zeros((*self.small[0].shape, 2), np.float32)
        return cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_ULTRAFAST).calc(*self.small, None)

    @cached_property
    def small(self) -> tuple[Grey, Grey]:
        """Both at half size."""
        return _half(self.before), _half(self.after)

    @property
    def textured(self) -> bool:
        """Both pictures show enough for a flow to mean something."""
        return min(float(cv2.meanStdDev(grey)[1][0, 0]) for grey in (self.before, self.after)) > _CONTRAST_GREY

    def flow_at(self, points: NDArray[np.float32]) -> NDArray[np.float32]:
        """(n, 2) in working pixels, at (n, 2) working pixels."""
        if not len(points):
            return points.copy()
        ratio = np.array(self.before.shape[::-1], np.float32) / np.array(self.flow.shape[1::-1], np.float32)
        at = (points + np.float32(0.5)) / ratio - np.float32(0.5)
        found = cv2.remap(self.flow, at[:, :1], at[:, 1:], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        return ratio * found[:, 0]

    def corners(self, free: NDArray[np.bool_]) -> NDArray[np.float32]:
        """(n, 2) corners of the first picture in the blocks that are free, as `align` has them."""
        half = self.small[0]
        strength = cv2.cornerMinEigenVal(half, 5, 3)
        row, column = _best_of_blocks(strength, free, BLOCK_PX // 2, _CORNER, _CORNERS)
        ratio = np.array(self.before.shape[::-1], np.float32) / np.array(half.shape[::-1], np.float32)
        return (np.stack([column, row], -1).astype(np.float32) + np.float32(0.5)) * ratio - np.float32(0.5)


def align(pair: Pair, free: NDArray[np.bool_], starts: Sequence[Floats]) -> Aligned | None:
    """The homography from one picture to the next of what lies outside the hands; None where the pictures have no
    slopes or no homography explains them.

    Args:
        free: (h / 8, w / 8) blocks that may be of the still scene. starts: homographies to begin at, in working pixels.
    """
    size = np.array(pair.before.shape[::-1], np.float64)
    pairs = zip(halves(pair.before), halves(pair.after), strict=True)
    levels = [Level.of(a, b, free, BLOCK_PX // 2 >> number, size) for number, (a, b) in enumerate(pairs)][::-1]
    levels = [level for level in levels if len(level.points) >= MIN_PIXELS]
    if not levels:
        return None
    cost, homography = min(((levels[0].cost(start), number), start) for number, start in enumerate(starts))
    if cost[0] > GOOD_START_GREY:
        homography = min([homography, *_from_flow(pair, levels[0].points)], key=levels[0].cost)
    for level, rounds in zip(levels, _ROUNDS, strict=False):
        homography, information, variance = level.refine(homography, rounds, size)
    share = levels[-1].explained(homography)
    if share < LEAST_SHARE or not np.isfinite(homography).all():
        return None
    return Aligned(homography, covariance_of(information, CORRELATED * variance, size), share)


def _from_flow(pair: Pair, points: NDArray[np.float32]) -> list[Floats]:
    """The homography most of the flow at (n, 2) working pixels agrees with, if there is one."""
    some = points[:: max(1, len(points) // 300)]
    found, inliers = dominant_homography(some, some + pair.flow_at(some), *map(float, pair.before.shape[::-1]))
    return [found] if inliers.sum() >= MIN_PIXELS // 2 else []


@dataclass(frozen=True)
class Level:
    """points: (n, 2) working pixels of those that take part. slopes: (n, 2) grey per working pixel. grey: (n,)."""

    points: NDArray[np.float32]
    grey: NDArray[np.float32]
    slopes: NDArray[np.float32]
    after: NDArray[np.float32]
    ratio: NDArray[np.float32]  # working over the level's pixels, x and y

    @staticmethod
    def of(a: NDArray[np.float32], b: NDArray[np.float32], free: NDArray[np.bool_], block: int, size: Floats) -> Level:
        """Of two pictures at the level's size; a block has `block` pixels to a side."""
        ratio = (size / a.shape[::-1]).astype(np.float32)
        x = cv2.filter2D(a, -1, np.float32([[-0.5, 0, 0.5]]))
        y = cv2.filter2D(a, -1, np.float32([[-0.5], [0], [0.5]]))
        strength = x * x + y * y
        strength[[0, -1]] = strength[:, [0, -1]] = 0
        row, column = _best_of_blocks(strength, free, block, _LEAST_SLOPE[block.bit_length() - 1] ** 2, MOST_PIXELS)
        points = (np.stack([column, row], -1).astype(np.float32) + np.float32(0.5)) * ratio - np.float32(0.5)
        return Level(points, a[row, column], np.stack([x[row, column], y[row, column]], -1) / ratio, b, ratio)

    def difference(self, homography: Floats) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """(n,) grey of `after` where the points go, less their own; and which go into the picture."""
        at = ((warp(homography, self.points) + 0.5) / self.ratio - 0.5).astype(np.float32)
        seen = cv2.remap(self.after, at[:, :1], at[:, 1:], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)[:, 0]
        height, width = self.after.shape
        inside = (at[:, 0] > 0) & (at[:, 1] > 0) & (at[:, 0] < width - 1) & (at[:, 1] < height - 1)
        return seen - self.grey, inside

    def only(self, some: NDArray[np.bool_]) -> Level:
        """Some of its (n,) points."""
        return replace(self, points=self.points[some], grey=self.grey[some], slopes=self.slopes[some])

    def cost(self, homography: Floats) -> float:
        """Mean difference, each at most 20 grey levels, the light's own change taken out; 5 for what leaves."""
        off, inside = self.difference(homography)
        if inside.sum() < MIN_PIXELS / 2:
            return np.inf
        off = np.abs(off - np.median(off[inside]))
        return float(np.where(inside, np.minimum(off, 20), 5).mean())

    def explained(self, homography: Floats) -> float:
        """Share of the points that go into the picture whose difference a small shift explains."""
        off, inside = self.difference(homography)
        if inside.sum() < MIN_PIXELS:
            return 0.0
        off, slope = off[inside] - np.median(off[inside]), np.linalg.norm(self.slopes[inside], axis=1)
        return float((np.abs(off) < _EXPLAINED_PX * self.ratio[0] * slope + _EXPLAINED_GREY).mean())

    def refine(self, homography: Floats, rounds: int, size: Floats) -> tuple[Floats, Floats, float]:
        """The homography after some rounds, its normal matrix (8, 8), and the variance of the difference."""
        along, down = tangents(self.points, size)
        light = np.stack([(self.grey - self.grey.mean()) / 64, np.ones(len(self.grey))])
        x, y = self.slopes.T.astype(np.float64)
        answer = np.concatenate([x * along.T + y * down.T, light])  # (10, n): sums run along what lies together
        # What the pictures do not show is held towards a camera at rest.
        prior = np.concatenate([_prior_information(size), [1e-6, 1e-6]])
        for _ in range(rounds):
            off, inside = self.difference(homography)
            spread = max(NOISE_GREY, 1.4826 * float(np.median(np.abs(off[inside])))) if inside.any() else NOISE_GREY
            weight = inside / (1 + (off / (2.4 * spread)) ** 2)
            normal = np.einsum("in,jn->ij", answer * weight, answer)
            told = 1 / (CORRELATED * spread**2)
            pull = told * np.einsum("in,n->i", answer, weight * off)
            pull[:8] += prior[:8] * numbers_of(homography, size)
            change = np.linalg.solve(told * normal + np.diag(prior), pull)
            homography = homography @ np.linalg.inv(small_homography(change[:8], size))
            homography = homography / homography[2, 2]
            if np.abs(change[:8]).max() < 0.02:
                break
        variance = max(NOISE_GREY**2, float((weight * off**2).sum() / max(weight.sum(), 1e-9)))
        # What the light could as well have done is not known of the motion.
        shared = normal[:8, 8:] @ np.linalg.solve(normal[8:, 8:] + 1e-6 * np.eye(2), normal[8:, :8])
        return homography, normal[:8, :8] - shared, variance


def _best_of_blocks(
    strength: NDArray[np.float32], free: NDArray[np.bool_], block: int, least: float, most: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Rows and columns of the strongest place of every free block that reaches `least`; at most `most`, the best."""
    rows, columns = (min(n // block, m) for n, m in zip(strength.shape, free.shape, strict=True))
    blocks = strength[: rows * block, : columns * block].reshape(rows, block, columns, block)
    blocks = blocks.transpose(0, 2, 1, 3).reshape(rows, columns, -1)
    value = np.where(free[:rows, :columns], blocks.max(-1), 0)
    row, column = np.nonzero(value > least)
    if len(row) > most:
        kept = np.sort(np.argsort(-value[row, column], kind="stable")[:most])
        row, column = row[kept], column[kept]
    inner = blocks[row, column].argmax(-1)
    return row * block + inner // block, column * block + inner % block


def _half(grey: Grey) -> Grey:
    shape = (max(1, grey.shape[1] // 2), max(1, grey.shape[0] // 2))
    return cv2.resize(grey, shape, interpolation=cv2.INTER_AREA)


def halves(grey: Grey) -> Iterator[NDArray[np.float32]]:
    """The picture at a half, a quarter and an eighth of its size, lightly blurred."""
    picture = grey.astype(np.float32)
    for _ in range(3):
        shape = (max(3, picture.shape[1] // 2), max(3, picture.shape[0] // 2))
        picture = cv2.resize(picture, shape, interpolation=cv2.INTER_AREA)
        yield soft(picture)


def soft(picture: NDArray[np.number]) -> NDArray[np.float32]:
    """Lightly blurred, as float32."""
    return cv2.GaussianBlur(picture.astype(np.float32, copy=False), (0, 0), 0.9)
