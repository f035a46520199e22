"""The atomic actions: each moves one hand, from wherever it is, between two times.

Places are in the acting hand's own frame (see `timeline`): x to the acting hand's side, y away from the person, z up.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from handloom.synth.objects import CABINET_HALF_M, HANDLE_M
from handloom.synth.script.poses import POSES
from handloom.synth.script.timeline import Actor, Channel, Contact, Thing

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Grasp:
    """A way to take a thing. offset_m: the grip point in the hand's frame. Angles in degrees."""

    offset_m: tuple[float, float, float]
    pronation: float
    extension: float
    opened: str
    closed: str


GRASPS: dict[str, Grasp] = {
    "power": Grasp((0.0, 0.085, -0.045), 42.0, 2.0, "preshape", "grasp"),
    "pinch": Grasp((-0.021, 0.102, -0.078), 20.0, -14.0, "preshape", "pinch"),
    "claw": Grasp((-0.006, 0.125, -0.052), 12.0, -8.0, "spread", "claw"),
    "hook": Grasp((0.004, 0.118, -0.050), 4.0, 6.0, "preshape", "hook"),
}
KNUCKLES_M = (0.0, 0.09, -0.016)  # under a flat hand
FINGERTIPS_M = (0.0, 0.165, -0.016)


@dataclass
class Play:
    """The moves of a clip as they are written. length_s: of the clip. habit: (5, 4) radians that this person adds to
    usual finger poses."""

    rng: np.random.Generator
    length_s: float
    main: Actor
    helper: Actor
    things: list[Thing]
    habit: Array

    def posed(self, name: str) -> Array:
        """A finger pose with this person's habit."""
        return POSES[name] + self.habit * (0.4 if name in ("flat", "relaxed") else 1.0)


def xyz(x: float, y: float, z: float) -> Array:
    """(3,) a place or a displacement, metres."""
    return np.array([x, y, z])


def _at(start_s: float, end_s: float, share: float) -> float:
    return start_s + share * (end_s - start_s)


def grip_point(thing: Thing, hold: str) -> Array:
    """Where a hand takes a thing, in the scene's frame, at the thing's place after the moves written so far."""
    half = thing.shape.half_m
    if hold == "hook":
        return thing.place_m + np.array(HANDLE_M)
    height = {"power": 0.35, "claw": 1.0}.get(hold, 1.0) * half[2] - (0.012 if hold == "pinch" else 0.0)
    rim = np.array([0.0, -0.86 * half[1], 0.0]) if thing.noun == "bowl" else np.zeros(3)
    return thing.place_m + rim + [0.0, 0.0, max(height, 0.006)]


def approach(play: Play, actor: Actor, thing: Thing, hold: str, start_s: float, end_s: float) -> None:
    """The hand comes to a thing and closes on it; no move where it has it already."""
    if actor.touching is thing or actor.holding is thing:
        return
    grasp, rng = GRASPS[hold], play.rng
    arrive = _at(start_s, end_s, 0.78)
    actor.grip.to(start_s, arrive, actor.own(grip_point(thing, hold)))
    actor.grip.bump(start_s, arrive, [0.0, -0.01, rng.uniform(0.045, 0.07)])
    offset = np.array(grasp.offset_m)
    if hold == "power":  # the thing's side touches the palm
        offset[2] = -0.016 - min(thing.shape.half_m[:2])
    actor.offset.to(start_s, arrive, offset)
    upright = 24.0 if hold == "power" and thing.shape.half_m[2] > 0.042 else 0.0  # the palm beside it, not over it
    turn = [grasp.pronation + upright + rng.uniform(-7, 7), grasp.extension + rng.uniform(-4, 4), rng.uniform(-6, 6)]
    actor.turn.to(start_s, arrive, np.radians(turn))
    actor.level.to(start_s, arrive, 1.0)
    opened = "spread" if rng.random() < 0.25 else grasp.opened
    actor.fingers.to(start_s, _at(start_s, end_s, 0.5), play.posed(opened))
    actor.fingers.to(_at(start_s, end_s, 0.62), end_s, closing(play, thing, grasp))
    actor.touching = thing


def closing(play: Play, thing: Thing, grasp: Grasp) -> Array:
    """(5, 4) fingers closed on a thing: more open on wider things."""
    width = np.clip((min(thing.shape.half_m[:2]) - 0.028) / 0.03, 0.0, 0.8) if grasp.closed == "grasp" else 0.0
    return (1 - width) * play.posed(grasp.closed) + width * play.posed(grasp.opened)


