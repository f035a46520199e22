"""Point tracks that survive occlusion: Lucas-Kanade for the step, the first sight of each point for the place."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from handloom.models.protocols import ClipFrames
from handloom.models.tracks.follower import HAND_REACH, Follower
from handloom.models.tracks.grids import Grid, LaterGrids
from handloom.models.tracks.hands import LEFT, OWN, RIGHT, STILL, HandRegions
from handloom.models.tracks.layers import StillMotion
from handloom.models.tracks.lucas_kanade import query_grid
from handloom.models.tracks.patches import FrameView
from handloom.models.tracks.queries import Budget, choose, movers
from handloom.schemas.clip import Clip
from handloom.schemas.settings import TracksConfig
from handloom.schemas.values import HandPoints, LaterGrid, TrackKind, Tracks, VideoInfo

Array = NDArray[np.float32]
Cuts = Sequence[int] | NDArray[np.integer]

VERSION = "recover 3"
# Chosen by hand, not fitted.
WINDOW_PX = 11
"""Of the Lucas-Kanade step: smaller than the plain tracker's, since the step is predicted and the place verified."""
KEYFRAME_S = 1 / 3
"""Time between the frames in which new points are chosen."""
VIEWS_BYTES = 24 << 20
"""109 frames of 640 x 360: 7 s."""
_LAYER = {TrackKind.LEFT_HAND: LEFT, TrackKind.RIGHT_HAND: RIGHT, TrackKind.MOVING: OWN, TrackKind.CORNER: STILL}


class RecoveringTracker:
    """Follows the grid of the first frame and `extra` points chosen where they carry information.

    Every point keeps a picture of itself from when it was chosen. A step is predicted by the still scene's motion (a
    homography and local parallax) or the hand's, measured by pyramidal Lucas-Kanade with a forward-backward check,
    and corrected against that picture, so errors do not add up. A point whose picture is not found is not visible; its
    place goes on with what it moved with, and it is visible again, under the same number, when its picture is found
    there. A point without texture follows its neighbours and is visible while the surface looks the same.

    Where the grid has left the picture, after `regrid_s` and at a cut another one begins, in the picture of then; it is
    followed until the next begins, and some frames back (`LaterGrids`). A cut ends everything else.
    """

    def __init__(self, config: TracksConfig) -> None:
        self._config = config

    def track(self, clip: Clip, info: VideoInfo, frames: ClipFrames, hands: HandPoints, cuts: Cuts = ()) -> Tracks:
        """Points are NaN where not visible; those chosen later are followed back to the clip's start as well."""
        height, width = frames.grey(0).shape
        scale = np.array([info.width / width, info.height / height], np.float32)
        queries = query_grid(info.width, info.height, self._config.grid)
        grid = (queries + np.float32(0.5)) / scale - np.float32(0.5)
        regions = HandRegions.of(hands, scale)
        tracks = _Recorded.empty(len(frames), len(grid) + self._config.extra)
        shots = frozenset(int(cut) for cut in cuts)
        views = _Views(frames)
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
class _Recorded:
    """All points over the clip, working pixels."""

    points: Array  # (T, N, 2)
    visible: NDArray[np.bool_]  # (T, N)
    sigma: Array  # (T, N)
    query_frame: NDArray[np.int32]
    kind: NDArray[np.int8]
    motions: dict[int, StillMotion] = field(default_factory=dict)  # to each frame from the one before, where known

    @staticmethod
    def empty(num_frames: int, num: int) -> _Recorded:
        points, visible = np.full((num_frames, num, 2), np.nan, np.float32), np.zeros((num_frames, num), bool)
        query, kind = np.full(num, -1, np.int32), np.full(num, TrackKind.NONE, np.int8)
        return _Recorded(points, visible, points[..., 0].copy(), query, kind)

    def write(self, t: int, follower: Follower) -> None:
        """Points as the follower sees them: their names are their numbers here, and nothing is said of others."""
        now = follower.now
        mine = np.flatnonzero(now.ids < len(self.kind))
        at = now.ids[mine]
        self.points[t, at], self.visible[t, at], self.sigma[t, at] = now.at[mine], now.seen[mine], now.sigma[mine]


