"""One attempt to handle a thing: choose a grasp and a path, take it, move it, let it go. Or push it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from handloom.sim.tabletop.arm import STRAY_RAD, Arm, Held, grip_poses
from handloom.sim.tabletop.grips import ABOVE_TABLE_M, Block, Grip, converted, fingertips, from_above, sampled_hands
from handloom.sim.tabletop.model import OPEN_M
from handloom.sim.tabletop.plans import Handling
from handloom.sim.tabletop.simulation import BUMPED_M, Failed, Simulation

Floats = NDArray[np.float64]

NUM_HANDS, MOST_GRIPS = 12, 5
"""Hands that are sampled in each region, and reachable grips whose paths are compared."""
BACK_M, UP_M = 0.09, 0.06
ABOVE_AT = 0.6
"""Share of a path after which `over` goes straight down."""
ENOUGH, GOOD = 0.7, 0.85
"""A path of which a smaller share can be gone is none; a middle path of which more can be gone is taken."""
SLIPPED_M = 0.04
TIP_M = 0.022
"""How high above the table the middle of the fingers is at least: their tips are 1.5 cm below."""
PUSH_DEG = (0.0, 35.0, -35.0, 90.0)
BEHIND_M = 0.011
"""From the middle of the fingers to a pushed thing: a finger's half depth."""
ASIDE_M, DROP_M = 0.02, 0.08
"""A thing may be let go beside and above the place where its path ends, by so much."""
LET_GO_M = 0.01
DOWN_M = 0.05
"""How far a thing is let down at most, to find what it stands on."""


@dataclass(frozen=True)
class Way:
    """A grip and what it leads to. postures: of the path's places, None where there is none. feasible: their share."""

    grip: Grip
    before: Floats
    at: Floats
    path: Floats
    postures: tuple[Floats | None, ...]
    feasible: float


@dataclass
class Tries:
    """What is changed from one attempt to the next. tilts_rad: by which the gripper's way is turned down. higher_m: how
    much higher things are carried. lower_m: how much nearer the table they are held. pushes: it is pushed from now on.
    any_side: at last it is also taken from above, across any side. spent: grips that failed. remedies: all that were
    applied."""

    tilts_rad: tuple[float, ...] = (0.0,)
    higher_m: float = 0.0
    lower_m: float = 0.0
    pushes: bool = False
    any_side: bool = False
    spent: list[Floats] = field(default_factory=list)
    remedies: tuple[str, ...] = ()


@dataclass
class Robot:
    """What attempts need: the simulation, the arm's kinematics, and random numbers."""

    sim: Simulation
    arm: Arm
    rng: np.random.Generator

    def see(self) -> None:
        self.arm.see(self.sim.seen_qpos())

    def go(self, target: Floats, touchable: Sequence[str], what: str) -> None:
        """Move to a posture without collisions. Raises Failed: there is no way."""
        self.see()
        way = self.arm.connect(self.sim.target, target, self.rng, touchable)
        if way is None:
            raise Failed("no_path", f"no way for the arm {what}")
        self.sim.follow(way[1:])


def block_of(sim: Simulation, name: str) -> Block:
    """A thing as its box; one that has fallen over as the upright box around it."""
    thing = sim.scene.thing(name)
    if thing is None:
        raise ValueError(f"no thing {name} in the scene")
    pose, half = sim.seen(name), 0.5 * np.array(thing.size_m)
    if abs(pose[2, 2]) > 0.95:
        return Block(pose, half, thing.kind)
    level = np.eye(4)
    level[:3, 3] = pose[:3, 3]
    if thing.kind == "ball":
        return Block(level, half, thing.kind)
    axis = int(np.argmin(np.abs(pose[2, :3])))
    heading = np.arctan2(pose[1, axis], pose[0, axis])
    level[:2, :2] = [[np.cos(heading), -np.sin(heading)], [np.sin(heading), np.cos(heading)]]
    return Block(level, np.abs(level[:3, :3].T @ pose[:3, :3]) @ half, "box")


def grips_for(handling: Handling, block: Block, tries: Tries, rng: np.random.Generator) -> list[Grip]:
    """Grips in the order in which they are looked at: tilts in their order, regions by their number of grasps."""
    out = []
    above = []
    if not handling.regions or tries.any_side:
        above = [from_above(block, float(yaw)) for yaw in rng.uniform(0, np.pi, NUM_HANDS)]
    for tilt in tries.tilts_rad:
        for region in handling.regions:
            num = NUM_HANDS if np.any(region.low < region.high) else 1
            for hand in sampled_hands(region, num, rng):
                in_scene = hand.copy()
                in_scene[:3, 3] += block.pose[:3, 3]  # a thing's axes are the scene's, wherever it is turned to
                out.append(converted(in_scene, block, tilt))
    out += above
    for one in out:
        one.pose[2, 3] = max(one.pose[2, 3] - tries.lower_m, ABOVE_TABLE_M)
    return out


