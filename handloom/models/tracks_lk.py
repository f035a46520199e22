"""Point tracks by pyramidal Lucas-Kanade with a forward-backward check."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from handloom.schemas.clip import Clip
from handloom.schemas.settings import TracksConfig
from handloom.schemas.values import Tracks, VideoInfo

VERSION = "lk-forward-backward 1"
MIN_EIGENVALUE = (
    1e-6  # OpenCV's 1e-4 gives up at once on plain table tops: 0.33 against 0.77 of the grid after one step
)


def query_grid(width: int, height: int, side: int) -> NDArray[np.float32]:
    """ARM4R's query points on the first frame: (side * side, 2) pixels, row by row, x fastest.

    The margin is 8 px of a 512 x 384 picture, scaled to the image.

    Source: SpatialTracker's grid as ARM4R's scripts call it (`grid_size 36`, interp_shape (384, 512)).
    """
    x = np.linspace(8, 504, side) * width / 512
    y = np.linspace(8, 376, side) * height / 384
    return np.stack(np.meshgrid(x, y), axis=-1).reshape(-1, 2).astype(np.float32)


class LucasKanade:
    """Follows a grid of points from the clip's first frame, frame to frame.

    A point is visible until tracking it on and back misses its start by more than `forward_backward_px`, or it leaves
    the image; from then on it is NaN and not visible: it is not looked for again.

    Source: Bouguet, Pyramidal Implementation of the Lucas Kanade Feature Tracker (2001); Kalal et al.,
    Forward-Backward Error (ICPR 2010).
    """

    def __init__(self, config: TracksConfig) -> None:
        self._config = config
        self._window = (config.window_px, config.window_px)
        self._criteria = (cv2.TERM_CRITERIA_EPS | cv2.TERM_CRITERIA_COUNT, 20, 0.03)

    def begin(self, clip: Clip, info: VideoInfo) -> None:
        self._info = info
        self._queries = query_grid(info.width, info.height, self._config.grid)
        self._previous: NDArray[np.uint8] | None = None
        self._points: list[NDArray[np.float32]] = []
        self._visible: list[NDArray[np.bool_]] = []

    def feed(self, frames: NDArray[np.uint8], frame_s: NDArray[np.float64]) -> None:
        for frame in frames:
            self._step(cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY))

    def finish(self) -> Tracks:
        points = np.stack(self._points)
        self._points = []
        # Working pixels to source pixels, pixel centres at whole numbers in both.
        points += np.float32(0.5)
        points *= self._scale
        points -= np.float32(0.5)
        points[0] = self._queries
        return Tracks(points, np.stack(self._visible))

    def _step(self, grey: NDArray[np.uint8]) -> None:
        height, width = grey.shape
        if self._previous is None:
            self._scale = np.array([self._info.width / width, self._info.height / height], np.float32)
            self._points.append((self._queries + np.float32(0.5)) / self._scale - np.float32(0.5))
            self._visible.append(np.ones(len(self._queries), bool))
        else:
            points = np.full_like(self._points[-1], np.nan)
            alive = np.flatnonzero(self._visible[-1])
            moved, found = self._track(self._previous, grey, self._points[-1][alive], (width, height))
            points[alive[found]] = moved[found]
            visible = np.zeros(len(points), bool)
            visible[alive[found]] = True
            self._points.append(points)
            self._visible.append(visible)
        self._previous = grey

    def _track(self, before, after, points, size):
        """Positions in the next frame, (n, 2), and whether each can be believed, (n,)."""
        if not len(points):
            return points, np.zeros(0, bool)
        options = {
            "winSize": self._window,
            "maxLevel": self._config.levels,
            "criteria": self._criteria,
            "minEigThreshold": MIN_EIGENVALUE,
        }
        moved, status, _ = cv2.calcOpticalFlowPyrLK(before, after, points, None, **options)
        back, back_status, _ = cv2.calcOpticalFlowPyrLK(after, before, moved, None, **options)
        close = np.linalg.norm(back - points, axis=1) <= self._config.forward_backward_px
        inside = np.all((moved >= -0.5) & (moved <= np.array(size, np.float32) - 0.5), axis=1)
        return moved, (status[:, 0] == 1) & (back_status[:, 0] == 1) & close & inside
