"""Tracks in 3D: still points are triangulated, points on hands and held ones go by the hand, others by depth maps."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from handloom.errors import ShapeError
from handloom.geometry.camera.world import rays_of
from handloom.geometry.tracks.hand import on_and_beside
from handloom.geometry.tracks.still import StillPoints, place_still_points, seen_from, spread_of
from handloom.schemas.values import NUM_HANDS, Camera, CameraPath, DepthMaps, Hands, LiftedTracks, Tracks, VideoInfo

Floats = NDArray[np.float64]

EDGE = 1.05
"""Four neighbouring depths that differ by more than this factor lie on both sides of an edge: the nearest is taken."""
MIN_PAIRS = 20
"""Least number of points with both depths to find the scale between them."""
PIECE = 1200
"""Frames lifted at once: 80 s at 15 Hz. 1552 tracks need up to 0.5 GB; ten minutes at once needed 2."""
_MAX_SPREAD = 0.35  # largest median deviation of the log ratio of two depths that differ by one scale


def sample_maps(maps: DepthMaps, tracks: Tracks, info: VideoInfo) -> Floats:
    """(T, N) depth at every visible point, bilinear; NaN where a map has no depth there or the point is not visible.

    Raises:
        ShapeError: the maps have another number of frames than the tracks.
    """
    num_frames, height, width = maps.depth_m.shape
    if num_frames != len(tracks.visible):
        raise ShapeError(f"{num_frames} depth maps for {len(tracks.visible)} frames of tracks")
    out = np.full(tracks.visible.shape, np.nan)
    scale = np.array([width / info.width, height / info.height])
    for t in range(num_frames):
        seen = np.flatnonzero(tracks.visible[t] & np.isfinite(tracks.points_px[t]).all(-1))
        at = (tracks.points_px[t, seen].astype(np.float64) + 0.5) * scale - 0.5
        out[t, seen] = _bilinear(maps.depth_m[t], at)
    return out


def _bilinear(depth: NDArray[np.floating[Any]], at: Floats) -> Floats:
    height, width = depth.shape
    at = np.clip(at, 0, [width - 1, height - 1])
    low = np.floor(at).astype(int)
    high = np.minimum(low + 1, [width - 1, height - 1])
    fx, fy = (at - low).T
    corners = np.stack([depth[y, x] for y in (low[:, 1], high[:, 1]) for x in (low[:, 0], high[:, 0])], -1)
    corners = corners.astype(np.float64)
    corners[~(np.isfinite(corners) & (corners > 0))] = np.nan
    weight = np.stack([(1 - fx) * (1 - fy), fx * (1 - fy), (1 - fx) * fy, fx * fy], -1)
    smooth = np.sum(weight * corners, axis=-1)
    nearest = corners[np.arange(len(at)), weight.argmax(-1)]
    flat = corners.max(-1) <= EDGE * corners.min(-1)  # false where one of them is NaN
    return np.where(flat, smooth, nearest)


def scale_to(depth: Floats, metric: Floats) -> Floats:
    """`depth` times the one factor that brings it nearest to `metric` where both are known; all NaN without one."""
    both = np.isfinite(depth) & np.isfinite(metric) & (depth > 0) & (metric > 0)
    if both.sum() < MIN_PAIRS:
        return np.full(depth.shape, np.nan)
    ratio = np.log(metric[both] / depth[both])
    middle = float(np.median(ratio))
    if float(np.median(np.abs(ratio - middle))) > _MAX_SPREAD:
        return np.full(depth.shape, np.nan)
    return depth * np.exp(middle)


HELD_M = 0.06
"""A moving point within this distance of a hand's bones, across the line of sight, counts as held."""
GIVEN = "given"
"""Beginning of the `DepthMaps.source` of measured maps, which go before the hands' depth."""


