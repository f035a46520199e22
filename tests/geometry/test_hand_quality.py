"""Quality numbers of hands that are known exactly."""

from __future__ import annotations

import numpy as np
import pytest

from handloom.geometry.camera.intrinsics import assumed_camera, project
from handloom.geometry.hands.quality import hand_quality
from handloom.schemas.tables.arrow import QUALITY_FIELDS
from handloom.schemas.values import LEFT, RIGHT, Hands, VideoInfo

INFO = VideoInfo(640, 360, 30.0, "h264", "yuv420p", 0, 0.0, 1.0, 30)
CAMERA = assumed_camera(640, 360, 70.0)


def blank(num_frames: int) -> Hands:
    return Hands(
        np.zeros((num_frames, 2), bool),
        np.zeros((num_frames, 2), bool),
        np.full((num_frames, 2), np.nan, np.float32),
        np.full((num_frames, 2, 21, 2), np.nan, np.float32),
        np.full((num_frames, 2, 21, 3), np.nan, np.float32),
    )


def fill(hands: Hands, frame: int, hand: int, points_cam_m: np.ndarray, off_px: float = 0.0) -> None:
    hands.visible[frame, hand] = True
    hands.confidence[frame, hand] = 0.5 + 0.1 * frame
    hands.keypoints_cam_m[frame, hand] = points_cam_m
    hands.keypoints_px[frame, hand] = project(points_cam_m, CAMERA) + np.array([off_px, 0])


def test_fields_are_the_schemas():
    names = set(hand_quality(blank(3), INFO, CAMERA))
    assert names
    assert names <= set(QUALITY_FIELDS)


def test_what_cannot_be_measured_is_none():
    none = hand_quality(blank(4), INFO, CAMERA)
    assert none["hand_coverage"] == none["hand_coverage_left"] == 0.0
    assert [none[name] for name in ("hand_confidence", "hand_jitter_px", "hand_reprojection_px")] == [None] * 3
    assert set(hand_quality(blank(0), INFO, CAMERA).values()) == {None}


def test_numbers_of_a_known_clip():
    rng = np.random.default_rng(0)
    shape = rng.normal(0, 0.03, (21, 3)) + np.array([0, 0, 0.5])
    hands = blank(5)
    for t in range(4):
        fill(hands, t, RIGHT, shape, off_px=3.0)  # a hand at rest, lifted 3 px beside its image
    fill(hands, 3, LEFT, shape)
    hands.keypoints_cam_m[3, LEFT] = np.nan  # its lift failed
    quality = hand_quality(hands, INFO, CAMERA)
    assert quality["hand_coverage"] == quality["hand_coverage_right"] == pytest.approx(0.8)
    assert quality["hand_coverage_left"] == pytest.approx(0.2)
    assert quality["hand_confidence"] == pytest.approx(np.mean([0.5, 0.6, 0.7, 0.8, 0.8]))
    assert quality["hand_jitter_px"] == pytest.approx(0.0, abs=1e-4)
    assert quality["hand_reprojection_px"] == pytest.approx(3.0, abs=1e-3)


def test_jitter_is_the_second_difference_and_blind_to_steady_motion():
    shape = np.tile([0.0, 0.0, 0.5], (21, 1))
    for wobble_px, expected in ((0.0, 0.0), (2.0, 8.0)):
        hands = blank(9)
        for t in range(9):
            fill(hands, t, LEFT, shape, off_px=10.0 * t + wobble_px * (-1) ** t)
        assert hand_quality(hands, INFO, CAMERA)["hand_jitter_px"] == pytest.approx(expected, abs=1e-3)
