"""The steps that VLMimic gives to a vision-language model, behind one interface; and rules that need none."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from handloom.skills.bounds import group_grasps
from handloom.skills.execution import GRASPING, SCENE, Step

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Seen:
    """What is compared while a skill is adapted: sampled interactions of one step, beside the things of the scene.

    gaps_m: (n) distances of sampled grasps, or of the ends of sampled paths, from the thing they belong to, negative
    inside. away: (n, 3) unit directions in which each of these distances grows.
    """

    gaps_m: Floats
    away: Floats


class Reader(Protocol):
    """Reads what demonstrations have in common. `name` is kept with each skill."""

    name: str

    def describe(self, steps: Sequence[Step]) -> str:
        """One sentence: the semantic constraint that executions of one step share."""

    def group(self, grasps: Floats) -> NDArray[np.int64]:
        """(n) numbers from 0: which grasps (n, 4, 4) belong to one region."""

    def compare(self, wanted_gap_m: tuple[float, float], now: Seen) -> Floats | None:
        """(3) metres by which sampled interactions should move to look like the demonstrated ones; None: they do."""


class RuleReader:
    """Words from the segments, groups by distance on SE(3), comparison by distances from boxes."""

    name = "rules"

    def describe(self, steps: Sequence[Step]) -> str:
        step = steps[0]
        seconds = np.median([one.end_s - one.start_s for one in steps])
        if step.phase == GRASPING:
            return f"the {step.hand} hand takes {step.master} ({seconds:.1f} s)"
        place = "where it stood" if step.master == SCENE else step.master
        words = f"{step.action or 'handle'} {step.slave} with the {step.hand} hand"
        return f"{words}, relative to {place} ({seconds:.1f} s)"

    def group(self, grasps: Floats) -> NDArray[np.int64]:
        return group_grasps(grasps)

    def compare(self, wanted_gap_m: tuple[float, float], now: Seen) -> Floats | None:
        """Half the way that the middle sample lacks: the next comparison sees whether it was enough."""
        low, high = wanted_gap_m
        middle = float(np.median(now.gaps_m))
        lacks = low - middle if middle < low else high - middle if middle > high else 0.0
        if abs(lacks) < 1e-3:
            return None
        way = now.away.mean(axis=0)
        length = float(np.linalg.norm(way))
        return None if length < 1e-6 else 0.5 * lacks * way / length if abs(lacks) > 0.01 else lacks * way / length
