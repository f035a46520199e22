"""Metrics of a real clip's row without truth: whether points of the grid survive, and whether windows have enough
points.

T frames, N tracks. A point can be judged where the static scene's motion (`metrics.scene_motion`) gives its expected
place.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from handloom.bench.metrics.scene_motion import moved_points, under_hands

Floats = NDArray[np.floating]
Bools = NDArray[np.bool_]

WINDOW, ENOUGH_POINTS = 17, 600  # frames of a window; points that must be visible in all of them
COLLAPSE = 1 / 3  # share of the visible points lost in one step
MIN_GRID = 0.1  # share of the grid that must be visible for a step to count
_BORDER = 0.03  # share of the image's shorter side; a point expected nearer to the border may have left
_MOVER_PX, _MOVER_FRAMES = 8.0, 5  # a point that departs more from the static scene, in an image 640 wide, moves itself


@dataclass(frozen=True)
class LaterGrid:
    """A grid that began within the clip: visible (L, G), frames first_frame to first_frame + L - 1."""

    first_frame: int
    visible: Bools


@dataclass(frozen=True)
class Survival:
    """Points of the first grid at the clip's end: seen; expected but not seen; not possible to judge."""

    seen: int
    missing: int
    unknown: int

    @property
    def share(self) -> float:
        """Share seen of those expected; NaN if none is expected."""
        return self.seen / (self.seen + self.missing) if self.seen + self.missing else float("nan")


@dataclass(frozen=True)
class Loss:
    """Largest share of the visible grid lost in one step without a reason, at frame `frame`; -1 if none was lost.
    unjudged: steps that cannot be judged, such as a cut or too fast a turn."""

    share: float
    frame: int
    unjudged: int


def survival(px: Floats, visible: Bools, steps: Floats, hands_px: Floats, size: tuple[int, int]) -> Survival:
    """Points (T, N) of a grid on the last frame, compared with their expected places in the static scene.

    A missing point is expected in the image, not under a hand, and was not on a hand when last seen. One that moved by
    itself then, or has no expected place, is unknown. Points never seen do not count.
    """
    last = len(visible) - 1
    at_end = visible[last]
    gone = np.flatnonzero(visible.any(axis=0) & ~at_end)
    seen_at = last - visible[::-1, gone].argmax(axis=0)
    should, unknown = np.zeros(len(gone), bool), np.zeros(len(gone), bool)
    for t in np.unique(seen_at):
        at = np.flatnonzero(seen_at == t)
        place = px[t, gone[at]].astype(float)
        there = moved_points(place, steps[t:last])
        known = np.isfinite(there).all(axis=1)
        mover = _moves(px, visible, gone[at], int(t), steps, size)
        on_hand = under_hands(place, hands_px[max(t - 1, 0) : t + 2], size)
        hidden = under_hands(there, hands_px[max(last - 2, 0) :], size)
        unknown[at] = ~known | mover | on_hand
        should[at] = known & ~mover & ~on_hand & within(there, size) & ~hidden
    return Survival(int(at_end.sum()), int(should.sum()), int(unknown.sum()))


def largest_loss(
    px: Floats, visible: Bools, steps: Floats, hands_px: Floats, size: tuple[int, int], dark: Bools
) -> Loss:
    """The step with the largest loss of the visible grid (T, N), not counting points that leave the image, go under a
    hand or end in a black frame (dark: (T,))."""
    worst, worst_at, unjudged = 0.0, -1, 0
    for t in range(len(visible) - 1):
        num, lost = int(visible[t].sum()), np.flatnonzero(visible[t] & ~visible[t + 1])
        if num < MIN_GRID * visible.shape[1] or len(lost) <= worst * num or dark[t + 1]:
            continue
        if not np.isfinite(steps[t]).all():
            unjudged += len(lost) > COLLAPSE * num
            continue
        place = px[t, lost].astype(float)
        there = moved_points(place, steps[t : t + 1])
        explained = ~within(there, size)
        some = np.flatnonzero(~explained)
        explained[some] = under_hands(there[some], hands_px[max(t - 1, 0) : t + 3], size)
        share = float((~explained).sum()) / num
        if share > worst:
            worst, worst_at = share, t + 1
    return Loss(worst, worst_at, unjudged)


def within(points_px: Floats, size: tuple[int, int]) -> Bools:
    """Whether points (N, 2) are in the image, farther from its border than the possible error of the expected place."""
    margin = _BORDER * min(size)
    return ((points_px >= margin) & (points_px <= np.array(size) - 1 - margin)).all(axis=-1)


def dense_windows(
    visible: Bools, later: Sequence[LaterGrid] = (), length: int = WINDOW, enough: int = ENOUGH_POINTS
) -> tuple[int, int]:
    """The number of windows of `length` consecutive frames with `enough` points visible in all frames; and of all
    windows.

    visible: (T, N), the first grid's points first. A window uses the grid with the most points visible in all its
    frames, as `geometry.tracks.stored_grids` does.
    """
    num = len(visible) - length + 1
    if num <= 0:
        return 0, 0
    hits = 0
    for start in range(num):
        held = visible[start : start + length].all(axis=0)
        most = 0
        for grid in later:
            at = start - grid.first_frame
            seen = grid.visible[at : at + length] if at >= 0 else grid.visible[:0]
            num_grid = grid.visible.shape[1]
            if len(seen) == length:
                most = max(most, int(seen.all(axis=0).sum()) + int(held[num_grid:].sum()))
        hits += max(most, int(held.sum())) >= enough
    return hits, num


def _moves(px: Floats, visible: Bools, points: NDArray[np.intp], t: int, steps: Floats, size: tuple[int, int]) -> Bools:
    """Whether points moved differently from the static scene in the frames before `t`."""
    before = max(t - _MOVER_FRAMES, 0)
    if before == t:
        return np.zeros(len(points), bool)
    there = moved_points(px[before, points].astype(float), steps[before:t])
    off = np.linalg.norm(there - px[t, points], axis=1) * 640 / max(size)
    return visible[before, points] & (off > _MOVER_PX)
