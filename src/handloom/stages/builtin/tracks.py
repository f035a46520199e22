"""Stages of the point tracks: in the image, and in 3D."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from handloom.geometry.tracks.lift import lift_in_pieces, lift_later
from handloom.geometry.tracks.stored_grids import StoredGrids
from handloom.schemas.tables.row import lift_cells, tracks_cells
from handloom.schemas.values import LaterGrid, LiftedTracks, Tracks
from handloom.stages.builtin.camera import in_metres
from handloom.stages.choose import point_tracker
from handloom.stages.work import EVERY_STEP, MISSING, BuiltinStage, Work


class TracksStage(BuiltinStage):
    """Surface points followed through the clip. Its value is `Tracks`; restored from a row, hidden points of later
    grids are NaN and deviations have half precision: nothing reads either."""

    name = "tracks"
    after = ("probe", "images", "hands_2d")
    reads_frames = True
    versions = (*EVERY_STEP, "torch", "cotracker", "tracks")

    def key_settings(self) -> dict[str, Any]:
        return self.config.tracks.model_dump(mode="json")

    def key_identity(self, versions: Mapping[str, str]) -> dict[str, str]:
        identity = super().key_identity(versions)
        if self.config.tracks.tracker != "cotracker3":
            identity.pop("torch", None)
        return identity

    def load(self) -> None:
        self._tracker = point_tracker(self.config.tracks)

    def run(self, work: Work) -> Tracks:
        return self._tracker.track(work.clip, work.info, work.frames, work["hands_2d"], work["images"].cuts)

    def cells(self, value: Tracks, work: Work) -> dict[str, Any]:
        return tracks_cells(value, self.config.num_grid())

    def restore(self, row: Mapping[str, Any], state: bytes | None) -> Any:
        read = ("track_points_px", "track_visible", "track_query_frame", "track_kind")
        if any(row.get(name) is None for name in read):
            return MISSING
        sigma = row.get("track_sigma_px")
        values = [*(row[name] for name in read), None if sigma is None else sigma.astype(np.float32)]
        tracks = Tracks(*values)
        return tracks if row.get("regrid_frame") is None else replace(tracks, grids=_grids(StoredGrids.of(row)))


def _grids(stored: StoredGrids | None) -> tuple[LaterGrid, ...]:
    if stored is None:
        return ()
    grids = []
    for number in range(len(stored.query_frame)):
        frames = stored.frames(number)
        points, visible = (stored.take(number, name, frames) for name in ("track_points_px", "track_visible"))
        sigma = stored.take(number, "track_sigma_px", frames) if "track_sigma_px" in stored.columns else None
        query_frame = int(stored.query_frame[number])
        grids.append(LaterGrid(query_frame, points, visible, sigma, query_frame - int(frames[0])))
    return tuple(grids)


class Lift(BuiltinStage):
    """Depth of the tracks, and their places in the world. Its value is `LiftedTracks`."""

    name = "lift"
    after = ("probe", "depth", "camera", "hands_3d", "tracks", "world")
    versions = (*EVERY_STEP, "lift")

    def run(self, work: Work) -> LiftedTracks:
        tracks, maps = work["tracks"], work["depth"]
        path = in_metres(work["world"].path)
        seen_from = (work["hands_3d"].hands, path, work["camera"].camera, maps, work.info)
        lifted = lift_in_pieces(tracks, *seen_from)
        return lifted if tracks.grids is None else replace(lifted, grids_depth_m=lift_later(tracks, *seen_from))

    def cells(self, value: LiftedTracks, work: Work) -> dict[str, Any]:
        return lift_cells(work["tracks"], value, depth_source(value, work), self.config.num_grid())

    def restore(self, row: Mapping[str, Any], state: bytes | None) -> Any:
        if row.get("track_depth_m") is None:
            return MISSING
        return LiftedTracks(row["track_depth_m"], row.get("track_points_world_m"))  # later grids: nothing reads them


def depth_source(lifted: LiftedTracks, work: Work) -> str | None:
    """`geometry`, or the source of the depth maps; None where no track has a depth."""
    if not np.isfinite(lifted.depth_m).any():
        return None
    return "geometry" if work["depth"] is None else work["depth"].source
