"""Exact ray intersections with the objects on the table."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from handloom.synth.actions import ObjectShape


class Hit(NamedTuple):
    """distance: (...,) in units of the ray's length, inf where missed. normal: (..., 3). uv: (..., 2), 0 to 1."""

    distance: NDArray
    normal: NDArray
    uv: NDArray


def first_hit(shape: ObjectShape, origin: NDArray, rays: NDArray) -> Hit:
    """Where rays (..., 3) from one origin (3,), both in the object's frame, first enter the object."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return (_cylinder if shape.kind == "cylinder" else _box)(shape, origin.astype(rays.dtype), rays)


def _box(shape: ObjectShape, origin: NDArray, rays: NDArray) -> Hit:
    half = np.asarray(shape.half_m, rays.dtype)
    near_far = np.sort(np.stack([(-half - origin) / rays, (half - origin) / rays]), axis=0)
    axis = near_far[0].argmax(-1)
    near, far = near_far[0].max(-1), near_far[1].min(-1)
    distance = np.where((near < far) & (near > 0), near, np.inf).astype(rays.dtype)
    point = (origin + np.where(np.isfinite(distance), distance, 0)[..., None] * rays) / half
    normal = np.where(np.arange(3) == axis[..., None], np.sign(point), 0).astype(rays.dtype)
    u = np.where(axis == 0, point[..., 1], point[..., 0])
    v = np.where(axis == 2, point[..., 1], point[..., 2])
    return Hit(distance, normal, np.stack([u, v], -1) * 0.5 + 0.5)


def _cylinder(shape: ObjectShape, origin: NDArray, rays: NDArray) -> Hit:
    radius, height = shape.half_m[0], shape.half_m[2]
    a = (rays[..., :2] ** 2).sum(-1)
    b = (rays[..., :2] * origin[:2]).sum(-1)
    root = np.sqrt(b * b - a * ((origin[:2] ** 2).sum() - radius**2))
    side = (-b - root) / a
    side = np.where((side > 0) & (np.abs(origin[2] + side * rays[..., 2]) < height), side, np.inf)
    lid = (np.copysign(height, origin[2]) - origin[2]) / rays[..., 2]
    at_lid = origin[:2] + lid[..., None] * rays[..., :2]
    lid = np.where((lid > 0) & ((at_lid**2).sum(-1) < radius**2) & (abs(origin[2]) > height), lid, np.inf)
    distance = np.fmin(side, lid).astype(rays.dtype)
    point = origin + np.where(np.isfinite(distance), distance, 0)[..., None] * rays
    on_side = side < lid
    normal = np.where(on_side[..., None], point * [1, 1, 0] / radius, [0, 0, np.sign(origin[2])]).astype(rays.dtype)
    angle = np.arctan2(point[..., 1], point[..., 0]) / (2 * np.pi)
    around = np.where(on_side, angle, point[..., 0] / radius / 4) + 0.5
    up = np.where(on_side, point[..., 2] / height, point[..., 1] / radius) * 0.5 + 0.5
    return Hit(distance, normal, np.stack([around, up], -1))
