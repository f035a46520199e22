"""Whether a clip executes a skill: the order of its sub-tasks first, then the geometry of each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from handloom.skills.bounds import LEAST_OF_PATH, from_middle, path_for, places_inside
from handloom.skills.carrying import alike, carryings
from handloom.skills.execution import GRASPING, Execution, Step
from handloom.skills.order import UNKNOWN_ACTION, align, apart
from handloom.skills.skill import Constraint, Skill

Floats = NDArray[np.float64]

By = Literal["hierarchical", "semantic", "geometric"]

LEAST_OF_GRASP = 0.8
"""Share of a grasp's 6 numbers that must be inside their bounds."""
NOTHING = "no segment with a thing was found in the clip: nothing was taken, or it was not seen"
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
    turn, whatever they are called; `hierarchical` for both, or, where things are only carried, for the whole path of
    each thing, however it was cut into steps."""
    if not execution.steps:
        return Verdict(False, 0.0, 1.0, 0, (), (), (NOTHING,))
    by_steps = _by_steps(skill, execution, by)
    if by != "hierarchical":
        return by_steps
    return _by_carrying(skill, execution, by_steps) or by_steps


def _by_steps(skill: Skill, execution: Execution, by: By) -> Verdict:
    steps = execution.steps
    pairs = dict(_by_phase(skill.steps, steps) if by == "geometric" else align(skill.steps, steps)[1])
    differs = apart(skill.steps, steps)
    verdicts = [_verdict(one, steps[pairs[i]] if i in pairs else None) for i, one in enumerate(skill.constraints)]
    checked = [one.inside for one in verdicts if one.inside is not None]
    reasons, doubts = ([], []) if by == "geometric" else _of_order(skill, execution, pairs, differs)
    reasons += _outside(verdicts) if by != "semantic" else []
    for one in verdicts if by != "semantic" else ():
        if one.found_s is None and by == "geometric":
            reasons.append(f"no step for {one.step!r}")
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


def _by_carrying(skill: Skill, execution: Execution, by_steps: Verdict) -> Verdict | None:
    """The verdict from whole paths; None where they do not decide: the skill has none, other hands carry other things,
    or a path is unknown and the actions are not."""
    if not skill.carried:
        return None
    asked, found = carryings(skill.steps), carryings(execution.steps)
    if not all(one.is_carrying for one in found):
        reasons = by_steps.reasons or (f"other steps: {execution.words}; asked: {skill.words}",)
        return replace(by_steps, accepted=False, reasons=reasons, doubts=())
    if not alike(asked, found):
        return None
    verdicts: list[StepVerdict] = []
    unseen: list[str] = []
    for one, wanted, shown in zip(skill.carried, asked, found, strict=True):
        if wanted.grasp is not None:
            grasp = None if shown.grasp is None else execution.steps[shown.grasp]
            verdicts.append(_verdict(skill.constraints[wanted.grasp], grasp))
        inside, span = share_inside(one, shown.whole), (shown.whole.start_s, shown.whole.end_s)
        holds = None if inside is None else inside >= LEAST_OF_PATH and ends_inside(one, shown.whole)
        verdicts.append(StepVerdict(one.step.words, span, inside, holds))
        nameless = any(not step.action for step in execution.steps[shown.first : shown.last + 1])
        unseen += [one.step.words] if inside is None and nameless else []
    if outside := _outside(verdicts):
        return replace(by_steps, accepted=False, steps=tuple(verdicts), reasons=tuple(outside), doubts=())
    doubts = tuple(f"{words!r}: unknown how in a part of its time" for words in unseen)
    if not doubts and any(one.holds is None for one in verdicts):
        return None
    shares = [UNCHECKED if one.inside is None else one.inside for one in verdicts]
    score = float(np.mean(shares)) * (1.0 - by_steps.apart if doubts else 1.0)
    num_checked = sum(one.inside is not None for one in verdicts)
    return Verdict(not doubts, score, by_steps.apart, num_checked, tuple(verdicts), (), doubts)


def _verdict(constraint: Constraint, found: Step | None) -> StepVerdict:
    """One step of the skill beside what stands for it in a clip."""
    words = constraint.step.words
    if found is None:
        return StepVerdict(words, None, None, False)
    inside, span = share_inside(constraint, found), (found.start_s, found.end_s)
    if inside is not None:
        least = LEAST_OF_GRASP if constraint.step.phase == GRASPING else LEAST_OF_PATH
        there = constraint.step.phase == GRASPING or ends_inside(constraint, found)
        return StepVerdict(words, span, inside, inside >= least and there)
    asks = bool(constraint.step.action) or constraint.has_geometry
    return StepVerdict(words, span, None, True if found.action or not asks else None)


def _outside(verdicts: Sequence[StepVerdict]) -> list[str]:
    """A reason for each step whose geometry is known and does not hold."""
    told = []
    for one in verdicts:
        if one.inside is not None and not one.holds:
            ends = " and the path ends elsewhere" if one.inside >= LEAST_OF_PATH else ""
            told.append(f"{one.step!r}: {one.inside:.0%} of the geometry is inside its bounds{ends}")
    return told


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


def ends_inside(constraint: Constraint, step: Step) -> bool:
    """Whether the known path of a step ends at a place inside its bounds."""
    if step.path is None or constraint.path is None:
        return False
    low, high = path_for(constraint.path, step.box, step.master_box)
    return bool(places_inside(step.path[-1:, :3], low[-1:, :3], high[-1:, :3], step.error_m)[0])


def share_inside(constraint: Constraint, step: Step) -> float | None:
    """Share of a step's geometry that is inside the bounds: of the best region of grasps, or of the path's
    keypoints. None: one of both is unknown."""
    if constraint.step.phase == GRASPING:
        if step.grasp is None or not constraint.regions:
            return None
        shares = []
        for region in constraint.regions:
            values = from_middle(region.middle, step.grasp[None])
            inside = (values[0] >= region.low) & (values[0] <= region.high)
            low, high = region.low[None, :3], region.high[None, :3]
            inside[:3] |= places_inside(values[:, :3], low, high, step.error_m)
            shares.append(float(inside.mean()))
        return max(shares)
    if step.path is None or constraint.path is None or step.master != constraint.step.master:
        return None
    low, high = path_for(constraint.path, step.box, step.master_box)
    turned = ((step.path[:, 3:] >= low[:, 3:]) & (step.path[:, 3:] <= high[:, 3:])).all(axis=1)
    return float((turned & places_inside(step.path[:, :3], low[:, :3], high[:, :3], step.error_m)).mean())
