"""From camera to world and back; no metres without a unit."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from handloom.geometry.camera.world import hands_to_world, metric_poses, to_camera, to_world
from handloom.schemas.values import CameraPath, Hands


@pytest.fixture
def poses() -> np.ndarray:
    rng = np.random.default_rng(0)
    poses = np.tile(np.eye(4), (6, 1, 1))
    poses[:, :3, :3] = Rotation.random(6, random_state=1).as_matrix()
    poses[:, :3, 3] = rng.normal(size=(6, 3))
    return poses


@pytest.mark.parametrize("shape", [(6, 3), (6, 5, 3), (6, 2, 21, 3)])
def test_there_and_back(poses, shape):
    points = np.random.default_rng(1).normal(size=shape)
    points.reshape(-1, 3)[0] = np.nan
    assert np.allclose(to_camera(to_world(points, poses), poses), points, equal_nan=True)
    homogeneous = poses[2] @ np.append(points[2].reshape(-1, 3)[-1], 1)
    assert np.allclose(to_world(points, poses)[2].reshape(-1, 3)[-1], homogeneous[:3])


def test_metres_only_where_the_unit_is_known(poses):
    points = np.random.default_rng(2).normal(size=(6, 2, 21, 3)).astype(np.float32)
    hands = Hands(*(np.zeros(0),) * 4, points)
    assert hands_to_world(hands, CameraPath(None, "none", "none")) is None
    assert hands_to_world(hands, CameraPath(poses, "arbitrary", "given")) is None
    doubled = CameraPath(poses, "arbitrary", "given", unit_m=2.0)
    assert np.allclose(metric_poses(doubled)[:, :3, 3], 2 * poses[:, :3, 3])
    assert np.allclose(hands_to_world(hands, doubled), to_world(points, metric_poses(doubled)), atol=1e-5)
