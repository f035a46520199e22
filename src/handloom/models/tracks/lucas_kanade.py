"""Point tracks by pyramidal Lucas-Kanade with a forward-backward check."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from handloom.models.protocols import ClipFrames
from handloom.schemas.clip import Clip
from handloom.schemas.settings import TracksConfig
from handloom.schemas.values import HandPoints, Tracks, VideoInfo

VERSION = "lk-forward-backward 1"
# OpenCV's 1e-4 loses plain table tops at once: 0.33 of the grid is left after one step, 0.77 with this.
MIN_EIGENVALUE = 1e-6


def query_grid(width: int, height: int, side: int) -> NDArray[np.float32]:
    """ARM4R's query points on the first frame: (side * side, 2) pixels, row by row, x fastest.

    The margin is 8 px of a 512 x 384 image, scaled to the image.

    Source: SpatialTracker's grid as ARM4R's scripts call it (`grid_size 36`, interp_shape (384, 512)).
    """
    x = np.linspace(8, 504, side) * width / 512
    y = np.linspace(8, 376, side) * height / 384
    return np.stack(np.meshgrid(x, y), axis=-1).reshape(-1, 2).astype(np.float32)


class LucasKanade:
    """Follows a grid of points from the clip's first frame, frame to frame.

    A point is visible until tracking it forward and backward misses its start by more than `forward_backward_px`, or it
    leaves the image; from then on it is NaN and not visible: it is not searched again.

    Source: Bouguet, Pyramidal Implementation of the Lucas Kanade Feature Tracker (2001); Kalal et al.,
    Forward-Backward Error (ICPR 2010).
    """

    def __init__(self, config: TracksConfig) -> None:
        self._config = config
        self._window = (config.window_px, config.window_px)
        self._criteria = (cv2.TERM_CRITERIA_EPS | cv2.TERM_CRITERIA_COUNT, 20, 0.03)

    def track(
        self,
        clip: Clip,
        info: VideoInfo,
        frames: ClipFrames,
        hands: HandPoints,
        cuts: Sequence[int] | NDArray[np.integer] = (),
    ) -> Tracks:
        """The first frame's grid only, which ends at a cut; `hands` is not used."""
        queries = query_grid(info.width, info.height, self._config.grid)
        previous = frames.grey(0)
        height, width = previous.shape
        scale = np.array([info.width / width, info.height / height], np.float32)
        points = np.full((len(frames), len(queries), 2), np.nan, np.float32)
        visible = np.zeros(points.shape[:2], bool)
        points[0], visible[0] = (queries + np.float32(0.5)) / scale - np.float32(0.5), True
        for t in range(1, min([len(frames), *map(int, cuts)])):
            grey = frames.grey(t)
            alive = np.flatnonzero(visible[t - 1])
            moved, found = self._track(previous, grey, points[t - 1, alive], (width, height))
            points[t, alive[found]] = moved[found]
            visible[t, alive[found]] = True
            previous = grey
        # Working pixels to source pixels, pixel centres at whole numbers in both.
        points += np.float32(0.5)
        points *= scale
        points -= np.float32(0.5)
        points[0] = queries
        return Tracks.of_grid(points, visible)

    def _track(self, before, after, points, size):
        """Positions in the next frame, (n, 2), and whether each passed the checks, (n,)."""
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
