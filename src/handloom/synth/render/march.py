"""A hand as a smooth union of capsules, ray-marched: depth, coverage, normals and skin colour.

A ray is r = (x, y, 1), so the marched length is the depth itself. Along a ray every capsule needs only dot products
that stay fixed while marching, and only for pixels near its own image: 28 capsules take about the time of five. The
smooth union is -log(sum exp(-k d)) / k.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from handloom.synth.hand import FOREARM, SLEEVE, TIP

Array = NDArray[np.float32]

_SHARPNESS = 520.0  # 1 / metres: capsules blend into each other over about 2 mm
_MARGIN_M = 0.009  # beyond this a capsule adds less than exp(-4.7)
_CELL = 4  # side of a coarse cell, pixels
_ZERO, _ONE, _TINY = np.float32(0), np.float32(1), np.float32(1e-12)
_BULGE_M = np.float32(0.004)  # the smooth union is larger than the plain one by up to this
_CLOSE_PX = np.float32(0.4)  # a ray this close has reached the surface
_COARSE_STEPS, _FINE_STEPS, _SLOW_STEPS = 18, 5, 14


@dataclass(frozen=True)
class MarchedView:
    """Pinhole of one image; focal_px, centre (x, y) and size in pixels."""

    focal_px: float
    cx: float
    cy: float
    width: int
    height: int

    @property
    def stretch(self) -> float:
        """Length over width of a small ball in the image's farthest corner."""
        corner = max(self.cx, self.width - self.cx), max(self.cy, self.height - self.cy)
        return math.hypot(1.0, corner[0] / self.focal_px, corner[1] / self.focal_px)

    def columns(self, x0: int, x1: int) -> Array:
        return ((np.arange(x0, x1) - self.cx) / self.focal_px).astype(np.float32)

    def rows(self, y0: int, y1: int) -> Array:
        return ((np.arange(y0, y1) - self.cy) / self.focal_px).astype(np.float32)


@dataclass(frozen=True)
class Flesh:
    """One hand's capsules in the camera of one frame: start, end, lateral, dorsal (C, 3), radius (C, 2), kind (C,)."""

    start: NDArray[np.float64]
    end: NDArray[np.float64]
    lateral: NDArray[np.float64]
    dorsal: NDArray[np.float64]
    radius: NDArray[np.float64]
    kind: NDArray[np.int64]


@dataclass(frozen=True)
class Paint:
    """skin, sleeve: (3,) albedo. mottle: (128, 128) noise around 0 that gives the surface texture."""

    skin: NDArray
    sleeve: NDArray
    mottle: Array


@dataclass(frozen=True)
class Marched:
    """The hand in the pixels of box (y0, y1, x0, x1): depth_m (inf without a hit), coverage 0 to 1, normal (3, h, w),
    openness 0 to 1 (1: nothing near), colour (3, h, w), owner: number of the capsule."""

    box: tuple[int, int, int, int]
    depth_m: Array
    coverage: Array
    normal: Array
    openness: Array
    colour: Array
    owner: NDArray[np.intp]


class _Capsule:
    """One capsule over the pixels that it can touch: what marching needs and what is fixed along each ray."""

    def __init__(self, flesh: Flesh, i: int, window: tuple[int, int, int, int], x: Array, y: Array, rr: Array) -> None:
        y0, y1, x0, x1 = window
        self.at = (slice(y0, y1), slice(x0, x1))
        self.index = i
        self.a = flesh.start[i]
        self.axis = flesh.end[i] - flesh.start[i]
        self.full_x, self.full_y = x[None, :], y[:, None]
        self.x, self.y = self.full_x[:, x0:x1], self.full_y[y0:y1]
        self.rr = rr[self.at]
        self.ra2 = np.float32(2) * self.dot(self.a)
        self.aa = np.float32(self.a @ self.a)
        length2 = max(float(self.axis @ self.axis), 1e-10)
        self.inv = np.float32(1.0 / length2)
        self.rb, self.ab = self.dot(self.axis) * self.inv, np.float32(self.a @ self.axis) * self.inv
        self.length2 = np.float32(length2)
        self.r0, self.dr = np.float32(flesh.radius[i, 0]), np.float32(flesh.radius[i, 1] - flesh.radius[i, 0])

    def dot(self, v: NDArray) -> Array:
        v = v.astype(np.float32)
        return v[0] * self.x + v[1] * self.y + v[2]

    def distance(self, t: Array) -> tuple[Array, Array, Array]:
        """Signed distance, position along the axis 0 to 1, distance from the axis, at depth t."""
        along = t * self.rb
        along -= self.ab
        h = np.minimum(np.maximum(along, _ZERO), _ONE)
        along += along
        along -= h
        along *= h
        along *= self.length2
        squared = t * self.rr
        squared -= self.ra2
        squared *= t
        squared -= along
        squared += self.aa
        from_axis = np.sqrt(np.maximum(squared, _TINY, out=squared), out=squared)
        distance = from_axis - self.r0
        distance -= np.multiply(h, self.dr, out=along)
        return distance, h, from_axis


