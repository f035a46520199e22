"""Objects drawn into an image: rays against their parts, textured and lit."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from handloom.synth.objects import ObjectShape, corners_m
from handloom.synth.render import textures
from handloom.synth.render.march import MarchedView
from handloom.synth.render.solids import first_hit
from handloom.synth.render.textures import Texture

Array = NDArray[np.float32]

AMBIENT = 0.42


class Furniture:
    """One object's parts with their textures."""

    def __init__(self, shape: ObjectShape, rng: np.random.Generator) -> None:
        made: dict[tuple, Texture] = {}
        for part in shape.parts:
            key = (part.texture, part.colour)
            if key not in made:
                made[key] = textures.solid(rng, *key)
        self._parts = [(part, made[part.texture, part.colour], corners_m(part)) for part in shape.parts]

    def outlines(self, world_from_object: NDArray) -> list[NDArray]:
        """(n, 3) world corners of every part, for its shadow."""
        return [corners @ world_from_object[:3, :3].T + world_from_object[:3, 3] for _, _, corners in self._parts]

    def draw(
        self, view: MarchedView, world_from_object: NDArray, world_from_camera: NDArray, light: NDArray, name: int,
        colour: Array, depth: Array, ids: NDArray[np.uint8],
    ) -> None:  # fmt: skip
        """Draw the object into colour, depth and ids, where it is nearer than what is there. light: (3,) unit vector
        towards the light, world. name: its value in ids."""
        object_from_camera = np.linalg.inv(world_from_object) @ world_from_camera
        camera_from_object = np.linalg.inv(object_from_camera)
        light_here = (world_from_object[:3, :3].T @ light).astype(np.float32)
        for part, texture, corners in self._parts:
            box = _box(view, corners @ camera_from_object[:3, :3].T + camera_from_object[:3, 3])
            if box is None:
                continue
            at = (slice(box[0], box[1]), slice(box[2], box[3]))
            rays = np.empty((box[1] - box[0], box[3] - box[2], 3), np.float32)
            x, y = view.columns(box[2], box[3]), view.rows(box[0], box[1])
            for k, (a, b, c) in enumerate(object_from_camera[:3, :3].astype(np.float32)):
                rays[..., k] = (a * x + c)[None, :] + (b * y)[:, None]
            hit = first_hit(part, object_from_camera[:3, 3], rays)
            where = hit.distance < depth[at]
            if not where.any():
                continue
            last = texture.shape[0] - 1
            uv = (np.clip(hit.uv[where], 0, 1) * last).astype(np.int32)
            bright = AMBIENT + (1 - AMBIENT) * np.maximum(hit.normal[where] @ light_here, 0)
            colour[at][where] = texture[last - uv[:, 1], uv[:, 0]] * (bright * 1.05)[:, None]
            depth[at][where] = hit.distance[where]
            ids[at][where] = name


def _box(view: MarchedView, corners_cam: NDArray) -> tuple[int, int, int, int] | None:
    """Pixel box (y0, y1, x0, x1) around corners; None where outside the image or behind the camera."""
    if corners_cam[:, 2].max() < 0.04:
        return None
    if corners_cam[:, 2].min() < 0.04:
        return 0, view.height, 0, view.width
    px = corners_cam[:, :2] / corners_cam[:, 2:] * view.focal_px + [view.cx, view.cy]
    x0, y0 = np.clip(np.floor(px.min(0)), 0, [view.width, view.height]).astype(int).tolist()
    x1, y1 = np.clip(np.ceil(px.max(0)) + 1, 0, [view.width, view.height]).astype(int).tolist()
    return (y0, y1, x0, x1) if x1 > x0 and y1 > y0 else None
