"""What a skill asks a robot to do with the things of a scene: handlings, and the paths on which things shall go."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from handloom.errors import ConfigError
from handloom.sim.tabletop.grips import fingertips, sampled_hands
from handloom.sim.tabletop.scene import Scene
from handloom.skills.adapt import adapt, path_samples
from handloom.skills.bounds import path_for
from handloom.skills.carrying import carryings
from handloom.skills.execution import GRASPING, SCENE, Execution, Step
from handloom.skills.order import align
from handloom.skills.reader import RuleReader
from handloom.skills.skill import Constraint, PathBounds, Region, Skill, without_geometry

Floats = NDArray[np.float64]

Mode = Literal["hierarchical", "geometric", "semantic", "replay"]
MODES: tuple[Mode, ...] = get_args(Mode)

FLAT_M, FAR_M = 0.02, 0.04
"""A thing slides where it never rises by more than the first, and goes farther than the second."""
LIFT_M, MOVE_M = 0.10, 0.10
"""How far a thing goes where words are all that is known."""
ABOVE_M = 0.02
SETS_DOWN = frozenset({"lower", "move", "carry", ""})
"""Last actions after which a thing stands on something."""
TO_AND_FRO = frozenset({"move to and fro", "turn and back", "wipe with"})
OTHER_TASKS = frozenset({"open", "close", "shut", "pour", "drawer", "door"})
"""Words of tasks in which a thing is bound to another one, or what is in it shall go elsewhere."""


@dataclass(frozen=True)
class Leg:
    """One movement of a thing. master: the thing in whose frame places are, or `scene`: from where it stood when the
    leg began. bounds, box, master_box: None where geometry is not known."""

    action: str
    master: str
    bounds: PathBounds | None
    words: str


@dataclass(frozen=True)
class Handling:
    """All that is done with one thing from taking it to letting go.

    regions: of grasps, the largest first; empty: unknown. slides: it never leaves what it stands on. pushes: it slides,
    and the hand was behind it. sets_down: it stands on something in the end, and is let down until it does.
    """

    thing: str
    regions: tuple[Region, ...]
    legs: tuple[Leg, ...]
    slides: bool
    pushes: bool
    sets_down: bool

    @property
    def master(self) -> str:
        return self.legs[-1].master


def handlings_of(skill: Skill, mode: Mode) -> tuple[Handling, ...]:
    """The handlings in order, with what a mode knows.

    `hierarchical`: all. `geometric`: grasps and paths, each from where the thing stood; neither actions nor what a
    movement is relative to. `semantic`: actions, things and their order, without grasps and paths. `replay`: one
    demonstration (`replay_of`), as it was.

    Raises ConfigError: no step of the skill moves a thing.
    """
    out = []
    wholes = dict(enumerate(skill.carried))
    for number, one in enumerate(carryings(skill.steps)):
        its = list(skill.constraints[one.first : one.last + 1])
        if number in wholes and mode != "semantic":
            its = [wholes[number]]
        grasp = None if one.grasp is None else skill.constraints[one.grasp]
        out.append(_handling(grasp, its, mode))
    if not out:
        raise ConfigError(
            f"skill {skill.name!r} has no step that moves a thing: {skill.words or 'no step'}",
            "learn it from clips in which a thing is moved; `handloom skill show` lists the steps of a skill",
        )
    return tuple(out)


def not_executed(skill: Skill) -> str:
    """A sentence about what a skill names and the arm does not do as such; empty where nothing is known of."""
    steps = {one.words: None for one in skill.steps if one.action in TO_AND_FRO}
    words = {one.removesuffix("s") for one in re.findall(r"[a-z]+", skill.task.lower())} & OTHER_TASKS
    if not steps and not words:
        return ""
    told = ", ".join(repr(one) for one in (*steps, *sorted(words)))
    return (
        f"{skill.name}: {told} is not executed as such: the arm takes a thing, moves it along one path and lets it go"
    )


def _handling(grasp: Constraint | None, its: Sequence[Constraint], mode: Mode) -> Handling:
    thing = its[0].step.slave
    regions = () if grasp is None or mode == "semantic" else grasp.regions
    legs = tuple(_leg(one, mode) for one in its)
    box = next((one.box for one in (*its, *([grasp] if grasp else [])) if one.box is not None), None)
    sets_down = mode in ("hierarchical", "semantic") and its[-1].step.action in SETS_DOWN
    way = _slide(legs)
    return Handling(thing, regions, legs, way is not None, _is_behind(regions, way, box), sets_down)


def _leg(one: Constraint, mode: Mode) -> Leg:
    step = one.step
    if mode == "semantic":
        return Leg(step.action, step.master, None, step.words)
    path = one.path if one.path is None else _fitted(one.path, one)
    if mode != "geometric" or path is None or step.master == SCENE:
        return Leg("" if mode == "geometric" else step.action, step.master, path, step.words)
    from_start = np.zeros_like(path.low)
    from_start[:, :3] = 0.5 * (path.low + path.high)[:1, :3]
    return Leg("", SCENE, PathBounds(path.low - from_start, path.high - from_start, np.zeros(3), np.zeros(3)), "")


def _fitted(path: PathBounds, one: Constraint) -> PathBounds:
    """The bounds for the boxes of the constraint, which no longer depend on boxes."""
    low, high = path_for(path, one.box, one.master_box)
    return PathBounds(low, high, np.zeros(3), np.zeros(3))


def _slide(legs: Sequence[Leg]) -> Floats | None:
    """(3,) how far a thing slides in all; None: it does not, or it is not known."""
    way = np.zeros(3)
    for leg in legs:
        if leg.bounds is None or leg.master != SCENE:
            return None
        middle = 0.5 * (leg.bounds.low + leg.bounds.high)[:, :3]
        if np.abs(middle[:, 2] + way[2]).max() > FLAT_M:
            return None
        way = way + middle[-1]
    return way if np.linalg.norm(way[:2]) >= FAR_M else None


def _is_behind(regions: Sequence[Region], way: Floats | None, box: Floats | None) -> bool:
    """Whether the fingertips were behind a thing that slides."""
    if way is None or not regions or box is None:
        return False
    towards = np.array([*way[:2], 0.0]) / np.linalg.norm(way[:2])
    tips = fingertips(sampled_hands(regions[0], 1, np.random.default_rng(0))[0])
    half = float(np.abs(towards) @ (0.5 * (box[3:] - box[:3])))
    return float((tips - 0.5 * (box[3:] + box[:3])) @ towards) < -0.5 * half


def check_things(skill: Skill, scene: Scene, handlings: Sequence[Handling]) -> None:
    """Raise ConfigError if a thing that the skill moves, or that a movement is relative to, is not in the scene."""
    for one in handlings:
        for name, role in ((one.thing, "moves"), *((leg.master, "moves things relative to") for leg in one.legs)):
            if name != SCENE and scene.thing(name) is None:
                there = ", ".join(thing.name for thing in scene.things)
                raise ConfigError(
                    f"skill {skill.name!r} {role} {name} ({skill.words}), and the scene has no thing {name}",
                    f"the scene has {there}; name its things by the letters that `handloom skill show` prints",
                )


def adapted_to(skill: Skill, scene: Scene) -> Skill:
    """The skill with bounds for the sizes of the scene's things (`skills.adapt`)."""
    boxes = {one.name: one.box_m for one in scene.things}
    steps = []
    for step in skill.steps:
        thing = step.master if step.phase == GRASPING else step.slave
        steps.append(
            Step(step.phase, step.action, step.hand, step.master, step.slave, 0.0, 0.0, box=boxes.get(thing),
                 master_box=None if step.phase == GRASPING else boxes.get(step.master))
        )  # fmt: skip
    return adapt(skill, Execution("the scene", tuple(steps)), RuleReader()).skill


