"""Metric scale from hands: right within its sigma, and None where it is not determined."""

from __future__ import annotations

import numpy as np
import pytest

from handloom.geometry.camera.intrinsics import project
from handloom.geometry.metric.path_scale import MAX_SIGMA, by_depth, by_rest, by_touch, metric_scale
from handloom.schemas.hand_topology import PALM_TRIANGLE
from handloom.schemas.values import Camera, DepthMaps, Hands, VideoInfo

INFO = VideoInfo(640, 360, 30.0, "h264", "yuv420p", 0, 0.0, 1.0, 30)
CAMERA = Camera(np.array([[400.0, 0, 320], [0, 400.0, 180], [0, 0, 1]]), "given")
FRAME_S = np.arange(60) / 15
UNIT = 0.7  # metres per unit of the path


def head(sway_m):
    poses = np.tile(np.eye(4), (60, 1, 1))
    t = FRAME_S
    poses[:, :3, 3] = sway_m * np.stack([np.sin(1.3 * t), 0.4 * np.sin(2.1 * t), 0.5 * np.cos(1.7 * t)], axis=1)
    return poses


def table(x, y):
    """The surface: depth in the first camera's frame at (x, y) of the world, nearer below."""
    return 0.8 - 0.5 * y + 0 * x


def hands_on_table(poses, *, above_m=0.0, sigma_m=0.02, noise_m=0.001, seed=0, resting=0.6):
    """A right hand that lies on the table (or `above_m` over it) most of the time, and moves in between."""
    rng = np.random.default_rng(seed)
    shape = np.stack([rng.uniform(-0.05, 0.05, 21), rng.uniform(-0.09, 0.09, 21)], axis=1)
    shape[list(PALM_TRIANGLE)] = [[0, 0.08], [-0.04, 0], [0.04, 0]]
    moving = (np.arange(60) % 15) >= 15 * resting
    middle = np.stack([0.1 + 0.02 * np.cumsum(moving), 0.1 - 0.004 * np.cumsum(moving)], axis=1)
    world = np.empty((60, 21, 3))
    world[..., :2] = middle[:, None] + shape
    world[..., 2] = table(world[..., 0], world[..., 1]) - 0.012 - above_m - 0.06 * moving[:, None]
    local = np.einsum("tki,tij->tkj", world - poses[:, None, :3, 3], poses[:, :3, :3])
    local += rng.normal(0, noise_m, (60, 1, 3)) * [1, 1, 3]
    keypoints_m = np.full((60, 2, 21, 3), np.nan, np.float32)
    keypoints_m[:, 1] = local
    keypoints_px = np.full((60, 2, 21, 2), np.nan, np.float32)
    keypoints_px[:, 1] = project(local, CAMERA)
    visible = np.tile([False, True], (60, 1))
    number = np.where(visible, np.float32(1), np.float32(np.nan))
    return Hands(visible, visible & False, number, keypoints_px, keypoints_m, number * sigma_m, "ego")


def scene(poses, unit=UNIT, seed=0):
    """The path and points of the table in another unit."""
    x, y = np.random.default_rng(seed).uniform([-0.6, -0.35], [0.6, 0.35], (200, 2)).T
    path = poses.copy()
    path[:, :3, 3] /= unit
    return path, np.stack([x, y, table(x, y)], axis=1) / unit


@pytest.mark.parametrize("unit", [0.05, 0.7, 20.0])
@pytest.mark.parametrize("sway_m", [0.05, 0.15])
def test_the_unit_is_found_whatever_it_is(unit, sway_m):
    poses = head(sway_m)
    hands = hands_on_table(poses)
    scale = metric_scale(*scene(poses, unit), hands, CAMERA, FRAME_S)
    assert scale.metres / unit == pytest.approx(1, abs=0.06)
    assert scale.sigma < 0.12
    keypoints = hands.keypoints_cam_m.astype(float)
    assert by_rest(scene(poses, unit)[0], keypoints, FRAME_S).metres / unit == pytest.approx(1, abs=0.08)
    assert by_touch(*scene(poses, unit), keypoints, CAMERA).metres / unit == pytest.approx(1, abs=0.06)


def test_a_camera_that_hardly_moves_leaves_only_touch():
    poses = head(0.002)
    hands = hands_on_table(poses)
    assert by_rest(scene(poses)[0], hands.keypoints_cam_m.astype(float), FRAME_S) is None
    scale = metric_scale(*scene(poses), hands, CAMERA, FRAME_S)
    assert scale.way == "touch"
    assert scale.metres == pytest.approx(UNIT, rel=0.06)


def test_a_hand_above_the_table_is_no_touch_where_rest_gives_more():
    """Fingertips 0.2 m over the surface: the ceiling is a lower bound, not the scale."""
    poses = head(0.15)
    hands = hands_on_table(poses, above_m=0.2)
    assert by_touch(*scene(poses), hands.keypoints_cam_m.astype(float), CAMERA).metres < 0.85 * UNIT
    scale = metric_scale(*scene(poses), hands, CAMERA, FRAME_S)
    assert scale.metres == pytest.approx(UNIT, rel=0.08)


def test_a_hand_carried_along_does_not_shrink_the_world():
    """A hand that moves with the camera stands still at scale 0: no rest, and less than touch gives."""
    poses = head(0.15)
    carried = hands_on_table(head(0.0), resting=1.0)
    path, points = scene(poses)
    scale = metric_scale(path, points, carried, CAMERA, FRAME_S)
    assert scale is None or scale.metres > 0.6 * UNIT


def test_an_undetermined_scale_is_none():
    poses = head(0.15)
    path, points = scene(poses)
    assert metric_scale(path, points, None, CAMERA, FRAME_S) is None
    nobody = hands_on_table(poses)
    nobody.keypoints_cam_m[:] = np.nan
    assert metric_scale(path, points, nobody, CAMERA, FRAME_S) is None
    vague = hands_on_table(poses, sigma_m=0.4)  # hands half a metre away, known to 0.4 m
    assert metric_scale(path, points, vague, CAMERA, FRAME_S) is None
    assert metric_scale(np.full_like(path, np.nan), points, hands_on_table(poses), CAMERA, FRAME_S) is None


def test_metric_depth_maps_come_first():
    poses = head(0.1)
    path, points = scene(poses)
    x, y = np.meshgrid((np.arange(64) - 31.5) / 40, (np.arange(36) - 17.5) / 40)
    maps = np.empty((60, 36, 64), np.float32)
    for t, pose in enumerate(poses):  # ray meets table: c_z + d = 0.8 - 0.5 (c_y + d y)
        maps[t] = (0.8 - 0.5 * pose[1, 3] - pose[2, 3]) / (1 + 0.5 * y) + 0 * x
    maps[:, :4] = np.nan
    depth = DepthMaps(maps, "metric", "given maps")
    scale = metric_scale(path, points, hands_on_table(poses, above_m=0.2), CAMERA, FRAME_S, depth, INFO)
    assert scale.way == "depth"
    assert scale.metres == pytest.approx(UNIT, rel=0.02)
    assert scale.sigma < MAX_SIGMA
    unknown = DepthMaps(np.full_like(maps, np.nan), "metric", "given maps")
    assert by_depth(path, points, CAMERA, unknown, INFO) is None
    relative = DepthMaps(maps * 3, "arbitrary", "model")
    assert metric_scale(path, points, None, CAMERA, FRAME_S, relative, INFO) is None
