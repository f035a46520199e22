"""A hand carried by optical flow into a frame between two others, on a texture of known motion."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from handloom.models.hands.skipped_frames import carry_by_flow

SIZE = (240, 320)
POINTS = np.random.default_rng(5).uniform([110, 70], [210, 170], (21, 2))


@pytest.fixture(scope="module")
def texture() -> np.ndarray:
    noise = np.random.default_rng(2).integers(0, 255, (*SIZE, 3), dtype=np.uint8)
    return cv2.GaussianBlur(noise, (0, 0), 2.0)


def moved(texture: np.ndarray, turn_deg: float, shift: tuple[float, float]) -> tuple[np.ndarray, np.ndarray]:
    """The texture and the points on it, turned around the middle and shifted."""
    matrix = cv2.getRotationMatrix2D((160, 120), turn_deg, 1.0)
    matrix[:, 2] += shift
    image = cv2.warpAffine(texture, matrix, SIZE[::-1], borderMode=cv2.BORDER_REFLECT)
    return image, POINTS @ matrix[:, :2].T + matrix[:, 2]


def test_uneven_motion_is_followed(texture):
    first, middle, last = moved(texture, 0, (0, 0)), moved(texture, 4, (7, 2)), moved(texture, 5, (8, 3))
    guess = (first[1] + last[1]) / 2
    assert np.linalg.norm(guess - middle[1], axis=1).mean() > 3
    found = carry_by_flow(first, last, middle[0], guess)
    assert np.linalg.norm(found - middle[1], axis=1).max() < 0.5


def test_no_points_where_the_flows_from_both_sides_disagree(texture):
    first, last = moved(texture, 0, (0, 0)), moved(texture, 0, (8, 0))
    other = np.roll(texture[::-1], 40, axis=1)
    assert carry_by_flow(first, last, np.ascontiguousarray(other), (first[1] + last[1]) / 2) is None


def test_a_hand_at_the_very_edge_is_no_error(texture):
    away = np.array([-400.0, 0.0])
    assert carry_by_flow((texture, POINTS + away), (texture, POINTS + away), texture, POINTS + away) is None
