"""Depth maps read at tracks, and one scale brought to another."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from handloom.errors import ShapeError
from handloom.schemas.values import DepthMaps, Tracks, VideoInfo

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
