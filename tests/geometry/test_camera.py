"""Intrinsics: given files, assumptions, projection and its inverse."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from handloom.errors import ClipError
from handloom.geometry.camera.intrinsics import assumed_camera, camera_for, project, rays, undistort
from handloom.schemas.camera_presets import PRESETS
from handloom.schemas.clip import Clip
from handloom.schemas.settings import CameraConfig
from handloom.schemas.values import Camera, VideoInfo

INFO = VideoInfo(640, 360, 30.0, "h264", "yuv420p", 0, 0.0, 1.0, 30)
MATRIX = [500.0, 0, 320, 0, 510.0, 180, 0, 0, 1]


def clip(camera=None, dataset="folder") -> Clip:
    text = camera if isinstance(camera, str) or camera is None else json.dumps(camera)
    return Clip(f"{dataset}:v:0-1000", dataset, "v", "v.mp4", 0.0, 1.0, camera=text)


def test_a_given_camera_is_taken_as_given():
    camera = camera_for(clip({"camera_matrix": MATRIX}), INFO, CameraConfig())
    assert camera.source == "given"
    assert camera.camera_matrix.tolist() == [MATRIX[:3], MATRIX[3:6], MATRIX[6:]]
    assert camera.distortion is None


@given(st.integers(400, 4000), st.floats(0.97, 1.03))
def test_a_matrix_for_another_size_sees_the_same_share_of_the_image(width, stretch):
    """A ray that meets the image's corner does so at every size; pixel centres lie at whole numbers."""
    height = round(width * 9 / 16 * stretch)
    info = VideoInfo(width, height, 30.0, "h264", "yuv420p", 0, 0.0, 1.0, 30)
    own = camera_for(clip({"camera_matrix": MATRIX}), INFO, CameraConfig()).camera_matrix
    scaled = camera_for(clip({"camera_matrix": MATRIX, "image_size": [640, 360]}), info, CameraConfig()).camera_matrix
    stored = clip({"camera_matrix": MATRIX, "picture_size": [640, 360]})  # as clips have it
    np.testing.assert_array_equal(camera_for(stored, info, CameraConfig()).camera_matrix, scaled)
    corner = np.linalg.inv(own) @ [639.5, 359.5, 1]
    assert scaled @ corner == pytest.approx([width - 0.5, height - 0.5, 1])
    assert np.linalg.inv(scaled) @ [-0.5, -0.5, 1] == pytest.approx(np.linalg.inv(own) @ [-0.5, -0.5, 1])


@pytest.mark.parametrize(
    ("size", "given_camera", "says"),
    [
        ((640, 480), {"image_size": [640, 360]}, "image_size is 640 x 360, the video 640 x 480: expected the same"),
        ((360, 640), {"image_size": [640, 360]}, "turned by a quarter fits"),
        ((1280, 720), {}, "about 641 x 361; the video has 1280 x 720: name the matrix's own size in image_size"),
    ],
)
def test_intrinsics_of_another_image_are_refused(size, given_camera, says):
    info = VideoInfo(*size, 30.0, "h264", "yuv420p", 0, 0.0, 1.0, 30)
    with pytest.raises(ClipError, match=says):
        camera_for(clip({"camera_matrix": MATRIX} | given_camera), info, CameraConfig())


def test_a_matrix_for_the_image_before_it_is_turned_is_refused():
    info = VideoInfo(360, 640, 30.0, "h264", "yuv420p", 90, 0.0, 1.0, 30)
    with pytest.raises(ClipError, match="in the middle of the image before it is turned by a quarter"):
        camera_for(clip({"camera_matrix": MATRIX}), info, CameraConfig())


