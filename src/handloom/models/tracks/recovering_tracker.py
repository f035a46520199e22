"""Point tracks that survive occlusion: Lucas-Kanade for each step, corrected against a patch stored for each point."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from handloom.models.protocols import ClipFrames
from handloom.models.tracks.follower import HAND_REACH, Follower
from handloom.models.tracks.hand_regions import INDEPENDENT, LEFT, RIGHT, STATIC, HandRegions
from handloom.models.tracks.later_grids import Grid, LaterGrids
from handloom.models.tracks.lucas_kanade import query_grid
from handloom.models.tracks.patches import FrameView
from handloom.models.tracks.queries import Budget, choose_queries, moving_corners
from handloom.models.tracks.scene_motion import SceneMotion
from handloom.schemas.clip import Clip
from handloom.schemas.settings import TracksConfig
from handloom.schemas.values import HandPoints, LaterGrid, TrackKind, Tracks, VideoInfo

Array = NDArray[np.float32]
Cuts = Sequence[int] | NDArray[np.integer]

VERSION = "recover 3"
# Chosen by hand, not fitted.
WINDOW_PX = 11
"""Of Lucas-Kanade: smaller than in `lucas_kanade`, since the step is predicted and the place verified."""
KEYFRAME_S = 1 / 3
"""Time between the frames in which new points are chosen."""
KEPT_VIEWS_BYTES = 24 << 20
"""109 frames of 640 x 360: 7 s."""
_LAYER = {
    TrackKind.LEFT_HAND: LEFT,
    TrackKind.RIGHT_HAND: RIGHT,
    TrackKind.MOVING: INDEPENDENT,
    TrackKind.CORNER: STATIC,
}


class RecoveringTracker:
    """Follows the grid of the first frame and `extra` points chosen where they carry information.

    Every point has a patch of the image, stored when it was chosen. A step is predicted by the motion of the static
    scene (a homography and local parallax) or of the hand, measured by pyramidal Lucas-Kanade with a forward-backward
    check, and corrected against the patch, so errors do not add up. A point whose patch is not found is not visible;
    its place continues with what it moved with, and it is visible again, under the same number, when its patch is found
    there. A point without texture follows its neighbours and is visible while the surface looks the same.

    When the grid has left the image, after `regrid_s`, and at a cut, another grid begins. It is followed until the next
    begins, and some frames backwards (`LaterGrids`). A cut ends all other points.
    """

    def __init__(self, config: TracksConfig) -> None:
        self._config = config

    def track(self, clip: Clip, info: VideoInfo, frames: ClipFrames, hands: HandPoints, cuts: Cuts = ()) -> Tracks:
        """Points are NaN where not visible; those chosen later are also followed backwards to their shot's start."""
        height, width = frames.grey(0).shape
        scale = np.array([info.width / width, info.height / height], np.float32)
        queries = query_grid(info.width, info.height, self._config.grid)
        grid = (queries + np.float32(0.5)) / scale - np.float32(0.5)
        regions = HandRegions.of(hands, scale)
        tracks = _TrackArrays.empty(len(frames), len(grid) + self._config.extra)
        shots = frozenset(int(cut) for cut in cuts)
        views = _FrameViews(frames)
        later = _forward(self._config, frames, views, regions, grid, shots, tracks)
        _backward(self._config, frames, views, regions, shots, tracks, later)
        points = _in_source(tracks.points, tracks.visible, scale)
        points[0, : len(queries)] = queries
        sigma = _sigma_in_source(tracks.sigma, tracks.visible, scale)
        grids = None if later is None else tuple(_stored(one, queries, scale) for one in later.grids)
        return Tracks(points, tracks.visible, tracks.query_frame, tracks.kind, sigma, grids)


def _in_source(points: Array, visible: NDArray[np.bool_], scale: Array) -> Array:
    """Working to source pixels; NaN where not visible."""
    out = (points + np.float32(0.5)) * scale - np.float32(0.5)
    out[~visible] = np.nan
    return out


