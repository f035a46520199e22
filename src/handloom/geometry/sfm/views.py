"""Views of the same points: shared tracks, rotations, reprojection, triangulation. Plain linear algebra.

Poses are camera from world, (3, 4) [R | t]; pixels are of a pinhole with the principal point at (0, 0).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from handloom.geometry.rotations import nearest_rotation
from handloom.geometry.sfm.solver import Observations, Scene

Floats = NDArray[np.float64]


def common(observations: Observations, a: int, b: int) -> tuple[Floats, Floats]:
    """Pixels (n, 2) of the tracks seen in both frames."""
    (tracks_a, xy_a), (tracks_b, xy_b) = observations.at(a), observations.at(b)
    in_a, in_b = in_both(tracks_a, tracks_b)
    return xy_a[in_a], xy_b[in_b]


def in_both(a: NDArray[np.int64], b: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Indices into (n,) and into (m,) numbers, each ascending and without repeats, of those that are in both."""
    if not len(b):
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    at = np.minimum(np.searchsorted(b, a), len(b) - 1)
    both = np.flatnonzero(b[at] == a)
    return both, at[both]


def parallaxes(pairs: list[tuple[Floats, Floats]], focal: float) -> Floats:
    """(P,) median residual, pixels, of the best rotation between the two views of each pair, (n, 2) pixels each.

    Wahba's problem on the rays, reweighted (Cauchy, 2 px): near points that moved count little. All pairs are solved at
    once: one by one, 100 pairs took 40 ms.
    """
    if not pairs:
        return np.zeros(0)
    (xy_a, xy_b), there = padded(pairs)
    rays_a, rays_b = _rays(xy_a, focal), _rays(xy_b, focal)
    weight = there.astype(np.float64)
    for _ in range(4):
        turn = nearest_rotation(np.einsum("pn,pni,pnj->pij", weight, rays_b, rays_a))
        turned = np.einsum("pji,pni->pnj", turn, rays_a)
        off = focal * turned[..., :2] / np.maximum(turned[..., 2:], 1e-3) - xy_b
        left = np.sqrt(off[..., 0] ** 2 + off[..., 1] ** 2)
        middle = medians(left, there)
        weight = there / (1 + (left / np.maximum(2.0, middle)[:, None]) ** 2)
    return middle


def padded(pairs: list[tuple[Floats, Floats]]) -> tuple[list[Floats], NDArray[np.bool_]]:
    """Both sides of P pairs of (n, k) as (P, N, k), zeros beyond n; and (P, N) which entries are filled."""
    count = np.array([len(one) for one, _ in pairs])
    there = np.arange(count.max()) < count[:, None]
    return [filled(side, there) for side in zip(*pairs, strict=True)], there


def filled(parts: Sequence[Floats], there: NDArray[np.bool_]) -> Floats:
    """P parts of (n, k) as (P, N, k), zeros where `there` (P, N) is false."""
    out = np.zeros((*there.shape, parts[0].shape[1]))
    out[there] = np.concatenate(parts)
    return out


