"""Clips that hold several atomic actions after each other, with the exact time of each: the truth of `bench segments`.

A person takes up things in turn. Each turn is a few beats (reach, lift, pour, place, withdraw, ...); between them the
hand rests or goes on at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from handloom.synth.hand import NUM_FINGERS
from handloom.synth.objects import CABINET_HALF_M, NOUNS, varied
from handloom.synth.script import verbs
from handloom.synth.script.actions import ActionSpan, container
from handloom.synth.script.poses import POSES
from handloom.synth.script.timeline import HELPER, MAIN, Actor, Channel, Contact, Thing, wiggle
from handloom.synth.script.verbs import Play

Array = NDArray[np.float64]

TURNS: dict[str, tuple[tuple[str, ...], str]] = {
    "lift-place": (("reach", "lift", "place"), "thing"),
    "lift-carry-place": (("reach", "lift", "carry", "place"), "thing"),
    "move": (("reach", "move"), "thing"),
    "pour": (("reach", "lift", "carry over", "pour", "place"), "thing"),
    "put": (("reach", "lift", "put"), "thing"),
    "push": (("reach beside", "push"), "other"),
    "rotate": (("reach above", "rotate"), "other"),
    "wipe": (("reach flat", "wipe"), "cloth"),
    "open": (("reach", "open"), "drawer"),
    "open-close": (("reach", "open", "close"), "drawer"),
    "wave": (("wave",), "hand"),
}
"""The beats of each turn, and what it is done with."""

_SECONDS = {
    "reach": (0.6, 1.2), "reach beside": (0.6, 1.1), "reach above": (0.7, 1.2), "reach flat": (0.6, 1.1),
    "lift": (0.45, 0.9), "carry": (0.5, 1.1), "carry over": (0.5, 0.9), "place": (0.5, 1.1), "move": (0.8, 1.5),
    "pour": (1.2, 3.0), "put": (0.7, 1.3), "push": (0.6, 1.4), "rotate": (0.9, 2.2), "wipe": (1.8, 5.0),
    "open": (0.6, 1.2), "close": (0.5, 1.0), "wave": (1.8, 3.0), "withdraw": (0.5, 0.9),
}  # fmt: skip
_WORDS = {"reach beside": "reach", "reach above": "reach", "reach flat": "reach", "carry over": "carry"}
_POURED, _PUT, _OTHERS = ("cup", "can", "bottle"), ("apple", "block"), ("jar", "box", "can")


@dataclass(frozen=True)
class Beat:
    """One movement of the acting hand, seconds from the clip's first frame. role: `thing`, `other`, `into`, `cloth`,
    `drawer` or `hand`; noun: what plays it."""

    name: str
    role: str
    noun: str
    start_s: float
    end_s: float

    @property
    def verb(self) -> str:
        return _WORDS.get(self.name, self.name)


def draw_beats(rng: np.random.Generator, num_turns: int) -> tuple[Beat, ...]:
    """`num_turns` turns, none twice, of random length."""
    return beats_of_turns(rng, _draw_turns(rng, num_turns))


def beats_of_turns(rng: np.random.Generator, turns: Sequence[str]) -> tuple[Beat, ...]:
    """The beats of turns of `TURNS`, one after the other, of random length."""
    pool = _POURED if "pour" in turns else _PUT if "put" in turns else ("can", "cup", "block", "apple", "bottle")
    thing = str(rng.choice(pool))
    other = str(rng.choice([noun for noun in _OTHERS if noun != thing]))
    nouns = {"thing": thing, "other": other, "cloth": "cloth", "drawer": "drawer", "hand": "hand"}
    beats: list[Beat] = []
    at = float(rng.uniform(0.25, 0.7))
    for number, turn in enumerate(turns):
        names, role = TURNS[turn]
        ends = number == len(turns) - 1 or rng.random() < 0.6 or role == "hand" or TURNS[turns[number + 1]][1] == "hand"
        for name in (*names, *(("withdraw",) if ends and role != "hand" else ())):
            length = float(rng.uniform(*_SECONDS[name]))
            beats.append(Beat(name, role, nouns[role], round(at, 3), round(at + length, 3)))
            at += length + (float(rng.uniform(0.1, 0.4)) if rng.random() < 0.4 else 0.0)
        at += float(rng.uniform(0.2, 1.2)) if ends else 0.0
    return tuple(beats)


def push_then_put(rng: np.random.Generator, thing: str, into: str) -> tuple[Beat, ...]:
    """`into` is pushed away, then `thing` is put into it, or onto it: both are moved, so both are known."""
    names = ("reach beside", "push", "withdraw", "reach", "lift", "put", "withdraw")
    beats: list[Beat] = []
    at = float(rng.uniform(0.25, 0.7))
    for number, name in enumerate(names):
        role, noun = ("into", into) if number < 3 else ("thing", thing)
        length = float(rng.uniform(*_SECONDS[name]))
        beats.append(Beat(name, role, noun, round(at, 3), round(at + length, 3)))
        at += length + float(rng.uniform(0.1, 0.3))
    return tuple(beats)


def _draw_turns(rng: np.random.Generator, num_turns: int) -> list[str]:
    """Names of turns that do not need one role twice, in random order."""
    order = [str(name) for name in rng.permutation(list(TURNS))]
    chosen: list[str] = []
    for name in order:
        roles = [TURNS[one][1] for one in chosen]
        crowded = (name in ("wipe",) and "drawer" in roles) or (TURNS[name][1] == "drawer" and "cloth" in roles)
        if TURNS[name][1] not in roles and not crowded:
            chosen.append(name)
        if len(chosen) == num_turns:
            break
    return chosen


def beat_spans(beats: Sequence[Beat], main_hand: str, start_s: float) -> tuple[ActionSpan, ...]:
    """The beats as actions of the clip; the hand rests between them."""
    return tuple(
        ActionSpan(start_s + beat.start_s, start_s + beat.end_s, beat.verb, beat.noun, main_hand, _narration(beat))
        for beat in beats
    )


def _narration(beat: Beat) -> str:
    into = container(beat.noun)
    texts = {
        "reach": f"reach for the {beat.noun}", "carry": f"carry the {beat.noun}", "wave": "wave with one hand",
        "pour": f"pour from the {beat.noun} into the {into}", "put": f"put the {beat.noun} into the {into}",
        "wipe": "wipe the table with the cloth", "withdraw": "draw the hand back",
    }  # fmt: skip
    return texts.get(beat.verb, f"{beat.verb} the {beat.noun}")


def write_sequence(beats: Sequence[Beat], rng: np.random.Generator, length_s: float) -> Play:
    """The things of the beats and the moves of both hands."""
    habit = rng.normal(0.0, 0.07, (NUM_FINGERS, 4)) * [1.0, 0.5, 1.0, 0.6]
    main = Actor(MAIN, np.array([0.15, -0.05, 0.045]), np.array(verbs.GRASPS["power"].offset_m), POSES["relaxed"])
    helper = Actor(HELPER, np.array([0.17, -0.02, 0.035]), np.array(verbs.KNUCKLES_M), POSES["relaxed"])
    roles = _cast(beats, rng)
    play = Play(rng, length_s, main, helper, list(roles.values()), habit)
    _rest(play)
    for beat in beats:
        _MOVES[beat.name](play, roles, beat)
    main.grip.add(wiggle(rng, 0.0012, (3,), length_s))
    helper.grip.add(wiggle(rng, 0.0025, (3,), length_s))
    helper.fingers.add(wiggle(rng, 0.02, (NUM_FINGERS, 4), length_s))
    return play


def _cast(beats: Sequence[Beat], rng: np.random.Generator) -> dict[str, Thing]:
    nouns = {beat.role: beat.noun for beat in beats if beat.role != "hand"}
    yaw = float(rng.uniform(-0.4, 0.4))
    spots = {
        "thing": (rng.uniform(0.0, 0.06), rng.uniform(0.08, 0.13)),
        "other": (rng.uniform(0.15, 0.19), rng.uniform(0.10, 0.16)),
        "cloth": (rng.uniform(0.00, 0.03), rng.uniform(-0.04, -0.02)),
        "drawer": (rng.uniform(-0.04, 0.04), rng.uniform(0.33, 0.36)),
        "into": (rng.uniform(-0.15, -0.11), rng.uniform(0.09, 0.14)),
    }
    if any(beat.name in ("carry over", "pour", "put") for beat in beats):
        nouns.setdefault("into", container(nouns["thing"]))
    roles = {}
    for role, noun in nouns.items():
        shape = varied(NOUNS[noun], rng)
        high = CABINET_HALF_M[2] if role == "drawer" else shape.half_m[2]
        roles[role] = Thing(noun, shape, np.array([*spots[role], high]), 0.0 if role in ("drawer", "into") else yaw)
    if "drawer" in roles:
        shape = varied(NOUNS["cabinet"], rng)
        roles["cabinet"] = Thing("cabinet", shape, verbs.cabinet_place(roles["drawer"]))
    if not roles:
        roles["thing"] = Thing("cup", varied(NOUNS["cup"], rng), np.array([0.0, 0.22, NOUNS["cup"].half_m[2]]), yaw)
    return roles


def _rest(play: Play) -> None:
    """The helping hand lies near the table, and slides a few centimetres once."""
    actor, rng, length_s = play.helper, play.rng, play.length_s
    actor.turn = Channel(np.radians([rng.uniform(0, 25), 8.0, rng.uniform(-6, 6)]))
    begin = rng.uniform(0.1, 0.5) * length_s
    actor.grip.to(begin, begin + 1.5, actor.rest_m + verbs.xyz(-0.015, rng.uniform(0.01, 0.04), 0.005))


def _hold_of(beat: Beat, thing: Thing) -> str:
    return "claw" if beat.name == "reach above" else thing.shape.hold


def _reach(play: Play, roles: dict[str, Thing], beat: Beat) -> None:
    play.main.touching = play.main.holding = None
    thing = roles[beat.role]
    verbs.approach(play, play.main, thing, _hold_of(beat, thing), beat.start_s, beat.end_s)


def _reach_flat(play: Play, roles: dict[str, Thing], beat: Beat) -> None:
    """A flat hand comes beside a thing, on the person's side, or onto it."""
    actor, thing, rng = play.main, roles[beat.role], play.rng
    half, beside = thing.shape.half_m, beat.name == "reach beside"
    spot = verbs.xyz(0.006, -half[1] - 0.012, 0.35 * half[2] + 0.012) if beside else verbs.xyz(0.0, 0.0, half[2])
    turn = [20.0 + rng.uniform(-8, 8), 0.0, rng.uniform(-4, 4)] if beside else [4.0, 16.0, rng.uniform(-5, 5)]
    begin, end = beat.start_s, beat.end_s
    actor.grip.to(begin, end, actor.own(thing.place_m + spot))
    actor.grip.bump(begin, end, [0.0, 0.0, 0.03])
    actor.offset.to(begin, end, verbs.FINGERTIPS_M if beside else verbs.KNUCKLES_M)
    actor.turn.to(begin, end, np.radians(turn))
    actor.level.to(begin, end, 0.5 if beside else 0.0)
    actor.fingers.to(begin, begin + 0.6 * (end - begin), play.posed("flat"))


