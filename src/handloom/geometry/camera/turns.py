"""Cameras that turn on the spot. Measured, not assumed."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from handloom.geometry.camera.rest import MIN_PER_FRAME, MIN_THIRDS, num_thirds
from handloom.geometry.sfm.solver import Observations
from handloom.geometry.sfm.views import in_both, medians, padded, summed

Floats = NDArray[np.float64]

TURN_PX = 0.6  # median of what the rotations leave over
TURN_SHARE = 0.75  # of the sightings must be explained within three times that
EVERYWHERE_SHARE, ALL_THIRDS = 0.65, 8  # or so many, where they lie all over the picture in the median frame
STILL_TURN_PX = 1.0
LASTING = 10  # frames: shorter tracks show no parallax
TURN_ROUNDS = 8
_BATCH = 128  # pairs of frames that are turned at once


def turns(sightings: Observations, focal: float) -> tuple[Floats, Floats]:
    """A camera that only turns, as well as it explains the sightings.

    Every corner is a direction; directions and rotations are fitted in turn (Wahba's problem, reweighted), starting
    from the rotation between one frame and the next.

    Returns:
        World from camera (T, 4, 4), NaN where a frame has no corners, and what is left over (M,), pixels, NaN there.
    """
    rays = _rays(sightings, focal)
    world_from_frame, directions = _solved(sightings, rays, focal)
    known = ~np.isnan(world_from_frame).any(axis=(1, 2))
    poses = np.full((len(known), 4, 4), np.nan)
    poses[known] = np.eye(4)
    poses[known, :3, :3] = world_from_frame[known]
    left = np.linalg.norm(_turned(world_from_frame, sightings.frame, rays) - directions[sightings.track], axis=1)
    return poses, focal * left


def turned_directions(sightings: Observations, focal: float) -> Floats:
    """(M, 3) where each sighting's direction, fitted as by `turns`, lies in its frame's camera; NaN as there."""
    rotations, directions = _solved(sightings, _rays(sightings, focal), focal)
    return np.einsum("mji,mj->mi", rotations[sightings.frame], directions[sightings.track])


def _rays(sightings: Observations, focal: float) -> Floats:
    rays = np.column_stack([sightings.xy / focal, np.ones(len(sightings.xy))])
    return rays / np.linalg.norm(rays, axis=1, keepdims=True)


def _turned(rotations: Floats, frame: NDArray[np.int64], rays: Floats) -> Floats:
    return np.einsum("mij,mj->mi", rotations[frame], rays)


def _solved(sightings: Observations, rays: Floats, focal: float) -> tuple[Floats, Floats]:
    """World from camera (T, 3, 3), NaN where a frame has no corners, and the directions (N, 3) in the world."""
    world_from_frame = _chained(sightings, rays)
    known = ~np.isnan(world_from_frame).any(axis=(1, 2))
    use = known[sightings.frame]
    frame, track, rays = sightings.frame[use], sightings.track[use], rays[use]
    weight = np.ones(len(frame))
    for _ in range(TURN_ROUNDS):
        turned = _turned(world_from_frame, frame, rays)
        directions = summed(track, turned * weight[:, None], sightings.num_tracks)
        directions /= np.maximum(np.linalg.norm(directions, axis=1, keepdims=True), 1e-12)
        outer = directions[track][:, :, None] * (rays * weight[:, None])[:, None, :]
        world_from_frame[known] = _nearest_rotation(summed(frame, outer, len(known))[known])
        left_px = focal * np.linalg.norm(_turned(world_from_frame, frame, rays) - directions[track], axis=1)
        weight = 1 / (1 + (left_px / (2 * TURN_PX)) ** 2)
    return world_from_frame, directions


@dataclass(frozen=True)
class TurnPath:
    """poses: (T, 4, 4) world from camera, NaN where a frame has too little; all places are the same.

    close: share of the sightings of lasting tracks that rotations explain within half a pixel.
    """

    poses: Floats
    close: float


def turn_path(sightings: Observations, focal: float, half_size: Floats) -> TurnPath | None:
    """The path of a camera that turns on the spot, or nearly so; None where rotations leave too much over."""
    poses, left = turns(sightings, focal)
    length = np.bincount(sightings.track, minlength=sightings.num_tracks)
    lasting = length[sightings.track] >= LASTING
    left = np.nan_to_num(left, nan=np.inf)
    agrees = left <= 3 * TURN_PX
    if not lasting.any() or np.median(left[lasting]) > TURN_PX:
        return None
    spread = [num_thirds(xy[agrees[span]], half_size) for xy, span in _frames(sightings) if span.stop > span.start]
    if agrees[lasting].mean() < (EVERYWHERE_SHARE if np.median(spread) >= ALL_THIRDS else TURN_SHARE):
        return None
    for frame in range(len(poses)):
        span = slice(sightings.first[frame], sightings.first[frame + 1])
        good = agrees[span]
        few = good.sum() < MIN_PER_FRAME or num_thirds(sightings.xy[span][good], half_size) < MIN_THIRDS
        if few or np.median(left[span]) > 2 * TURN_PX:
            poses[frame] = np.nan
    known = np.isfinite(poses).all(axis=(1, 2))
    if not known.any():
        return None
    first = poses[np.flatnonzero(known)[0], :3, :3]
    cosine = (np.einsum("fij,ij->f", poses[known, :3, :3], first) - 1) / 2
    if focal * np.arccos(np.clip(cosine.min(), -1, 1)) < STILL_TURN_PX:
        poses[known] = np.eye(4)  # it turns by less than can be measured
    return TurnPath(poses, float(np.mean(left[lasting] <= 0.5)))


def _frames(sightings: Observations) -> list[tuple[Floats, slice]]:
    """Each frame's sightings: their pixels, and where they are."""
    first = sightings.first.tolist()
    return [(sightings.xy[a:b], slice(a, b)) for a, b in itertools.pairwise(first)]


def _chained(sightings: Observations, rays: Floats) -> Floats:
    """(T, 3, 3) first guess: each frame from the last one with corners in common; NaN where there is none."""
    num_frames = len(sightings.first) - 1
    rotations = np.full((num_frames, 3, 3), np.nan)
    last, steps, pairs = None, [], []
    for frame in range(num_frames):
        span = slice(sightings.first[frame], sightings.first[frame + 1])
        if span.stop - span.start < 4:
            continue
        if last is None:
            rotations[frame] = np.eye(3)
        else:
            before = slice(sightings.first[last], sightings.first[last + 1])
            i, j = in_both(sightings.track[before], sightings.track[span])
            if len(i) < 4:
                continue
            steps.append((last, frame))
            pairs.append((rays[span][j], rays[before][i]))
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
        rotation = _nearest_rotation(np.einsum("pn,pni,pnj->pij", weight, target, source))
        off = np.einsum("pji,pni->pnj", rotation, source) - target
        left = np.sqrt((off * off).sum(axis=-1))
        weight = there / (1 + (left / np.maximum(medians(left, there), 1e-6)[:, None]) ** 2)
    return rotation


def _nearest_rotation(matrices: Floats) -> Floats:
    """(..., 3, 3)."""
    u, _, vt = np.linalg.svd(matrices)
    flip = np.ones((*matrices.shape[:-2], 3))
    flip[..., 2] = np.linalg.det(u @ vt)
    return (u * flip[..., None, :]) @ vt
