"""HOT3D-Clips: a lens and a hand computed by hand, and a small tar in their format."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from support.hot3d_clip import FRAMES, LENS, SIDE, members, profile, write

from handloom.bench.truth.cases import HOT3D, load, real_cases
from handloom.bench.truth.fisheye import Fisheye624, rectified
from handloom.bench.truth.hot3d import read_hot3d
from handloom.bench.truth.umetrack import UmeTrackHand
from handloom.errors import ConfigError
from handloom.geometry.camera.intrinsics import project
from handloom.geometry.camera.world import to_camera, to_world


def test_the_lens_is_equidistant_where_it_does_not_distort_and_straight_on_its_axis():
    plain = Fisheye624.of_params([100.0, 110.0, 120.0, 130.0, *[0.0] * 12], (240, 260))
    assert plain.project([0.0, 0.0, 2.0]) == pytest.approx([120, 130])
    assert plain.project([1.0, 0.0, 1.0]) == pytest.approx([120 + 100 * np.pi / 4, 130])
    assert plain.project([0.0, -1.0, 0.0]) == pytest.approx([120, 130 - 110 * np.pi / 2])
    with pytest.raises(ValueError, match="14 projection parameters"):
        Fisheye624.of_params([100.0] * 14, (240, 260))


@pytest.mark.parametrize("turns", range(4))
def test_the_rectified_image_agrees_with_the_pinhole(turns: int):
    view = rectified(LENS, turns)
    point = np.array([0.12, -0.07, 0.5])  # in the camera of the view
    image = np.zeros((SIDE, SIDE, 3), np.uint8)
    cv2.circle(image, np.rint(LENS.project(view.fisheye_from_view @ point)).astype(int).tolist(), 3, (255,) * 3, -1)
    y, x = np.argwhere(view.image(image)[..., 0] > 128).mean(axis=0)
    px = view.camera_matrix @ point
    assert (x, y) == pytest.approx(px[:2] / px[2], abs=1.2)
    assert np.linalg.det(view.fisheye_from_view) == pytest.approx(1)


def test_bent_fingers_and_mirrored_hands():
    hand = UmeTrackHand.of_profile({"hand_model": profile()})
    at = np.eye(4)[None]
    rest = hand.keypoints_m(np.zeros((1, 20)), at, right=False)[0]
    assert rest[0] == pytest.approx([0, 0, 0])
    assert rest[1] == pytest.approx([0.055, 0, -0.04])  # the thumb's root: joint 1
    assert rest[[5, 6, 7, 8]] == pytest.approx(np.array([[x, 0, -0.02] for x in (0.055, 0.08, 0.105, 0.125)]))
    angles = np.zeros((1, 20))
    angles[0, 6] = np.pi / 2  # the index finger's middle joint, about -z
    bent = hand.keypoints_m(angles, at, right=False)[0]
    assert bent[5] == pytest.approx(rest[5])
    assert bent[6] == pytest.approx(rest[6])
    assert bent[8] == pytest.approx([0.08, -0.045, -0.02])
    assert hand.keypoints_m(angles, at, right=True)[0] == pytest.approx(bent * [-1, 1, 1])


def test_a_clip_and_its_truth_are_rectified_and_turned_upright(tmp_path: Path):
    truth = read_hot3d(write(tmp_path / "clip-000001.tar", members()))
    assert "UmeTrack" in truth.note
    assert "turned by 90 degrees clockwise" in truth.note
    np.testing.assert_allclose(truth.frame_s, np.arange(FRAMES) / 30, atol=1e-6)
    np.testing.assert_allclose(truth.world_from_camera[:, :3, :3], np.tile(np.eye(3), (FRAMES, 1, 1)), atol=1e-9)
    hands = truth.hands(np.arange(FRAMES))
    assert hands.visible[:, 0].tolist() == [True, True, True, True, False]  # the last frame has no left hand
    assert not hands.visible[:, 1].any()  # a tenth of it shows
    assert hands.present[:, 1].all()
    tip, root = hands.keypoints_px[0, 0, 12], hands.keypoints_px[0, 0, 0]
    assert tip[1] < root[1] - 20  # fingers up
    cam = to_camera(truth.keypoints_world_m[:1, 0], truth.world_from_camera[:1])
    np.testing.assert_allclose(project(cam, truth.camera)[0], hands.keypoints_px[0, 0])
    np.testing.assert_allclose(to_world(cam, truth.world_from_camera[:1]), truth.keypoints_world_m[:1, 0])
    y, x = np.argwhere(truth.rgb(0)[..., 0] > 180).mean(axis=0)
    assert (x, y) == pytest.approx(project(np.array([0.05, -0.1, 0.4]), truth.camera), abs=1.5)


def test_a_clip_is_a_case_of_the_benchmark(tmp_path: Path):
    write(tmp_path / "train_aria/clip-000007.tar", members())
    (case,) = real_cases(tmp_path)
    assert (case.name, case.source) == ("train_aria/clip-000007", HOT3D)
    loaded = load(case, sample_hz=15.0, short_side_px=120)
    assert loaded.index.tolist() == [0, 2, 4]
    assert loaded.frames.rgb(0).shape == (120, 120, 3)
    assert loaded.info.fps == pytest.approx(30, rel=1e-3)
    assert json.loads(loaded.clip.camera)["world_scale"] == "metric"
    assert "world_from_camera" not in json.loads(loaded.without_poses.camera)
    loaded.frames.close()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda m: {k: v for k, v in m.items() if "hands.json" not in k}, "no hands"),
        (lambda m: {k: v for k, v in m.items() if "shapes" not in k}, "umetrack or mano is needed"),
        (lambda m: m | {"000001.cameras.json": b"{"}, "cannot be read"),
        (lambda m: {k.replace("214-1", "9-9"): v.replace(b"214-1", b"9-9") for k, v in m.items()}, "streams"),
        (lambda m: {k: v.replace(b"FISHEYE624", b"KANNALA") for k, v in m.items()}, "KANNALA"),
        (lambda m: {}, "0 frames"),
    ],
)
def test_a_file_that_is_no_clip_says_why(tmp_path: Path, change, message: str):
    path = write(tmp_path / "clip-000001.tar", change(members()))
    with pytest.raises(ConfigError, match=message):
        read_hot3d(path)


def test_a_cut_tar_is_an_error(tmp_path: Path):
    path = write(tmp_path / "clip-000001.tar", members())
    path.write_bytes(path.read_bytes()[:3000])
    with pytest.raises(ConfigError, match="clip-000001"):
        read_hot3d(path)


def test_frames_without_any_hand_are_frames_too(tmp_path: Path):
    content = {k: b"{}" if k.endswith("hands.json") else v for k, v in members().items()}
    truth = read_hot3d(write(tmp_path / "clip-000001.tar", content))
    assert not truth.hands(np.arange(FRAMES)).present.any()
