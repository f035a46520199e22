"""A clip's tracks as ARM4R's points, and values in place of unknown ones."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from handloom.geometry.tracks.arm4r import arm4r_points
from handloom.geometry.tracks.arm4r_scale import SIDE
from handloom.geometry.tracks.stored_grids import TRACK_OF, WORLD, StoredGrids
from handloom.schemas.tables.row import row_camera
from handloom.schemas.values import CameraPath, LiftedTracks, TrackKind, Tracks, VideoInfo

Points = NDArray[np.float32]


def clip_points(row: Mapping[str, Any]) -> Points | None:
    """(T, 1296, 3) of a row of `clips`, NaN where unknown; None where its tracks do not begin with ARM4R's grid.

    u and v are where the image shows a point, its lens's distortion included; z is along the optical axis.

    Points at rest in the world are known in every frame with a pose in metres, also hidden ones (see `arm4r_points`).
    """
    kind = row["track_kind"]
    if kind is None or not (
        (kind[: SIDE * SIDE] == TrackKind.GRID).all() and (kind == TrackKind.GRID).sum() == SIDE**2
    ):
        return None
    visible = row["track_visible"]
    depth_m = row["track_depth_m"]
    depth_m = np.full(visible.shape, np.nan, np.float32) if depth_m is None else depth_m
    tracks = Tracks(row["track_points_px"], visible, row["track_query_frame"], kind)
    info = VideoInfo(row["width"], row["height"], 0.0, "", "", 0, 0.0, 0.0, len(visible))
    if row["world_scale"] != "metric" or row["track_points_world_m"] is None:
        return arm4r_points(tracks, LiftedTracks(depth_m, None), info)
    path = CameraPath(row["world_from_camera"].astype(np.float64), "metric", "given", unit_m=1.0)
    return arm4r_points(tracks, LiftedTracks(depth_m, row["track_points_world_m"]), info, row_camera(row), path)


def later_parts(row: Mapping[str, Any]) -> Iterator[tuple[int, dict[str, Any]]]:
    """(first frame, row) of each grid that began after the first: the clip cut to its frames, and its points alone."""
    grids = StoredGrids.of(row)
    if grids is None:
        return
    for number in range(len(grids.query_frame)):
        frames = grids.frames(number)
        part = dict(row) | {"num_frames": len(frames), "frame_s": row["frame_s"][frames]}
        for name in (*TRACK_OF.values(), WORLD, "world_from_camera"):
            if row.get(name) is not None:
                part[name] = row[name][frames] if name == "world_from_camera" else grids.take(number, name, frames)
        part["track_kind"] = np.full(grids.num_points, TrackKind.GRID, np.int8)
        part["track_query_frame"] = np.full(grids.num_points, grids.query_frame[number] - frames[0], np.int32)
        part["frame_jpeg"] = None if row["frame_jpeg"] is None else [row["frame_jpeg"][t] for t in frames.tolist()]
        yield int(frames[0]), part


def held(points: Points) -> Points:
    """(T, N, 3) without NaN: the last known value, before it the first known one.

    A depth that is never known is that of the point which is nearest at the first frame, and held likewise. A point
    that is never seen, or a clip without any depth, stays NaN.
    """
    found = _held_in_time(points)
    never = np.isnan(found[0, :, 2])
    if never.any() and not never.all():
        place = found[0, :, :2].astype(np.float64)
        known = np.flatnonzero(~never)
        for point in np.flatnonzero(never):
            nearest = known[np.argmin(((place[known] - place[point]) ** 2).sum(axis=-1))]
            found[:, point, 2] = found[:, nearest, 2]
    return found


def _held_in_time(points: Points) -> Points:
    known = np.isfinite(points)
    time = np.arange(len(points))[:, None, None]
    last = np.maximum.accumulate(np.where(known, time, -1), axis=0)
    first = np.argmax(known, axis=0)[None]
    return np.take_along_axis(points, np.where(last < 0, first, last), axis=0)
