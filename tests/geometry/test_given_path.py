"""Poses beside a video: exact where given, interpolated between, NaN elsewhere."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from handloom.errors import ClipError
from handloom.geometry.camera.given_path import given_path
from handloom.schemas.clip import Clip

MATRIX = [500.0, 0, 320, 0, 510.0, 180, 0, 0, 1]


def clip(poses, scale="metric") -> Clip:
    content = {"camera_matrix": MATRIX, "world_from_camera": poses}
    if scale is not None:
        content["world_scale"] = scale
    return Clip("folder:v:0-1000", "folder", "v", "v.mp4", 0.0, 1.0, camera=json.dumps(content))


def poses_at(times, rate_rad_s=(0.0, 0.0, 0.0), speed=(0.0, 0.0, 0.0), start=(0.1, -0.2, 0.3)):
    """A camera that turns and moves evenly: interpolation must be exact."""
    matrices = []
    for time in times:
        matrix = np.eye(4)
        turn = Rotation.from_rotvec(start) * Rotation.from_rotvec(np.multiply(rate_rad_s, time))
        matrix[:3, :3], matrix[:3, 3] = turn.as_matrix(), np.multiply(speed, time)
        matrices.append(matrix)
    return matrices


def listed(times, matrices):
    return [{"frame_s": float(s), "matrix": m.ravel().tolist()} for s, m in zip(times, matrices, strict=True)]


numbers = st.floats(-2.0, 2.0)


@given(st.tuples(numbers, numbers, numbers), st.tuples(numbers, numbers, numbers), st.integers(2, 30))
def test_even_motion_is_exact_at_any_time(rate, speed, count):
    times = np.linspace(0, 1, max(count, 3))
    asked = np.linspace(0, 1, 17)
    path = given_path(clip(listed(times, poses_at(times, rate, speed))), asked)
    assert (path.scale, path.source, path.reason) == ("metric", "given", "")
    assert path.world_from_camera == pytest.approx(np.array(poses_at(asked, rate, speed)), abs=1e-9)


def test_nothing_is_extrapolated_beyond_half_a_step():
    times = np.array([1.0, 1.1, 1.2])
    asked = 0.86 + 0.06 * np.arange(8)  # half a step is 0.03
    path = given_path(clip(listed(times, poses_at(times, speed=(1, 0, 0)))), asked)
    known = np.isfinite(path.world_from_camera).all(axis=(1, 2))
    assert known.tolist() == [False, False, True, True, True, True, True, False]
    assert path.world_from_camera[2, 0, 3] == pytest.approx(1.0)  # 0.98 s: the first pose stands in, no line beyond it


def test_a_gap_stays_a_gap():
    times = np.array([0.0, 0.1, 1.0, 1.1])
    asked = np.arange(0, 1.11, 0.05)
    path = given_path(clip(listed(times, poses_at(times, speed=(0, 1, 0)))), asked)
    known = np.isfinite(path.world_from_camera).all(axis=(1, 2))
    assert not known[(asked > 0.13) & (asked < 0.97)].any()
    assert known[(asked <= 0.11) | (asked >= 0.99)].all()
    assert np.isfinite(path.world_from_camera).any(axis=(1, 2)).tolist() == known.tolist()  # whole poses or none


@pytest.mark.parametrize(
    ("said", "is_"), [("metric", "metric"), ("arbitrary", "arbitrary"), ("none", "arbitrary"), (None, "arbitrary")]
)
def test_scale_is_as_given(said, is_):
    assert given_path(clip(listed([0.0], poses_at([0.0])), said), np.array([0.0])).scale == is_


@pytest.mark.parametrize("poses", [None, []])
def test_no_poses_is_none(poses):
    assert given_path(clip(poses), np.array([0.0, 0.1])) is None
    assert given_path(Clip("a:b:0-1", "a", "b", "b.mp4", 0.0, 1.0), np.array([0.0])) is None


def test_poses_of_other_times_are_none():
    assert given_path(clip(listed([50.0, 50.1], poses_at([0, 0]))), np.arange(0, 1, 0.1)) is None


def _changed(**change):
    pose = {"frame_s": 0.0, "matrix": np.eye(4).ravel().tolist()}
    return [pose, {**pose, "frame_s": 1.0} | change]


@pytest.mark.parametrize(
    ("poses", "says"),
    [
        ("yes", "not a list"),
        ([{"frame_s": 0.0}], "two keys"),
        (_changed(matrix=[1.0] * 12), "lists of different lengths"),
        (_changed(frame_s="soon"), "no number"),
        (_changed(frame_s=0.0), "frame_s is 0"),
        (_changed(matrix=(2 * np.eye(4)).ravel().tolist()), "no rotation"),
        (_changed(matrix=np.diag([1.0, 1, -1, 1]).ravel().tolist()), "no rotation"),
        (_changed(matrix=[float("nan"), *np.eye(4).ravel().tolist()[1:]]), "not finite"),
    ],
)
def test_malformed_poses_are_a_reject(poses, says):
    with pytest.raises(ClipError, match=says) as error:
        given_path(clip(poses), np.array([0.0, 0.1]))
    assert (error.value.stage, error.value.reason) == ("camera", "bad_camera")
    with pytest.raises(ClipError, match="world_scale"):
        given_path(clip(listed([0.0], poses_at([0.0])), "feet"), np.array([0.0]))
