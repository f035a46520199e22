"""Long clips: reconstructed in pieces that overlap, and joined by a similarity where they agree.

Time grows with the frames, memory with a piece's.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from handloom.geometry.sfm.key_frames import NotReconstructed
from handloom.geometry.sfm.poses import MAX_ERROR_PX
from handloom.geometry.sfm.reconstruct import (
    MAX_SPLIT_HALF_RAD,
    Reconstructed,
    reconstruct,
    split_half_rotation_error_rad,
)
from handloom.geometry.sfm.solver import Observations, Scene
from handloom.geometry.sfm.views import reprojection_error

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

PIECE, OVERLAP = 900, 150
"""Frames. Simulated, 3000 frames took 16 s and 0.27 GB in pieces, 19 s and 0.5 GB at once."""
MIN_TOGETHER = 10  # frames that both of two pieces must have placed
MAX_SCALE_SPREAD = 0.1  # of the log ratio of points' depths in one piece and in the other
AGREEING = 0.9  # share of the common frames whose rotations must agree


def reconstruct_long(
    observations: Observations, focal: float, piece: int = PIECE, overlap: int = OVERLAP
) -> Reconstructed:
    """`reconstruct`, in pieces for clips longer than a piece and a half; only the longest row of joined pieces has
    poses.

    Raises:
        NotReconstructed: as `reconstruct`, where no piece can be.
    """
    windows = _windows(observations, piece, overlap)
    if len(windows) == 1:
        return reconstruct(observations, focal, refine_focal=False)
    rows: list[list[_Placed]] = []
    reason = "high_error"
    for start, stop in windows:
        try:
            placed = _piece(observations, start, stop, focal)
        except NotReconstructed as error:
            reason = error.reason
            rows.append([])
            continue
        joined = placed.in_world_of(rows[-1][-1], observations) if rows and rows[-1] else None
        if joined is None:
            rows.append([placed])
        else:
            rows[-1].append(joined)
    best = max(rows, key=lambda row: sum(one.num_placed for one in row))
    if not best:
        raise NotReconstructed(reason)
    return _together(best, observations, focal)


def split_half_error_of_pieces(
    scene: Scene, observations: Observations, piece: int = PIECE, overlap: int = OVERLAP
) -> float:
    """`split_half_rotation_error_rad`, for a long clip of its worst piece: over the whole clip, halves of the tracks
    drift apart without being wrong."""
    windows = _windows(observations, piece, overlap)
    if len(windows) == 1:
        return split_half_rotation_error_rad(scene, observations)
    worst = 0.0
    for start, stop in windows:
        local, tracks = _local(observations, start, stop)
        part = replace(scene, poses=scene.poses[start:stop], points=scene.points[tracks])
        if np.isfinite(part.poses).all(axis=(1, 2)).sum() >= MIN_TOGETHER:
            worst = max(worst, split_half_rotation_error_rad(part, local))
    return worst


@dataclass(frozen=True)
class _Placed:
    """Frames [start, start + len(poses)) in one world; points (n, 3) of `tracks`, NaN unknown."""

    start: int
    poses: Floats
    tracks: Ints
    points: Floats
    parallax_px: float

    @property
    def num_placed(self) -> int:
        return int(np.isfinite(self.poses).all(axis=(1, 2)).sum())

    def depth(self, observations: Observations) -> Floats:
        """(M,) depth of each observation's point in its camera; NaN where unknown."""
        local = observations.frame - self.start
        slot = np.minimum(np.searchsorted(self.tracks, observations.track), len(self.tracks) - 1)
        inside = (local >= 0) & (local < len(self.poses)) & (self.tracks[slot] == observations.track)
        pose = self.poses[np.where(inside, local, 0)]
        ahead = np.einsum("mj,mj->m", pose[:, 2, :3], self.points[slot]) + pose[:, 2, 3]
        return np.where(inside, ahead, np.nan)

    def in_world_of(self, other: _Placed, observations: Observations) -> _Placed | None:
        """The piece in the world of the previous one; None where their common frames and points do not agree."""
        stop = other.start + len(other.poses)
        mine, theirs = self.poses[: stop - self.start], other.poses[self.start - other.start :]
        both = np.isfinite(mine).all(axis=(1, 2)) & np.isfinite(theirs).all(axis=(1, 2))
        seen = observations.kept((observations.frame >= self.start) & (observations.frame < stop))
        with np.errstate(invalid="ignore", divide="ignore"):
            scales = np.log(other.depth(seen) / self.depth(seen))
        scales = scales[np.isfinite(scales)]
        if both.sum() < MIN_TOGETHER or len(scales) < MIN_TOGETHER:
            return None
        turns = Rotation.from_matrix(np.einsum("fji,fjk->fik", theirs[both, :, :3], mine[both, :, :3]))
        turn = turns.mean()
        apart = (turn.inv() * turns).magnitude()
        scale = float(np.median(scales))
        spread = float(np.median(np.abs(scales - scale)))
        if np.quantile(apart, AGREEING) > MAX_SPLIT_HALF_RAD or spread > MAX_SCALE_SPREAD:
            return None
        ratio, matrix = np.exp(scale), turn.as_matrix()
        shift = np.median(_centres(theirs[both]) - ratio * _centres(mine[both]) @ matrix.T, axis=0)
        poses = self.poses.copy()
        poses[:, :, :3] = self.poses[:, :, :3] @ matrix.T
        centres = ratio * _centres(self.poses) @ matrix.T + shift
        poses[:, :, 3] = -np.einsum("fij,fj->fi", poses[:, :, :3], centres)
        return replace(self, poses=poses, points=ratio * self.points @ matrix.T + shift)


