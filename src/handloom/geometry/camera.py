"""Intrinsics: the given camera file or an assumed field of view, and what follows from them (project, undistort)."""

from __future__ import annotations

import json
import math
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from handloom.errors import ClipError, ConfigError
from handloom.schemas.bounded_json import CAMERA, parse
from handloom.schemas.clip import Clip
from handloom.schemas.settings import CameraConfig
from handloom.schemas.values import Camera, VideoInfo

STAGE = "camera"
HINT = "correct NAME.camera.json beside the video, or remove it to have the intrinsics assumed; then ingest again"

# Distortion models by lower-case name: numbers of `params` they may have. COLMAP's names where it has one; all are
# cases of OpenCV's polynomial model, in its order k1 k2 p1 p2 k3 k4 k5 k6 s1 s2 s3 s4.
DISTORTION_PARAMS: dict[str, tuple[int, ...]] = {
    "none": (0,),
    "pinhole": (0,),
    "simple_radial": (1,),
    "radial": (2,),
    "opencv": (4, 5, 8, 12),
    "full_opencv": (8,),
}
FOCAL_RANGE = (0.05, 100.0)  # focal length over the longer side: 169 degrees of view down to half a degree


def camera_for(clip: Clip, info: VideoInfo, config: CameraConfig) -> Camera:
    """The clip's camera: `given` where the clip list holds a camera file, else `assumed` from a field of view.

    The given JSON (DESIGN, section 2): `camera_matrix`, 9 numbers in pixels of the video as players show it, row by
    row; optional `distortion` with `model` (a key of `DISTORTION_PARAMS`, in any case) and `params`; optional
    `picture_size`, width and height of the picture the matrix is for, where that is not the video's. Its poses are read
    by `given_path`.

    Raises:
        ClipError: `bad_camera`, the given camera cannot be used. ConfigError: an assumed field of view cannot.
    """
    if clip.camera is None:
        return assumed_camera(info.width, info.height, assumed_fov_deg(clip.dataset, config))
    try:
        camera = parse_camera(clip.camera, info.width, info.height)
        _check_pixels(camera.camera_matrix, camera_content(clip.camera).get("picture_size"), info)
        return camera
    except ValueError as error:
        problem = f"the given camera cannot be used: {error}"
        raise ClipError(clip.clip_id, STAGE, "bad_camera", problem, HINT) from None


def assumed_fov_deg(dataset: str, config: CameraConfig) -> float:
    """Field of view of a dataset without intrinsics, degrees along the longer side."""
    fovs = config.assumed_fov_deg
    fov_deg = fovs.get(dataset, fovs.get("*"))
    if fov_deg is None or not 1.0 <= fov_deg <= 170.0:
        raise ConfigError(
            f"camera.assumed_fov_deg gives {fov_deg} for dataset {dataset!r}, expected 1 to 170 degrees",
            'set the dataset\'s own entry or the entry "*"',
        )
    return fov_deg


def assumed_camera(width: int, height: int, fov_deg: float) -> Camera:
    """Pinhole with `fov_deg` along the longer side, square pixels, principal point in the middle of the picture."""
    focal_px = max(width, height) / 2 / math.tan(math.radians(fov_deg) / 2)
    # (0, 0) is the centre of the top-left pixel: the middle of the picture is half a pixel short of width / 2.
    matrix = np.array([[focal_px, 0, (width - 1) / 2], [0, focal_px, (height - 1) / 2], [0, 0, 1]], np.float64)
    return Camera(matrix, "assumed")


def camera_content(text: str) -> dict[str, Any]:
    """The object that a given camera's JSON holds. Raises ValueError with what is wrong."""
    try:
        content = parse(text, CAMERA)
    except json.JSONDecodeError as error:
        raise ValueError(f"it is not JSON ({error})") from None
    if not isinstance(content, dict):
        raise ValueError(f"it is {type(content).__name__}, expected an object with camera_matrix")
    return content


def parse_camera(text: str, width: int, height: int) -> Camera:
    """A given camera's JSON as a Camera. Raises ValueError with what is wrong."""
    content = camera_content(text)
    if content.get("camera_matrix") is None:
        raise ValueError(f"camera_matrix is missing (found {sorted(content)})")
    matrix = _numbers(content["camera_matrix"], "camera_matrix")
    if matrix.size != 9:
        raise ValueError(f"camera_matrix has {matrix.size} numbers, expected 9")
    matrix = _of_size(matrix.reshape(3, 3), content.get("picture_size"), width, height)
    _check_matrix(matrix, width, height)
    return Camera(matrix, "given", _distortion(content.get("distortion")))


def _of_size(matrix: NDArray[np.float64], size: Any, width: int, height: int) -> NDArray[np.float64]:
    """The matrix of the same picture at the video's size; pixel centres lie at whole numbers in both."""
    if size is None:
        return matrix
    given = _numbers(size, "picture_size")
    if given.size != 2 or given.min() < 1:
        raise ValueError(f"picture_size is {str(size)[:80]}, expected width and height in pixels")
    scaled = matrix.copy()
    scale = np.array([width, height]) / given
    scaled[:2] *= scale[:, None]
    scaled[:2, 2] += 0.5 * scale - 0.5
    return scaled


