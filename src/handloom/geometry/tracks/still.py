"""Still points of the scene, triangulated over a whole clip from a known camera path."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from handloom.geometry.camera.intrinsics import slope_per_pixel
from handloom.geometry.tracks.smooth import smooth_places
from handloom.schemas.values import Camera, Tracks

Floats = NDArray[np.float64]

NOISE_SHARE = 0.0025
"""Standard deviation of a track's position over the image's focal length: 1 px at 400 px; in slopes, on the axis."""
MAX_OFF = 4.0
"""In a frame where a point is further than this many standard deviations from its place, it does not rest."""
MIN_FRAMES = 4
MIN_SHARE = 0.6
"""Least share of a point's frames that must agree on its place."""
MIN_SHARE_OF_HALF = 0.9
MAX_DEPTH_ERROR = 0.1
"""Largest standard deviation of the distance, as a share of it: with little parallax it is larger."""
MAX_FIRST_ERROR = 1.0
"""The same before neighbours are taken into account."""
LEAST_NOISE_SHARE, CORRELATION = 0.0007, 2.5
"""Least noise of a track; and the factor by which errors that frames have in common enlarge the distance's error."""
_ROUNDS = 6
_CHUNK = 40_000  # frames times points
_UPPER = (0, 0, 0, 1, 1, 2), (0, 1, 2, 1, 2, 2)  # rows and columns of a symmetric matrix
_SOLVED_FRAMES = 32
"""A point is placed from at most so many of its frames, evenly spread; then all frames are checked."""


@dataclass(frozen=True)
class StillPoints:
    """place: (N, 3) in the path's world and unit, NaN where a point could not be placed. at_rest: (T, N) frames in
    which a visible point is seen at its place. moves: (N,) points seen often enough, but not in one place."""

    place: Floats
    at_rest: NDArray[np.bool_]
    moves: NDArray[np.bool_]


def spread_of(rays: Floats, camera: Camera) -> Floats | None:
    """(...) how much larger a pixel's error is in rays (..., 3) than on the axis; None for a pinhole: 1 everywhere."""
    return None if camera.distortion is None else slope_per_pixel(rays[..., :2], camera)