def lift_tracks(
    tracks: Tracks,
    hands: Hands,
    path: CameraPath,
    camera: Camera,
    maps: DepthMaps | None,
    info: VideoInfo,
    places: bool = True,
) -> LiftedTracks:
    """Depth of visible points, as far as there is a source for it, and their places in the world where poses are
    metric.

    The sources, in this order: triangulation over the clip (the point rests, the camera moved enough, the path is
    metric); measured maps; the hand's surface where a point lies on it; the hand's depth where a point moves and is
    held; other maps. Depth is in metres: a path of arbitrary scale is used only with metric maps that give its scale,
    maps of arbitrary scale only with enough triangulated or hand depths that give theirs.

    places: whether to make places in the world.

    Returns:
        depth_m (T, N) along the optical axis, NaN unknown or not visible; points_world_m (T, N, 3), None unless
        `path.scale` is `metric`.
    """
    if maps is None and path.scale != "metric" and not np.isfinite(hands.keypoints_cam_m).any():
        return LiftedTracks(np.full(tracks.visible.shape, np.nan, np.float32), None)  # there is no source of metres
    rays = rays_of(tracks.points_px, camera)
    rays[~tracks.visible] = np.nan
    sampled = None if maps is None else sample_maps(maps, tracks, info)
    still = _still_points(tracks, rays, path, camera)
    metric = sampled if maps is not None and maps.scale == "metric" else None
    depth = _still_depth(still, path, metric, tracks.visible.shape)
    on_hand = hand_depth(rays, hands, still, depth)
    if sampled is not None and metric is None:
        sampled = scale_to(sampled, np.where(np.isfinite(depth), depth, on_hand))
    measured = maps is not None and maps.source.startswith(GIVEN)
    for more in (sampled, on_hand) if measured else (on_hand, sampled):
        if more is not None:
            depth = np.where(np.isfinite(depth), depth, more)
    depth[~tracks.visible] = np.nan
    if not places or path.scale != "metric" or path.world_from_camera is None or still is None:
        return LiftedTracks(depth.astype(np.float32), None)
    world = _world(rays, depth, still, path.world_from_camera)
    return LiftedTracks(depth.astype(np.float32), world.astype(np.float32))


def _still_points(tracks: Tracks, rays: Floats, path: CameraPath, camera: Camera) -> StillPoints | None:
    if path.world_from_camera is None or path.scale == "none":
        return None
    return place_still_points(tracks, rays, path.world_from_camera, spread_of(rays, camera))


def _still_depth(still: StillPoints | None, path: CameraPath, metric: Floats | None, shape: tuple[int, ...]) -> Floats:
    """(T, N) metres; all NaN where no metric scale is available."""
    if still is None or path.world_from_camera is None:
        return np.full(shape, np.nan)
    depth = np.where(still.at_rest, seen_from(still.place, path.world_from_camera)[2], np.nan)
    if path.scale == "metric":
        return depth
    return np.full(shape, np.nan) if metric is None else scale_to(depth, metric)


def hand_depth(rays: Floats, hands: Hands, still: StillPoints | None, known: Floats) -> Floats:
    """(T, N) depth of points that lie on a hand or are held by one, metres, NaN elsewhere.

    rays: (T, N, 3), NaN where not visible. still: points at rest are on no hand; None: unknown, then no point counts as
    held. known: (T, N) depths of the points at rest: one that is picked up keeps the difference from the hand's depth
    that it had when the hand came.
    """
    depth = np.full(rays.shape[:2], np.nan)
    rest = np.zeros(depth.shape, bool) if still is None else still.at_rest
    held_from = np.full((*depth.shape, NUM_HANDS), np.nan)
    for t, hand in np.argwhere(np.isfinite(hands.keypoints_cam_m).all(axis=(2, 3))):
        keypoints = hands.keypoints_cam_m[t, hand].astype(np.float64)
        if (keypoints[:, 2] <= 0.01).any():
            continue
        seen = np.flatnonzero(np.isfinite(rays[t, :, 0]))
        surface, held_from[t, seen, hand] = on_and_beside(rays[t, seen], keypoints, HELD_M)
        surface[rest[t, seen]] = np.nan
        depth[t, seen] = np.fmin(depth[t, seen], surface)
    if still is None:
        return depth
    held = _held_depth(held_from, still, known, np.isfinite(rays[..., 0]))
    return np.where(np.isfinite(depth), depth, held)