def medians(values: Floats, there: NDArray[np.bool_]) -> Floats:
    """(P,) medians of those of the (P, n) values that are `there`, at least one in each row."""
    ordered = np.sort(np.where(there, values, np.inf), axis=1)
    row, count = np.arange(len(there)), there.sum(axis=1)
    return (ordered[row, (count - 1) // 2] + ordered[row, count // 2]) / 2


@dataclass(frozen=True)
class Exactness:
    """Tolerance of corners: a slack of `still` in a frame at rest, which grows with `moving` for each px of motion."""

    still: float
    moving: float


SHARP = Exactness(1.0, 0.1)
BLURRED = Exactness(1.5, 0.25)
"""For blur, blocks of a codec and a rolling shutter: in images that move by 20 px a frame corners are off by 1 to 3 px,
else by 0.3. With one tolerance for all frames, 0.55 to 0.65 of such observations were explained and a third of the
frames placed; with this 0.7 to 0.9, and 0.4 to 1 (Ego4D, HaWoR). Where things move it is worse, so it is the second
try."""
MAX_SLACK = 5.0


def steps_px(observations: Observations) -> Floats:
    """(T,) median displacement of the corners since the previous frame, pixels; NaN where none continues, 0 for the
    first."""
    num_frames = len(observations.first) - 1
    order = np.lexsort((observations.frame, observations.track))
    frame, track = observations.frame[order], observations.track[order]
    goes_on = np.flatnonzero((track[1:] == track[:-1]) & (frame[1:] == frame[:-1] + 1))
    at = frame[goes_on + 1]
    length = np.linalg.norm(observations.xy[order[goes_on + 1]] - observations.xy[order[goes_on]], axis=1)
    length = length[np.lexsort((length, at))]
    count = np.bincount(at, minlength=num_frames)
    first = np.cumsum(count) - count
    way = np.full(num_frames, np.nan)
    there = np.flatnonzero(count)
    first, count = first[there], count[there]
    way[there] = (length[first + (count - 1) // 2] + length[first + count // 2]) / 2
    way[:1] = 0.0
    return way


def with_slack(observations: Observations, exact: Exactness) -> Observations:
    """The same with each frame's slack by its motion: the larger one of the steps to and from it."""
    way = np.append(np.nan_to_num(steps_px(observations)), 0.0)
    speed = np.maximum(way[:-1], way[1:])
    return replace(observations, slack=np.minimum(np.hypot(exact.still, exact.moving * speed), MAX_SLACK))


def reprojection_error(scene: Scene, observations: Observations) -> Floats:
    """(M,) pixels over the frame's slack; NaN where the camera or the point is unknown, infinite behind the camera."""
    poses, points = scene.poses[observations.frame], scene.points[observations.track]
    local = np.einsum("mij,mj->mi", poses[:, :, :3], points) + poses[:, :, 3]
    with np.errstate(divide="ignore", invalid="ignore"):
        error = np.linalg.norm(scene.focal * local[:, :2] / local[:, 2:] - observations.xy, axis=1)
    return np.where(local[:, 2] <= 1e-6, np.inf, error / observations.slack[observations.frame])


def triangulate(scene: Scene, observations: Observations, tracks: NDArray[np.bool_]) -> Floats:
    """Points (N, 3) of the chosen tracks from all cameras that are known: linear least squares, NaN where degenerate.

    Source: Hartley and Zisserman, Multiple View Geometry, section 12.2 (inhomogeneous).
    """
    use = tracks[observations.track] & np.isfinite(scene.poses[observations.frame]).all(axis=(1, 2))
    poses, ray = scene.poses[observations.frame[use]], observations.xy[use] / scene.focal
    first, second = (ray[:, i, None] * poses[:, 2] - poses[:, i] for i in range(2))  # (m, 4): x * third row - first row
    num, index = len(scene.points), observations.track[use]
    normal, vector = np.empty((num, 3, 3)), np.empty((num, 3))
    for i, j in ((0, 0), (0, 1), (0, 2), (1, 1), (1, 2), (2, 2), (0, 3), (1, 3), (2, 3)):
        total = np.bincount(index, first[:, i] * first[:, j] + second[:, i] * second[:, j], minlength=num)
        if j < 3:
            normal[:, i, j] = normal[:, j, i] = total
        else:
            vector[:, i] = -total
    points = np.full((num, 3), np.nan)
    good = np.flatnonzero(np.bincount(index, minlength=num) >= 2)
    values = np.linalg.eigvalsh(normal[good])
    good = good[values[:, 0] > 1e-9 * np.maximum(values[:, 2], 1e-30)]
    points[good] = np.linalg.solve(normal[good], vector[good][..., None])[..., 0]
    return points


def summed(index: NDArray[np.int64], values: Floats, num: int) -> Floats:
    """(num, ...) sums of (M, ...) values by index."""
    flat = values.reshape(len(values), int(np.prod(values.shape[1:])))
    columns = [np.bincount(index, weights=column, minlength=num) for column in flat.T]
    return np.stack(columns, axis=1, dtype=np.float64).reshape(num, *values.shape[1:])


def _rays(xy: Floats, focal: float) -> Floats:
    """(..., 2) pixels to (..., 3) directions of length 1."""
    rays = np.concatenate([xy / focal, np.ones_like(xy[..., :1])], axis=-1)
    return rays / np.linalg.norm(rays, axis=-1, keepdims=True)
