"""Tracks in 3D: still points triangulated, points on hands and in them by the hand, others from depth maps."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from handloom.errors import ShapeError
from handloom.geometry.tracks.hand import on_and_beside
from handloom.geometry.tracks.still import StillPoints, place_still_points, rays_of, seen_from, spread_of
from handloom.schemas.values import NUM_HANDS, Camera, CameraPath, DepthMaps, Hands, LiftedTracks, Tracks, VideoInfo

Floats = NDArray[np.float64]

EDGE = 1.05
"""Four neighbours that differ by more than this factor lie on both sides of an edge: the nearest pixel decides."""
MIN_PAIRS = 20
"""Fewer points than this with both depths fix no scale."""
_MAX_SPREAD = 0.35  # median deviation of the logarithm of the ratio: beyond it the two are not one scale apart


def sample_maps(maps: DepthMaps, tracks: Tracks, info: VideoInfo) -> Floats:
    """(T, N) depth at every visible point, bilinear, NaN where a map says nothing there or the point is not seen.

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


def _bilinear(depth: NDArray[np.floating], at: Floats) -> Floats:
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
"""Within this distance of a hand's bones, across the line of sight, a point that moves goes with the hand."""
GIVEN = "given"
"""Start of a `DepthMaps.source` that was measured: it comes before what hands tell."""


def lift_tracks(
    tracks: Tracks,
    hands: Hands,
    path: CameraPath,
    camera: Camera,
    maps: DepthMaps | None,
    info: VideoInfo,
    places: bool = True,
) -> LiftedTracks:
    """Depth of every visible point where something tells it, and its place in the world where poses are metric.

    In this order: triangulated over the clip (the point rests, the camera moved enough, the path is metric); measured
    maps; the hand's surface where a point lies on it; the hand's depth where a point moves and is held; other maps.
    Metres throughout: a path of arbitrary scale is used only with metric maps that fix its scale, maps of arbitrary
    scale only where enough triangulated or hand depths fix theirs. NaN where nothing tells, and where not visible.

    places: whether places in the world are wanted.

    Returns:
        depth_m (T, N) along the optical axis; points_world_m (T, N, 3), None unless `path.scale` is `metric`.
    """
    if maps is None and path.scale != "metric" and not np.isfinite(hands.keypoints_cam_m).any():
        return LiftedTracks(np.full(tracks.visible.shape, np.nan, np.float32), None)  # nothing tells of metres
    rays = rays_of(tracks.points_px, camera)
    rays[~tracks.visible] = np.nan
    sampled = None if maps is None else sample_maps(maps, tracks, info)
    still = _still_points(tracks, rays, path, camera)
    metric = sampled if maps is not None and maps.scale == "metric" else None
    depth = _still_depth(still, path, metric, tracks.visible.shape)
    on_hand = hand_depth(rays, hands, still, depth)
    if sampled is not None and maps.scale != "metric":
        sampled = scale_to(sampled, np.where(np.isfinite(depth), depth, on_hand))
    measured = maps is not None and maps.source.startswith(GIVEN)
    for more in (sampled, on_hand) if measured else (on_hand, sampled):
        if more is not None:
            depth = np.where(np.isfinite(depth), depth, more)
    depth[~tracks.visible] = np.nan
    placed = places and path.scale == "metric" and path.world_from_camera is not None
    world = _world(rays, depth, still, path) if placed else None
    return LiftedTracks(depth.astype(np.float32), None if world is None else world.astype(np.float32))


def _still_points(tracks: Tracks, rays: Floats, path: CameraPath, camera: Camera) -> StillPoints | None:
    if path.world_from_camera is None or path.scale == "none":
        return None
    return place_still_points(tracks, rays, path.world_from_camera, spread_of(rays, camera))


def _still_depth(still: StillPoints | None, path: CameraPath, metric: Floats | None, shape: tuple[int, ...]) -> Floats:
    """(T, N) metres; all NaN where there is no metric scale to be had."""
    if still is None or (path.scale != "metric" and metric is None):
        return np.full(shape, np.nan)
    depth = np.where(still.at_rest, seen_from(still.place, path.world_from_camera)[2], np.nan)
    return depth if path.scale == "metric" else scale_to(depth, metric)


def hand_depth(rays: Floats, hands: Hands, still: StillPoints | None, known: Floats) -> Floats:
    """(T, N) depth of points that lie on a hand or are held by one, metres, NaN elsewhere.

    rays: (T, N, 3), NaN where not visible. still: points seen at rest are on no hand; None: that is not known, and
    then no point is taken to be held. known: (T, N) depths of the points at rest: one that was picked up keeps the
    difference to the hand's depth that it had when the hand came.
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
    """(T, N): depth of the nearer hand plus the difference a point had to it while it rested beside it (0 unknown)."""
    z = np.fmin(hand_z[..., 0], hand_z[..., 1])
    moving = seen & ~still.at_rest & (still.moves | np.isfinite(still.place[:, 0]))
    held, apart = moving & np.isfinite(z), known - z
    out = np.where(held, z, np.nan)
    for n in np.flatnonzero(held.any(axis=0) & np.isfinite(apart).any(axis=0)):
        beside = np.flatnonzero(np.isfinite(apart[:, n]))
        nearest = beside[np.argsort(np.abs(beside - held[:, n].argmax()), kind="stable")[:5]]
        out[:, n] += float(np.clip(np.median(apart[nearest, n]), -HELD_M, HELD_M))
    return out


def _world(rays: Floats, depth: Floats, still: StillPoints | None, path: CameraPath) -> Floats:
    """(T, N, 3); a point at rest has one place, the others lie on their rays."""
    cam = rays * depth[..., None]
    poses = path.world_from_camera
    world = sum(cam[..., i, None] * poses[:, None, :3, i] for i in range(3)) + poses[:, None, :3, 3]
    fixed = still.at_rest & np.isfinite(depth)
    return np.where(fixed[..., None], still.place[None], world)
