"""Sizes of a network's input and output, and with `standardise` their means and deviations, from training windows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from handloom.train.parts.scales import moments


def of_points(samples: Sequence[NDArray[np.floating]], standardise: bool) -> dict[str, Any]:
    """Facts of stages 1 and 2 from `points` arrays (T + 1, N, 3), NaN where unknown.

    Each point has a mean and a deviation of its own for its place (each point of a grid stays in its part of the
    image). Deltas have one deviation for u, one for v and one for z, so that all points weigh as in the paper's loss.
    """
    points = np.stack(samples).astype(np.float64)
    dim = points.shape[2] * 3
    facts: dict[str, Any] = {"proprio_dim": dim, "action_dim": dim}
    if not standardise:
        return facts
    mean, std = moments(points.reshape(-1, points.shape[2], 3))
    _, step = moments(np.diff(points, axis=1).reshape(-1, 1, 3))
    action_std = np.broadcast_to(step, (points.shape[2], 3))
    return facts | _as_lists(mean, std, action_std)


def of_control(
    states: Sequence[NDArray[np.floating]], targets: Sequence[NDArray[np.floating]], standardise: bool
) -> dict[str, Any]:
    """Facts of stage 3 from `state` arrays (T, D) and `target` arrays (T, P, D), NaN where unknown.

    Each of the P steps has deviations of its own: the sixteenth moves ten times as far as the first, which is the one
    that the robot executes.
    """
    state, target = np.stack(states).astype(np.float64), np.stack(targets).astype(np.float64)
    facts: dict[str, Any] = {"proprio_dim": state.shape[-1], "action_dim": target.shape[-1]}
    if not standardise:
        return facts
    mean, std = moments(state.reshape(-1, 1, state.shape[-1]))
    _, target_std = moments(target.reshape(-1, *target.shape[-2:]))
    return facts | _as_lists(mean, std, target_std[0]) | {"target_std": _list(target_std)}


def _as_lists(mean, std, action_std) -> dict[str, list[float]]:
    """The facts, as float32 numbers, which JSON keeps exactly."""
    pairs = {"proprio_mean": mean, "proprio_std": std, "action_std": action_std}
    return {name: _list(value) for name, value in pairs.items()}


def _list(values) -> list[float]:
    return np.ravel(values).astype(np.float32).astype(float).tolist()