def march_hand(view: MarchedView, flesh: Flesh, paint: Paint) -> Marched | None:
    """March the rays that can hit the hand; None where it is outside the image."""
    windows = _windows(view, flesh)
    used = [i for i, w in enumerate(windows) if w is not None]
    if not used:
        return None
    bounds = np.array([windows[i] for i in used])
    y0, x0 = bounds[:, 0].min() // _CELL * _CELL, bounds[:, 2].min() // _CELL * _CELL
    y1, x1 = bounds[:, 1].max(), bounds[:, 3].max()
    x, y = view.columns(x0, x1), view.rows(y0, y1)
    rr = (x * x)[None, :] + (y * y)[:, None] + np.float32(1)
    offset = np.array([y0, y0, x0, x0])
    capsules = [_Capsule(flesh, i, tuple(np.array(windows[i]) - offset), x, y, rr) for i in used]
    t = _coarse(view, flesh, used, (y0, y1, x0, x1))
    t, coverage = _fine(view, flesh, used, capsules, t, rr)
    normal, colour, owner = _surface(flesh, capsules, t, paint)
    openness = _openness(capsules, t, normal)
    depth = np.where(coverage > 0.5, t, np.inf).astype(np.float32)
    return Marched((y0, y1, x0, x1), depth, coverage, normal, openness, colour, owner)


def _windows(view: MarchedView, flesh: Flesh) -> list[tuple[int, int, int, int] | None]:
    """Pixel box (y0, y1, x0, x1) that each capsule and its margin can touch; None outside the image."""
    out: list[tuple[int, int, int, int] | None] = []
    for start, end, radius in zip(flesh.start, flesh.end, flesh.radius, strict=True):
        ends = _clip_near(start, end)
        if ends is None:
            out.append(None)
            continue
        depth = ends[:, 2]
        reach = (radius.max() + _MARGIN_M) / np.maximum(depth - radius.max() - _MARGIN_M, 0.05) * view.focal_px
        px = ends[:, :2] / depth[:, None] * view.focal_px + [view.cx, view.cy]
        reach *= max(1.1, view.stretch)
        low, high = (px - reach[:, None]).min(0), (px + reach[:, None]).max(0)
        x0, y0 = np.clip(np.floor(low), 0, [view.width, view.height]).astype(int)
        x1, y1 = np.clip(np.ceil(high) + 1, 0, [view.width, view.height]).astype(int)
        out.append((int(y0), int(y1), int(x0), int(x1)) if x1 > x0 and y1 > y0 else None)
    return out


def _clip_near(start: NDArray, end: NDArray, near_m: float = 0.08) -> NDArray | None:
    """(2, 3) the part of a segment in front of the camera; None where there is none."""
    if max(start[2], end[2]) <= near_m:
        return None
    ends = np.stack([start, end])
    for i in (0, 1):
        if ends[i, 2] < near_m:
            other = ends[1 - i]
            ends[i] = other + (ends[i] - other) * (other[2] - near_m) / (other[2] - ends[i, 2])
    return ends


