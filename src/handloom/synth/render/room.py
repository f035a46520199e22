"""The still scene: a table top, the floor and walls, with exact depth and a soft shadow map."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from handloom.synth.render import textures
from handloom.synth.render.march import MarchedView
from handloom.synth.script.scene import SceneSpec

Array = NDArray[np.float32]

TABLE_X_M, TABLE_Y_M = (-0.75, 0.75), (-0.45, 0.55)
_SHADOW_PX_PER_M = 320.0


@dataclass(frozen=True)
class Plane:
    """A textured rectangle: corner (3,), unit axes u and v (3,), size (2,) metres, metres per texture repeat."""

    corner: NDArray[np.float64]
    u: NDArray[np.float64]
    v: NDArray[np.float64]
    size: tuple[float, float]
    texture: Array
    repeat_m: float
    light: float  # brightness


class Room:
    """Table, floor and walls of a scene: textured planes."""

    def __init__(self, spec: SceneSpec) -> None:
        rng = np.random.default_rng([spec.seed, 3])
        x, y, z = np.eye(3)
        table = textures.TEXTURES[spec.table](rng)
        floor, wall = textures.floor(rng), textures.wall(rng)
        (x0, x1), (y0, y1) = TABLE_X_M, TABLE_Y_M
        self._planes = [
            Plane(np.array([x0, y0, 0.0]), x, y, (x1 - x0, y1 - y0), table, 0.8, 1.0),
            Plane(np.array([-1.8, -2.0, -0.75]), x, y, (3.6, 3.4), floor, 2.0, 0.70),
            Plane(np.array([-1.8, 1.4, 1.6]), x, -z, (3.6, 2.35), wall, 2.4, 0.80),
            Plane(np.array([-1.8, -2.0, 1.6]), y, -z, (3.4, 2.35), wall[:, ::-1].copy(), 2.4, 0.65),
            Plane(np.array([1.8, -2.0, 1.6]), y, -z, (3.4, 2.35), wall, 2.4, 0.72),
        ]

    def draw(self, view: MarchedView, world_from_camera: NDArray[np.float64], shadow: Array) -> tuple[Array, Array]:
        """Image (h, w, 3) and depth (h, w), inf without a surface. shadow: from `shadow_map`."""
        rows, columns = view.rows(0, view.height), view.columns(0, view.width)
        colour = np.zeros((view.height, view.width, 3), np.float32)
        depth = np.full((view.height, view.width), np.inf, np.float32)
        for number, plane in enumerate(self._planes):
            self._draw_plane(plane, world_from_camera, rows, columns, colour, depth, shadow if number == 0 else None)
        return colour, depth

    @staticmethod
    def _draw_plane(
        plane: Plane, pose: NDArray, rows: Array, columns: Array, colour: Array, depth: Array, shadow: Array | None
    ) -> None:
        """Fill the pixels that are still empty: planes come nearest first, and the walls do not hide each other."""
        empty = np.flatnonzero(np.isinf(depth).any(1))
        if not len(empty):
            return
        band = slice(int(empty[0]), int(empty[-1]) + 1)
        axes_world = np.stack([plane.u, plane.v, np.cross(plane.u, plane.v)])
        axes = (axes_world @ pose[:3, :3]).astype(np.float32)
        eye = (axes_world @ (pose[:3, 3] - plane.corner)).astype(np.float32)
        along = [(a[0] * columns + a[2])[None, :] + (a[1] * rows[band])[:, None] for a in axes]
        with np.errstate(divide="ignore", invalid="ignore"):
            t = -eye[2] / along[2]
            u, v = (eye[i] + t * along[i] for i in (0, 1))
            hit = (t > 0.01) & (u >= 0) & (u < plane.size[0]) & (v >= 0) & (v < plane.size[1]) & np.isinf(depth[band])
        if not hit.any():
            return
        u[~hit] = v[~hit] = 0
        scale = np.float32(textures.SIZE / plane.repeat_m)
        image = cv2.remap(plane.texture, u * scale, v * scale, cv2.INTER_LINEAR, borderMode=cv2.BORDER_WRAP)
        image *= np.float32(plane.light)
        if shadow is not None:
            k = np.float32(_SHADOW_PX_PER_M)
            image *= cv2.remap(shadow, u * k, v * k, cv2.INTER_LINEAR)[..., None]
        np.copyto(colour[band], image, where=hit[..., None])
        np.copyto(depth[band], t, where=hit)


def shadow_map(lines: list[tuple[NDArray, NDArray, float]], outlines: list[NDArray], toward_light: NDArray) -> Array:
    """(h, w) light on the table, 0 to 1, with `_SHADOW_PX_PER_M`, from the table's first corner.

    lines: (start, end, radius) capsules in the world; outlines: (n, 3) convex solids' corners.
    """
    size = np.array([TABLE_X_M[1] - TABLE_X_M[0], TABLE_Y_M[1] - TABLE_Y_M[0]]) * _SHADOW_PX_PER_M
    out = np.ones((int(size[1]), int(size[0])), np.float32)

    def drop(points: NDArray) -> NDArray:
        fallen = points[..., :2] - points[..., 2:] * toward_light[:2] / toward_light[2]
        return np.round((fallen - [TABLE_X_M[0], TABLE_Y_M[0]]) * _SHADOW_PX_PER_M).astype(np.int32)

    for start, end, radius in lines:
        ends = drop(np.stack([start, end]))
        if np.abs(ends).max() < 4000:
            cv2.line(out, ends[0].tolist(), ends[1].tolist(), 0.45, max(1, round(1.7 * radius * _SHADOW_PX_PER_M)))
    for corners in outlines:
        cv2.fillConvexPoly(out, cv2.convexHull(drop(corners)), 0.45)
    return cv2.GaussianBlur(out, (0, 0), 3.5)
