"""Intersections of rays with the simple solids of which objects are made."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from handloom.synth.objects import WALL_M, Part


@dataclass(frozen=True)
class RayHit:
    """distance: (...) in lengths of the rays, inf without a hit. normal: (..., 3). uv: (..., 2) in the texture, 0 to
    1."""

    distance: NDArray
    normal: NDArray
    uv: NDArray


def first_hit(part: Part, origin: NDArray, rays: NDArray) -> RayHit:
    """Where rays (..., 3) first enter the part. origin: (3,) or (..., 3), both in the object's frame."""
    start = (origin - np.array(part.centre_m)).astype(rays.dtype)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        return _SOLIDS[part.kind](part, start, rays)


def _box(part: Part, origin: NDArray, rays: NDArray) -> RayHit:
    half = np.asarray(part.half_m, rays.dtype)
    inverse = 1 / rays
    middle, reach = -origin * inverse, np.abs(half * inverse)
    enter, leave = middle - reach, middle + reach
    axis = enter.argmax(-1)
    near, far = enter.max(-1), leave.min(-1)
    distance = np.where((near < far) & (near > 0), near, np.inf).astype(rays.dtype)
    point = (origin + _finite(distance)[..., None] * rays) / half
    normal = np.where(np.arange(3) == axis[..., None], np.sign(point), 0).astype(rays.dtype)
    u = np.where(axis == 0, point[..., 1], point[..., 0])
    v = np.where(axis == 2, point[..., 1], point[..., 2])
    return RayHit(distance, normal, np.stack([u, v], -1) * 0.5 + 0.5)


def _side(radius: float, origin: NDArray, rays: NDArray, sign: float) -> NDArray:
    """Distance to an infinite upright cylinder, where a ray enters it (sign -1) or leaves it (sign 1)."""
    a = (rays[..., :2] ** 2).sum(-1)
    b = (rays[..., :2] * origin[..., :2]).sum(-1)
    root = np.sqrt(b * b - a * ((origin[..., :2] ** 2).sum(-1) - rays.dtype.type(radius**2)))
    return (-b + rays.dtype.type(sign) * root) / a


def _height(origin: NDArray, rays: NDArray, distance: NDArray) -> NDArray:
    return origin[..., 2] + distance * rays[..., 2]


def _flat(z: float | NDArray, inner: float, outer: float, origin: NDArray, rays: NDArray) -> NDArray:
    """Distance to a level ring at height z."""
    distance = ((z - origin[..., 2]) / rays[..., 2]).astype(rays.dtype)
    square = ((origin[..., :2] + distance[..., None] * rays[..., :2]) ** 2).sum(-1)
    return np.where((distance > 0) & (square >= inner**2) & (square < outer**2), distance, np.inf)


def _cylinder(part: Part, origin: NDArray, rays: NDArray) -> RayHit:
    radius, height = part.half_m[0], part.half_m[2]
    side = _side(radius, origin, rays, -1.0)
    side = np.where((side > 0) & (np.abs(_height(origin, rays, side)) < height), side, np.inf)
    lid = _flat(np.copysign(height, origin[..., 2]), 0.0, radius, origin, rays)
    lid = np.where(np.abs(origin[..., 2]) > height, lid, np.inf)
    return _round(origin, rays, side, lid, np.full_like(side, np.inf), radius, height)


def _open(part: Part, origin: NDArray, rays: NDArray) -> RayHit:
    """A wall, its rim, the inside of the wall, the floor inside and the bottom."""
    radius, height = part.half_m[0], part.half_m[2]
    inner, floor = radius - WALL_M, WALL_M - height
    side = _side(radius, origin, rays, -1.0)
    side = np.where((side > 0) & (np.abs(_height(origin, rays, side)) < height), side, np.inf)
    within = _side(inner, origin, rays, 1.0)
    z = _height(origin, rays, within)
    within = np.where((within > 0) & (z > floor) & (z < height), within, np.inf)
    above = origin[..., 2] > floor
    rim = np.where(origin[..., 2] > height, _flat(height, inner, radius, origin, rays), np.inf)
    ground = np.where(above, _flat(floor, 0.0, inner, origin, rays), np.inf)
    bottom = np.where(origin[..., 2] < -height, _flat(-height, 0.0, radius, origin, rays), np.inf)
    return _round(origin, rays, side, np.minimum(np.minimum(rim, ground), bottom), within, radius, height)


def _round(
    origin: NDArray, rays: NDArray, side: NDArray, level: NDArray, within: NDArray, radius: float, height: float
) -> RayHit:
    """The nearest of an outer wall, a level face and an inner wall, with its normal and texture coordinates."""
    distance = np.fmin(np.fmin(side, level), within).astype(rays.dtype)
    point = origin + _finite(distance)[..., None] * rays
    on_level = (level <= side) & (level <= within)
    outward = point * np.array([1, 1, 0], rays.dtype) / rays.dtype.type(radius)
    outward = np.where((within < side)[..., None], -outward, outward)
    upright = np.array([0, 0, 1], rays.dtype) * -np.sign(rays[..., 2:])
    normal = np.where(on_level[..., None], upright, outward).astype(rays.dtype)
    angle = np.arctan2(*np.ascontiguousarray(point[..., 1::-1].T)).T / (2 * np.pi)
    around = np.where(on_level, point[..., 0] / radius / 4, angle) + 0.5
    up = np.where(on_level, point[..., 1] / radius, point[..., 2] / height) * 0.5 + 0.5
    return RayHit(distance, normal, np.stack([around, up], -1))


def _ball(part: Part, origin: NDArray, rays: NDArray) -> RayHit:
    half = np.asarray(part.half_m, rays.dtype)
    start, along = origin / half, rays / half
    a, b = (along * along).sum(-1), (along * start).sum(-1)
    near = (-b - np.sqrt(b * b - a * ((start * start).sum(-1) - 1))) / a
    distance = np.where(near > 0, near, np.inf).astype(rays.dtype)
    unit = start + _finite(distance)[..., None] * along
    normal = unit / half
    normal = normal / np.maximum(np.sqrt((normal * normal).sum(-1, keepdims=True)), 1e-9)
    u = np.arctan2(*np.ascontiguousarray(unit[..., 1::-1].T)).T / (2 * np.pi) + 0.5
    return RayHit(distance, normal.astype(rays.dtype), np.stack([u, unit[..., 2] * 0.5 + 0.5], -1))


def _finite(distance: NDArray) -> NDArray:
    return np.where(np.isfinite(distance), distance, 0).astype(distance.dtype)


_SOLIDS = {"box": _box, "cylinder": _cylinder, "open": _open, "ball": _ball}
