"""The static scene's motion from whole images, for where too few corners are left: direct image alignment.

One homography, refined by Gauss-Newton from coarse to fine on pixels with a gradient, with robust weights, a gain and
an offset of the light. Its covariance says how well the images determine it: a plain wall with a soft shadow does a
little, a wall of one colour does not.

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
"""Of the working image: of each block of this side the pixel with the largest gradient is used."""
MAX_PIXELS = 1000
_ROUNDS = (6, 3, 2)
_MIN_SLOPE = (0.25, 0.5, 1.0)
"""Grey levels per pixel of the level, coarse to fine: a smaller gradient is noise."""
NOISE_GREY = 1.0
CORRELATED = 3.0
"""Factor on the pixels' variance, since neighbouring pixels are not independent; chosen on images at rest and turned
ones."""
PRIOR = 0.04
"""Prior standard deviation of a step's shift, as a share of sqrt(width * height)."""
_PRIOR_OF = np.array([1, 0.25, 0.25, 1, 0.25, 0.25, 0.1, 0.1])
"""Of the eight parameters, relative to it: a camera shifts the image more than it turns or stretches it."""
MIN_EXPLAINED_SHARE = 0.5
"""Share of the pixels used that the homography has to explain."""
_EXPLAINED_PX, _EXPLAINED_GREY = 0.6, 4.0
MIN_PIXELS = 60
_MIN_SIDE = 32
_MAX_CORNERS, _MIN_CORNER_STRENGTH = 250, 5e-5
"""Their number, and the least eigenvalue (OpenCV's, at half size) above noise: a gradient of 1 grey level per pixel."""
_CONTRAST_GREY = 6.0
_LIGHT_GREY, DARK_GREY = 3.0, 4.0
"""A larger change of the mean is a jump of the light; an image whose mean is below the second is black."""
GOOD_START_GREY = 3.0
"""If the mean difference at the coarsest level is larger, a start from dense optical flow is tried, too."""


@dataclass(frozen=True)
class Alignment:
    """homography: (3, 3). covariance: (8, 8) of its parameters. share: of the pixels, which it explains."""

    homography: Floats
    covariance: Floats
    share: float


def homography_jacobian(points: NDArray[np.floating], size: NDArray[np.floating]) -> tuple[Floats, Floats]:
    """(n, 8) each: derivatives of x and of y of (n, 2) points by the parameters of a small homography, in pixels."""
    x, y = centred_points(points, size)
    one, none = np.ones_like(x), np.zeros_like(x)
    return (
        np.stack([one, x, y, none, none, none, x * x, x * y], -1),
        np.stack([none, none, none, one, x, y, x * y, y * y], -1),
    )


# For x and for y: the parameters with a derivative in `homography_jacobian`, and the powers of x and of y in it.
_PARAMETER_POWERS = (
    ([0, 1, 2, 6, 7], [0, 1, 0, 2, 1], [0, 0, 1, 0, 1]),
    ([3, 4, 5, 6, 7], [0, 1, 0, 1, 0], [0, 0, 1, 1, 2]),
)
_FROM = np.concatenate([np.add.outer(8 * np.array(n), n).ravel() for n, _, _ in _PARAMETER_POWERS])
_TO = np.concatenate([(5 * np.add.outer(y, y) + np.add.outer(x, x)).ravel() for _, x, y in _PARAMETER_POWERS])


def homography_sigma_px(covariance: Floats, points: NDArray[np.floating], size: NDArray[np.floating]) -> Floats:
    """(n,) standard deviation, per axis, of (n, 2) points after a homography of this covariance.

    The sum of row @ covariance @ row over both rows of `homography_jacobian`, as one polynomial: a fifth of the time.
    """
    x, y = centred_points(points, size)
    variance = np.zeros_like(x)
    for row in np.bincount(_TO, covariance.ravel()[_FROM], 25).reshape(5, 5)[::-1]:  # powers of y; in each those of x
        across = np.full_like(x, row[4])
        for factor in row[3::-1]:
            across *= x
            across += factor
        variance *= y
        variance += across
    return np.sqrt(np.maximum(variance, 0) / 2)


