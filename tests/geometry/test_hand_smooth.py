"""Gaps and smoothing, on hands whose motion is known."""

from __future__ import annotations

import numpy as np
import pytest

from handloom.geometry.hands.smooth import GAP_CONFIDENCE, fill_gaps, smooth

SHAPE = np.random.default_rng(3).uniform(-40, 40, (21, 2))
WIDTH, HEIGHT = 640, 360


def moving(centre: np.ndarray) -> np.ndarray:
    """(T, 2) to (T, 21, 2)."""
    return centre[:, None] + SHAPE


def hand(num: int = 12, step: tuple[float, float] = (3.0, 1.0)) -> tuple[np.ndarray, ...]:
    """Points, metric points, confidence and seconds of a hand in even motion."""
    points = moving([300.0, 150.0] + np.arange(num)[:, None] * np.array(step))
    return points, np.repeat(points[..., :1], 3, axis=2) / 1000, np.full(num, 0.8), np.arange(num) / 15


def unseen(gap: slice, *arrays: np.ndarray) -> None:
    for array in arrays:
        array[gap] = np.nan


def test_a_short_gap_is_filled_along_the_way():
    points, metric, confidence, seconds = hand()
    whole = points.copy()
    unseen(slice(4, 7), points, metric, confidence)
    assert np.flatnonzero(fill_gaps(points, metric, confidence, seconds, WIDTH, HEIGHT)).tolist() == [4, 5, 6]
    np.testing.assert_allclose(points, whole)
    np.testing.assert_allclose(metric[..., 0], whole[..., 0] / 1000)
    np.testing.assert_allclose(confidence[4:7], GAP_CONFIDENCE * 0.8)


@pytest.mark.parametrize(
    ("gap", "start", "step"),
    [
        (slice(4, 9), (300, 150), (3, 1)),  # too long
        (slice(0, 3), (300, 150), (3, 1)),  # before the first sighting
        (slice(9, 12), (300, 150), (3, 1)),  # after the last
        (slice(4, 7), (-60, 150), (1, 0)),  # beside the image
        (slice(4, 7), (100, 150), (40, 0)),  # farther than a hand moves
    ],
)
def test_other_gaps_stay_open(gap, start, step):
    points, metric, confidence, seconds = hand(step=step)
    points += np.array(start) - [300, 150]
    unseen(gap, points, metric, confidence)
    before = points.copy()
    assert not fill_gaps(points, metric, confidence, seconds, WIDTH, HEIGHT).any()
    np.testing.assert_array_equal(points, before)


def test_even_motion_is_not_changed_whatever_the_spacing():
    seconds = np.cumsum(np.random.default_rng(0).uniform(0.02, 0.2, 30))
    points = moving(seconds[:, None] * [80.0, -30.0] + 200)
    np.testing.assert_allclose(smooth(points, seconds), points, atol=1e-6)


def test_noise_goes_and_time_has_no_direction():
    noise = np.random.default_rng(1).normal(0, 1.0, (60, 21, 2))
    points, seconds = moving(np.full((60, 2), 150.0)) + noise, np.arange(60) / 15
    smoothed = smooth(points, seconds)
    assert np.abs(np.diff(smoothed, 2, axis=0)).mean() < 0.3 * np.abs(np.diff(points, 2, axis=0)).mean()
    assert (smoothed - points + noise).std() < 0.75 * noise.std()
    np.testing.assert_allclose(smooth(points[::-1], seconds[-1] - seconds[::-1])[::-1], smoothed, atol=1e-6)


def test_a_doubted_frame_follows_the_sure_ones():
    points, _, _, seconds = hand(20)
    odd = points.copy()
    odd[10] += 5
    sure, doubted = np.full(20, 0.95), np.where(np.arange(20) == 10, 0.5, 0.95)
    away = [np.abs(smooth(odd, seconds, each)[10] - points[10]).max() for each in (sure, doubted)]
    assert away[1] < 0.5 * away[0]


def test_a_sharp_turn_keeps_its_corner():
    at = np.arange(40) / 15
    turning = moving(np.stack([200 + 300 * np.abs(at - at[20]), np.full(40, 150.0)], axis=1))
    away = np.linalg.norm(smooth(turning, at) - turning, axis=-1)
    assert away.max() < 4  # the hand moves 20 pixels a frame, and is 110 long


def test_unseen_frames_stay_unseen_and_separate_what_is_smoothed():
    points, _, _, seconds = hand(30)
    points[10:14] = np.nan
    points[14:] += 40
    smoothed = smooth(points, seconds)
    assert np.isnan(smoothed[10:14]).all()
    np.testing.assert_allclose(smoothed[14:], points[14:], atol=1e-6)
    assert smooth(points[:0], seconds[:0]).shape == (0, 21, 2)
