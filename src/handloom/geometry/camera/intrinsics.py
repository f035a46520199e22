"""Intrinsics: the given camera file or an assumed field of view, and what follows (project, rays, undistort)."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from handloom.errors import ClipError
from handloom.geometry.camera.distortion import Lens, lens_of
from handloom.schemas.bounded_json import CAMERA, parse
from handloom.schemas.clip import Clip, given_size
from handloom.schemas.settings import CameraConfig
from handloom.schemas.values import CAMERA_SOURCES, Camera, VideoInfo

STAGE = "camera"
HINT = "correct NAME.camera.json beside the video (or the file of --intrinsics), or leave it out; then ingest again"

# Distortion models by lower-case name, COLMAP's where it has one: the Camera's model (`distortion.MODELS`) and the
# counts of `params` that they may have; missing ones are zero.
DISTORTIONS: dict[str, tuple[str, tuple[int, ...]]] = {
    "none": ("opencv", (0,)),
    "pinhole": ("opencv", (0,)),
    "simple_radial": ("opencv", (1,)),
    "radial": ("opencv", (2,)),
    "opencv": ("opencv", (4, 5, 8, 12)),
    "full_opencv": ("opencv", (8,)),
    "simple_radial_fisheye": ("fisheye", (1,)),
    "radial_fisheye": ("fisheye", (2,)),
    "fisheye": ("fisheye", (4,)),
    "opencv_fisheye": ("fisheye", (4,)),
    "kannala_brandt": ("fisheye", (4,)),
    "thin_prism_fisheye": ("thin_prism_fisheye", (8,)),
    "fisheye624": ("fisheye624", (12,)),
}
MAX_ANGLE_RAD = math.radians(85)  # off the axis: in a pinhole image 11 focal lengths from the middle
MAX_STRETCH = 0.05  # of an image's shape: 456 x 256 for 1920 x 1080 is off by 0.2 %, 480 x 368 for 1440 x 1080 by 2 %
_SHOWN_SHARE = 0.95  # of the distance to the nearest side, up to which a fisheye must show something
FOV_SIGMA = 0.05  # of a stated field of view: product pages round, and a stabilised image shows less
FOCAL_RANGE = (0.05, 100.0)  # focal length over the longer side: 169 degrees of view down to half a degree


def camera_for(clip: Clip, info: VideoInfo, config: CameraConfig) -> Camera:
    """The clip's camera, from the clip list's JSON; else `assumed`, from the settings' field of view.

    The given JSON: `camera_matrix`, 9 numbers in pixels of the video as players show it, row by row, or `fov_deg`, the
    field of view along the longer side through the middle of the image. Optional: `distortion` with `model` (a key of
    `DISTORTIONS`, in any case) and `params`; `image_size`, width and height of the image the matrix is for, where
    that is not the video's; `source`, one of CAMERA_SOURCES (`given` with a matrix, `assumed` with a field of view);
    `focal_sigma`, the relative standard deviation of the focal length (`FOV_SIGMA` where it is missing and the
    source is not `given`); `preset`, the name of what it was made from. Its poses are read by `given_path`.

    Raises:
        ClipError: `bad_camera`, the given camera cannot be used.
    """
    if clip.camera is None:
        return assumed_camera(info.width, info.height, config.assumed_fov_deg, config.assumed_focal_sigma)
    try:
        return camera_of(clip.camera, info)
    except ValueError as error:
        problem = f"the given camera cannot be used: {error}"
        raise ClipError(clip.clip_id, STAGE, "bad_camera", problem, HINT) from None


def camera_of(text: str, info: VideoInfo) -> Camera:
    """A camera's JSON as the Camera of a video. Raises ValueError where it cannot be used or does not fit the video."""
    camera = parse_camera(text, info.width, info.height)
    size = given_size(camera_content(text))
    _check_pixels(camera.camera_matrix, size, info)
    if size is not None:
        _check_shape(size, info)
    elif camera.source == "given":
        _check_middle(camera.camera_matrix, info)
    return camera


