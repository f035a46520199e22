"""The focal length and one radial term of an unknown lens, from a short stretch of the clip and from what was assumed.

A few key frames are reconstructed starting from several focal lengths, since a start that is wrong by more than a third
does not always lead to the right one; the lens of the best of them is refined together with one radial term. The result
of the views and what was assumed are weighed by their uncertainties.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from handloom.geometry.camera.intrinsics import project
from handloom.geometry.sfm.key_frames import NotReconstructed
from handloom.geometry.sfm.poses import MAX_ERROR_PX
from handloom.geometry.sfm.reconstruct import grown, stretch
from handloom.geometry.sfm.solver import Observations, RadialLens, Scene, refine_lens
from handloom.schemas.values import Camera

Floats = NDArray[np.float64]

STARTS = (1.0, 0.55)
"""Starts of the search, over the focal length to begin with: 70 degrees of view, and 104 (cameras on heads)."""
USUAL_FOCAL, WIDE_SIGMA = 457.0, 0.15
"""Focal length of 70 degrees, in pixels of an image 640 wide. Where the lens is known to less than `WIDE_SIGMA`, the
search begins there: starts below the right focal length more often lead to a wrong one (Aria's lens: 0.67 of the right
one, with a sigma of 4 %)."""
CLEAR_SIGMA, CLEAR_COST, CLEAR_NEAR = 0.05, 0.35, 0.25
"""A lens that is as sure, and explains as much or lies as near, needs no second start: that led to nearly the same lens
or, where a camera only turned, to a worse one (475 for 544 px, true 554)."""
INDEPENDENT = 0.25
"""Share of the tracks that counts as independent: neighbours err alike."""
NUM_KEYS, NUM_TRACKS = 12, 120
ROUNDS = 2
LEFT_OUT = 3  # parts of the views, each left out once
BARREL = -0.04  # below it the polynomial in tan(t) folds near the image's corners; the one in t does not
MARGIN = 1.1  # from the outermost observation to the image's corner
ASSUMED_SIGMA = 0.3  # relative, of an assumed focal length without a sigma of its own
RADIAL_SIGMA = 0.1
MIN_SIGMA = 0.03
"""Least sigma of a focal length that was found. EgoDex (245 px at 640): found 256, 253, 276 with 3.5, 8 and 16
percent."""
UNLIKE_SIGMA = 0.06
"""Added for lenses that one radial term does not follow: rendered clips through Aria's are 11 to 13 % off, others 0 to
5 %, where the observations alone give 2 to 5 %."""


def find_lens(seen: Observations, focal: float, sigma: float | None) -> RadialLens | None:
    """The likeliest lens by the observations and the assumed focal length; None where no stretch can be reconstructed.

    Args:
        seen: pixels as the lens shows them, from the principal point.
        focal, sigma: assumed, and its relative standard deviation (None: `ASSUMED_SIGMA`).

    Raises:
        NotReconstructed: no two frames show depth.
    """
    sigma = sigma or ASSUMED_SIGMA
    start = focal if sigma < WIDE_SIGMA else USUAL_FOCAL
    seen = stretch(seen, start, NUM_KEYS, NUM_TRACKS)
    found: list[tuple[float, Scene, RadialLens]] = []
    for share in STARTS:
        fit = None if any(_clear(*one, start) for one in found) else _from(seen, start * share)
        found += [] if fit is None else [fit]
    if not found:
        return None
    _, scene, lens = min(found, key=lambda fit: fit[0])
    unsteady = np.diag([_unsteadiness(scene, seen, lens) ** 2, 0.0])
    lenses = [(cost, replace(one, covariance=one.covariance + unsteady, cost=cost)) for cost, _, one in found]
    return _likely(lenses, INDEPENDENT * len(np.unique(seen.track)), focal, sigma)


def _clear(cost: float, scene: Scene, lens: RadialLens, start: float) -> bool:
    """Whether a lens explains its stretch so well, or is so near to where the search began, that no other start is
    needed."""
    if lens.covariance[0, 0] >= CLEAR_SIGMA**2:
        return False
    near = abs(np.log(lens.focal / start)) <= CLEAR_NEAR and not lens.fisheye
    return cost <= CLEAR_COST or near


def _unsteadiness(scene: Scene, seen: Observations, lens: RadialLens) -> float:
    """Standard deviation of the log of the focal length when each third of the views is left out (jackknife).

    The covariance takes errors of observations to be independent. Where the scene moves, or corners slide, they are
    not: one clip of a head camera gave 313 px with 0.05, and 476 with other corners. Of 28 clips with a known lens all
    are within 1.5 sigma with this; without it one was 3.7 off.
    """
    views = np.unique(seen.frame)
    agrees = _errors(scene, seen, lens) <= 2 * MAX_ERROR_PX
    logs = []
    for out in np.array_split(views, LEFT_OUT):
        found = refine_lens(scene, seen.kept(agrees & ~np.isin(seen.frame, out)), lens)
        if found is not None:
            logs.append(np.log(found[1].focal))
    return float(np.std(logs) * np.sqrt(len(logs) - 1)) if len(logs) > 1 else 0.0


def camera_of(lens: RadialLens) -> Camera:
    """The lens as a Camera whose principal point is (0, 0)."""
    matrix = np.diag([lens.focal, lens.focal, 1.0])
    if lens.radial == 0 and not lens.fisheye:
        return Camera(matrix, "estimated")
    return Camera(matrix, "estimated", np.array([lens.radial, 0.0, 0.0, 0.0]), "fisheye" if lens.fisheye else "opencv")


def _from(seen: Observations, focal: float) -> tuple[float, Scene, RadialLens] | None:
    """Cost, scene and lens of a stretch, grown from one focal length."""
    try:
        scene = grown(seen, focal)
    except NotReconstructed:
        return None
    found = _refined(scene, seen, RadialLens(scene.focal))
    if found is not None and found[2].radial < BARREL:
        _, scene, lens = found
        bent = _refined(scene, seen, RadialLens(lens.focal, lens.radial + 1 / 3, fisheye=True))
        both = [one for one in (found, bent) if one is not None and not folds(one[2], seen)]
        found = min(both, key=lambda one: one[0]) if both else None
    return found


def folds(lens: RadialLens, seen: Observations) -> bool:
    """Whether the lens would show two directions in one place of the image."""
    if lens.radial >= 0:
        return False
    turning_point = float(np.sqrt(-1 / (3 * lens.radial)))
    return lens.focal * turning_point * 2 / 3 < MARGIN * float(np.linalg.norm(seen.xy, axis=1).max())


def _refined(scene: Scene, seen: Observations, lens: RadialLens) -> tuple[float, Scene, RadialLens] | None:
    """Cost, scene and lens: both adjusted together, a few times, each time with the observations that agree."""
    for _ in range(ROUNDS):
        found = refine_lens(scene, seen.kept(_errors(scene, seen, lens) <= 2 * MAX_ERROR_PX), lens)
        if found is None:
            return None
        scene, lens = found
    return float(np.log1p(_errors(scene, seen, lens) ** 2).mean()), scene, lens


def _errors(scene: Scene, seen: Observations, lens: RadialLens) -> Floats:
    """(M,) reprojection errors in pixels as the lens shows them; `MAX_ERROR_PX` where camera or point is unknown."""
    poses, points = scene.poses[seen.frame], scene.points[seen.track]
    local = np.einsum("mij,mj->mi", poses[:, :, :3], points) + poses[:, :, 3]
    off = np.linalg.norm(project(local, camera_of(lens)) - seen.xy, axis=1) / seen.slack[seen.frame]
    unknown = np.isnan(local).any(axis=1)
    return np.where(unknown, MAX_ERROR_PX, np.minimum(np.nan_to_num(off, nan=np.inf), 50.0))


def weighed(lens: RadialLens, focal: float, sigma: float) -> RadialLens:
    """The found lens combined with what was assumed, as normal distributions of (log focal, radial)."""
    return _weighed(lens, 0.0, focal, sigma)[1]


def _likely(found: list[tuple[float, RadialLens]], num_tracks: float, focal: float, sigma: float) -> RadialLens:
    """The likeliest of the lenses that were found, with the mean and the spread of all: another one that explains the
    observations nearly as well is nearly as likely. The observations of a track err alike, and count as one.

    EgoDex before a bare wall: 1.45 and 1.09 of the true focal length, with costs of 0.217 and 0.240.
    """
    cost = np.array([one[0] for one in found])
    weighed = [_weighed(lens, own, focal, sigma) for own, lens in found]
    likely = np.exp(num_tracks * (cost.min() - cost)) * [weight for weight, _ in weighed]
    lenses, share = [lens for _, lens in weighed], likely / likely.sum()
    best = lenses[int(share.argmax())]
    logs, own = np.log([one.focal for one in lenses]), np.array([one.covariance[0, 0] for one in lenses])
    mean = float((share * logs).sum())
    variance = min(float((share * (own + (logs - mean) ** 2)).sum()) + UNLIKE_SIGMA**2, sigma**2)
    with_focal = best.covariance[0, 1] / best.covariance[0, 0]
    radial = best.radial + with_focal * (mean - np.log(best.focal))
    covariance = best.covariance + (variance - best.covariance[0, 0]) * np.outer([1, with_focal], [1, with_focal])
    return replace(best, focal=float(np.exp(mean)), radial=float(radial), covariance=covariance)


def _weighed(lens: RadialLens, cost: float, focal: float, sigma: float) -> tuple[float, RadialLens]:
    """How well the found lens agrees with what was assumed (a density), and both combined.

    cost: mean of log(1 + squared error) of the observations; those that are off by more than a pixel count less.
    """
    middle = np.array([np.log(focal), 1 / 3 if lens.fisheye else 0.0])
    found = np.array([np.log(lens.focal), lens.radial])
    assumed = np.diag([sigma**2, RADIAL_SIGMA**2])
    both = assumed + max(1.0, float(np.expm1(cost))) * lens.covariance + np.diag([MIN_SIGMA**2, 0.0])
    gain = assumed @ np.linalg.inv(both)
    mean, covariance = middle + gain @ (found - middle), assumed - gain @ assumed
    off = (np.log(lens.focal) - np.log(focal)) ** 2 / both[0, 0]
    agreement = float(np.exp(-0.5 * off) / np.sqrt(both[0, 0]))
    return agreement, replace(lens, focal=float(np.exp(mean[0])), radial=float(mean[1]), covariance=covariance)
