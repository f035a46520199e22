"""How fast the frames of clips come: whether a recipe's steps have frames."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from handloom.api import Database

TOLERANCE = 1.05  # a clip of 15 frames a second may have one fewer


def rates_of(db: Database, where: str | None, version: int | None, asked_hz: float | None) -> tuple[float, int]:
    """(median frames per second of the clips that pass, how many clips have fewer than are asked for).

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
    """What a report says of clips that are slower than the steps."""
    number = counts.get("slower", 0)
    if not number:
        return []
    return [f"{number} clips have fewer frames a second than are asked for; steps without one are masked."]
