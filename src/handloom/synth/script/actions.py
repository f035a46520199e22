"""The actions and sequences of them, and how they share a clip's time, things and hands."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from handloom.synth.hand import NUM_FINGERS
from handloom.synth.objects import CABINET_HALF_M, NOUNS, ObjectShape, varied
from handloom.synth.script import verbs
from handloom.synth.script.poses import POSES
from handloom.synth.script.timeline import HELPER, MAIN, Actor, Channel, Thing, wiggle
from handloom.synth.script.verbs import Play

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Step:
    """One atomic action of a sequence. verb: for the truth. words: its narration, with `{noun}` and `{into}`.

    atomic: its name in `verbs.ON_ONE`, or `pour`, `put`, `wave`, `cross`. role: what it acts on: `thing` (the scene's
    noun), `drawer`, `cloth` or `hand`. weight: its share of the clip's time, relative to the other steps.
    """

    verb: str
    words: str
    atomic: str
    role: str = "thing"
    weight: float = 1.0


@dataclass(frozen=True)
class Action:
    """verb, noun: of the whole clip; noun None: the scene's. nouns: the things that it is done with."""

    verb: str
    narration: str
    steps: tuple[Step, ...]
    nouns: tuple[str, ...]
    noun: str | None = None

    def uses(self, role: str) -> bool:
        return any(step.role == role for step in self.steps)

    @property
    def fills(self) -> bool:
        """Whether something goes into a second thing."""
        return any(step.atomic in ("pour", "put") for step in self.steps)


@dataclass(frozen=True)
class ActionSpan:
    """One atomic action of a clip, in seconds of the video, half-open. hand: `left`, `right` or `both`."""

    start_s: float
    end_s: float
    verb: str
    noun: str
    hand: str
    narration: str


@dataclass(frozen=True)
class ContactSpan:
    """A hand moves a thing, in seconds of the video, half-open. object: its number in `Truth.object_nouns`. how: see
    `timeline.Contact`."""

    object: int
    hand: str
    start_s: float
    end_s: float
    how: str


_REACH = Step("reach", "reach for the {noun}", "reach")
_LIFT = Step("lift", "lift the {noun}", "lift")
_PLACE = Step("place", "place the {noun}", "place", weight=1.1)
_POUR = Step("pour", "pour from the {noun} into the {into}", "pour", weight=1.5)
_PUT = Step("put", "put the {noun} into the {into}", "put", weight=1.2)
_PUSH = Step("push", "push the {noun} across the table", "push")
_ROTATE = Step("rotate", "rotate the {noun}", "rotate", weight=1.2)
_OPEN = Step("open", "open the drawer", "open", "drawer")
_CLOSE = Step("close", "close the drawer", "close", "drawer", weight=0.9)
_WIPE = Step("wipe", "wipe the table with the {noun}", "wipe")
_WIPE_CLOTH = Step("wipe", "wipe the table with the cloth", "wipe", "cloth")
_WAVE = Step("wave", "wave with one hand", "wave", "hand")
_CROSS = Step("cross", "cross the hands over the table", "cross", "hand")

_SMALL = ("can", "cup", "block", "apple", "bottle", "box")
_POURED = ("cup", "can", "bottle")

