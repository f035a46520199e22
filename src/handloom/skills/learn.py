"""Learning a skill from the executions of a few clips."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np

from handloom.errors import ConfigError
from handloom.skills.bounds import OF_FEW, PERCENTILES, PLACE_M, bounds, gap_m, palm, path_bounds, regions_of
from handloom.skills.carrying import Carrying, alike, carryings
from handloom.skills.execution import GRASPING, Execution, Step
from handloom.skills.order import FEW, OTHER_ACTION, action_cost, align, apart, middle_one, tasks_of
from handloom.skills.reader import Reader, Shown
from handloom.skills.skill import Constraint, Skill, without_geometry

T = TypeVar("T")

LEAST_SUPPORT = 0.5
"""A step that fewer demonstrations have is not asked for."""
ENOUGH = 5
"""Fewer demonstrations than this teach a weak skill (docs/skills.md has the rates)."""
GAP_M = 0.01
MOST_APART = 0.09
"""How much more than the demonstrations themselves an execution may differ from the order of the skill, if there are
many demonstrations: less than a step that is missing or too many among four."""
AT_MOST = 0.3
MOST_OTHERS = 0.5
"""Where so many of the clips do not show the carrying of most, the order of the steps is what they have in common."""
SCATTERED_M = 0.4
"""Bounds of a path's end that are wider than this say nothing about where a thing goes."""


@dataclass(frozen=True)
class Learned:
    """Skills, largest group of clips first, and what should be said about them."""

    skills: tuple[Skill, ...]
    notes: tuple[str, ...]


def learn(name: str, task: str, executions: Sequence[Execution], reader: Reader, split: bool = False) -> Learned:
    """Constraints of what the clips have in common.

    split: clips of different tasks give a skill each, `NAME`, `NAME-2`, ...; otherwise they are refused, unless those
    that differ are few: then these are left out.

    Raises:
        ConfigError: no clip has a step with a thing, the clips show different tasks, or nothing is known of what is
            done in them or how.
    """
    useful = [one for one in executions if one.steps]
    notes = [f"left out: no segment with a thing in {one.clip_id}" for one in executions if not one.steps]
    if any(map(_is_told, useful)):
        notes += [
            f"left out: unknown what is done with a thing, and how, in {one.clip_id}"
            for one in useful
            if not _is_told(one)
        ]
        useful = [one for one in useful if _is_told(one)]
    if not useful:
        raise ConfigError(
            f"no segment with a thing in {_listed([one.clip_id for one in executions])}: nothing to learn from",
            "a skill needs clips in which a hand takes and moves something that has tracks; `handloom show CLIP` draws "
            "their segments, docs/segments.md says what is not found",
        )
    groups = tasks_of(useful)
    least = min(2, max(map(len, groups)))  # beside clips that agree, a single one shows no other task
    large = [group for group in groups if len(group) >= max(FEW * len(useful), least)]
    if not split and len(large) != 1:
        raise ConfigError(
            f"the {len(useful)} clips show different tasks: " + "; ".join(_shown(group) for group in groups),
            "clips belong together whose steps are alike and, where it is unknown what is done with the thing, that "
            "have one verb; give clips of one task, or --split for one skill of each group",
        )
    for group in groups if not split else ():
        if group is not large[0]:
            notes.append(f"left out, other steps or another verb than most: {_shown(group)}")
    chosen = groups if split else large
    if not (known := [group for group in chosen if any(_is_told(one) for one in group)]):
        raise ConfigError(
            "nothing can be recognised by these clips: in none of them is it known what is done with a thing, or how: "
            + "; ".join(_shown(group) for group in chosen),
            "`handloom show CLIP` draws what was found; things need tracks and depth, docs/segments.md says what is "
            "not found",
        )
    notes += [f"left out, unknown what is done and how: {_shown(group)}" for group in chosen if group not in known]
    chosen = known
    names = [name if number == 1 else f"{name}-{number}" for number in range(1, len(chosen) + 1)]
    skills = []
    for one, group in zip(names, chosen, strict=True):
        steps = _common_steps(group)
        skills.append(_skill(one, task, group, steps, reader))
        notes += [*weak_points(skills[-1]), *_other_actions(one, steps)]
    return Learned(tuple(skills), tuple(notes))


