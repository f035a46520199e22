"""The metrics that others report: known values, and what must not change them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from handloom.bench.metrics.averages import averages
from handloom.bench.metrics.comparable import comparable, placeholder_m
from handloom.bench.metrics.hands import PredictedHands, TrueHands, mpjpe_mm
from handloom.geometry.camera.world import to_world

FOCAL_PX, FRAMES, RATE_HZ = 400.0, 31, 15.0
TURN = Rotation.from_rotvec([0.3, -0.5, 0.2]).as_matrix()


def pose(turn: np.ndarray, shift: np.ndarray) -> np.ndarray:
    out = np.tile(np.eye(4), (len(shift), 1, 1))
    out[:, :3, :3], out[:, :3, 3] = turn, shift
    return out


def scene() -> TrueHands:
    """Two hands at 0.5 m, 0.3 m apart, drifting steadily, in front of a camera that moves along x at 0.1 m/s."""
    rng = np.random.default_rng(3)
    hand = rng.uniform(-0.04, 0.04, (21, 3))
    hand[0], hand[5], hand[17] = (0, 0.08, 0), (0.04, 0, 0), (-0.04, 0, 0)
    frame_s = np.arange(FRAMES) / RATE_HZ
    drift = 0.02 * frame_s[:, None, None] * [1, 0, 0]
    cam = np.stack([hand + np.array([x, 0, 0.5]) + drift for x in (-0.15, 0.15)], axis=1)
    px = FOCAL_PX * cam[..., :2] / cam[..., 2:] + [240, 180]
    poses = pose(TURN, 0.1 * frame_s[:, None] * [1, 0, 0])
    there = np.ones((FRAMES, 2), bool)
    return TrueHands(px, cam, to_world(cam, poses), there, FOCAL_PX, frame_s, poses, there)


def perfect(truth: TrueHands) -> PredictedHands:
    side = np.tile([0, 1], (len(truth.visible), 1))
    return PredictedHands(truth.keypoints_px, side, truth.keypoints_cam_m, truth.keypoints_world_m)


def without(predicted: PredictedHands, frames: slice, hand: int) -> PredictedHands:
    arrays = {k: getattr(predicted, k).copy() for k in ("keypoints_px", "keypoints_cam_m", "keypoints_world_m")}
    for array in arrays.values():
        array[frames, hand] = np.nan
    return replace(predicted, **arrays)


def scores(truth: TrueHands, predicted: PredictedHands) -> dict[str, float]:
    return averages([comparable(truth, predicted)])


def test_a_perfect_prediction_scores_one_or_nothing():
    found = scores(scene(), perfect(scene()))
    for name in ("facc", "recall", "precision", "f1", "pck_box_02", "pck_box_auc", "pck_palm_05", "auc_50mm"):
        assert found[name] == 1, name
    assert found["action_coverage"] == 1
    for name in (
        "mpjpe_p_mm", "pa_mpjpe_p_mm", "ct_p_m", "root_z_mm", "z_abs_mm", "action_mm", "hand_swaps_per_1000",
        "jitter_mean_mm", "true_jitter_mean_mm",
    ):  # fmt: skip
        assert found[name] == pytest.approx(0, abs=1e-9), name


def test_a_missed_hand_gets_the_error_of_the_placeholder():
    truth = scene()
    found = scores(truth, without(perfect(truth), slice(0, 6), 1))
    missed = 6 / (2 * FRAMES)
    assert found["recall"] == pytest.approx(1 - missed)
    assert found["precision"] == 1
    assert found["f1"] == pytest.approx(2 * (1 - missed) / (2 - missed))
    assert found["facc"] == pytest.approx((FRAMES - 6) / FRAMES)
    flat, true = placeholder_m()[1], truth.keypoints_cam_m[:6, 1]
    assert found["mpjpe_p_mm"] == pytest.approx(missed * mpjpe_mm(flat - flat[0], true - true[:, :1]).mean())
    assert found["pa_mpjpe_p_mm"] == pytest.approx(found["mpjpe_p_mm"])  # the placeholder is not aligned
    assert found["ct_p_m"] == pytest.approx(missed * np.linalg.norm(true[:, 0], axis=-1).mean())


def test_nothing_predicted_is_worse_than_any_found_hand():
    truth, nothing = scene(), without(without(perfect(scene()), slice(None), 0), slice(None), 1)
    found = scores(truth, nothing)
    assert (found["facc"], found["recall"], found["f1"], found["pck_box_auc"], found["auc_50mm"]) == (0, 0, 0, 0, 0)
    assert np.isnan(found["precision"])
    assert found["action_coverage"] == 0
    assert np.isnan(found["action_mm"])
    assert found["mpjpe_p_mm"] > 50


def test_a_false_hand_costs_precision_and_its_frame():
    truth = scene()
    there = truth.present.copy()
    there[:3, 0] = False
    found = scores(replace(truth, present=there, visible=there), perfect(truth))
    assert found["recall"] == 1
    assert found["precision"] == pytest.approx((2 * FRAMES - 3) / (2 * FRAMES))
    assert found["facc"] == pytest.approx((FRAMES - 3) / FRAMES)


def test_slots_are_labels_and_a_second_hand_of_one_label_is_false():
    truth = scene()
    both_right = replace(perfect(truth), handedness=np.ones((FRAMES, 2), int))
    found = scores(truth, both_right)
    assert (found["facc"], found["recall"], found["precision"]) == (0, 0.5, 0.5)
    assert found["pck_box_02"] == 1  # by place both are right


def test_a_hand_without_3d_counts_as_seen_and_as_unposed():
    truth = scene()
    flat = replace(perfect(truth), keypoints_cam_m=np.full_like(truth.keypoints_cam_m, np.nan))
    found = scores(truth, flat)
    assert (found["facc"], found["pck_box_02"], found["auc_50mm"]) == (1, 1, 0)
    assert found["mpjpe_p_mm"] > 50
    assert np.isnan(found["root_z_mm"])


def test_depth_error_keeps_its_sign():
    truth = scene()
    moved = truth.keypoints_cam_m + np.array([0.03, 0.0, 0.0])
    moved[:, 0, :, 2] += 0.02
    moved[:, 1, :, 2] -= 0.04
    found = scores(truth, replace(perfect(truth), keypoints_cam_m=moved))
    assert found["root_z_mm"] == pytest.approx(-10)
    assert found["root_z_abs_mm"] == pytest.approx(30)
    assert found["z_mm"] == pytest.approx(-10)
    assert found["z_abs_mm"] == pytest.approx(30)
    assert found["mpjpe_p_mm"] == pytest.approx(0, abs=1e-9)


def test_pck_by_hand():
    truth = scene()
    sides = (truth.keypoints_px.max(axis=2) - truth.keypoints_px.min(axis=2)).max(axis=-1)
    shift = np.zeros_like(truth.keypoints_px)
    shift[..., 0] = 0.25 * sides[..., None]
    found = scores(truth, replace(perfect(truth), keypoints_px=truth.keypoints_px + shift))
    assert found["pck_box_02"] == 0
    assert found["pck_box_auc"] == pytest.approx(0.5, abs=0.01)
    bent = truth.keypoints_cam_m.copy()
    bent[:, :, 1:, 0] += 0.0251  # 20 of 21 keypoints are 25.1 mm off against the wrist
    found = scores(truth, replace(perfect(truth), keypoints_cam_m=bent))
    assert found["auc_50mm"] == pytest.approx((1 + 20 * 50 / 101) / 21)


def test_jitter_by_hand_and_at_another_rate():
    truth = scene()
    shaken = truth.keypoints_cam_m.copy()
    shaken[::2, :, :, 1] += 0.001  # to and fro by 1 mm: every second difference is 2 mm
    found = scores(truth, replace(perfect(truth), keypoints_cam_m=shaken))
    assert found["jitter_mean_mm"] == pytest.approx(2, rel=1e-6)
    assert found["jitter_mean_mm_30hz"] == pytest.approx(2 * (RATE_HZ / 30) ** 2, rel=1e-6)
    fall = scene()
    cam = fall.keypoints_cam_m + (0.5 * 9.81 * fall.frame_s**2)[:, None, None, None] * [0, 1, 0]
    fall = replace(fall, keypoints_cam_m=cam)
    half = replace(fall, **{k: getattr(fall, k)[::2] for k in vars(fall) if k != "focal_px"})
    at_15, at_7 = scores(fall, perfect(fall)), scores(half, perfect(half))
    assert at_15["true_jitter_mean_mm_30hz"] == pytest.approx(9810 / 900)
    assert at_7["true_jitter_mean_mm_30hz"] == pytest.approx(9810 / 900)
    assert at_7["true_jitter_mean_mm"] == pytest.approx(4 * at_15["true_jitter_mean_mm"])


def test_action_needs_no_common_world_but_the_right_scale():
    truth = scene()
    onto = pose(Rotation.from_rotvec([1.0, 0.2, -2.0]).as_matrix(), np.array([[5.0, -1.0, 2.0]]))[0]
    moved = truth.keypoints_world_m @ onto[:3, :3].T + onto[:3, 3]
    elsewhere = replace(perfect(truth), keypoints_world_m=moved, world_from_camera=onto @ truth.world_from_camera)
    assert scores(truth, elsewhere)["action_mm"] == pytest.approx(0, abs=1e-9)
    still = np.tile(truth.world_from_camera[0], (FRAMES, 1, 1))  # a path that stands still: scale 0
    stuck = replace(perfect(truth), keypoints_world_m=to_world(truth.keypoints_cam_m, still), world_from_camera=still)
    pairs = np.array([k for t in range(FRAMES) for k in range(1, 16) if t + k < FRAMES])
    assert scores(truth, stuck)["action_mm"] == pytest.approx((100 * pairs / RATE_HZ).mean())


def test_action_counts_what_is_missing_as_coverage():
    truth = scene()
    found = scores(truth, without(perfect(truth), slice(FRAMES - 1, None), 0))
    asked = 2 * sum(1 for t in range(FRAMES) for k in range(1, 16) if t + k < FRAMES)
    assert found["action_coverage"] == pytest.approx(1 - 15 / asked)  # the last frame is in 15 futures
    assert scores(truth, replace(perfect(truth), keypoints_world_m=None))["action_coverage"] == 0


def test_labels_that_change_are_counted_once_per_change():
    truth = scene()
    side = np.tile([0, 1], (FRAMES, 1))
    side[10:20] = [1, 0]
    found = scores(truth, replace(perfect(truth), handedness=side))
    assert found["hand_swaps_per_1000"] == pytest.approx(1000 * 4 / (2 * FRAMES))


def test_rotating_the_world_changes_only_the_depth_axis():
    rng = np.random.default_rng(1)
    truth = scene()
    ours = replace(perfect(truth), keypoints_cam_m=truth.keypoints_cam_m + rng.normal(0, 0.01, (FRAMES, 2, 21, 3)))
    before = scores(truth, ours)
    turn = Rotation.from_rotvec([0.0, 0.0, 0.7]).as_matrix()  # about the axis, so that depths and palms stay
    turned = replace(truth, keypoints_cam_m=truth.keypoints_cam_m @ turn.T)
    after = scores(turned, replace(ours, keypoints_cam_m=ours.keypoints_cam_m @ turn.T))
    for name in ("mpjpe_p_mm", "pa_mpjpe_p_mm", "ct_p_m", "auc_50mm", "z_abs_mm", "jitter_mean_mm"):
        assert after[name] == pytest.approx(before[name]), name
    larger = {k: 2 * getattr(truth, k) for k in ("keypoints_cam_m", "keypoints_world_m")}
    twice = scores(replace(truth, **larger), replace(ours, keypoints_cam_m=2 * ours.keypoints_cam_m))
    assert twice["mpjpe_p_mm"] == pytest.approx(2 * before["mpjpe_p_mm"])
    assert twice["jitter_mean_mm"] == pytest.approx(2 * before["jitter_mean_mm"])


def test_clips_pool_by_what_was_counted():
    assert averages([{"a": (1.0, 1.0)}, {"a": (0.0, 3.0), "b": (0.0, 0.0)}])["a"] == 0.25
    assert np.isnan(averages([{"b": (0.0, 0.0)}])["b"])


def test_the_placeholder_has_the_orientation_of_manos_mean_hand():
    left, right = placeholder_m()
    assert right[0] == pytest.approx([0, 0, 0])
    assert right[12, 0] < -0.15  # the middle fingertip, along -x
    assert right[4, 2] > 0.03  # the thumb's, along z
    np.testing.assert_allclose(left, right * [-1, 1, 1])