class _Rays:
    """Single rays with all used capsules at once: for the coarse cells and for the few slow pixels."""

    def __init__(self, flesh: Flesh, used: list[int], x: Array, y: Array) -> None:
        rays = np.stack([x, y, np.ones_like(x)], axis=1)
        start, axis = flesh.start[used].astype(np.float32), (flesh.end - flesh.start)[used].astype(np.float32)
        self.length2 = np.maximum((axis * axis).sum(1), np.float32(1e-10))
        self.radius = flesh.radius[used].astype(np.float32)
        self.rr, self.ra2, self.rb = (rays * rays).sum(1), 2 * rays @ start.T, (rays @ axis.T) / self.length2
        self.aa, self.ab = (start * start).sum(1), (start * axis).sum(1) / self.length2
        self.length = np.sqrt(self.rr)

    def distances(self, live: NDArray[np.intp], t: Array) -> Array:
        """(n, C) signed distances of the points at depth t on rays `live`."""
        along = t[:, None] * self.rb[live] - self.ab
        h = np.minimum(np.maximum(along, _ZERO), _ONE)
        squared = t[:, None] * (t[:, None] * self.rr[live, None] - self.ra2[live]) + self.aa
        squared -= self.length2 * h * (2 * along - h)
        radius = self.radius[:, 0] + h * (self.radius[:, 1] - self.radius[:, 0])
        return np.sqrt(np.maximum(squared, _TINY)) - radius

    def gap(self) -> Array:
        """(n,) smallest distance of each whole ray from a capsule; below zero where it enters one."""
        rax = self.rb * self.length2
        along = self.ab * self.length2 - 0.5 * self.ra2 * rax / self.rr[:, None]
        square = np.maximum(self.length2 - rax * rax / self.rr[:, None], np.float32(1e-10))
        s = np.minimum(np.maximum(-along / square, _ZERO), _ONE)
        squared = self.aa - 0.25 * self.ra2 * self.ra2 / self.rr[:, None] + s * (2 * along + s * square)
        radius = self.radius[:, 0] + s * (self.radius[:, 1] - self.radius[:, 0])
        return (np.sqrt(np.maximum(squared, _TINY)) - radius).min(1)


def _coarse(view: MarchedView, flesh: Flesh, used: list[int], box: tuple[int, int, int, int]) -> Array:
    """Depth up to which no ray of a pixel's cell hits the hand; inf where none of them ever does (cone marching)."""
    y0, y1, x0, x1 = box
    middle = (_CELL - 1) / 2.0
    xs = ((np.arange(x0, x1, _CELL) + middle - view.cx) / view.focal_px).astype(np.float32)
    ys = ((np.arange(y0, y1, _CELL) + middle - view.cy) / view.focal_px).astype(np.float32)
    x, y = (grid.ravel() for grid in np.meshgrid(xs, ys))
    rays = _Rays(flesh, used, x, y)
    cone = np.float32(_CELL * 0.75 / view.focal_px)  # half the cell's diagonal, at depth 1, with a little to spare
    near, far = _depth_range(flesh, used)
    result = np.full(len(x), np.inf, np.float32)
    live = np.flatnonzero(rays.gap() < _BULGE_M + cone * far)
    t = np.full(len(live), near, np.float32)
    for _ in range(_COARSE_STEPS):
        nearest = rays.distances(live, t).min(1) - _BULGE_M
        touched = nearest < cone * t
        result[live[touched]] = t[touched]
        t = t + np.maximum(nearest, cone * t) / rays.length[live]
        keep = ~touched & (t < far)
        live, t = live[keep], t[keep]
        if not len(live):
            break
    result[live] = t  # not yet decided: close to the hand, the fine steps go on
    return result.reshape(len(ys), len(xs)).repeat(_CELL, 0).repeat(_CELL, 1)[: y1 - y0, : x1 - x0]


def _depth_range(flesh: Flesh, used: list[int]) -> tuple[np.float32, np.float32]:
    ends = np.stack([flesh.start[used, 2], flesh.end[used, 2]])
    return np.float32(max(0.06, ends.min() - 0.06)), np.float32(ends.max() + 0.06)


