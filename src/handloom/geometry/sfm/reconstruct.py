"""Structure from motion on point tracks: key frames, two first views, the other cameras one by one, bundle
adjustment."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from handloom.geometry.rotations import apart_rad
from handloom.geometry.sfm.key_frames import (
    FEW_FIRST,
    MIN_COMMON,
    NUM_FIRST,
    NotReconstructed,
    key_frames,
    start_pairs,
)
from handloom.geometry.sfm.plane import twin_pose
from handloom.geometry.sfm.poses import MAX_ERROR_PX, place, place_all, placed, pose_errors
from handloom.geometry.sfm.solver import Observations, Scene, bundle_adjust, relative_pose
from handloom.geometry.sfm.views import common, reprojection_error, triangulate

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

WINDOW = 24  # key frames that move in one adjustment
GOOD_START = 0.85
START_PARALLAX_PX = 8.0
NUM_GROWN = 2
SAME_TURN_RAD, SAME_WAY_RAD = np.radians(0.5), np.radians(8)
"""A start whose two views are so near to those of a scene that was grown already would grow into the same scene: many
second starts are. The two solutions of a flat scene are further apart (`plane`)."""
TWIN_SHARE = 0.1
"""The second solution of a start is grown, too, where the share of other views' observations that agree with it is
lower by at most this. On walls and tables 0.9 to 1 agree with either where the focal length is 5 percent off; grown,
the wrong one costs 1.4 times as much."""
MAX_SPLIT_HALF_RAD = np.radians(1.7)
"""Limit of `split_half_rotation_error_rad`. Rendered clips of a grainy table under shadows: 1.8 and 3.2 degrees where
the path was wrong by 2.5 and 3.4 degrees, 0.3 and 1.6 where it was right to 0.4 and 1."""
GROW = 6  # key frames added between two adjustments


@dataclass(frozen=True)
class Reconstructed:
    """scene: with every frame that could be placed. observations: those that agree with it. error_px: their median
    error.

    parallax_px: of the first two views.
    """

    scene: Scene
    observations: Observations
    error_px: float
    parallax_px: float


def reconstruct(observations: Observations, focal: float, refine_focal: bool) -> Reconstructed:
    """Cameras of all frames and points of all tracks, up to one common scale.

    Raises:
        NotReconstructed: `few_tracks`, `no_parallax` or `high_error`.
    """
    keys = key_frames(observations)
    at_keys = observations.kept(np.isin(observations.frame, keys))
    scene, parallax_px = _best_grown(at_keys, keys, focal, refine_focal, NUM_FIRST)
    scene = _place_others(scene, observations)
    scene, kept = _finish(scene, observations)
    error = reprojection_error(scene, kept)
    if not len(error):
        raise NotReconstructed("high_error")
    return Reconstructed(scene, kept, float(np.median(error)), parallax_px)


def _best_grown(
    observations: Observations, keys: Ints, focal: float, refine_focal: bool, num_first: int = FEW_FIRST
) -> tuple[Scene, float]:
    """All key frames from the start that explains them best, and the start's parallax.

    Both solutions of a flat scene are grown, unless the focal length is free: with a focal length of its own each fits
    as well as the other, and the lens is no better.
    """
    grown: list[tuple[float, Scene, float]] = []
    for start, parallax_px in _starts(observations, keys, focal, num_first, twins=not refine_focal):
        if any(_leads_to(start, scene) for _, scene, _ in grown):
            continue
        try:
            scene = _grow(start, observations, keys, refine_focal)
        except NotReconstructed:
            continue
        grown.append((_cost(scene, observations), scene, parallax_px))
    if not grown:
        raise NotReconstructed("high_error")
    return min(grown, key=lambda found: found[0])[1:]


def _leads_to(start: Scene, scene: Scene) -> bool:
    """Whether the two views of a start have the same relative pose in a grown scene: it would grow into the same."""
    a, b = placed(start)
    ours, theirs = (_relative(one.poses[a], one.poses[b]) for one in (start, scene))
    if not np.isfinite(theirs).all():
        return False
    turned = (np.trace(ours[:, :3] @ theirs[:, :3].T) - 1) / 2
    ways = [one[:, 3] / max(float(np.linalg.norm(one[:, 3])), 1e-12) for one in (ours, theirs)]
    apart = [float(np.arccos(np.clip(cosine, -1, 1))) for cosine in (turned, ways[0] @ ways[1])]
    return apart[0] <= SAME_TURN_RAD and apart[1] <= SAME_WAY_RAD


def _relative(a: Floats, b: Floats) -> Floats:
    """Pose (3, 4) of camera b in a's frame."""
    turn = b[:, :3] @ a[:, :3].T
    return np.column_stack([turn, b[:, 3] - turn @ a[:, 3]])


