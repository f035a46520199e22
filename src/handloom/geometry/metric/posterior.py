"""How large a clip's world is: what is not known of it, as one normal distribution, and what evidence makes of it.

The distance of a hand is proportional to the focal length, to the hand's length and to the size at which the 2D model
draws it; a lasting error of its tilt multiplies it, too. So logarithms add up. The clip's `UNKNOWNS` are the logarithms
of true over assumed; they begin with what is known beforehand, and each kind of evidence is one number that some of
them make up. Source: linear Gaussian update (Kalman 1960).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

UNKNOWNS = ("focal", "length", "seen", "tilt")

# Relative standard deviations beforehand. Origins are named; tilt was set by hand so that the whole is about the error
# that was seen: medians of six EgoDex clips with their intrinsics are off by 10 % (rms), the preset's `seen` included.
LENGTH_SIGMA = 0.055  # of adults (Greiner 1991: women 0.181, men 0.194 m)
SEEN_SIGMA = 0.14
"""Of `hands.seen_size` where nothing measured it: 0.75 fits EgoDex, 0.95 an Ego4D clip, 1.0 rendered hands; their root
mean square distance from 0.95."""
TILT_SIGMA = 0.06  # from errors of the 2D keypoints that last: a tilt not seen, a bone drawn too short

MAX_SURPRISE = 2.0
"""Standard deviations. Evidence that is further off is taken as that much less sure: one kind of evidence
that is wrong does not run away with the clip."""
NEAR = 0.2  # `trust`: within this share of the truth


@dataclass(frozen=True)
class Posterior:
    """Normal distribution of `UNKNOWNS`. mean: (4,); covariance: (4, 4)."""

    mean: Floats
    covariance: Floats

    HAND: ClassVar[Floats] = np.array([1.0, 1.0, 1.0, 1.0])
    """What a hand's distance is made of."""
    FOCAL: ClassVar[Floats] = np.array([1.0, 0.0, 0.0, 0.0])
    SIZE: ClassVar[Floats] = np.array([0.0, 1.0, 1.0, 1.0])
    """All of it but the lens: what a hand's way across the picture is made of."""

    @staticmethod
    def before(
        focal: float | None, length: float = LENGTH_SIGMA, seen: float = SEEN_SIGMA, tilt: float = TILT_SIGMA
    ) -> Posterior:
        """Before any evidence, from relative standard deviations; a `focal` of None is exact."""
        return Posterior(np.zeros(4), np.diag(np.square([focal or 0.0, length, seen, tilt])))

    def told(self, of: Floats, value: float, sigma: float, surprise: float = MAX_SURPRISE) -> Posterior:
        """With evidence that `of @ unknowns` is `value`, give or take `sigma`. What is not finite tells nothing."""
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
        """By how much `of @ unknowns` is likely larger than assumed."""
        return math.exp(float(of @ self.mean))


def alone(mean: float, sigma: float, before: float, sigma_before: float) -> tuple[float, float] | None:
    """The evidence that took a normal distribution from `before` to `mean`; None where there was none to speak of."""
    if not sigma > 0 or not sigma < 0.99 * sigma_before:
        return None
    precision = sigma**-2.0 - sigma_before**-2.0
    return (mean * sigma**-2.0 - before * sigma_before**-2.0) / precision, precision**-0.5


def trust(sigma: float) -> float:
    """Probability that a length is within `NEAR` of the truth; `sigma`: its relative standard deviation."""
    if sigma <= 0:
        return 1.0
    high, low = (math.erf(math.log(1 + side * NEAR) / (math.sqrt(2) * sigma)) for side in (1, -1))
    return 0.5 * (high - low)
