"""Hands of known shape placed in front of a camera."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from handloom.geometry.camera.intrinsics import project
from handloom.geometry.hands.pnp import lift_hands
from handloom.schemas.values import Camera

MATRIX = np.array([[700.0, 0, 639.5], [0, 700.0, 359.5], [0, 0, 1]])
WIDE = Camera(MATRIX, "given", np.array([-0.15, 0.03, 0.001, -0.001]))
PLAIN = Camera(MATRIX, "given")
FISHEYE = Camera(MATRIX, "given", np.array([0.03, 0.01, -0.006, 0.001]), "fisheye")


def hand(curl: float = 0.6) -> np.ndarray:
    """A rough right hand, back to the camera, fingers up: metres, (21, 3)."""
    points = [np.zeros(3)]
    for finger, (x, length) in enumerate(((-0.04, 0.09), (-0.025, 0.16), (0.0, 0.17), (0.022, 0.16), (0.04, 0.13))):
        base = np.array([x, -0.03 if finger == 0 else -0.09, 0.0])
        for step in range(4):
            bend = curl * step / 3
            points.append(base + (length - 0.09) * step / 3 * np.array([x * 5, -np.cos(bend), np.sin(bend)]))
    return np.array(points)


@given(st.tuples(*[st.floats(-0.6, 0.6)] * 3), st.floats(-0.3, 0.3), st.floats(-0.2, 0.2), st.floats(0.25, 1.2))
def test_an_exact_image_gives_the_hand_back(turn, x, y, z):
    shape = hand() - hand().mean(axis=0)
    truth = Rotation.from_rotvec(turn).apply(shape) + np.array([x * z, y * z, z])
    for camera in (PLAIN, WIDE, FISHEYE):
        lifted = lift_hands(project(truth, camera)[None], shape[None], camera)[0]
        assert lifted == pytest.approx(truth, abs=2e-3)


def test_noisy_and_flat_hands_land_near_their_place():
    rng = np.random.default_rng(5)
    for curl in (0.0, 0.6):
        shape = hand(curl) - hand(curl).mean(axis=0)
        truth = shape + np.array([0.1, 0.05, 0.5])
        image = np.stack([project(truth, PLAIN) + rng.normal(0, 2, (21, 2)) for _ in range(50)])
        lifted = lift_hands(image, np.tile(shape, (50, 1, 1)), PLAIN)
        assert np.isfinite(lifted).all()
        assert np.linalg.norm(lifted - truth, axis=-1).mean() < 0.03
        assert np.linalg.norm(project(lifted, PLAIN) - image, axis=-1).mean() < 6


def test_a_hand_that_cannot_be_placed_is_nan_and_harms_no_other():
    shape = hand() - hand().mean(axis=0)
    good = project(shape + np.array([0, 0, 0.5]), PLAIN)
    lost = good.copy()
    lost[3] = np.nan
    lifted = lift_hands(np.stack([good, lost, good]), np.stack([shape, shape, np.zeros((21, 3))]), PLAIN)
    assert np.isfinite(lifted[0]).all()
    assert np.isnan(lifted[1:]).all()
    assert lift_hands(np.empty((0, 21, 2)), np.empty((0, 21, 3)), PLAIN).shape == (0, 21, 3)


def test_lifted_hands_are_in_front_of_the_camera_whatever_the_image():
    rng = np.random.default_rng(0)
    image = rng.uniform(0, 700, (200, 21, 2))
    lifted = lift_hands(image, rng.normal(0, 0.04, (200, 21, 3)), PLAIN)
    known = np.isfinite(lifted).all(axis=(1, 2))
    assert np.isnan(lifted[~known]).all()
    assert (lifted[known][..., 2] > 0).all()