def stretch(observations: Observations, focal: float, num_keys: int, num_tracks: int) -> Observations:
    """Observations in the key frames around the best two first views, of the tracks that most of them see.

    Raises:
        NotReconstructed: `few_tracks` or `no_parallax`.
    """
    keys = key_frames(observations)
    at_keys = observations.kept(np.isin(observations.frame, keys))
    _, a, b = start_pairs(at_keys, keys, focal, FEW_FIRST)[0]
    near = keys[np.argsort(np.abs(keys - (a + b) / 2), kind="stable")[:num_keys]]
    at_keys = at_keys.kept(np.isin(at_keys.frame, near))
    seen = np.bincount(at_keys.track, minlength=observations.num_tracks)
    most = np.zeros(observations.num_tracks, bool)
    most[np.argsort(-seen, kind="stable")[:num_tracks]] = True
    return at_keys.kept(most[at_keys.track])


def grown(at_keys: Observations, focal: float) -> Scene:
    """All frames of a stretch reconstructed, the focal length refined. Raises as `reconstruct` does."""
    return _best_grown(at_keys, np.unique(at_keys.frame), focal, refine_focal=True)[0]


def split_half_rotation_error_rad(scene: Scene, observations: Observations) -> float:
    """Largest difference of a frame's rotation between `scene` and a reconstruction from half of the tracks, of the
    nearer half.

    A wrong solution of a flat scene, or one that follows something that moves, is seldom found twice. Infinite where
    neither half can be reconstructed.
    """
    keys = key_frames(observations)
    at_keys = observations.kept(np.isin(observations.frame, keys))
    placed = np.isfinite(scene.poses[keys]).all(axis=(1, 2)).sum()
    nearest = float("inf")
    for half in (0, 1):
        try:
            other, _ = _best_grown(at_keys.kept(at_keys.track % 2 == half), keys, scene.focal, False)
        except NotReconstructed:
            continue
        both = np.isfinite(scene.poses).all(axis=(1, 2)) & np.isfinite(other.poses).all(axis=(1, 2))
        if both.sum() >= 0.5 * placed:
            turns = [one.poses[both, :, :3].transpose(0, 2, 1) for one in (scene, other)]
            nearest = min(nearest, apart_rad(*turns))
        if nearest <= MAX_SPLIT_HALF_RAD:
            break
    return nearest


def _starts(
    observations: Observations, keys: Ints, focal: float, num_first: int, twins: bool
) -> list[tuple[Scene, float]]:
    """Pairs of key frames with many common tracks and much parallax that fit other key frames, too; and their parallax.

    Two views of a flat table have two solutions, and the wrong one fits these two as well as the right one. In other
    views 0.2 to 0.3 of its points agree, and 0.8 to 0.95 of the right one's; with a focal length that is a little off,
    all of both. One start where that is clear, else the best few; the second solution of the first as well.
    """
    tried: list[tuple[float, _Start]] = []
    pairs = start_pairs(observations, keys, focal, num_first)
    much = 0.5 * min(max(parallax_px for parallax_px, _, _ in pairs), 2 * START_PARALLAX_PX)
    for parallax_px, a, b in pairs:
        scene = _two_views(observations, a, b, focal)
        if scene is None:
            continue
        start = _Start(scene, parallax_px, (a, b), _agreeing(scene, observations, keys, (a, b)))
        if start.share >= GOOD_START and parallax_px >= much:  # with little parallax everything agrees
            both = (start, *(_twin(start, observations, keys) if twins else ()))
            return [(one.scene, parallax_px) for one in both]
        tried.append((start.share * min(parallax_px, START_PARALLAX_PX) ** 0.25, start))
    tried.sort(key=lambda one: -one[0])
    best = [start for _, start in tried[:NUM_GROWN]]
    other = _twin(best[0], observations, keys) if best and twins else ()
    return [(one.scene, one.parallax_px) for one in (*best, *other)]


