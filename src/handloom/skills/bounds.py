"""Bounds from few demonstrations: robust percentiles, wider the fewer there are; regions of grasps; bounded paths."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.cluster.hierarchy import fcluster, linkage
from scipy.sparse.csgraph import connected_components
from scipy.spatial.distance import squareform
from scipy.spatial.transform import Rotation

from handloom.skills.execution import Step
from handloom.skills.skill import PathBounds, Region

Floats = NDArray[np.float64]

PERCENTILES = (10.0, 90.0)
PLACE_M, TURN_RAD = 0.025, np.radians(15.0)
"""How far a good execution may be from a demonstration for no reason at all: tracks and hands are that exact."""
OF_FEW = 2.0
"""With n demonstrations margins are this times 1 / n wider: one demonstration gives three times the margin of many."""
OF_SPREAD = 0.25
LEAST_OF_PATH = 0.7
"""Share of a path's 10 keypoints, each with all of its 6 numbers, that must be inside their bounds, beside its end. A
share of a path's 60 numbers let 53 % of paths pass that ended 10 cm elsewhere along one axis, this alone 13 %."""
ENOUGH_TO_LEAVE_OUT, FAR_OFF = 4, 5.0
"""Of so many paths those are left out that end farther than this times the median distance from the middle end."""
LEAST_GAIN = 0.3
"""A box explains where paths end if the spread of the ends falls by this share or more, in three or more of them."""
NEAR_M, NEAR_RAD = 0.06, np.radians(45.0)
"""Grasps nearer than this, in the sum of both shares, are of one region."""
SIGHT = np.array([0.0, 1.0, -1.0]) / np.sqrt(2.0)
"""Where a person's camera looks, along the axes of a thing before it (y away from the camera, z up): half down."""
PALM_M = 0.09
"""From the wrist to the middle of the knuckles, along y of the hand's frame."""


def bounds(values: Floats, margin: Floats | float) -> tuple[Floats, Floats]:
    """Least and largest value along the first axis (n, ...), NaN left out; margin: of a single number."""
    low, high = np.nanpercentile(values, PERCENTILES, axis=0)
    wide = np.asarray(margin) * (1.0 + OF_FEW / len(values)) + OF_SPREAD * (high - low)
    return low - wide, high + wide


def apart_se3(grasps: Floats) -> Floats:
    """(n, n) how far grasps (n, 4, 4) are from each other: 1 is `NEAR_M` or `NEAR_RAD`, both shares are added."""
    places, turns = grasps[:, :3, 3], Rotation.from_matrix(grasps[:, :3, :3])
    far = np.linalg.norm(places[:, None] - places[None], axis=2) / NEAR_M
    return far + np.stack([(turn.inv() * turns).magnitude() for turn in turns]) / NEAR_RAD


def group_grasps(grasps: Floats) -> NDArray[np.int64]:
    """(n) number of the region of each grasp (n, 4, 4): neighbours of neighbours belong together, as in DBSCAN with one
    neighbour, on SE(3)."""
    if not len(grasps):
        return np.empty(0, np.int64)
    found = connected_components(apart_se3(grasps) < 1.0, directed=False)[1]
    return _from_first(found)


def in_groups(apart: Floats, num: int) -> NDArray[np.int64]:
    """(n) numbers from 0 to `num` - 1: groups of which the two things that are farthest apart (n, n) are as near as can
    be (complete linkage)."""
    if len(apart) < 2:
        return np.zeros(len(apart), np.int64)
    tree = linkage(squareform(apart, checks=False), "complete")
    return _from_first(fcluster(tree, num, "maxclust"))


def _from_first(labels: NDArray[Any]) -> NDArray[np.int64]:
    """The same groups, numbered by their first members."""
    _, first, inverse = np.unique(labels, return_index=True, return_inverse=True)
    return first.argsort().argsort()[inverse].astype(np.int64)


def regions_of(grasps: Floats, labels: NDArray[np.int64]) -> tuple[Region, ...]:
    """One region a group, the largest first."""
    found = [_region(grasps[labels == label], len(grasps)) for label in np.unique(labels)]
    return tuple(sorted(found, key=lambda one: -one.num))


def _region(grasps: Floats, num_all: int) -> Region:
    places, turns = grasps[:, :3, 3], Rotation.from_matrix(grasps[:, :3, :3])
    middle = np.eye(4)
    middle[:3, :3], middle[:3, 3] = turns.mean().as_matrix(), np.median(places, axis=0)
    values = from_middle(middle, grasps)
    low, high = np.percentile(values, PERCENTILES, axis=0)
    wide = np.repeat([PLACE_M, TURN_RAD], 3) * (1.0 + OF_FEW / num_all) + OF_SPREAD * (high - low)
    return Region(middle, low - wide, high + wide, len(grasps))