ACTIONS: dict[str, Action] = {
    "reach": Action("reach", "reach for the {noun}", (_REACH,), ("cup", "can", "box", "book", "bowl")),
    "pick-place": Action("place", "pick up the {noun} and place it", (_PLACE,), _SMALL),
    "push": Action("push", "push the {noun} across the table", (_PUSH,), ("box", "block", "jar", "book", "bowl")),
    "wave": Action("wave", "wave with one hand", (_WAVE,), ("cup", "box", "jar"), "hand"),
    "wipe": Action("wipe", "wipe the table with the {noun}", (_WIPE,), ("cloth",)),
    "rotate": Action("rotate", "rotate the {noun}", (_ROTATE,), ("jar", "can", "cup", "bottle")),
    "lift": Action("lift", "take the {noun} and lift it", (_LIFT,), _SMALL),
    "pour": Action("pour", "pour from the {noun} into the {into}", (_POUR,), _POURED),
    "put": Action("put", "put the {noun} into the {into}", (_PUT,), ("apple", "block")),
    "open-drawer": Action("open", "open the drawer", (_OPEN,), ("cup", "apple"), "drawer"),
    "cross": Action("cross", "cross the hands over the table", (_CROSS,), ("cup", "box", "apple"), "hand"),
    "reach-lift-place": Action("place", "reach for the {noun}, lift it and place it", (_REACH, _LIFT, _PLACE), _SMALL),
    "lift-pour-place": Action("pour", "lift the {noun}, pour into the {into} and put it back",
                              (_LIFT, _POUR, _PLACE), _POURED),
    "open-close": Action("open", "open the drawer and close it", (_OPEN, _CLOSE), ("cup", "can"), "drawer"),
    "open-reach": Action("open", "open the drawer and reach for the {noun}", (_OPEN, _REACH), ("cup", "can", "apple")),
    "put-wipe": Action("put", "put the {noun} into the {into} and wipe the table", (_PUT, _WIPE_CLOTH),
                       ("apple", "block")),
    "push-rotate": Action("push", "push the {noun} away and rotate it", (_PUSH, _ROTATE), ("jar", "can", "box")),
}  # fmt: skip
"""Every action by name: eleven atomic ones, then sequences."""

ATOMIC = tuple(name for name, action in ACTIONS.items() if len(action.steps) == 1)
COMPOSED = tuple(name for name, action in ACTIONS.items() if len(action.steps) > 1)


def container(noun: str) -> str:
    """The thing that others are put or poured into."""
    return "bowl" if noun != "bowl" else "box"


def narration(name: str, noun: str) -> str:
    return ACTIONS[name].narration.format(noun=noun, into=container(noun))


def boundaries(name: str, length_s: float) -> list[tuple[float, float]]:
    """(start, end) of every step, seconds from the clip's start; they fill the clip."""
    weights = np.array([step.weight for step in ACTIONS[name].steps])
    edges = np.concatenate([[0.0], np.cumsum(weights) / weights.sum()]) * length_s
    edges[-1] = length_s
    return [(float(a), float(b)) for a, b in itertools.pairwise(edges)]


def spans(name: str, noun: str, main_hand: str, start_s: float, length_s: float) -> tuple[ActionSpan, ...]:
    """The atomic actions of a clip, in order."""
    out = []
    for step, (begin, end) in zip(ACTIONS[name].steps, boundaries(name, length_s), strict=True):
        acted = noun if step.role == "thing" else step.role
        hand = "both" if step.atomic == "cross" else main_hand
        words = step.words.format(noun=acted, into=container(noun))
        out.append(ActionSpan(start_s + begin, start_s + end, step.verb, acted, hand, words))
    return tuple(out)


def write_play(name: str, noun: str, rng: np.random.Generator, length_s: float, entrance: str, helps: bool) -> Play:
    """The things of an action and the moves of both hands.

    Args:
        entrance: `none`, `helper` (the helping hand comes late and leaves early) or `both` (the acting hand comes late,
            too).
        helps: whether the helping hand is in the scene.
    """
    action = ACTIONS[name]
    habit = rng.normal(0.0, 0.07, (NUM_FINGERS, 4)) * [1.0, 0.5, 1.0, 0.6]
    main = Actor(MAIN, np.array([0.15, -0.03, 0.045]), np.array(verbs.GRASPS["power"].offset_m), POSES["relaxed"])
    helper = Actor(HELPER, np.array([0.15, 0.0, 0.035]) + rng.uniform(-0.02, 0.02, 3) * [1, 1, 0],
                   np.array(verbs.KNUCKLES_M), POSES["relaxed"])  # fmt: skip
    roles = _cast(action, noun, rng)
    play = Play(rng, length_s, main, helper, list(roles.values()), habit)
    if entrance == "both":
        verbs.arrive(play, main)
    if entrance != "none" and helps and name != "cross":
        verbs.visit(play, rng.uniform(0.12, 0.25) * length_s, rng.uniform(0.70, 0.85) * length_s)
    elif action.fills and helps and rng.random() < 0.6:
        verbs.steady(play, roles["into"], 0.05 * length_s, 0.3 * length_s)
    elif name != "cross":
        _idle(play)
    for step, (start_s, end_s) in zip(action.steps, boundaries(name, length_s), strict=True):
        _act(play, step, roles, start_s + 0.04 * (end_s - start_s), end_s)
    main.grip.add(wiggle(rng, 0.0012, (3,), length_s))
    helper.grip.add(wiggle(rng, 0.0025, (3,), length_s))
    helper.fingers.add(wiggle(rng, 0.02, (NUM_FINGERS, 4), length_s))
    return play


