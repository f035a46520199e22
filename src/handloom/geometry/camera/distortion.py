"""Lenses: from directions to image points and back, for every distortion model of a Camera.

A direction has a place on the lens's plane: its slopes (x/z, y/z) for OpenCV's polynomial, the angle off the axis
towards (x, y) for fisheyes. A model bends the plane; the camera matrix turns the bent plane into pixels. Every model
here has one form: a radial factor, a tangential term, a thin prism. Source: OpenCV, camera calibration (polynomial and
fisheye); Project Aria, camera intrinsic models (FISHEYE624); COLMAP, camera models (thin prism fisheye).
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

# Counts of coefficients that each model may have; the comments give their order.
MODELS: dict[str, tuple[int, ...]] = {
    "opencv": (4, 5, 8, 12),  # k1 k2 p1 p2 k3 k4 k5 k6 s1 s2 s3 s4
    "fisheye": (4,),  # k1 k2 k3 k4
    "fisheye624": (12,),  # k1 ... k6 p1 p2 s1 s2 s3 s4
    "thin_prism_fisheye": (8,),  # k1 k2 p1 p2 k3 k4 s1 s3
}
_SAMPLES = 2048  # of the angle off the axis: starts for the inversion, and where the lens folds
_NEWTON_ROUNDS = 4  # from those starts: after 3, 3e-8 px off where tangential terms are strong; after 4, the last digit
_RADIAL_ROUNDS = 3  # a radial lens starts within 1e-6: 2 are enough
_CLOSE = 1e-7  # of the bent plane: 1e-4 pixels at a focal length of 1000
_WIDEST_SLOPE_RAD = math.radians(89.5)  # slopes have no end at 90 degrees


@dataclass(frozen=True)
class Lens:
    """angular: the plane holds angles, not slopes. radial, divisor: coefficients of r^2, r^4, ... of the radial factor
    and of what divides it. tangential: (2,), OpenCV's p2 and p1. prism: (4,), of r^2 and r^4 for x, then for y.
    chained: tangential and prism terms act on what the radial factor made, not on the plane.
    """

    angular: bool
    radial: tuple[float, ...]
    divisor: tuple[float, ...]
    tangential: tuple[float, float]
    prism: tuple[float, float, float, float]
    chained: bool

    @functools.cached_property
    def reach(self) -> tuple[float, float]:
        """Radius on the plane up to which the image's radius grows, and that radius on the bent plane. Beyond it the
        lens folds back, and no direction is used."""
        return float(self._table[0][-1]), float(self._table[1][-1])

    @property
    def max_angle_rad(self) -> float:
        """The angle off the axis at `reach`."""
        return self.reach[0] if self.angular else math.atan(self.reach[0])

    def radius_of(self, angle_rad: float) -> float:
        """Radius on the bent plane of a direction `angle_rad` off the axis, by the radial factor; NaN beyond reach."""
        radius = angle_rad if self.angular else math.tan(angle_rad)
        if not angle_rad <= self.max_angle_rad:
            return math.nan
        return radius * float(self._factor(np.array([radius * radius]))[0][0])

    def bend(self, plane: Floats) -> Floats:
        """(N, 2) of the plane to (N, 2) of the bent plane, NaN beyond `reach`."""
        square = plane[:, 0] ** 2 + plane[:, 1] ** 2
        bent = self._bend(plane, square)
        bent[~(square <= self.reach[0] ** 2)] = np.nan
        return bent

    def magnification(self, plane: Floats) -> Floats:
        """(N,) factor by which the area of a small patch at (N, 2) of the plane grows; NaN where the lens folds."""
        a, b, c, d = self._jacobian(plane[:, 0], plane[:, 1], plane[:, 0] ** 2 + plane[:, 1] ** 2)
        area = a * d - b * c
        return np.where(area > 0, area, np.nan)

    def unbend(self, bent: Floats) -> Floats:
        """(N, 2) of the bent plane to (N, 2) of the plane; NaN where no direction leads."""
        radius = np.hypot(bent[:, 0], bent[:, 1])
        plane_at, bent_at = self._table
        start = np.interp(radius, bent_at, plane_at)
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            plane = bent * np.where(radius > 0, start / radius, 1.0)[:, None]
            step = self._newton_radial if self._is_radial else self._newton
            plane = step(plane, bent, radius)
            square = plane[:, 0] ** 2 + plane[:, 1] ** 2
            missed = np.maximum(*np.abs(self._bend(plane, square) - bent).T)
            plane[~((missed < _CLOSE) & (square <= self.reach[0] ** 2 * (1 + 1e-12)))] = np.nan
        return plane

    @property
    def _is_radial(self) -> bool:
        return not any(self.tangential) and not any(self.prism)

    @property
    def _widest(self) -> float:
        return math.pi if self.angular else math.tan(_WIDEST_SLOPE_RAD)

    @functools.cached_property
    def _table(self) -> tuple[Floats, Floats]:
        """Radii on the plane and on the bent plane, both rising, up to the fold."""
        angles = np.linspace(0, math.pi if self.angular else _WIDEST_SLOPE_RAD, _SAMPLES)
        radii = angles if self.angular else np.tan(angles)
        radii[-1] = self._widest
        with np.errstate(divide="ignore", over="ignore", invalid="ignore"):
            factor, slope = self._factor(radii**2)
            grows = (factor > 0) & (factor + 2 * radii**2 * slope > 1e-6)
            if not grows.all():
                first_bad = int(np.argmin(grows))
                end = _last_true(self._grows, radii[first_bad - 1], radii[first_bad])
                radii = np.append(radii[:first_bad], end)
            return radii, radii * self._factor(radii**2)[0]

    def _grows(self, radius: float) -> bool:
        factor, slope = (float(values[0]) for values in self._factor(np.array([radius * radius])))
        return factor > 0 and factor + 2 * radius * radius * slope > 1e-6

    def _factor(self, square: Floats) -> tuple[Floats, Floats]:
        """The radial factor and its derivative, at squares of radii."""
        above, above_slope = _polynomial(self.radial, square)
        if not self.divisor:
            return above, above_slope
        below, below_slope = _polynomial(self.divisor, square)
        below = np.where(below > 1e-9, below, np.nan)
        return above / below, (above_slope * below - above * below_slope) / (below * below)

    def _bend(self, plane: Floats, square: Floats) -> Floats:
        factor = self._factor(square)[0]
        bent = plane * factor[:, None]
        if self._is_radial:
            return bent
        x, y = (bent if self.chained else plane).T
        (tx, ty), (s1, s2, s3, s4) = self.tangential, self.prism
        r2 = x * x + y * y
        cross = 2 * (tx * x + ty * y)
        bent[:, 0] += x * cross + r2 * (tx + s1 + s2 * r2)
        bent[:, 1] += y * cross + r2 * (ty + s3 + s4 * r2)
        return bent

    def _newton_radial(self, plane: Floats, bent: Floats, radius: Floats) -> Floats:
        r = np.hypot(plane[:, 0], plane[:, 1])
        for _ in range(_RADIAL_ROUNDS):
            factor, slope = self._factor(r * r)
            r = r - (r * factor - radius) / (factor + 2 * r * r * slope)
        return bent * np.where(radius > 0, r / radius, 1.0)[:, None]

    def _newton(self, plane: Floats, bent: Floats, radius: Floats) -> Floats:
        for _ in range(_NEWTON_ROUNDS):
            x, y = plane.T
            square = x * x + y * y
            miss = self._bend(plane, square) - bent
            a, b, c, d = self._jacobian(x, y, square)
            scale = 1 / (a * d - b * c)
            plane = np.stack(
                [x - (d * miss[:, 0] - b * miss[:, 1]) * scale, y - (a * miss[:, 1] - c * miss[:, 0]) * scale], axis=1
            )
        return plane

    def _jacobian(self, x: Floats, y: Floats, square: Floats) -> tuple[Floats, Floats, Floats, Floats]:
        """Of `_bend`, row by row."""
        factor, slope = self._factor(square)
        a, b, d = factor + 2 * slope * x * x, 2 * slope * x * y, factor + 2 * slope * y * y
        if self._is_radial:
            return a, b, b, d
        u: Floats = factor * x if self.chained else x
        v: Floats = factor * y if self.chained else y
        (tx, ty), (s1, s2, s3, s4) = self.tangential, self.prism
        r2 = u * u + v * v
        px, py = 2 * (s1 + 2 * s2 * r2), 2 * (s3 + 2 * s4 * r2)
        qa = 6 * tx * u + 2 * ty * v + px * u
        qb = 2 * ty * u + 2 * tx * v + px * v
        qc = 2 * ty * u + 2 * tx * v + py * u
        qd = 2 * tx * u + 6 * ty * v + py * v
        if not self.chained:
            return a + qa, b + qb, b + qc, d + qd
        return a + qa * a + qb * b, b + qa * b + qb * d, b + qc * a + qd * b, d + qc * b + qd * d


def lens_of(model: str, coefficients: NDArray[np.floating[Any]] | None) -> Lens | None:
    """The lens of a Camera's `model` and `distortion`; None for a pinhole.

    Raises ValueError where the model is not one of MODELS, or has another number of coefficients.
    """
    if model not in MODELS:
        raise ValueError(f"camera model {model!r} is not known, expected one of {', '.join(MODELS)}")
    if coefficients is None:
        if model == "opencv":
            return None
        raise ValueError(f"camera model {model!r} has no coefficients, expected {_or(MODELS[model])}")
    values = np.ravel(np.asarray(coefficients, np.float64))
    if len(values) not in MODELS[model]:
        raise ValueError(f"camera model {model!r} has {len(values)} coefficients, expected {_or(MODELS[model])}")
    return _lens(model, tuple(values.tolist()))


@functools.lru_cache(maxsize=64)
def _lens(model: str, c: tuple[float, ...]) -> Lens:
    none4 = (0.0, 0.0, 0.0, 0.0)
    if model == "fisheye":
        return Lens(True, c, (), (0.0, 0.0), none4, False)
    if model == "fisheye624":
        return Lens(True, c[:6], (), (c[6], c[7]), (c[8], c[9], c[10], c[11]), True)
    if model == "thin_prism_fisheye":
        return Lens(True, (c[0], c[1], c[4], c[5]), (), (c[3], c[2]), (c[6], 0.0, c[7], 0.0), False)
    k1, k2, p1, p2, k3, k4, k5, k6, s1, s2, s3, s4 = (*c, *[0.0] * (12 - len(c)))
    divisor = (k4, k5, k6) if k4 or k5 or k6 else ()
    return Lens(False, (k1, k2, k3), divisor, (p2, p1), (s1, s2, s3, s4), False)


def _polynomial(coefficients: tuple[float, ...], square: Floats) -> tuple[Floats, Floats]:
    """1 + c0 s + c1 s^2 + ... and its derivative."""
    value, slope = np.zeros_like(square), np.zeros_like(square)
    last = max((at for at, coefficient in enumerate(coefficients) if coefficient), default=-1)
    for coefficient in coefficients[last::-1] if last >= 0 else ():
        slope = slope * square + value
        value = value * square + coefficient
    return 1 + value * square, slope * square + value


def _last_true(holds: Callable[[float], bool], low: float, high: float) -> float:
    """The last number of [low, high] for which `holds`; it holds at `low`, not at `high`."""
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if holds(middle) else (low, middle)
    return low


def _or(numbers: tuple[int, ...]) -> str:
    return " or ".join(map(str, numbers))