def test_a_matrix_for_stored_pixels_that_are_not_square():
    """With the stored size it is stretched as the frames are; without, it is refused."""
    info = VideoInfo(1920, 1080, 30.0, "h264", "yuv420p", 0, 0.0, 1.0, 30, pixel_aspect=4 / 3)
    stored = [750.0, 0, 719.5, 0, 1000, 539.5, 0, 0, 1]
    shown = camera_for(clip({"camera_matrix": stored, "image_size": [1440, 1080]}), info, CameraConfig())
    assert shown.camera_matrix.reshape(-1).tolist() == pytest.approx([1000, 0, 959.5, 0, 1000, 539.5, 0, 0, 1])
    again = camera_for(clip({"camera_matrix": shown.camera_matrix.reshape(-1).tolist()}), info, CameraConfig())
    assert again.camera_matrix.tolist() == shown.camera_matrix.tolist()
    with pytest.raises(ClipError, match=r"focal lengths are 750 and 1000, as for the stored pixels.*image_size"):
        camera_for(clip({"camera_matrix": stored}), info, CameraConfig())


@pytest.mark.parametrize(
    ("model", "params", "coefficients"),
    [
        ("OPENCV", [0.1, -0.05, 0.001, 0.002], [0.1, -0.05, 0.001, 0.002]),
        ("opencv", [0.1, -0.05, 0.001, 0.002, 0.01], [0.1, -0.05, 0.001, 0.002, 0.01]),
        ("SIMPLE_RADIAL", [0.1], [0.1, 0, 0, 0]),
        ("radial", [0.1, 0.02], [0.1, 0.02, 0, 0]),
    ],
)
def test_distortion_is_read_as_opencv_coefficients(model, params, coefficients):
    given_camera = {"camera_matrix": MATRIX, "distortion": {"model": model, "params": params}}
    assert camera_for(clip(given_camera), INFO, CameraConfig()).distortion.tolist() == coefficients


@pytest.mark.parametrize("distortion", [None, {"model": "none"}, {"model": "PINHOLE", "params": []}])
def test_no_distortion_is_none(distortion):
    given_camera = {"camera_matrix": MATRIX, "distortion": distortion}
    assert camera_for(clip(given_camera), INFO, CameraConfig()).distortion is None


@pytest.mark.parametrize(
    ("camera", "says"),
    [
        ("{", "not JSON"),
        ("[1, 2]", "list"),
        ({}, "camera_matrix is missing"),
        ({"camera_matrix": MATRIX, "image_size": [640]}, "image_size"),
        ({"camera_matrix": MATRIX, "image_size": [0, 360]}, "image_size"),
        ({"camera_matrix": MATRIX[:8]}, "8 numbers"),
        ({"camera_matrix": "wide"}, "expected numbers"),
        ({"camera_matrix": [[1, 2], [3]]}, "expected numbers"),
        ({"camera_matrix": [float("nan"), *MATRIX[1:]]}, "not finite"),
        ({"camera_matrix": [1.0, 0, 0, 0, 1.0, 0, 0, 0, 1]}, "focal lengths are 1 and 1"),
        ({"camera_matrix": [-500.0, *MATRIX[1:]]}, "focal lengths"),
        ({"camera_matrix": [500.0, 0, 3200, *MATRIX[3:]]}, "another image size"),
        ({"camera_matrix": [*MATRIX[:6], 0, 0, 2]}, "expected [[fx, 0, cx]"),
        ({"camera_matrix": [*MATRIX[:6], 1, 0, 1]}, "expected [[fx, 0, cx]"),
        ({"camera_matrix": MATRIX, "distortion": [0.1]}, "model and params"),
        ({"camera_matrix": MATRIX, "distortion": {"model": "mirror", "params": [1]}}, "'mirror' is not known"),
        ({"camera_matrix": MATRIX, "distortion": {"model": "opencv", "params": [1, 2]}}, "2 params"),
    ],
)
def test_a_wrong_camera_is_a_reject_with_the_reason(camera, says):
    with pytest.raises(ClipError) as raised:
        camera_for(clip(camera), INFO, CameraConfig())
    assert raised.value.reason == "bad_camera"
    assert raised.value.clip_id == "folder:v:0-1000"
    assert says in raised.value.problem
    assert "camera.json" in raised.value.hint


