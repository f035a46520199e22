"""Quality numbers of point tracks and of the pictures themselves: the `track_*` and picture fields of `quality`."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

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


class PictureStats:
    """Blur, brightness and repeated frames, gathered chunk by chunk on the shrunk frames."""

    def begin(self) -> None:
        self._sharpness: list[float] = []
        self._brightness: list[float] = []
        self._repeats = 0
        self._previous: NDArray[np.uint8] | None = None

    def feed(self, frames: NDArray[np.uint8]) -> None:
        for frame in frames:
            grey = cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY)
            _, deviation = cv2.meanStdDev(cv2.Laplacian(grey, cv2.CV_16S))
            self._sharpness.append(float(deviation[0, 0]) ** 2)
            self._brightness.append(cv2.mean(grey)[0] / 255)
            if self._previous is not None and np.array_equal(grey, self._previous):
                self._repeats += 1
            self._previous = grey

    def finish(self) -> dict[str, float | None]:
        self._previous = None
        num_frames = len(self._brightness)
        return {
            "blur": float(np.median(self._sharpness)),
            "brightness": float(np.mean(self._brightness)),
            "duplicate_share": self._repeats / (num_frames - 1) if num_frames > 1 else None,
        }
