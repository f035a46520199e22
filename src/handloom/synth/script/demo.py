"""Sets of varied scenes: the demo's, and those of `handloom synth`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import get_args

import numpy as np

from handloom.errors import ConfigError
from handloom.schemas.values import LEFT, RIGHT
from handloom.synth.render.lens import LENSES
from handloom.synth.render.textures import TEXTURES
from handloom.synth.script.actions import ACTIONS
from handloom.synth.script.scene import SKINS, Entrance, Person, SceneSpec, Seat
from handloom.synth.script.sequence import Beat, beats_of_turns, draw_beats

_DEMO = ("reach", "pick-place", "push", "wave", "wipe", "rotate", "pour", "open-drawer", "reach-lift-place")
_SECONDS_PER_STEP = 1.6
_LENS = (-0.22, 0.05, 0.0, 0.0)  # a moderate barrel, about which lenses vary


def demo_specs(num: int, seed: int = 0) -> list[SceneSpec]:
    """`num` scenes of 480 x 360 at 30 fps, 2 to 5 s: actions in turn, everything else random by the seed."""
    rng = np.random.default_rng([seed, 0])
    return [_draw(rng, _DEMO[i % len(_DEMO)]) for i in range(num)]


def synth_specs(
    num: int,
    seed: int = 0,
    *,
    width: int = 480,
    height: int = 360,
    fps: float = 30.0,
    duration_s: float | None = None,
    distorted_share: float = 0.25,
    lens: str | None = None,
) -> list[SceneSpec]:
    """`num` scenes over all actions in turn; size, length and lens as given, everything else random by the seed.

    duration_s: of every clip; None: about 1.6 s for each step, and 2.5 s at least.
    distorted_share: share of the scenes with lens distortion. lens: a key of `LENSES`, for all scenes.
    """
    rng = np.random.default_rng([seed, 7])
    out = []
    for i in range(num):
        action = list(ACTIONS)[i % len(ACTIONS)]
        usual_s = max(2.5, _SECONDS_PER_STEP * sum(step.weight for step in ACTIONS[action].steps) + 0.5)
        params = (np.array(_LENS) * rng.uniform(0.4, 1.4) + [0, 0, *rng.uniform(-0.002, 0.002, 2)]).tolist()
        spec = SceneSpec(
            **_common(rng, action),
            duration_s=float(np.round(usual_s, 1)) if duration_s is None else duration_s,
            fps=fps,
            width=width,
            height=height,
            distortion=tuple(params) if rng.random() < distorted_share else (),
            entrance=_drawn(rng, ("none", "none", "helper", "both")),
            camera_motion=float(np.round(rng.uniform(0.6, 1.3), 2)),
        )
        out.append(spec if lens is None else through_lens(spec, lens))
    return out


def sequence_specs(
    num: int, seed: int = 0, *, turns: int = 3, width: int = 480, height: int = 360, fps: float = 15.0
) -> list[SceneSpec]:
    """`num` scenes in each of which one hand does several things in turn (`script.sequence`), random by the seed."""
    rng = np.random.default_rng([seed, 8])
    return [spec_of_beats(rng, draw_beats(rng, turns), width, height, fps) for _ in range(num)]


def turn_specs(
    turn: str, num: int, seed: int = 0, *, width: int = 480, height: int = 360, fps: float = 15.0
) -> list[SceneSpec]:
    """`num` scenes of one turn of `script.sequence.TURNS`: other things, places, lengths and cameras each time."""
    rng = np.random.default_rng([seed, 9, *turn.encode()])
    return [spec_of_beats(rng, beats_of_turns(rng, [turn]), width, height, fps) for _ in range(num)]


def shared_table_specs(
    num: int, seed: int = 0, *, width: int = 480, height: int = 360, fps: float = 15.0, duration_s: float = 2.5
) -> list[SceneSpec]:
    """`num` scenes with a second person at the table, each seat in turn, everything else random by the seed."""
    rng = np.random.default_rng([seed, 10])
    actions = [name for name in ACTIONS if name != "cross"]
    out = []
    for i in range(num):
        theirs = Person(
            get_args(Seat)[i % len(get_args(Seat))],
            action=str(rng.choice(["reach", "wave", "pick-place", "push", "rotate"])),
            main_hand=RIGHT if rng.random() < 0.6 else LEFT,
            hands="both" if rng.random() < 0.7 else "main",
            hand_scale=float(np.round(rng.uniform(0.88, 1.10), 2)),
            skin=str(rng.choice(list(SKINS))),
            entrance=_drawn(rng, ("none", "helper", "both")),
        )
        spec = SceneSpec(
            **_common(rng, str(rng.choice(actions))),
            duration_s=duration_s,
            fps=fps,
            width=width,
            height=height,
            entrance=_drawn(rng, ("none", "none", "helper", "both")),
            camera_motion=float(np.round(rng.uniform(0.6, 1.3), 2)),
            person=theirs,
        )
        out.append(spec)
    return out


def spec_of_beats(
    rng: np.random.Generator, beats: tuple[Beat, ...], width: int = 480, height: int = 360, fps: float = 15.0
) -> SceneSpec:
    """A scene of these beats; the person, the camera and the places of things are random."""
    common = {**_common(rng, "reach"), "hands": "both" if rng.random() < 0.7 else "main"}
    return SceneSpec(
        **common,
        duration_s=float(np.round(beats[-1].end_s + 0.4, 2)),
        fps=fps,
        width=width,
        height=height,
        camera_motion=float(np.round(rng.uniform(0.6, 1.3), 2)),
        beats=beats,
    )


def through_lens(spec: SceneSpec, name: str) -> SceneSpec:
    """The same scene through a lens of `LENSES`. Raises ConfigError for another name."""
    if name not in LENSES:
        raise ConfigError(f"lens {name!r} is not known", f"one of: {', '.join(LENSES)}")
    kind = LENSES[name]
    return replace(spec, fov_deg=kind.fov_deg, camera_model=kind.model, distortion=kind.params)


def _draw(rng: np.random.Generator, action: str) -> SceneSpec:
    length_s = float(rng.choice([2.0, 2.5, 3.0])) + (2.0 if len(ACTIONS[action].steps) > 1 else 0.0)
    return SceneSpec(**_common(rng, action), duration_s=length_s)


def _common(rng: np.random.Generator, action: str) -> dict:
    return {
        "action": action,
        "noun": str(rng.choice(ACTIONS[action].nouns)),
        "main_hand": RIGHT if rng.random() < 0.6 else LEFT,
        "hands": "both" if rng.random() < 0.85 or action == "cross" else "main",
        "seed": int(rng.integers(2**31)),
        "fov_deg": float(np.round(rng.uniform(62.0, 72.0), 1)),
        "skin": str(rng.choice(list(SKINS))),
        "hand_scale": float(np.round(rng.uniform(0.88, 1.10), 2)),
        "table": str(rng.choice(list(TEXTURES))),
        "shutter": float(np.round(rng.uniform(0.15, 0.5), 2)),
    }


def _drawn(rng: np.random.Generator, words: Sequence[Entrance]) -> Entrance:
    return words[int(rng.integers(len(words)))]