def _act(play: Play, step: Step, roles: dict[str, Thing], start_s: float, end_s: float) -> None:
    if step.atomic == "cross":
        verbs.cross(play, start_s, end_s)
    elif step.atomic == "wave":
        verbs.wave(play, play.main, start_s, end_s)
    elif step.atomic == "place" and "into" in roles:
        verbs.place(play, play.main, roles["thing"], start_s, end_s, roles["thing"].start_m)
    elif step.atomic == "pour":
        verbs.pour(play, play.main, roles["thing"], roles["into"], start_s, end_s)
    elif step.atomic == "put":
        into, thing = roles["into"], roles["thing"]
        floor = 0.004 - into.shape.half_m[2] if into.noun == "bowl" else into.shape.half_m[2]
        goal = into.place_m + verbs.xyz(play.rng.uniform(-0.01, 0.01), 0.0, floor + thing.shape.half_m[2])
        verbs.place(play, play.main, thing, start_s, end_s, goal)
    else:
        verbs.ON_ONE[step.atomic](play, play.main, roles[step.role], start_s, end_s)


def _cast(action: Action, noun: str, rng: np.random.Generator) -> dict[str, Thing]:
    """The things the action needs, by role; the acted one first."""
    roles: dict[str, Thing] = {}

    def add(role: str, called: str, x: float, y: float, z: float | None = None, yaw: float = 0.0) -> None:
        shape: ObjectShape = varied(NOUNS[called], rng)
        roles[role] = Thing(called, shape, np.array([x, y, shape.half_m[2] if z is None else z]), yaw)

    x, y, yaw = rng.uniform(0.02, 0.09), rng.uniform(0.06, 0.12), rng.uniform(-0.4, 0.4)
    drawer = action.uses("drawer")
    if drawer:
        x, y = rng.uniform(0.16, 0.20), rng.uniform(0.06, 0.12)
    if action.uses("hand"):
        x, y = rng.uniform(-0.03, 0.03), rng.uniform(0.19, 0.24)
    if not drawer or action.uses("thing"):
        add("thing", noun, x, y, yaw=yaw)
    if action.fills:
        add("into", container(noun), rng.uniform(-0.14, -0.09), rng.uniform(0.08, 0.14))
    if action.uses("cloth"):
        add("cloth", "cloth", rng.uniform(0.04, 0.08), rng.uniform(-0.02, 0.0), yaw=yaw)
    if drawer:
        add("drawer", "drawer", rng.uniform(-0.04, 0.04), rng.uniform(0.30, 0.34), CABINET_HALF_M[2])
        spot = verbs.cabinet_place(roles["drawer"])
        add("cabinet", "cabinet", *spot)
        if not action.uses("thing"):
            add("thing", noun, x, y, yaw=yaw)
    return roles


def _idle(play: Play) -> None:
    """The helping hand rests near the table, opens and closes a little, slides a few centimetres."""
    actor, rng, length_s = play.helper, play.rng, play.length_s
    actor.turn = Channel(np.radians([rng.uniform(0, 25), 8.0, rng.uniform(-6, 6)]))
    aside = actor.rest_m + verbs.xyz(-0.02, rng.uniform(0.01, 0.05), 0.01)
    actor.grip.to(0.1 * length_s, 0.5 * length_s, aside)
    actor.grip.to(0.5 * length_s, 0.9 * length_s, actor.rest_m)
    actor.fingers.to(0.0, 0.45 * length_s, play.posed(str(rng.choice(["flat", "preshape", "point", "fist"]))))
    actor.fingers.to(0.45 * length_s, length_s, play.posed("relaxed"))
