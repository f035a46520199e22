"""Camera metrics: hand-computed cases, and what must not change them."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from handloom.bench.metrics.camera import align_world, camera_errors, relative_errors, windowed


def path(num: int = 30, seed: int = 0, spread_m: float = 0.1) -> np.ndarray:
    rng = np.random.default_rng(seed)
    poses = np.tile(np.eye(4), (num, 1, 1))
    poses[:, :3, :3] = Rotation.from_rotvec(rng.normal(scale=0.3, size=(num, 3))).as_matrix()
    poses[:, :3, 3] = rng.normal(scale=spread_m, size=(num, 3))
    return poses


def in_other_world(poses: np.ndarray, scale: float = 1.0, seed: int = 1) -> np.ndarray:
    """The same path where the world is turned, shifted and in another unit."""
    out = poses.copy()
    turn = Rotation.random(random_state=seed).as_matrix()
    out[:, :3, :3] = turn @ poses[:, :3, :3]
    out[:, :3, 3] = scale * poses[:, :3, 3] @ turn.T + [3.0, -1.0, 2.0]
    return out


@pytest.mark.parametrize("scale", [0.25, 1.0, 40.0])
def test_a_path_in_another_world_and_unit_differs_only_in_scale(scale: float):
    true = path()
    found = camera_errors(in_other_world(true, scale), true)
    assert found["rotation_deg"] == pytest.approx(0, abs=1e-5)
    assert found["rotation_first_deg"] == pytest.approx(0, abs=1e-5)
    assert found["ate_m"] == pytest.approx(0, abs=1e-9)
    assert found["scale"] == pytest.approx(scale)
    assert found["ate_rigid_m"] == pytest.approx(abs(scale - 1) * found["travel_m"], abs=1e-9)


def test_a_roll_of_every_camera_is_not_removed_by_aligning_the_world():
    """Every camera rolled by 2 degrees about its own axis, orientations spread wide: the world's turn hardly helps."""
    true = path(200)
    true[:, :3, :3] = Rotation.random(200, random_state=3).as_matrix()
    ours = true.copy()
    ours[:, :3, :3] = true[:, :3, :3] @ Rotation.from_euler("z", 2, degrees=True).as_matrix()
    assert camera_errors(ours, true)["rotation_deg"] == pytest.approx(2, abs=0.1)


def test_the_first_frame_is_a_worse_reference_than_all():
    true = path()
    ours = true.copy()
    ours[0, :3, :3] = ours[0, :3, :3] @ Rotation.from_euler("y", 5, degrees=True).as_matrix()
    found = camera_errors(ours, true)
    assert found["rotation_first_deg"] == pytest.approx(5 * 29 / 30)
    assert found["rotation_deg"] < 0.5


def test_noise_of_the_centres_is_the_ate():
    true = path(4000)
    ours = true.copy()
    ours[:, :3, 3] += np.random.default_rng(2).normal(scale=0.001, size=(4000, 3))
    assert camera_errors(ours, true)["ate_rigid_m"] == pytest.approx(0.001 * np.sqrt(3), rel=0.05)


def test_a_head_that_hardly_moved_has_no_scale():
    true = path(spread_m=0.002)
    found = camera_errors(true, true)
    assert np.isnan(found["scale"])
    assert found["ate_m"] == pytest.approx(0, abs=1e-9)


def test_unknown_poses_are_left_out_and_two_are_too_few():
    true = path()
    ours = in_other_world(true)
    ours[5:20] = np.nan
    assert camera_errors(ours, true)["ate_m"] == pytest.approx(0, abs=1e-9)
    ours[2:] = np.nan
    assert np.isnan(list(camera_errors(ours, true).values())).all()


def test_align_world_takes_the_estimated_world_onto_the_true_one():
    true = path()
    ours = in_other_world(true)
    onto = align_world(ours, true)
    np.testing.assert_allclose(onto @ ours, true, atol=1e-9)


def test_align_world_keeps_the_scale():
    true = path()
    onto = align_world(in_other_world(true, 2.0), true)
    np.testing.assert_allclose(onto[:3, :3] @ onto[:3, :3].T, np.eye(3), atol=1e-9)
    assert np.isnan(align_world(np.full((4, 4, 4), np.nan), path(4))).all()


def test_windows_cover_the_clip_and_the_last_ends_with_it():
    """Drift of scale: short stretches each fit, the whole does not."""
    frame_s = np.arange(0, 12.01, 0.1)
    true = path(len(frame_s))
    true[:, :3, 3] = np.stack([frame_s, np.sin(frame_s), 0 * frame_s], axis=1)
    ours = true.copy()
    ours[:, 0, 3] += 0.01 * frame_s**2
    parts = windowed(ours, true, frame_s, 5.0)
    assert len(parts) == 3
    assert max(part["ate_m"] for part in parts) < camera_errors(ours, true)["ate_m"]
    assert len(windowed(ours[:20], true[:20], frame_s[:20], 5.0)) == 1


def test_relative_errors_by_hand():
    """True: 0.1 m/s along x, no turn. Estimated: twice as far, and half a degree more each frame."""
    frame_s = np.arange(31) / 15
    true = np.tile(np.eye(4), (31, 1, 1))
    true[:, 0, 3] = 0.1 * frame_s
    assert relative_errors(true, true, frame_s) == pytest.approx(
        {"rpe_m": 0, "rpe_deg": 0, "rpe_1s_m": 0, "rpe_1s_deg": 0, "length_ratio": 1, "path_m": 0.2}, abs=1e-9
    )
    onto = np.eye(4)
    onto[:3, :3], onto[:3, 3] = Rotation.from_rotvec([0.4, 1.0, -0.3]).as_matrix(), [3, 2, 1]
    moved = relative_errors(onto @ true, true, frame_s)  # another world is no error
    assert moved["rpe_1s_m"] == pytest.approx(0, abs=1e-9)
    assert moved["length_ratio"] == pytest.approx(1)
    ours = true.copy()
    ours[:, 0, 3] *= 2
    scaled = relative_errors(ours, true, frame_s)
    assert scaled["rpe_m"] == pytest.approx(0.1 / 15)
    assert scaled["rpe_1s_m"] == pytest.approx(0.1)
    assert scaled["length_ratio"] == pytest.approx(2)
    ours = true.copy()
    ours[:, :3, :3] = Rotation.from_rotvec(np.radians(0.5) * np.arange(31)[:, None] * [0, 0, 1]).as_matrix()
    turned = relative_errors(ours, true, frame_s)
    assert turned["rpe_deg"] == pytest.approx(0.5)
    assert turned["rpe_1s_deg"] == pytest.approx(7.5)


def test_relative_errors_leave_out_steps_that_are_not_known():
    frame_s = np.arange(10) / 15
    true = np.tile(np.eye(4), (10, 1, 1))
    true[:, 0, 3] = np.arange(10) * 0.01
    ours = true.copy()
    ours[4] = np.nan
    found = relative_errors(ours, true, frame_s)
    assert found["length_ratio"] == pytest.approx(1)
    assert found["path_m"] == pytest.approx(0.07)
    nothing = relative_errors(np.full_like(true, np.nan), true, frame_s)
    assert np.isnan(list(nothing.values())).all()
    assert np.isnan(found["rpe_1s_m"])  # the clip is shorter than a second
