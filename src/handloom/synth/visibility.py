"""Which keypoints flesh hides, in closed form."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def hidden_by_capsules(
    points_m: Array, start_m: Array, end_m: Array, radius_m: Array, *, own: bool
) -> NDArray[np.bool_]:
    """(T, K) true where the sight line from the camera (the origin) to a point passes through a capsule before it.

    Args:
        points_m: (T, K, 3), camera frame. start_m, end_m: (T, C, 3). radius_m: (C, 2).
        own: the points lie inside these capsules, as keypoints lie inside their hand: only flesh that stands at least
            a finger's thickness in front of the point hides it.

    Source: Ericson, Real-Time Collision Detection, section 5.1.9 (closest points of two segments).
    """
    p, a = points_m[:, :, None], start_m[:, None]
    axis = end_m[:, None] - a
    pp, ee = _dot(p, p), np.maximum(_dot(axis, axis), 1e-12)
    b, c, f = _dot(p, axis), -_dot(p, a), -_dot(axis, a)
    with np.errstate(invalid="ignore", divide="ignore"):
        u = np.clip((b * f - c * ee) / np.maximum(pp * ee - b * b, 1e-12), 0.0, 1.0)  # along the sight line
        v = np.clip((b * u + f) / ee, 0.0, 1.0)  # along the capsule
        u = np.clip((b * v - c) / pp, 0.0, 1.0)
        gap = np.linalg.norm(u[..., None] * p - a - v[..., None] * axis, axis=-1)
        radius = radius_m[:, 0] + v * (radius_m[:, 1] - radius_m[:, 0])
        in_front = (1.0 - u) * np.sqrt(pp)
        margin = np.where(own, radius + 0.008, 0.0)
        return ((gap < 0.9 * radius) & (in_front > margin)).any(axis=2)


def _dot(left: Array, right: Array) -> Array:
    return (left * right).sum(-1)
