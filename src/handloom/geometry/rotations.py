"""Rotation matrices: nearest to a matrix, from the optical axis to a ray, and the angle between two lists of them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

Floats = NDArray[np.float64]


def nearest_rotation(matrices: Floats) -> Floats:
    """(..., 3, 3) the rotation nearest to each matrix (orthogonal Procrustes problem).

    Written out: scipy's `align_vectors` solves one at a time.

    Source: Kabsch, A solution for the best rotation to relate two sets of vectors, Acta Cryst. A32, 1976.
    """
    u, _, vt = np.linalg.svd(matrices)
    u[..., 2] *= np.linalg.det(u @ vt)[..., None]
    return u @ vt


def turn_to(rays: Floats) -> Floats:
    """(N, 2) to (N, 3, 3): the smallest rotation that takes the optical axis to the direction (x, y, 1)."""
    ray = np.concatenate([rays, np.ones((len(rays), 1))], axis=1)
    ray /= np.linalg.norm(ray, axis=1, keepdims=True)
    skew = np.zeros((len(ray), 3, 3))
    skew[:, :2, 2], skew[:, 2, :2] = ray[:, :2], -ray[:, :2]
    return np.eye(3) + skew + skew @ skew / (1 + ray[:, 2])[:, None, None]


def apart_rad(turns: Floats, others: Floats) -> float:
    """Largest angle between two lists of rotations (F, 3, 3), world from camera, after their worlds are aligned."""
    between = Rotation.from_matrix(turns) * Rotation.from_matrix(others).inv()
    return float((between.mean().inv() * between).magnitude().max())