def release(play: Play, actor: Actor, start_s: float, end_s: float) -> None:
    """The fingers open and the hand draws back a little."""
    away = actor.grip.last + xyz(play.rng.uniform(0.03, 0.06), -0.06, 0.05)
    actor.fingers.to(start_s, _at(start_s, end_s, 0.6), play.posed("preshape"))
    actor.fingers.to(_at(start_s, end_s, 0.6), end_s, play.posed("relaxed"))
    actor.grip.to(_at(start_s, end_s, 0.35), end_s, away)
    actor.holding = actor.touching = None


def reach(play: Play, actor: Actor, thing: Thing, start_s: float, end_s: float) -> None:
    approach(play, actor, thing, thing.shape.hold, start_s, end_s)


def lift(play: Play, actor: Actor, thing: Thing, start_s: float, end_s: float) -> None:
    """Take a thing, unless the hand has it, and raise it."""
    taken = start_s if actor.touching is thing else _at(start_s, end_s, 0.5)
    approach(play, actor, thing, thing.shape.hold, start_s, taken)
    up = np.array([play.rng.uniform(-0.03, 0.01), play.rng.uniform(-0.03, 0.0), play.rng.uniform(0.07, 0.11)])
    actor.grip.to(taken, _at(taken, end_s, 0.85), actor.grip.last + up)
    thing.place_m = thing.place_m + actor.own(up)
    thing.contacts.append(Contact(actor.side, taken, play.length_s + 1.0, "hold"))
    actor.holding = thing


def place(play: Play, actor: Actor, thing: Thing, start_s: float, end_s: float, goal_m: Array | None = None) -> None:
    """Take a thing, unless the hand has it, carry it over and put it down. goal_m: the place for its middle."""
    if actor.holding is not thing:
        taken = _at(start_s, end_s, 0.45)
        lift(play, actor, thing, start_s, taken)
        start_s = taken
    if goal_m is None:
        side = np.array([play.rng.uniform(-0.15, -0.09), play.rng.uniform(-0.03, 0.05)])
        goal_m = np.array([*(thing.start_m[:2] + side), thing.shape.half_m[2]])
    down, off = _at(start_s, end_s, 0.66), _at(start_s, end_s, 0.72)
    actor.grip.to(start_s, down, actor.grip.last + actor.own(goal_m - thing.place_m))
    actor.grip.bump(start_s, down, [0.0, 0.0, 0.025])
    _let_go(thing, off, goal_m)
    release(play, actor, off, end_s)


def _let_go(thing: Thing, at_s: float, goal_m: Array) -> None:
    held = thing.contacts.pop()
    thing.contacts.append(Contact(held.side, held.start_s, at_s, held.how, goal_m))
    thing.place_m = np.array(goal_m, float)


def pour(play: Play, actor: Actor, thing: Thing, into: Thing, start_s: float, end_s: float) -> None:
    """Take a thing, unless the hand has it, tip it over another and turn it back."""
    if actor.holding is not thing:
        taken = _at(start_s, end_s, 0.42)
        lift(play, actor, thing, start_s, taken)
        start_s = taken
    above = into.place_m + xyz(0.055, -0.005, into.shape.half_m[2] + thing.shape.half_m[2] + 0.045)
    over, back = _at(start_s, end_s, 0.3), _at(start_s, end_s, 0.72)
    actor.grip.to(start_s, over, actor.grip.last + actor.own(above - thing.place_m))
    thing.place_m = above
    level = actor.turn.last
    tipped = level - np.radians([play.rng.uniform(75.0, 95.0), 0.0, 0.0])
    actor.turn.to(over, _at(start_s, end_s, 0.52), tipped)
    actor.turn.to(back, _at(start_s, end_s, 0.95), level)