def assumed_camera(width: int, height: int, fov_deg: float, focal_sigma: float | None = None) -> Camera:
    """Pinhole with `fov_deg` along the longer side, square pixels, principal point in the middle of the image."""
    return Camera(_matrix_of_view(fov_deg, None, width, height), "assumed", focal_sigma=focal_sigma)


def camera_content(text: str) -> dict[str, Any]:
    """The object in a camera's JSON. Raises ValueError: it says what is wrong."""
    try:
        content = parse(text, CAMERA)
    except json.JSONDecodeError as error:
        raise ValueError(f"it is not JSON ({error})") from None
    if not isinstance(content, dict):
        raise ValueError(f"it is {type(content).__name__}, expected an object with camera_matrix")
    return content


def parse_camera(text: str, width: int, height: int) -> Camera:
    """A camera's JSON as a Camera of an image of this size. Raises ValueError: it says what is wrong."""
    content = camera_content(text)
    model, distortion = _distortion(content.get("distortion"))
    lens = lens_of(model, distortion)
    if content.get("camera_matrix") is not None:
        matrix = _given_matrix(content, width, height)
    elif content.get("fov_deg") is not None:
        matrix = _matrix_of_view(_number(content["fov_deg"], "fov_deg"), lens, width, height)
    else:
        raise ValueError(f"camera_matrix is missing (found {sorted(content)})")
    _check_matrix(matrix, width, height)
    if lens is not None:
        _check_lens(Camera(matrix, "given", distortion, model), lens, content["distortion"]["model"], width, height)
    source = _source(content, "assumed" if content.get("camera_matrix") is None else "given")
    sigma = _focal_sigma(content)
    if sigma is None and source != "given":
        sigma = FOV_SIGMA
    return Camera(matrix, source, distortion, model, sigma, _preset(content))


def _given_matrix(content: dict[str, Any], width: int, height: int) -> NDArray[np.float64]:
    if content.get("fov_deg") is not None:
        raise ValueError("it holds camera_matrix and fov_deg, expected one of them")
    matrix = _numbers(content["camera_matrix"], "camera_matrix")
    if matrix.size != 9:
        raise ValueError(f"camera_matrix has {matrix.size} numbers, expected 9")
    return _of_size(matrix.reshape(3, 3), given_size(content), width, height)


def _matrix_of_view(fov_deg: float, lens: Lens | None, width: int, height: int) -> NDArray[np.float64]:
    """Square pixels, principal point in the middle, `fov_deg` along the longer side as the lens shows it."""
    half_rad = math.radians(fov_deg) / 2
    if not 1.0 <= fov_deg <= (340.0 if lens is not None and lens.angular else 170.0):
        raise ValueError(f"fov_deg is {fov_deg:g}, expected 1 to 170 degrees (of a fisheye lens 340)")
    at_side = math.tan(half_rad) if lens is None else lens.radius_of(half_rad)
    if lens is not None and not at_side > 0:
        raise ValueError(
            f"fov_deg is {fov_deg:g}, but its distortion folds at {math.degrees(2 * lens.max_angle_rad):.1f} degrees"
        )
    focal_px = max(width, height) / 2 / at_side
    # (0, 0) is the centre of the top-left pixel: the middle of the image is half a pixel short of width / 2.
    return np.array([[focal_px, 0, (width - 1) / 2], [0, focal_px, (height - 1) / 2], [0, 0, 1]], np.float64)


def _source(content: dict[str, Any], default: str) -> str:
    source = default if content.get("source") is None else content["source"]
    if source not in CAMERA_SOURCES:
        raise ValueError(f"source is {str(source)[:80]!r}, expected one of {', '.join(CAMERA_SOURCES)}")
    return source


def _focal_sigma(content: dict[str, Any]) -> float | None:
    if content.get("focal_sigma") is None:
        return None
    sigma = _number(content["focal_sigma"], "focal_sigma")
    if not 0 < sigma <= 1:
        raise ValueError(f"focal_sigma is {sigma:g}, expected a share of the focal length, above 0 and at most 1")
    return sigma