def _windows(observations: Observations, piece: int, overlap: int) -> list[tuple[int, int]]:
    """[start, stop) of equally long pieces over all frames with observations."""
    seen = np.flatnonzero(np.diff(observations.first) > 0)
    first, last = (int(seen[0]), int(seen[-1]) + 1) if len(seen) else (0, 0)
    num = max(1, round((last - first - overlap) / (piece - overlap))) if last - first > 1.5 * piece else 1
    starts = np.linspace(first, last - overlap, num + 1).round().astype(int)
    return [(int(a), int(b) + overlap) for a, b in itertools.pairwise(starts)]


def _local(observations: Observations, start: int, stop: int) -> tuple[Observations, Ints]:
    """A piece's observations, its frames and tracks numbered from 0; and the tracks' numbers in the clip."""
    inside = slice(observations.first[start], observations.first[stop])
    tracks, track = np.unique(observations.track[inside], return_inverse=True)
    of = (observations.frame[inside] - start, track, observations.xy[inside], stop - start, len(tracks))
    return Observations.of(*of, observations.slack[start:stop]), tracks


def _piece(observations: Observations, start: int, stop: int, focal: float) -> _Placed:
    local, tracks = _local(observations, start, stop)
    found = reconstruct(local, focal, refine_focal=False)
    return _Placed(start, found.scene.poses, tracks, found.scene.points, found.parallax_px)


def _centres(poses: Floats) -> Floats:
    """(F, 3) places of the cameras in the world."""
    return -np.einsum("fji,fj->fi", poses[:, :, :3], poses[:, :, 3])


def _together(row: list[_Placed], observations: Observations, focal: float) -> Reconstructed:
    """One scene of joined pieces: an overlap's frames half from each piece, each point from its first piece."""
    poses = np.full((len(observations.first) - 1, 3, 4), np.nan)
    points = np.full((observations.num_tracks, 3), np.nan)
    for number, one in enumerate(row):
        skip = (row[number - 1].start + len(row[number - 1].poses) - one.start) // 2 if number else 0
        poses[one.start + skip : one.start + len(one.poses)] = one.poses[skip:]
        new = np.isnan(points[one.tracks]).any(axis=1)
        points[one.tracks[new]] = one.points[new]
    scene = Scene(poses, points, focal)
    agrees = np.zeros(len(observations.frame), bool)
    errors = []
    for one in row:
        inside = slice(observations.first[one.start], observations.first[one.start + len(one.poses)])
        error = reprojection_error(scene, observations.kept(_only(inside, len(agrees))))
        agrees[inside] = np.nan_to_num(error, nan=np.inf) <= MAX_ERROR_PX
        errors.append(error[agrees[inside]])
    if not agrees.any():
        raise NotReconstructed("high_error")
    error_px, parallax_px = float(np.median(np.concatenate(errors))), min(one.parallax_px for one in row)
    return Reconstructed(scene, observations.kept(agrees), error_px, parallax_px)


def _only(inside: slice, num: int) -> NDArray[np.bool_]:
    mask = np.zeros(num, bool)
    mask[inside] = True
    return mask