def choose(robot: Robot, handling: Handling, paths: Sequence[Floats], tries: Tries) -> Way:
    """The grip and path of which most can be done; the first of equals. Raises Failed: no grip can be reached.

    The middle path, `paths[0]` and its variant, is asked of all grips before the others are.
    """
    grips, why = reachable(robot, handling, tries)
    thing = robot.sim.seen(handling.thing)
    best: Way | None = None
    for group in (paths[:2], paths[2:]):
        for grip, before, at in grips:
            in_grip = np.linalg.inv(grip.pose) @ thing
            for path in group:
                postures, feasible = postures_of(robot, handling, path, in_grip, at)
                if best is None or feasible > best.feasible + 1e-9:
                    best = Way(grip, before, at, path, tuple(postures), feasible)
                if feasible == 1.0:
                    return best
        if best is not None and best.feasible >= GOOD:
            return best
    if best is None:
        raise Failed("unreachable_grasp", f"none of the grasps of {handling.thing} can be done: {why}")
    if best.feasible < ENOUGH:
        raise Failed("no_path", f"only {best.feasible:.0%} of the path of {handling.thing} can be gone")
    return best


def reachable(robot: Robot, handling: Handling, tries: Tries) -> tuple[list[tuple[Grip, Floats, Floats]], str]:
    """The first grips that can be reached without a collision, with postures before and at them; and why others
    cannot."""
    sim, arm = robot.sim, robot.arm
    robot.see()
    arm.open_fingers()
    why = {"too wide": 0, "out of reach": 0, "in collision": 0}
    out: list[tuple[Grip, Floats, Floats]] = []
    for grip in grips_for(handling, block_of(sim, handling.thing), tries, robot.rng):
        if any(np.abs(grip.pose - one).max() < 0.02 for one in tries.spent):
            continue
        if not grip.fits:
            why["too wide"] += 1
            continue
        before = arm.reach(_shifted(grip.pose, -BACK_M * grip.pose[:3, 2]), sim.target)
        at = None if before is None else arm.reach(grip.pose, before)
        if before is None or at is None or np.abs(at - before).max() > STRAY_RAD:
            why["out of reach"] += 1
        elif arm.hits(before) or not arm.is_free(before, at, (handling.thing,)):
            why["in collision"] += 1
        else:
            out.append((grip, before, at))
            if len(out) == MOST_GRIPS:
                break
    return out, ", ".join(f"{count} {words}" for words, count in why.items() if count) or "all were tried before"


def postures_of(
    robot: Robot, handling: Handling, path: Floats, in_grip: Floats, start: Floats
) -> tuple[list[Floats | None], float]:
    """Postures along a path (n, 4, 4) of a held thing, and the share of its places that can be gone."""
    arm = robot.arm
    robot.see()
    held = Held(handling.thing, in_grip, frozenset({"table"}))
    out: list[Floats | None] = []
    q = start
    for pose in path[1:]:
        found = arm.reach(pose @ np.linalg.inv(in_grip), q)
        if found is not None and (np.abs(found - q).max() > STRAY_RAD or not arm.is_free(q, found, (), held)):
            found = None
        out.append(found)
        q = q if found is None else found
    last = max((number for number, one in enumerate(out) if one is not None), default=-1)
    num = sum(one is not None for one in out)
    if _falls_there(path[last + 1], path[-1]):
        return out, max(num / max(len(out), 1), ENOUGH * num / max(last + 1, 1))
    return out, min(num / max(len(out), 1), ENOUGH - 0.01)


def _falls_there(pose: Floats, end: Floats) -> bool:
    """Whether a thing that is let go at a pose comes to the end of its path, from a little above it."""
    off = pose[:3, 3] - end[:3, 3]
    return bool(np.linalg.norm(off[:2]) < ASIDE_M and off[2] < DROP_M)