def replay_of(skill: Skill, executions: Sequence[Execution], scene: Scene) -> Skill:
    """The demonstration whose things are most like the scene's in size, as a skill without any freedom: its grasps and
    paths of the skill's steps. It is executed in the mode `replay`.

    Raises ConfigError: no demonstration has the grasp and the path of every step.
    """
    whole = [(one, steps) for one in executions if (steps := _shown_steps(skill, one))]
    if not whole:
        raise ConfigError(
            f"no clip of skill {skill.name!r} has a grasp and a path of each of its steps: nothing can be replayed",
            "`--mode hierarchical` needs each step in some of the clips only",
        )
    sizes = {one.name: one.box_m for one in scene.things}

    def apart(steps: Sequence[Step]) -> float:
        boxes = {step.master if step.phase == GRASPING else step.slave: step.box for step in steps}
        return sum(
            float(np.abs(sizes[name] - box).sum()) if box is not None else 1.0
            for name, box in boxes.items()
            if name in sizes
        )

    nearest, steps = min(whole, key=lambda pair: apart(pair[1]))
    constraints = tuple(_as_it_was(step) for step in steps)
    return replace(skill, constraints=constraints, clip_ids=(nearest.clip_id,), carried=())


def _shown_steps(skill: Skill, one: Execution) -> tuple[Step, ...]:
    """The skill's steps with the geometry of a demonstration; empty where one of them, or its geometry, is missing."""
    pairs = dict(align(skill.steps, one.steps)[1])
    out = []
    for number, step in enumerate(skill.steps):
        found = one.steps[pairs[number]] if number in pairs else None
        if found is None or (found.master == SCENE) != (step.master == SCENE):
            return ()
        if (found.grasp if step.phase == GRASPING else found.path) is None:
            return ()
        out.append(replace(step, grasp=found.grasp, path=found.path, box=found.box, master_box=found.master_box))
    return tuple(out)


