"""What episodes of following motions came to: success with its interval, errors, reasons."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from handloom.sim.humanoid.episodes import Outcome
from handloom.sim.scores import shown_of, wilson


def scores_of(outcomes: Sequence[Outcome]) -> dict[str, Any]:
    """`success_rate` with `interval` (Wilson, 95 %), `failures` by reason, and over the steps that were made, means
    over episodes: `mpkpe_mm`, `mpjpe_rad`, `wrist_mm` (null where nowhere known); `worst_mm` the median of the largest
    distances; `failed`, each failed episode.
    """
    successes = sum(one.success for one in outcomes)
    errors = {name: _mean([getattr(one, name) for one in outcomes]) for name in ("mpkpe_mm", "mpjpe_rad", "wrist_mm")}
    worst = [one.worst_mm for one in outcomes if np.isfinite(one.worst_mm)]
    return {
        "episodes": len(outcomes),
        "motions": len({one.name for one in outcomes}),
        "successes": successes,
        "success_rate": successes / len(outcomes),
        "interval": list(wilson(successes, len(outcomes))),
        "failures": dict(sorted(Counter(one.failure for one in outcomes if one.failure).items())),
        **errors,
        "worst_mm": float(np.median(worst)) if worst else None,
        "failed": [
            {
                "motion": one.name,
                "reason": one.failure,
                "detail": one.detail,
                "steps": one.num_steps,
                "of": one.of_steps,
            }
            for one in outcomes
            if not one.success
        ],
    }


def shown_ones(outcomes: Sequence[Outcome]) -> dict[str, Outcome]:
    """`best`: the success with the least error, or `longest`, the failure that came last; `worst`: the earliest
    failure, or `farthest`, the success with the largest error."""
    error = [np.nan_to_num(one.mpkpe_mm, nan=np.inf) for one in outcomes]
    keys = [(one.success, one.num_steps / one.of_steps, -far) for one, far in zip(outcomes, error, strict=True)]
    order = sorted(range(len(outcomes)), key=keys.__getitem__, reverse=True)
    return shown_of([outcomes[i] for i in order], lambda one: one.success, failure="longest")


def _mean(values: Sequence[float]) -> float | None:
    known = [value for value in values if np.isfinite(value)]
    return float(np.mean(known)) if known else None
