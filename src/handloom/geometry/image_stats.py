"""Numbers of each image: detail, brightness, white areas, repeats."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

WHITE = 250  # grey level; video white is 235 to 255, depending on the camera


@dataclass(frozen=True)
class ImageNumbers:
    """Each (T,). sharpness: variance of the Laplacian of the grey frame at working size, float64. brightness: mean grey
    level, 0 to 1. white_share: share of the pixels that are white. repeat: equal to the frame before; false for the
    first."""

    sharpness: NDArray[np.float64]
    brightness: NDArray[np.float64]
    white_share: NDArray[np.float64]
    repeat: NDArray[np.bool_]

    def quality(self) -> dict[str, float | None]:
        """`blur`, `brightness`, `duplicate_share`; None for too few frames."""
        num = len(self.brightness)
        return {
            "blur": float(np.median(self.sharpness)) if num else None,
            "brightness": float(np.mean(self.brightness)) if num else None,
            "duplicate_share": float(self.repeat.sum() / (num - 1)) if num > 1 else None,
        }


class ImageStats:
    """Gathers `ImageNumbers` chunk by chunk: `begin`, `feed` for every chunk of (n, h, w, 3) RGB, `finish`."""

    def begin(self) -> None:
        self._rows: list[tuple[float, float, float, bool]] = []
        self._previous: NDArray[np.uint8] | None = None

    def feed(self, frames: NDArray[np.uint8]) -> None:
        for frame in frames:
            grey = cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY)
            sharpness = _variance(cv2.Laplacian(grey, cv2.CV_16S))
            white = cv2.countNonZero(cv2.threshold(grey, WHITE - 1, 1, cv2.THRESH_BINARY)[1]) / grey.size
            repeat = self._previous is not None and np.array_equal(grey, self._previous)
            self._rows.append((sharpness, cv2.mean(grey)[0] / 255, white, repeat))
            self._previous = grey

    def finish(self) -> ImageNumbers:
        self._previous = None
        sharpness, brightness, white, repeat = np.array(self._rows, np.float64).reshape(-1, 4).T
        return ImageNumbers(sharpness, brightness, white, repeat.astype(bool))


def _variance(values: NDArray[np.int16]) -> float:
    """From two sums of whole numbers: equal to `cv2.meanStdDev`'s to the last bit, in half of its time."""
    mean = cv2.sumElems(values)[0] * (1 / values.size)
    square = cv2.norm(values, cv2.NORM_L2SQR) * (1 / values.size)
    return float(np.sqrt(max(square - mean * mean, 0.0))) ** 2