def over(path: Floats) -> Floats:
    """The same path, but high until it is above its end, and then straight down: over the sides of what it ends in."""
    out = path.copy()
    share = np.linspace(0.0, 1.0, len(path))
    early = np.clip(share / ABOVE_AT, 0.0, 1.0)
    for axis in range(2):
        out[:, axis, 3] = np.interp(early, share, path[:, axis, 3])
    top, end = float(path[:, 2, 3].max()), float(path[-1, 2, 3])
    down = np.clip((share - ABOVE_AT) / (1.0 - ABOVE_AT), 0.0, 1.0)
    peak = int(np.argmax(path[:, 2, 3]))
    out[peak:, 2, 3] = (top + (end - top) * down)[peak:]
    return out


def raised(path: Floats, by_m: float) -> Floats:
    """A path of which the middle is higher, as a half sine."""
    out = path.copy()
    out[:, 2, 3] += by_m * np.sin(np.linspace(0.0, np.pi, len(path)))
    return out


def _variants(path: Floats, higher_m: float) -> tuple[Floats, Floats]:
    return raised(path, higher_m), over(raised(path, higher_m + 0.03))


def carry(robot: Robot, handling: Handling, paths: Sequence[Floats], tries: Tries) -> None:
    """Take a thing, move it along the best path, and let it go. Raises Failed."""
    sim, name = robot.sim, handling.thing
    way = choose(robot, handling, [one for path in paths for one in _variants(path, tries.higher_m)], tries)
    tries.spent.append(way.grip.pose)
    sim.fingers(OPEN_M, 0.1)
    robot.go(way.before, (), f"to {name}")
    sim.follow([way.before + share * (way.at - way.before) for share in (0.5, 1.0)], 0.5)
    sim.fingers(0.0)
    if not sim.is_held(name):
        sim.fingers(OPEN_M)
        _withdraw(robot)
        raise Failed("missed", f"the gripper closed, and {name} was not between its fingers")
    sim.fix(name, True)
    in_grip = np.linalg.inv(sim.grip()) @ sim.seen(name)
    taken = np.linalg.inv(sim.grip()) @ sim.pose(name)
    postures, share = postures_of(robot, handling, way.path, in_grip, way.at)
    if share < ENOUGH:
        _let_go(robot, name)
        raise Failed("no_path", f"only {share:.0%} of the path of {name} can be gone as it lies in the hand")

    def watch() -> None:
        now = np.linalg.inv(sim.grip()) @ sim.pose(name)
        if np.linalg.norm(now[:3, 3] - taken[:3, 3]) > SLIPPED_M:
            raise Failed(
                "slipped", f"{name} moved by {100 * np.linalg.norm(now[:3, 3] - taken[:3, 3]):.0f} cm in the hand"
            )

    try:
        sim.follow([one for one in postures if one is not None], 0.6, watch)
    except Failed as failed:
        if failed.reason == "slipped":
            _let_go(robot, name)
        raise
    if handling.sets_down:
        _set_down(robot, name)
    _let_go(robot, name)


def _set_down(robot: Robot, name: str) -> None:
    """Lower the hand until the thing in it touches something, or the hand would."""
    sim, pose = robot.sim, robot.sim.grip()
    held = Held(name, np.linalg.inv(pose) @ sim.seen(name), frozenset({"table", *sim.poses()}))
    robot.see()
    q, down = sim.target, []
    for _ in range(5):
        pose = pose.copy()
        pose[2, 3] -= DOWN_M / 5
        found = robot.arm.reach(pose, q)
        if found is None or robot.arm.hits(found, (), held) is not None:
            break
        down.append(found)
        q = found
    sim.follow(down, 0.25, until=lambda: sim.stands(name))


def _let_go(robot: Robot, name: str) -> None:
    """The fingers open by a little, as there may be walls beside them, and the hand goes back."""
    sim = robot.sim
    sim.fix(name, False)
    sim.fingers(sim.half_width() + LET_GO_M, 0.3)
    _withdraw(robot)


def _withdraw(robot: Robot) -> None:
    """Back along the gripper's way as far as can be, or straight up; then up."""
    sim, pose = robot.sim, robot.sim.grip()
    for back_m, up_m in ((BACK_M, 0.0), (0.5 * BACK_M, 0.0), (0.0, UP_M)):
        if _go_to(robot, _shifted(pose, np.array([0.0, 0.0, up_m]) - back_m * pose[:3, 2])):
            break
    _go_to(robot, _shifted(sim.grip(), np.array([0.0, 0.0, UP_M])))


