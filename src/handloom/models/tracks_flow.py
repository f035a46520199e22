"""What two pictures say: where single points go, there and back, and how the still scene moves."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import cv2
import numpy as np
from numpy.typing import NDArray

from handloom.models.tracks_align import BLOCK_PX, Pair, align
from handloom.models.tracks_hands import HandRegions
from handloom.models.tracks_layers import StillMotion, still_motion
from handloom.models.tracks_rest import RESTED_PX, is_sure, rests

Array = NDArray[np.float32]
Mask = NDArray[np.bool_]
Grey = NDArray[np.uint8]

MIN_EIGENVALUE = 1e-5  # of OpenCV; what is weak is not given to it at all
UNSURE_PX = 0.4
"""Where the corners leave the still scene's motion less sure than this, the pictures as wholes are asked."""
NEAR_HAND = 1.0
"""Palm lengths from a hand within which things may move by themselves."""


class Flow:
    """Pyramidal Lucas-Kanade with a forward-backward check, and what it makes of the corners of two pictures.

    Source: Bouguet, Pyramidal Implementation of the Lucas Kanade Feature Tracker (2001); Kalal et al.,
    Forward-Backward Error (ICPR 2010).
    """

    def __init__(self, window_px: int, levels: int, forward_backward_px: float) -> None:
        self._close_px = forward_backward_px
        self._there = {
            "winSize": (window_px, window_px),
            "maxLevel": levels,
            "criteria": (cv2.TERM_CRITERIA_EPS | cv2.TERM_CRITERIA_COUNT, 10, 0.03),
            "minEigThreshold": MIN_EIGENVALUE,
            "flags": cv2.OPTFLOW_USE_INITIAL_FLOW,
        }
        self._back = self._there | {"maxLevel": min(1, levels)}

    def roughly(self, pair: Pair, origin: Array, guess: Array) -> tuple[Array, Mask]:
        """The same in the pictures at half size, for few points: to make the pictures' pyramids costs a quarter."""
        before, after = pair.small
        ratio = np.array(pair.before.shape[::-1], np.float32) / np.array(before.shape[::-1], np.float32)
        start, place = ((points + np.float32(0.5)) / ratio - np.float32(0.5) for points in (origin, guess))
        found, good = self._both_ways(before, after, start, place, self._close_px / float(ratio[0]))
        return (found + np.float32(0.5)) * ratio - np.float32(0.5), good

    def there_and_back(self, pair: Pair, origin: Array, guess: Array) -> tuple[Array, Mask]:
        """(n, 2) where points go, looked for from a guess on; and who came back to within `forward_backward_px`."""
        return self._both_ways(pair.before, pair.after, origin, guess, self._close_px)

    def _both_ways(self, before: Grey, after: Grey, origin: Array, guess: Array, close_px: float) -> tuple[Array, Mask]:
        if not len(origin):
            return origin, np.zeros(0, bool)
        found, ok, _ = cv2.calcOpticalFlowPyrLK(before, after, origin, guess.copy(), **self._there)
        back, back_ok, _ = cv2.calcOpticalFlowPyrLK(after, before, found, found + (origin - guess), **self._back)
        close = np.linalg.norm(back - origin, axis=1) <= close_px
        return found, (ok[:, 0] == 1) & (back_ok[:, 0] == 1) & close

    def still_motion(
        self, matches: tuple[Array, Array], pair: Pair, regions: HandRegions, t: int, last: StillMotion | None,
        rested: bool,
    ) -> StillMotion:  # fmt: skip
        """As the matches or the pictures have it, but that the camera rests where most of the picture says so.

        last: the motion of the step before. rested: the camera did so in it.
        """
        size = np.array(pair.before.shape[::-1], np.float32)
        free = cache(lambda: regions.free(t, size, BLOCK_PX, NEAR_HAND / 4))
        motion = self._moving(matches, pair, free, last)
        return motion if is_sure(motion, matches) else rests(motion, matches, pair, free(), rested) or motion

    def _moving(
        self, matches: tuple[Array, Array], pair: Pair, free: Callable[[], Mask], last: StillMotion | None
    ) -> StillMotion:
        """By the points that are followed; where they tell it badly, by other corners too; then by whole pictures."""
        size = np.array(pair.before.shape[::-1], np.float32)
        motion = still_motion(*matches, size)
        if motion.typical_px < UNSURE_PX:
            return motion
        corners = pair.corners(free())
        rested = last is not None and last.known and last.shift_px < RESTED_PX  # a dense flow says nothing more then
        guess = corners.copy() if rested else corners + pair.flow_at(corners)
        found, good = self.there_and_back(pair, corners, guess)
        more = tuple(np.concatenate(both) for both in zip(matches, (corners[good], found[good]), strict=True))
        by_corners = still_motion(*more, size)
        if by_corners.typical_px < motion.typical_px:
            matches, motion = more, by_corners
        if motion.typical_px < UNSURE_PX:
            return motion
        starts = [motion.homography, np.eye(3)] + ([last.homography] if last is not None and last.known else [])
        aligned = align(pair, free(), starts)
        if aligned is None:
            return motion
        whole = StillMotion.of(aligned.homography, aligned.covariance, size)
        return whole.bent(*matches) if whole.typical_px < motion.typical_px else motion
