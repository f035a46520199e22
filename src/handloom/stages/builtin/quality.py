"""The stage that compares the others: numbers of the clip, flags of its frames."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from handloom.errors import ShapeError
from handloom.geometry.cross_quality import cross_quality
from handloom.geometry.hands.quality import hand_quality
from handloom.geometry.metric.evidence import metric_numbers
from handloom.geometry.tracks.quality import lost_shares, track_quality
from handloom.schemas.tables.arrow import QUALITY_FIELDS
from handloom.schemas.tables.row import quality_cell
from handloom.stages.builtin.hands import hand_size
from handloom.stages.work import EVERY_STEP, BuiltinStage, Work


@dataclass(frozen=True)
class Quality:
    """numbers: of the column `quality`, None unknown. flags: (T,) int32, `frame_flags`."""

    numbers: dict[str, float | None]
    flags: NDArray[np.int32]


class QualityStage(BuiltinStage):
    """How well hands, tracks and path agree. Its value is `Quality`."""

    name = "quality"
    after = ("probe", "images", "hands_2d", "camera", "hands_3d", "tracks", "world", "lift")
    clip_fields = ("hand",)
    versions = (*EVERY_STEP, "row")

    def run(self, work: Work) -> Quality:
        points, hands, metres = work["hands_2d"], work["hands_3d"].hands, work["hands_3d"].metres
        tracks, path, camera = work["tracks"], work["world"].path, work["camera"].camera
        seen = work["images"]
        lost = lost_shares(tracks, hands, work.info, seen.cuts)
        agreement, flags = cross_quality(
            hands,
            tracks,
            work["lift"],
            path,
            camera,
            work.info,
            work.frame_s,
            seen.numbers,
            seen.cuts,
            points.doubts,
            lost,
        )
        numbers = hand_quality(hands, work.info, camera) | track_quality(tracks, lost) | work["world"].numbers
        numbers |= seen.numbers.quality() | agreement
        length_m = cast("float", hand_size(work.clip, self.config).length_m)
        numbers |= metric_numbers(metres, hands, path, numbers.get("camera_scale_sigma"), length_m)
        numbers |= {"num_cuts": float(len(seen.cuts)), "hand_view_log_odds": points.view_log_odds}
        unknown = set(numbers) - set(QUALITY_FIELDS)
        if unknown:
            raise ShapeError(f"unknown quality fields {sorted(unknown)} (clip {work.clip.clip_id})")
        return Quality(numbers, flags)

    def cells(self, value: Quality, work: Work) -> dict[str, Any]:
        return {"quality": quality_cell(value.numbers), "frame_flags": value.flags.tolist()}
