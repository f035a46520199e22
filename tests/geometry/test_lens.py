"""Lens models: projection and its inverse against OpenCV and COLMAP, and where a distortion folds."""

from __future__ import annotations

import json

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from handloom.errors import ClipError
from handloom.geometry.camera.distortion import MODELS, lens_of
from handloom.geometry.camera.intrinsics import (
    DISTORTIONS,
    camera_for,
    parse_camera,
    project,
    rays,
    slope_per_pixel,
    slopes,
    undistort,
)
from handloom.schemas.clip import Clip
from handloom.schemas.settings import CameraConfig
from handloom.schemas.values import Camera, VideoInfo

WIDTH, HEIGHT = 1280, 720
MATRIX = np.array([[600.0, 0, 645], [0, 610, 352], [0, 0, 1]])
# Strengths as real lenses have them; Aria's RGB camera for fisheye624.
PARAMS = {
    "opencv": [-0.2, 0.05, 0.001, -0.002, 0.0, 0.1, 0.02, 0.0, 0.001, -0.0005, 0.0008, 0.0],
    "fisheye": [0.05, -0.01, 0.002, -0.001],
    "fisheye624": [-0.026, 0.1, -0.067, 0.011, 0.0028, -0.0006, 0.0008, -0.0003, -0.0007, 0.0002, 0.0004, -0.0001],
    "thin_prism_fisheye": [0.05, -0.01, 0.002, -0.001, 0.001, 0.0, 0.001, 0.002],
}
NO_TURN = np.zeros(3)


def camera(model: str, params: list[float] | None = None, share: float = 1.0) -> Camera:
    return Camera(MATRIX, "given", np.array(PARAMS[model] if params is None else params) * share, model)


def given_camera(model: str, params: list[float], **keys: object) -> Camera:
    content = {"camera_matrix": MATRIX.ravel().tolist(), "distortion": {"model": model, "params": params}, **keys}
    return parse_camera(json.dumps(content), WIDTH, HEIGHT)


def points(spread: float = 1.0) -> np.ndarray:
    found = np.random.default_rng(3).normal([0, 0, 1], spread, (500, 3))
    return found[found[:, 2] > 0.2]


@given(
    st.sampled_from(sorted(MODELS)),
    st.floats(-0.5, 1.0),
    st.lists(st.tuples(st.floats(-0.5, WIDTH - 0.5), st.floats(-0.5, HEIGHT - 0.5)), min_size=1, max_size=20),
)
def test_a_ray_comes_back_to_its_pixel(model, share, pixels):
    lens = camera(model, share=share)
    found = rays(np.array(pixels), lens)
    assert np.linalg.norm(found, axis=-1) == pytest.approx(1)
    assert project(3.7 * found, lens) == pytest.approx(np.array(pixels), abs=1e-6)


@pytest.mark.parametrize("model", sorted(MODELS))
def test_undistorted_pixels_are_those_of_a_pinhole(model):
    seen = points()
    found = undistort(project(seen, camera(model)), camera(model))
    off_axis = np.degrees(np.arctan2(np.linalg.norm(seen[:, :2], axis=1), seen[:, 2]))
    assert np.isnan(found[off_axis > 85]).all()
    assert found[off_axis < 85] == pytest.approx(project(seen, Camera(MATRIX, "given"))[off_axis < 85], abs=1e-3)


def test_models_are_opencvs():
    seen = points()
    for params in (PARAMS["opencv"], [0.1, -0.05, 0.001, 0.002, 0.01], [-0.1, 0.02, 0.001, -0.002]):
        theirs = cv2.projectPoints(seen, NO_TURN, NO_TURN, MATRIX, np.array(params))[0][:, 0]
        assert project(seen, camera("opencv", params)) == pytest.approx(theirs, rel=1e-9)
    theirs = cv2.fisheye.projectPoints(seen[:, None], NO_TURN, NO_TURN, MATRIX, np.array(PARAMS["fisheye"]))[0][:, 0]
    assert project(seen, camera("fisheye")) == pytest.approx(theirs, abs=1e-9)


COLMAP = {
    "simple_radial": [0.05],
    "radial": [0.05, -0.01],
    "opencv": [0.05, -0.01, 0.001, -0.002],
    "full_opencv": [0.05, -0.01, 0.001, -0.002, 0.003, 0.02, 0.01, 0.002],
    "simple_radial_fisheye": [0.05],
    "radial_fisheye": [0.05, -0.01],
    "opencv_fisheye": PARAMS["fisheye"],
    "thin_prism_fisheye": PARAMS["thin_prism_fisheye"],
}
ONE_FOCAL = ("simple_radial", "radial", "simple_radial_fisheye", "radial_fisheye")


