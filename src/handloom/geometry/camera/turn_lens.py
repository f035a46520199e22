"""The focal length and one radial term of a lens, from a camera that only turns.

A turn moves the image's rim further than its middle, and by how much depends on the focal length. For every lens that
is tried, the rotations of a few key frames and the directions of their corners are fitted again (variable projection);
the lens is refined by Gauss-Newton, on pixels as the lens shows them.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from handloom.geometry.camera.intrinsics import project, slopes
from handloom.geometry.camera.lens_search import ASSUMED_SIGMA, BARREL, NUM_KEYS, STARTS, camera_of, folds, weighed
from handloom.geometry.camera.turns import TURN_PX, turned_directions, turns
from handloom.geometry.sfm.key_frames import key_frames
from handloom.geometry.sfm.solver import Observations, RadialLens
from handloom.geometry.sfm.views import steps_px

Floats = NDArray[np.float64]

TURN_TRACKS, MIN_SEEN = 150, 60
STEPS = np.array([0.03, 0.02])  # of log focal and the radial term, for differences
MOST = np.array([0.4, 0.15])  # in one step of refinement
REFINEMENTS = 8
WORTH = 0.99  # share of the cost: a round that leaves more is the last
MIN_TURN_RAD = np.radians(3)  # a head that trembles moves, too, which falsifies small turns
GOOD_PX = 0.3  # median residual with which no other start is tried
MAX_START_PX = 1.2
"""Largest median residual of turns with the best start: 0.3 to 1.1 where a virtual camera turned; 1.2 to 4.3 with a
pinhole where it moved through a room, 1.7 along a wall."""
BEGUN = (RadialLens(1.0, 0.08, fisheye=True), RadialLens(0.65))
"""Starts beside a pinhole of the assumed focal length, theirs as a share of it. Turns through barrel and fisheye lenses
of 65 to 110 degrees have residuals of 1.2 to 3.7 px with the pinhole, 0.4 to 1 with the first of these; through
pinholes of 92 and 105 degrees, taken for 70, 1.2 to 2.2, and less than 1.2 with the second. Above `MAX_WRONG_PX`
neither is tried."""
MAX_WRONG_PX = 5.0
LEAST_PX = 0.5  # least error of corners: the head moves a little, too, besides turning
PER_KEY = 4.0
"""Observations of a key frame that count as independent: blur, parallax and a wrong lens move neighbours alike. All of
12 virtual cameras over real stills then lie within one sigma, one to five percent off."""


def find_turn_lens(seen: Observations, focal: float, sigma: float | None) -> RadialLens | None:
    """The likeliest lens by turns and the assumed focal length; None where turns alone do not explain a stretch.

    Args:
        seen: pixels as the lens shows them, from the principal point.
        focal, sigma: assumed, and its relative standard deviation (None: `ASSUMED_SIGMA`).
    """
    seen = _stretch(seen)
    if len(seen.frame) < MIN_SEEN:
        return None
    start = _start(seen, focal)
    if start is None:
        return None
    best = _found(seen, start)
    if best.middle_px > TURN_PX:  # it moves: cameras that turned, over real stills, had at most 0.53 here
        return None
    for share in STARTS[1:] if best.middle_px > GOOD_PX else ():
        other = _fit(seen, RadialLens(focal * share))
        best = best if other is None else min(best, _found(seen, other), key=lambda fit: fit.cost)
    if folds(best.lens, seen) or best.middle_px > TURN_PX or _turn_rad(seen, best.lens) < MIN_TURN_RAD:
        return None
    covariance = _covariance(seen, best)
    return (
        None
        if covariance is None
        else weighed(replace(best.lens, covariance=covariance), focal, sigma or ASSUMED_SIGMA)
    )


def _start(seen: Observations, focal: float) -> _Fit | None:
    """The first of a few lenses with which turns roughly explain the observations; None where none does."""
    fits = [_fit(seen, RadialLens(focal))]
    if fits[0] is None or fits[0].middle_px > MAX_WRONG_PX:
        return None
    for lens in BEGUN:
        fits.append(_fit(seen, replace(lens, focal=focal * lens.focal)))
        best = min((fit for fit in fits if fit is not None), key=lambda fit: fit.cost)
        if best.middle_px <= MAX_START_PX:
            return best
    return None


def _turn_rad(seen: Observations, lens: RadialLens) -> float:
    """The largest turn of a frame from the first."""
    poses, _ = turns(replace(seen, xy=lens.focal * slopes(seen.xy, camera_of(lens))), lens.focal)
    rotations = poses[np.isfinite(poses).all(axis=(1, 2)), :3, :3]
    cosine = (np.einsum("fij,ij->f", rotations, rotations[0]) - 1) / 2
    return float(np.arccos(np.clip(cosine.min(), -1, 1)))


@dataclass(frozen=True)
class _Fit:
    """A lens, its residuals (M, 2) in pixels, and their cost (Cauchy)."""

    lens: RadialLens
    left: Floats
    cost: float

    @property
    def middle_px(self) -> float:
        return float(np.median(np.linalg.norm(self.left, axis=1)))


def _stretch(seen: Observations) -> Observations:
    """The consecutive key frames that turn most, and the tracks that most of them see."""
    keys = key_frames(seen)
    way = np.cumsum(np.nan_to_num(steps_px(seen)))[keys]
    num = min(NUM_KEYS, len(keys))
    start = int(np.argmax(way[num - 1 :] - way[: len(keys) - num + 1]))
    at_keys = seen.kept(np.isin(seen.frame, keys[start : start + num]))
    often = np.bincount(at_keys.track, minlength=seen.num_tracks)
    most = np.argsort(-often, kind="stable")[:TURN_TRACKS]
    return at_keys.kept(np.isin(at_keys.track, most[often[most] >= 2]))


def _fit(seen: Observations, lens: RadialLens) -> _Fit | None:
    """None where the lens has no direction for an observation."""
    camera = camera_of(lens)
    straight = lens.focal * slopes(seen.xy, camera)
    if lens.focal <= 0 or not np.isfinite(straight).all():
        return None
    local = turned_directions(replace(seen, xy=straight), lens.focal)
    left = np.nan_to_num(project(local, camera) - seen.xy, nan=50.0)
    return _Fit(lens, left, float(np.log1p((left**2).sum(axis=1)).mean()))


def _moved(lens: RadialLens, step: Floats) -> RadialLens:
    return replace(lens, focal=float(lens.focal * np.exp(step[0])), radial=float(lens.radial + step[1]))


def _slopes_of(seen: Observations, fit: _Fit) -> Floats | None:
    """(2M, 2) weighted derivatives of the residuals by log focal and the radial term; None where they cannot be
    made."""
    columns = []
    for unit in np.diag(STEPS):
        beside = _fit(seen, _moved(fit.lens, unit))
        if beside is None:
            return None
        columns.append(((beside.left - fit.left) / unit.sum()).reshape(-1))
    return np.stack(columns, axis=1)


def _weights(fit: _Fit) -> Floats:
    """(2M,) robust weights: observations that are off by much more than corners usually are count little."""
    return np.repeat(1 / (1 + (fit.left**2).sum(axis=1) / (2 * TURN_PX) ** 2), 2)


def _found(seen: Observations, start: _Fit) -> _Fit:
    """The refined lens; of a strong barrel the polynomial that fits better, in tan(t) or in t (a fisheye)."""
    best = _refined(seen, start)
    if best.lens.fisheye or best.lens.radial >= BARREL:
        return best
    bent = _fit(seen, RadialLens(best.lens.focal, best.lens.radial + 1 / 3, fisheye=True))
    return best if bent is None else min(best, _refined(seen, bent), key=lambda fit: fit.cost)


def _refined(seen: Observations, fit: _Fit) -> _Fit:
    """A few Gauss-Newton steps from `fit`; a step that raises the cost is shortened once, and ends the search if it
    still does."""
    for _ in range(REFINEMENTS):
        slope = _slopes_of(seen, fit)
        if slope is None:
            break
        weight = _weights(fit)
        normal = (slope * weight[:, None]).T @ slope + np.diag(1e-6 + 0 * STEPS)
        step = np.clip(-np.linalg.solve(normal, (slope * weight[:, None]).T @ fit.left.reshape(-1)), -MOST, MOST)
        tried = (_fit(seen, _moved(fit.lens, share * step)) for share in (1.0, 0.4))
        better = next((new for new in tried if new is not None and new.cost < fit.cost), fit)
        last = better.cost > WORTH * fit.cost
        fit = better
        if last:
            break
    return fit


def _covariance(seen: Observations, fit: _Fit) -> Floats | None:
    """(2, 2) of (log focal, radial); None where the turns do not determine them."""
    slope = _slopes_of(seen, fit)
    if slope is None:
        return None
    weight = _weights(fit)
    normal = (slope * weight[:, None]).T @ slope
    variance = max(float(np.average(fit.left.reshape(-1) ** 2, weights=weight)), LEAST_PX**2)
    alike = max(len(seen.frame) / (PER_KEY * len(np.unique(seen.frame))), 1.0)
    if np.linalg.cond(normal) > 1e12:
        return None
    return np.linalg.inv(normal) * variance * alike