def weak_points(skill: Skill) -> list[str]:
    """Sentences about what a skill does not know."""
    num = len(skill.clip_ids)
    notes = []
    if no_geometry := not any(one.has_geometry for one in skill.constraints):
        can = "the order of the steps is all that is compared" if skill.is_told else "a match will say: cannot tell"
        notes.append(
            f"{skill.name}: NOTHING CAN BE RECOGNISED BY GEOMETRY with this skill: no pose of a hand or of a thing is "
            f"known in its clips; {can}"
        )
    if num < ENOUGH:
        clips = "one clip" if num == 1 else f"{num} clips"
        wide = "" if no_geometry else ": bounds are wide guesses"
        notes.append(f"{skill.name}: weak, learned from {clips}{wide}; {ENOUGH} clips are better")
    for one in skill.constraints:
        if not one.has_geometry and not no_geometry:
            notes.append(f"{skill.name}: no geometry of the step {one.step.words!r}: its poses are unknown")
        if len(one.regions) > 1 and all(region.num == 1 for region in one.regions):
            notes.append(
                f"{skill.name}: the grasps of {one.step.words!r} have nothing in common: each is its own region"
            )
        if one.path is not None and (apart_m := float((one.path.high - one.path.low)[-1, :3].max())) > SCATTERED_M:
            notes.append(
                f"{skill.name}: the paths of {one.step.words!r} have little in common: their ends are bounded by "
                f"{100 * apart_m:.0f} cm"
            )
    return notes


def _is_told(one: Execution) -> bool:
    """Whether anything is known of what is done with a thing, or how."""
    return any(
        step.is_told or step.path is not None or (step.phase == GRASPING and step.grasp is not None)
        for step in one.steps
    )


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")


def _shown(group: Sequence[Execution]) -> str:
    verbs = "/".join(sorted({one.verb for one in group if one.verb}))
    return f"{_listed([one.clip_id for one in group])} ({verbs and verbs + ': '}{middle_one(group).words})"


def _common_steps(group: Sequence[Execution]) -> list[list[Shown]]:
    """The steps that most clips of a group have, in order, as each of them shows it."""
    middle = middle_one(group)
    per_step: list[list[Shown]] = [[] for _ in middle.steps]
    for one in group:
        for i, j in align(middle.steps, one.steps)[1]:
            per_step[i].append(Shown(one.clip_id, one.steps[j]))
    kept = [shown for shown in per_step if len(shown) > LEAST_SUPPORT * len(group) or len(group) == 1]
    return kept or [max(per_step, key=len)]


def _other_actions(name: str, steps: Sequence[Sequence[Shown]]) -> list[str]:
    """Sentences about steps in which a third of the clips or more do something else than most: a clip of which nothing
    is known but that a thing was handled may stand between clips of different tasks."""
    notes = []
    for shown in steps:
        counts = Counter(one.step.action for one in shown if one.step.action)
        usual = counts.most_common(1)[0][0] if counts else ""
        others = sum(num for action, num in counts.items() if action_cost(action, usual) >= OTHER_ACTION)
        if others and others >= FEW * counts.total():
            told = ", ".join(f"{action} {num}" for action, num in counts.most_common())
            notes.append(f"{name}: the clips differ in what is done in one step ({told}): are they of one task?")
    return notes


def _skill(
    name: str, task: str, group: Sequence[Execution], common: Sequence[Sequence[Shown]], reader: Reader
) -> Skill:
    constraints = tuple(_constraint(shown, len(group), reader) for shown in common)
    steps = [one.step for one in constraints]
    usual = float(np.percentile([apart(steps, one.steps) for one in group], PERCENTILES[1]))
    most_apart = min(usual + MOST_APART * (1.0 + OF_FEW / len(group)), AT_MOST)
    clip_ids = tuple(one.clip_id for one in group)
    return Skill(name, task, constraints, clip_ids, reader.name, most_apart, _carried(steps, group))