def _lift(play: Play, roles: dict[str, Thing], beat: Beat) -> None:
    rng = play.rng
    by = np.array([rng.uniform(-0.03, 0.01), rng.uniform(-0.03, 0.0), rng.uniform(0.07, 0.12)])
    _take(play, roles[beat.role], beat)
    _carry_by(play, roles[beat.role], beat, play.main.own(by))


def _take(play: Play, thing: Thing, beat: Beat) -> None:
    thing.contacts.append(Contact(play.main.side, beat.start_s, play.length_s + 1.0, "hold"))
    play.main.holding = thing


def _carry_by(play: Play, thing: Thing, beat: Beat, by_m: Array) -> None:
    play.main.grip.to(beat.start_s, beat.end_s, play.main.grip.last + play.main.own(by_m))
    thing.place_m = thing.place_m + by_m


def _carry(play: Play, roles: dict[str, Thing], beat: Beat) -> None:
    rng = play.rng
    by = verbs.xyz(rng.uniform(-0.16, -0.10), rng.uniform(-0.04, 0.04), rng.uniform(-0.02, 0.02))
    _carry_by(play, roles[beat.role], beat, by)


def _carry_over(play: Play, roles: dict[str, Thing], beat: Beat) -> None:
    thing, into = roles[beat.role], roles["into"]
    above = into.place_m + verbs.xyz(0.055, -0.005, into.shape.half_m[2] + thing.shape.half_m[2] + 0.045)
    _carry_by(play, thing, beat, above - thing.place_m)


