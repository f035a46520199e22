"""Grids that begin where the last one has left the picture: when they begin, how long they are followed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from handloom.models.tracks_follower import Follower
from handloom.models.tracks_hands import HandRegions
from handloom.models.tracks_patches import View

Array = NDArray[np.float32]
Grey = NDArray[np.uint8]

# Measured on 41 clips of 37 real videos: see docs/geometry.md.
VISIBLE_SHARE = 0.5
"""Another grid begins before fewer of the newest one's points than this would be seen `keep` frames on, at the rate at
which they went in the last two thirds of that time."""
WHOLE_SHARE = 0.75
"""A grid of which so much is seen needs no other, however old it is."""
_SLOTS = 2


@dataclass
class Grid:
    """One of them. points, visible, sigma: of every frame from `query_frame` on, working pixels."""

    query_frame: int
    slots: slice  # of the follower's points
    until: int | None = None  # first frame it is not followed in any more; None: another must begin first
    points: list[Array] = field(default_factory=list)
    visible: list[NDArray[np.bool_]] = field(default_factory=list)
    sigma: list[Array] = field(default_factory=list)


class LaterGrids:
    """Begins and follows the grids after the first, frame by frame, next to the follower of the first.

    At most two are followed at a time: but for a cut, which ends all, another grid begins `keep` frames after the last
    one or later, and `keep` frames after its start the one before it ends.

    Args:
        points: (G, 2) working pixels, the places of a grid's points in its first frame.
        layer: (points, frame) to what each of them moves with.
        follower: makes an empty follower of so many points.
        every: frames after which another grid begins anyway. keep: frames that one is followed on after that.
    """

    def __init__(
        self,
        points: Array,
        layer: Callable[[Array, int], NDArray[np.int8]],
        follower: Callable[[int], Follower],
        every: int,
        keep: int,
    ) -> None:
        self._points, self._layer = points, layer
        self._every, self._keep = every, keep
        self._follower = follower(_SLOTS * len(points))
        self._last = 0  # frame in which the newest grid began
        self._shares: list[float] = []  # of its points seen, in each frame since then
        self.grids: list[Grid] = []

    def step(self, before: Grey, after: Grey, view: View, regions: HandRegions, t: int, first: Follower) -> None:
        """From frame t - 1 to `t`, in which `first`, the first grid's follower, already is."""
        self._retire(t)
        if self._follower.started.any():
            self._follower.step(before, after, view, regions, t - 1, t, motion=first.motion)
        newest = self._follower.seen[self.grids[-1].slots] if self.grids else first.seen[: len(self._points)]
        self._shares.append(float(newest.mean()))
        if self._is_due(t, view):
            self._begin(t, view, regions)
        self._write(t)

    def cut(self, view: View, regions: HandRegions, t: int) -> None:
        """Another shot begins in frame `t`: all grids end, and one begins."""
        for grid in self.grids[-_SLOTS:]:
            grid.until = min(t, t if grid.until is None else grid.until)
        self._follower.end()
        self._begin(t, view, regions)
        self._write(t)

    def _retire(self, t: int) -> None:
        for grid in self.grids[-_SLOTS:]:
            if grid.until == t:
                self._follower.started[grid.slots] = self._follower.seen[grid.slots] = False

    def _write(self, t: int) -> None:
        for grid in self.grids[-_SLOTS:]:
            if grid.until is None or grid.until > t:
                grid.points.append(self._follower.points[grid.slots].copy())
                grid.visible.append(self._follower.seen[grid.slots].copy())
                grid.sigma.append(self._follower.sigma[grid.slots].copy())

    def _is_due(self, t: int, view: View) -> bool:
        age, share = t - self._last, self._shares[-1]
        if age < max(1, self._keep) or share > WHOLE_SHARE or view.blind:
            return False
        back = min(len(self._shares), 2 + 2 * self._keep // 3)
        lost = max(0.0, self._shares[-back] - share) / max(back - 1, 1)
        return age >= self._every or share - self._keep * lost < VISIBLE_SHARE

    def _begin(self, t: int, view: View, regions: HandRegions) -> None:
        if self.grids and self.grids[-1].until is None:
            self.grids[-1].until = t + self._keep
        num = len(self._points)
        slot = len(self.grids) % _SLOTS * num
        grid = Grid(t, slice(slot, slot + num))
        at = np.arange(num) + slot
        self._follower.start(at, self._points, view, self._layer(self._points, t), regions, t)
        self.grids.append(grid)
        self._last, self._shares = t, []
