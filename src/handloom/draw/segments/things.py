"""The points of the things that hands move, marked on the image."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

THING_COLORS = ((255, 60, 200), (0, 255, 160), (120, 120, 255), (255, 220, 0))
"""Of the first thing, the second, ...; then again."""


def draw_things(canvas: NDArray[np.uint8], row: dict[str, Any], index: int, scale: NDArray[np.float64]) -> None:
    """Mark, on the image, the points of the things that hands come to or move in a frame, a colour a thing."""
    points, visible = row.get("track_points_px"), row.get("track_visible")
    if points is None or visible is None:
        return
    radius = max(2, round(min(canvas.shape[:2]) / 150))
    for one in row.get("segments") or ():
        if not one["start_frame"] <= index < one["end_frame"] or not one["object_tracks"]:
            continue
        names = [name for name in (one["slave"], one["master"]) if name.startswith("object_")]
        color = THING_COLORS[(int(names[0].removeprefix("object_")) - 1) % len(THING_COLORS)]
        for n in one["object_tracks"]:
            if visible[index, n]:
                x, y = np.round((points[index, n].astype(float) + 0.5) * scale - 0.5).astype(int).tolist()
                cv2.circle(canvas, (x, y), radius, color, cv2.FILLED, cv2.LINE_AA)