class _Views:
    """Frames as followers look at them. The last ones, `VIEWS_BYTES` of them, are kept for the way back."""

    def __init__(self, frames: ClipFrames) -> None:
        self._frames = frames
        self._kept: dict[int, FrameView] = {}

    def at(self, t: int, grey: NDArray[np.uint8]) -> FrameView:
        """grey: of frame `t`."""
        view = self._kept.get(t)
        if view is None:
            view = self._kept[t] = FrameView(grey, self._frames.rgb(t))
            if len(self._kept) > max(1, VIEWS_BYTES // grey.nbytes):
                del self._kept[next(iter(self._kept))]
        view.light = np.ones(3, np.float32)
        return view


def _follower(config: TracksConfig, frames: ClipFrames) -> Follower:
    return Follower(WINDOW_PX, config.levels, config.forward_backward_px, _step_s(frames))


def _step_s(frames: ClipFrames) -> float:
    """In the mean over a second or so, in the median over those: steps of 20 Hz sampled at 15 Hz are 0.05 or 0.1 s."""
    num = min(len(frames) - 1, 16)
    return float(np.median(frames.frame_s[num:] - frames.frame_s[:-num]) / num) if num else 1.0


def _later_grids(config: TracksConfig, frames: ClipFrames, regions: HandRegions, grid: Array) -> LaterGrids | None:
    if not config.regrid_s:
        return None
    every = max(1, round(config.regrid_s / _step_s(frames)))
    layer = lambda points, t: _layer(points, regions, t)
    return LaterGrids(grid, layer, len(grid) + config.extra, every, config.regrid_window)


def _forward(
    config: TracksConfig, frames: ClipFrames, views: _Views, regions: HandRegions, grid: Array, cuts: frozenset[int],
    out: _Recorded,
) -> LaterGrids | None:  # fmt: skip
    """The grid from the first frame on, new points from every key-frame on; later grids beside them."""
    num = out.visible.shape[1]
    follower, later = _follower(config, frames), _later_grids(config, frames, regions, grid)
    every = max(1, round(KEYFRAME_S / follower.step_s))
    budget, free, before, blind = Budget(config.extra), len(grid), frames.grey(0), False
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
        if (t % every == 0 or t in cuts) and free < num and not view.blind:
            nothing = np.zeros((0, 2), np.float32)
            moving = nothing if follower.motion is None else movers(before, after, regions, t, follower.motion)
            seen = follower.now.at[follower.now.seen & (follower.now.ids < num)]
            points, kinds = choose(after, seen, regions, t, moving, budget)
            at = np.arange(free, free + len(points))
            follower.start(at, points, view, _layers(kinds), regions, t, patient=False)
            out.kind[at], out.query_frame[at] = kinds, t
            free += len(points)
        out.write(t, follower)
        if follower.motion is not None and follower.motion.known and not (blind or view.blind):
            out.motions[t] = follower.motion
        blind = view.blind
        if later is not None and t in cuts:
            later.cut(view, regions, t, follower)
        elif later is not None and t > 0:
            later.step(view, regions, t, follower)
        before = after
    return later


def _layers(kinds: NDArray[np.int8]) -> NDArray[np.int8]:
    return np.array([_LAYER[TrackKind(kind)] for kind in kinds], np.int8)


def _layer(points: Array, regions: HandRegions, t: int) -> NDArray[np.int8]:
    """What points of a grid that begins in frame `t` move with."""
    layer = regions.side(t, points, HAND_REACH)
    layer[(layer == STILL) & regions.on_arm(t, points)] = OWN
    return layer


def _backward(
    config: TracksConfig, frames: ClipFrames, views: _Views, regions: HandRegions, cuts: frozenset[int], out: _Recorded,
    later: LaterGrids | None,
) -> None:  # fmt: skip
    """Points chosen later, from their query to their shot's start, under the still motion seen on the way forward; and
    later grids, some frames back."""
    follower = _follower(config, frames)
    before = None
    for t in range(len(frames) - 1, -1, -1):
        new, turns = np.flatnonzero(out.query_frame == t) if t else [], later is not None and later.wants_back(t)
        if not (len(follower.now.ids) or len(new) or turns):
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
            motion = None if there is None else there.back().bent(*matches)
            follower.step(before, after, view, regions, t + 1, t, matches, motion)
            out.write(t, follower)
        if len(new):
            follower.start(new, out.points[t, new], view, _layers(out.kind[new]), regions, t, patient=False)
        if turns:
            later.step_back(view, regions, t, follower)
        before = after


def _matches(out: _Recorded, later: LaterGrids | None, t: int) -> tuple[Array, Array]:
    """(m, 2) points of the grids in frames t + 1 and t."""
    grid = np.flatnonzero(out.visible[t] & out.visible[t + 1] & (out.kind == TrackKind.GRID))
    found = (out.points[t + 1, grid], out.points[t, grid])
    if later is None:
        return found
    return tuple(np.concatenate(both) for both in zip(found, later.matches(t), strict=True))
