"""What clips can tell at most: whether a linear classifier names the task that a clip shows, from its latents alone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating]
PENALTY = 0.1
"""Of the squared weights, for each number of a command. Ten times more or less names two of 56 clips otherwise."""


def probe(train: Mapping[str, Mapping[str, Floats]], held_out: Mapping[str, Mapping[str, Floats]]) -> dict[str, Any]:
    """Trained on the commands that a network is trained with, asked of those that tell it its tasks.

    `held_out`: the share of these that is named rightly, `by_task` that of each task, `clips` how many there are.
    `left_out`, `left_out_by_task`: each command of `train`, by a classifier of all others: of more clips. `within`,
    `between`: the mean variance of a number of a command around the mean of its task, and of these means, where that
    of all commands in `train` is 1; tasks weigh the same.

    Args:
        train, held_out: by task, by clip, (D,) commands. The same tasks; at least two clips of each in `train`.
    """
    tasks = list(train)
    known, labels = _stacked(train, tasks)
    spread = np.maximum(known.std(axis=0), 1e-6)
    known = known / spread
    asked, true = _stacked(held_out, tasks)
    named = named_by(known, labels, asked / spread, len(tasks))
    others = [np.arange(len(known)) != number for number in range(len(known))]
    left = [named_by(known[some], labels[some], known[~some], len(tasks))[0] for some in others]
    centres = np.stack([known[labels == number].mean(axis=0) for number in range(len(tasks))])
    within = [((known[labels == number] - centres[number]) ** 2).mean() for number in range(len(tasks))]
    return {
        "held_out": float((named == true).mean()),
        "by_task": _by_task(named == true, true, tasks),
        "clips": len(asked),
        "left_out": float((np.array(left) == labels).mean()),
        "left_out_by_task": _by_task(np.array(left) == labels, labels, tasks),
        "within": float(np.mean(within)),
        "between": float(centres.var(axis=0).mean()),
    }


def _by_task(right: NDArray[np.bool_], labels: NDArray[np.intp], tasks: list[str]) -> dict[str, float]:
    return {task: float(right[labels == number].mean()) for number, task in enumerate(tasks)}


def _stacked(by_task: Mapping[str, Mapping[str, Floats]], tasks: list[str]) -> tuple[Floats, NDArray[np.intp]]:
    """(clips, D) commands and the number of each one's task."""
    rows = [(number, one) for number, task in enumerate(tasks) for one in by_task[task].values()]
    return np.stack([one for _, one in rows]).astype(np.float64), np.array([number for number, _ in rows])


def named_by(known: Floats, labels: NDArray[np.intp], asked: Floats, num_tasks: int) -> NDArray[np.intp]:
    """The task of each row of `asked` by ridge regression of 1 and -1 for each task; tasks weigh the same, however many
    clips they have.

    Numbers are from the middle of the tasks' means, where no task is likelier: no constant is needed, whose penalty
    would favour the task of few clips. It is solved in the space of the clips, of which there are fewer than numbers.

    Source: Hastie, Tibshirani and Friedman, The Elements of Statistical Learning, 2nd ed., sections 3.4.1 and 4.2.
    """
    weights = np.sqrt(len(labels) / (num_tasks * np.bincount(labels, minlength=num_tasks)[labels]))
    middle = np.mean([known[labels == number].mean(axis=0) for number in range(num_tasks)], axis=0)
    inputs = (known - middle) * weights[:, None]
    wanted = np.where(labels[:, None] == np.arange(num_tasks), 1.0, -1.0) * weights[:, None]
    gram = inputs @ inputs.T + PENALTY * inputs.shape[1] * np.eye(len(inputs))
    answers = (asked - middle) @ (inputs.T @ np.linalg.solve(gram, wanted))
    return answers.argmax(axis=1)