@dataclass(frozen=True)
class _Start:
    """A scene of two views, their parallax and frames, and the share of other views' observations that agree."""

    scene: Scene
    parallax_px: float
    views: tuple[int, int]
    share: float


def _twin(start: _Start, observations: Observations, keys: Ints) -> list[_Start]:
    """The second solution of a flat scene, where other views agree with it nearly as well; none, or one."""
    a, b = start.views
    pose = _relative(*start.scene.poses[[a, b]])
    focal, most_px = start.scene.focal, MAX_ERROR_PX * float(max(observations.slack[a], observations.slack[b]))
    twin = twin_pose(*common(observations, a, b), focal, most_px, pose)
    scene = None if twin is None else _scene_of(twin, observations, a, b, focal)
    if scene is None:
        return []
    share = _agreeing(scene, observations, keys, (a, b))
    return [replace(start, scene=scene, share=share)] if share >= start.share - TWIN_SHARE else []


def _cost(scene: Scene, observations: Observations) -> float:
    """Mean cost of the observations (Cauchy); one of an unknown camera or point counts as `MAX_ERROR_PX` off."""
    error = np.nan_to_num(reprojection_error(scene, observations), nan=MAX_ERROR_PX, posinf=50.0)
    return float(np.log1p(np.minimum(error, 50.0) ** 2).mean())


def _agreeing(scene: Scene, observations: Observations, keys: Ints, pair: tuple[int, int]) -> float:
    """Share of the points' observations in the nearest other key frames that agree with the best poses there."""
    others = sorted((k for k in keys.tolist() if k not in pair), key=lambda k: min(abs(k - pair[0]), abs(k - pair[1])))
    scene = place_all(scene, observations, others[:6])
    agreeing = total = 0
    for frame in others[:6]:
        tracks, xy = observations.at(frame)
        known = np.isfinite(scene.points[tracks]).all(axis=1)
        total += int(known.sum())
        if np.isfinite(scene.poses[frame]).all():
            errors = pose_errors(scene.poses[frame], scene.points[tracks[known]], xy[known], scene.focal)
            agreeing += int(np.sum(errors <= observations.slack[frame] * MAX_ERROR_PX / 2))
    return agreeing / total if total else 0.5


def _two_views(observations: Observations, a: int, b: int, focal: float) -> Scene | None:
    xy_a, xy_b = common(observations, a, b)
    found = relative_pose(xy_a, xy_b, focal, MAX_ERROR_PX * max(observations.slack[a], observations.slack[b]))
    if found is None or found[1].sum() < max(MIN_COMMON * 0.7, 0.5 * len(xy_a)):
        return None
    return _scene_of(found[0], observations, a, b, focal)


def _scene_of(pose: Floats, observations: Observations, a: int, b: int, focal: float) -> Scene | None:
    """Two cameras, one with `pose` (3, 4) in the other's frame, and the points that they see."""
    poses = np.full((len(observations.first) - 1, 3, 4), np.nan)
    poses[a], poses[b] = np.eye(3, 4), pose
    scene = Scene(poses, np.full((observations.num_tracks, 3), np.nan), focal)
    scene = _with_points(scene, observations)
    return bundle_adjust(scene, _inliers(scene, observations, MAX_ERROR_PX), iterations=10)


def _with_points(scene: Scene, observations: Observations) -> Scene:
    """The scene with points for all tracks that lack one; points that their observations contradict stay unknown."""
    missing = np.isnan(scene.points).any(axis=1)
    found = triangulate(scene, observations, missing)
    trial = replace(scene, points=np.where(missing[:, None], found, scene.points))
    return replace(trial, points=np.where(_bad_points(trial, observations, missing)[:, None], np.nan, trial.points))


