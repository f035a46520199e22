"""Grids that begin after the first frame, read from a row: which one to take, and its values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from handloom.geometry.camera.world import rays_of, scaled_poses, to_world
from handloom.schemas.tables.later_grids import GRID_INDEX, GRID_SHAPES
from handloom.schemas.tables.row import row_camera
from handloom.schemas.values import Camera

TRACK_OF = {name: name.replace("regrid_", "track_") for name in GRID_SHAPES}
"""The `track_*` column of which each column of later grids holds values."""
WORLD, VISIBLE = "track_points_world_m", "track_visible"


@dataclass(frozen=True, eq=False)
class StoredGrids:
    """The later grids of one row: K grids of G points with R entries, one for each frame of each grid.

    query_frame: (K,) frame in which each grid began. first: (K + 1,) index of its first entry. first_frame: (K,) frame
    of that entry. visible: (R, G). columns: name (`track_*`) to (V, ...), the V visible points alone. camera, poses: of
    the row, (T, 4, 4) in metres; None where the world is unknown.
    """

    query_frame: NDArray[np.int64]
    first: NDArray[np.int64]
    first_frame: NDArray[np.int64]
    visible: NDArray[np.bool_]
    columns: Mapping[str, NDArray[Any]]
    camera: Camera | None = None
    poses: NDArray[np.float64] | None = None

    @staticmethod
    def of(row: Mapping[str, Any]) -> StoredGrids | None:
        """The later grids of a row; None where it has none: none was needed, they were switched off, or the row is from
        a version without them.

        row: of `schemas.tables.row.row_arrays`, or some of its columns, `regrid_visible` among them.
        """
        begun, frames = (row.get(name) for name in GRID_INDEX)
        if begun is None or frames is None or row.get("regrid_visible") is None or not len(begun):
            return None
        edge = np.flatnonzero(np.diff(begun, prepend=-1))
        columns = {TRACK_OF[name]: row[name] for name in GRID_SHAPES if row.get(name) is not None}
        camera = None if row.get("camera_matrix") is None else row_camera(row)
        first = np.append(edge, len(frames)).astype(np.int64)
        visible = columns.pop(VISIBLE)
        poses = scaled_poses(row.get("world_from_camera"), row.get("world_unit_m"))
        return StoredGrids(
            begun[edge].astype(np.int64), first, frames[edge].astype(np.int64), visible, columns, camera, poses
        )

    @property
    def num_points(self) -> int:
        """G."""
        return self.visible.shape[1]

    @cached_property
    def first_seen(self) -> NDArray[np.int64]:
        """(R + 1,) index of the first visible point of each entry."""
        return np.concatenate([[0], np.cumsum(self.visible.sum(axis=1))])

    def best(self, visible: NDArray[np.bool_], frames: NDArray[np.integer[Any]]) -> int | None:
        """The grid to take for these frames; None: the first frame's.

        It is the one with most points visible in all of the frames; of several, the one with most visible entries; of
        those, the newest.

        Args:
            visible: (T, N or G) of the row's tracks, the first frame's grid first.
            frames: (S,) ascending; -1 stands for no frame.
        """
        frames = frames[frames >= 0]
        if not len(frames):
            return None
        end = self.first_frame + np.diff(self.first)
        there = np.flatnonzero((self.first_frame <= frames[-1]) & (end > frames[0])).tolist()
        rank = {None: _rank(visible[frames, : self.num_points])}
        rank |= {number: _rank(self.take(number, VISIBLE, frames)) for number in there}
        most = max(rank.values())
        return [number for number, found in rank.items() if found == most][-1]

    def frames(self, grid: int) -> NDArray[np.int64]:
        """(L,) frames of the clip in which a grid is followed."""
        return np.arange(self.first[grid + 1] - self.first[grid]) + self.first_frame[grid]

    def take(self, grid: int, name: str, frames: NDArray[np.integer[Any]]) -> NDArray[Any]:
        """(S, G, ...) of the column `name` (`track_*`): NaN or False where the grid is not followed or a value is
        null."""
        if name == WORLD:
            return self._world(grid, frames)
        start, stop = self.first[grid], self.first[grid + 1]
        entry = start + frames - self.first_frame[grid]
        there = (frames >= 0) & (entry >= start) & (entry < stop)
        seen = np.zeros((len(frames), self.num_points), np.bool_)
        seen[there] = self.visible[entry[there]]
        if name == VISIBLE:
            return seen
        values = self.columns.get(name)
        if values is None:
            return np.full((len(frames), self.num_points), np.nan, np.float32)
        out = np.full((*seen.shape, *values.shape[1:]), np.nan, np.float32)
        out[seen] = values[self._numbers(entry[there])]
        return out

    def _numbers(self, entries: NDArray[np.integer[Any]]) -> NDArray[np.int64]:
        """Indices of the visible points of these entries, entry after entry."""
        first = self.first_seen[entries]
        count = self.first_seen[entries + 1] - first
        before = np.cumsum(count) - count
        return np.arange(count.sum()) + np.repeat(first - before, count)

    def _world(self, grid: int, frames: NDArray[np.integer[Any]]) -> NDArray[np.float32]:
        points, depth = (self.take(grid, name, frames) for name in ("track_points_px", "track_depth_m"))
        if self.camera is None or self.poses is None:
            return np.full((*depth.shape, 3), np.nan, np.float32)
        poses = np.where((frames >= 0)[:, None, None], self.poses[frames], np.nan)
        return world_points(points, depth, self.camera, poses)


def window_tracks(
    row: Mapping[str, Any], frames: ArrayLike, judged: ArrayLike | None = None
) -> dict[str, NDArray[Any]]:
    """The row's `track_*` columns for some frames, (S, N, ...), with the best grid for them (`StoredGrids.best`).

    Args:
        row: of `schemas.tables.row.row_arrays`.
        frames: (S,) ascending: an array, a list or a range.
        judged: frames that decide which grid is best; None: all of them.

    Returns:
        The columns that the row has, and `track_query_frame` (N,): for the grid's points the frame in which it began.
    """
    frames = np.asarray(frames, np.int64)
    judged = frames if judged is None else np.asarray(judged, np.int64)
    names = [name for name in (*TRACK_OF.values(), WORLD) if row.get(name) is not None]
    out = {name: row[name][frames] for name in names}
    if row.get("track_query_frame") is not None:
        out["track_query_frame"] = row["track_query_frame"].copy()
    grids = StoredGrids.of(row)
    number = None if grids is None else grids.best(row["track_visible"], judged)
    if grids is None or number is None:
        return out
    for name in names:
        out[name][:, : grids.num_points] = grids.take(number, name, frames)
    if "track_query_frame" in out:
        out["track_query_frame"][: grids.num_points] = grids.query_frame[number]
    return out


def world_points(
    points_px: NDArray[np.floating[Any]],
    depth_m: NDArray[np.floating[Any]],
    camera: Camera,
    world_from_camera: NDArray[Any],
) -> NDArray[np.float32]:
    """(R, G, 2) source pixels with depth (R, G) to (R, G, 3) metres of the world.

    world_from_camera: (R, 4, 4), in metres. NaN where anything is unknown.
    """
    return to_world(rays_of(points_px, camera) * depth_m[..., None], world_from_camera).astype(np.float32)


def _rank(seen: NDArray[np.bool_]) -> tuple[int, int]:
    return int(seen.all(axis=0).sum()), int(seen.sum())
