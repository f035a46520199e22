"""Hand metrics: hand-computed cases, and what must not change them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from handloom.bench.metrics.hands import (
    PredictedHands,
    TrueHands,
    hand_errors,
    hand_scores,
    palm_width_px,
    procrustes,
)

FOCAL_PX = 400.0
FRAMES = 6


def scene(seed: int = 0) -> TrueHands:
    """Two hands at 0.5 m, 0.3 m apart, moving; the palm is 80 mm wide and at the depth of the wrist."""
    rng = np.random.default_rng(seed)
    hand = rng.uniform(-0.04, 0.04, (21, 3))
    hand[0], hand[5], hand[17] = (0, 0.08, 0), (0.04, 0, 0), (-0.04, 0, 0)
    drift = np.linspace(0, 0.02, FRAMES)[:, None, None] ** 2 * 50
    left, right = (hand + [x, 0, 0.5] + drift * [1, 0, 0] for x in (-0.15, 0.15))
    cam = np.stack([left, right], axis=1)
    px = FOCAL_PX * cam[..., :2] / cam[..., 2:] + [240, 180]
    return TrueHands(px, cam, cam + np.array([1.0, 2.0, 3.0]), np.ones((FRAMES, 2), bool), FOCAL_PX)


def perfect(truth: TrueHands) -> PredictedHands:
    side = np.tile([0, 1], (len(truth.visible), 1))
    return PredictedHands(truth.keypoints_px, side, truth.keypoints_cam_m, truth.keypoints_world_m)


def scores(truth: TrueHands, predicted: PredictedHands) -> dict[str, float]:
    return hand_scores([hand_errors(truth, predicted)])


def test_a_perfect_prediction_has_no_error():
    found = scores(scene(), perfect(scene()))
    assert found["visible_hand_frames"] == 2 * FRAMES
    assert (found["coverage"], found["handedness"], found["false_hands"], found["lifted"], found["in_world"]) == (
        1,
        1,
        0,
        1,
        1,
    )
    for name in ("error_px", "root_relative_mm", "pa_mm", "camera_mm", "world_mm"):
        assert found[name] == pytest.approx(0, abs=1e-9)
    assert found["jitter_mm"] == pytest.approx(found["true_jitter_mm"])
    assert found["true_jitter_mm"] > 0.1


def test_a_palm_80_mm_wide_at_half_a_metre_is_64_px():
    np.testing.assert_allclose(palm_width_px(scene())[0], 64.0)


def test_a_shift_counts_in_its_own_space_only():
    truth = scene()
    moved = replace(
        perfect(truth),
        keypoints_px=truth.keypoints_px + np.array([3, 4]),
        keypoints_cam_m=truth.keypoints_cam_m + np.array([0, 0, 0.02]),
        keypoints_world_m=truth.keypoints_world_m + np.array([0.03, 0, 0]),
    )
    found = scores(truth, moved)
    assert found["error_px"] == pytest.approx(5)
    assert found["error_palms"] == pytest.approx(5 / 64)
    assert found["camera_mm"] == pytest.approx(20)
    assert found["world_mm"] == pytest.approx(30)
    assert found["root_relative_mm"] == pytest.approx(0, abs=1e-9)


def test_swapped_labels_are_wrong_handedness_and_nothing_else():
    truth = scene()
    found = scores(truth, replace(perfect(truth), handedness=1 - perfect(truth).handedness))
    assert (found["coverage"], found["handedness"], found["false_hands"]) == (1, 0, 0)
    assert found["camera_mm"] == pytest.approx(0, abs=1e-9)


def test_the_order_of_predictions_does_not_matter():
    truth = scene()
    ours = perfect(truth)
    turned = PredictedHands(
        ours.keypoints_px[:, ::-1], ours.handedness[:, ::-1], ours.keypoints_cam_m[:, ::-1],
        ours.keypoints_world_m[:, ::-1],
    )  # fmt: skip
    assert scores(truth, turned) == pytest.approx(scores(truth, ours))


def test_a_missing_hand_is_not_covered_and_a_far_one_is_false():
    truth = scene()
    px = truth.keypoints_px.copy()
    px[:2, 0] = np.nan
    px[2, 1] += 500
    found = scores(truth, replace(perfect(truth), keypoints_px=px))
    assert found["coverage"] == pytest.approx(9 / 12)
    assert found["false_hands"] == pytest.approx(1 / 12)


def test_two_predictions_of_one_hand_are_one_hand_and_a_false_one():
    truth = scene()
    ours = perfect(truth)
    found = scores(truth, replace(ours, keypoints_px=ours.keypoints_px[:, [0, 0]]))
    assert (found["coverage"], found["false_hands"]) == (0.5, 0.5)


def test_a_hand_that_need_not_be_found_may_be_found():
    truth = scene()
    visible = truth.visible.copy()
    visible[:, 1] = False
    found = scores(replace(truth, visible=visible), perfect(truth))
    assert (found["visible_hand_frames"], found["coverage"], found["false_hands"]) == (FRAMES, 1, 0)


def test_a_true_keypoint_without_a_place_in_the_image_is_left_out():
    truth = scene()
    moved = replace(perfect(truth), keypoints_px=truth.keypoints_px + np.array([3, 4]))
    px = truth.keypoints_px.copy()
    px[:, 0, :10] = np.nan
    found = scores(replace(truth, keypoints_px=px), moved)
    assert (found["coverage"], found["false_hands"]) == (1, 0)
    assert found["error_px"] == pytest.approx(5)
    assert found["jitter_px"] == pytest.approx(found["true_jitter_px"])
    px[:, 0, 10] = np.nan
    assert scores(replace(truth, keypoints_px=px), moved)["coverage"] == 0.5


def test_unknown_depth_lowers_lifted_and_keeps_the_errors_of_the_rest():
    truth = scene()
    cam = truth.keypoints_cam_m + np.array([0, 0, 0.01])
    cam[:3] = np.nan
    found = scores(truth, replace(perfect(truth), keypoints_cam_m=cam, keypoints_world_m=None))
    assert found["lifted"] == 0.5
    assert found["camera_mm"] == pytest.approx(10)
    assert np.isnan(found["world_mm"])
    assert found["in_world"] == 0


def test_jitter_is_the_second_difference():
    """Every second frame 2 mm deeper: the second difference is 4 mm more or less; a steady drift adds nothing."""
    truth = scene()
    still = replace(truth, keypoints_cam_m=np.repeat(truth.keypoints_cam_m[:1], FRAMES, axis=0))
    shake = (np.arange(FRAMES) % 2 * 0.002 + np.arange(FRAMES) * 0.01)[:, None, None, None] * [0, 0, 1]
    found = scores(still, replace(perfect(still), keypoints_cam_m=still.keypoints_cam_m + shake))
    assert found["jitter_mm"] == pytest.approx(4)
    assert found["true_jitter_mm"] == 0


def test_nothing_to_measure_is_nan():
    truth = scene()
    nothing = replace(truth, visible=np.zeros_like(truth.visible))
    found = scores(nothing, perfect(truth))
    assert found["visible_hand_frames"] == 0
    assert all(np.isnan(found[name]) for name in ("coverage", "handedness", "error_px", "pa_mm", "jitter_mm"))


def test_clips_pool_by_hand_frame():
    truth = scene()
    worse = replace(perfect(truth), keypoints_px=truth.keypoints_px + np.array([3, 4]))
    one = hand_errors(truth, perfect(truth))
    assert hand_scores([one, one, hand_errors(truth, worse)])["error_px"] == pytest.approx(5 / 3)


@pytest.mark.parametrize("scale", [0.5, 1.0, 3.0])
def test_procrustes_undoes_any_similarity_but_no_mirror(scale: float):
    rng = np.random.default_rng(4)
    hands = rng.normal(size=(5, 21, 3))
    turns = Rotation.random(5, random_state=1).as_matrix()
    moved = scale * np.einsum("nij,nkj->nki", turns, hands) + rng.normal(size=(5, 1, 3))
    np.testing.assert_allclose(procrustes(moved, hands), hands, atol=1e-12)
    mirrored = procrustes(moved * [-1, 1, 1], hands)
    assert np.linalg.norm(mirrored - hands, axis=-1).mean() > 0.3


def test_procrustes_keeps_unknown_hands_unknown():
    hands = np.random.default_rng(0).normal(size=(2, 21, 3))
    hands[0, 3] = np.nan
    out = procrustes(hands, np.nan_to_num(hands))
    assert np.isnan(out[0]).all()
    np.testing.assert_allclose(out[1], hands[1])
