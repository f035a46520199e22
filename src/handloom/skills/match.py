"""Whether a clip executes a skill: the order of its sub-tasks first, then the geometry of each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from handloom.skills.bounds import from_middle, path_for
from handloom.skills.execution import GRASPING, Execution, Step
from handloom.skills.order import UNKNOWN_ACTION, align, apart
from handloom.skills.skill import Constraint, Skill

Floats = NDArray[np.float64]

By = Literal["hierarchical", "semantic", "geometric"]

LEAST_OF_PATH, LEAST_OF_GRASP = 0.7, 0.8
"""Share of a path's 10 keypoints, each with all of its 6 numbers, and of a grasp's 6 numbers that must be inside their
bounds. A share of a path's 60 numbers let 53 % of paths pass that ended 10 cm elsewhere along one axis."""
UNCHECKED = 0.5
"""A step without geometry to compare counts half in the score."""
ESSENTIAL = 0.7
"""A step that so many of the demonstrations have must be there."""


@dataclass(frozen=True)
class StepVerdict:
    """One step of the skill. inside: share of the geometry that is inside its bounds; None: nothing to compare. holds:
    None if the clip says less of the step than the skill."""

    step: str
    found_s: tuple[float, float] | None
    inside: float | None
    holds: bool | None


@dataclass(frozen=True)
class Verdict:
    """accepted: the clip executes the skill. apart: 0 the same sub-tasks in order, 1 others. num_checked: steps whose
    geometry could be compared; score: 0 to 1, for ranking. reasons: why it does not; doubts: what would have to be
    known to tell whether it does."""

    accepted: bool
    score: float
    apart: float
    num_checked: int
    steps: tuple[StepVerdict, ...]
    reasons: tuple[str, ...]
    doubts: tuple[str, ...] = ()

    @property
    def answer(self) -> str:
        """`executed`, `not executed`, or `cannot tell`."""
        return "executed" if self.accepted else "not executed" if self.reasons else "cannot tell"


def judge(skill: Skill, execution: Execution, by: By = "hierarchical") -> Verdict:
    """by: `semantic` asks for the order of sub-tasks alone, `geometric` for the bounds of the steps of each phase in
    turn, whatever they are called."""
    steps = execution.steps
    if not steps:
        return Verdict(False, 0.0, 1.0, 0, (), ("the clip has no segment with a thing",))
    pairs = dict(_by_phase(skill.steps, steps) if by == "geometric" else align(skill.steps, steps)[1])
    differs = apart(skill.steps, steps)
    verdicts = [_verdict(one, steps[pairs[i]] if i in pairs else None) for i, one in enumerate(skill.constraints)]
    checked = [one.inside for one in verdicts if one.inside is not None]
    reasons, doubts = ([], []) if by == "geometric" else _of_order(skill, execution, pairs, differs)
    for one in verdicts if by != "semantic" else ():
        if one.found_s is None and by == "geometric":
            reasons.append(f"no step for {one.step!r}")
        elif one.inside is not None and not one.holds:
            reasons.append(f"{one.step!r}: {one.inside:.0%} of the geometry is inside its bounds")
        elif one.holds is None:
            doubts.append(f"{one.step!r}: unknown what is done and how")
    if not skill.is_told and not any(one.has_geometry for one in skill.constraints):
        reasons, doubts = (
            [],
            ["the skill itself does not know what is done with a thing, nor how: learn it from others"],
        )
    score = (1.0 - differs) if by != "geometric" else 1.0
    if by != "semantic":
        score *= float(np.mean([UNCHECKED if one.inside is None else one.inside for one in verdicts]))
    accepted = not reasons and not doubts
    return Verdict(accepted, score, differs, len(checked), tuple(verdicts), tuple(reasons), tuple(doubts))


def _verdict(constraint: Constraint, found: Step | None) -> StepVerdict:
    """One step of the skill beside what stands for it in a clip."""
    words = constraint.step.words
    if found is None:
        return StepVerdict(words, None, None, False)
    inside, span = share_inside(constraint, found), (found.start_s, found.end_s)
    if inside is not None:
        least = LEAST_OF_GRASP if constraint.step.phase == GRASPING else LEAST_OF_PATH
        return StepVerdict(words, span, inside, inside >= least)
    asks = bool(constraint.step.action) or constraint.has_geometry
    return StepVerdict(words, span, None, True if found.action or not asks else None)


def _of_order(
    skill: Skill, execution: Execution, pairs: Mapping[int, int], differs: float
) -> tuple[list[str], list[str]]:
    """Reasons and doubts of the order of sub-tasks: steps that differ for no more than unknown actions are doubts."""
    reasons, doubts, steps = [], [], execution.steps
    told = f"{execution.words}; asked: {skill.words}"
    unknown = sum(bool(skill.steps[i].action) != bool(steps[j].action) for i, j in pairs.items())
    known = differs - UNKNOWN_ACTION * unknown / max(len(skill.steps), len(steps))
    if known > skill.most_apart:
        reasons.append(f"other steps: {told}")
    elif differs > skill.most_apart:
        doubts.append(f"too little is known of its steps: {told}")
    missing = [one for i, one in enumerate(skill.constraints) if i not in pairs]
    reasons += [f"no step {one.step.words!r}" for one in missing if one.support >= ESSENTIAL]
    return reasons, doubts


def _by_phase(asked: Sequence[Step], steps: Sequence[Step]) -> list[tuple[int, int]]:
    """Steps of one phase in turn: what is left of the order without words and roles."""
    pairs, at = [], 0
    for number, step in enumerate(asked):
        for j in range(at, len(steps)):
            if steps[j].phase == step.phase:
                pairs.append((number, j))
                at = j + 1
                break
    return pairs


def share_inside(constraint: Constraint, step: Step) -> float | None:
    """Share of a step's geometry that is inside the bounds: of the best region of grasps, or of the path's
    keypoints. None: one of both is unknown."""
    if constraint.step.phase == GRASPING:
        if step.grasp is None or not constraint.regions:
            return None
        shares = []
        for region in constraint.regions:
            values = from_middle(region.middle, step.grasp[None])[0]
            shares.append(float(((values >= region.low) & (values <= region.high)).mean()))
        return max(shares)
    if step.path is None or constraint.path is None or step.master != constraint.step.master:
        return None
    low, high = path_for(constraint.path, step.box, step.master_box)
    return float(((step.path >= low) & (step.path <= high)).all(axis=1).mean())
