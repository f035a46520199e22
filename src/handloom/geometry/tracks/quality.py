"""Quality numbers of point tracks (the `track_*` fields of `quality`), and steps in which many points are lost."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from handloom.geometry.tracks.on_hands import hand_sizes_px
from handloom.schemas.values import Hands, TrackKind, Tracks, VideoInfo

LEAST_SEEN = 0.1  # of the grid must be visible before a step, for the share that is lost in it
BORDER = 0.03  # of the image's shorter side: points expected nearer to the border may have left the image
UNDER_HAND = 0.3  # of a hand's size around its keypoints: flesh, and what the hand holds
LEAST_KEPT = 8  # least number of points from which the image's motion is taken


def track_quality(tracks: Tracks, lost: NDArray[np.floating[Any]]) -> dict[str, float | None]:
    """`track_survival`, `track_mean_visible`, `track_motion_px`, `track_lost_step`; None unknown.

    lost: (T,) of `lost_shares`.
    """
    visible = tracks.visible
    if visible.size == 0:
        return dict.fromkeys(("track_survival", "track_mean_visible", "track_motion_px", "track_lost_step"))
    both = visible[1:] & visible[:-1]
    steps = np.linalg.norm(np.diff(tracks.points_px, axis=0)[both], axis=-1)
    return {
        "track_survival": float(visible[-1].mean()),
        "track_mean_visible": float(visible.mean()),
        "track_motion_px": float(np.median(steps)) if steps.size else None,
        "track_lost_step": float(np.nanmax(lost)) if np.isfinite(lost).any() else None,
    }


def lost_shares(
    tracks: Tracks, hands: Hands, info: VideoInfo, cuts: Sequence[int] | NDArray[np.integer[Any]] = ()
) -> NDArray[np.float64]:
    """(T,) share of the visible grid that is lost in the step to each frame without a reason; NaN unknown.

    Reasons are that the point leaves the image, by the motion of the points that stay, and a hand over it before or
    after. At `cuts`, first frames of shots, every point ends: NaN.
    """
    out = np.full(len(tracks.visible), np.nan)
    grid = np.flatnonzero(tracks.kind == TrackKind.GRID)
    visible, points = tracks.visible[:, grid], tracks.points_px[:, grid]
    size = np.array([info.width, info.height], float)
    hand_px = np.where(hands.visible[..., None, None], hands.keypoints_px, np.nan).astype(np.float64)
    reach = UNDER_HAND * hand_sizes_px(hand_px)
    margin = BORDER * size.min()
    shots = set(np.asarray(cuts, np.int64).tolist())
    for t in range(1, len(out)):
        seen = visible[t - 1]
        if t in shots or seen.sum() < max(LEAST_SEEN * len(grid), 1):
            continue
        kept, lost = np.flatnonzero(seen & visible[t]), np.flatnonzero(seen & ~visible[t])
        if not len(lost):
            out[t] = 0.0
            continue
        moved = points[t, kept] - points[t - 1, kept]
        shift = np.median(moved, axis=0) if len(kept) >= LEAST_KEPT else 0.0
        there = points[t - 1, lost].astype(np.float64) + shift
        there = there[((there >= margin) & (there <= size - 1 - margin)).all(axis=1)]
        for frame in (t - 1, t):
            for hand in np.flatnonzero(hands.visible[frame]):
                x, y = (there[:, None, i] - hand_px[frame, hand, :, i] for i in range(2))
                there = there[~(x * x + y * y < reach[frame, hand] ** 2).any(axis=1)]
        out[t] = len(there) / seen.sum()
    return out
