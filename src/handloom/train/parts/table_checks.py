"""What recipes ask of a table before they train: how many clips pass, their frame rates, which windows to measure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from handloom.api import Database
    from handloom.store.tables import Tables

TOLERANCE = 1.05  # a clip of 15 frames a second may have one fewer
STATISTICS_WINDOWS = 512
"""Training windows that means and deviations are computed over."""


def count_clips(db: Database, where: str | None, version: int | None) -> int:
    """Number of clips of the table's `version` (None: the newest) that pass `where`."""
    return db.read("clips", ["clip_id"], where, version).num_rows


def has_images(db: Tables, version: int | None) -> bool:
    """Whether a clip of the table has stored images."""
    return db.read("clips", ["clip_id"], "frame_jpeg IS NOT NULL", version, limit=1).num_rows > 0


def rates_of(db: Database, where: str | None, version: int | None, asked_hz: float | None) -> tuple[float, int]:
    """(median frames per second of the clips that pass, how many clips have fewer than `asked_hz`).

    Steps of a slower clip that have no frame are not valid. Infinite and 0 where no clip passes.
    """
    rows = db.read("clips", ["num_frames", "duration_s"], where, version)
    if not rows.num_rows:
        return float("inf"), 0
    num_frames, duration_s = (rows.column(name).to_numpy() for name in ("num_frames", "duration_s"))
    hz = num_frames / np.maximum(duration_s, 1e-9)
    slower = 0 if asked_hz is None else int((TOLERANCE * hz < asked_hz).sum())
    return float(np.median(hz)), slower


def slower_note(counts: Mapping[str, Any]) -> list[str]:
    """A report's sentence about clips that are slower than the steps; none where there are no such clips."""
    number = counts.get("slower", 0)
    if not number:
        return []
    return [f"{number} clips have fewer frames a second than the steps; steps without a frame are masked."]


def evenly(length: int, wanted: int) -> list[int]:
    """At most `wanted` indices of a sequence, evenly spread, the first and the last among them, none twice."""
    return sorted({int(index) for index in np.linspace(0, length - 1, min(length, wanted))})