def _numbers(value: Any, name: str) -> NDArray[np.float64]:
    try:
        array = np.array(value, np.float64).reshape(-1)
    except (TypeError, ValueError, OverflowError):
        raise ValueError(f"{name} is {str(value)[:80]}, expected numbers") from None
    if not np.isfinite(array).all():
        raise ValueError(f"{name} holds a number that is not finite")
    return array


def _check_matrix(matrix: NDArray[np.float64], width: int, height: int) -> None:
    fx, fy, cx, cy = matrix[0, 0], matrix[1, 1], matrix[0, 2], matrix[1, 2]
    low, high = (share * max(width, height) for share in FOCAL_RANGE)
    if not (low <= fx <= high and low <= fy <= high):
        raise ValueError(
            f"focal lengths are {fx:g} and {fy:g}, expected {low:g} to {high:g} pixels of the {width} x {height} video"
        )
    if not (-width <= cx <= 2 * width and -height <= cy <= 2 * height):
        raise ValueError(
            f"the principal point is ({cx:g}, {cy:g}), far outside the {width} x {height} video: "
            "is the matrix for another picture size?"
        )
    if abs(matrix[0, 1]) > 1e-2 * fx or np.abs(matrix[[1, 2, 2], [0, 0, 1]]).max() > 1e-6 or matrix[2, 2] != 1:
        raise ValueError(f"camera_matrix is {matrix.round(3).tolist()}, expected [[fx, 0, cx], [0, fy, cy], [0, 0, 1]]")


def _check_pixels(matrix: NDArray[np.float64], size: Any, info: VideoInfo) -> None:
    """Raise ValueError for a matrix that fits stored pixels, which are not square, better than those that are shown."""
    if size is not None or info.pixel_aspect == 1:
        return
    stretch = 1 / info.pixel_aspect if info.rotation % 180 else info.pixel_aspect
    ratio = matrix[0, 0] / matrix[1, 1]
    if abs(math.log(ratio * stretch)) < abs(math.log(ratio)):
        raise ValueError(
            f"focal lengths are {matrix[0, 0]:g} and {matrix[1, 1]:g}, as for the stored pixels, which are not square "
            f"(pixel aspect {info.pixel_aspect:.4g}); expected those of the {info.width} x {info.height} picture that "
            "players show, or picture_size with the stored width and height"
        )


def _distortion(value: Any) -> NDArray[np.float64] | None:
    """OpenCV coefficients, or None without distortion."""
    if value is None:
        return None
    if not isinstance(value, dict) or not isinstance(value.get("model"), str):
        raise ValueError(f"distortion is {str(value)[:80]}, expected an object with model and params")
    model = value["model"]
    sizes = DISTORTION_PARAMS.get(model.lower())
    if sizes is None:
        raise ValueError(f"distortion model {model!r} is not known, expected one of {sorted(DISTORTION_PARAMS)}")
    params = _numbers(value.get("params") or [], "distortion params")
    if params.size not in sizes:
        raise ValueError(f"distortion {model!r} has {params.size} params, expected {' or '.join(map(str, sizes))}")
    if not params.any():
        return None
    coefficients = np.zeros(max(4, params.size))
    coefficients[: params.size] = params
    return coefficients


def project(points_cam_m: NDArray[np.floating], camera: Camera) -> NDArray[np.float64]:
    """(..., 3) camera frame to (..., 2) source pixels, distortion included. NaN behind the camera and where NaN."""
    points = np.asarray(points_cam_m, np.float64)
    flat = points.reshape(-1, 3)
    pixels = np.full((len(flat), 2), np.nan)
    front = np.isfinite(flat).all(axis=1) & (flat[:, 2] > 1e-9)
    if front.any():
        zero = np.zeros(3)
        pixels[front] = cv2.projectPoints(flat[front], zero, zero, camera.camera_matrix, camera.distortion)[0][:, 0]
    return pixels.reshape(*points.shape[:-1], 2)


def undistort(points_px: NDArray[np.floating], camera: Camera) -> NDArray[np.float64]:
    """(..., 2) source pixels to the pixels an undistorted camera with the same matrix would show. NaN stays NaN."""
    points = np.array(points_px, np.float64)
    if camera.distortion is None:
        return points
    flat = points.reshape(-1, 2)
    known = np.isfinite(flat).all(axis=1)
    if known.any():
        matrix = camera.camera_matrix
        criteria = (cv2.TERM_CRITERIA_COUNT | cv2.TERM_CRITERIA_EPS, 40, 1e-9)
        ideal = cv2.undistortPointsIter(flat[known, None], matrix, camera.distortion, None, matrix, criteria)
        flat[known] = ideal[:, 0]
    return flat.reshape(points.shape)
