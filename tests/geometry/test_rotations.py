"""Rotations: the nearest one, the one to a ray, and the angle between two lists of them."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from handloom.geometry.rotations import apart_rad, nearest_rotation, turn_to

RNG = np.random.default_rng(0)
TURNS = Rotation.random(20, random_state=0).as_matrix()


def test_the_nearest_rotation_is_the_one_that_was_disturbed():
    found = nearest_rotation(3 * TURNS + 1e-4 * RNG.normal(size=TURNS.shape))
    assert np.abs(found - TURNS).max() < 1e-3
    assert np.linalg.det(found) == pytest.approx(np.ones(20))
    mirrored = TURNS * [1, 1, -0.1]  # the nearest orthogonal matrix would be a reflection
    assert np.linalg.det(nearest_rotation(mirrored)) == pytest.approx(np.ones(20))


def test_the_turn_to_a_ray_is_the_smallest():
    rays = RNG.uniform(-2, 2, (20, 2))
    turns = turn_to(rays)
    wanted = np.column_stack([rays, np.ones(20)])
    wanted /= np.linalg.norm(wanted, axis=1, keepdims=True)
    assert turns[:, :, 2] == pytest.approx(wanted)
    assert Rotation.from_matrix(turns).magnitude() == pytest.approx(np.arccos(wanted[:, 2]))


def test_a_turn_of_the_world_is_no_difference():
    other = TURNS[3] @ TURNS
    assert apart_rad(other, TURNS) == pytest.approx(0, abs=1e-6)
    other[5] = Rotation.from_rotvec([0, 0.2, 0]).as_matrix() @ other[5]
    assert 0.15 < apart_rad(other, TURNS) < 0.2