def push(play: Play, actor: Actor, thing: Thing, start_s: float, end_s: float) -> None:
    """Slide a thing away with flat fingers, from the person's side."""
    half = thing.shape.half_m
    touch, away = _at(start_s, end_s, 0.38), _at(start_s, end_s, 0.9)
    behind = thing.place_m + xyz(0.006, -half[1] - 0.012, 0.35 * half[2] + 0.012)
    actor.grip.to(start_s, touch, actor.own(behind))
    actor.grip.bump(start_s, touch, [0.0, 0.0, 0.03])
    actor.offset.to(start_s, touch, FINGERTIPS_M)
    actor.turn.to(start_s, touch, np.radians([20.0 + play.rng.uniform(-8, 8), 0.0, play.rng.uniform(-4, 4)]))
    actor.level.to(start_s, touch, 0.5)
    actor.fingers.to(start_s, _at(start_s, end_s, 0.3), play.posed("flat"))
    far = np.array([play.rng.uniform(-0.05, 0.02), play.rng.uniform(0.08, 0.12), 0.0])
    actor.grip.to(touch, away, actor.grip.last + actor.own(far))
    thing.contacts.append(Contact(actor.side, touch, end_s, "slide"))
    thing.place_m = thing.place_m + far
    actor.touching = actor.holding = None


def rotate(play: Play, actor: Actor, thing: Thing, start_s: float, end_s: float) -> None:
    """Take a thing from above and turn it to and fro."""
    taken = _at(start_s, end_s, 0.3)
    if actor.holding is None:
        actor.touching = None
    approach(play, actor, thing, "claw", start_s, taken)
    actor.grip.to(taken, taken + 0.01, actor.own(grip_point(thing, "claw") + xyz(0, 0, 0.004)))
    base, size = actor.turn.last, play.rng.uniform(20.0, 32.0)
    stops = (0.3, 0.42, 0.66, 0.70, 0.94)
    for begin, finish, angle in zip(stops[:-1], stops[1:], (-0.8, 1.0, 1.0, -0.8), strict=True):
        turned = base + np.radians([0.0, 0.0, angle * size])
        actor.turn.to(_at(start_s, end_s, begin), _at(start_s, end_s, finish), turned)
    thing.contacts.append(Contact(actor.side, taken, end_s, "turn"))


def open_drawer(play: Play, actor: Actor, thing: Thing, start_s: float, end_s: float) -> None:
    """Hook the fingers behind the handle and pull the drawer out."""
    taken, out = _at(start_s, end_s, 0.45), _at(start_s, end_s, 0.92)
    approach(play, actor, thing, "hook", start_s, taken)
    _draw(play, actor, thing, taken, out, end_s, -play.rng.uniform(0.075, 0.11))


def close_drawer(play: Play, actor: Actor, thing: Thing, start_s: float, end_s: float) -> None:
    """Push the open drawer in."""
    taken = _at(start_s, end_s, 0.3)
    approach(play, actor, thing, "hook", start_s, taken)
    _draw(play, actor, thing, taken, _at(start_s, end_s, 0.9), end_s, thing.start_m[1] - thing.place_m[1])


def _draw(play: Play, actor: Actor, thing: Thing, start_s: float, stop_s: float, end_s: float, by_m: float) -> None:
    way = np.array([0.0, by_m, 0.0])
    actor.grip.to(start_s, stop_s, actor.grip.last + way)
    thing.contacts.append(Contact(actor.side, start_s, end_s, "slide"))
    thing.place_m = thing.place_m + way


def wipe(play: Play, actor: Actor, thing: Thing, start_s: float, end_s: float) -> None:
    """A flat hand moves the thing under it in circles."""
    touch, rng = _at(start_s, end_s, 0.25), play.rng
    top = thing.place_m + xyz(0.0, 0.0, thing.shape.half_m[2])
    actor.grip.to(start_s, touch, actor.own(top))
    actor.grip.bump(start_s, touch, [0.0, 0.0, 0.03])
    actor.offset.to(start_s, touch, KNUCKLES_M)
    actor.turn.to(start_s, touch, np.radians([4.0, 16.0, rng.uniform(-5, 5)]))
    actor.level.to(start_s, touch, 0.0)
    actor.fingers.to(start_s, touch, play.posed("flat"))
    turns, phase = rng.uniform(0.75, 1.1) * (end_s - touch), rng.uniform(0, 2 * np.pi)

    def circle(at: Array) -> Array:
        share = np.clip((at - touch) / (end_s - touch), 0.0, 1.0)
        size = 0.05 * np.clip(np.minimum(share, 1 - share) / 0.2, 0.0, 1.0) ** 2
        angle = 2 * np.pi * turns * share + phase
        return size[:, None] * np.stack([1.2 * np.cos(angle), np.sin(angle), np.zeros_like(at)], 1)

    actor.grip.add(circle)
    thing.contacts.append(Contact(actor.side, touch, end_s, "slide"))
    actor.touching = actor.holding = None