def _bad_points(scene: Scene, observations: Observations, among: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """(N,) points with which fewer than two, or less than 60 percent, of their observations agree."""
    observations = observations.kept(among[observations.track])
    error = reprojection_error(scene, observations)
    known = ~np.isnan(error)
    agreeing = np.bincount(observations.track[known & (error <= MAX_ERROR_PX)], minlength=len(scene.points))
    total = np.bincount(observations.track[known], minlength=len(scene.points))
    return among & ((agreeing < 2) | (agreeing < 0.6 * total))


def _inliers(scene: Scene, observations: Observations, max_error_px: float) -> Observations:
    error = reprojection_error(scene, observations)
    return observations.kept(np.isfinite(error) & (np.nan_to_num(error, nan=np.inf) <= max_error_px))


def _grow(scene: Scene, observations: Observations, keys: Ints, refine_focal: bool) -> Scene:
    """Key frames are added one by one, the one with most known points first; adjustments in between.

    All adjustments but the last move the neighbourhood only, so that the time is linear in the clip's length.
    """
    waiting, added = set(keys.tolist()) - set(placed(scene)), 0
    tried: set[int] = set()
    while candidates := _neighbours(waiting - tried, placed(scene)):
        known = np.isfinite(scene.points).all(axis=1)
        counts = {f: int(known[observations.at(f)[0]].sum()) for f in candidates}
        frame = max(counts, key=lambda f: (counts[f], -f))
        pose = place(scene, observations, frame)
        if pose is None:
            tried.add(frame)
            continue
        poses = scene.poses.copy()
        poses[frame] = pose
        near = _around(observations, keys, frame)
        scene = _with_points(replace(scene, poses=poses), near)
        waiting.discard(frame)
        tried.clear()
        added += 1
        if added % GROW == 0 and waiting:
            scene = _adjusted(scene, near, frame, refine_focal and added >= GROW)
    return _adjusted(scene, observations, None, refine_focal)


def _neighbours(waiting: set[int], placed: list[int]) -> list[int]:
    """Waiting frames next to placed ones, a few on either side of each run."""
    order = sorted(waiting)
    slots = np.searchsorted(order, placed)
    near = {int(slot) + step for slot in np.unique(slots) for step in range(-3, 3)}
    return [order[i] for i in sorted(near) if 0 <= i < len(order)]


def _around(observations: Observations, keys: Ints, frame: int) -> Observations:
    """Observations in the key frames nearest to `frame`."""
    if len(keys) <= 2 * WINDOW:
        return observations
    near = keys[np.argsort(np.abs(keys - frame), kind="stable")[: 2 * WINDOW]]
    return observations.kept(np.isin(observations.frame, near))


def _adjusted(scene: Scene, observations: Observations, around: int | None, refine_focal: bool = False) -> Scene:
    """Bundle adjustment of the key frames near `around` (None: of all); then bad points go, and missing ones are
    tried."""
    free = None
    there = np.array(placed(scene))
    if around is not None and len(there) > WINDOW:
        near = there[np.argsort(np.abs(there - around), kind="stable")[:WINDOW]]
        free = np.zeros(len(scene.poses), bool)
        free[near] = True
    inliers = _inliers(scene, observations, 2 * MAX_ERROR_PX)
    iterations = 8 if around is not None else 20
    adjusted = bundle_adjust(scene, inliers, free=free, refine_focal=refine_focal, iterations=iterations)
    if adjusted is None:
        raise NotReconstructed("high_error")
    seen = np.bincount(observations.track, minlength=len(scene.points)) > 0
    bad = _bad_points(adjusted, observations, seen & np.isfinite(adjusted.points).all(axis=1))
    return _with_points(replace(adjusted, points=np.where(bad[:, None], np.nan, adjusted.points)), observations)


def _place_others(scene: Scene, observations: Observations) -> Scene:
    """The scene with all other frames placed, each from the points that it sees."""
    others = np.flatnonzero(~np.isfinite(scene.poses).all(axis=(1, 2))).tolist()
    return _with_points(place_all(scene, observations, others), observations)


def _finish(scene: Scene, observations: Observations) -> tuple[Scene, Observations]:
    """The scene adjusted over all frames, and the observations that agree with it."""
    adjusted = bundle_adjust(scene, _inliers(scene, observations, 1.5 * MAX_ERROR_PX), iterations=6)
    if adjusted is None:
        raise NotReconstructed("high_error")
    bad = _bad_points(adjusted, observations, np.isfinite(adjusted.points).all(axis=1))
    adjusted = replace(adjusted, points=np.where(bad[:, None], np.nan, adjusted.points))
    return adjusted, _inliers(adjusted, observations, MAX_ERROR_PX)
