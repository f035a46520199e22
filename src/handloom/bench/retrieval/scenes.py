"""The rendered clips of `bench retrieval`: who does what where, before which camera.

Clips of queries share no scene, no person and no camera with those that are searched: other table tops, skins, sizes of
hands, lenses and lengths. Twelve kinds of action; some differ in little (reach, lift, place and put begin alike), two
undo each other (open and close a drawer).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from handloom.schemas.values import LEFT, RIGHT
from handloom.synth.script.actions import ACTIONS
from handloom.synth.script.scene import SceneSpec
from handloom.synth.script.sequence import TURNS, Beat, beats_of_turns, draw_beats

KINDS = (
    "reach",
    "lift",
    "pick-place",
    "put",
    "pour",
    "push",
    "rotate",
    "wipe",
    "wave",
    "cross",
    "open-drawer",
    "close",
)
CLOSE = "close"
ACTION_OF = dict.fromkeys(("lift-place", "lift-carry-place", "move", "pick-place"), "place") | {"open-drawer": "open"}
"""The action of kinds and turns that are not called by it."""
SEARCHED, QUERY, LONG, PIECE = "searched", "query", "long", "piece"
SEED = 4000
SIZE = {"width": 320, "height": 240, "fps": 10.0}
USUAL_S = 2.4
WITHDRAW_S = 0.6


@dataclass(frozen=True)
class Size:
    """Clips of each kind that are searched, and queries; sequences that are searched, and pieces of each turn."""

    searched: int = 12
    queries: int = 8
    long: int = 12
    pieces: int = 2
    kinds: tuple[str, ...] = KINDS
    turns: tuple[str, ...] = tuple(turn for turn in TURNS if turn not in ("lift-carry-place", "open-close"))


@dataclass(frozen=True)
class Pool:
    """Scenes, people and cameras that are drawn from."""

    tables: tuple[str, ...]
    skins: tuple[str, ...]
    hand_scale: tuple[float, float]
    fov_deg: tuple[float, float]
    pace: tuple[float, float]
    camera_motion: tuple[float, float]
    distorted: float


KNOWN = Pool(("wood", "marble"), ("light", "olive", "dark"), (0.88, 0.99), (61.0, 66.0), (0.85, 1.1), (0.4, 1.0), 0.0)
UNSEEN = Pool(("cloth", "green"), ("tan", "brown"), (1.0, 1.10), (67.0, 74.0), (1.0, 1.3), (0.8, 1.4), 0.5)


@dataclass(frozen=True)
class Filmed:
    """One rendered clip. name: unique. role: one of the constants above. verb, noun, narration: its words. person: who
    does it. start_s: the video begins here in the scene, at a frame."""

    name: str
    role: str
    kind: str
    spec: SceneSpec
    verb: str
    noun: str
    narration: str
    person: str
    start_s: float = 0.0

    @property
    def length_s(self) -> float:
        """Of the video."""
        return round(self.spec.num_frames / self.spec.fps - self.start_s, 3)

    @property
    def actions(self) -> list[tuple[str, float, float]]:
        """(action, start, end), seconds of the video; of a sequence, without drawing the hand back."""
        if self.role in (LONG, PIECE):
            return turn_spans(self.spec.beats, self.kind.split("+"))
        return [(ACTION_OF.get(self.kind, self.kind), 0.0, self.length_s)]


def scenes_of(size: Size) -> list[Filmed]:
    """All clips, those of each kind in turn, so that a part of the list has some of each."""
    found = []
    for number in range(max(size.searched, size.queries)):
        for kind in size.kinds:
            if number < size.searched:
                found.append(_single(kind, SEARCHED, number, KNOWN))
            if number < size.queries:
                found.append(_single(kind, QUERY, number, UNSEEN))
    found += [_sequence(number) for number in range(size.long)]
    found += [_piece(turn, number) for number in range(size.pieces) for turn in size.turns]
    return found


def _rng(role: str, kind: str, number: int) -> np.random.Generator:
    return np.random.default_rng([SEED, *role.encode(), 0, *kind.encode(), 0, number])


def _person(pool: Pool, rng: np.random.Generator, number: int) -> dict:
    """Values of a `SceneSpec` for who does it, where, and before which camera. Hands take turns."""
    distortion = (-0.22 * float(rng.uniform(0.4, 1.4)), 0.05, 0.0, 0.0) if rng.random() < pool.distorted else ()
    return {
        "main_hand": RIGHT if number % 2 == 0 else LEFT,
        "seed": int(rng.integers(2**31)),
        "fov_deg": round(float(rng.uniform(*pool.fov_deg)), 1),
        "skin": str(rng.choice(pool.skins)),
        "hand_scale": round(float(rng.uniform(*pool.hand_scale)), 2),
        "table": str(rng.choice(pool.tables)),
        "camera_motion": round(float(rng.uniform(*pool.camera_motion)), 2),
        "shutter": round(float(rng.uniform(0.15, 0.5)), 2),
        "distortion": distortion,
        **SIZE,
    }


def _single(kind: str, role: str, number: int, pool: Pool) -> Filmed:
    rng = _rng(role, kind, number)
    person = _person(pool, rng, number)
    pace = float(rng.uniform(*pool.pace))
    name = f"{role}_{kind}_{number:02d}"
    who = f"{role}-{person['skin']}-{number}"
    if kind == CLOSE:
        beats, start_s, end_s = _closing(pace)
        spec = SceneSpec("reach", "cup", hands=_hands(rng), duration_s=end_s, beats=beats, **person)
        return Filmed(name, role, kind, spec, "close", "drawer", "close the drawer", who, start_s)
    noun = str(rng.choice(ACTIONS[kind].nouns))
    hands = "both" if kind == "cross" else _hands(rng)
    spec = SceneSpec(kind, noun, hands=hands, duration_s=round(USUAL_S / pace, 1), **person)
    return Filmed(name, role, kind, spec, spec.verb, spec.object_noun, spec.narration, who)


def _hands(rng: np.random.Generator) -> Literal["both", "main"]:
    return "both" if rng.random() < 0.7 else "main"


def _closing(pace: float) -> tuple[tuple[Beat, ...], float, float]:
    """Beats that leave a drawer open and close it later; when the video begins, and when it ends."""
    at, beats = 0.1, []
    for name, length in (("reach", 0.5), ("open", 0.5), ("withdraw", WITHDRAW_S), ("reach", 0.9), ("close", 0.9)):
        beats.append(Beat(name, "drawer", "drawer", round(at, 3), round(at + length / pace, 3)))
        at += length / pace
    return tuple(beats), round(beats[3].start_s - 0.2, 1), round(at + 0.3, 1)


def _sequence(number: int) -> Filmed:
    rng = _rng(LONG, "", number)
    person = _person(KNOWN, rng, number)
    beats = draw_beats(rng, 3)
    return _of_beats(f"{LONG}_{number:02d}", LONG, beats, person, rng)


def _piece(turn: str, number: int) -> Filmed:
    rng = _rng(PIECE, turn, number)
    person = _person(UNSEEN, rng, number)
    return _of_beats(f"{PIECE}_{turn}_{number:02d}", PIECE, beats_of_turns(rng, [turn]), person, rng)


def _of_beats(name: str, role: str, beats: tuple[Beat, ...], person: dict, rng: np.random.Generator) -> Filmed:
    spec = SceneSpec(
        "reach", "cup", hands=_hands(rng), duration_s=round(beats[-1].end_s + 0.4, 1), beats=beats, **person
    )
    turns = "+".join(turns_of(beats))
    return Filmed(name, role, turns, spec, spec.verb, spec.object_noun, spec.narration, f"{role}-{name[-2:]}")


def turns_of(beats: Sequence[Beat]) -> list[str]:
    """The names of `TURNS` that the beats execute, in order."""
    names = [beat.name for beat in beats if beat.name != "withdraw"]
    found: list[str] = []
    while names:
        fitting = [turn for turn, (steps, _) in TURNS.items() if tuple(names[: len(steps)]) == steps]
        longest = max(fitting, key=lambda turn: len(TURNS[turn][0]))
        found.append(longest)
        names = names[len(TURNS[longest][0]) :]
    return found


def turn_spans(beats: Sequence[Beat], turns: Sequence[str]) -> list[tuple[str, float, float]]:
    """The actions of turns: each from its first beat to its last, without `withdraw`; to open and to close are two."""
    acting, at, found = [beat for beat in beats if beat.name != "withdraw"], 0, []
    for turn in turns:
        steps = acting[at : at + len(TURNS[turn][0])]
        at += len(steps)
        if turn == "open-close":
            found.append(("open", steps[0].start_s, steps[-2].end_s))
            found.append(("close", steps[-1].start_s, steps[-1].end_s))
        else:
            found.append((ACTION_OF.get(turn, turn), steps[0].start_s, steps[-1].end_s))
    return found


def quick(size: Size) -> Size:
    """A few clips of four kinds."""
    return replace(size, searched=2, queries=1, long=1, pieces=1, kinds=("push", "wave", "open-drawer", CLOSE),
                   turns=("push",))  # fmt: skip
