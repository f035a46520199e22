"""Later grids of points: when a new one begins, and how it is followed forwards and backwards."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from handloom.models.tracks.follower import Follower
from handloom.models.tracks.hand_regions import HandRegions
from handloom.models.tracks.patches import FrameView

Array = NDArray[np.float32]
Mask = NDArray[np.bool_]

# Measured on 41 clips of 37 real videos: see docs/geometry.md.
HELD_SHARE = 0.5
"""Another grid begins when a smaller share of the points was visible in all frames of the window that ends."""
WHOLE_SHARE = 0.75
"""While a larger share of a grid is visible no other begins, however old it is."""


@dataclass
class GridRecord:
    """A grid's points frame by frame: working pixels, visible or not, standard deviation."""

    points: list[Array] = field(default_factory=list)
    visible: list[Mask] = field(default_factory=list)
    sigma: list[Array] = field(default_factory=list)

    def write(self, follower: Follower, first: int, num: int) -> None:
        """Add a frame of the points of ids `first`, `first` + 1, ..."""
        now = follower.now
        for rows, out in ((now.at, self.points), (now.seen, self.visible), (now.sigma, self.sigma)):
            out.append(now.by_id(rows, num, first))


@dataclass
class Grid:
    """on: from its query frame until the next grid begins. back: from the frame before it to earlier ones."""

    query_frame: int
    on: GridRecord = field(default_factory=GridRecord)
    back: GridRecord = field(default_factory=GridRecord)


class LaterGrids:
    """Starts the grids after the first, one at a time, among the points that are followed forwards; then follows each
    backwards from its query frame.

    Except at a cut, which ends all grids, a grid begins more than `window` frames after the last one.

    Args:
        points: (G, 2) working pixels, the places of a grid's points in its query frame.
        layer: function of points and frame: what each point moves with.
        first: id of a later grid's first point; the first grid's ids begin at 0.
        every: frames after which another grid begins in any case.
        window: frames for which a grid is followed backwards.
    """

    def __init__(
        self, points: Array, layer: Callable[[Array, int], NDArray[np.int8]], first: int, every: int, window: int
    ) -> None:
        self._points, self._layer, self._first_id = points, layer, first
        self._every, self._window = every, window
        self._last = 0  # frame in which the newest grid began
        self._seen: deque[Mask] = deque(maxlen=window + 1)  # its visible points in each frame since then
        self._first: deque[Mask] = deque(maxlen=window + 1)
        self._left = 0  # frames for which the last of `_followed_back` is still followed backwards
        self._followed_back: list[Grid] = []  # grids whose way back has started
        self.grids: list[Grid] = []

    def step(self, view: FrameView, regions: HandRegions, t: int, follower: Follower) -> None:
        """Record frame `t`, to which `follower` has followed all points; start a grid if one is due."""
        now, num = follower.now, len(self._points)
        self._first.append(now.by_id(now.seen, num))
        if self.grids:
            self.grids[-1].on.write(follower, self._first_id, num)
        self._seen.append(self.grids[-1].on.visible[-1] if self.grids else self._first[-1])
        if self._is_due(t, view):
            self._begin(t, view, regions, follower)

    def cut(self, view: FrameView, regions: HandRegions, t: int, follower: Follower) -> None:
        """A shot begins in frame `t`: all grids end, and a new one begins."""
        self._first.clear()
        self._begin(t, view, regions, follower)

    def matches(self, t: int) -> tuple[Array, Array]:
        """(m, 2) points, in frames t + 1 and t, of the grid that is followed over this step."""
        for grid in reversed(self.grids):
            at = t - grid.query_frame
            if 0 <= at < len(grid.on.points) - 1:
                both = grid.on.visible[at] & grid.on.visible[at + 1]
                return grid.on.points[at + 1][both], grid.on.points[at][both]
        return self._points[:0], self._points[:0]

    def follows_back(self, t: int) -> bool:
        """Whether a grid began in frame `t`, or is followed backwards to it."""
        return self._left > 0 or any(grid.query_frame == t for grid in self.grids)

    def stop_back(self) -> None:
        """The next frame on the way back belongs to another shot."""
        self._left = 0

    def step_back(self, view: FrameView, regions: HandRegions, t: int, follower: Follower) -> None:
        """Record frame `t`, to which `follower` has followed all points backwards."""
        if self._left > 0:
            self._followed_back[-1].back.write(follower, self._first_id, len(self._points))
            self._left -= 1
            if not self._left:
                follower.drop(self._first_id)
        for grid in self.grids:
            if grid.query_frame == t:
                self._start(follower, view, regions, t)
                self._followed_back.append(grid)
                self._left = self._window

    def _is_due(self, t: int, view: FrameView) -> bool:
        age, share = t - self._last, self._seen[-1].mean()
        if age <= self._window or share > WHOLE_SHARE or view.is_blank:
            return False
        held = max(float(np.logical_and.reduce(seen).mean()) for seen in (self._seen, self._first))
        return age >= self._every or held < HELD_SHARE

    def _begin(self, t: int, view: FrameView, regions: HandRegions, follower: Follower) -> None:
        self._start(follower, view, regions, t)
        self.grids.append(Grid(t))
        self.grids[-1].on.write(follower, self._first_id, len(self._points))
        self._last = t
        self._seen.clear()
        self._seen.append(self.grids[-1].on.visible[-1])

    def _start(self, follower: Follower, view: FrameView, regions: HandRegions, t: int) -> None:
        follower.drop(self._first_id)
        ids = np.arange(len(self._points)) + self._first_id
        follower.start(ids, self._points, view, self._layer(self._points, t), regions, t)
