"""One execution of a skill in a scene, with failure reasoning, and whether it succeeded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from handloom.sim.failures import DIVERGED, SHARED, WORKER_DIED
from handloom.sim.tabletop.arm import Arm
from handloom.sim.tabletop.film import picture
from handloom.sim.tabletop.handle import Robot, Tries, bumped, carry, push
from handloom.sim.tabletop.plans import Handling, Leg, Mode, adapted_to, check_things, handlings_of, thing_path, warped
from handloom.sim.tabletop.reasoning import Reasoner, Rules, Trouble, apply
from handloom.sim.tabletop.scene import START, Goal, Scene
from handloom.sim.tabletop.simulation import Failed, Simulation
from handloom.skills.adapt import NUM_PATHS
from handloom.skills.execution import SCENE
from handloom.skills.skill import Skill

Floats = NDArray[np.float64]

ROUNDS = 2
"""Of failure reasoning (VLMimic, section 4.4)."""
REST_S = 0.6
UPRIGHT = 0.8
"""The cosine of how far a thing may lean in the end; balls have no side that is up."""
FAILURES = {
    "unreachable_grasp": "no grasp of the region can be reached without a collision",
    "no_path": "the arm, or the thing in its hand, cannot go the path",
    "missed": "the gripper closed beside the thing",
    "slipped": "the thing moved in the hand, or fell out of it",
    "misplaced": "the thing came to rest elsewhere than the skill asks for",
    "collision": "a thing that was not to be touched was moved by more than 3 cm",
    "off_goal": "all that the skill asks for was done, and the thing is not where the scene wants it",
    **{name: SHARED[name] for name in (DIVERGED, WORKER_DIED)},
}
"""Why an attempt, or an episode, failed."""


@dataclass(frozen=True)
class Attempt:
    """One try at one handling. reason: a key of `FAILURES`, empty after a success. remedies: what was changed for the
    next one."""

    thing: str
    round: int
    reason: str
    detail: str
    remedies: tuple[str, ...] = ()


@dataclass(frozen=True)
class Episode:
    """What came of one execution.

    success: all goals of the scene are met. constraints_met: each thing ended within the skill's own bounds; None where
    the mode knows none. failure: that of the handling that ended it, or `off_goal`; empty after a success.
    error_m: how far the things of the goals are from them, the farthest. states: (F, nq) to draw it.
    """

    success: bool
    constraints_met: bool | None
    failure: str
    detail: str
    attempts: tuple[Attempt, ...]
    error_m: float
    seconds: float
    states: NDArray[np.float32]


def run_episode(
    skill: Skill, scene: Scene, seed: int, mode: Mode = "hierarchical", rounds: int = ROUNDS, weld: bool = False,
    error_m: float = 0.0, reasoner: Reasoner | None = None, gl: str = "",
) -> Episode:  # fmt: skip
    """Execute a skill once. The same seed gives the same episode.

    Args:
        rounds: of failure reasoning for each thing. weld: a held thing is fixed to the hand in place of friction.
        error_m: see `Simulation`. reasoner: None: rules. gl: what `sim.rendering.backend` gave, for a reasoner that
            looks at pictures.

    Raises:
        ConfigError: no step of the skill moves a thing, or the scene lacks one.
        ModuleNotFoundError: the simulator or the robot's description is not installed.
    """
    check_things(skill, scene, handlings_of(skill, mode))
    fitted = adapted_to(skill, scene) if mode == "hierarchical" else skill
    handlings = handlings_of(fitted, mode)
    sim = Simulation(scene, weld, error_m, seed)
    mind = _Mind(reasoner or Rules(), skill.words, gl)
    robot = Robot(sim, Arm(sim.model, scene), np.random.default_rng(seed))
    first = sim.poses()
    attempts: list[Attempt] = []
    met: list[bool] = []
    failure, detail = "", ""
    rests = False
    try:
        for one in handlings:
            found = _handle(robot, one, first, rounds, attempts, met, mind)
            failure, detail = (failure, detail) if failure else found
        sim.wait(REST_S)
        rests = sim.rested([one.thing for one in scene.goals])
    except Failed as failed:  # it diverged, or the arm is where it cannot move on
        failure, detail = failed.reason, failed.detail
    errors = [error_of(goal, sim, first) for goal in scene.goals]
    success = rests and all(ok for ok, _ in errors) and bool(errors)
    if success:
        failure, detail = "", ""
    elif not failure:
        failure, detail = "off_goal", _off_goal(scene, sim, errors, rests)
    farthest = max((far for _, far in errors), default=float("nan"))
    known = None if mode == "semantic" else len(met) == len(handlings) and all(met)
    return Episode(
        success, known, failure, detail, tuple(attempts), farthest, sim.seconds, np.array(sim.frames, np.float32)
    )


def _off_goal(scene: Scene, sim: Simulation, errors: Sequence[tuple[bool, float]], rests: bool) -> str:
    if not errors:
        return "the scene has no goal"
    told = []
    for goal, (ok, far) in zip(scene.goals, errors, strict=True):
        how = "upright" if sim.pose(goal.thing)[2, 2] > UPRIGHT else "lying"
        told += [] if ok else [f"{goal.thing} is {100 * far:.1f} cm from its goal, {how}"]
    return ", ".join(told) or ("a thing still moves" if not rests else "")


@dataclass(frozen=True)
class _Mind:
    """Who reasons about failures, about what, and with what pictures are drawn."""

    reasoner: Reasoner
    words: str
    gl: str

    def changed(self, failed: Failed, number: int, handling: Handling, robot: Robot, tries: Tries) -> tuple[str, ...]:
        """The remedies for a failure, which are applied."""
        thing = robot.sim.scene.thing(handling.thing)
        if thing is None:
            raise ValueError(f"no thing {handling.thing} in the scene")
        trouble = Trouble(
            self.words, thing, number, failed.reason, FAILURES[failed.reason], failed.detail, handling.slides,
            handling.sets_down and handling.master == SCENE, tries.remedies, lambda: picture(robot.sim, self.gl),
        )  # fmt: skip
        found = self.reasoner.advise(trouble)
        apply(found, tries, failed.reason)
        tries.remedies += found
        return found


def _handle(
    robot: Robot, handling: Handling, first: dict[str, Floats], rounds: int, attempts: list[Attempt], met: list[bool],
    mind: _Mind,
) -> tuple[str, str]:  # fmt: skip
    """Try a handling, up to `rounds` times more; the last failure, or two empty strings."""
    sim, tries = robot.sim, Tries()
    tops = {name: 0.5 * one.size_m[2] for name in first if (one := sim.scene.thing(name)) is not None}
    sim.look()
    before, seen = sim.poses(), sim.seen_poses()
    numbers = range(NUM_PATHS + 1) if any(_has_freedom(leg) for leg in handling.legs) else range(1)
    paths = [thing_path(handling, number, seen, first, tops, robot.rng) for number in numbers]
    failed: Failed | None = None
    for number in range(rounds + 1):
        now = sim.seen(handling.thing)
        ways = paths if number == 0 else [warped(path, now) for path in paths]
        failed = None
        try:
            if handling.pushes or tries.pushes:
                push(robot, handling, ways[0], tries)
            else:
                carry(robot, handling, ways, tries)
            sim.wait(0.3)
            sim.look()
            _check(robot.sim, handling, before, paths[0])
        except Failed as error:
            failed = error
        if failed is None:
            attempts.append(Attempt(handling.thing, number, "", ""))
            met.append(True)
            return "", ""
        is_over = number == rounds or failed.reason == DIVERGED
        remedies = () if is_over else mind.changed(failed, number, handling, robot, tries)
        attempts.append(Attempt(handling.thing, number, failed.reason, failed.detail, remedies))
        if failed.reason == DIVERGED:
            raise failed  # it is among the attempts
    met.append(False)
    return (failed.reason, failed.detail) if failed else ("", "")


def _has_freedom(leg: Leg) -> bool:
    return leg.bounds is not None and bool(np.any(leg.bounds.low < leg.bounds.high))


def _check(sim: Simulation, handling: Handling, before: dict[str, Floats], path: Floats) -> None:
    """Raise Failed where the skill's own constraints say that a thing is not where it should be, or another was hit."""
    if (hit := bumped(sim, before, [handling.thing])) is not None:
        raise Failed("collision", f"{hit} was moved")
    bounds = handling.legs[-1].bounds if _has_freedom(handling.legs[-1]) else None
    place, wanted = sim.seen(handling.thing)[:3, 3], path[-1, :3, 3]
    if bounds is None:
        far, most = float(np.linalg.norm((place - wanted)[:2])), 0.05
    else:
        half = 0.5 * (bounds.high - bounds.low)[-1, :3]
        share = np.abs(place - wanted)[: 2 if handling.sets_down else 3] / half[: 2 if handling.sets_down else 3]
        far, most = float(share.max()), 1.0
    if far > most:
        off = place - wanted
        told = ", ".join(f"{100 * value:+.0f}" for value in off)
        raise Failed("misplaced", f"{handling.thing} is ({told}) cm from the middle of where the skill puts it")


def error_of(goal: Goal, sim: Simulation, first: dict[str, Floats]) -> tuple[bool, float]:
    """Whether a thing is where the scene wants it, and stands; and how far it is from there, metres, horizontally."""
    base = first[goal.thing] if goal.beside == START else sim.pose(goal.beside)
    wanted = base[:3, 3] + np.array(goal.place_m)
    thing = sim.scene.thing(goal.thing)
    off = sim.pose(goal.thing)[:3, 3] - wanted
    far = float(np.linalg.norm(off[:2]))
    most_up = goal.tolerance_m if thing is None else max(0.5 * thing.size_m[2], 0.02)
    any_way = not goal.upright or (thing is not None and thing.kind == "ball")
    upright = any_way or sim.pose(goal.thing)[2, 2] > UPRIGHT
    ok = far <= goal.tolerance_m and abs(off[2]) <= most_up and upright
    return bool(ok), far
