"""The lens: OpenCV's polynomial or a fisheye, and the pinhole images from which its image is made.

Rays are marched through pinholes. The image of a lens with little distortion is cut from one larger pinhole image, that
of a wide lens from up to five faces of a cube around the camera, each 45 degrees to every side. (0, 0) is the centre of
the top-left pixel.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import cv2
import numpy as np
from numpy.typing import NDArray

from handloom.geometry.camera.distortion import lens_of
from handloom.geometry.camera.intrinsics import project, rays
from handloom.schemas.values import Camera
from handloom.synth.render.march import MarchedView

Array = NDArray[np.float64]
Image = NDArray[np.float32]

_ONE_VIEW_SLOPE = 1.6  # 58 degrees: beyond, most of one pinhole image would be its stretched rim
_WIDEST_RAD = np.radians(86)  # black beyond: at 90 degrees the depth along the axis is 0
_RIM_PX = 24  # around each face: motion blur and interpolation need pixels beyond its edge


@dataclass(frozen=True)
class LensKind:
    """A kind of lens. fov_deg: along the width, as the lens shows it."""

    model: str
    params: tuple[float, ...]
    fov_deg: float


LENSES: dict[str, LensKind] = {
    # Near calibrations of HERO7 to HERO10 in "Wide".
    "gopro-wide": LensKind("fisheye", (0.045, 0.03, -0.025, 0.009), 120.0),
    # Near Project Aria's colour camera; at 4:3 its diagonal has 110 degrees.
    "aria": LensKind(
        "fisheye624",
        (0.406, -0.49, 0.175, 1.133, -1.7, 0.652, 0.0006, -0.0004, -0.0007, 0.0002, 0.0004, -0.0001),
        91.0,
    ),
    "fisheye-150": LensKind("fisheye", (-0.02, 0.003, -0.001, 0.0), 150.0),
}


@dataclass(frozen=True)
class Face:
    """A pinhole image that is rendered. camera_from_face: (3, 3). maps: x and y (h, w) in it of the lens's pixels;
    None: it is the lens's image. mine: (h, w) the lens's pixels that are taken from it; None: all. depth_share: (h, w)
    depth along the camera's axis over depth along the face's; None: 1."""

    view: MarchedView
    camera_from_face: Array
    maps: tuple[Image, Image] | None = None
    mine: NDArray[np.bool_] | None = None
    depth_share: Image | None = None


@dataclass(frozen=True)
class Lens:
    """camera_matrix: (3, 3). params: of `model` as in `Camera`, or (0,) without distortion. width, height: of the
    image."""

    camera_matrix: Array
    params: Array
    width: int
    height: int
    model: str = "opencv"

    @cached_property
    def camera(self) -> Camera:
        return Camera(self.camera_matrix, "given", self.params if len(self.params) else None, self.model)

    def rays(self, points_px: Array) -> Array:
        """(..., 2) pixels to (..., 3) rays (x, y, 1) of the camera; NaN for pixels without a ray less than 86 degrees
        off the axis."""
        direction = rays(points_px, self.camera)
        with np.errstate(invalid="ignore", divide="ignore"):
            ahead = np.where(direction[..., 2:] > np.cos(_WIDEST_RAD), direction[..., 2:], np.nan)
        return direction / ahead

    def project(self, points_cam_m: Array) -> Array:
        """(..., 3) camera points to (..., 2) pixels; NaN behind the camera and beyond 86 degrees."""
        points = np.asarray(points_cam_m, float)
        ahead = points[..., 2:] > np.maximum(1e-6, np.linalg.norm(points, axis=-1, keepdims=True) * np.cos(_WIDEST_RAD))
        return project(np.where(ahead, points, np.nan), self.camera)

    def inside(self, points_px: Array) -> NDArray[np.bool_]:
        """(...) true where a pixel lies in the image."""
        with np.errstate(invalid="ignore"):
            return (points_px >= -0.5).all(-1) & (points_px < [self.width - 0.5, self.height - 0.5]).all(-1)

    def faces(self) -> list[Face]:
        """The pinhole images to render: one of the same size, one larger one, or the faces of a cube."""
        focal, (cx, cy) = float(self.camera_matrix[0, 0]), self.camera_matrix[:2, 2]
        if not len(self.params):
            return [Face(MarchedView(focal, cx, cy, self.width, self.height), np.eye(3))]
        seen = self.rays(np.stack(np.meshgrid(np.arange(self.width), np.arange(self.height)), -1).astype(float))
        slope = np.hypot(seen[..., 0], seen[..., 1])
        if np.isfinite(slope).all() and slope.max() < _ONE_VIEW_SLOPE:
            view = _view_of(seen[..., :2] * focal, focal, 2)
            return [Face(view, np.eye(3), _maps(seen, view))]
        side = _cube_side(seen)
        return [
            _face(seen, side == number, turn, focal) for number, turn in enumerate(_TURNS) if (side == number).any()
        ]


def matrix_of_view(model: str, params: tuple[float, ...], fov_deg: float, width: int, height: int) -> Array:
    """(3, 3): square pixels, principal point in the middle, `fov_deg` along the width as the lens shows it.

    For OpenCV's polynomial it is that of the pinhole with the same matrix.
    """
    half_rad = np.radians(fov_deg) / 2
    fisheye = lens_of(model, np.array(params)) if model != "opencv" else None
    focal_px = width / (2.0 * (np.tan(half_rad) if fisheye is None else fisheye.radius_of(float(half_rad))))
    return np.array([[focal_px, 0.0, (width - 1) / 2.0], [0.0, focal_px, (height - 1) / 2.0], [0.0, 0.0, 1.0]])


# camera_from_face of the front, and of the faces to the right, to the left, below and above.
_TURNS = [
    np.eye(3),
    np.array([[0.0, 0, 1], [0, 1, 0], [-1, 0, 0]]),
    np.array([[0.0, 0, -1], [0, 1, 0], [1, 0, 0]]),
    np.array([[1.0, 0, 0], [0, 0, 1], [0, -1, 0]]),
    np.array([[1.0, 0, 0], [0, 0, -1], [0, 1, 0]]),
]


def _cube_side(seen: Array) -> NDArray[np.int64]:
    """(h, w) number of the face that shows each ray (x, y, 1); -1 for no ray."""
    x, y = seen[..., 0], seen[..., 1]
    with np.errstate(invalid="ignore"):
        flat = np.where(np.abs(x) >= np.abs(y), np.where(x > 0, 1, 2), np.where(y > 0, 3, 4))
        side = np.where(np.maximum(np.abs(x), np.abs(y)) <= 1, 0, flat)
    return np.where(np.isfinite(x), side, -1)


def _face(seen: Array, mine: NDArray[np.bool_], turn: Array, focal: float) -> Face:
    local = seen @ turn
    with np.errstate(invalid="ignore", divide="ignore"):
        local = np.where(mine[..., None], local / local[..., 2:], 0.0)
    view = _view_of(local[mine][:, :2] * focal, focal, _RIM_PX)
    share = np.where(mine, local @ turn[2], 1.0).astype(np.float32)
    return Face(view, turn, _maps(local, view), mine, share)


def _view_of(seen_px: Array, focal: float, rim_px: int) -> MarchedView:
    """The pinhole image that contains pixels (..., 2), measured from its principal point, and a rim around them."""
    flat = seen_px.reshape(-1, 2)
    low, high = np.floor(flat.min(0)) - rim_px, np.ceil(flat.max(0)) + rim_px
    width, height = (high - low + 1).astype(int).tolist()
    return MarchedView(focal, -float(low[0]), -float(low[1]), width, height)


def _maps(local: Array, view: MarchedView) -> tuple[Image, Image]:
    seen = local[..., :2] * view.focal_px + [view.cx, view.cy]
    return seen[..., 0].astype(np.float32), seen[..., 1].astype(np.float32)


def through(face: Face, colour: Image, depth: Image, ids: NDArray[np.uint8]) -> tuple[Image, Image, NDArray[np.uint8]]:
    """A face's image, depth and ids as the lens shows them; pixels of other faces have arbitrary values."""
    if face.maps is None:
        return colour, depth, ids
    nearest = cv2.remap(depth, *face.maps, cv2.INTER_NEAREST)
    smooth = cv2.remap(np.minimum(depth, np.float32(1e4)), *face.maps, cv2.INTER_LINEAR)
    depth = np.where(np.abs(smooth - nearest) < 0.01 * nearest, smooth, nearest)
    if face.depth_share is not None:
        depth = depth * face.depth_share
    return cv2.remap(colour, *face.maps, cv2.INTER_LINEAR), depth, cv2.remap(ids, *face.maps, cv2.INTER_NEAREST)