def wave(play: Play, actor: Actor, start_s: float, end_s: float) -> None:
    """Raise the hand, wave and lower it."""
    rng = play.rng
    up, down = _at(start_s, end_s, 0.27), _at(start_s, end_s, 0.82)
    actor.grip.to(start_s, up, [rng.uniform(0.06, 0.10), 0.08, rng.uniform(0.13, 0.17)])
    actor.offset.to(start_s, up, KNUCKLES_M)
    actor.level.to(start_s, up, 0.0)
    actor.turn.to(start_s, up, np.radians([8.0, 32.0, 0.0]))
    actor.fingers.to(start_s, up, play.posed("spread"))
    hertz = rng.uniform(1.0, 1.4)

    def swing(at: Array) -> Array:
        share = np.clip((at - _at(start_s, end_s, 0.15)) / (0.75 * (end_s - start_s)), 0.0, 1.0)
        return np.clip(np.minimum(share, 1 - share) / 0.2, 0.0, 1.0) * np.sin(2 * np.pi * hertz * (at - start_s))

    actor.grip.add(lambda at: swing(at)[:, None] * np.array([0.035, 0.0, 0.0]))
    actor.turn.add(lambda at: swing(at)[:, None] * np.radians([0.0, 0.0, -16.0]))
    actor.grip.to(down, end_s, actor.rest_m)
    actor.turn.to(down, end_s, np.radians([10.0, 8.0, 0.0]))
    actor.fingers.to(down, end_s, play.posed("relaxed"))
    actor.touching = actor.holding = None


def cross(play: Play, start_s: float, end_s: float) -> None:
    """Both hands reach to the other side, one arm above the other, and come back."""
    rng = play.rng
    for actor, height, lag in ((play.main, rng.uniform(0.12, 0.15), 0.0), (play.helper, 0.03, rng.uniform(0.0, 0.08))):
        there, back = _at(start_s, end_s, 0.40 + lag), _at(start_s, end_s, 0.62 + lag)
        actor.grip.to(_at(start_s, end_s, lag), there, [rng.uniform(-0.15, -0.09), rng.uniform(0.05, 0.10), height])
        actor.grip.bump(_at(start_s, end_s, lag), there, [0.0, 0.0, 0.02])
        actor.fingers.to(_at(start_s, end_s, lag), there, play.posed(str(rng.choice(["flat", "preshape", "spread"]))))
        actor.grip.to(back, end_s, actor.rest_m)
        actor.fingers.to(back, end_s, play.posed("relaxed"))
        actor.touching = actor.holding = None


def steady(play: Play, thing: Thing, start_s: float, end_s: float) -> None:
    """The helping hand holds a thing in its place."""
    actor = play.helper
    beside = thing.place_m + xyz(-thing.shape.half_m[0] - 0.01, -0.01, 0.01)
    actor.grip.to(start_s, end_s, actor.own(beside))
    actor.grip.bump(start_s, end_s, [0.0, 0.0, 0.03])
    actor.offset.to(start_s, end_s, (-0.01, 0.10, -0.03))
    actor.turn.to(start_s, end_s, np.radians([48.0, 8.0, 0.0]))
    actor.fingers.to(start_s, end_s, play.posed("preshape"))


def visit(play: Play, enter_s: float, leave_s: float) -> None:
    """The helping hand comes into the image late and leaves it early."""
    actor, rng = play.helper, play.rng
    outside = np.array([0.34, -0.26, 0.06])
    actor.grip = Channel(outside)
    spot = np.array([rng.uniform(0.10, 0.15), rng.uniform(0.02, 0.07), 0.035])
    middle = 0.5 * (enter_s + leave_s)
    actor.grip.to(enter_s, _at(enter_s, middle, 0.8), spot)
    actor.grip.to(_at(middle, leave_s, 0.2), leave_s, outside)


def arrive(play: Play, actor: Actor) -> None:
    """The hand begins the clip outside the image."""
    actor.grip = Channel(np.array([0.30, -0.24, 0.05]))


def cabinet_place(thing: Thing) -> Array:
    """The place of a cabinet around its drawer."""
    return np.array([thing.start_m[0], thing.start_m[1] + 0.006, CABINET_HALF_M[2]])


Atomic = Callable[[Play, Actor, Thing, float, float], None]
ON_ONE: dict[str, Atomic] = {
    "reach": reach, "lift": lift, "place": place, "push": push, "rotate": rotate, "open": open_drawer,
    "close": close_drawer, "wipe": wipe,
}  # fmt: skip
"""Atomic actions on one thing, by verb."""