def _go_to(robot: Robot, pose: Floats) -> bool:
    found = robot.arm.reach(pose, robot.sim.target)
    if found is None or np.abs(found - robot.sim.target).max() > STRAY_RAD:
        return False
    robot.sim.follow([found], 0.8)
    return True


def push(robot: Robot, handling: Handling, path: Floats, tries: Tries) -> None:
    """Push a thing along the level part of a path, with the fingers behind it. Raises Failed.

    The fingers are side by side and open, so that it does not turn; where the hand has no room so, in another way.
    """
    sim, name = robot.sim, handling.thing
    way = path[-1, :2, 3] - sim.seen(name)[:2, 3]
    length = float(np.linalg.norm(way))
    if length < 0.005:
        return
    towards = np.array([*way / length, 0.0])
    tips = fingertips(sampled_hands(handling.regions[0], 1, robot.rng)[0]) if handling.regions else np.zeros(3)
    first: Failed | None = None
    for turned_deg in PUSH_DEG:
        try:
            half_open, postures = _push_postures(robot, name, towards, length, tips[2] - tries.lower_m, turned_deg)
            break
        except Failed as failed:
            first = first or failed
    else:
        raise first or Failed("no_path", f"no way to push {name}")
    sim.fingers(half_open, 0.3)
    robot.go(postures[0], (), f"behind {name}")
    sim.follow([postures[1]], 0.5)
    sim.follow(postures[2:], 0.3)
    pose = sim.grip()
    back = robot.arm.reach(_shifted(pose, -0.03 * towards), sim.target)
    up = robot.arm.reach(
        _shifted(pose, np.array([0.0, 0.0, 0.12]) - 0.03 * towards), sim.target if back is None else back
    )
    sim.follow([one for one in (back, up) if one is not None], 0.6)


def _push_postures(
    robot: Robot, name: str, towards: Floats, length: float, tips_m: float, turned_deg: float
) -> tuple[float, list[Floats]]:
    """How far the fingers are open, and postures: above and behind a thing, behind it, and along the way. turned_deg:
    of the hand, from fingers side by side. Raises Failed: one is out of reach, or collides."""
    sim, arm = robot.sim, robot.arm
    block, thing = block_of(sim, name), sim.seen(name)
    angle = np.radians(turned_deg)
    across = np.array([-towards[1], towards[0], 0.0])
    across = np.cos(angle) * across + np.sin(angle) * towards
    across = -across if across[0] > 0 else across
    top = 0.5 * block.width(np.array([0.0, 0.0, 1.0]))
    low = TIP_M - top
    high = float(np.clip(tips_m, low, max(-0.5 * top, low))) + thing[2, 3]
    half_open = 0.0 if turned_deg else float(np.clip(0.3 * block.width(across), 0.0, OPEN_M))
    half = 0.5 * block.width(towards)  # two fingers come nearer to the middle of a round thing
    behind = BEHIND_M + (float(np.sqrt(max(half**2 - half_open**2, 0.0))) if block.is_round else half)
    turn = np.stack([across, np.cross([0.0, 0.0, -1.0], across), [0.0, 0.0, -1.0]], axis=1)
    begin = np.array([*(thing[:3, 3] - towards * (behind + 0.03))[:2], high])
    above = begin + np.array([0.0, 0.0, 0.12])
    places = [above, begin, *(begin + towards * at for at in np.linspace(0.05, length + 0.03, 8))]
    robot.see()
    arm.open_fingers(half_open)
    q = sim.target
    postures: list[Floats] = []
    for pose in grip_poses(places, turn):
        found = arm.reach(pose, q)
        reason = "unreachable_grasp" if len(postures) < 2 else "no_path"
        if found is None or (postures and np.abs(found - q).max() > STRAY_RAD):
            raise Failed(reason, f"the arm does not come to {np.round(pose[:3, 3], 2).tolist()} m, to push {name}")
        if (hit := arm.hits(found, (name,))) is not None:
            raise Failed(reason, f"{' and '.join(hit)} would collide where {name} is pushed")
        postures.append(found)
        q = found
    return half_open, postures


def _shifted(pose: Floats, by: Floats) -> Floats:
    out = pose.copy()
    out[:3, 3] += by
    return out


def bumped(sim: Simulation, before: dict[str, Floats], handled: Sequence[str]) -> str | None:
    """The first thing that was not handled and moved farther than `BUMPED_M`."""
    for name, pose in before.items():
        if name not in handled and np.linalg.norm(sim.pose(name)[:3, 3] - pose[:3, 3]) > BUMPED_M:
            return name
    return None
