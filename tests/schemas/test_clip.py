"""A camera's label says what it is, whatever its JSON holds."""

from __future__ import annotations

import json

import pytest

from handloom.schemas.clip import camera_label


@pytest.mark.parametrize(
    ("content", "label"),
    [
        ({"preset": "epic", "fov_deg": 85}, "preset epic"),
        ({"fov_deg": 90.5, "calibrated": {"by": "all"}}, "90.5 degrees, calibrated"),
        ({"fov_deg": 90.0}, "90 degrees"),
        ({"camera_matrix": [1] * 9, "world_from_camera": [[0]]}, "matrix, with poses"),
        ({"world_from_camera": []}, "no lens, with poses"),
        ([1], "not a camera"),
    ],
)
def test_labels(content, label):
    assert camera_label(json.dumps(content)) == label


def test_no_camera_and_no_json():
    assert camera_label(None) is None
    assert camera_label("{") == "not a camera"
