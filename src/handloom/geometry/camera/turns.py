"""Cameras that turn on the spot: their rotations from corners, and whether rotations explain them."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from handloom.geometry.camera.static_camera import MIN_PER_FRAME, MIN_THIRDS, num_thirds
from handloom.geometry.rotations import nearest_rotation
from handloom.geometry.sfm.solver import Observations
from handloom.geometry.sfm.views import in_both, medians, padded, summed

Floats = NDArray[np.float64]

TURN_PX = 0.6  # largest median residual of the rotations
TURN_SHARE = 0.75  # of the observations must have a residual within three times that
EVERYWHERE_SHARE, ALL_THIRDS = 0.65, 8
"""Or this share, where in the median frame they lie in 8 of the image's nine parts."""
STILL_TURN_PX = 1.0  # smaller turns count as none
LASTING = 10  # frames: shorter tracks show no parallax
TURN_ROUNDS = 8
_BATCH = 128  # pairs of frames at once


def turns(observations: Observations, focal: float) -> tuple[Floats, Floats]:
    """The rotations of a camera that only turns, fitted to the observations.

    Every corner is a direction; directions and rotations are fitted alternately (Wahba's problem, reweighted), starting
    from the rotations between neighbouring frames.

    Returns:
        World from camera (T, 4, 4), NaN for frames without corners; and residuals (M,), pixels, NaN there.
    """
    rays = _rays(observations, focal)
    world_from_frame, directions = _solved(observations, rays, focal)
    known = ~np.isnan(world_from_frame).any(axis=(1, 2))
    poses = np.full((len(known), 4, 4), np.nan)
    poses[known] = np.eye(4)
    poses[known, :3, :3] = world_from_frame[known]
    left = np.linalg.norm(_turned(world_from_frame, observations.frame, rays) - directions[observations.track], axis=1)
    return poses, focal * left


def turned_directions(observations: Observations, focal: float) -> Floats:
    """(M, 3) each observation's direction as fitted by `turns`, in its frame's camera; NaN as there."""
    rotations, directions = _solved(observations, _rays(observations, focal), focal)
    return np.einsum("mji,mj->mi", rotations[observations.frame], directions[observations.track])


def _rays(observations: Observations, focal: float) -> Floats:
    rays = np.column_stack([observations.xy / focal, np.ones(len(observations.xy))])
    return rays / np.linalg.norm(rays, axis=1, keepdims=True)


def _turned(rotations: Floats, frame: NDArray[np.int64], rays: Floats) -> Floats:
    return np.einsum("mij,mj->mi", rotations[frame], rays)


def _solved(observations: Observations, rays: Floats, focal: float) -> tuple[Floats, Floats]:
    """World from camera (T, 3, 3), NaN for frames without corners, and the directions (N, 3) in the world."""
    world_from_frame = _chained(observations, rays)
    known = ~np.isnan(world_from_frame).any(axis=(1, 2))
    use = known[observations.frame]
    frame, track, rays = observations.frame[use], observations.track[use], rays[use]
    weight = np.ones(len(frame))
    for _ in range(TURN_ROUNDS):
        turned = _turned(world_from_frame, frame, rays)
        directions = summed(track, turned * weight[:, None], observations.num_tracks)
        directions /= np.maximum(np.linalg.norm(directions, axis=1, keepdims=True), 1e-12)
        outer = directions[track][:, :, None] * (rays * weight[:, None])[:, None, :]
        world_from_frame[known] = nearest_rotation(summed(frame, outer, len(known))[known])
        left_px = focal * np.linalg.norm(_turned(world_from_frame, frame, rays) - directions[track], axis=1)
        weight = 1 / (1 + (left_px / (2 * TURN_PX)) ** 2)
    return world_from_frame, directions


@dataclass(frozen=True)
class TurnPath:
    """poses: (T, 4, 4) world from camera, all in one place, NaN for frames with too few corners.

    close: share of the observations of lasting tracks that rotations explain within half a pixel.
    """

    poses: Floats
    close: float


def turn_path(observations: Observations, focal: float, half_size: Floats) -> TurnPath | None:
    """The path of a camera that turns on the spot, or nearly so; None where rotations do not explain the
    observations."""
    poses, left = turns(observations, focal)
    length = np.bincount(observations.track, minlength=observations.num_tracks)
    lasting = length[observations.track] >= LASTING
    left = np.nan_to_num(left, nan=np.inf)
    agrees = left <= 3 * TURN_PX
    if not lasting.any() or np.median(left[lasting]) > TURN_PX:
        return None
    spread = [num_thirds(xy[agrees[span]], half_size) for xy, span in _frames(observations) if span.stop > span.start]
    if agrees[lasting].mean() < (EVERYWHERE_SHARE if np.median(spread) >= ALL_THIRDS else TURN_SHARE):
        return None
    for frame in range(len(poses)):
        span = slice(observations.first[frame], observations.first[frame + 1])
        good = agrees[span]
        few = good.sum() < MIN_PER_FRAME or num_thirds(observations.xy[span][good], half_size) < MIN_THIRDS
        if few or np.median(left[span]) > 2 * TURN_PX:
            poses[frame] = np.nan
    known = np.isfinite(poses).all(axis=(1, 2))
    if not known.any():
        return None
    first = poses[np.flatnonzero(known)[0], :3, :3]
    cosine = (np.einsum("fij,ij->f", poses[known, :3, :3], first) - 1) / 2
    if focal * np.arccos(np.clip(cosine.min(), -1, 1)) < STILL_TURN_PX:
        poses[known] = np.eye(4)  # it turned by less than can be measured
    return TurnPath(poses, float(np.mean(left[lasting] <= 0.5)))


def _frames(observations: Observations) -> list[tuple[Floats, slice]]:
    """Each frame's observations: their pixels, and where they are."""
    first = observations.first.tolist()
    return [(observations.xy[a:b], slice(a, b)) for a, b in itertools.pairwise(first)]


def _chained(observations: Observations, rays: Floats) -> Floats:
    """(T, 3, 3) start: each frame's rotation from the last frame with corners in common; NaN without one."""
    num_frames = len(observations.first) - 1
    rotations = np.full((num_frames, 3, 3), np.nan)
    last, steps, pairs = None, [], []
    for frame in range(num_frames):
        span = slice(observations.first[frame], observations.first[frame + 1])
        if span.stop - span.start < 4:
            continue
        if last is None:
            rotations[frame] = np.eye(3)
        else:
            old = slice(observations.first[last], observations.first[last + 1])
            i, j = in_both(observations.track[old], observations.track[span])
            if len(i) < 4:
                continue
            steps.append((last, frame))
            pairs.append((rays[span][j], rays[old][i]))
        last = frame
    for start in range(0, len(steps), _BATCH):
        found = _robust_turns(pairs[start : start + _BATCH])
        for (before, frame), step in zip(steps[start : start + _BATCH], found, strict=True):
            rotations[frame] = rotations[before] @ step
    return rotations


def _robust_turns(pairs: list[tuple[Floats, Floats]]) -> Floats:
    """(P, 3, 3) rotations that take unit vectors (n, 3), the first of each pair, to the second, reweighted."""
    (source, target), there = padded(pairs)
    weight = there.astype(np.float64)
    for _ in range(4):
        rotation = nearest_rotation(np.einsum("pn,pni,pnj->pij", weight, target, source))
        off = np.einsum("pji,pni->pnj", rotation, source) - target
        left = np.sqrt((off * off).sum(axis=-1))
        weight = there / (1 + (left / np.maximum(medians(left, there), 1e-6)[:, None]) ** 2)
    return rotation