def place_still_points(
    tracks: Tracks, rays: Floats, world_from_camera: Floats, spread: Floats | None = None
) -> StillPoints:
    """Least squares over all frames that see a point, robust (Cauchy).

    Args:
        rays: (T, N, 3) from `rays_of`. world_from_camera: (T, 4, 4), NaN for frames without a pose. spread: (T, N) from
            `spread_of`.

    A point that moves agrees with few frames, and one that the camera saw from one direction only has a large error:
    both stay NaN.

    Source: Hartley and Zisserman, Multiple View Geometry, 2nd ed., section 12.2, weighted by depth.
    """
    num_frames, num = tracks.visible.shape
    place, at_rest = np.full((num, 3), np.nan), np.zeros((num_frames, num), bool)
    moves, error = np.zeros(num, bool), np.full(num, np.nan)
    posed = np.flatnonzero(np.isfinite(world_from_camera).all(axis=(1, 2)))
    poses = world_from_camera[posed]
    spread = np.broadcast_to(1.0, tracks.visible.shape) if spread is None else spread
    if len(posed) < MIN_FRAMES:
        return StillPoints(place, at_rest, moves)
    chunk = max(1, _CHUNK // len(posed))
    for start in range(0, num, chunk):
        some = np.arange(start, min(start + chunk, num))
        ray = rays[np.ix_(posed, some)]
        noise = NOISE_SHARE * spread[np.ix_(posed, some)]
        known = tracks.visible[np.ix_(posed, some)] & np.isfinite(ray).all(-1) & np.isfinite(noise)
        place[some], rest, moves[some], error[some] = _place(ray, noise, known, poses, MIN_SHARE)
        # A thing that is picked up or put down rests for a part of the clip: try the first and the last half of the
        # frames.
        order = np.cumsum(known, axis=0)
        for half in (order <= order[-1] // 2, order > order[-1] // 2):
            again = np.flatnonzero(moves[some] & np.isnan(place[some, 0]))
            found, _, _, off = _place(
                ray[:, again], noise[:, again], (known & half)[:, again], poses, MIN_SHARE_OF_HALF
            )
            good = np.isfinite(found[:, 0])
            place[some[again[good]]], error[some[again[good]]] = found[good], off[good]
            kept = again[good]
            rest[:, kept] = known[:, kept] & _rests(found[good], ray[:, kept], noise[:, kept], poses)
        at_rest[np.ix_(posed, some)] = rest
    seen_from = np.argmax(at_rest[posed], axis=0)
    place, error = smooth_places(place, error, poses[seen_from, :3, 3], poses[len(poses) // 2])
    sure = error < MAX_DEPTH_ERROR
    place[~sure], at_rest[:, ~sure] = np.nan, False
    return StillPoints(place, at_rest, moves)


def camera_points(place: Floats, world_from_camera: Floats) -> Floats:
    """(T, N, 3) world points (N, 3) in every frame's camera."""
    return np.stack(seen_from(place, world_from_camera), axis=-1)


def seen_from(place: Floats, world_from_camera: Floats) -> tuple[Floats, Floats, Floats]:
    """The same as x, y and z, (T, N) each."""
    rotation, centre = world_from_camera[:, :3, :3, None], world_from_camera[:, :3, 3, None]
    offset = [place[:, i] - centre[:, i] for i in range(3)]
    x, y, z = (_dot(offset, rotation[:, :, axis].transpose(1, 0, 2)) for axis in range(3))
    return x, y, z


def _dot(a: Sequence[Floats] | Floats, b: Sequence[Floats] | Floats) -> Floats:
    """a[0] b[0] + a[1] b[1] + a[2] b[2], in place: `sum` needs one more pass over the arrays."""
    total: Floats = a[0] * b[0]
    total += a[1] * b[1]
    total += a[2] * b[2]
    return total


def _place(
    rays: Floats, noise: Floats, known: NDArray[np.bool_], poses: Floats, share: float
) -> tuple[Floats, NDArray[np.bool_], NDArray[np.bool_], Floats]:
    """Places (n, 3), frames at rest (T, n), whether it moves (n,), error (n,); `share` of the frames must agree.

    noise: (T, n) standard deviation of a ray's slopes.
    """
    if not known.any():
        num = rays.shape[1]
        return np.full((num, 3), np.nan), np.zeros(known.shape, bool), np.zeros(num, bool), np.full(num, np.nan)
    rays, noise = np.where(known[..., None], rays, 0.0), np.where(known, noise, NOISE_SHARE)
    frame, used = _spread(known)
    seen = _Seen.of(np.take_along_axis(rays, frame[..., None], axis=0), frame, poses)
    sigma = np.take_along_axis(noise, frame, axis=0)
    trust = (NOISE_SHARE / sigma) ** 2
    weight = used * trust
    for round_ in range(_ROUNDS):
        place, normal = seen.solve(weight)
        depth, off = seen.off(place)
        off /= sigma
        # From tolerant to strict: at first, frames that are far off may be right and the start wrong.
        width = max(2.0, 16.0 / 2**round_)
        weight = used * trust / (1 + (off / width) ** 2) / depth**2
    at_rest = known & _rests(place, rays, noise, poses)
    count, resting = known.sum(0), at_rest.sum(0)
    close = used & (off < MAX_OFF)
    seen_off = np.sqrt((close * off**2).sum(0) / np.maximum(close.sum(0), 1)) * NOISE_SHARE
    error = _distance_error(place, normal, poses, at_rest, CORRELATION * np.maximum(seen_off, LEAST_NOISE_SHARE))
    agree = (resting >= MIN_FRAMES) & (resting >= share * count) & (error < MAX_FIRST_ERROR)
    places = np.where(agree[:, None], place, np.nan)
    moves = (count >= MIN_FRAMES) & ~((resting >= MIN_FRAMES) & (resting >= share * count))
    return places, at_rest & agree, moves, np.where(agree, error, np.nan)


def _rests(place: Floats, rays: Floats, noise: Floats, poses: Floats) -> NDArray[np.bool_]:
    """(T, n) frames in which (n, 3) places lie on their rays."""
    x, y, z = seen_from(place, poses)
    apart = _gap(x, y, np.maximum(z, 1e-9), rays[..., 0], rays[..., 1])
    return (apart < (MAX_OFF * noise) ** 2) & (z > 0)


def _gap(x: Floats, y: Floats, depth: Floats, ray_x: Floats, ray_y: Floats) -> Floats:
    """Squared distance of x / depth and y / depth from a ray's slopes. Overwrites x and y."""
    for value, ray in ((x, ray_x), (y, ray_y)):
        value /= depth
        value -= ray
        value *= value
    x += y
    return x


def _spread(known: NDArray[np.bool_]) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """(m, n) frames of each point, evenly spread over those in which it is known; and which of these entries count."""
    count = known.sum(axis=0)
    num = min(_SOLVED_FRAMES, len(known))
    rank = np.arange(num)[:, None]
    spread = np.round(rank * (count - 1) / max(num - 1, 1)).astype(np.int64)
    rank = np.where(count > num, spread, rank)
    in_order = np.argsort(~known, axis=0, kind="stable")
    return np.take_along_axis(in_order, np.clip(rank, 0, len(known) - 1), axis=0), rank < count


@dataclass(frozen=True)
class _Seen:
    """Rays (x, y, 1) of n points in m frames each, and all that the rounds need of them, made once.

    For a camera with axes r and centre c, a ray gives r1.(X - c) = x r3.(X - c) and r2.(X - c) = y r3.(X - c).

    x, y: (m, n). axes: (3, 3, m, n) and shift: (3, m, n), camera from world. equations: (9, m, n) products of the two
    equations' sides: six of the normal matrix, three of its right side.
    """

    x: Floats
    y: Floats
    axes: Floats
    shift: Floats
    equations: Floats

    @staticmethod
    def of(rays: Floats, frame: NDArray[np.int64], poses: Floats) -> _Seen:
        """rays: (m, n, 3). frame: (m, n), the rays' frames among (F, 4, 4) poses."""
        turn, centre = poses[:, :3, :3], poses[:, :3, 3]
        axes = np.ascontiguousarray(turn.transpose(2, 1, 0))[:, :, frame]
        moved: list[Floats] = [turn[:, i] * centre[:, i, None] for i in range(3)]
        shift = -np.ascontiguousarray((moved[0] + moved[1] + moved[2]).T)[:, frame]
        x, y = np.ascontiguousarray(rays[..., 0]), np.ascontiguousarray(rays[..., 1])
        first, second = axes[0] - x * axes[2], axes[1] - y * axes[2]  # (3, m, n)
        sides = x * shift[2] - shift[0], y * shift[2] - shift[1]
        pairs = [((first[i], second[i]), (first[j], second[j])) for i, j in zip(*_UPPER, strict=True)]
        pairs += [((first[i], second[i]), sides) for i in range(3)]
        equations = np.empty((len(pairs), *x.shape))
        for entry, (one, other) in zip(equations, pairs, strict=True):
            np.multiply(one[0], other[0], out=entry)
            entry += one[1] * other[1]
        return _Seen(x, y, axes, shift, equations)

    def solve(self, weight: Floats) -> tuple[Floats, Floats]:
        """(n, 3) points nearest to the weighted rays, in the image, and their (n, 3, 3) normal matrices.

        weight: (m, n).
        """
        sums = np.einsum("mn,qmn->qn", weight, self.equations)
        normal = np.empty((weight.shape[1], 3, 3))
        normal[:, _UPPER[0], _UPPER[1]] = normal[:, _UPPER[1], _UPPER[0]] = sums[:6].T
        steady = normal + np.eye(3) * (1e-9 + 1e-9 * np.trace(normal, axis1=1, axis2=2)[:, None, None])
        return np.linalg.solve(steady, sums[6:].T[..., None])[..., 0], normal

    def off(self, place: Floats) -> tuple[Floats, Floats]:
        """(m, n) depths of (n, 3) places, and how far they are from their rays in slopes."""
        x, y, z = (_dot(axis, place.T) for axis in self.axes)
        for value, shift in zip((x, y, z), self.shift, strict=True):
            value += shift
        depth = np.maximum(z, 1e-3, out=z)
        return depth, np.sqrt(_gap(x, y, depth, self.x, self.y), out=x)


def _distance_error(place: Floats, normal: Floats, poses: Floats, at_rest: NDArray[np.bool_], noise: Floats) -> Floats:
    """(n,) standard deviation of the distance over the distance, from the spread of the rays that agree."""
    first = np.argmax(at_rest, axis=0)
    away = place - poses[first, :3, 3]
    distance = np.maximum(np.linalg.norm(away, axis=1), 1e-9)
    along = away / distance[:, None]
    spread = np.linalg.solve(normal + np.eye(3) * 1e-9, along[..., None])[..., 0]
    return noise * np.sqrt(np.maximum((along * spread).sum(axis=1), 0)) / distance
