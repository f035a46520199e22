"""How large a clip's world is: one normal distribution of what is not known about it, updated by evidence.

The distance of a hand is proportional to the focal length, to the hand's length and to its keypoint scale; a lasting
error of its tilt multiplies it, too. So logarithms add up. The clip's `UNKNOWNS` are the logarithms of true over
assumed values; each kind of evidence measures a sum of some of them. Source: linear Gaussian update (Kalman 1960).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

UNKNOWNS = ("focal", "length", "keypoint_scale", "tilt")

# Relative standard deviations of the prior. Tilt was set by hand so that all together are about the error that was
# measured: medians of six EgoDex clips with their intrinsics are off by 10 % (rms), the preset's scale included.
LENGTH_SIGMA = 0.055  # of adults (Greiner 1991: women 0.181, men 0.194 m)
KEYPOINT_SCALE_SIGMA = 0.14
"""Of `hands.keypoint_scale` where it was not measured: root mean square distance from 0.95 of those that were (0.75 for
EgoDex, 0.95 for an Ego4D clip, 1.0 for rendered hands)."""
TILT_SIGMA = 0.06  # from lasting errors of the 2D keypoints: a tilt that they do not show, a bone that is too short

MAX_SURPRISE = 2.0
"""Standard deviations. Evidence that is further off counts as that much less sure, so that one wrong kind of evidence
does not decide alone."""
NEAR = 0.2  # `trust`: within this share of the truth


@dataclass(frozen=True)
class Posterior:
    """Normal distribution of `UNKNOWNS`. mean: (4,); covariance: (4, 4)."""

    mean: Floats
    covariance: Floats

    HAND: ClassVar[Floats] = np.array([1.0, 1.0, 1.0, 1.0])
    """Log of a hand's distance, as a sum of unknowns."""
    FOCAL: ClassVar[Floats] = np.array([1.0, 0.0, 0.0, 0.0])
    SIZE: ClassVar[Floats] = np.array([0.0, 1.0, 1.0, 1.0])
    """The same without the lens: log of a hand's size as placed."""

    @staticmethod
    def prior(
        focal: float | None,
        length: float = LENGTH_SIGMA,
        keypoint_scale: float = KEYPOINT_SCALE_SIGMA,
        tilt: float = TILT_SIGMA,
    ) -> Posterior:
        """Before any evidence, from relative standard deviations; a `focal` of None is a given one: exact."""
        return Posterior(np.zeros(4), np.diag(np.square([focal or 0.0, length, keypoint_scale, tilt])))

    def updated(self, of: Floats, value: float, sigma: float, surprise: float = MAX_SURPRISE) -> Posterior:
        """With the evidence that `of @ unknowns` is `value` with standard deviation `sigma`; unchanged where one of
        them is not finite. surprise: see `MAX_SURPRISE`."""
        if not (math.isfinite(value) and math.isfinite(sigma)):
            return self
        along = self.covariance @ of
        own = float(of @ along)
        off = value - float(of @ self.mean)
        spread = max(own + sigma**2, (off / surprise) ** 2)
        if own <= 0 or spread <= 0:
            return self
        gain = along / spread
        return Posterior(self.mean + gain * off, self.covariance - np.outer(gain, along))

    def sigma(self, of: Floats) -> float:
        """Standard deviation of `of @ unknowns`."""
        return float(math.sqrt(max(float(of @ self.covariance @ of), 0.0)))

    def factor(self, of: Floats) -> float:
        """The likeliest ratio of true to assumed of what `of @ unknowns` is the log of."""
        return math.exp(float(of @ self.mean))


def without_prior(mean: float, sigma: float, before: float, sigma_before: float) -> tuple[float, float] | None:
    """Mean and sigma of the evidence that changed a normal distribution from `before` to `mean`; None where it changed
    by next to nothing."""
    if not sigma > 0 or not sigma < 0.99 * sigma_before:
        return None
    precision = sigma**-2.0 - sigma_before**-2.0
    return (mean * sigma**-2.0 - before * sigma_before**-2.0) / precision, precision**-0.5


def trust(sigma: float) -> float:
    """Probability that a length is within `NEAR` of the truth. sigma: its relative standard deviation."""
    if sigma <= 0:
        return 1.0
    high, low = (math.erf(math.log(1 + side * NEAR) / (math.sqrt(2) * sigma)) for side in (1, -1))
    return 0.5 * (high - low)