def centred_points(points: NDArray[np.floating], size: NDArray[np.floating]) -> tuple[Floats, Floats]:
    """x and y of (n, 2) pixels from the image's middle, in halves of sqrt(width * height)."""
    unit = float(np.sqrt(np.prod(size))) / 2
    x, y = ((points[:, i].astype(np.float64) - (float(size[i]) - 1) / 2) / unit for i in range(2))
    return x, y


def homography_from_parameters(change: Floats, size: NDArray[np.floating]) -> Floats:
    """(3, 3) of the eight parameters of `homography_jacobian`."""
    radius, into = _normalisation(size)
    p = change / radius
    moved = np.array([[1 + p[1], p[2], p[0]], [p[4], 1 + p[5], p[3]], [-p[6], -p[7], 1]])
    return np.linalg.inv(into) @ moved @ into


def covariance_of(information: Floats, variance: float, size: NDArray[np.floating]) -> Floats:
    """(8, 8) covariance of a homography's parameters from its normal matrix and the variance of the residuals."""
    return np.linalg.inv(information / variance + np.diag(_prior_information(size)))


def _prior_information(size: NDArray[np.floating]) -> Floats:
    return 1 / (PRIOR * float(np.sqrt(np.prod(size))) * _PRIOR_OF) ** 2


def parameters_of(homography: Floats, size: NDArray[np.floating]) -> Floats:
    """The inverse of `homography_from_parameters`, to first order."""
    radius, into = _normalisation(size)
    h = into @ homography @ np.linalg.inv(into)
    h = h / h[2, 2]
    return radius * np.array([h[0, 2], h[0, 0] - 1, h[0, 1], h[1, 2], h[1, 0], h[1, 1] - 1, -h[2, 0], -h[2, 1]])


def _normalisation(size: NDArray[np.floating]) -> tuple[float, Floats]:
    """Half of sqrt(width * height), and the matrix from pixels to this unit, about the image's middle."""
    radius = float(np.sqrt(np.prod(size))) / 2
    x, y = (size.astype(np.float64) - 1) / 2
    return radius, np.array([[1 / radius, 0, -x / radius], [0, 1 / radius, -y / radius], [0, 0, 1]])


