"""Scenes at random: `seen` ones like the demonstrations', `unseen` ones with other sizes, places and obstacles."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

from handloom.errors import HandloomError
from handloom.sim.tabletop.model import BASE_M
from handloom.sim.tabletop.plans import Handling, adapted_to, asked_path, handlings_of
from handloom.sim.tabletop.scene import FROM_BASE_M, REACH, START, Goal, Kind, Scene, Thing, box_distance
from handloom.skills.execution import SCENE
from handloom.skills.skill import Skill

How = Literal["seen", "unseen"]
HOWS: tuple[How, ...] = get_args(How)

APART_M, CLEAR_M = 0.05, 0.07
"""Between things, and between an obstacle and a thing or the place where one shall stand."""
WIDEST_M = 0.07
"""A thing that is carried is not made wider than this in its narrowest direction: the gripper opens by 8 cm."""
SIZES, LIKE = (0.7, 1.3), (0.95, 1.05)
"""By what the sides of unseen and seen things differ from those of the demonstrations."""
YAW_DEG = 15.0
OBSTACLES = 2
TOLERANCE_M, OF_WAY, LEAST_M = 0.05, 0.4, 0.015
"""A goal is met within so much; within this share of the way if that is less, so that a thing that stays misses it."""
USUAL_M = (0.06, 0.06, 0.08)
"""A thing whose size the skill does not know."""
TRIES = 500


@dataclass(frozen=True)
class Pattern:
    """How a thing looks and where it stands, of which scenes are drawn. shapes: one of them is taken. place_m: middle
    and spread (half width) in x and y, for seen scenes. carried: it must fit into the gripper."""

    name: str
    shapes: tuple[tuple[Kind, tuple[float, float, float]], ...]
    place_m: tuple[float, float]
    spread_m: tuple[float, float]
    carried: bool


def draw_scene(
    patterns: Sequence[Pattern], goals_of: Callable[[Scene], tuple[Goal, ...]], how: How, seed: int
) -> Scene:
    """A scene in which nothing overlaps, and all goals are within reach. The same seed gives the same scene.

    Raises HandloomError: none was found in 500 tries.
    """
    rng = np.random.default_rng([seed, HOWS.index(how)])
    for _ in range(TRIES):
        things = tuple(_thing(one, how, rng) for one in patterns)
        scene = Scene(things=things)
        goals = goals_of(scene)
        if not _all_apart(things, APART_M if how == "unseen" else 0.01) or not _within_reach(scene, goals):
            continue
        obstacles = _obstacles(scene, goals, rng) if how == "unseen" else ()
        if obstacles is not None:
            return Scene(things=things, obstacles=obstacles, goals=goals)
    names = ", ".join(one.name for one in patterns)
    raise HandloomError(
        f"no {how} scene of seed {seed} has room for {names}: {TRIES} tries", "write a scene as JSON (docs/vlmimic.md)"
    )


def skill_scene(skill: Skill, how: How, seed: int) -> Scene:
    """A scene for a skill: things of the sizes that its demonstrations had, and its own ends as goals."""
    return draw_scene(patterns_of(skill), lambda scene: goals_of(skill, scene), how, seed)


def patterns_of(skill: Skill) -> tuple[Pattern, ...]:
    """The things that a skill moves, and those that movements are relative to, where its demonstrations had them."""
    handlings = handlings_of(skill, "hierarchical")
    carried = {one.thing for one in handlings if not one.pushes}
    boxes: dict[str, np.ndarray] = {}
    for one in skill.constraints:
        thing = one.step.master if one.step.slave == "hand" else one.step.slave
        for name, box in ((thing, one.box), (one.step.master, one.master_box)):
            if box is not None:
                boxes.setdefault(name, box)
    places: dict[str, np.ndarray] = {}
    moved: dict[str, np.ndarray] = {}
    hollow: set[str] = set()
    for handling in handlings:
        place, at = places.get(handling.thing), moved.get(handling.thing, np.zeros(2))
        for leg in handling.legs:
            if leg.bounds is None:
                continue
            path = asked_path(leg, 0)
            if leg.master == SCENE:
                at = at + path[-1, :2]
            else:
                its = places.setdefault(leg.master, np.array([-0.08, 0.12])) + moved.get(leg.master, np.zeros(2))
                place = its + path[0, :2] - at if place is None else place
                at = its + path[-1, :2] - place
                if _is_inside(path[-1], boxes.get(handling.thing), boxes.get(leg.master)):
                    hollow.add(leg.master)
        number = len(places)
        places[handling.thing] = np.array([0.08 - 0.2 * number, 0.10]) if place is None else place
        moved[handling.thing] = at
    return tuple(
        Pattern(
            name,
            (_shape(boxes.get(name), name in hollow),),
            (float(place[0]), float(place[1])),
            (0.025, 0.025),
            name in carried,
        )
        for name, place in sorted(places.items())
    )


def goals_of(skill: Skill, scene: Scene) -> tuple[Goal, ...]:
    """Where the skill's own bounds put its things: their middles, for the sizes of a scene's things."""
    out: dict[str, Goal] = {}
    for one in handlings_of(adapted_to(skill, scene), "hierarchical"):
        found = _goal(one, scene)
        if found is not None:
            out[one.thing] = found
    return tuple(out.values())


def _goal(one: Handling, scene: Scene) -> Goal | None:
    if any(leg.bounds is None for leg in one.legs):
        return None
    at, beside = np.zeros(3), START
    for leg in one.legs:
        path = asked_path(leg, 0)
        if leg.master == SCENE:
            at = at + path[-1, :3]
        else:
            at, beside = path[-1, :3], leg.master
    if one.sets_down and beside == START:
        at = np.array([*at[:2], 0.0])
    tolerance = float(np.clip(OF_WAY * np.linalg.norm(at[:2]), LEAST_M, TOLERANCE_M))
    upright = one.sets_down
    if (master := scene.thing(beside)) is not None:
        tolerance = max(0.03, 0.4 * min(master.size_m[:2]))
        upright = upright and master.kind != "cup"
    x, y, z = (float(value) for value in at)
    return Goal(thing=one.thing, beside=beside, place_m=(x, y, z), tolerance_m=tolerance, upright=upright)


def _is_inside(end: np.ndarray, box: np.ndarray | None, master_box: np.ndarray | None) -> bool:
    """Whether a thing that ends there is deeper than the top of its master: then the master is hollow."""
    if box is None or master_box is None:
        return False
    return bool(end[2] + box[2] < master_box[5] - 0.01 and np.all(np.abs(end[:2]) < master_box[3:5]))


def _shape(box: np.ndarray | None, is_hollow: bool) -> tuple[Kind, tuple[float, float, float]]:
    if box is None:
        return "cylinder", USUAL_M
    x, y, z = (float(np.clip(side, 0.02, 0.3)) for side in box[3:] - box[:3])
    if is_hollow:
        return "cup", (0.5 * (x + y), 0.5 * (x + y), z)
    if max(x, y) < 1.25 * min(x, y):
        return "cylinder", (0.5 * (x + y), 0.5 * (x + y), z)
    return "box", (x, y, z)


def _thing(one: Pattern, how: How, rng: np.random.Generator) -> Thing:
    kind, size = one.shapes[int(rng.integers(len(one.shapes)))]
    scale = rng.uniform(*(LIKE if how == "seen" else SIZES), 3)
    if kind != "box":
        scale[1] = scale[0]
    sides = np.array(size) * scale
    if one.carried and (narrow := float(sides[:2].min())) > WIDEST_M:
        sides[:2] *= WIDEST_M / narrow
    if how == "seen":
        place = np.array(one.place_m) + rng.uniform(-1, 1, 2) * one.spread_m
        yaw = float(rng.uniform(-YAW_DEG, YAW_DEG))
    else:
        place = np.array([rng.uniform(*side) for side in REACH])
        yaw = float(rng.uniform(-180, 180))
    x, y, z = (float(side) for side in sides)
    return Thing(name=one.name, kind=kind, size_m=(x, y, z), place_m=(float(place[0]), float(place[1])), yaw_deg=yaw)


def _all_apart(things: Sequence[Thing], least_m: float) -> bool:
    return all(box_distance(a, b) >= least_m for i, a in enumerate(things) for b in things[:i])


def ends_of(scene: Scene, goals: Sequence[Goal]) -> dict[str, np.ndarray]:
    """(2,) where each thing of a goal shall stand, if those that others are put beside are moved first."""
    ends: dict[str, np.ndarray] = {}
    for goal in goals:
        base = scene.thing(goal.thing if goal.beside == START else goal.beside)
        if base is not None:
            ends[goal.thing] = ends.get(base.name, np.array(base.place_m)) + np.array(goal.place_m[:2])
    return ends


def _within_reach(scene: Scene, goals: Sequence[Goal]) -> bool:
    (left, right), (near, far) = REACH
    places = [*(np.array(one.place_m) for one in scene.things), *ends_of(scene, goals).values()]
    far_m = [float(np.hypot(x - BASE_M[0], y - BASE_M[1])) for x, y in places]
    inside = all(left - 0.03 <= x <= right + 0.03 and near - 0.03 <= y <= far + 0.05 for x, y in places)
    return inside and all(FROM_BASE_M[0] <= one <= FROM_BASE_M[1] for one in far_m)


def _obstacles(scene: Scene, goals: Sequence[Goal], rng: np.random.Generator) -> tuple[Thing, ...] | None:
    """Blocks beside the ways of the things; None: no room."""
    out: list[Thing] = []
    ends = ends_of(scene, goals)
    for number in range(OBSTACLES):
        for _ in range(60):
            x, y = (float(rng.uniform(low, high)) for low, high in REACH)
            side, high = float(rng.uniform(0.03, 0.06)), float(rng.uniform(0.04, 0.10))
            one = Thing(name=f"obstacle_{number + 1}", kind="box", size_m=(side, side, high), place_m=(x, y))
            stands = [
                thing.model_copy(update={"place_m": tuple(ends[thing.name])})
                for thing in scene.things
                if thing.name in ends
            ]
            if all(box_distance(one, other) >= CLEAR_M for other in (*scene.things, *stands, *out)):
                out.append(one)
                break
        else:
            return None
    return tuple(out)