def _sigma_in_source(sigma: Array, visible: NDArray[np.bool_], scale: Array) -> Array:
    return np.where(visible, sigma * np.float32(np.sqrt(scale.prod())), np.float32(np.nan))


def _stored(grid: Grid, queries: Array, scale: Array) -> LaterGrid:
    back, on = grid.back, grid.on
    visible = np.stack(back.visible[::-1] + on.visible)
    points = _in_source(np.stack(back.points[::-1] + on.points), visible, scale)
    sigma = _sigma_in_source(np.stack(back.sigma[::-1] + on.sigma), visible, scale)
    points[len(back.points)] = queries
    return LaterGrid(grid.query_frame, points, visible, sigma, len(back.points))


@dataclass
class _TrackArrays:
    """All points over the clip, working pixels."""

    points: Array  # (T, N, 2)
    visible: NDArray[np.bool_]  # (T, N)
    sigma: Array  # (T, N)
    query_frame: NDArray[np.int32]
    kind: NDArray[np.int8]
    motions: dict[int, SceneMotion] = field(default_factory=dict)  # to each frame from the one before, where known

    @staticmethod
    def empty(num_frames: int, num: int) -> _TrackArrays:
        points, visible = np.full((num_frames, num, 2), np.nan, np.float32), np.zeros((num_frames, num), bool)
        query, kind = np.full(num, -1, np.int32), np.full(num, TrackKind.NONE, np.int8)
        return _TrackArrays(points, visible, points[..., 0].copy(), query, kind)

    def write(self, t: int, follower: Follower) -> None:
        """Record the follower's points in frame `t`; ids are columns here, and higher ids belong to later grids."""
        now = follower.now
        mine = np.flatnonzero(now.ids < len(self.kind))
        at = now.ids[mine]
        self.points[t, at], self.visible[t, at], self.sigma[t, at] = now.at[mine], now.seen[mine], now.sigma[mine]


