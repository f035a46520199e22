"""Carrying: all that one hand does with a thing from taking it to letting it go, as one path.

Where a movement is cut depends on small things: one clip shows `lift A, lower A`, another `move A` of the same
placing, and a third begins late. The path of the whole does not change with the cuts, nor does its shape along its
length with pauses.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from handloom.skills.execution import GRASPING, HOLD, NUM_KEYPOINTS, SCENE, Step, unwrapped

Floats = NDArray[np.float64]

CARRIED = frozenset({"lift", "lower", "move", HOLD, ""})
"""Actions that are parts of carrying; a turn, or a movement to and fro, is something else."""
TURN_M = 0.1
"""A turn by one radian is as long as this way."""


@dataclass(frozen=True)
class Carrying:
    """grasp, first, last: numbers of the steps of a sequence; grasp None: how the thing was taken is not in it. whole:
    a step with the joined path, in the scene; its path is None where a part of it is unknown, or the master is
    another thing. is_carrying: nothing but carrying is in it."""

    grasp: int | None
    first: int
    last: int
    whole: Step
    is_carrying: bool


def carryings(steps: Sequence[Step]) -> list[Carrying]:
    """Those of a sequence in order: neighbours of one hand that move one thing, and the grasp before them."""
    out: list[Carrying] = []
    at = 0
    while at < len(steps):
        grasp = at if steps[at].phase == GRASPING else None
        first = at + (grasp is not None)
        last = first
        while last < len(steps) and _belongs(steps, first, last, grasp):
            last += 1
        if last > first:
            out.append(Carrying(grasp, first, last - 1, _whole(steps[first:last]), _is_carrying(steps[first:last])))
        at = max(last, at + 1)
    return out


def alike(a: Sequence[Carrying], b: Sequence[Carrying]) -> bool:
    """Whether the same hands carry the same things in the same order, and nothing else is done with them; steps that
    no carrying has are not asked for."""
    if len(a) != len(b) or not a:
        return False
    return all(x.is_carrying and y.is_carrying and _of(x) == _of(y) for x, y in zip(a, b, strict=True))


def _of(one: Carrying) -> tuple[str, str, bool]:
    return one.whole.hand, one.whole.slave, one.grasp is not None


def _belongs(steps: Sequence[Step], first: int, at: int, grasp: int | None) -> bool:
    step, taken = steps[at], steps[first]
    if step.phase == GRASPING:
        return False
    thing = taken.slave if grasp is None else steps[grasp].master
    return step.slave == thing and step.hand == (taken.hand if grasp is None else steps[grasp].hand)


def _is_carrying(steps: Sequence[Step]) -> bool:
    return all(step.action in CARRIED for step in steps)


def _whole(steps: Sequence[Step]) -> Step:
    box = next((step.box for step in steps if step.box is not None), None)
    return replace(
        steps[0], action=steps[0].action if len(steps) == 1 else "", master=SCENE, end_s=steps[-1].end_s, grasp=None,
        path=joined(steps), gap=None, box=box, master_box=None,
    )  # fmt: skip


def joined(steps: Sequence[Step]) -> Floats | None:
    """(10, 6) keypoints of neighbouring steps of one thing, uniform along the way; None: a part is unknown, or is in
    the frame of another thing."""
    if any(step.path is None or step.master != SCENE for step in steps):
        return None
    place, turn = np.zeros(3), Rotation.identity()
    places, turns = [], []
    for number, step in enumerate(steps):
        if step.gap is not None and number:
            place, turn = place + step.gap[:3], Rotation.from_rotvec(step.gap[3:]) * turn
        path = np.asarray(step.path)
        places.append(place + path[:, :3])
        turns.append((Rotation.from_rotvec(path[:, 3:]) * turn).as_rotvec())
        place, turn = places[-1][-1], Rotation.from_rotvec(turns[-1][-1])
    return along_the_way(np.concatenate([np.concatenate(places), unwrapped(np.concatenate(turns))], axis=1))


def along_the_way(path: Floats) -> Floats:
    """(10, 6) keypoints of a path (n, 6), uniform along its length in place of its time."""
    change = np.diff(path, axis=0)
    steps = np.linalg.norm(change[:, :3], axis=1) + TURN_M * np.linalg.norm(change[:, 3:], axis=1)
    way = np.concatenate([[0.0], np.cumsum(steps)])
    at = np.linspace(0.0, way[-1], NUM_KEYPOINTS)
    return np.stack([np.interp(at, way, column) for column in path.T], axis=1)