def _as_it_was(step: Step) -> Constraint:
    regions = () if step.grasp is None else (Region(step.grasp, np.zeros(6), np.zeros(6), 1),)
    path = None if step.path is None else PathBounds(step.path, step.path, np.zeros(3), np.zeros(3))
    return Constraint(without_geometry(step), step.words, 1.0, regions, None, path, step.box, step.master_box)


def asked_path(leg: Leg, number: int) -> Floats:
    """(10, 6) the path of a leg: the middle of its bounds, then `skills.adapt`'s samples (number 1 to 4). Turns that
    the bounds do not ask for are left out."""
    bounds = leg.bounds
    if bounds is None:
        raise ValueError(f"no path of {leg.words!r} is known")
    path = 0.5 * (bounds.low + bounds.high) if number == 0 else path_samples(bounds, None, None)[number - 1]
    both = np.where((bounds.low <= 0) & (bounds.high >= 0), 0.0, path)
    return np.concatenate([path[:, :3] - (path[:1, :3] if leg.master == SCENE else 0.0), both[:, 3:]], axis=1)


def thing_path(
    handling: Handling,
    number: int,
    poses: Mapping[str, Floats],
    first: Mapping[str, Floats],
    tops: Mapping[str, float],
    rng: np.random.Generator,
) -> Floats:
    """(n, 4, 4) where a thing shall be, from where it is.

    Args:
        number: of the sampled path, 0 the middle. poses: (4, 4) scene_from_thing now; first: before anything was moved.
        tops: how high each thing is above its middle.
    """
    out = [poses[handling.thing]]
    for leg in handling.legs:
        begin = out[-1]
        if leg.bounds is None:
            out += _by_words(leg, begin, poses, tops, tops[handling.thing], rng)
            continue
        path = asked_path(leg, number)
        if leg.master == SCENE:
            places = begin[:3, 3] + path[:, :3]
        else:
            turned = poses[leg.master][:3, :3] @ first[leg.master][:3, :3].T
            places = poses[leg.master][:3, 3] + path[:, :3] @ turned.T
            places = places + np.linspace(1.0, 0.0, len(places))[:, None] * (begin[:3, 3] - places[0])
        for place, turn in zip(places[1:], path[1:, 3:], strict=True):
            pose = np.eye(4)
            pose[:3, :3], pose[:3, 3] = Rotation.from_rotvec(turn).as_matrix() @ begin[:3, :3], place
            out.append(pose)
    path_m = np.array(out)
    path_m[1:, 2, 3] = np.maximum(path_m[1:, 2, 3], tops[handling.thing])  # nothing is below the table
    return path_m


def _by_words(
    leg: Leg,
    begin: Floats,
    poses: Mapping[str, Floats],
    tops: Mapping[str, float],
    half: float,
    rng: np.random.Generator,
) -> list[Floats]:
    """A movement of which the words alone are known: up, onto its master, or anywhere on the table."""
    if leg.action == "lift":
        places = [begin[:3, 3] + [0.0, 0.0, LIFT_M]]
    else:
        if leg.master != SCENE:
            goal = poses[leg.master][:3, 3] + [0.0, 0.0, tops[leg.master] + half + ABOVE_M]
        else:
            angle = rng.uniform(0, 2 * np.pi)
            far = 0.0 if leg.action == "lower" else MOVE_M
            goal = np.array([*(begin[:2, 3] + far * np.array([np.cos(angle), np.sin(angle)])), half])
        high = max(begin[2, 3], goal[2]) + 0.05
        places = [np.array([*begin[:2, 3], high]), np.array([*goal[:2], high]), goal]
    out = []
    for place in places:
        pose = begin.copy()
        pose[:3, 3] = place
        out.append(pose)
    return out


def warped(path: Floats, now: Floats) -> Floats:
    """A path (n, 4, 4) that begins where the thing is now, and ends as before."""
    out = path.copy()
    share = np.linspace(1.0, 0.0, len(path))[:, None]
    out[:, :3, 3] += share * (now[:3, 3] - path[0, :3, 3])
    out[:, :3, :3] = np.array([turn @ path[0, :3, :3].T @ now[:3, :3] for turn in path[:, :3, :3]])
    return out
