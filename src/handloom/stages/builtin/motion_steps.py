"""The stage `motion_steps`: what moves in a clip, step by step, for the search of movements."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from handloom.models.embeddings.flow_steps import VERSION, flow_steps
from handloom.models.embeddings.motion_signals import NUM_FLOW
from handloom.stages.stage import ClipInput, Stage

COLUMN = "motion_steps"


class MotionSteps(Stage):
    """Reads columns alone: it enters tables that exist without decoding a video."""

    version = VERSION
    columns = ("frame_s", "width", "height", "hand_visible", "hand_keypoints_px", "track_points_px", "track_visible")

    def fields(self) -> Sequence[pa.Field]:
        return [pa.field(COLUMN, pa.list_(pa.list_(pa.float16(), NUM_FLOW)))]

    def compute(self, clips: Sequence[ClipInput]) -> Sequence[Mapping[str, Any]]:
        return [{COLUMN: _steps(clip.row)} for clip in clips]


def _steps(row: Mapping[str, Any]) -> NDArray[np.float16] | None:
    """None where hands or tracks were not computed, or no point is seen twice."""
    points, keypoints = row.get("track_points_px"), row.get("hand_keypoints_px")
    if points is None or keypoints is None:
        return None
    seen = (points, row["track_visible"], keypoints, row["hand_visible"])
    return flow_steps(*seen, np.asarray(row["frame_s"], np.float64), (row["width"], row["height"]))
