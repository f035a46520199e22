"""Cells side by side: success by the number of demonstrations, and what a variant adds in the same scenes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from handloom.sim.scores import wilson

DRAWS = 4000
SHARE = 0.95
ALL = "all"
"""In place of a task: the mean over all tasks."""


def curves_of(cells: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, dict[str, Any]]]:
    """By task, variant and number of demonstrations: the success rate over all seeds with its interval at 95 %, and
    that of each seed."""
    found: dict[str, dict[str, dict[str, Any]]] = {}
    for cell in cells:
        by_number = found.setdefault(cell["task"], {}).setdefault(cell["variant"], {})
        one = by_number.setdefault(str(cell["number"]), {"episodes": 0, "successes": 0, "by_seed": {}})
        one["episodes"] += cell["episodes"]
        one["successes"] += cell["successes"]
        one["by_seed"][str(cell["seed"])] = cell["successes"] / cell["episodes"]
        one["success_rate"] = one["successes"] / one["episodes"]
        one["interval"] = list(wilson(one["successes"], one["episodes"]))
    return found


def differences_of(
    cells: Sequence[Mapping[str, Any]], base: str, comparisons: int = 1
) -> dict[str, dict[str, dict[str, Any]]]:
    """By variant, task (and `ALL`) and number: how much higher its success rate is than that of `base` in the same
    scenes with the same seeds, over the seeds that both have, with an interval at 95 %.

    comparisons: how many tasks and numbers are looked at. The intervals of single tasks are then so wide that all of
    them hold at 95 % together (Bonferroni); that of `ALL` is at 95 % on its own.
    """
    share = 1 - (1 - SHARE) / comparisons
    by: dict[tuple[str, str, int], dict[int, NDArray[np.float64]]] = {}
    for cell in cells:
        scenes = np.array([letter == "1" for letter in cell["by_scene"]], np.float64)
        by.setdefault((cell["variant"], cell["task"], cell["number"]), {})[cell["seed"]] = scenes
    found: dict[str, dict[str, dict[str, Any]]] = {}
    more: dict[tuple[str, int], list[NDArray[np.float64]]] = {}
    for (variant, task, number), seeds in by.items():
        other = by.get((base, task, number), {})
        shared = sorted(seeds.keys() & other.keys())
        if variant != base and shared:
            added = np.stack([seeds[seed] - other[seed] for seed in shared])
            found.setdefault(variant, {}).setdefault(task, {})[str(number)] = difference([added], share)
            more.setdefault((variant, number), []).append(added)
    for (variant, number), some in more.items():
        found[variant].setdefault(ALL, {})[str(number)] = difference(some)
    return found


def difference(added: Sequence[NDArray[np.float64]], share: float = SHARE) -> dict[str, Any]:
    """The mean of tasks' means, with its interval.

    Both seeds and scenes are drawn again, each task on its own: what differs between trainings counts, too. The same
    numbers give the same interval. Of few seeds it is too narrow: draws know of no training but these.

    Args:
        added: of each task, (seeds, scenes), -1 to 1. share: of the interval.

    Source: the percentile bootstrap, Efron and Tibshirani, An Introduction to the Bootstrap, 1993, chapter 13.
    """
    rng = np.random.default_rng(0)
    draws = np.zeros(round(DRAWS * (1 - SHARE) / (1 - share)))  # as many beyond each end
    for one in added:
        seeds = rng.integers(one.shape[0], size=(len(draws), one.shape[0]))
        scenes = rng.integers(one.shape[1], size=(len(draws), one.shape[1]))
        draws += one[seeds[:, :, None], scenes[:, None, :]].mean((1, 2)) / len(added)
    low, high = np.quantile(draws, ((1 - share) / 2, (1 + share) / 2))
    mean = float(np.mean([one.mean() for one in added]))
    found = {"added": mean, "interval": [float(low), float(high)], "share": share}
    return found | {"tasks": len(added), "seeds": min(len(one) for one in added)}