@pytest.mark.parametrize("model", sorted(COLMAP))
def test_models_are_colmaps(model):
    pycolmap = pytest.importorskip("pycolmap")
    ours = given_camera(model, COLMAP[model])
    ours.camera_matrix[1, 1] = 600.0
    params = [600.0, *([] if model in ONE_FOCAL else [600.0]), 645, 352, *COLMAP[model]]
    theirs = pycolmap.Camera(model=model.upper(), width=WIDTH, height=HEIGHT, params=params)
    pixels = np.stack(np.meshgrid(np.linspace(0, WIDTH, 13), np.linspace(0, HEIGHT, 9)), -1).reshape(-1, 2)
    seen = points(0.3)
    assert project(seen, ours) == pytest.approx(np.array([theirs.img_from_cam(p) for p in seen]), abs=1e-6)
    plane = np.array([theirs.cam_from_img(pixel) for pixel in pixels])
    found = rays(pixels, ours)
    assert found[:, :2] / found[:, 2:] == pytest.approx(plane, abs=1e-6)


def test_fisheye624_is_arias():
    """The terms one by one, as Project Aria's documentation writes them."""
    k, p, s = np.split(np.array(PARAMS["fisheye624"]), [6, 8])
    for point in points(0.5)[:20]:
        angle, towards = np.arctan2(np.hypot(*point[:2]), point[2]), np.arctan2(point[1], point[0])
        radius = angle * (1 + sum(k[i] * angle ** (2 * i + 2) for i in range(6)))
        u, v = radius * np.cos(towards), radius * np.sin(towards)
        x = u + p[0] * (2 * u * u + radius**2) + 2 * p[1] * u * v + s[0] * radius**2 + s[1] * radius**4
        y = v + p[1] * (2 * v * v + radius**2) + 2 * p[0] * u * v + s[2] * radius**2 + s[3] * radius**4
        assert project(point, camera("fisheye624")) == pytest.approx([600 * x + 645, 610 * y + 352], abs=1e-9)


@pytest.mark.parametrize("model", sorted(MODELS))
def test_slopes_grow_with_the_angle_off_the_axis(model):
    """Against a pixel's corners, by differences."""
    lens, step = camera(model), 0.01
    pixels = np.stack(np.meshgrid(np.linspace(100, 1180, 7), np.linspace(60, 660, 5)), -1).reshape(-1, 2)
    across, down = (slopes(pixels + step * axis, lens) - slopes(pixels - step * axis, lens) for axis in np.eye(2))
    area = np.abs(across[:, 0] * down[:, 1] - across[:, 1] * down[:, 0]) / (2 * step) ** 2
    assert slope_per_pixel(slopes(pixels, lens), lens) == pytest.approx(np.sqrt(area * 600 * 610), rel=1e-5)
    assert slope_per_pixel(np.array([[0.0, 0.0]]), lens) == pytest.approx(1)
    assert slope_per_pixel(pixels, Camera(MATRIX, "given")).tolist() == [1.0] * len(pixels)


def test_a_fisheye_sees_what_lies_beside_and_behind():
    lens = camera("fisheye", [0.0, 0.0, 0.0, 0.0])
    side, behind = np.array([1.0, 0, 0]), np.array([1.0, 0, -1])
    assert project(np.array([side, behind]), lens)[:, 0] == pytest.approx([645 + 300 * np.pi, 645 + 450 * np.pi])
    assert rays(project(behind, lens), lens) == pytest.approx(behind / np.sqrt(2))
    assert np.isnan(undistort(project(side, lens), lens)).all()
    assert np.isnan(project(np.array([0.0, 0, -1]), lens)).all()


@pytest.mark.parametrize("name", sorted(set(DISTORTIONS) - {"none", "pinhole"}))
def test_every_name_is_read(name):
    model, sizes = DISTORTIONS[name]
    found = given_camera(name.upper(), [0.01] * sizes[0])
    assert (found.model, len(found.distortion)) == (model, max(4, sizes[0]))
    assert found.distortion[: sizes[0]].tolist() == [0.01] * sizes[0]


def test_a_fisheye_without_coefficients_is_no_pinhole():
    assert given_camera("opencv", [0.0] * 4).distortion is None
    assert given_camera("fisheye", [0.0] * 4).distortion.tolist() == [0.0] * 4


