"""Order of sub-tasks: how alike two sequences of steps are, which steps belong together, and which clips do."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from handloom.skills.bounds import same_path
from handloom.skills.carrying import Carrying, alike, carryings
from handloom.skills.execution import Execution, Step

OTHER_ACTION, NEAR_ACTION, UNKNOWN_ACTION, OTHER_ROLE, OTHER_HAND = 0.6, 0.45, 0.25, 0.15, 0.2
"""What a pair of steps of one phase costs, for each difference; steps of different phases cost 1."""
NEAR = (
    frozenset({"move", "lower"}),
    frozenset({"move", "wipe with"}),
    frozenset({"move to and fro", "turn and back", "wipe with"}),
)
"""Actions that one movement may be called, as actions with the same first word are: whether a thing is carried or set
down depends on a few centimetres, whether what comes back was turned on a few degrees, and wiping on its strokes."""
LEFT_OUT = 0.7
"""What a step without a partner costs."""
SAME_STEP = 0.5
SAME_TASK = 0.5
"""Clips whose sequences differ by less than this share show one task."""
FEW = 1 / 3
"""Groups with a smaller share of the clips are left out in place of refusing all."""


def step_cost(a: Step, b: Step) -> float:
    """0: the same sub-task; 1: another one."""
    if a.phase != b.phase:
        return 1.0
    cost = 0.0
    if a.action != b.action:
        cost += action_cost(a.action, b.action)
    cost += OTHER_ROLE * (a.master != b.master) + OTHER_ROLE * (a.slave != b.slave) + OTHER_HAND * (a.hand != b.hand)
    return min(cost, 1.0)


def action_cost(a: str, b: str) -> float:
    """What a pair of actions costs; the empty string is an unknown one."""
    if not a or not b:
        return UNKNOWN_ACTION
    return NEAR_ACTION if any({a, b} <= group for group in NEAR) or a.split()[0] == b.split()[0] else OTHER_ACTION


def align(a: Sequence[Step], b: Sequence[Step]) -> tuple[float, list[tuple[int, int]]]:
    """Edit distance of two sequences, and the pairs of steps (i of a, j of b) that belong together, in order."""
    distance, pairs = _aligned(a, b)
    return distance, [(i, j) for i, j, cost in pairs if cost < SAME_STEP]


def _aligned(a: Sequence[Step], b: Sequence[Step]) -> tuple[float, list[tuple[int, int, float]]]:
    """The same with what each pair costs, also of steps that stand in place of others."""
    costs = np.array([[step_cost(x, y) for y in b] for x in a]).reshape(len(a), len(b))
    table = np.zeros((len(a) + 1, len(b) + 1))
    table[:, 0], table[0] = LEFT_OUT * np.arange(len(a) + 1), LEFT_OUT * np.arange(len(b) + 1)
    for i in range(len(a)):
        for j in range(len(b)):
            alone = LEFT_OUT + min(table[i, j + 1], table[i + 1, j])
            table[i + 1, j + 1] = min(table[i, j] + costs[i, j], alone)
    pairs, i, j = [], len(a), len(b)
    while i and j:
        if np.isclose(table[i, j], table[i - 1, j - 1] + costs[i - 1, j - 1]):
            i, j = i - 1, j - 1
            pairs.append((i, j, float(costs[i, j])))
        elif np.isclose(table[i, j], table[i - 1, j] + LEFT_OUT):
            i -= 1
        else:
            j -= 1
    return float(table[-1, -1]), pairs[::-1]


def apart(a: Sequence[Step], b: Sequence[Step]) -> float:
    """0: the same sub-tasks in the same order; 1: nothing in common."""
    longest = max(len(a), len(b))
    return min(align(a, b)[0] / longest, 1.0) if longest else 0.0


def other_task(a: Sequence[Step], b: Sequence[Step]) -> bool:
    """Whether two sequences differ too much, or one has another action in place of one of the other's; a step that is
    missing may be one that was not found."""
    return apart(a, b) >= SAME_TASK or any(cost >= SAME_STEP for _, _, cost in _aligned(a, b)[1])


Clip = tuple[Execution, Sequence[Carrying]]
"""An execution with what is carried in it (`carryings` of its steps)."""


def other_clips(one: Clip, other: Clip) -> bool:
    """Whether two clips show other tasks: where both carry things on known paths, these decide, however they are cut;
    where nothing that was done with a thing is known to be the same, their verbs do."""
    (a, carried_a), (b, carried_b) = one, other
    if alike(carried_a, carried_b) and all(
        same_path(x.whole, y.whole) for x, y in zip(carried_a, carried_b, strict=True)
    ):
        return False
    if other_task(a.steps, b.steps):
        return True
    return bool(a.verb and b.verb) and a.verb != b.verb and not _same_action(a.steps, b.steps)


def _same_action(a: Sequence[Step], b: Sequence[Step]) -> bool:
    """Whether a step of both moves a thing in the same known way; that a thing was taken says little."""
    pairs = align(a, b)[1]
    return any(a[i].is_told and a[i].action == b[j].action for i, j in pairs)


def tasks_of(executions: Sequence[Execution]) -> list[list[Execution]]:
    """Executions that show one task together, largest group first: each shows that of the middle one of its group."""
    left: list[Clip] = [(one, carryings(one.steps)) for one in executions]
    groups: list[list[Execution]] = []
    while left:
        gaps = np.array([[apart(a.steps, b.steps) for b, _ in left] for a, _ in left])
        same = np.array([[not other_clips(a, b) for b in left] for a in left])
        near = same[int(np.lexsort((gaps.sum(axis=1), -same.sum(axis=1)))[0])]
        groups.append([one for (one, _), is_near in zip(left, near, strict=True) if is_near])
        left = [one for one, is_near in zip(left, near, strict=True) if not is_near]
    return sorted(groups, key=len, reverse=True)


def middle_one(executions: Sequence[Execution]) -> Execution:
    """The execution whose steps differ least from those of the others."""
    sums = [sum(apart(a.steps, b.steps) for b in executions) for a in executions]
    return executions[int(np.argmin(sums))]
