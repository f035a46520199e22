"""Pictures of a stage: room, object and hands in one depth buffer, light, shadow and a camera's small faults."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from handloom.schemas.values import LEFT, RIGHT
from handloom.synth import textures
from handloom.synth.hand import Capsules
from handloom.synth.march import Flesh, Marched, Paint, View, march_hand
from handloom.synth.room import Room, shadow_map
from handloom.synth.scene import SKINS, SceneSpec, Truth
from handloom.synth.solids import first_hit
from handloom.synth.stage import Stage, build_stage, to_camera

Array = NDArray[np.float32]

STILL, LEFT_HAND, RIGHT_HAND, OBJECT = 0, 1, 2, 3
"""What a pixel shows, `RenderedFrame.ids`."""

_AMBIENT = 0.42
_NOISE = 0.012  # standard deviation of the sensor's noise, of full scale


@dataclass(frozen=True)
class RenderedFrame:
    """image: (h, w, 3) uint8 RGB. depth_m: (h, w) float32 along the optical axis, inf: nothing. ids: (h, w) uint8."""

    image: NDArray[np.uint8]
    depth_m: Array
    ids: NDArray[np.uint8]


@dataclass(frozen=True)
class RenderedClip:
    """A clip whose truth is known at once and whose frames are drawn one at a time as they are asked for."""

    spec: SceneSpec
    stage: Stage

    @property
    def truth(self) -> Truth:
        return self.stage.truth

    def frames(self) -> Iterator[RenderedFrame]:
        painter = _Painter(self.spec, self.stage)
        for index in range(self.spec.num_frames):
            yield painter.draw(index)

    def images(self) -> Iterator[NDArray[np.uint8]]:
        for frame in self.frames():
            yield frame.image


def render_clip(spec: SceneSpec) -> RenderedClip:
    """Puts a spec on stage; nothing is drawn until `frames()` or `images()` is iterated."""
    return RenderedClip(spec, build_stage(spec))


class _Painter:
    """All that stays the same from frame to frame."""

    def __init__(self, spec: SceneSpec, stage: Stage) -> None:
        rng = np.random.default_rng([spec.seed, 4])
        matrix = spec.camera_matrix()
        self.view = View(matrix[0, 0], matrix[0, 2], matrix[1, 2], spec.width, spec.height)
        self.spec, self.stage, self.room = spec, stage, Room(spec)
        self.solid = textures.solid(rng, stage.shape.texture, stage.shape.colour)
        skin = np.clip(np.array(SKINS[spec.skin]) * rng.uniform(0.95, 1.05, 3), 0, 1)
        raw = rng.standard_normal((128, 128)).astype(np.float32)
        wrapped = np.pad(raw, 8, mode="wrap")
        soft = cv2.GaussianBlur(wrapped, (0, 0), 1.0) * 2.5 + cv2.GaussianBlur(wrapped, (0, 0), 4.0) * 9.0
        self.paint = Paint(skin, rng.uniform(0.08, 0.6, 3), (0.035 * soft[8:-8, 8:-8]).astype(np.float32))
        light = np.array([rng.uniform(-0.5, 0.5), rng.uniform(-0.2, 0.4), 1.0])
        self.toward_light = light / np.linalg.norm(light)
        self.warmth = (np.array([1.0, 0.97, 0.92]) * rng.uniform(0.92, 1.06, 3)).astype(np.float32)
        self.noise = (rng.standard_normal((spec.height + 64, spec.width + 64)) * _NOISE).astype(np.float32)
        self.noise_at = rng.integers(0, 64, (spec.num_frames, 2))

    def draw(self, t: int) -> RenderedFrame:
        pose = self.stage.truth.world_from_camera[t]
        colour, depth = self.room.draw(self.view, pose, self._shadow(t))
        ids = np.full(depth.shape, STILL, np.uint8)
        light = (pose[:3, :3].T @ self.toward_light).astype(np.float32)
        up = pose[2, :3].astype(np.float32)
        self._draw_object(t, colour, depth, ids)
        for hand, name in ((LEFT, LEFT_HAND), (RIGHT, RIGHT_HAND)):
            if self.stage.capsules[hand] is not None:
                flesh = _in_camera(self.stage.capsules[hand], self.stage.truth.world_from_camera, t)
                marched = march_hand(self.view, flesh, self.paint)
                if marched is not None:
                    _composite(marched, self.view, light, up, name, colour, depth, ids)
        return RenderedFrame(self._develop(colour, t), depth, ids)

    def _shadow(self, t: int) -> Array:
        lines = []
        for flesh in self.stage.capsules:
            if flesh is not None:
                lines += list(zip(flesh.start_m[t], flesh.end_m[t], flesh.radius_m.mean(1), strict=True))
        half = np.array(self.stage.shape.half_m)
        if self.stage.shape.kind == "cylinder":
            angle = np.linspace(0, 2 * np.pi, 16, endpoint=False)
            ring = np.stack([np.cos(angle), np.sin(angle)], 1)
            corners = np.concatenate([np.c_[ring, np.full(16, z)] for z in (-1, 1)]) * half
        else:
            corners = np.array(np.meshgrid([-1, 1], [-1, 1], [-1, 1])).reshape(3, -1).T * half
        world = self.stage.truth.world_from_object[t, 0]
        return shadow_map(lines, [corners @ world[:3, :3].T + world[:3, 3]], self.toward_light)

    def _draw_object(self, t: int, colour: Array, depth: Array, ids: NDArray[np.uint8]) -> None:
        world_from_object = self.stage.truth.world_from_object[t, 0]
        object_from_camera = np.linalg.inv(world_from_object) @ self.stage.truth.world_from_camera[t]
        box = self._object_box(np.linalg.inv(object_from_camera)[:3, 3])
        if box is None:
            return
        y0, y1, x0, x1 = box
        columns, rows = self.view.columns(x0, x1), self.view.rows(y0, y1)
        rays = np.stack([*np.meshgrid(columns, rows), np.ones((y1 - y0, x1 - x0), np.float32)], -1)
        turned = rays @ object_from_camera[:3, :3].T.astype(np.float32)
        hit = first_hit(self.stage.shape, object_from_camera[:3, 3], turned)
        where = hit.distance < depth[y0:y1, x0:x1]
        if not where.any():
            return
        size = self.solid.shape[0] - 1
        uv = (np.clip(hit.uv[where], 0, 1) * size).astype(np.int32)
        world_normal = hit.normal[where] @ world_from_object[:3, :3].T.astype(np.float32)
        bright = _AMBIENT + (1 - _AMBIENT) * np.maximum(world_normal @ self.toward_light.astype(np.float32), 0)
        colour[y0:y1, x0:x1][where] = self.solid[size - uv[:, 1], uv[:, 0]] * (bright * 1.05)[:, None]
        depth[y0:y1, x0:x1][where] = hit.distance[where]
        ids[y0:y1, x0:x1][where] = OBJECT

    def _object_box(self, centre_cam: NDArray) -> tuple[int, int, int, int] | None:
        radius = float(np.linalg.norm(self.stage.shape.half_m))
        if centre_cam[2] < radius + 0.03:
            return None
        px = centre_cam[:2] / centre_cam[2] * self.view.focal_px + [self.view.cx, self.view.cy]
        reach = 1.15 * radius / (centre_cam[2] - radius) * self.view.focal_px + 1
        x0, y0 = np.clip(px - reach, 0, [self.view.width, self.view.height]).astype(int)
        x1, y1 = np.clip(px + reach + 1, 0, [self.view.width, self.view.height]).astype(int)
        return (int(y0), int(y1), int(x0), int(x1)) if x1 > x0 and y1 > y0 else None

    def _develop(self, colour: Array, t: int) -> NDArray[np.uint8]:
        """White balance, the lens' softness, sensor noise, 8 bits."""
        image = cv2.GaussianBlur(colour * self.warmth, (0, 0), 0.55 * self.spec.width / 480 + 0.15)
        y, x = self.noise_at[t]
        image += self.noise[y : y + self.spec.height, x : x + self.spec.width, None]
        return np.clip(image * 255.0 + 0.5, 0, 255).astype(np.uint8)