@pytest.mark.parametrize(
    ("model", "params", "says"),
    [
        # r (1 - 0.5 r^2) turns back at r = sqrt(2 / 3), where it is 0.544: times sqrt(600 * 610) px
        ("simple_radial", [-0.5], "folds at 329 px from the principal point, the 1280 x 720 image reaches 7"),
        ("opencv", [0.1, -0.4, 0.0, 0.0], "folds at"),
        ("full_opencv", [-0.4, 0, 0, 0, 0, 0.5, 0, 0], "folds at"),
        ("opencv_fisheye", [-0.9, 0.0, 0.0, 0.0], "folds at"),
        ("fisheye624", [-0.9] + [0.0] * 11, "folds at"),
    ],
)
def test_a_distortion_that_folds_within_the_image_is_refused(model, params, says):
    with pytest.raises(ValueError, match=says):
        given_camera(model, params)


def test_a_fold_in_a_fisheyes_black_corners_is_no_fault():
    lens = given_camera("fisheye", [-0.33, 0.0, 0.0, 0.0])  # folds at 404 px, the image's half height is 352
    assert lens_of(lens.model, lens.distortion).reach[1] * 600 == pytest.approx(402, abs=1)
    assert np.isnan(rays(np.array([[0.0, 0.0], [645.0, 352.0]]), lens)).all(axis=1).tolist() == [True, False]


def test_what_lies_beyond_the_fold_has_no_pixel():
    lens = camera("opencv", [-0.5, 0.0, 0.0, 0.0])
    assert np.isnan(project(np.array([[0.5, 0, 1], [0.9, 0, 1], [3.0, 0, 1]]), lens)[:, 0]).tolist() == [0, 1, 1]


def test_a_field_of_view_is_that_of_the_lens():
    """Along the longer side, whatever the lens: a GoPro's 120 degrees are not a pinhole's."""
    distortion = {"model": "opencv_fisheye", "params": PARAMS["fisheye"]}
    for content in ({"fov_deg": 120.0}, {"fov_deg": 120.0, "distortion": distortion}):
        lens = parse_camera(json.dumps(content), WIDTH, HEIGHT)
        sides = rays(np.array([[-0.5, 359.5], [WIDTH - 0.5, 359.5]]), lens)
        assert np.degrees(np.arccos(sides[0] @ sides[1])) == pytest.approx(120)
        assert lens.source == "assumed"


def test_the_fields_of_a_cameras_json():
    keys = {"source": "estimated", "focal_sigma": 0.1, "preset": "gopro-wide"}
    found = given_camera("fisheye", PARAMS["fisheye"], **keys)
    assert (found.source, found.focal_sigma, found.preset) == ("estimated", 0.1, "gopro-wide")
    plain = given_camera("fisheye", PARAMS["fisheye"])
    assert (plain.source, plain.focal_sigma, plain.preset) == ("given", None, None)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ({"distortion": {"model": "fisheye", "params": [0, 0, 0, 0]}}, "camera_matrix is missing"),
        ({"fov_deg": 90, "camera_matrix": MATRIX.ravel().tolist()}, "expected one of them"),
        ({"fov_deg": 190}, "fov_deg is 190, expected 1 to 170"),
        ({"fov_deg": "wide"}, "fov_deg is wide, expected numbers"),
        ({"fov_deg": 120, "distortion": {"model": "radial", "params": [-0.5, 0]}}, "folds at 78.5 degrees"),
        ({"fov_deg": 90, "source": "seen"}, "source is 'seen', expected one of given, estimated, assumed"),
        ({"fov_deg": 90, "focal_sigma": -1}, "focal_sigma is -1, expected a share"),
        ({"fov_deg": 90, "preset": 7}, "preset is '7', expected a name"),
        ({"fov_deg": 90, "distortion": {"model": "fisheye", "params": [0.1]}}, "has 1 params, expected 4"),
    ],
)
def test_a_wrong_json_is_refused_with_the_reason(content, says):
    clip = Clip("mine:v:0-1000", "mine", "v", "v.mp4", 0.0, 1.0, camera=json.dumps(content))
    info = VideoInfo(WIDTH, HEIGHT, 30.0, "h264", "yuv420p", 0, 0.0, 1.0, 30)
    with pytest.raises(ClipError, match=says) as raised:
        camera_for(clip, info, CameraConfig())
    assert raised.value.reason == "bad_camera"
