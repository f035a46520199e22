"""What two pictures say: whether the camera rests, where single points go, and how the still scene moves."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import cv2
import numpy as np
from numpy.typing import NDArray

from handloom.geometry.camera.motion import warp
from handloom.models.tracks.align import (
    BLOCK_PX,
    CORRELATED,
    MIN_PIXELS,
    Aligned,
    Level,
    Pair,
    align,
    covariance_of,
    halves,
    numbers_of,
    soft,
)
from handloom.models.tracks.hands import HandRegions
from handloom.models.tracks.layers import PARALLAX, StillMotion, cells_of, still_motion

Floats = NDArray[np.float64]
Matches = tuple[NDArray[np.float32], NDArray[np.float32]]

# Chosen by hand, not fitted, on ten shots of a virtual camera over real pictures, one of them at rest.
ASKED_PX, RESTED_PX, TOLD_BY = 0.1, 1.0, 0.5
"""A motion that is larger than the first is asked for, if its matches lie in fewer of the cells than the third; a
camera that moved less than the second rested."""
FROM_REST = 0.06
"""A larger step, as a share of sqrt(width * height), is not believed of a camera that rested."""
_PARTS, _SHARE, _SHARE_AGAIN = (16, 9), 0.6, 0.25
"""Parts of the picture that vote; which share of them must say that the camera rests, and that it goes on to."""
_VOTES, _VOTES_AGAIN = 12, 4
"""And how many: a moving camera had 11 once and 7 once, mostly none; one at rest 15 and more."""
_MOST_GREY, _TOLD_GREY2 = 8.0, 8.0
"""The largest difference of a pixel that counts; the sum of squares by which a part has to be better under one."""
_ISLANDS_AGAIN, _ISLANDS, _EDGES = 0.12, 2, 3
"""Where no motion is known: the share of the parts with as many edges that look as before, and their least number."""
_SAME_GREY = 5.0
"""A pixel that differs by less looks as before."""
_SWAY_PX = 1.0
"""What a camera at rest may move in one step."""


def rests(
    motion: StillMotion, matches: Matches, pair: Pair, free: NDArray[np.bool_], rested: bool
) -> StillMotion | None:
    """The motion of a camera at rest where the pictures speak for it and against `motion`, else None.

    Args:
        matches: (n, 2) each, that told the motion. free: (h / 8, w / 8) blocks that may be of the still scene.
        rested: the camera did so in the step before, and fewer parts of the picture have to say that it goes on.
    """
    likely = motion.known and not (rested and motion.shift_px > FROM_REST * float(np.sqrt(motion.size.prod())))
    found = _at_rest(pair, free, motion.homography if likely else None, rested)
    if found is None:
        return None
    return StillMotion.of(found.homography, found.covariance, motion.size).bent(*matches)


def is_sure(motion: StillMotion, matches: Matches) -> bool:
    """The motion is so small, or told by so much of the picture, that none need not be thought of."""
    return motion.known and (motion.shift_px < ASKED_PX or _told_by(matches, motion) > TOLD_BY)


def _told_by(matches: Matches, motion: StillMotion) -> float:
    """Share of the cells in which a match agrees with the motion."""
    before, after = matches
    off = np.linalg.norm(warp(motion.homography, before) - after, axis=1)
    return cells_of(before[off < PARALLAX * float(np.sqrt(np.prod(motion.size)))], motion.size)


def _at_rest(pair: Pair, free: NDArray[np.bool_], homography: Floats | None, rested: bool) -> Aligned | None:
    """The still scene's motion near none, where the picture speaks for a camera at rest and against `homography`.

    Every part of the picture that tells the two apart has a vote. None where they speak for the homography.

    Args:
        homography: None where no motion is known; then parts with edges have to look the same.
    """
    size = np.array(pair.before.shape[::-1], np.float64)
    first, after = (soft(grey) for grey in pair.small)
    # A dark thing that comes near darkens the whole as the light does, but not the rest of the picture.
    befores = [first] + ([next(halves(pair.taken))] if pair.taken is not pair.before else [])
    before = max(befores, key=lambda one: np.count_nonzero(cv2.absdiff(one, after) < _SAME_GREY))
    level = Level.of(before, after, free, BLOCK_PX // 2, size)
    if len(level.points) < MIN_PIXELS:
        return None
    still = _off(level, np.eye(3))
    resting = (
        _islands_rest(level, still, size, _ISLANDS_AGAIN if rested else _SHARE)
        if homography is None
        else _speaks_for_rest(level, still, homography, size, rested)
    )
    if not resting:
        return None
    level = level.only(still < _SAME_GREY)
    if len(level.points) < MIN_PIXELS:
        return None
    found, information, variance = level.refine(np.eye(3), 3, size)
    rest, move = _votes(level, _off(level, np.eye(3)), found, size)
    if rest >= move or np.abs(numbers_of(found, size)).max() > _SWAY_PX:
        found = np.eye(3)
    return Aligned(found, covariance_of(information, CORRELATED * variance, size), level.explained(found))


def _part_of(points: NDArray[np.float32], size: Floats) -> NDArray[np.int64]:
    """(n,) number of the part of the picture that a point votes in."""
    column, row = np.minimum(points / size * _PARTS, np.array(_PARTS) - 1).astype(int).T
    return row * _PARTS[0] + column


def _islands_rest(level: Level, still: NDArray[np.float32], size: Floats, share: float) -> bool:
    """In at least this share of the parts that have edges most of them look as before, by differences `still` (n,)."""
    steep = np.linalg.norm(level.slopes, axis=1) > _SAME_GREY
    part = _part_of(level.points[steep], size)
    edges, alike = np.bincount(part), np.bincount(part, still[steep] < _SAME_GREY)
    told = edges >= _EDGES
    islands = alike[told] > 0.8 * edges[told]
    return bool(islands.sum() >= _ISLANDS and islands.mean() >= share)


def _speaks_for_rest(level: Level, still: NDArray[np.float32], homography: Floats, size: Floats, rested: bool) -> bool:
    rest, move = _votes(level, still, homography, size)
    enough, share = (_VOTES_AGAIN, _SHARE_AGAIN) if rested else (_VOTES, _SHARE)
    return rest >= enough and rest >= share * (rest + move)


def _votes(level: Level, still: NDArray[np.float32], homography: Floats, size: Floats) -> tuple[int, int]:
    """Parts of the picture that tell rest, with differences `still` (n,), from a motion: for the one, for the other."""
    moved = _off(level, homography)
    both = np.isfinite(moved) & np.isfinite(still)
    better = np.minimum(moved[both], _MOST_GREY) ** 2 - np.minimum(still[both], _MOST_GREY) ** 2
    told = np.bincount(_part_of(level.points[both], size), better)
    return int((told > _TOLD_GREY2).sum()), int((told < -_TOLD_GREY2).sum())


def _off(level: Level, homography: Floats) -> NDArray[np.float32]:
    """(n,) size of the difference, the light's own change taken out; NaN for what leaves the picture."""
    off, inside = level.difference(homography)
    # The median is the light's change, or that of a thing that fills the picture.
    lights = (np.float32(0), np.median(off[inside]) if inside.any() else np.float32(0))
    light = max(lights, key=lambda light: np.count_nonzero(np.abs(off[inside] - light) < _SAME_GREY))
    return np.where(inside, np.abs(off - light), np.float32(np.nan))


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
