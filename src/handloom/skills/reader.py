"""The steps that VLMimic gives to a vision-language model, behind one interface; and rules that need none."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from handloom.skills.bounds import group_grasps
from handloom.skills.execution import GRASPING, SCENE, UNKNOWN_WORDS, Step

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Shown:
    """A step as one clip shows it."""

    clip_id: str
    step: Step


@dataclass(frozen=True)
class Sampled:
    """Interactions of one step, sampled from its bounds, beside the thing they belong to.

    lines: (n, k, 3) metres in the thing's frame: from wrist to knuckles of each grasp, or the keypoints of each path.
    gaps_m: (n) distances of the grasps' palms, or of the ends of the paths, from the box, negative inside. away: (n, 3)
    unit directions in which each of these distances grows. box: (6) least and largest x, y, z.
    """

    lines: Floats
    gaps_m: Floats
    away: Floats
    box: Floats


@dataclass(frozen=True)
class Compared:
    """What is compared in one round: `learned` beside the thing of the demonstrations, `now` beside another one.

    wanted_gap_m: bounds of the distances that demonstrations had.
    """

    step: Step
    text: str
    wanted_gap_m: tuple[float, float]
    learned: Sampled
    now: Sampled


@dataclass(frozen=True)
class Advice:
    """move_m: (3) metres by which the interactions of now should move. reason: in words; empty: none is given."""

    move_m: Floats
    reason: str = ""


class Reader(Protocol):
    """Reads what demonstrations have in common. `name` is kept with each skill."""

    @property
    def name(self) -> str: ...

    def describe(self, shown: Sequence[Shown]) -> str:
        """One sentence: the semantic constraint that executions of one step share."""

    def group(self, grasps: Floats, box: Floats | None) -> NDArray[np.int64]:
        """(n) numbers from 0: which grasps (n, 4, 4) belong to one region. box: (6) of the thing; None: unknown."""

    def compare(self, compared: Compared) -> Advice | None:
        """How sampled interactions should move to look like the demonstrated ones; None: they do."""


class RuleReader:
    """Words from the segments, groups by distance on SE(3), comparison by distances from boxes."""

    name = "rules"

    def describe(self, shown: Sequence[Shown]) -> str:
        return by_rule([one.step for one in shown])

    def group(self, grasps: Floats, box: Floats | None) -> NDArray[np.int64]:
        return group_grasps(grasps)

    def compare(self, compared: Compared) -> Advice | None:
        """Half the way that the middle sample lacks: the next comparison sees whether it was enough."""
        (low, high), now = compared.wanted_gap_m, compared.now
        middle = float(np.median(now.gaps_m))
        lacks = low - middle if middle < low else high - middle if middle > high else 0.0
        if abs(lacks) < 1e-3:
            return None
        way = now.away.mean(axis=0)
        length = float(np.linalg.norm(way))
        if length < 1e-6:
            return None
        return Advice((0.5 if abs(lacks) > 0.01 else 1.0) * lacks * way / length)


def by_rule(steps: Sequence[Step]) -> str:
    """`the main hand takes A (0.8 s)`: what the segments say of the executions of one step."""
    step = steps[0]
    seconds = np.median([one.end_s - one.start_s for one in steps])
    if step.phase == GRASPING:
        return f"the {step.hand} hand takes {step.master} ({seconds:.1f} s)"
    place = "where it stood" if step.master == SCENE else step.master
    words = f"{step.action or UNKNOWN_WORDS} {step.slave} with the {step.hand} hand"
    return f"{words}, relative to {place} ({seconds:.1f} s)"
