"""Distances of hands from the camera, and their predicted standard deviations."""

import numpy as np
import pytest

from handloom.bench.metrics.distance import Distances, distance_scores, distances
from handloom.bench.metrics.hands import PredictedHands, TrueHands


def truth() -> TrueHands:
    """Two frames, both hands flat in front of the camera, 0.5 m away; in the second the left one does not count."""
    cam = np.zeros((2, 2, 21, 3))
    cam[..., 0] = np.linspace(-0.04, 0.04, 21)
    cam[..., 1] = np.linspace(-0.05, 0.05, 21)[::-1]
    cam[:, 0, :, 0] -= 0.2
    cam[:, 1, :, 0] += 0.2
    cam[..., 2] = 0.5
    visible = np.array([[True, True], [False, True]])
    return TrueHands(500 * cam[..., :2] / cam[..., 2:], cam, cam, visible, 500.0)


def test_errors_of_found_hands_against_their_sigma():
    true = truth()
    cam = true.keypoints_cam_m[:, ::-1] * [[[1.1]], [[1.0]]]  # the slots are exchanged: found by place
    side = np.tile([0, 1], (2, 1))
    predicted = PredictedHands(true.keypoints_px[:, ::-1], side, cam)
    sigma = np.array([[0.1, 0.02], [0.01, np.nan]])
    found = distances(true, predicted, sigma)
    np.testing.assert_allclose(np.sort(found.relative), [0.0, 0.1, 0.1], atol=1e-9)
    away_m = np.linalg.norm(true.keypoints_cam_m[0, 1].mean(axis=0))
    np.testing.assert_allclose(np.sort(found.sigmas), [0.0, away_m, 10 * away_m], atol=1e-9)
    scores = distance_scores([found, Distances(np.zeros(0), np.zeros(0))])
    assert scores["distance_error"] == pytest.approx(0.1)
    assert scores["distance_within_2_sigma"] == pytest.approx(2 / 3)


def test_no_standard_deviation_is_nan():
    scores = distance_scores([Distances(np.array([-0.2, 0.1]), np.full(2, np.nan))])
    assert scores["distance_bias"] == pytest.approx(-0.05)
    assert np.isnan(scores["distance_within_2_sigma"])
    assert np.isnan(distance_scores([Distances(np.zeros(0), np.zeros(0))])["distance_error"])