def test_without_a_camera_the_settings_give_field_of_view_and_sigma():
    camera = camera_for(clip(dataset="egodex"), INFO, CameraConfig())  # the name decides nothing
    assert (camera.source, camera.focal_sigma, camera.preset) == ("assumed", 0.33, None)
    assert camera.camera_matrix[0, 0] == pytest.approx(320 / math.tan(math.radians(35)))
    portrait = assumed_camera(360, 640, 70.0)
    assert portrait.camera_matrix[1, 1] == pytest.approx(camera.camera_matrix[0, 0])
    assert portrait.camera_matrix[:2, 2].tolist() == [179.5, 319.5]


@pytest.mark.parametrize("preset", PRESETS.values(), ids=list(PRESETS))
@pytest.mark.parametrize("size", [(1920, 1080), (640, 480), (1080, 1920), (1408, 1408)])
def test_every_preset_is_a_camera_at_every_size(preset, size):
    info = VideoInfo(*size, 30.0, "h264", "yuv420p", 0, 0.0, 1.0, 30)
    camera = camera_for(clip(preset.camera()), info, CameraConfig())
    assert (camera.source, camera.preset, camera.focal_sigma) == ("assumed", preset.name, preset.focal_sigma)
    middle = camera.camera_matrix[:2, 2]
    along = np.array([[-0.5, middle[1]], [size[0] - 0.5, middle[1]]] if size[0] >= size[1] else [[middle[0], -0.5],
                     [middle[0], size[1] - 0.5]])  # fmt: skip
    first, last = rays(along, camera)
    assert math.degrees(math.acos(first @ last)) == pytest.approx(preset.fov_deg, abs=0.01)


def test_presets_have_the_measured_numbers():
    """Focal lengths at the sizes that their sources name."""
    sizes = {"egodex": (1920, 1080, 736.634, 2e-3), "epic": (456, 256, 248.8, 1e-3), "aria": (1408, 1408, 609.36, 1e-3)}
    for name, (width, height, focal_px, tolerance) in sizes.items():
        info = VideoInfo(width, height, 30.0, "h264", "yuv420p", 0, 0.0, 1.0, 30)
        camera = camera_for(clip(PRESETS[name].camera()), info, CameraConfig())
        assert camera.camera_matrix[0, 0] == pytest.approx(focal_px, rel=tolerance), name


@pytest.mark.parametrize("fov_deg", [0.0, 180.0, float("nan"), {"*": 70.0}])
def test_an_impossible_field_of_view_is_a_settings_error(fov_deg):
    with pytest.raises(ValidationError, match="assumed_fov_deg"):
        CameraConfig(assumed_fov_deg=fov_deg)


@given(
    st.lists(st.tuples(st.floats(-0.4, 0.4), st.floats(-0.25, 0.25), st.floats(0.2, 3.0)), min_size=1, max_size=10),
    st.sampled_from([None, (0.08, -0.02, 0.001, -0.002), (-0.12, 0.02, 0.0, 0.0, 0.0)]),
)
def test_undistorted_pixels_lie_on_the_ray(slopes, distortion):
    coefficients = None if distortion is None else np.array(distortion)
    camera = Camera(np.array(MATRIX).reshape(3, 3), "given", coefficients)
    points = np.array([(x * z, y * z, z) for x, y, z in slopes])
    ideal = points @ camera.camera_matrix.T
    assert undistort(project(points, camera), camera) == pytest.approx(ideal[:, :2] / ideal[:, 2:], abs=1e-3)


def test_unknown_and_hidden_points_stay_unknown():
    camera = Camera(np.array(MATRIX).reshape(3, 3), "given", np.array([0.1, 0, 0, 0]))
    points = np.array([[[0, 0, 1.0], [0, 0, -1.0]], [[np.nan, 0, 1.0], [0, 0, 0.0]]])
    pixels = project(points, camera)
    assert pixels[0, 0].tolist() == [320, 180]
    assert np.isnan(pixels[[0, 1, 1], [1, 0, 1]]).all()
    assert np.isnan(undistort(pixels, camera)).tolist() == np.isnan(pixels).tolist()