class _FrameViews:
    """Frames prepared for followers. The last ones, up to `KEPT_VIEWS_BYTES`, are kept for the way back."""

    def __init__(self, frames: ClipFrames) -> None:
        self._frames = frames
        self._kept: dict[int, FrameView] = {}

    def at(self, t: int, grey: NDArray[np.uint8]) -> FrameView:
        """grey: of frame `t`."""
        view = self._kept.get(t)
        if view is None:
            view = self._kept[t] = FrameView(grey, self._frames.rgb(t))
            if len(self._kept) > max(1, KEPT_VIEWS_BYTES // grey.nbytes):
                del self._kept[next(iter(self._kept))]
        view.light = np.ones(3, np.float32)
        return view


def _follower(config: TracksConfig, frames: ClipFrames) -> Follower:
    return Follower(WINDOW_PX, config.levels, config.forward_backward_px, _step_s(frames))


def _step_s(frames: ClipFrames) -> float:
    """Seconds per frame: the median of means over 16 frames. Frames of 20 Hz sampled at 15 Hz are 0.05 or 0.1 s
    apart."""
    num = min(len(frames) - 1, 16)
    return float(np.median(frames.frame_s[num:] - frames.frame_s[:-num]) / num) if num else 1.0


def _later_grids(config: TracksConfig, frames: ClipFrames, regions: HandRegions, grid: Array) -> LaterGrids | None:
    if not config.regrid_s:
        return None
    every = max(1, round(config.regrid_s / _step_s(frames)))
    layer = lambda points, t: _layer(points, regions, t)
    return LaterGrids(grid, layer, len(grid) + config.extra, every, config.regrid_window)


def _forward(
    config: TracksConfig, frames: ClipFrames, views: _FrameViews, regions: HandRegions, grid: Array,
    cuts: frozenset[int], out: _TrackArrays,
) -> LaterGrids | None:  # fmt: skip
    """Follow the grid from the first frame, and new points from every key frame; later grids beside them."""
    num = out.visible.shape[1]
    follower, later = _follower(config, frames), _later_grids(config, frames, regions, grid)
    every = max(1, round(KEYFRAME_S / follower.step_s))
    budget, free, before, before_was_blank = Budget(config.extra), len(grid), frames.grey(0), False
    for t in range(len(frames)):
        after = before if t == 0 else frames.grey(t)
        view = views.at(t, after)
        if t == 0:
            at = np.arange(free)
            follower.start(at, grid, view, _layer(grid, regions, 0), regions, 0)
            out.kind[at], out.query_frame[at] = TrackKind.GRID, 0
        elif t in cuts:
            follower.end()
        else:
            follower.step(before, after, view, regions, t - 1, t)
        if (t % every == 0 or t in cuts) and free < num and not view.is_blank:
            nothing = np.zeros((0, 2), np.float32)
            moving = nothing if follower.motion is None else moving_corners(before, after, regions, t, follower.motion)
            seen = follower.now.at[follower.now.seen & (follower.now.ids < num)]
            points, kinds = choose_queries(after, seen, regions, t, moving, budget)
            at = np.arange(free, free + len(points))
            follower.start(at, points, view, _layers(kinds), regions, t, patient=False)
            out.kind[at], out.query_frame[at] = kinds, t
            free += len(points)
        out.write(t, follower)
        if follower.motion is not None and follower.motion.known and not (before_was_blank or view.is_blank):
            out.motions[t] = follower.motion
        before_was_blank = view.is_blank
        if later is not None and t in cuts:
            later.cut(view, regions, t, follower)
        elif later is not None and t > 0:
            later.step(view, regions, t, follower)
        before = after
    return later


def _layers(kinds: NDArray[np.int8]) -> NDArray[np.int8]:
    return np.array([_LAYER[TrackKind(kind)] for kind in kinds], np.int8)


def _layer(points: Array, regions: HandRegions, t: int) -> NDArray[np.int8]:
    """What each point of a grid that begins in frame `t` moves with."""
    layer = regions.hand_at(t, points, HAND_REACH)
    layer[(layer == STATIC) & regions.on_forearm(t, points)] = INDEPENDENT
    return layer


def _backward(
    config: TracksConfig, frames: ClipFrames, views: _FrameViews, regions: HandRegions, cuts: frozenset[int],
    out: _TrackArrays, later: LaterGrids | None,
) -> None:  # fmt: skip
    """Follow points chosen later from their query to their shot's start, with the scene's motion known from the way
    forward; and later grids some frames backwards."""
    follower = _follower(config, frames)
    before = None
    for t in range(len(frames) - 1, -1, -1):
        new = np.flatnonzero(out.query_frame == t) if t else np.empty(0, np.int64)
        turning = later if later is not None and later.follows_back(t) else None
        if not (len(follower.now.ids) or len(new) or turning is not None):
            before = None
            continue
        after = frames.grey(t)
        view = views.at(t, after)
        if before is None or t + 1 in cuts:
            follower.end()
            if later is not None:
                later.stop_back()
        else:
            matches = _matches(out, later, t)
            there = out.motions.get(t + 1)  # known from the way forward: to fit it again cost an eighth of all tracking
            motion = None if there is None else there.back().with_parallax(*matches)
            follower.step(before, after, view, regions, t + 1, t, matches, motion)
            out.write(t, follower)
        if len(new):
            follower.start(new, out.points[t, new], view, _layers(out.kind[new]), regions, t, patient=False)
        if turning is not None:
            turning.step_back(view, regions, t, follower)
        before = after


def _matches(out: _TrackArrays, later: LaterGrids | None, t: int) -> tuple[Array, Array]:
    """(m, 2) points of the grids in frames t + 1 and t."""
    grid = np.flatnonzero(out.visible[t] & out.visible[t + 1] & (out.kind == TrackKind.GRID))
    found = (out.points[t + 1, grid], out.points[t, grid])
    if later is None:
        return found
    return tuple(np.concatenate(both) for both in zip(found, later.matches(t), strict=True))
