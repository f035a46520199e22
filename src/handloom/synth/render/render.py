"""Images of a scene: room, things and hands in one depth buffer, with light, shadow, motion blur and sensor noise."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import cv2
import numpy as np
from numpy.typing import NDArray

from handloom.geometry.camera.world import to_camera
from handloom.schemas.values import LEFT, RIGHT
from handloom.synth.follow import LEFT_HAND, OBJECT, RIGHT_HAND, SOMEONE_ELSE, STILL
from handloom.synth.hand import Capsules
from handloom.synth.render.blur import body_motion, smear, still_motion
from handloom.synth.render.furniture import AMBIENT, Furniture
from handloom.synth.render.lens import Face, through
from handloom.synth.render.march import Flesh, Marched, MarchedView, Paint, march_hand
from handloom.synth.render.room import Room, shadow_map
from handloom.synth.script.scene import SKINS, Person, SceneSpec
from handloom.synth.stage import Stage, build_stage
from handloom.synth.truth import Truth, quantised

Array = NDArray[np.float32]

_NOISE = 0.012  # standard deviation of the sensor's noise, of full scale


@dataclass(frozen=True)
class RenderedFrame:
    """image: (h, w, 3) uint8 RGB. depth_m: (h, w) float32 along the optical axis, inf without a surface. ids: (h, w)
    uint8, STILL, LEFT_HAND, RIGHT_HAND, OBJECT + i or SOMEONE_ELSE. Both maps are of the middle of the exposure."""

    image: NDArray[np.uint8]
    depth_m: Array
    ids: NDArray[np.uint8]


@dataclass(frozen=True)
class RenderedClip:
    """A clip whose truth, without maps, is known at once, and whose frames are drawn one by one while iterating."""

    spec: SceneSpec
    stage: Stage

    @property
    def truth(self) -> Truth:
        return self.stage.truth

    def frames(self, first: int = 0) -> Iterator[RenderedFrame]:
        """The frames from number `first` on."""
        painter = _Painter(self.spec, self.stage)
        for index in range(first, self.spec.num_frames):
            yield painter.draw(index)

    def images(self, first: int = 0) -> Iterator[NDArray[np.uint8]]:
        for frame in self.frames(first):
            yield frame.image


class MapKeeper:
    """Passes a clip's images on and keeps their depth and id maps."""

    def __init__(self, clip: RenderedClip) -> None:
        self._clip = clip
        self._depth: list[NDArray[np.uint16]] = []
        self._ids: list[NDArray[np.uint8]] = []

    def images(self) -> Iterator[NDArray[np.uint8]]:
        for frame in self._clip.frames():
            self._depth.append(quantised(frame.depth_m))
            self._ids.append(frame.ids)
            yield frame.image

    def truth(self) -> Truth:
        """The truth with the maps of all images so far."""
        return replace(self._clip.truth, depth=np.stack(self._depth), ids=np.stack(self._ids))


def render_clip(spec: SceneSpec) -> RenderedClip:
    """The clip of a spec; nothing is drawn until `frames()` or `images()` is iterated."""
    return RenderedClip(spec, build_stage(spec))


def render_all(spec: SceneSpec) -> tuple[NDArray[np.uint8], Truth]:
    """All images (T, h, w, 3) of a clip, and its truth with depth and id maps."""
    keeper = MapKeeper(render_clip(spec))
    return np.stack(list(keeper.images())), keeper.truth()


