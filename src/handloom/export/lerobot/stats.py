"""Statistics of features in LeRobot's form: min, max, mean, std, count, q01, q10, q50, q90, q99.

Only known values count: NaN is left out, where LeRobot's own code would make every statistic of the feature NaN. The
statistics of an element that is never known are NaN.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

QUANTILES = {"q01": 0.01, "q10": 0.1, "q50": 0.5, "q90": 0.9, "q99": 0.99}
NAMES = ("min", "max", "mean", "std", "count", *QUANTILES)
MAX_KEPT_VALUES = 2**22
"""Values of a feature that are kept for quantiles; beyond that, those of every 2nd, 4th, ... frame."""

Floats = NDArray[np.float64]


class RunningStats:
    """Statistics of one feature over episodes in bounded memory; quantiles of over `MAX_KEPT_VALUES` are not exact."""

    def __init__(self) -> None:
        self._known: Floats | None = None
        self._kept: list[NDArray[Any]] = []
        self._every, self._num_frames = 1, 0
        self._count = 0

    def add(self, values: NDArray[Any]) -> dict[str, Any]:
        """Take an episode's values, (T, D), and return its own statistics."""
        values = np.asarray(values, np.float64)
        sums = _sums(values)
        self._merge(sums)
        self._keep(values)
        self._count += (frames := _known_frames(values))
        return _named(sums, _quantiles(values), frames)

    def result(self) -> dict[str, Any]:
        """Over everything so far."""
        kept = np.concatenate(self._kept) if self._kept else np.empty((0, 0))
        return _named(self._known, _quantiles(kept), self._count)

    def _merge(self, new: Floats) -> None:
        """Chan, Golub and LeVeque, 1979: means and sums of squares of two groups as those of both."""
        old = self._known
        if old is None:
            self._known = new
            return
        count = old[0] + new[0]
        safe = np.maximum(count, 1)
        delta = new[1] - old[1]
        mean = old[1] + delta * new[0] / safe
        square = old[2] + new[2] + delta**2 * old[0] * new[0] / safe
        self._known = np.stack([count, mean, square, np.fmin(old[3], new[3]), np.fmax(old[4], new[4])])

    def _keep(self, values: Floats) -> None:
        first = -self._num_frames % self._every
        self._kept.append(values[first :: self._every])
        self._num_frames += len(values)
        while sum(part.size for part in self._kept) > MAX_KEPT_VALUES:
            self._kept = [np.concatenate(self._kept)[::2]]
            self._every *= 2


class RunningImageStats:
    """Statistics of a camera's images, per channel, over every pixel: exact, from a histogram of the 256 levels."""

    def __init__(self) -> None:
        self._total = np.zeros((3, 256), np.int64)
        self._episode = np.zeros((3, 256), np.int64)
        self._count = self._num = 0

    def add(self, image: NDArray[np.uint8]) -> None:
        """One (h, w, 3) image of the episode under way."""
        for channel in range(3):
            self._episode[channel] += np.bincount(image[..., channel].reshape(-1), minlength=256)
        self._num += 1

    def end_episode(self) -> dict[str, Any]:
        """The episode's statistics; the next image begins another."""
        found = _image_stats(self._episode, self._num)
        self._total += self._episode
        self._count += self._num
        self._episode, self._num = np.zeros((3, 256), np.int64), 0
        return found

    def result(self) -> dict[str, Any]:
        """Over everything so far."""
        return _image_stats(self._total, self._count)


def _sums(values: Floats) -> Floats:
    """(5, D): how many are known, their mean, their squares about it, least and largest."""
    known = np.isfinite(values)
    count = known.sum(axis=0).astype(np.float64)
    safe = np.maximum(count, 1)
    mean = np.where(known, values, 0).sum(axis=0) / safe
    square = (np.where(known, values - mean, 0) ** 2).sum(axis=0)
    least = np.min(values, axis=0, where=known, initial=np.inf)
    largest = np.max(values, axis=0, where=known, initial=-np.inf)
    return np.stack([count, mean, square, least, largest])


def _known_frames(values: Floats) -> int:
    return int(np.isfinite(values).any(axis=1).sum())


def _quantiles(values: Floats) -> dict[str, Floats]:
    """Quantiles of each column's known values, by linear interpolation; NaN for a column without one."""
    ordered = np.sort(np.where(np.isfinite(values), values, np.inf), axis=0)  # unknown ones last
    last = np.isfinite(values).sum(axis=0) - 1
    found = {}
    for name, share in QUANTILES.items():
        at = np.maximum(last, 0) * share
        low = np.floor(at).astype(np.intp)
        if not len(ordered):
            found[name] = np.full(values.shape[1], np.nan)
            continue
        below = np.take_along_axis(ordered, low[None], axis=0)[0]
        above = np.take_along_axis(ordered, np.minimum(low + 1, np.maximum(last, 0))[None], axis=0)[0]
        with np.errstate(invalid="ignore"):
            found[name] = np.where(last >= 0, below + (above - below) * (at - low), np.nan)
    return found


def _named(sums: Floats | None, quantiles: dict[str, Floats], count: int) -> dict[str, Any]:
    if sums is None:
        return {}
    known = sums[0] > 0
    std = np.sqrt(sums[2] / np.maximum(sums[0], 1))
    least, largest, mean, std = (np.where(known, value, np.nan) for value in (sums[3], sums[4], sums[1], std))
    basic = {"min": least, "max": largest, "mean": mean, "std": std, "count": np.array([count])}
    return {name: value.tolist() for name, value in (basic | quantiles).items()}


def _image_stats(histogram: NDArray[np.int64], count: int) -> dict[str, Any]:
    levels = np.arange(256) / 255
    total = np.maximum(histogram.sum(axis=1), 1)
    mean = histogram @ levels / total
    std = np.sqrt(np.maximum(histogram @ levels**2 / total - mean**2, 0))
    up_to = np.cumsum(histogram, axis=1)
    found = {
        "min": levels[np.argmax(histogram > 0, axis=1)],
        "max": levels[255 - np.argmax(histogram[:, ::-1] > 0, axis=1)],
        "mean": mean,
        "std": std,
    }
    for name, share in QUANTILES.items():
        found[name] = levels[np.argmax(up_to >= share * total[:, None], axis=1)]
    channels = {name: value.reshape(3, 1, 1).tolist() for name, value in found.items()}
    return {name: [count] if name == "count" else channels[name] for name in NAMES}
