"""Success rates of episodes with their intervals."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np

from handloom.sim.rollouts import Outcome

T = TypeVar("T")

Z_95 = 1.959964


def wilson(successes: int, num: int, z: float = Z_95) -> tuple[float, float]:
    """The interval of a share at 95 %, which holds for 0 and all of them, too. NaN of no episode.

    Source: Wilson, Probable Inference, the Law of Succession, and Statistical Inference, JASA 22, 1927.
    """
    if not num:
        return float("nan"), float("nan")
    share, width = successes / num, z**2 / num
    middle = (share + width / 2) / (1 + width)
    half = z / (1 + width) * float(np.sqrt(share * (1 - share) / num + width / num / 4))
    return middle - half if successes else 0.0, middle + half if successes < num else 1.0


def scores_of(by_seed: Mapping[int, Sequence[Outcome]]) -> dict[str, Any]:
    """One task's numbers. by_seed: the episodes of each seed.

    `success_rate` with `interval` over all seeds, `by_seed`, `steps_to_success` of those that succeeded (null where
    none did), `reward_median` (null where none is known), `failures` by reason, `failed` with each failed episode.
    """
    every = [one for outcomes in by_seed.values() for one in outcomes]
    steps = [one.steps for one in every if one.steps is not None]
    rewards = [one.reward for one in every if np.isfinite(one.reward)]
    successes = sum(one.success for one in every)
    low, high = wilson(successes, len(every))
    spread = np.quantile(steps, (0.1, 0.5, 0.9)).tolist() if steps else [None] * 3
    return {
        "episodes": len(every),
        "successes": successes,
        "success_rate": successes / len(every),
        "interval": [low, high],
        "by_seed": {
            str(seed): sum(one.success for one in outcomes) / len(outcomes) for seed, outcomes in by_seed.items()
        },
        "steps_to_success": dict(zip(("p10", "median", "p90"), spread, strict=True)),
        "reward_median": float(np.median(rewards)) if rewards else None,
        "failures": dict(sorted(Counter(one.failure for one in every if one.failure).items())),
        "failed": [
            {
                "seed": seed,
                "episode": number,
                "scene_seed": one.scene_seed,
                "reason": one.failure,
                "detail": one.detail,
                "num_steps": one.num_steps,
            }
            for seed, outcomes in by_seed.items()
            for number, one in enumerate(outcomes)
            if not one.success
        ],
    }


def shown_of(
    best_first: Sequence[T], succeeded: Callable[[T], bool], failure: str = "nearest", success: str = "farthest"
) -> dict[str, T]:
    """The two episodes to look at, named by what they are: `best` is a success, `worst` a failure.

    failure: what the first is called where none succeeds. success: what the last is called where all do. One episode
    alone is `best` or `worst`.
    """
    first, last = best_first[0], best_first[-1]
    if len(best_first) == 1:
        return {"best" if succeeded(first) else "worst": first}
    return {"best" if succeeded(first) else failure: first, success if succeeded(last) else "worst": last}


def shown_ones(outcomes: Sequence[Outcome]) -> dict[str, Outcome]:
    """`best`: the quickest success, or `nearest`, the failure of highest reward; `worst`: the failure of lowest reward,
    or `slowest`, the slowest success."""
    order = sorted(outcomes, key=lambda one: (one.success, -(one.steps or 0), one.reward), reverse=True)
    return shown_of(order, lambda one: one.success, success="slowest")
