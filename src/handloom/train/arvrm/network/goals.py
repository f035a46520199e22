"""Where things and goals are, as seen from the hand: tokens that stand before a step's own ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from handloom.train.arvrm.settings import ArvrmSettings
from handloom.train.parts.mlp import Mlp

FARTHEST = 10.0
"""Numbers that are farther from their mean, in deviations, are given to a network as this far: the simulation can go
where no demonstration was."""


def near(numbers: Tensor) -> Tensor:
    """Scaled numbers within `FARTHEST`, 0 where unknown."""
    return torch.nan_to_num(numbers).clamp(-FARTHEST, FARTHEST)


class GoalTokens(nn.Module):
    """(..., 3) places as seen from the hand to (..., dim) tokens: the same for a hand's goal and for a robot's things,
    so that what stage 1 learned of how hands go to places is there for a robot.

    std: of a hand's goals in training, in their three directions.
    """

    std: Tensor

    def __init__(self, settings: ArvrmSettings, facts: Mapping[str, Any]) -> None:
        super().__init__()
        self.mlp = Mlp(3, settings.dim, hidden=settings.dim)
        self.missing = nn.Parameter(0.02 * torch.randn(settings.dim))
        self.kind = nn.Parameter(0.02 * torch.randn(settings.dim))
        self.register_buffer("std", torch.tensor(facts.get("goal_std", [1.0] * 3), dtype=torch.float32))

    def forward(self, places: Tensor) -> Tensor:
        """places: in deviations, not from their mean: 0 is where the hand is. NaN where unknown."""
        known = places.isfinite().all(-1, keepdim=True)
        return torch.where(known, self.mlp(near(places)), self.missing) + self.kind


def places_of(names: Sequence[str]) -> list[list[int]]:
    """Indices of the numbers `NAME.x`, `NAME.y`, `NAME.z` of each place among names of things."""
    at = {name: index for index, name in enumerate(names)}
    stems = [name[:-2] for name in names if name.endswith(".x")]
    found = [[at.get(f"{stem}.{axis}") for axis in "xyz"] for stem in stems]
    return [[index for index in one if index is not None] for one in found if None not in one]