def _falloff(distance: Array, sharpness: float) -> Array:
    """exp(-k d) in place, limited for points deep inside."""
    distance *= np.float32(-sharpness)
    return np.exp(np.minimum(distance, np.float32(60), out=distance), out=distance)


def _fine(
    view: MarchedView, flesh: Flesh, used: list[int], capsules: list[_Capsule], start: Array, rr: Array
) -> tuple[Array, Array]:
    """Depth of the smooth union for each pixel, or of the closest approach, and the share of the pixel that it
    covers."""
    live = np.isfinite(start)
    t = np.where(live, start, _ONE)
    length = np.sqrt(rr)
    closest, closest_t = np.full(t.shape, np.inf, np.float32), t.copy()
    for step in range(_FINE_STEPS):
        total = np.full(t.shape, 1e-30, np.float32)
        for c in capsules:
            total[c.at] += _falloff(c.distance(t[c.at])[0], _SHARPNESS)
        distance = np.log(total) * np.float32(-1.0 / _SHARPNESS)
        _keep_closest(closest, closest_t, distance / t, t)
        if step < _FINE_STEPS - 1:
            t = t + distance / length
    pixel = np.float32(1.0 / view.focal_px)
    slow = np.nonzero(live & (distance > _CLOSE_PX * pixel * t) & (t < _depth_range(flesh, used)[1]))
    if len(slow[0]):
        x, y = capsules[0].full_x[0, slow[1]], capsules[0].full_y[slow[0], 0]
        first = (t + distance / length)[slow]
        far = float(_depth_range(flesh, used)[1])
        _finish_slow(_Rays(flesh, used, x, y), first, (slow[0], slow[1]), closest, closest_t, far, float(pixel))
    coverage = np.clip(1.0 - closest * view.focal_px, 0.0, 1.0) * live
    return closest_t, coverage.astype(np.float32)


def _keep_closest(closest: Array, closest_t: Array, ratio: Array, t: Array) -> None:
    better = ratio < closest
    np.copyto(closest, ratio, where=better)
    np.copyto(closest_t, t, where=better)


def _finish_slow(
    rays: _Rays, t: Array, at: tuple[NDArray, NDArray], closest: Array, closest_t: Array, far: float, pixel: float
) -> None:
    """Go on with rays that graze a finger: they need many short steps to reach what lies behind it."""
    live = np.flatnonzero(rays.gap() < 0.0015)  # farther out the union bulges only in the webs between fingers
    t = t[live]
    for _ in range(_SLOW_STEPS):
        nearest = rays.distances(live, t)
        total = _falloff(nearest, _SHARPNESS).sum(1)
        distance = np.log(np.maximum(total, np.float32(1e-30))) * np.float32(-1.0 / _SHARPNESS)
        pixels = (at[0][live], at[1][live])
        better = distance / t < closest[pixels]
        chosen = (pixels[0][better], pixels[1][better])
        closest[chosen], closest_t[chosen] = (distance / t)[better], t[better]
        t = t + np.maximum(1.2 * distance, _CLOSE_PX * pixel * t) / rays.length[live]
        keep = (distance > _CLOSE_PX * pixel * t) & (t < far)
        live, t = live[keep], t[keep]
        if not len(live):
            return


