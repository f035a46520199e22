"""Executions that are no executions: made from accepted ones."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from scipy.spatial.transform import Rotation

from handloom.skills.execution import GRASPING, Execution, Step

FAR_M, FAR_DEG = 0.10, 90.0


def rate(accepted: Sequence[bool]) -> float | None:
    """Share; None of nothing."""
    return round(sum(accepted) / len(accepted), 4) if accepted else None


def _missing(one: Execution) -> Execution | None:
    """The step in the middle was not done."""
    middle = len(one.steps) // 2
    return replace(one, steps=one.steps[:middle] + one.steps[middle + 1 :]) if len(one.steps) > 1 else None


def _backwards(one: Execution) -> Execution | None:
    """The steps were done in the other order."""
    return replace(one, steps=one.steps[::-1]) if len(one.steps) > 1 else None


def _elsewhere(one: Execution) -> Execution | None:
    """The last path goes 10 cm elsewhere at its end."""

    def away(step: Step) -> Step:
        shift = np.zeros_like(step.path)
        shift[:, 0] = np.linspace(0.0, FAR_M, len(shift))
        return replace(step, path=step.path + shift)

    return _changed(one, [i for i, step in enumerate(one.steps) if step.path is not None], away)


def _held_elsewhere(one: Execution) -> Execution | None:
    """The hand holds the thing turned by 90 degrees about its upright axis."""

    def turned(step: Step) -> Step:
        by = np.eye(4)
        by[:3, :3] = Rotation.from_euler("z", FAR_DEG, degrees=True).as_matrix()
        return step if step.grasp is None else replace(step, grasp=by @ step.grasp)

    grasps = [i for i, step in enumerate(one.steps) if step.phase == GRASPING and step.grasp is not None]
    return _changed(one, grasps, turned)


def _changed(one: Execution, numbers: Sequence[int], change: Any) -> Execution | None:
    if not numbers:
        return None
    last = numbers[-1]
    return replace(one, steps=(*one.steps[:last], change(one.steps[last]), *one.steps[last + 1 :]))


CORRUPTIONS: Mapping[str, Callable[[Execution], Execution | None]] = {
    "missing": _missing,
    "order": _backwards,
    "path": _elsewhere,
    "grasp": _held_elsewhere,
}
"""By name; they give None where there is nothing to change."""