def from_middle(middle: Floats, grasps: Floats) -> Floats:
    """(n, 6) places and rotation vectors of grasps (n, 4, 4), from a middle pose, along the thing's axes."""
    turns = Rotation.from_matrix(grasps[:, :3, :3] @ middle[:3, :3].T).as_rotvec()
    return np.concatenate([grasps[:, :3, 3] - middle[:3, 3], turns], axis=1)


def palm(grasps: Floats) -> Floats:
    """(n, 3) the middle of the knuckles of hands (n, 4, 4)."""
    return grasps[:, :3, 3] + PALM_M * grasps[:, :3, 1]


def gap_m(points: Floats, box: Floats) -> Floats:
    """(n) distance of points (n, 3) from a box (6), negative inside."""
    outside = np.maximum(box[:3] - points, points - box[3:])
    return np.where((outside > 0).any(axis=1), np.linalg.norm(np.maximum(outside, 0.0), axis=1), outside.max(axis=1))


def half_size(box: Floats | None) -> Floats:
    """(3) half the size of a box; zeros if it is unknown."""
    return np.zeros(3) if box is None else 0.5 * (box[3:] - box[:3])


def along(num: int) -> Floats:
    """(num, 1) how much of a change at the end of a path each keypoint takes part in."""
    return np.linspace(0.0, 1.0, num)[:, None]


def path_bounds(steps: Sequence[Step]) -> PathBounds | None:
    """Bounds of the paths of some executions of one step; None if no path is known."""
    known = [step for step in steps if step.path is not None]
    if not known:
        return None
    known = [step for step, is_far in zip(known, ends_far_off(known), strict=True) if not is_far]
    paths = np.stack([step.path for step in known if step.path is not None])
    sizes = np.stack([half_size(step.box) for step in known])
    masters = np.stack([half_size(step.master_box) for step in known])
    by_box, by_master = _explained(paths[:, -1, :3], sizes, masters)
    paths[:, :, :3] -= along(paths.shape[1]) * (sizes * by_box + masters * by_master)[:, None]
    low, high = bounds(paths, np.repeat([PLACE_M, TURN_RAD], 3))
    return PathBounds(low, high, by_box, by_master)


def ends_far_off(steps: Sequence[Step]) -> list[bool]:
    """Which of the known paths end much farther from the middle end than others do, along any axis: things that were
    lost on the way. None of fewer than four."""
    ends = np.array([step.path[-1, :3] for step in steps if step.path is not None])
    if len(ends) < ENOUGH_TO_LEAVE_OUT:
        return [False] * len(ends)
    off = np.abs(ends - np.median(ends, axis=0))
    most = PLACE_M * (1.0 + OF_FEW / len(ends)) + FAR_OFF * np.median(off, axis=0)
    return [bool(one) for one in (off > most).any(axis=1)]


def places_inside(places: Floats, low: Floats, high: Floats, error_m: float) -> NDArray[np.bool_]:
    """(n) whether places (n, 3) are between bounds (n, 3), if each may be off by an error along the line of sight."""
    sides = np.stack([low - places, high - places])[:, :, 1:] / SIGHT[1:]
    least, most = sides.min(axis=0).max(axis=1), sides.max(axis=0).min(axis=1)  # shifts along the line of sight
    across = (places[:, 0] >= low[:, 0]) & (places[:, 0] <= high[:, 0])
    return across & (np.maximum(least, -error_m) <= np.minimum(most, error_m))


def same_path(a: Step, b: Step) -> bool:
    """Whether the path of one step is inside the bounds that the other alone would teach; not if one is unknown."""
    if a.path is None or b.path is None:
        return False
    most = np.repeat([PLACE_M, TURN_RAD], 3) * (1.0 + OF_FEW)
    return bool((np.abs(a.path - b.path) <= most).all(axis=1).mean() >= LEAST_OF_PATH)


def _explained(ends: Floats, sizes: Floats, masters: Floats) -> tuple[Floats, Floats]:
    """(3), (3) factors -1, 0 or 1 of the half sizes that make ends (n, 3) most alike, along each axis."""
    by_box, by_master = np.zeros(3), np.zeros(3)
    for axis in range(3) if len(ends) >= 3 else ():
        spread = {
            (a, b): float(np.std(ends[:, axis] - a * sizes[:, axis] - b * masters[:, axis]))
            for a in (0, 1, -1)
            for b in (0, 1, -1)
        }
        best = min(spread, key=lambda pair: spread[pair])
        if spread[best] < (1.0 - LEAST_GAIN) * spread[0, 0]:
            by_box[axis], by_master[axis] = best
    return by_box, by_master


def path_for(bounded: PathBounds, box: Floats | None, master_box: Floats | None) -> tuple[Floats, Floats]:
    """(10, 6) least and largest keypoints for things of these boxes."""
    shift = np.zeros_like(bounded.low)
    shift[:, :3] = along(len(shift)) * (half_size(box) * bounded.by_box + half_size(master_box) * bounded.by_master_box)
    return bounded.low + shift, bounded.high + shift
