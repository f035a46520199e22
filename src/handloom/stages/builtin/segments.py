"""The stage `segments`: the atomic actions of a clip, from its hands, tracks and camera."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pydantic import Field

from handloom.geometry.interactions.later import LaterPoints, with_later_points
from handloom.geometry.interactions.scene import Scene, make_scene
from handloom.geometry.interactions.segments import Segment, find_segments
from handloom.geometry.tracks.stored_grids import StoredGrids
from handloom.schemas.tables.frame_flags import FrameFlag
from handloom.schemas.tables.row import row_camera
from handloom.schemas.tables.segments import SEGMENT
from handloom.stages.stage import ClipInput, Stage, StageSettings

COLUMN = "segments"


class Segments(Stage):
    """Reads columns alone: it enters tables that exist without decoding a video."""

    version = "11"
    columns = (
        "frame_s",
        "frame_flags",
        "camera_matrix",
        "camera_source",
        "camera_distortion",
        "camera_model",
        "camera_focal_sigma",
        "camera_preset",
        "world_from_camera",
        "world_scale",
        "world_unit_m",
        "hand_infilled",
        "hand_keypoints_cam_m",
        "hand_view",
        "track_kind",
        "track_points_px",
        "track_visible",
        "track_depth_m",
        "regrid_query_frame",
        "regrid_frame",
        "regrid_visible",
        "regrid_points_px",
        "regrid_depth_m",
    )

    class Settings(StageSettings):
        contact_m: float = Field(0.02, gt=0, le=0.2)
        """A hand touches a thing that comes this near to its surface (VLMimic's epsilon)."""
        min_path_m: float = Field(0.10, gt=0, le=2.0)
        """Shorter movements without a thing are left out (VLMimic's gamma)."""

    def fields(self) -> Sequence[pa.Field]:
        return [pa.field(COLUMN, pa.list_(SEGMENT))]

    def compute(self, clips: Sequence[ClipInput]) -> Sequence[Mapping[str, Any]]:
        return [{COLUMN: self._segments(clip)} for clip in clips]

    def _segments(self, clip: ClipInput) -> list[dict[str, Any]] | None:
        """None where no hand has a place in metres: nothing is known of such a clip; empty: no action was found."""
        scene = scene_of(clip.row)
        if scene is None:
            return None
        found = find_segments(scene, self.settings.contact_m, self.settings.min_path_m)
        return [segment_cell(segment) for segment in found.segments]


def scene_of(row: Mapping[str, Any]) -> Scene | None:
    """The scene of a row (`row_arrays`); None where no hand has a place, or the lens is unknown."""
    hands = row.get("hand_keypoints_cam_m")
    if hands is None or row.get("camera_matrix") is None or not np.isfinite(hands).any():
        return None
    camera = row_camera(row)
    scene = make_scene(
        row["frame_s"], camera, row.get("world_from_camera"), row.get("world_unit_m"), row.get("world_scale"),
        hands, row.get("hand_infilled"), row.get("track_points_px"), row.get("track_visible"),
        row.get("track_depth_m"), row.get("track_kind"), cuts_of(row),
        row.get("hand_view") != "exo",
    )  # fmt: skip
    return with_later_points(scene, camera, later_points_of(row))


def later_points_of(row: Mapping[str, Any]) -> list[LaterPoints]:
    """The later grids of a row; none where it has none."""
    grids = StoredGrids.of(row)
    if grids is None:
        return []
    found = []
    for number in range(len(grids.query_frame)):
        frames = grids.frames(number)
        values = (grids.take(number, name, frames) for name in ("track_points_px", "track_visible", "track_depth_m"))
        found.append(LaterPoints(int(frames[0]), *values))
    return found


def cuts_of(row: Mapping[str, Any]) -> NDArray[np.int64]:
    """Frames at which another shot begins, from `frame_flags`."""
    flags = row.get("frame_flags")
    if flags is None:
        return np.empty(0, np.int64)
    return np.flatnonzero(np.asarray(flags, np.int64) & int(FrameFlag.CUT))


def segment_cell(segment: Segment) -> dict[str, Any]:
    """A segment as a value of the column."""
    return {name: _plain(value) for name, value in vars(segment).items()}


def _plain(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        if value.ndim == 3:  # poses over frames
            return value.reshape(len(value), -1).tolist()
        return value.reshape(-1).tolist()
    return list(value) if isinstance(value, tuple) else value
