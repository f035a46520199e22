"""What can be said of a real clip's row without truth: is there a path, what became of the grid, do windows fill.

T frames, N tracks. A point is *judged* where the still scene's motion (`metrics.still`) says where it should be.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from handloom.bench.metrics.still import carried, under_hands

Floats = NDArray[np.floating]
Bools = NDArray[np.bool_]

WINDOW, ENOUGH_POINTS = 17, 600  # 16 samples after the first one; points that must be visible in all of them
COLLAPSE = 1 / 3  # of the visible points, lost in one step
MIN_GRID = 0.1  # of the grid that must be visible for a step to count
_BORDER = 0.03  # of the picture's shorter side: a point expected nearer to the border may have left
_MOVER_PX, _MOVER_FRAMES = 8.0, 5  # off the still scene's motion by more, in a picture 640 wide: it moves by itself


@dataclass(frozen=True)
class LaterGrid:
    """A grid that began within the clip: visible (L, G), frames first_frame to first_frame + L - 1."""

    first_frame: int
    visible: Bools


@dataclass(frozen=True)
class Survival:
    """Points of the first grid at the clip's end: seen there; expected there but not seen; not to be judged."""

    seen: int
    missing: int
    unknown: int

    @property
    def share(self) -> float:
        """Seen, of those that should be; NaN where none should be."""
        return self.seen / (self.seen + self.missing) if self.seen + self.missing else float("nan")


@dataclass(frozen=True)
class Loss:
    """Largest share of the visible grid lost in one step without a reason: at frame `frame`, -1 where none was lost;
    unjudged: steps that could not be judged, a cut or too fast a turn."""

    share: float
    frame: int
    unjudged: int


def survival(px: Floats, visible: Bools, steps: Floats, hands_px: Floats, size: tuple[int, int]) -> Survival:
    """Points (T, N) of a grid on the last frame, against where the still scene says they should be.

    A point that is missing is expected in the picture, not under a hand, and was not on a hand when it was last seen;
    one that moved by itself then, or whose place cannot be said, is unknown. Points never seen do not count.
    """
    last = len(visible) - 1
    at_end = visible[last]
    gone = np.flatnonzero(visible.any(axis=0) & ~at_end)
    seen_at = last - visible[::-1, gone].argmax(axis=0)
    should, unknown = np.zeros(len(gone), bool), np.zeros(len(gone), bool)
    for t in np.unique(seen_at):
        at = np.flatnonzero(seen_at == t)
        place = px[t, gone[at]].astype(float)
        there = carried(place, steps[t:last])
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
    """The step in which most of the visible grid (T, N) is lost, other than out of the picture, under a hand, or into a
    black frame (dark: (T,))."""
    worst, worst_at, unjudged = 0.0, -1, 0
    for t in range(len(visible) - 1):
        num, lost = int(visible[t].sum()), np.flatnonzero(visible[t] & ~visible[t + 1])
        if num < MIN_GRID * visible.shape[1] or len(lost) <= worst * num or dark[t + 1]:
            continue
        if not np.isfinite(steps[t]).all():
            unjudged += len(lost) > COLLAPSE * num
            continue
        place = px[t, lost].astype(float)
        there = carried(place, steps[t : t + 1])
        explained = ~within(there, size)
        some = np.flatnonzero(~explained)
        explained[some] = under_hands(there[some], hands_px[max(t - 1, 0) : t + 3], size)
        share = float((~explained).sum()) / num
        if share > worst:
            worst, worst_at = share, t + 1
    return Loss(worst, worst_at, unjudged)


def within(points_px: Floats, size: tuple[int, int]) -> Bools:
    """Whether points (N, 2) lie in the picture, further from its border than the still scene's motion may be wrong."""
    margin = _BORDER * min(size)
    return ((points_px >= margin) & (points_px <= np.array(size) - 1 - margin)).all(axis=-1)


def dense_windows(
    visible: Bools, later: Sequence[LaterGrid] = (), length: int = WINDOW, enough: int = ENOUGH_POINTS
) -> tuple[int, int]:
    """Windows of `length` frames in a row with `enough` points visible throughout, and windows in all.

    visible: (T, N), the first grid's points first. A window takes, in their place, the grid of which most points are
    visible in all its frames: the rule of `geometry.later_grids`.
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
    """Whether points moved otherwise than the still scene in the frames before `t`."""
    before = max(t - _MOVER_FRAMES, 0)
    if before == t:
        return np.zeros(len(points), bool)
    there = carried(px[before, points].astype(float), steps[before:t])
    off = np.linalg.norm(there - px[t, points], axis=1) * 640 / max(size)
    return visible[before, points] & (off > _MOVER_PX)