def _preset(content: dict[str, Any]) -> str | None:
    preset = content.get("preset")
    if preset is not None and (not isinstance(preset, str) or not preset):
        raise ValueError(f"preset is {str(preset)[:80]!r}, expected a name")
    return preset


def _of_size(matrix: NDArray[np.float64], size: Any, width: int, height: int) -> NDArray[np.float64]:
    """The matrix of the same image at the video's size; pixel centres lie at whole numbers in both."""
    if size is None:
        return matrix
    given = _numbers(size, "image_size")
    if given.size != 2 or given.min() < 1:
        raise ValueError(f"image_size is {str(size)[:80]}, expected width and height in pixels")
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


def _number(value: Any, name: str) -> float:
    numbers = _numbers(value, name)
    if numbers.size != 1:
        raise ValueError(f"{name} is {str(value)[:80]}, expected one number")
    return float(numbers[0])


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
            "is the matrix for another image size?"
        )
    if abs(matrix[0, 1]) > 1e-2 * fx or np.abs(matrix[[1, 2, 2], [0, 0, 1]]).max() > 1e-6 or matrix[2, 2] != 1:
        raise ValueError(f"camera_matrix is {matrix.round(3).tolist()}, expected [[fx, 0, cx], [0, fy, cy], [0, 0, 1]]")


def _check_pixels(matrix: NDArray[np.float64], size: Any, info: VideoInfo) -> None:
    """Raise ValueError for a matrix that fits the stored pixels, which are not square, better than the shown ones."""
    if size is not None or info.pixel_aspect == 1:
        return
    stretch = 1 / info.pixel_aspect if info.rotation % 180 else info.pixel_aspect
    ratio = matrix[0, 0] / matrix[1, 1]
    if abs(math.log(ratio * stretch)) < abs(math.log(ratio)):
        raise ValueError(
            f"focal lengths are {matrix[0, 0]:g} and {matrix[1, 1]:g}, as for the stored pixels, which are not square "
            f"(pixel aspect {info.pixel_aspect:.4g}); expected those of the {info.width} x {info.height} image that "
            "players show, or image_size with the stored width and height"
        )


def _check_shape(size: Any, info: VideoInfo) -> None:
    """Raise ValueError for a matrix of an image of another shape: stretched, it would be another lens."""
    width, height = (float(side) for side in size)
    stretch = 1 / info.pixel_aspect if info.rotation % 180 else info.pixel_aspect
    ratio = math.log(info.width / info.height / (width / height))
    if min(abs(ratio), abs(ratio - math.log(stretch))) > MAX_STRETCH:
        turned = "; the same turned by a quarter fits: is the matrix for the image before it is turned?"
        hint = turned if abs(math.log(info.width / info.height * (width / height))) <= MAX_STRETCH else ""
        raise ValueError(
            f"image_size is {width:g} x {height:g}, the video {info.width} x {info.height}: expected the same shape, "
            f"width over height within {MAX_STRETCH:.0%}{hint}"
        )


def _check_middle(matrix: NDArray[np.float64], info: VideoInfo) -> None:
    """Raise ValueError for a principal point in the middle of an image of another size and the same shape."""
    scales = (2 * matrix[:2, 2] + 1) / [info.width, info.height]
    turned = (2 * matrix[:2, 2] + 1) / [info.height, info.width]
    if abs(math.log(info.width / info.height)) > 0.2 and np.abs(turned - 1).max() < 0.1:
        raise ValueError(
            f"the principal point is ({matrix[0, 2]:g}, {matrix[1, 2]:g}), in the middle of the image before it is "
            f"turned by a quarter; expected a matrix for the {info.width} x {info.height} image that players show"
        )
    if scales.min() > 0 and abs(math.log(scales[0] / scales[1])) < 0.1 and abs(math.log(scales.mean())) > 0.35:
        width, height = (2 * matrix[:2, 2] + 1).round().astype(int).tolist()
        raise ValueError(
            f"the principal point is ({matrix[0, 2]:g}, {matrix[1, 2]:g}), in the middle of an image of about "
            f"{width} x {height}; the video has {info.width} x {info.height}: name the matrix's own size in "
            "image_size, and it is scaled"
        )