def _held_depth(hand_z: Floats, still: StillPoints, known: Floats, seen: NDArray[np.bool_]) -> Floats:
    """(T, N) depth of the nearer hand plus the point's difference from it while it rested beside it (0 if unknown)."""
    z = np.fmin(hand_z[..., 0], hand_z[..., 1])
    moving = seen & ~still.at_rest & (still.moves | np.isfinite(still.place[:, 0]))
    held, apart = moving & np.isfinite(z), known - z
    out = np.where(held, z, np.nan)
    for n in np.flatnonzero(held.any(axis=0) & np.isfinite(apart).any(axis=0)):
        beside = np.flatnonzero(np.isfinite(apart[:, n]))
        nearest = beside[np.argsort(np.abs(beside - held[:, n].argmax()), kind="stable")[:5]]
        out[:, n] += float(np.clip(np.median(apart[nearest, n]), -HELD_M, HELD_M))
    return out


def _world(rays: Floats, depth: Floats, still: StillPoints, poses: Floats) -> Floats:
    """(T, N, 3) places, metres: one for all frames in which a point rests, in other frames on the point's ray."""
    cam = rays * depth[..., None]
    turned = [cam[..., i, None] * poses[:, None, :3, i] for i in range(3)]
    world = turned[0] + turned[1] + turned[2] + poses[:, None, :3, 3]
    fixed = still.at_rest & np.isfinite(depth)
    return np.where(fixed[..., None], still.place[None], world)


def lift_in_pieces(
    tracks: Tracks,
    hands: Hands,
    path: CameraPath,
    camera: Camera,
    maps: DepthMaps | None,
    info: VideoInfo,
    piece: int = PIECE,
    places: bool = True,
) -> LiftedTracks:
    """`lift_tracks`, in equal parts for clips longer than `piece` frames: a point at rest has one place in each
    part."""
    num_frames = len(tracks.visible)
    num = max(1, -(-num_frames // piece))
    edges = np.linspace(0, num_frames, num + 1).round().astype(int)
    parts = []
    for start, end in itertools.pairwise(edges):
        at = slice(start, end)
        part = (_tracks(tracks, at), _hands(hands, at), _path(path, at), camera)
        part_maps = None if maps is None else replace(maps, depth_m=maps.depth_m[at])
        parts.append(lift_tracks(*part, part_maps, info, places))
    if num == 1:
        return parts[0]
    depth = np.concatenate([part.depth_m for part in parts])
    if all(part.points_world_m is None for part in parts):
        return LiftedTracks(depth, None)
    return LiftedTracks(depth, np.concatenate([_places(part) for part in parts]))


def lift_later(
    tracks: Tracks, hands: Hands, path: CameraPath, camera: Camera, maps: DepthMaps | None, info: VideoInfo
) -> tuple[NDArray[np.float32], ...]:
    """(L, G) depth of each later grid in the L frames in which it is followed, metres, NaN unknown."""
    found = []
    for grid in tracks.grids or ():
        at = slice(grid.first_frame, grid.first_frame + len(grid.visible))
        one = Tracks.of_grid(grid.points_px, grid.visible)
        part_maps = None if maps is None else replace(maps, depth_m=maps.depth_m[at])
        part = (one, _hands(hands, at), _path(path, at), camera, part_maps, info)
        found.append(lift_in_pieces(*part, places=False).depth_m)
    return tuple(found)


def _places(part: LiftedTracks) -> NDArray[np.float32]:
    """(T, N, 3) places of a part; NaN for one without poses."""
    known = part.points_world_m
    return np.full((*part.depth_m.shape, 3), np.nan, np.float32) if known is None else known


def _tracks(tracks: Tracks, at: slice) -> Tracks:
    return replace(tracks, points_px=tracks.points_px[at], visible=tracks.visible[at])


def _hands(hands: Hands, at: slice) -> Hands:
    return replace(
        hands,
        visible=hands.visible[at],
        infilled=hands.infilled[at],
        confidence=hands.confidence[at],
        keypoints_px=hands.keypoints_px[at],
        keypoints_cam_m=hands.keypoints_cam_m[at],
        sigma_m=None if hands.sigma_m is None else hands.sigma_m[at],
    )


def _path(path: CameraPath, at: slice) -> CameraPath:
    poses = path.world_from_camera
    if poses is None:
        return path
    if not np.isfinite(poses[at]).all(axis=(1, 2)).any():
        return CameraPath(None, "none", "none", path.reason)
    return replace(path, world_from_camera=poses[at])
