"""Long clips piece by piece, where a stage's memory would grow with frames times tracks."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from handloom.geometry.tracks.lift import lift_tracks
from handloom.schemas.values import Camera, CameraPath, DepthMaps, Hands, LiftedTracks, Tracks, VideoInfo

PIECE = 1200
"""Frames lifted at once: 80 s at 15 Hz. 1552 tracks then take 0.5 GB for a moment; ten minutes at once took 2."""


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
    """`lift_tracks`, of clips longer than `piece` frames in equal parts: a point at rest has one place in each part."""
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
    return LiftedTracks(depth, np.concatenate([_world(part) for part in parts]))


def lift_later(
    tracks: Tracks, hands: Hands, path: CameraPath, camera: Camera, maps: DepthMaps | None, info: VideoInfo
) -> tuple[NDArray[np.float32], ...]:
    """(L, G) depth of each later grid, from the frames it is followed in; depth and pose give its world points."""
    found = []
    for grid in tracks.grids or ():
        at = slice(grid.first_frame, grid.first_frame + len(grid.visible))
        one = Tracks.of_grid(grid.points_px, grid.visible)
        part_maps = None if maps is None else replace(maps, depth_m=maps.depth_m[at])
        part = (one, _hands(hands, at), _path(path, at), camera, part_maps, info)
        found.append(lift_in_pieces(*part, places=False).depth_m)
    return tuple(found)


def _world(part: LiftedTracks) -> NDArray[np.float32]:
    """A part without poses has no places: NaN."""
    known = part.points_world_m
    return np.full((*part.depth_m.shape, 3), np.nan, np.float32) if known is None else known


def _tracks(tracks: Tracks, at: slice) -> Tracks:
    return replace(tracks, points_px=tracks.points_px[at], visible=tracks.visible[at])


def _hands(hands: Hands, at: slice) -> Hands:
    values = {name: getattr(hands, name) for name in ("visible", "infilled", "confidence", "keypoints_px")}
    values |= {"keypoints_cam_m": hands.keypoints_cam_m, "sigma_m": hands.sigma_m}
    return replace(hands, **{name: None if value is None else value[at] for name, value in values.items()})


def _path(path: CameraPath, at: slice) -> CameraPath:
    poses = path.world_from_camera
    if poses is None:
        return path
    if not np.isfinite(poses[at]).all(axis=(1, 2)).any():
        return CameraPath(None, "none", "none", path.reason)
    return replace(path, world_from_camera=poses[at])