def _distortion(value: Any) -> tuple[str, NDArray[np.float64] | None]:
    """The Camera's model and its coefficients; None without distortion."""
    if value is None:
        return "opencv", None
    if not isinstance(value, dict) or not isinstance(value.get("model"), str):
        raise ValueError(f"distortion is {str(value)[:80]}, expected an object with model and params")
    name = value["model"]
    if name.lower() not in DISTORTIONS:
        raise ValueError(f"distortion model {name!r} is not known, expected one of {sorted(DISTORTIONS)}")
    model, sizes = DISTORTIONS[name.lower()]
    params = _numbers(value.get("params") or [], "distortion params")
    if params.size not in sizes:
        raise ValueError(f"distortion {name!r} has {params.size} params, expected {' or '.join(map(str, sizes))}")
    if model == "opencv" and not params.any():
        return model, None
    coefficients = np.zeros(max(4, params.size))
    coefficients[: params.size] = params
    return model, coefficients


def _check_lens(camera: Camera, lens: Lens, name: str, width: int, height: int) -> None:
    """Raise ValueError where no direction leads to a part of the image that the lens should fill."""
    places = _inner_circle(camera, width, height) if lens.angular else _border(width, height)
    blind = np.isnan(rays(places, camera)[:, 0])
    if not blind.any():
        return
    matrix = camera.camera_matrix
    fold_px = lens.reach[1] * math.sqrt(matrix[0, 0] * matrix[1, 1])
    far_px = np.hypot(*(places[blind] - matrix[:2, 2]).T).max()
    raise ValueError(
        f"distortion {name!r} folds at {fold_px:.0f} px from the principal point, the {width} x {height} image "
        f"reaches {far_px:.0f} px: are the params for another model, or the matrix for another image size?"
    )


def _border(width: int, height: int) -> NDArray[np.float64]:
    """Pixels along the image's four sides."""
    x, y = np.linspace(-0.5, width - 0.5, 33), np.linspace(-0.5, height - 0.5, 33)
    sides = [np.stack([x, np.full(33, at)], 1) for at in (-0.5, height - 0.5)]
    return np.concatenate(sides + [np.stack([np.full(33, at), y], 1) for at in (-0.5, width - 0.5)])


def _inner_circle(camera: Camera, width: int, height: int) -> NDArray[np.float64]:
    """Pixels of the circle about the principal point that nearly touches the nearest side: outside, a fisheye's image
    may be black. Of 500 published fisheye calibrations of action cameras one folds inside, at 0.975 of the way."""
    centre = camera.camera_matrix[:2, 2]
    radius = max(0.0, float(min(centre.min() + 0.5, width - 0.5 - centre[0], height - 0.5 - centre[1])))
    angle = np.linspace(0, 2 * np.pi, 64, endpoint=False)
    return centre + _SHOWN_SHARE * radius * np.stack([np.cos(angle), np.sin(angle)], axis=1)


def project(points_cam_m: NDArray[np.floating[Any]], camera: Camera) -> NDArray[np.float64]:
    """(..., 3) camera frame to (..., 2) source pixels, distortion included.

    NaN where NaN, behind the camera (a fisheye's image may show what lies more than 90 degrees off the axis), and
    beyond the angle at which a distortion folds.
    """
    points = np.asarray(points_cam_m, np.float64)
    flat = points.reshape(-1, 3)
    lens = lens_of(camera.model, camera.distortion)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        if lens is not None and lens.angular:
            off_axis = np.hypot(flat[:, 0], flat[:, 1])
            angle = np.arctan2(off_axis, np.ascontiguousarray(flat[:, 2]))
            plane = flat[:, :2] * np.where(off_axis > 0, angle / off_axis, 0.0)[:, None]
            plane[(off_axis == 0) & ~(flat[:, 2] > 0)] = np.nan
        else:
            plane = flat[:, :2] / np.where(flat[:, 2:] > 1e-9, flat[:, 2:], np.nan)
        bent = plane if lens is None else lens.bend(plane)
    matrix = camera.camera_matrix
    return (bent * [matrix[0, 0], matrix[1, 1]] + matrix[:2, 2]).reshape(*points.shape[:-1], 2)


