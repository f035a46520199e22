"""Key frames of a reconstruction, and candidates for its first two views."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from handloom.geometry.sfm.solver import Observations
from handloom.geometry.sfm.views import common, parallaxes

Ints = NDArray[np.int64]

MIN_COMMON = 15  # tracks that two views or a view and the points must share
MIN_PARALLAX_PX = 0.7  # median, of the first two views
KEY_STEP = 3  # frames between key frames at least
KEY_MOTION_PX = 8.0
KEPT = 0.6  # of a key frame's tracks: where fewer are left, the next key frame follows at once
MAX_KEY_STEP = 8
NUM_STARTS = 6
# Key frames that are tried as the first view (few where any good start will do), and how many key frames later the
# second view is.
NUM_FIRST, FEW_FIRST, GAPS = 16, 12, (1, 2, 3, 4, 6, 8, 11, 15, 20)


class NotReconstructed(Exception):
    """There is no reconstruction. reason: a key of `camera.path.REASONS`."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


def key_frames(observations: Observations) -> Ints:
    """(K,) frames of the reconstruction: a new one once the tracks have moved, or few are left."""
    num_frames = len(observations.first) - 1
    keys = [next((f for f in range(num_frames) if len(observations.at(f)[0])), 0)]
    for frame in range(keys[0] + 1, num_frames):
        a, b = common(observations, keys[-1], frame)
        enough = max(3 * MIN_COMMON, KEPT * len(observations.at(keys[-1])[0]))
        if frame - keys[-1] < KEY_STEP and len(a) >= enough:
            continue
        moved = np.median(np.linalg.norm(a - b, axis=1)) if len(a) >= MIN_COMMON else np.inf
        if moved >= KEY_MOTION_PX or frame - keys[-1] >= MAX_KEY_STEP:
            keys.append(frame)
    return np.array(keys)


def start_pairs(observations: Observations, keys: Ints, focal: float, num_first: int) -> list[tuple[float, int, int]]:
    """Candidates for the first two views, the most promising first: (parallax in pixels, frame, frame).

    Raises:
        NotReconstructed: `few_tracks` or `no_parallax`.
    """
    views, seen, most_common = [], [], 0
    for i in range(0, len(keys) - 1, max(1, len(keys) // num_first)):
        for gap in GAPS:
            if i + gap >= len(keys):
                break
            a, b = int(keys[i]), int(keys[i + gap])
            xy_a, xy_b = common(observations, a, b)
            most_common = max(most_common, len(xy_a))
            if len(xy_a) < MIN_COMMON:
                break
            views.append((a, b))
            seen.append((xy_a, xy_b))
    pairs = [
        (min(parallax_px, 20.0) * min(len(xy_a), 100), parallax_px, a, b)
        for (a, b), (xy_a, _), parallax_px in zip(views, seen, parallaxes(seen, focal).tolist(), strict=True)
        if parallax_px >= MIN_PARALLAX_PX
    ]
    if not pairs:
        raise NotReconstructed("few_tracks" if most_common < MIN_COMMON else "no_parallax")
    chosen: list[tuple[float, int, int]] = []
    for _, parallax_px, a, b in sorted(pairs, reverse=True):
        if len(chosen) == NUM_STARTS:
            break
        if all(abs(a - other_a) + abs(b - other_b) >= 2 * KEY_STEP for _, other_a, other_b in chosen):
            chosen.append((parallax_px, a, b))
    return chosen