def _carried(steps: Sequence[Step], group: Sequence[Execution]) -> tuple[Constraint, ...]:
    """The bounds of the whole path of each thing that the steps carry; empty where no clip knows all of them, half of
    the clips or more do something else than carrying, or all are cut alike: then the order of the steps is what they
    show."""
    asked = carryings(steps)
    told = [found for one in group if alike(asked, found := carryings(one.steps))]
    cuts = {tuple(step.action for step in one.steps) for one in group}
    if len(cuts) == 1 or len(group) - len(told) >= MOST_OTHERS * len(group):
        return ()
    shown = [found for found in told if _all_known(found)]
    out = []
    for number, one in enumerate(asked if shown else ()):
        wholes = _seen_to_their_end([found[number].whole for found in shown])
        whole = replace(without_geometry(one.whole), action="carry")
        box = _median([step.box for step in wholes if step.box is not None])
        steps_of = f"step {one.first + 1}" if one.first == one.last else f"steps {one.first + 1} to {one.last + 1}"
        text = f"{steps_of} as one path, as the clips are cut differently: {whole.words}, relative to where it stood"
        out.append(Constraint(whole, text, len(shown) / len(group), path=path_bounds(wholes), box=box))
    return tuple(out)


def _seen_to_their_end(wholes: Sequence[Step]) -> Sequence[Step]:
    """Those of some whole paths that end as high as they began, as exactly as things are seen, if a third or more do:
    such things were put down on what they had stood on, so a path that ends above or below it was lost on the way.
    Else all: things are put onto others, or are still held."""
    level = [one for one in wholes if one.path is not None and abs(one.path[-1, 2]) < PLACE_M]
    return level if len(level) >= FEW * len(wholes) else wholes


def _all_known(found: Sequence[Carrying]) -> bool:
    return all(one.whole.path is not None for one in found)


def _most(values: Sequence[T]) -> T:
    return Counter(values).most_common(1)[0][0]


def _constraint(shown: Sequence[Shown], num_clips: int, reader: Reader) -> Constraint:
    steps = [one.step for one in shown]
    action = _most([step.action for step in steps if step.action] or [""])
    step = replace(
        without_geometry(steps[0]),
        action=action,
        hand=_most([one.hand for one in steps]),
        master=_most([one.master for one in steps]),
        slave=_most([one.slave for one in steps]),
    )
    grasped = [one for one in steps if one.phase == GRASPING and one.grasp is not None]
    grasps = np.array([one.grasp for one in grasped]).reshape(-1, 4, 4)
    gaps = [gap_m(palm(one.grasp[None]), one.box) for one in grasped if one.box is not None and one.grasp is not None]
    low_high = None
    if gaps:
        low, high = bounds(np.concatenate(gaps), GAP_M)
        low_high = float(low), float(high)
    box = _median([one.box for one in steps if one.box is not None])
    return Constraint(
        step,
        reader.describe([one for one in shown if _is_same(one.step, step)] or shown),
        len(steps) / num_clips,
        regions_of(grasps, reader.group(grasps, box)) if len(grasps) else (),
        low_high,
        path_bounds([one for one in steps if _is_same(one, step)]) if step.phase != GRASPING else None,
        box,
        _median([one.master_box for one in steps if one.master_box is not None]),
    )


def _is_same(one: Step, step: Step) -> bool:
    """Whether it is of the same thing, in relation to the same one, by the same hand."""
    return (one.master, one.slave, one.hand) == (step.master, step.slave, step.hand)


def _median(boxes: Sequence[np.ndarray]) -> np.ndarray | None:
    return np.median(boxes, axis=0) if boxes else None
