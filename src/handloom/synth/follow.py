"""Surface points followed through a rendered clip, exactly: every piece of the scene is rigid."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from handloom.errors import ShapeError
from handloom.schemas.values import LEFT, RIGHT
from handloom.synth.truth import DEPTH_UNIT_M, Truth

Array = NDArray[np.float64]

NOTHING, STILL, LEFT_HAND, RIGHT_HAND, OBJECT = -1, 0, 1, 2, 3
"""What a pixel shows, in `Truth.ids` and `SurfaceTracks.kind`: OBJECT + i is object i."""
SOMEONE_ELSE = 255
"""In `Truth.ids`: flesh of another person, which is not followed (as an int8 it is NOTHING)."""

_TOLERANCE, _TOLERANCE_M = 0.015, 0.003
_TURNED_AWAY = -0.1  # cosine: flesh is thin, by depth alone the far side of a fingertip would count as visible


@dataclass(frozen=True)
class SurfaceTracks:
    """Surface points through a clip. px: (T, N, 2), NaN behind the camera. cam_m, world_m: (T, N, 3).

    visible: (T, N), in the image and not hidden. kind: (N,) int8, STILL, LEFT_HAND, RIGHT_HAND, OBJECT + i, or NOTHING
    where the query shows no surface (then NaN and never visible). query_px: (N, 2); query_frame: (N,).
    """

    px: Array
    cam_m: Array
    world_m: Array
    visible: NDArray[np.bool_]
    kind: NDArray[np.int8]
    query_px: Array
    query_frame: NDArray[np.int64]


def follow(truth: Truth, query_px: Array, query_frame: NDArray[np.integer[Any]]) -> SurfaceTracks:
    """The surface points at pixels (N, 2) of frames (N,), followed through the clip.

    Points of the still scene and of objects move rigidly with them, points of hands with the nearest piece of flesh. A
    point is visible where it lies in the image and the maps show, within a pixel, the same thing at its depth (within
    1.5 % and 3 mm).

    Raises:
        ShapeError: shapes or frame numbers do not fit. ConfigError: a truth without maps.
    """
    query_px, begin = np.asarray(query_px, float), np.asarray(query_frame, np.int64)
    num = len(truth.frame_s)
    if query_px.shape != (len(begin), 2) or ((begin < 0) | (begin >= num)).any():
        raise ShapeError(f"queries of shape {query_px.shape} and {begin.shape}, expected (N, 2) and (N,) < {num}")
    depth_m, kind = _seen(truth, query_px, begin)
    cam = truth.lens.rays(query_px) * depth_m[:, None]
    pose = truth.world_from_camera[begin]
    first = np.einsum("nij,nj->ni", pose[:, :3, :3], cam) + pose[:, :3, 3]
    world, away = _carried(truth, first, begin, kind)
    turned = truth.world_from_camera[:, :3, :3]
    cam = np.einsum("tji,tnj->tni", turned, world - truth.world_from_camera[:, None, :3, 3])
    px = truth.lens.project(cam)
    at = (begin, np.arange(len(kind)))
    px[at] = np.where(np.isfinite(px[at]), query_px, np.nan)
    visible = _visible(truth, px, cam[..., 2], kind) & ~away
    visible[at] = kind != NOTHING
    return SurfaceTracks(px, cam, world, visible, kind, query_px, begin)


def follow_drawn(truth: Truth, num: int = 256, seed: int = 0) -> SurfaceTracks:
    """`num` random surface points on hands, objects and the still scene, followed through the clip."""
    return follow(truth, *draw_queries(truth.maps()[1], num, seed))


def draw_queries(ids: NDArray[np.uint8], num: int, seed: int) -> tuple[Array, NDArray[np.int64]]:
    """`num` random pixels (N, 2) and frames (N,): two fifths on hands, as many on objects, the rest on the still
    scene."""
    rng = np.random.default_rng([seed, 5])
    frames = np.sort(rng.choice(len(ids), min(len(ids), 12), replace=False))
    wanted = np.repeat([0, 1, 2], [num - 2 * (2 * num // 5), 2 * num // 5, 2 * num // 5])
    group = np.where(ids[frames] < OBJECT, (ids[frames] > STILL).astype(np.int8), 2)
    px, at = [], []
    for name in range(3):
        places = np.argwhere(group == name)
        if not len(places):
            places = np.argwhere(group == STILL)
        chosen = places[rng.integers(len(places), size=int((wanted == name).sum()))]
        px.append(chosen[:, [2, 1]].astype(float))
        at.append(frames[chosen[:, 0]])
    return np.concatenate(px), np.concatenate(at)


def _seen(truth: Truth, px: Array, frame: NDArray[np.int64]) -> tuple[Array, NDArray[np.int8]]:
    """Depth (N,) and kind (N,) at pixels; the depth is interpolated where the pixel's neighbours show the same
    surface."""
    depth, ids = truth.maps()
    inside = truth.lens.inside(px)
    safe = np.where(inside[:, None], px, 0.0)
    x, y = np.rint(safe).astype(int).T
    from_truth = depth[frame, y, x] * DEPTH_UNIT_M
    kind = np.where(inside & (from_truth > 0), ids[frame, y, x].astype(np.int8), np.int8(NOTHING))
    low = np.clip(np.floor(safe).astype(int), 0, truth.size - 2)
    share = safe - low
    inverse, same = np.zeros(len(px)), np.ones(len(px), bool)
    for dx, dy in ((0, 0), (1, 0), (0, 1), (1, 1)):
        near = depth[frame, low[:, 1] + dy, low[:, 0] + dx] * DEPTH_UNIT_M
        same &= (ids[frame, low[:, 1] + dy, low[:, 0] + dx] == kind) & (np.abs(near - from_truth) < 0.02 * from_truth)
        weight = (share[:, 0] if dx else 1 - share[:, 0]) * (share[:, 1] if dy else 1 - share[:, 1])
        inverse += weight / np.maximum(near, DEPTH_UNIT_M)
    out = np.where(same, 1 / np.maximum(inverse, 1e-9), from_truth)
    return np.where(kind == NOTHING, np.nan, out), kind


def _carried(
    truth: Truth, first: Array, frame: NDArray[np.int64], kind: NDArray[np.int8]
) -> tuple[Array, NDArray[np.bool_]]:
    """World places (T, N, 3) of points that lie at `first` (N, 3) in their frames; and (T, N) where they are on flesh
    that faces away from the camera."""
    num = len(truth.frame_s)
    world = np.tile(np.where((kind == NOTHING)[:, None], np.nan, first), (num, 1, 1))
    away = np.zeros((num, len(kind)), bool)
    for i in range(truth.world_from_object.shape[1]):
        on = np.flatnonzero(kind == OBJECT + i)
        world[:, on] = _with_body(truth.world_from_object[:, i], first[on], frame[on])
    for hand, name in ((LEFT, LEFT_HAND), (RIGHT, RIGHT_HAND)):
        on = np.flatnonzero(kind == name)
        if not len(on):
            continue
        bone, normal = _nearest_flesh(truth, hand, first[on], frame[on])
        for c in np.unique(bone):
            these, pose = on[bone == c], truth.world_from_bone[:, hand, c]
            world[:, these] = _with_body(pose, first[these], frame[these])
            local = np.einsum("nji,nj->ni", pose[frame[these], :3, :3], normal[bone == c])
            outward = np.einsum("tij,nj->tni", pose[:, :3, :3], local)
            sight = truth.world_from_camera[:, None, :3, 3] - world[:, these]
            cosine = (outward * sight).sum(-1) / np.linalg.norm(sight, axis=-1)
            away[:, these] = cosine < _TURNED_AWAY
    return world, away


def _with_body(world_from_body: Array, first: Array, frame: NDArray[np.int64]) -> Array:
    """(T, n, 3) world places of points on a body (T, 4, 4) that lie at `first` (n, 3) in their frames (n,)."""
    rotation, origin = world_from_body[:, :3, :3], world_from_body[:, :3, 3]
    local = np.einsum("nji,nj->ni", rotation[frame], first - origin[frame])
    return np.einsum("tij,nj->tni", rotation, local) + origin[:, None]


def _nearest_flesh(truth: Truth, hand: int, points: Array, frame: NDArray[np.int64]) -> tuple[NDArray[np.intp], Array]:
    """Index (n,) of the cone whose surface is nearest to each point, and the outward normal there (n, 3), world."""
    start = truth.world_from_bone[frame, hand, :, :3, 3]
    axis = truth.bone_end_m[frame, hand] - start
    from_start = points[:, None] - start
    h = np.clip((from_start * axis).sum(-1) / np.maximum((axis * axis).sum(-1), 1e-12), 0.0, 1.0)
    from_axis = from_start - h[..., None] * axis
    radius = truth.bone_radius_m[hand]
    distance = np.linalg.norm(from_axis, axis=-1) - (radius[:, 0] + h * (radius[:, 1] - radius[:, 0]))
    bone = distance.argmin(axis=1)
    normal = from_axis[np.arange(len(points)), bone]
    return bone, normal / np.maximum(np.linalg.norm(normal, axis=1, keepdims=True), 1e-9)


def _visible(truth: Truth, px: Array, depth_m: Array, kind: NDArray[np.int8]) -> NDArray[np.bool_]:
    depth, ids = truth.maps()
    inside = truth.lens.inside(px) & (depth_m > 0)
    x, y = np.rint(np.where(inside[..., None], px, 0.0)).astype(np.int64).transpose(2, 0, 1)
    frame = np.arange(len(px))[:, None]
    allowed = _TOLERANCE * depth_m + _TOLERANCE_M
    found = np.zeros(inside.shape, bool)
    for dx in (-1, 0, 1):
        for dy in (-1, 0, 1):
            column, row = np.clip(x + dx, 0, truth.size[0] - 1), np.clip(y + dy, 0, truth.size[1] - 1)
            gap = np.abs(depth[frame, row, column] * DEPTH_UNIT_M - depth_m)
            found |= (ids[frame, row, column] == kind) & (gap < allowed)
    return inside & found