def rays(points_px: NDArray[np.floating[Any]], camera: Camera) -> NDArray[np.float64]:
    """(..., 2) source pixels to (..., 3) unit directions of the camera frame. NaN where a pixel has none."""
    points = np.asarray(points_px, np.float64)
    plane, lens = _plane(points.reshape(-1, 2), camera)
    if lens is not None and lens.angular:
        angle = np.hypot(plane[:, 0], plane[:, 1])
        sine = np.sinc(angle / np.pi)
        direction = np.stack([plane[:, 0] * sine, plane[:, 1] * sine, np.cos(angle)], axis=1)
    else:
        length = np.sqrt(plane[:, 0] ** 2 + plane[:, 1] ** 2 + 1)
        direction = np.stack([plane[:, 0] / length, plane[:, 1] / length, 1 / length], axis=1)
    return direction.reshape(*points.shape[:-1], 3)


def slopes(points_px: NDArray[np.floating[Any]], camera: Camera) -> NDArray[np.float64]:
    """(..., 2) source pixels to (..., 2) slopes (x/z, y/z) of their directions; NaN where `undistort` has it."""
    matrix = camera.camera_matrix
    return (undistort(points_px, camera) - matrix[:2, 2]) / [matrix[0, 0], matrix[1, 1]]


def slope_per_pixel(xy: NDArray[np.floating[Any]], camera: Camera) -> NDArray[np.float64]:
    """(...) how much slopes (..., 2) change per pixel, over a pinhole's change: 1 for a pinhole.

    An error of one pixel is so much larger in slopes: 5 times at 70 degrees of an equidistant lens. The geometric mean
    over the directions in the image; NaN where NaN.
    """
    xy = np.asarray(xy, np.float64)
    lens = lens_of(camera.model, camera.distortion)
    square = (xy * xy).sum(axis=-1)
    if lens is None:
        return 1.0 + 0 * square
    plane, area = xy.reshape(-1, 2), np.ones(square.size)
    if lens.angular:  # of a small patch, from slopes to angles
        slope = np.sqrt(square.ravel())
        shrunk = np.where(slope > 1e-6, np.arctan(slope) / np.where(slope > 1e-6, slope, 1.0), 1.0)
        plane, area = plane * shrunk[:, None], shrunk / (1 + square.ravel())
    with np.errstate(invalid="ignore", divide="ignore"):
        return (1 / np.sqrt(area * lens.magnification(plane))).reshape(square.shape)


def undistort(points_px: NDArray[np.floating[Any]], camera: Camera) -> NDArray[np.float64]:
    """(..., 2) source pixels to pixels of a pinhole with the same matrix. NaN stays NaN.

    With distortion, directions more than 85 degrees off the axis are NaN, too.
    """
    points = np.array(points_px, np.float64)
    plane, lens = _plane(points.reshape(-1, 2), camera)
    if lens is None:
        return points
    angle = np.hypot(plane[:, 0], plane[:, 1])
    with np.errstate(invalid="ignore"):
        if lens.angular:
            scale = np.where(angle > 0, np.tan(angle) / angle, 1.0)
            plane = plane * np.where(angle < MAX_ANGLE_RAD, scale, np.nan)[:, None]
        else:
            plane[~(angle < math.tan(MAX_ANGLE_RAD))] = np.nan
    matrix = camera.camera_matrix
    return (plane * [matrix[0, 0], matrix[1, 1]] + matrix[:2, 2]).reshape(points.shape)


def _plane(flat_px: NDArray[np.float64], camera: Camera) -> tuple[NDArray[np.float64], Lens | None]:
    """(N, 2) pixels to (N, 2) points of the lens's plane, and the lens."""
    matrix = camera.camera_matrix
    lens = lens_of(camera.model, camera.distortion)
    bent = (flat_px - matrix[:2, 2]) / [matrix[0, 0], matrix[1, 1]]
    return (bent if lens is None else lens.unbend(bent)), lens
