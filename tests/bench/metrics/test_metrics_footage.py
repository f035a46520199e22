"""Metrics of real clips without truth, on synthetic arrays and images."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from handloom.bench.metrics.footage import LaterGrid, dense_windows, largest_loss, survival
from handloom.bench.metrics.scene_motion import hand_polygons, moved_points, scene_homographies, under_hands

SIZE = (320, 240)
NO_HANDS = np.full((6, 2, 21, 2), np.nan)


def hand(x: float, y: float) -> np.ndarray:
    """Fingers up, wrist below: 21 points of a hand 60 px high."""
    fingers = [[x + 8 * (f - 2), y - 20 - 12 * k] for f in range(5) for k in range(4)]
    return np.array([[x, y], *fingers], float)


def grid() -> np.ndarray:
    x, y = np.meshgrid(np.linspace(10, 309, 12), np.linspace(10, 229, 9))
    return np.stack([x, y], axis=-1).reshape(-1, 2)


def pan(step_px: float, num: int = 6) -> tuple[np.ndarray, np.ndarray]:
    """Steps (num - 1, 3, 3) and places (num, N, 2) of a scene that moves to the left."""
    steps = np.tile(np.eye(3), (num - 1, 1, 1))
    steps[:, 0, 2] = -step_px
    return steps, np.stack([grid() - [step_px * t, 0] for t in range(num)])


def inside(px: np.ndarray) -> np.ndarray:
    return ((px >= 0) & (px <= [319, 239])).all(axis=-1)


def test_points_that_left_the_image_are_not_missing():
    steps, px = pan(20)
    found = survival(px, inside(px), steps, NO_HANDS, SIZE)
    assert (found.missing, found.unknown) == (0, 0)
    assert found.seen == inside(px[-1]).sum() < len(grid())
    assert largest_loss(px, inside(px), steps, NO_HANDS, SIZE, np.zeros(6, bool)).share == 0


def test_points_given_up_in_the_image_are_missing_and_a_collapse_is_found():
    steps, px = pan(4)
    visible = inside(px)
    visible[3:, ::2] = False
    found = survival(px, visible, steps, NO_HANDS, SIZE)
    assert found.missing == pytest.approx(len(grid()) / 2, abs=9)
    assert found.share == pytest.approx(0.5, abs=0.05)
    loss = largest_loss(px, visible, steps, NO_HANDS, SIZE, np.zeros(6, bool))
    assert loss.frame == 3
    assert loss.share == pytest.approx(0.45, abs=0.05)  # those at the border may have left


def test_a_cut_a_black_frame_and_a_step_that_cannot_be_judged_are_no_collapse():
    steps, px = pan(0)
    visible = np.ones(px.shape[:2], bool)
    visible[3:, 10:] = False
    dark = np.arange(6) == 3
    assert largest_loss(px, visible, steps, NO_HANDS, SIZE, dark).share == 0
    steps[2] = np.nan
    loss = largest_loss(px, visible, steps, NO_HANDS, SIZE, np.zeros(6, bool))
    assert (loss.share, loss.unjudged) == (0, 1)
    assert survival(px, visible, steps, NO_HANDS, SIZE).unknown == len(grid()) - 10


def test_points_under_a_hand_and_its_forearm_are_not_missing():
    steps, px = pan(0)
    hands = NO_HANDS.copy()
    hands[2:, 1] = hand(160, 120)
    covered = under_hands(grid(), hands[2:3], SIZE)
    assert 5 < covered.sum() < 0.3 * len(grid())
    assert under_hands(np.array([[145.0, 200.0], [160, 20]]), hands[2:3], SIZE).tolist() == [True, False]  # forearm
    visible = np.ones(px.shape[:2], bool)
    visible[2:, covered] = False
    assert survival(px, visible, steps, hands, SIZE).missing == 0
    assert largest_loss(px, visible, steps, hands, SIZE, np.zeros(6, bool)).share == 0


def test_a_point_that_moved_by_itself_is_not_judged():
    steps, px = pan(0)
    px = px.copy()
    px[:, 0] = [150, 100]
    px[:, 0, 0] += 9 * np.arange(6)
    visible = np.ones(px.shape[:2], bool)
    visible[5, :2] = False
    found = survival(px, visible, steps, NO_HANDS, SIZE)
    assert (found.unknown, found.missing) == (1, 1)


def test_a_window_takes_the_grid_with_the_most_visible_points():
    visible = np.zeros((30, 4), bool)
    visible[:12] = True
    assert dense_windows(visible, length=5, enough=4) == (8, 26)
    later = [LaterGrid(10, np.ones((12, 4), bool))]
    assert dense_windows(visible, later, length=5, enough=4) == (8 + 2 + 6, 26)  # of starts 8 and 9 the first grid ends
    assert dense_windows(visible[:4], length=5) == (0, 0)


def test_later_grids_of_a_window_are_counted_whole():
    assert dense_windows(np.zeros((20, 3), bool), [LaterGrid(0, np.ones((20, 3), bool))], 5, 3) == (16, 16)


def image(seed: int = 0) -> np.ndarray:
    grain = np.random.default_rng(seed).normal(size=(300, 500))
    return np.clip(128 + 700 * cv2.GaussianBlur(grain, (0, 0), 3), 0, 255).astype(np.uint8)


def test_the_static_scene_is_followed_beside_a_moving_hand():
    scene = image()
    frames = [scene[30:270, 20 + 7 * t : 340 + 7 * t].copy() for t in range(4)]
    hands = NO_HANDS[:4].copy()
    for t, frame in enumerate(frames):
        hands[t, 0] = hand(80 + 30 * t, 150)
        for polygon in hand_polygons(hands[t], SIZE):
            cv2.fillPoly(frame, [polygon], 90 + 40 * (t % 2))
    steps = scene_homographies(frames, hands * 2, (640, 480))  # images at half the source's size
    there = moved_points(2 * grid(), steps)
    np.testing.assert_allclose(there, 2 * grid() - [42, 0], atol=1.0)


def test_rest_needs_no_corner_and_another_scene_has_no_homography():
    plain = np.full((240, 320), 120, np.uint8)
    np.testing.assert_array_equal(scene_homographies([plain, plain + 1], NO_HANDS[:2], SIZE), np.eye(3)[None])
    cut = scene_homographies([image(0)[:240, :320], image(1)[:240, :320]], NO_HANDS[:2], SIZE)
    assert np.isnan(cut).all()


def test_a_fast_turn_is_found_by_descriptors():
    scene = cv2.resize(image(3), (1500, 900))
    frames = [scene[:240, :320], scene[:240, 130:450]]
    steps = scene_homographies(frames, NO_HANDS[:2], SIZE)
    np.testing.assert_allclose(moved_points(grid(), steps), grid() - [130, 0], atol=1.5)