def _pour(play: Play, roles: dict[str, Thing], beat: Beat) -> None:
    actor, length = play.main, beat.end_s - beat.start_s
    level = actor.turn.last
    tipped = level - np.radians([play.rng.uniform(75.0, 95.0), 0.0, 0.0])
    actor.turn.to(beat.start_s, beat.start_s + 0.45 * length, tipped)
    actor.turn.to(beat.start_s + 0.55 * length, beat.end_s, level)


def _set_down(play: Play, roles: dict[str, Thing], beat: Beat) -> None:
    """Carry a thing down to the table, or into the container."""
    thing, rng = roles[beat.role], play.rng
    if beat.name == "put":
        into = roles["into"]
        floor = 0.004 - into.shape.half_m[2] if into.noun == "bowl" else into.shape.half_m[2]
        goal = into.place_m + verbs.xyz(rng.uniform(-0.01, 0.01), 0.0, floor + thing.shape.half_m[2])
    elif beat.name == "move":
        side = np.array([rng.uniform(-0.16, -0.10), rng.uniform(-0.03, 0.05)])
        goal = np.array([*(thing.place_m[:2] + side), thing.shape.half_m[2]])
        _take(play, thing, beat)
    elif "into" in roles:
        goal = np.array(thing.start_m)
    else:
        aside = np.array([rng.uniform(-0.08, 0.02), rng.uniform(-0.02, 0.03)])
        goal = np.array([*(thing.place_m[:2] + aside), thing.shape.half_m[2]])
    play.main.grip.to(beat.start_s, beat.end_s, play.main.grip.last + play.main.own(goal - thing.place_m))
    play.main.grip.bump(beat.start_s, beat.end_s, [0.0, 0.0, 0.025 if beat.name != "move" else 0.07])
    held = thing.contacts.pop()
    thing.contacts.append(Contact(held.side, held.start_s, beat.end_s, held.how, goal))
    thing.place_m = goal


