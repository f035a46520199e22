"""Point tracks that survive occlusion: Lucas-Kanade for the step, the first sight of each point for the place."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from handloom.models.protocols import ClipFrames
from handloom.models.tracks_follower import HAND_REACH, Follower
from handloom.models.tracks_hands import LEFT, OWN, RIGHT, STILL, HandRegions
from handloom.models.tracks_lk import query_grid
from handloom.models.tracks_patches import View
from handloom.models.tracks_queries import Budget, choose, movers
from handloom.schemas.clip import Clip
from handloom.schemas.settings import TracksConfig
from handloom.schemas.values import HandPoints, TrackKind, Tracks, VideoInfo

Array = NDArray[np.float32]

VERSION = "recover 1"
# Chosen by hand, not fitted.
WINDOW_PX = 11
"""Of the Lucas-Kanade step: smaller than the plain tracker's, since the step is predicted and the place verified."""
KEYFRAME_S = 1 / 3
"""Time between the frames in which new points are chosen."""
_LAYER = {TrackKind.LEFT_HAND: LEFT, TrackKind.RIGHT_HAND: RIGHT, TrackKind.MOVING: OWN, TrackKind.CORNER: STILL}


class RecoveringTracker:
    """Follows the grid of the first frame and `extra` points chosen where they carry information.

    Every point keeps a picture of itself from when it was chosen. A step is predicted by the still scene's motion (a
    homography and local parallax) or the hand's, measured by pyramidal Lucas-Kanade with a forward-backward check,
    and corrected against that picture, so errors do not add up. A point whose picture is not found is not visible; its
    place goes on with what it moved with, and it is visible again, under the same number, when its picture is found
    there. A point without texture follows its neighbours and is visible while the surface looks the same.
    """

    def __init__(self, config: TracksConfig) -> None:
        self._config = config

    def track(self, clip: Clip, info: VideoInfo, frames: ClipFrames, hands: HandPoints) -> Tracks:
        """Points are NaN where not visible; those chosen later are followed back to the clip's start as well."""
        height, width = frames.grey(0).shape
        scale = np.array([info.width / width, info.height / height], np.float32)
        queries = query_grid(info.width, info.height, self._config.grid)
        grid = (queries + np.float32(0.5)) / scale - np.float32(0.5)
        regions = HandRegions.of(hands, scale)
        tracks = _Recorded.empty(len(frames), len(grid) + self._config.extra)
        _forward(self._config, frames, regions, grid, tracks)
        _backward(self._config, frames, regions, tracks)
        points = (tracks.points + np.float32(0.5)) * scale - np.float32(0.5)
        points[~tracks.visible] = np.nan
        points[0, : len(queries)] = queries
        sigma = np.where(tracks.visible, tracks.sigma * np.float32(np.sqrt(scale.prod())), np.float32(np.nan))
        return Tracks(points, tracks.visible, tracks.query_frame, tracks.kind, sigma)


@dataclass
class _Recorded:
    """All points over the clip, working pixels."""

    points: Array  # (T, N, 2)
    visible: NDArray[np.bool_]  # (T, N)
    sigma: Array  # (T, N)
    query_frame: NDArray[np.int32]
    kind: NDArray[np.int8]

    @staticmethod
    def empty(num_frames: int, num: int) -> _Recorded:
        points, visible = np.full((num_frames, num, 2), np.nan, np.float32), np.zeros((num_frames, num), bool)
        query, kind = np.full(num, -1, np.int32), np.full(num, TrackKind.NONE, np.int8)
        return _Recorded(points, visible, points[..., 0].copy(), query, kind)

    def write(self, t: int, at: NDArray[np.integer], follower: Follower) -> None:
        """Points number `at` as the follower sees them, its own numbers 0, 1, ..."""
        self.points[t, at], self.visible[t, at], self.sigma[t, at] = follower.points, follower.seen, follower.sigma


def _follower(config: TracksConfig, num: int, frames: ClipFrames) -> Follower:
    step_s = float(np.median(np.diff(frames.frame_s))) if len(frames) > 1 else 1.0
    return Follower(num, WINDOW_PX, config.levels, config.forward_backward_px, step_s)


def _forward(config: TracksConfig, frames: ClipFrames, regions: HandRegions, grid: Array, out: _Recorded) -> None:
    """The grid from the first frame on, new points from every key-frame on."""
    num = out.visible.shape[1]
    follower = _follower(config, num, frames)
    every = max(1, round(KEYFRAME_S / follower.step_s))
    budget, free, before = Budget(config.extra), len(grid), frames.grey(0)
    for t in range(len(frames)):
        after = before if t == 0 else frames.grey(t)
        view = View(after, frames.rgb(t))
        if t == 0:
            at = np.arange(free)
            follower.start(at, grid, view, _first_layer(grid, regions), regions, 0)
            out.kind[at], out.query_frame[at] = TrackKind.GRID, 0
        else:
            follower.step(before, after, view, regions, t - 1, t)
        if t % every == 0 and free < num:
            moving = movers(before, after, regions, t, follower.motion) if t else np.zeros((0, 2), np.float32)
            points, kinds = choose(after, follower.points[follower.seen], regions, t, moving, budget)
            at = np.arange(free, free + len(points))
            follower.start(at, points, view, _layers(kinds), regions, t)
            out.kind[at], out.query_frame[at] = kinds, t
            free += len(points)
        out.write(t, np.arange(num), follower)
        before = after


def _layers(kinds: NDArray[np.int8]) -> NDArray[np.int8]:
    return np.array([_LAYER[TrackKind(kind)] for kind in kinds], np.int8)


def _first_layer(points: Array, regions: HandRegions) -> NDArray[np.int8]:
    layer = regions.side(0, points, HAND_REACH)
    layer[(layer == STILL) & regions.on_arm(0, points)] = OWN
    return layer


def _backward(config: TracksConfig, frames: ClipFrames, regions: HandRegions, out: _Recorded) -> None:
    """Points chosen later, from their query to the clip's start, under the still motion seen on the way forward."""
    late = np.flatnonzero(out.query_frame > 0)
    if not len(late):
        return
    last = int(out.query_frame[late].max())
    follower = _follower(config, len(late), frames)
    before = None
    for t in range(last, -1, -1):
        after = frames.grey(t)
        view = View(after, frames.rgb(t))
        if before is not None:
            grid = np.flatnonzero(out.visible[t] & out.visible[t + 1] & (out.kind == TrackKind.GRID))
            follower.step(before, after, view, regions, t + 1, t, (out.points[t + 1, grid], out.points[t, grid]))
            at = np.flatnonzero(out.query_frame[late] > t)
            out.points[t, late[at]], out.visible[t, late[at]] = follower.points[at], follower.seen[at]
            out.sigma[t, late[at]] = follower.sigma[at]
        new = np.flatnonzero(out.query_frame[late] == t)
        if len(new):
            follower.start(new, out.points[t, late[new]], view, _layers(out.kind[late[new]]), regions, t)
        before = after