def _surface(flesh: Flesh, capsules: list[_Capsule], t: Array, paint: Paint) -> tuple[Array, Array, NDArray[np.intp]]:
    """Unit normals and albedo, planar (3, h, w), and each pixel's nearest capsule, which gives its colour."""
    best, owner = np.zeros(t.shape, np.float32), np.zeros(t.shape, np.intp)
    scale, foot = np.full(t.shape, 1e-20, np.float32), np.zeros((3, *t.shape), np.float32)
    for c in capsules:
        distance, h, from_axis = c.distance(t[c.at])
        weight = np.exp(np.minimum(distance * np.float32(-_SHARPNESS), np.float32(6)))
        nearer = weight > best[c.at]
        np.copyto(best[c.at], weight, where=nearer)
        np.copyto(owner[c.at], c.index, where=nearer)
        weight /= from_axis
        scale[c.at] += weight
        for k in range(3):  # the gradient is sum w (p - foot) / |p - foot|
            foot[k][c.at] += weight * (np.float32(c.a[k]) + np.float32(c.axis[k]) * h)
    normal = np.stack([t * capsules[0].full_x, t * capsules[0].full_y, t]) * scale - foot
    normal /= np.maximum(np.sqrt((normal * normal).sum(0)), 1e-20)
    colour = np.zeros_like(normal)
    where = np.nonzero(best > 1e-3)
    x, y = capsules[0].full_x[0, where[1]], capsules[0].full_y[where[0], 0]
    points = t[where] * np.stack([x, y, np.ones_like(x)])
    colour[:, where[0], where[1]] = _painted(flesh, points, owner[where], paint)
    return normal, colour, owner


def _painted(flesh: Flesh, points: Array, owner: NDArray[np.intp], paint: Paint) -> Array:
    """Albedo (3, n) of surface points (3, n): mottled skin, pale palm, creases over the joints, nails, sleeve."""

    def dot(vectors: NDArray, scale: NDArray | float = 1.0) -> Array:
        v = (vectors * np.reshape(scale, (-1, 1))).astype(np.float32).T
        at_start = ((vectors * flesh.start).sum(1) * scale).astype(np.float32)
        return sum(v[k][owner] * points[k] for k in range(3)) - at_start[owner]

    axis = flesh.end - flesh.start
    length = np.maximum(np.linalg.norm(axis, axis=1), 1e-6)
    along, across, up = dot(axis, 1 / length), dot(flesh.lateral), dot(flesh.dorsal)
    facing = up / np.maximum(np.sqrt(across * across + up * up), 1e-6)  # 1: back of the hand, -1: palm
    kind, size = flesh.kind[owner], np.float32(1500)
    shade = 1 + paint.mottle[(along * size).astype(np.int32) & 127, (across * size).astype(np.int32) & 127]
    shade += np.float32(0.07) * np.maximum(-facing, 0) * (kind < FOREARM)
    shade -= np.float32(0.10) * np.exp(-((along / np.float32(0.0022)) ** 2)) * ((kind <= TIP) & (facing > 0.1))
    skin = paint.skin.astype(np.float32)[:, None]
    colour = np.where(kind == SLEEVE, paint.sleeve.astype(np.float32)[:, None], skin) * shade
    tip = kind == TIP
    radius = flesh.radius[:, 1].astype(np.float32)[owner]
    nail = np.clip((along - np.float32(0.45) * length.astype(np.float32)[owner]) / np.float32(0.002), 0, 1)
    nail *= np.clip((facing - np.float32(0.45)) / np.float32(0.15), 0, 1)
    nail *= np.clip((np.float32(0.80) * radius - np.abs(across)) / np.float32(0.001), 0, 1) * np.float32(0.85) * tip
    pink = np.minimum(skin * np.float32(0.75) + np.array([[0.25], [0.19], [0.18]], np.float32), 1)
    return colour + nail * (pink - colour)


def _openness(capsules: list[_Capsule], t: Array, normal: Array) -> Array:
    """Ambient openness 0 to 1: distance of the hand from a point 9 mm above its surface, over 9 mm.

    The point is the one on the pixel's own ray at that height, so that what is fixed along the ray can be reused.
    Source: Quilez, "Rendering Worlds With Two Triangles", NVScene 2008 (ambient occlusion from distances).
    """
    height = np.float32(0.009)
    toward = -(normal[0] * capsules[0].full_x + normal[1] * capsules[0].full_y + normal[2])
    lifted = t - height * np.minimum(np.float32(1) / np.maximum(toward, np.float32(0.5)), 2)
    distance = np.full(t.shape, height, np.float32)
    for c in capsules:
        np.minimum(distance[c.at], c.distance(lifted[c.at])[0], out=distance[c.at])
    return np.clip(0.35 + 0.65 * (distance + 0.002) / height, 0.25, 1.0)
