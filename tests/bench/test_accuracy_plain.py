"""The baselines of `bench accuracy`: MediaPipe's results as arrays."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np

from handloom.bench.accuracy.plain import hands_as_arrays
from handloom.bench.metrics.hands import PredictedHands, TrueHands, hand_errors
from handloom.schemas.values import LEFT, RIGHT


def point(x: float, y: float, z: float = 0.0) -> SimpleNamespace:
    return SimpleNamespace(x=x, y=y, z=z)


def result(*hands: tuple[str, float]) -> SimpleNamespace:
    """What `mp.solutions.hands` returns for a frame: hands by MediaPipe's label and the place of their wrist."""
    if not hands:
        return SimpleNamespace(multi_hand_landmarks=None, multi_hand_world_landmarks=None, multi_handedness=None)
    marks = [SimpleNamespace(landmark=[point(x + 0.005 * k, 0.5) for k in range(21)]) for _, x in hands]
    worlds = [SimpleNamespace(landmark=[point(0.01 * k, 0.0, x) for k in range(21)]) for _, x in hands]
    labels = [SimpleNamespace(classification=[SimpleNamespace(label=label)]) for label, _ in hands]
    return SimpleNamespace(multi_hand_landmarks=marks, multi_hand_world_landmarks=worlds, multi_handedness=labels)


def test_labels_are_swapped_and_frames_without_hands_are_nan():
    shares, model_m, handedness = hands_as_arrays([result(("Left", 0.2)), result()])
    assert shares.shape == (2, 2, 21, 2)
    assert model_m.shape == (2, 2, 21, 3)
    np.testing.assert_allclose(shares[0, 0, 1], [0.205, 0.5])
    np.testing.assert_allclose(model_m[0, 0, 1], [0.01, 0.0, 0.2])
    assert handedness[0, 0] == RIGHT  # MediaPipe expects mirrored images
    assert np.isnan(shares[0, 1]).all()
    assert np.isnan(shares[1]).all()


def test_a_third_hand_is_kept_and_counted_as_false():
    """Asked for two hands, MediaPipe returns three in some frames."""
    shares, _, handedness = hands_as_arrays([result(("Left", 0.2), ("Right", 0.6), ("Right", 0.9))])
    assert shares.shape == (1, 3, 21, 2)
    assert handedness.tolist() == [[RIGHT, LEFT, LEFT]]
    px = 1000 * shares
    cam = np.concatenate([px[:, [1, 0]] - 500, np.full((1, 2, 21, 1), 500.0)], axis=-1) / 1000
    cam[..., 17, 1] += 0.08  # a palm has a width
    truth = TrueHands(px[:, [1, 0]], cam, cam, np.ones((1, 2), bool), 1000.0)
    errors = hand_errors(truth, PredictedHands(px, handedness, np.full((1, 3, 21, 3), np.nan)))
    assert (errors.num_found, errors.num_visible, errors.num_false, errors.num_right_handed) == (2, 2, 1, 2)