class _Painter:
    """Draws frames; holds what they have in common."""

    def __init__(self, spec: SceneSpec, stage: Stage) -> None:
        rng = np.random.default_rng([spec.seed, 4])
        self.faces = spec.lens().faces()
        self.spec, self.stage, self.room = spec, stage, Room(spec)
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
        self.furniture = [Furniture(shape, rng) for shape in stage.shapes]
        self.their_paint = self.paint if spec.person is None else _paint_of(spec.person, spec.seed, self.paint)

    def draw(self, t: int) -> RenderedFrame:
        shadow = self._shadow(t)
        if self.faces[0].mine is None:
            colour, depth, ids = through(self.faces[0], *self._draw(t, self.faces[0], shadow))
            return RenderedFrame(self._develop(colour, t), depth, ids)
        size = (self.spec.height, self.spec.width)
        colour, depth = np.zeros((*size, 3), np.float32), np.full(size, np.inf, np.float32)
        ids = np.full(size, STILL, np.uint8)
        for face in self.faces:
            seen = through(face, *self._draw(t, face, shadow))
            colour[face.mine], depth[face.mine], ids[face.mine] = (part[face.mine] for part in seen)
        return RenderedFrame(self._develop(colour, t), depth, ids)

    def _draw(self, t: int, face: Face, shadow: Array) -> tuple[Array, Array, NDArray[np.uint8]]:
        """Colour, depth and ids of one pinhole image."""
        truth, view = self.stage.truth, face.view
        poses = _turned(truth.world_from_camera, face.camera_from_face)
        pose, objects = poses[t], truth.world_from_object[t]
        colour, depth = self.room.draw(view, pose, shadow)
        ids, bone = np.full(depth.shape, STILL, np.uint8), np.zeros(depth.shape, np.uint8)
        light, up = (pose[:3, :3].T @ self.toward_light).astype(np.float32), pose[2, :3].astype(np.float32)
        for i, thing in enumerate(self.furniture):
            thing.draw(view, objects[i], pose, self.toward_light, OBJECT + i, colour, depth, ids)
        for hand, name in ((LEFT, LEFT_HAND), (RIGHT, RIGHT_HAND)):
            capsules = self.stage.capsules[hand]
            if capsules is not None:
                flesh = _in_camera(capsules, poses, t)
                marched = march_hand(view, flesh, self.paint)
                if marched is not None:
                    _composite(marched, view, light, up, name, colour, depth, ids, bone)
        for other in self.stage.others:
            marched = None if other is None else march_hand(view, _in_camera(other, poses, t), self.their_paint)
            if marched is not None:
                _composite(marched, view, light, up, SOMEONE_ELSE, colour, depth, ids, bone)
        if self.spec.shutter > 0 and self.spec.num_frames > 1:
            colour = smear(colour, depth, self._motion(t, view, poses, depth, ids, bone))
        return colour, depth, ids

    def _shadow(self, t: int) -> Array:
        lines, outlines = [], []
        for flesh in (*self.stage.capsules, *self.stage.others):
            if flesh is not None:
                lines += list(zip(flesh.start_m[t], flesh.end_m[t], flesh.radius_m.mean(1), strict=True))
        for i, thing in enumerate(self.furniture):
            outlines += thing.outlines(self.stage.truth.world_from_object[t, i])
        return shadow_map(lines, outlines, self.toward_light)

    def _motion(
        self, t: int, view: MarchedView, poses: NDArray, depth: Array, ids: NDArray[np.uint8], bone: NDArray[np.uint8]
    ) -> Array:
        """(h, w, 2) displacement of every pixel's surface while the shutter is open, pixels. Another person's hands are
        taken as still."""
        truth, flesh = self.stage.truth, (LEFT_HAND, RIGHT_HAND)
        motion = still_motion(view, depth, self._rate(t, poses, np.eye(4)[None].repeat(len(truth.frame_s), 0)))
        moving = np.ptp(truth.world_from_object[max(t - 1, 0) : t + 2], axis=0).max(axis=(1, 2)) > 0
        for i in np.flatnonzero(moving):
            rows, columns = np.nonzero(ids == OBJECT + i)
            rate = self._rate(t, poses, truth.world_from_object[:, i])
            motion[rows, columns] = body_motion(view, rows, columns, depth[rows, columns], rate)
        for hand, name in enumerate(flesh):
            rows, columns = np.nonzero(ids == name)
            if len(rows):
                rates = self._rate(t, poses, truth.world_from_bone[:, hand])[bone[rows, columns]]
                motion[rows, columns] = body_motion(view, rows, columns, depth[rows, columns], rates)
        return motion

    def _rate(self, t: int, poses: NDArray, world_from_body: NDArray) -> NDArray:
        """(..., 4, 4) change in the camera of points of a body (T, ..., 4, 4) while the shutter is open."""
        before, after = max(t - 1, 0), min(t + 1, len(poses) - 1)
        back = np.linalg.inv(world_from_body[t]) @ poses[t]
        then = [np.linalg.inv(poses[at]) @ world_from_body[at] @ back for at in (before, after)]
        return (then[1] - then[0]) * (self.spec.shutter / (after - before))

    def _develop(self, colour: Array, t: int) -> NDArray[np.uint8]:
        """Apply white balance, the lens's softness and sensor noise; 8 bits."""
        image = cv2.GaussianBlur(colour * self.warmth, (0, 0), 0.55 * self.spec.width / 480 + 0.15)
        y, x = self.noise_at[t]
        image += self.noise[y : y + self.spec.height, x : x + self.spec.width, None]
        return np.clip(image * 255.0 + 0.5, 0, 255).astype(np.uint8)


