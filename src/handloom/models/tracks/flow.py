"""Motion between two images: of single points by Lucas-Kanade, of the static scene, and whether the camera rests."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import cv2
import numpy as np
from numpy.typing import NDArray

from handloom.geometry.camera.motion import warp
from handloom.models.tracks.alignment import (
    BLOCK_PX,
    CORRELATED,
    MIN_PIXELS,
    Alignment,
    ImagePair,
    PyramidLevel,
    align,
    blurred,
    covariance_of,
    parameters_of,
    pyramid,
)
from handloom.models.tracks.hand_regions import HandRegions
from handloom.models.tracks.scene_motion import MAX_PARALLAX, SceneMotion, fit_scene_motion, share_of_cells

Array = NDArray[np.float32]
Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]
Grey = NDArray[np.uint8]
Matches = tuple[NDArray[np.float32], NDArray[np.float32]]

# Chosen by hand, not fitted, on ten shots of a virtual camera over real images, one of them at rest.
SMALL_MOTION_PX, RESTING_PX, SUPPORTED_SHARE = 0.1, 1.0, 0.5
"""A motion larger than the first is doubted if its matches lie in a smaller share of the cells than the third. A camera
whose image moved less than the second was at rest."""
MAX_STEP_FROM_REST = 0.06
"""A camera at rest does not start with a larger step; a share of sqrt(width * height)."""
_PARTS, _SHARE, _SHARE_AGAIN = (16, 9), 0.6, 0.25
"""Parts of the image that vote; the share that must vote for rest, and the share if the camera was at rest before."""
_VOTES, _VOTES_AGAIN = 12, 4
"""The least numbers of these votes: a moving camera had 11 once and 7 once, mostly none; one at rest 15 and more."""
_MAX_DIFFERENCE_GREY, _MIN_VOTE_GREY2 = 8.0, 8.0
"""Differences of a pixel are capped at the first. A part votes if its sums of squares differ by more than the
second."""
_MIN_EDGES_REST_SHARE, _MIN_PARTS, _MIN_EDGES = 0.12, 2, 3
"""If no motion is known and the camera was at rest before: the share of the parts with edges that must look as before;
their least number; and the least number of edges in a part."""
_SAME_GREY = 5.0
"""A pixel that differs by less looks the same."""
_SWAY_PX = 1.0
"""Largest motion in one step of a camera at rest."""
MIN_EIGENVALUE = 1e-5  # of OpenCV's Lucas-Kanade; it only gets points with texture
MAX_CERTAIN_PX = 0.4
"""If corners leave the scene's motion a larger standard deviation than this, the whole images are aligned."""
NEAR_HAND = 1.0
"""Palm lengths from a hand within which objects may move by themselves."""


def resting_motion(
    motion: SceneMotion, matches: Matches, pair: ImagePair, free: NDArray[np.bool_], rested: bool
) -> SceneMotion | None:
    """The motion of a camera at rest if the images fit that better than `motion`, else None.

    Args:
        matches: (n, 2) each, to which the motion was fitted.
        free: (h / 8, w / 8) blocks that may show the static scene.
        rested: the camera was at rest in the step before; then fewer parts of the image have to vote for it.
    """
    likely = motion.known and not (rested and motion.shift_px > MAX_STEP_FROM_REST * float(np.sqrt(motion.size.prod())))
    found = _at_rest(pair, free, motion.homography if likely else None, rested)
    if found is None:
        return None
    return SceneMotion.of(found.homography, found.covariance, motion.size).with_parallax(*matches)


def is_certain(motion: SceneMotion, matches: Matches) -> bool:
    """Whether the motion is small, or supported by so much of the image, that rest need not be tested."""
    return motion.known and (motion.shift_px < SMALL_MOTION_PX or _supported_share(matches, motion) > SUPPORTED_SHARE)


def _supported_share(matches: Matches, motion: SceneMotion) -> float:
    """Share of the cells in which a match agrees with the motion."""
    before, after = matches
    off = np.linalg.norm(warp(motion.homography, before) - after, axis=1)
    return share_of_cells(before[off < MAX_PARALLAX * float(np.sqrt(np.prod(motion.size)))], motion.size)


