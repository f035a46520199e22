"""A value that several clips share: the lens of one camera, the hands of one person.

Each clip gives a number (a focal length, a hand's length) with its own uncertainty, without what was assumed. In
logarithms these are

    found_i = shared + lasting_i + noise_i        noise_i ~ N(0, sigma_i), lasting_i ~ N(0, spread)

and a clip in ten may be wrong altogether. How far clips differ beyond their own uncertainties (`spread`) is unknown and
is integrated out, so the result is never surer than the clips' disagreement allows. The prior counts once for all
clips, not once for each.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import chdtrc

from handloom.geometry.camera.distortion import lens_of
from handloom.geometry.camera.lens_search import BARREL

Floats = NDArray[np.float64]

SPREAD = 0.06
"""Prior of `spread`: half a normal distribution with this standard deviation."""
SPREADS = np.linspace(0.0, 0.24, 9)
WRONG_SHARE, WRONG_SIGMA = 0.1, 0.5  # of clips that are wrong, and by how much
COMMON_SIGMA = 0.05
"""Error that all clips of a lens have in common, which more clips do not lower: one radial term does not follow every
lens. Rendered clips through Aria's are 11 to 13 % off, through others 0 to 5 %."""
FAR = 3.0  # standard deviations: a clip that is further off disagrees
MAX_FAR_SHARE, MAX_SPREAD = 1 / 3, 0.12  # share of clips that disagree, and spread: beyond, they are not of one lens
MAX_WRONG_SHARE, BY_CHANCE = 0.25, 1e-3  # the others must not differ more than one group in a thousand does by chance
PINHOLE_BEND = 1 / 3  # tan(t) = t + t^3 / 3 + ...
_POINTS = 201
_CHUNK = 2000  # clips at once
_NEGLIGIBLE = 25.0  # of a log-probability


@dataclass(frozen=True)
class Together:
    """value: the shared one. sigma: its relative standard deviation. far: (n,) distance of each clip from where most of
    them are, in standard deviations. weight: (n,) of each clip, with sum 1. agree: whether most clips have one value.
    """

    value: float
    sigma: float
    far: Floats
    weight: Floats
    agree: bool


def together(values: Floats, sigmas: Floats, prior: tuple[float, float]) -> Together:
    """The positive number that clips share.

    Args:
        values: (n,) found by each clip, n > 0. sigmas: (n,) their relative standard deviations.
        prior: value that was assumed, and its relative standard deviation.
    """
    logs, sigmas = np.log(np.asarray(values, np.float64)), np.asarray(sigmas, np.float64)
    at, chances = _posterior(logs, sigmas, np.log(prior[0]), prior[1])
    over = chances.sum(axis=1)
    mean = float((over * at).sum())
    spread = float((chances.sum(axis=0) * SPREADS).sum())
    sigma = math.sqrt(float((over * (at - mean) ** 2).sum()) + COMMON_SIGMA**2)
    most = float(at[over.argmax()])
    far = np.abs(logs - most) / np.sqrt(sigmas**2 + SPREAD**2)
    weight = _right_share(logs - mean, sigmas, spread) / (sigmas**2 + spread**2)
    few = bool((far > FAR).sum() <= MAX_FAR_SHARE * len(far))
    agree = few and spread <= MAX_SPREAD and _is_one_value(logs - mean, sigmas)
    return Together(math.exp(mean), sigma, far, weight / weight.sum(), agree)


def _is_one_value(away: Floats, sigmas: Floats) -> bool:
    """Cochran's test of all but the farthest clips. It finds two halves on both sides of a middle, with no clip far
    off."""
    squares = np.sort(away**2 / (sigmas**2 + SPREAD**2))
    kept = squares[: len(squares) - int(MAX_WRONG_SHARE * len(squares))]
    return len(kept) < 2 or float(chdtrc(len(kept) - 1, kept.sum())) > BY_CHANCE


def _posterior(logs: Floats, sigmas: Floats, prior: float, prior_sigma: float) -> tuple[Floats, Floats]:
    """Values (P,) of the shared logarithm, and the probability (P, S) of each with each of `SPREADS`."""
    low, high = min(logs.min(), prior) - 3 * prior_sigma, max(logs.max(), prior) + 3 * prior_sigma
    while True:
        at = np.linspace(low, high, _POINTS)
        chance = -0.5 * ((at - prior) / prior_sigma) ** 2
        chance = chance[:, None] - 0.5 * (SPREADS / SPREAD) ** 2 + _likelihood(at, logs, sigmas)
        near = np.flatnonzero(chance.max(axis=1) > chance.max() - _NEGLIGIBLE)
        if len(near) > _POINTS / 5:
            break
        step = at[1] - at[0]
        low, high = at[near[0]] - step, at[near[-1]] + step
    chance = np.exp(chance - chance.max())
    return at, chance / chance.sum()


def _likelihood(at: Floats, logs: Floats, sigmas: Floats) -> Floats:
    """(P, S) log-likelihood of values (P,) of the shared logarithm with each of `SPREADS`."""
    total = np.zeros((len(at), len(SPREADS)))
    for first in range(0, len(logs), _CHUNK):
        own = slice(first, first + _CHUNK)
        square = np.square(at[:, None] - logs[own])
        for number, spread in enumerate(SPREADS):
            right, wrong = _densities(square, sigmas[own], spread)
            total[:, number] += np.log(right + wrong).sum(axis=1)
    return total


def _densities(square: Floats, sigmas: Floats, spread: float) -> tuple[Floats, Floats]:
    """Densities of right and of wrong clips at squared distances, up to a common factor."""
    right, wrong = sigmas**2 + spread**2, sigmas**2 + WRONG_SIGMA**2
    return (
        (1 - WRONG_SHARE) * np.exp(-0.5 * square / right) / np.sqrt(right),
        WRONG_SHARE * np.exp(-0.5 * square / wrong) / np.sqrt(wrong),
    )


def _right_share(away: Floats, sigmas: Floats, spread: float) -> Floats:
    """(n,) probability that each clip is right."""
    right, wrong = _densities(away**2, sigmas, spread)
    return right / np.maximum(right + wrong, 1e-300)


def apart(one: Together, other: Together) -> bool:
    """Whether two groups of clips have different values."""
    return abs(math.log(one.value / other.value)) > FAR * math.hypot(one.sigma, other.sigma)


def bend_of(model: str, distortion: NDArray[np.floating[Any]] | None) -> float:
    """The third-order bend of a radial lens: a direction t off the axis is shown at t + bend * t^3.

    One number for both of the forms that `lens_search` finds, a polynomial in tan(t) and a fisheye's in t.
    """
    first = 0.0 if distortion is None or not len(distortion) else float(distortion[0])
    return first if model == "fisheye" else first + PINHOLE_BEND


def distortion_of(bend: float) -> dict[str, object] | None:
    """The `distortion` of a camera's JSON with this bend; None for a pinhole."""
    radial = round(bend - PINHOLE_BEND, 4)
    if radial < BARREL:
        return {"model": "radial_fisheye", "params": [round(bend, 4), 0.0]}
    return {"model": "simple_radial", "params": [radial]} if radial else None


def field_of_view_deg(focal: float, model: str, distortion: NDArray[np.floating[Any]] | None) -> float:
    """Field of view along the longer side. focal: focal length over the longer side. NaN where the lens does not reach
    its ends."""
    lens = lens_of(model, distortion)
    if lens is None:
        return math.degrees(2 * math.atan(0.5 / focal))
    half = lens.unbend(np.array([[0.5 / focal, 0.0]]))[0, 0]
    return math.degrees(2 * float(half if lens.angular else np.arctan(half)))