def _paint_of(person: Person, seed: int, paint: Paint) -> Paint:
    """Skin and sleeve of a second person."""
    rng = np.random.default_rng([seed, 12])
    skin = np.clip(np.array(SKINS[person.skin]) * rng.uniform(0.95, 1.05, 3), 0, 1)
    return Paint(skin, rng.uniform(0.08, 0.6, 3), paint.mottle)


def _turned(world_from_camera: NDArray, camera_from_face: NDArray) -> NDArray:
    """(T, 4, 4) poses of a face."""
    poses = world_from_camera.copy()
    poses[:, :3, :3] = world_from_camera[:, :3, :3] @ camera_from_face
    return poses


def _in_camera(capsules: Capsules, world_from_camera: NDArray, t: int) -> Flesh:
    pose = world_from_camera[t : t + 1]
    start, end = (to_camera(p[t : t + 1], pose)[0] for p in (capsules.start_m, capsules.end_m))
    lateral, dorsal = (v[t] @ pose[0, :3, :3] for v in (capsules.lateral, capsules.dorsal))
    return Flesh(start, end, lateral, dorsal, capsules.radius_m, capsules.kind)


def _composite(
    hand: Marched, view: MarchedView, light: Array, up: Array, name: int, colour: Array, depth: Array,
    ids: NDArray[np.uint8], bone: NDArray[np.uint8],
) -> None:  # fmt: skip
    """Light the hand and draw it over what lies behind it, edge pixels by their coverage."""
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
    np.copyto(bone[at], hand.owner.astype(np.uint8), where=solid)


def _lit(normal: Array, albedo: Array, openness: Array, x: Array, y: Array, light: Array, up: Array) -> Array:
    """(3, n) colours of n lit surface points; x, y: (n,) of their rays (x, y, 1)."""
    diffuse = np.clip((light @ normal + 0.25) / 1.25, 0, 1)  # wrapped: light scatters in skin
    sky = 0.5 + 0.5 * (up @ normal)
    rays = np.stack([x, y, np.ones_like(x)])
    rays /= np.sqrt((rays * rays).sum(0))
    half = light[:, None] - rays
    gloss = np.clip((normal * half).sum(0) / np.sqrt((half * half).sum(0)), 0, 1) ** 24
    rim = np.clip(1 + (normal * rays).sum(0), 0, 1) ** 2
    bright = openness * (AMBIENT * (0.55 + 0.45 * sky)) + 0.68 * diffuse * (0.55 + 0.45 * openness)
    tint = np.array([[1.04], [0.99], [0.97]], np.float32) - rim * np.array([[0.10], [0.22], [0.26]], np.float32)
    return albedo * bright * tint + 0.05 * gloss * openness


def _edge_depth(hand: Marched) -> Array:
    """Depth of covered pixels; an edge pixel whose ray misses the hand takes its nearest neighbour's."""
    grown = cv2.erode(np.where(np.isfinite(hand.depth_m), hand.depth_m, np.float32(100.0)), np.ones((3, 3), np.uint8))
    return np.where(np.isfinite(hand.depth_m), hand.depth_m, grown)