def _in_camera(capsules: Capsules, world_from_camera: NDArray, t: int) -> Flesh:
    pose = world_from_camera[t : t + 1]
    start, end = (to_camera(pose, p[t : t + 1])[0] for p in (capsules.start_m, capsules.end_m))
    lateral, dorsal = (v[t] @ pose[0, :3, :3] for v in (capsules.lateral, capsules.dorsal))
    return Flesh(start, end, lateral, dorsal, capsules.radius_m, capsules.kind)


def _composite(
    hand: Marched, view: View, light: Array, up: Array, name: int, colour: Array, depth: Array, ids: NDArray[np.uint8]
) -> None:
    """Lights the hand and lays it over what lies behind it, its edge pixels in part."""
    y0, y1, x0, x1 = hand.box
    at = (slice(y0, y1), slice(x0, x1))
    in_front = hand.coverage * (_edge_depth(hand) < depth[at])
    rows, columns = np.nonzero(in_front > 0)
    if not len(rows):
        return
    lit = _lit(hand.normal[:, rows, columns], hand.colour[:, rows, columns], hand.openness[rows, columns],
               view.columns(x0, x1)[columns], view.rows(y0, y1)[rows], light, up)  # fmt: skip
    share = in_front[rows, columns][:, None]
    behind = colour[rows + y0, columns + x0]
    colour[rows + y0, columns + x0] = behind + share * (lit.T - behind)
    solid = hand.depth_m < depth[at]
    np.copyto(depth[at], hand.depth_m, where=solid)
    np.copyto(ids[at], np.uint8(name), where=solid)


def _lit(normal: Array, albedo: Array, openness: Array, x: Array, y: Array, light: Array, up: Array) -> Array:
    """(3, n) light that n surface points send to the camera; x, y: (n,) of their rays (x, y, 1)."""
    diffuse = np.clip((light @ normal + 0.25) / 1.25, 0, 1)  # wrapped: light scatters in skin
    sky = 0.5 + 0.5 * (up @ normal)
    rays = np.stack([x, y, np.ones_like(x)])
    rays /= np.sqrt((rays * rays).sum(0))
    half = light[:, None] - rays
    gloss = np.clip((normal * half).sum(0) / np.sqrt((half * half).sum(0)), 0, 1) ** 24
    rim = np.clip(1 + (normal * rays).sum(0), 0, 1) ** 2
    bright = openness * (_AMBIENT * (0.55 + 0.45 * sky)) + 0.68 * diffuse * (0.55 + 0.45 * openness)
    tint = np.array([[1.04], [0.99], [0.97]], np.float32) - rim * np.array([[0.10], [0.22], [0.26]], np.float32)
    return albedo * bright * tint + 0.05 * gloss * openness


def _edge_depth(hand: Marched) -> Array:
    """Depth of covered pixels; an edge pixel, which its ray may miss, takes its nearest neighbour's."""
    grown = cv2.erode(np.where(np.isfinite(hand.depth_m), hand.depth_m, np.float32(100.0)), np.ones((3, 3), np.uint8))
    return np.where(np.isfinite(hand.depth_m), hand.depth_m, grown)
