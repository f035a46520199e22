"""Quality numbers of point tracks: the `track_*` fields of `quality`."""

from __future__ import annotations

import numpy as np

from handloom.schemas.values import Tracks


def track_quality(tracks: Tracks) -> dict[str, float | None]:
    """`track_survival`, `track_mean_visible`, `track_motion_px`; None where nothing can be said."""
    visible = tracks.visible
    if visible.size == 0:
        return {"track_survival": None, "track_mean_visible": None, "track_motion_px": None}
    both = visible[1:] & visible[:-1]
    steps = np.linalg.norm(np.diff(tracks.points_px, axis=0)[both], axis=-1)
    return {
        "track_survival": float(visible[-1].mean()),
        "track_mean_visible": float(visible.mean()),
        "track_motion_px": float(np.median(steps)) if steps.size else None,
    }