def _at_rest(pair: ImagePair, free: NDArray[np.bool_], homography: Floats | None, rested: bool) -> Alignment | None:
    """The alignment of a camera at rest if the image fits that better than `homography`, else None.

    Every part of the image in which the two differ has a vote.

    Args:
        homography: None if no motion is known; then parts with edges have to look the same.
    """
    size = np.array(pair.before.shape[::-1], np.float64)
    first, after = (blurred(grey) for grey in pair.small)
    # A dark object that comes near changes the mean as the light does, but not the rest of the image.
    befores = [first] + ([next(pyramid(pair.original))] if pair.original is not pair.before else [])
    before = max(befores, key=lambda one: np.count_nonzero(cv2.absdiff(one, after) < _SAME_GREY))
    level = PyramidLevel.of(before, after, free, BLOCK_PX // 2, size)
    if len(level.points) < MIN_PIXELS:
        return None
    at_rest = _grey_difference(level, np.eye(3))
    resting = (
        _edges_rest(level, at_rest, size, _MIN_EDGES_REST_SHARE if rested else _SHARE)
        if homography is None
        else _votes_for_rest(level, at_rest, homography, size, rested)
    )
    if not resting:
        return None
    level = level.select(at_rest < _SAME_GREY)
    if len(level.points) < MIN_PIXELS:
        return None
    found, information, variance = level.refine(np.eye(3), 3, size)
    rest, move = _votes(level, _grey_difference(level, np.eye(3)), found, size)
    if rest >= move or np.abs(parameters_of(found, size)).max() > _SWAY_PX:
        found = np.eye(3)
    return Alignment(found, covariance_of(information, CORRELATED * variance, size), level.explained_share(found))


def _part_of(points: NDArray[np.float32], size: Floats) -> NDArray[np.int64]:
    """(n,) number of the part of the image that each point is in."""
    column, row = np.minimum(points / size * _PARTS, np.array(_PARTS) - 1).astype(int).T
    return row * _PARTS[0] + column


def _edges_rest(level: PyramidLevel, at_rest: NDArray[np.float32], size: Floats, share: float) -> bool:
    """Whether in this share of the parts with edges most edges look as before. at_rest: (n,) differences at rest."""
    steep = np.linalg.norm(level.slopes, axis=1) > _SAME_GREY
    part = _part_of(level.points[steep], size)
    edges, alike = np.bincount(part), np.bincount(part, at_rest[steep] < _SAME_GREY)
    votes = edges >= _MIN_EDGES
    parts = alike[votes] > 0.8 * edges[votes]
    return bool(parts.sum() >= _MIN_PARTS and parts.mean() >= share)


def _votes_for_rest(
    level: PyramidLevel, at_rest: NDArray[np.float32], homography: Floats, size: Floats, rested: bool
) -> bool:
    rest, move = _votes(level, at_rest, homography, size)
    enough, share = (_VOTES_AGAIN, _SHARE_AGAIN) if rested else (_VOTES, _SHARE)
    return rest >= enough and rest >= share * (rest + move)


def _votes(level: PyramidLevel, at_rest: NDArray[np.float32], homography: Floats, size: Floats) -> tuple[int, int]:
    """Numbers of parts that vote for rest, and for the motion. at_rest: (n,) differences at rest."""
    moved = _grey_difference(level, homography)
    both = np.isfinite(moved) & np.isfinite(at_rest)
    better = np.minimum(moved[both], _MAX_DIFFERENCE_GREY) ** 2 - np.minimum(at_rest[both], _MAX_DIFFERENCE_GREY) ** 2
    votes = np.bincount(_part_of(level.points[both], size), better)
    return int((votes > _MIN_VOTE_GREY2).sum()), int((votes < -_MIN_VOTE_GREY2).sum())


def _grey_difference(level: PyramidLevel, homography: Floats) -> NDArray[np.float32]:
    """(n,) absolute difference without the change of the light; NaN for points that leave the image."""
    off, inside = level.difference(homography)
    # The median may be the change of the light, or that of an object that fills the image.
    lights = (np.float32(0), np.median(off[inside]) if inside.any() else np.float32(0))
    light = max(lights, key=lambda light: np.count_nonzero(np.abs(off[inside] - light) < _SAME_GREY))
    return np.where(inside, np.abs(off - light), np.float32(np.nan))


class StepFlow:
    """Pyramidal Lucas-Kanade with a forward-backward check, for points and for the static scene's motion.

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

    def forward_backward_at_half_size(self, pair: ImagePair, origin: Array, guess: Array) -> tuple[Array, Mask]:
        """The same in the images at half size, for few points: building their pyramids costs a quarter."""
        before, after = pair.small
        ratio = np.array(pair.before.shape[::-1], np.float32) / np.array(before.shape[::-1], np.float32)
        start, place = ((points + np.float32(0.5)) / ratio - np.float32(0.5) for points in (origin, guess))
        found, good = self._forward_backward(before, after, start, place, self._close_px / float(ratio[0]))
        return (found + np.float32(0.5)) * ratio - np.float32(0.5), good

    def forward_backward(self, pair: ImagePair, origin: Array, guess: Array) -> tuple[Array, Mask]:
        """(n, 2) new places of points, searched from a guess; and which lead back within `forward_backward_px`."""
        return self._forward_backward(pair.before, pair.after, origin, guess, self._close_px)

    def _forward_backward(
        self, before: Grey, after: Grey, origin: Array, guess: Array, close_px: float
    ) -> tuple[Array, Mask]:
        if not len(origin):
            return origin, np.zeros(0, bool)
        found, ok, _ = cv2.calcOpticalFlowPyrLK(before, after, origin, guess.copy(), **self._there)
        back, back_ok, _ = cv2.calcOpticalFlowPyrLK(after, before, found, found + (origin - guess), **self._back)
        close = np.linalg.norm(back - origin, axis=1) <= close_px
        return found, (ok[:, 0] == 1) & (back_ok[:, 0] == 1) & close

    def fit_scene_motion(
        self, matches: tuple[Array, Array], pair: ImagePair, regions: HandRegions, t: int, last: SceneMotion | None,
        rested: bool,
    ) -> SceneMotion:  # fmt: skip
        """The static scene's motion from matches or whole images; at rest if most of the image votes for it.

        last: the motion of the step before. rested: the camera was at rest in it.
        """
        size = np.array(pair.before.shape[::-1], np.float32)
        free = cache(lambda: regions.free_blocks(t, size, BLOCK_PX, NEAR_HAND / 4))
        motion = self._measured_motion(matches, pair, free, last)
        if is_certain(motion, matches):
            return motion
        return resting_motion(motion, matches, pair, free(), rested) or motion

    def _measured_motion(
        self, matches: tuple[Array, Array], pair: ImagePair, free: Callable[[], Mask], last: SceneMotion | None
    ) -> SceneMotion:
        """From the followed points; if that is uncertain, from more corners, too; then from the whole images."""
        size = np.array(pair.before.shape[::-1], np.float32)
        motion = fit_scene_motion(*matches, size)
        if motion.median_sigma_px < MAX_CERTAIN_PX:
            return motion
        corners = pair.corners(free())
        rested = last is not None and last.known and last.shift_px < RESTING_PX  # dense flow adds nothing then
        guess = corners.copy() if rested else corners + pair.flow_at(corners)
        found, good = self.forward_backward(pair, corners, guess)
        more = np.concatenate([matches[0], corners[good]]), np.concatenate([matches[1], found[good]])
        by_corners = fit_scene_motion(*more, size)
        if by_corners.median_sigma_px < motion.median_sigma_px:
            matches, motion = more, by_corners
        if motion.median_sigma_px < MAX_CERTAIN_PX:
            return motion
        starts = [motion.homography, np.eye(3)] + ([last.homography] if last is not None and last.known else [])
        aligned = align(pair, free(), starts)
        if aligned is None:
            return motion
        whole = SceneMotion.of(aligned.homography, aligned.covariance, size)
        return whole.with_parallax(*matches) if whole.median_sigma_px < motion.median_sigma_px else motion