def _slide(play: Play, roles: dict[str, Thing], beat: Beat) -> None:
    """Push a thing away, or draw a drawer out or in."""
    thing, rng = roles[beat.role], play.rng
    by = np.array([rng.uniform(-0.05, 0.02), rng.uniform(0.08, 0.12), 0.0])
    if beat.name == "open":
        by = np.array([0.0, -rng.uniform(0.08, 0.12), 0.0])
    elif beat.name == "close":
        by = np.array([0.0, thing.start_m[1] - thing.place_m[1], 0.0])
    thing.contacts.append(Contact(play.main.side, beat.start_s, beat.end_s, "slide"))
    _carry_by(play, thing, beat, by)


def _rotate(play: Play, roles: dict[str, Thing], beat: Beat) -> None:
    actor, size, length = play.main, play.rng.uniform(25.0, 38.0), beat.end_s - beat.start_s
    base = actor.turn.last
    actor.turn.to(beat.start_s, beat.start_s + 0.45 * length, base + np.radians([0.0, 0.0, -size]))
    actor.turn.to(beat.start_s + 0.45 * length, beat.end_s, base + np.radians([0.0, 0.0, 0.6 * size]))
    roles[beat.role].contacts.append(Contact(actor.side, beat.start_s, beat.end_s, "turn"))


def _wipe(play: Play, roles: dict[str, Thing], beat: Beat) -> None:
    begin, end, rng = beat.start_s, beat.end_s, play.rng
    turns, phase = rng.uniform(0.75, 1.1) * (end - begin), rng.uniform(0, 2 * np.pi)

    def circle(at: Array) -> Array:
        share = np.clip((at - begin) / (end - begin), 0.0, 1.0)
        size = 0.05 * np.clip(np.minimum(share, 1 - share) / 0.2, 0.0, 1.0) ** 2
        angle = 2 * np.pi * turns * share + phase
        return size[:, None] * np.stack([1.2 * np.cos(angle), np.sin(angle), np.zeros_like(at)], 1)

    play.main.grip.add(circle)
    roles[beat.role].contacts.append(Contact(play.main.side, begin, end, "slide"))


def _wave(play: Play, roles: dict[str, Thing], beat: Beat) -> None:
    verbs.wave(play, play.main, beat.start_s, beat.end_s)


def _withdraw(play: Play, roles: dict[str, Thing], beat: Beat) -> None:
    actor, begin, length = play.main, beat.start_s, beat.end_s - beat.start_s
    away = 0.35 * actor.grip.last + 0.65 * actor.rest_m + verbs.xyz(0.02, -0.03, 0.03)
    actor.fingers.to(begin, begin + 0.4 * length, play.posed("preshape"))
    actor.fingers.to(begin + 0.4 * length, beat.end_s, play.posed("relaxed"))
    actor.grip.to(begin, beat.end_s, away)
    actor.holding = actor.touching = None


_MOVES = {
    "reach": _reach, "reach above": _reach, "reach beside": _reach_flat, "reach flat": _reach_flat, "lift": _lift,
    "carry": _carry, "carry over": _carry_over, "place": _set_down, "move": _set_down, "put": _set_down,
    "pour": _pour, "push": _slide, "open": _slide, "close": _slide, "rotate": _rotate, "wipe": _wipe, "wave": _wave,
    "withdraw": _withdraw,
}  # fmt: skip
