"""The numbers of CALVIN's benchmark: success of 1 to 5 instructions in a row, average length, and their intervals."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from handloom.sim.calvin.rollouts import SEQUENCE_TASKS, SequenceOutcome
from handloom.sim.scores import wilson

RESAMPLES, RESAMPLE_SEED = 10_000, 0


def scores_of(outcomes: Sequence[SequenceOutcome]) -> dict[str, Any]:
    """What a table of CALVIN shows, and more. At least one outcome.

    `success`: for 1 to 5, the share of sequences with at least so many instructions done in a row, and Wilson's
    interval at 95 %. `average_length`: of instructions done in a row, with a bootstrap interval over sequences.
    `tasks`: successes of attempts for each task that was begun. `failures` by reason. `runs`: each sequence.
    """
    lengths = np.array([one.done for one in outcomes])
    return {
        "num_sequences": len(outcomes),
        "success": {str(n): _share(int((lengths >= n).sum()), len(lengths)) for n in range(1, SEQUENCE_TASKS + 1)},
        "average_length": float(lengths.mean()),
        "average_length_interval": list(mean_interval(lengths)),
        "tasks": _tasks(outcomes),
        "failures": dict(sorted(Counter(one.failure for one in outcomes if one.failure).items())),
        "runs": [
            {
                "sequence": one.sequence.number,
                "tasks": list(one.sequence.tasks),
                "done": one.done,
                "steps": list(one.steps),
                "seed": one.seed,
                "failure": one.failure,
                "detail": one.detail,
            }
            for one in outcomes
        ],
    }


def mean_interval(values: np.ndarray) -> tuple[float, float]:
    """The mean's interval at 95 %: percentiles of the means of 10,000 samples drawn with replacement, seed 0.

    Source: Efron and Tibshirani, An Introduction to the Bootstrap, 1993, section 13.3.
    """
    counts = np.bincount(values, minlength=SEQUENCE_TASKS + 1)
    drawn = np.random.default_rng(RESAMPLE_SEED).multinomial(len(values), counts / len(values), RESAMPLES)
    low, high = np.quantile(drawn @ np.arange(len(counts)) / len(values), (0.025, 0.975))
    return float(low), float(high)


def _share(successes: int, num: int) -> dict[str, Any]:
    return {"successes": successes, "rate": successes / num, "interval": list(wilson(successes, num))}


def _tasks(outcomes: Sequence[SequenceOutcome]) -> dict[str, dict[str, Any]]:
    """By name, of the tasks that were begun: every one that was done, and the one that ended a sequence."""
    begun: Counter[str] = Counter()
    done: Counter[str] = Counter()
    for one in outcomes:
        done.update(one.sequence.tasks[: one.done])
        begun.update(one.sequence.tasks[: len(one.steps)])
    return {task: _share(done[task], begun[task]) | {"attempts": begun[task]} for task in sorted(begun)}