class ImagePair:
    """Two images in a row. If the light jumped between them, `before` is brought to the brightness of `after`;
    `original` is the first image without that."""

    def __init__(self, before: Grey, after: Grey) -> None:
        self.original = before
        mean, shown = (float(cv2.mean(grey)[0]) for grey in (before, after))
        if abs(mean - shown) > _LIGHT_GREY and min(mean, shown) > DARK_GREY:
            before = cv2.convertScaleAbs(before, alpha=float(np.clip(shown / mean, 0.3, 3.0)))
        self.before, self.after = before, after

    @cached_property
    def flow(self) -> NDArray[np.float32]:
        """(h / 2, w / 2, 2) dense optical flow at half size, in its pixels.

        Source: Kroeger et al., Fast Optical Flow using Dense Inverse Search (ECCV 2016), by OpenCV; 0.6 ms at 640 x
        360.
        """
        if min(self.small[0].shape) < _MIN_SIDE:
            return np.zeros((*self.small[0].shape, 2), np.float32)
        return cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_ULTRAFAST).calc(*self.small, None)

    @cached_property
    def small(self) -> tuple[Grey, Grey]:
        """Both at half size."""
        return _half(self.before), _half(self.after)

    @property
    def textured(self) -> bool:
        """Both images have enough contrast for optical flow."""
        return min(float(cv2.meanStdDev(grey)[1][0, 0]) for grey in (self.before, self.after)) > _CONTRAST_GREY

    def flow_at(self, points: NDArray[np.float32]) -> NDArray[np.float32]:
        """(n, 2) dense flow at (n, 2) points, working pixels."""
        if not len(points):
            return points.copy()
        ratio = np.array(self.before.shape[::-1], np.float32) / np.array(self.flow.shape[1::-1], np.float32)
        at = (points + np.float32(0.5)) / ratio - np.float32(0.5)
        found = cv2.remap(self.flow, at[:, :1], at[:, 1:], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        return ratio * found[:, 0]

    def corners(self, free: NDArray[np.bool_]) -> NDArray[np.float32]:
        """(n, 2) corners of the first image in the blocks that are `free` (as in `align`)."""
        half = self.small[0]
        strength = cv2.cornerMinEigenVal(half, 5, 3)
        row, column = _strongest_of_blocks(strength, free, BLOCK_PX // 2, _MIN_CORNER_STRENGTH, _MAX_CORNERS)
        ratio = np.array(self.before.shape[::-1], np.float32) / np.array(half.shape[::-1], np.float32)
        return (np.stack([column, row], -1).astype(np.float32) + np.float32(0.5)) * ratio - np.float32(0.5)


def align(pair: ImagePair, free: NDArray[np.bool_], starts: Sequence[Floats]) -> Alignment | None:
    """The homography of the static scene from one image to the next; None where the images have no gradients or no
    homography explains them.

    Args:
        free: (h / 8, w / 8) blocks that may show the static scene: no hand, no forearm.
        starts: homographies to start from, working pixels.
    """
    size = np.array(pair.before.shape[::-1], np.float64)
    pairs = zip(pyramid(pair.before), pyramid(pair.after), strict=True)
    levels = [PyramidLevel.of(a, b, free, BLOCK_PX // 2 >> number, size) for number, (a, b) in enumerate(pairs)][::-1]
    levels = [level for level in levels if len(level.points) >= MIN_PIXELS]
    if not levels:
        return None
    cost, homography = min(((levels[0].cost(start), number), start) for number, start in enumerate(starts))
    if cost[0] > GOOD_START_GREY:
        homography = min([homography, *_from_flow(pair, levels[0].points)], key=levels[0].cost)
    for level, rounds in zip(levels, _ROUNDS, strict=False):
        homography, information, variance = level.refine(homography, rounds, size)
    share = levels[-1].explained_share(homography)
    if share < MIN_EXPLAINED_SHARE or not np.isfinite(homography).all():
        return None
    return Alignment(homography, covariance_of(information, CORRELATED * variance, size), share)


def _from_flow(pair: ImagePair, points: NDArray[np.float32]) -> list[Floats]:
    """The homography with which most of the dense flow at (n, 2) working pixels agrees, if there is one."""
    some = points[:: max(1, len(points) // 300)]
    found, inliers = dominant_homography(some, some + pair.flow_at(some), *map(float, pair.before.shape[::-1]))
    return [found] if inliers.sum() >= MIN_PIXELS // 2 else []


@dataclass(frozen=True)
class PyramidLevel:
    """One level of two images' pyramids. points: (n, 2) working pixels used, with grey: (n,) and slopes: (n, 2) grey
    levels per working pixel of the first image. after: the second image."""

    points: NDArray[np.float32]
    grey: NDArray[np.float32]
    slopes: NDArray[np.float32]
    after: NDArray[np.float32]
    ratio: NDArray[np.float32]  # working over the level's pixels, x and y

    @staticmethod
    def of(
        a: NDArray[np.float32], b: NDArray[np.float32], free: NDArray[np.bool_], block: int, size: Floats
    ) -> PyramidLevel:
        """From two images of the level's size; `block` is the side of a block in its pixels."""
        ratio = (size / a.shape[::-1]).astype(np.float32)
        x = cv2.filter2D(a, -1, np.array([[-0.5, 0, 0.5]], np.float32))
        y = cv2.filter2D(a, -1, np.array([[-0.5], [0], [0.5]], np.float32))
        strength = x * x + y * y
        strength[[0, -1]] = strength[:, [0, -1]] = 0
        row, column = _strongest_of_blocks(strength, free, block, _MIN_SLOPE[block.bit_length() - 1] ** 2, MAX_PIXELS)
        points = (np.stack([column, row], -1).astype(np.float32) + np.float32(0.5)) * ratio - np.float32(0.5)
        return PyramidLevel(points, a[row, column], np.stack([x[row, column], y[row, column]], -1) / ratio, b, ratio)

    def difference(self, homography: Floats) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """(n,) grey levels of `after` at the moved points minus their own; and which of them stay in the image."""
        at = ((warp(homography, self.points) + 0.5) / self.ratio - 0.5).astype(np.float32)
        seen = cv2.remap(self.after, at[:, :1], at[:, 1:], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)[:, 0]
        height, width = self.after.shape
        inside = (at[:, 0] > 0) & (at[:, 1] > 0) & (at[:, 0] < width - 1) & (at[:, 1] < height - 1)
        return seen - self.grey, inside

    def select(self, some: NDArray[np.bool_]) -> PyramidLevel:
        """Some of its (n,) points."""
        return replace(self, points=self.points[some], grey=self.grey[some], slopes=self.slopes[some])

    def cost(self, homography: Floats) -> float:
        """Mean difference, each at most 20 grey levels, without the change of the light; 5 for points that leave."""
        off, inside = self.difference(homography)
        if inside.sum() < MIN_PIXELS / 2:
            return np.inf
        off = np.abs(off - np.median(off[inside]))
        return float(np.where(inside, np.minimum(off, 20), 5).mean())

    def explained_share(self, homography: Floats) -> float:
        """Share of the points that stay in the image whose difference a small shift explains."""
        off, inside = self.difference(homography)
        if inside.sum() < MIN_PIXELS:
            return 0.0
        off, slope = off[inside] - np.median(off[inside]), np.linalg.norm(self.slopes[inside], axis=1)
        return float((np.abs(off) < _EXPLAINED_PX * self.ratio[0] * slope + _EXPLAINED_GREY).mean())

    def refine(self, homography: Floats, rounds: int, size: Floats) -> tuple[Floats, Floats, float]:
        """Gauss-Newton: the homography after `rounds` steps, its normal matrix (8, 8), and the residuals' variance."""
        along, down = homography_jacobian(self.points, size)
        light = np.stack([(self.grey - self.grey.mean()) / 64, np.ones(len(self.grey))])
        x, y = self.slopes.T.astype(np.float64)
        jacobian = np.concatenate([x * along.T + y * down.T, light])  # (10, n): sums run along contiguous memory
        # The prior: what the images do not determine stays near a camera at rest.
        prior = np.concatenate([_prior_information(size), [1e-6, 1e-6]])
        for _ in range(rounds):
            off, inside = self.difference(homography)
            spread = max(NOISE_GREY, 1.4826 * float(np.median(np.abs(off[inside])))) if inside.any() else NOISE_GREY
            weight = inside / (1 + (off / (2.4 * spread)) ** 2)
            normal = np.einsum("in,jn->ij", jacobian * weight, jacobian)
            weight_per_grey2 = 1 / (CORRELATED * spread**2)
            gradient = weight_per_grey2 * np.einsum("in,n->i", jacobian, weight * off)
            gradient[:8] += prior[:8] * parameters_of(homography, size)
            change = np.linalg.solve(weight_per_grey2 * normal + np.diag(prior), gradient)
            homography = homography @ np.linalg.inv(homography_from_parameters(change[:8], size))
            homography = homography / homography[2, 2]
            if np.abs(change[:8]).max() < 0.02:
                break
        variance = max(NOISE_GREY**2, float((weight * off**2).sum() / max(weight.sum(), 1e-9)))
        # The Schur complement removes what a change of the light explains as well.
        shared = normal[:8, 8:] @ np.linalg.solve(normal[8:, 8:] + 1e-6 * np.eye(2), normal[8:, :8])
        return homography, normal[:8, :8] - shared, variance


def _strongest_of_blocks(
    strength: NDArray[np.float32], free: NDArray[np.bool_], block: int, least: float, most: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Rows and columns of the strongest pixel of every free block above `least`; if more than `most`, the strongest."""
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


def pyramid(grey: Grey) -> Iterator[NDArray[np.float32]]:
    """The image at a half, a quarter and an eighth of its size, lightly blurred."""
    image = grey.astype(np.float32)
    for _ in range(3):
        shape = (max(3, image.shape[1] // 2), max(3, image.shape[0] // 2))
        image = cv2.resize(image, shape, interpolation=cv2.INTER_AREA)
        yield blurred(image)


def blurred(image: NDArray[np.number]) -> NDArray[np.float32]:
    """Lightly blurred, as float32."""
    return cv2.GaussianBlur(image.astype(np.float32, copy=False), (0, 0), 0.9)
