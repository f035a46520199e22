"""A virtual camera over real images: panels with an image, or a video of a camera at rest, seen by a camera of known
path, lens and focal length. Tracks are exact, textures are real.

World: metres, x right, y down, z forward as the first camera's. Pixels: (0, 0) is the centre of the top-left one.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import cv2
import numpy as np
from numpy.typing import NDArray

from handloom.geometry.camera.intrinsics import project, rays
from handloom.schemas.values import Camera

Floats = NDArray[np.floating]

NOTHING, HAND = -1, 100  # kinds of a point other than the number of its panel
SAMPLES, BLURRED_SAMPLES = 4, 8  # rays per pixel; the latter at different times of the exposure
_NEARER = 1.002  # another panel hides a point if it is nearer by more than this factor
_JITTER = ((0.375, 0.125), (-0.125, 0.375), (0.125, -0.375), (-0.375, -0.125), (0.25, 0.3125), (-0.3125, 0.25),
           (0.3125, -0.25), (-0.25, -0.3125))  # fmt: skip


@dataclass(frozen=True)
class Panel:
    """A plane with an image. origin_m: centre of its top-left texel; right, down: unit vectors.

    textures: (1 or T, h, w, 3) uint8, one per frame for a video. endless: the image is repeated by mirroring at its
    borders. moving: (T, h / n, w / n) bool, places of a video where something hides the static scene; None: none.
    """

    textures: NDArray[np.uint8]
    origin_m: Floats
    right: Floats
    down: Floats
    metres_per_texel: float
    endless: bool = True
    moving: NDArray[np.bool_] | None = None

    def texel_from_ray(self, centre_m: Floats) -> NDArray[np.float64]:
        """(3, 3): maps a ray from `centre_m` to (column, row, 1) over the distance in lengths of the ray."""
        step = self.metres_per_texel
        columns = (self.right * step, self.down * step, self.origin_m - centre_m)
        return np.linalg.inv(np.stack(columns, axis=1))

    def holds(self, texels: Floats) -> NDArray[np.bool_]:
        """Whether texels (..., 2) are on the panel."""
        if self.endless:
            return np.isfinite(texels).all(axis=-1)
        size = np.array(self.textures.shape[2:0:-1])
        return ((texels >= -0.5) & (texels < size - 0.5)).all(axis=-1)

    def shows_scene(self, texels: Floats, t: int) -> NDArray[np.bool_]:
        """Whether texels (N, 2) show the static scene in frame `t`; false where NaN."""
        known = np.isfinite(texels).all(axis=-1)
        if self.moving is None:
            return known
        height, width = self.textures.shape[1:3]
        safe = np.rint(np.where(known[:, None], texels, 0).clip(-1e6, 1e6)).astype(int)
        column, row = _mirrored(safe[:, 0], width), _mirrored(safe[:, 1], height)
        moving = self.moving[min(t, len(self.moving) - 1)]
        row, column = row * moving.shape[0] // height, column * moving.shape[1] // width
        return known & ~moving[row, column]


@dataclass(frozen=True)
class Sprite:
    """A hand pasted over the image. rgb: (h, w, 3) uint8; alpha: (h, w) float32, 0 to 1, both of the image's size;
    shift_px: (T, 2) its shift in each frame."""

    rgb: NDArray[np.uint8]
    alpha: NDArray[np.float32]
    shift_px: Floats

    def at(self, t: int) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
        """Its image and its alpha in frame `t`."""
        move = np.array([[1, 0, self.shift_px[t, 0]], [0, 1, self.shift_px[t, 1]]], np.float32)
        size = self.alpha.shape[::-1]
        return cv2.warpAffine(self.rgb, move, size, borderMode=cv2.BORDER_REPLICATE), cv2.warpAffine(
            self.alpha, move, size
        )


@dataclass(frozen=True)
class VirtualTracks:
    """Exact tracks. px: (T, N, 2), NaN behind the camera; visible: (T, N); kind: (N,) number of the panel, HAND, or
    NOTHING for a point that is not on a known surface at rest (its track is not known)."""

    px: Floats
    visible: NDArray[np.bool_]
    kind: NDArray[np.int16]


@dataclass(frozen=True)
class VirtualClip:
    """A shot of T frames. cameras: one, or one per frame in a zoom; world_from_camera: (T, 4, 4).

    exposure_s: exposure time of a frame, 0: no motion blur. gain: (T,) brightness. noise: standard deviation of the
    sensor's noise, grey levels. jpeg_quality: images are encoded and decoded with it; None: not.
    """

    name: str
    frame_s: Floats
    size: tuple[int, int]
    cameras: tuple[Camera, ...]
    world_from_camera: Floats
    panels: tuple[Panel, ...]
    hand: Sprite | None = None
    exposure_s: float = 0.0
    gain: Floats | None = None
    noise: float = 0.0
    jpeg_quality: int | None = 80
    seed: int = 0

    def camera(self, t: int) -> Camera:
        """Of frame `t`."""
        return self.cameras[min(t, len(self.cameras) - 1)]

    @property
    def way_m(self) -> float:
        """Length of the camera's path."""
        return float(np.linalg.norm(np.diff(self.world_from_camera[:, :3, 3], axis=0), axis=1).sum())

    def frames(self) -> Iterator[NDArray[np.uint8]]:
        """(h, w, 3) uint8 RGB, one after another."""
        rng = np.random.default_rng([self.seed, 11])
        for t in range(len(self.frame_s)):
            yield self._coded(self._exposed(t), t, rng)

    def follow(self, query_px: Floats, query_frame: NDArray[np.integer]) -> VirtualTracks:
        """The exact tracks of the points at pixels (N, 2) of frames (N,)."""
        query_px, query_frame = np.asarray(query_px, float), np.asarray(query_frame, np.int64)
        world, kind = self._found(query_px, np.asarray(query_frame, np.int64))
        num = len(self.frame_s)
        px, visible = np.full((num, len(kind), 2), np.nan), np.zeros((num, len(kind)), bool)
        on_hand = kind == HAND
        for t in range(num):
            px[t], visible[t] = self._seen(world, kind, t)
            if self.hand is not None:
                px[t, on_hand] = query_px[on_hand] + (self.hand.shift_px[t] - self.hand.shift_px[query_frame[on_hand]])
                covered = _at(self._alpha(t), px[t]) > 0.5
                visible[t] = np.where(on_hand, _inside(px[t], self.size) & covered, visible[t] & ~covered)
        px[query_frame, np.arange(len(kind))] = query_px
        return VirtualTracks(px, visible & (kind != NOTHING), kind)

    def _exposed(self, t: int) -> NDArray[np.float32]:
        num = BLURRED_SAMPLES if self.exposure_s else SAMPLES
        sights = self._rays(t, num)
        total = np.zeros((self.size[1], self.size[0], 3), np.float32)
        for k in range(num):
            pose = self._pose(t, ((k + 0.5) / num - 0.5) * self.exposure_s)
            total += self._drawn(sights[k], pose, t)
        return total / num

    def _pose(self, t: int, after_s: float) -> NDArray[np.float64]:
        """world_from_camera `after_s` seconds after frame `t` (or before), interpolated between frames."""
        if not after_s:
            return self.world_from_camera[t]
        other = int(np.clip(t + (1 if after_s > 0 else -1), 0, len(self.frame_s) - 1))
        if other == t:
            return self.world_from_camera[t]
        share = abs(after_s / (self.frame_s[other] - self.frame_s[t]))
        here, there = self.world_from_camera[t], self.world_from_camera[other]
        turn, _ = cv2.Rodrigues(here[:3, :3].T @ there[:3, :3])
        pose = np.eye(4)
        pose[:3, :3] = here[:3, :3] @ cv2.Rodrigues(turn * share)[0]
        pose[:3, 3] = here[:3, 3] + share * (there[:3, 3] - here[:3, 3])
        return pose

    def _drawn(self, sights: NDArray[np.float32], pose: Floats, t: int) -> NDArray[np.float32]:
        out, nearest = np.zeros((*sights.shape[:2], 3), np.uint8), np.zeros(sights.shape[:2], np.float32)
        for panel in self.panels:
            x, y, inverse = _through(panel.texel_from_ray(pose[:3, 3]) @ pose[:3, :3], sights)
            there = inverse > nearest
            if not panel.endless:
                there &= panel.holds(np.stack([x, y], axis=-1))
            texture = panel.textures[min(t, len(panel.textures) - 1)]
            colours = cv2.remap(texture, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101)
            out[there], nearest[there] = colours[there], inverse[there]
        return out.astype(np.float32)

    def _coded(self, image: NDArray[np.float32], t: int, rng: np.random.Generator) -> NDArray[np.uint8]:
        if self.hand is not None:
            rgb, alpha = self.hand.at(t)
            image = image + alpha[..., None] * (rgb - image)
        if self.gain is not None:
            image = image * np.float32(self.gain[t])
        if self.noise:
            image = image + rng.normal(0, self.noise, image.shape).astype(np.float32)
        shown = np.clip(np.rint(image), 0, 255).astype(np.uint8)
        if self.jpeg_quality is None:
            return shown
        options = [cv2.IMWRITE_JPEG_QUALITY, self.jpeg_quality]
        _, data = cv2.imencode(".jpg", cv2.cvtColor(shown, cv2.COLOR_RGB2BGR), options)
        return cv2.cvtColor(cv2.imdecode(data, cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)

    def _alpha(self, t: int) -> NDArray[np.float32]:
        if self.hand is None:
            raise ValueError("the clip has no hand")
        return self.hand.at(t)[1]

    def _rays(self, t: int, num: int) -> list[NDArray[np.float32]]:
        if len(self.cameras) > 1:
            return _pixel_rays(self.camera(t), self.size, num)
        return self._one_lens if num == SAMPLES else self._one_lens_blurred

    @cached_property
    def _one_lens(self) -> list[NDArray[np.float32]]:
        return _pixel_rays(self.cameras[0], self.size, SAMPLES)

    @cached_property
    def _one_lens_blurred(self) -> list[NDArray[np.float32]]:
        return _pixel_rays(self.cameras[0], self.size, BLURRED_SAMPLES)

    def _found(self, px: Floats, frame: NDArray[np.intp]) -> tuple[Floats, NDArray[np.int16]]:
        """World positions (N, 3) and kinds (N,) of the surfaces at pixels of frames."""
        world, kind = np.full((len(px), 3), np.nan), np.full(len(px), NOTHING, np.int16)
        for t in np.unique(frame):
            at = np.flatnonzero(frame == t)
            pose = self.world_from_camera[t]
            sight = np.nan_to_num(rays(px[at], self.camera(t))) @ pose[:3, :3].T
            nearest = np.zeros(len(at))
            for number, panel in enumerate(self.panels):
                texel, inverse = _met(panel, pose[:3, 3], sight)
                there = (inverse > nearest) & panel.holds(texel)
                kind[at[there]] = np.where(panel.shows_scene(texel[there], int(t)), number, NOTHING)
                world[at[there]] = pose[:3, 3] + sight[there] / inverse[there, None]
                nearest[there] = inverse[there]
            if self.hand is not None:
                share = _at(self._alpha(t), px[at])
                kind[at[share > 0.5]] = HAND
                kind[at[(share > 0.02) & (share <= 0.5)]] = NOTHING  # its soft edge
        return world, kind

    def _seen(self, world: Floats, kind: NDArray[np.int16], t: int) -> tuple[Floats, NDArray[np.bool_]]:
        pose, camera = self.world_from_camera[t], self.camera(t)
        away = world - pose[:3, 3]
        cam = away @ pose[:3, :3]
        px = project(cam, camera)
        visible = _inside(px, self.size) & (_off_axis(cam) <= _widest(camera, self.size))
        for number, panel in enumerate(self.panels):
            texel, inverse = _met(panel, pose[:3, 3], away)
            on_it = kind == number
            visible &= ~((inverse > _NEARER) & panel.holds(texel) & ~on_it)
            visible[on_it] &= panel.shows_scene(texel[on_it], t)
        return px, visible


def _pixel_rays(camera: Camera, size: tuple[int, int], num: int) -> list[NDArray[np.float32]]:
    """`num` times (h, w, 3) ray directions, each at another place within the pixels; 0 where the lens has none."""
    x, y = np.meshgrid(np.arange(size[0], dtype=float), np.arange(size[1], dtype=float))
    px = np.stack([x, y], axis=-1).reshape(-1, 2)
    return [
        np.nan_to_num(rays(px + shift, camera)).astype(np.float32).reshape(size[1], size[0], 3)
        for shift in _JITTER[:num]
    ]


def _through(matrix: Floats, sights: NDArray[np.float32]) -> tuple[NDArray[np.float32], ...]:
    """Columns, rows and inverse distances (h, w) of the rays' hits on a panel; the last is 0 for a miss."""
    m = matrix.astype(np.float32)
    rx, ry, rz = sights[..., 0], sights[..., 1], sights[..., 2]
    a, b, inverse = (m[i, 0] * rx + m[i, 1] * ry + m[i, 2] * rz for i in range(3))
    safe = np.where(inverse > 1e-6, inverse, np.float32(1e-6))
    return np.clip(a / safe, -3e4, 3e4), np.clip(b / safe, -3e4, 3e4), np.where(inverse > 1e-6, inverse, 0)


def _met(panel: Panel, centre_m: Floats, sights: Floats) -> tuple[Floats, Floats]:
    """Texels (N, 2), NaN where a ray misses the panel's plane, and inverse distances (N,) in lengths of the rays."""
    found = sights @ panel.texel_from_ray(centre_m).T
    inverse = found[:, 2]
    with np.errstate(divide="ignore", invalid="ignore"):
        texel = np.where(inverse[:, None] > 1e-6, found[:, :2] / inverse[:, None], np.nan)
    return texel, np.where(np.isfinite(texel).all(axis=1), inverse, 0.0)


def _mirrored(index: NDArray[np.intp], num: int) -> NDArray[np.intp]:
    """Index within `num`, mirrored at the borders as `BORDER_REFLECT_101` does."""
    turn = max(2 * num - 2, 1)
    inside = np.mod(index, turn)
    return np.where(inside < num, inside, turn - inside)


def _inside(px: Floats, size: tuple[int, int]) -> NDArray[np.bool_]:
    return ((px >= -0.5) & (px < np.array(size) - 0.5)).all(axis=-1)


def _at(values: NDArray[np.float32], px: Floats) -> NDArray[np.float32]:
    """Values (h, w) at the nearest pixel; 0 outside."""
    inside = _inside(px, (values.shape[1], values.shape[0]))
    x, y = np.rint(np.where(inside[:, None], px, 0)).astype(int).T
    return np.where(inside, values[y.clip(0, values.shape[0] - 1), x.clip(0, values.shape[1] - 1)], 0)


def _off_axis(cam: Floats) -> NDArray[np.float64]:
    with np.errstate(invalid="ignore"):
        return np.arctan2(np.hypot(cam[:, 0], cam[:, 1]), cam[:, 2])


def _widest(camera: Camera, size: tuple[int, int]) -> float:
    """Largest angle off the axis of the image's corners, radians, plus a margin: beyond it a polynomial lens folds."""
    w, h = size
    corners = np.array([[-0.5, -0.5], [w - 0.5, -0.5], [-0.5, h - 0.5], [w - 0.5, h - 0.5]])
    return float(np.nanmax(_off_axis(rays(corners, camera)))) + 0.02
