"""The vocabulary: what the hands and the object do over a clip.

Everything here is in the acting hand's own terms, as if it were the right hand; `stage` mirrors a left-handed clip.
Times are shares of the clip, 0 to 1.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from handloom.synth.poses import ease, ease_poses, elbow_position, hand_rotation

Array = NDArray[np.float64]


@dataclass(frozen=True)
class ObjectShape:
    """A textured solid standing on the table. half_m: half extents x, y, z; a cylinder's radius is half_m[0]."""

    kind: str  # "box" or "cylinder"
    half_m: tuple[float, float, float]
    colour: tuple[float, float, float]
    texture: str


NOUNS: dict[str, ObjectShape] = {
    "cup": ObjectShape("cylinder", (0.036, 0.036, 0.045), (0.25, 0.45, 0.75), "stripes"),
    "can": ObjectShape("cylinder", (0.030, 0.030, 0.055), (0.75, 0.25, 0.20), "label"),
    "jar": ObjectShape("cylinder", (0.040, 0.040, 0.050), (0.35, 0.60, 0.40), "label"),
    "box": ObjectShape("box", (0.045, 0.032, 0.040), (0.80, 0.70, 0.35), "checker"),
    "block": ObjectShape("box", (0.030, 0.030, 0.030), (0.30, 0.55, 0.60), "speckle"),
    "cloth": ObjectShape("box", (0.075, 0.060, 0.004), (0.85, 0.85, 0.80), "checker"),
}


@dataclass(frozen=True)
class HandScript:
    """One hand over T frames. grip_m: (T, 3) world place of the grip point, `offset_m` (3,) in the hand's frame.

    pronation, extension, deviation: (T,) radians (see `poses.hand_rotation`). fingers_rad: (T, 5, 4).
    """

    grip_m: Array
    offset_m: Array
    pronation: Array
    extension: Array
    deviation: Array
    fingers_rad: Array


@dataclass(frozen=True)
class Script:
    """Both hands and the object over T frames. centre_m: (T, 3). turn: (T, 3, 3) rotation of the object."""

    main: HandScript
    other: HandScript
    centre_m: Array
    turn: Array


@dataclass(frozen=True)
class Action:
    """verb, narration with `{noun}`, the script, a noun where the action acts on no object."""

    verb: str
    narration: str
    script: Callable[[np.random.Generator, Array, ObjectShape], Script]
    noun: str | None = None


def wrist_and_rotation(script: HandScript, shoulder_m: Array) -> tuple[Array, Array, Array]:
    """Wrist (T, 3), world-from-hand rotation (T, 3, 3) and elbow (T, 3) that bring the grip point where it belongs.

    The rotation depends on the wrist through the forearm, so the three are found by fixed-point iteration.
    """
    wrist = script.grip_m - [0.0, 0.08, 0.0]
    for _ in range(8):
        elbow = elbow_position(shoulder_m, wrist)
        rotation = hand_rotation(elbow, wrist, script.pronation, script.extension, script.deviation)
        wrist = script.grip_m - np.einsum("tij,j->ti", rotation, script.offset_m)
    return wrist, rotation, elbow


_REST = np.array([0.15, -0.03, 0.045])
_PALM = np.array([0.0, 0.085, -0.045])  # centre of what a closed hand holds
_KNUCKLES = np.array([0.0, 0.09, -0.016])  # under a flat hand


def _xyz(x: float, y: float, z: float) -> Array:
    return np.array([x, y, z])


def _constant(value: float, s: Array) -> Array:
    return np.full(len(s), np.radians(value))


def _yaw(angle: Array) -> Array:
    c, s, zero, one = np.cos(angle), np.sin(angle), np.zeros(len(angle)), np.ones(len(angle))
    return np.stack([np.stack([c, -s, zero], 1), np.stack([s, c, zero], 1), np.stack([zero, zero, one], 1)], 1)


def _wiggle(rng: np.random.Generator, s: Array, size: float, shape: tuple[int, ...]) -> Array:
    """(T, *shape) smooth small motion: three slow sines with random phases."""
    phase, speed = rng.uniform(0, 2 * np.pi, (3, *shape)), rng.uniform(0.6, 1.8, (3, *shape))
    at = s.reshape(-1, *(1,) * len(shape))
    return size * sum(np.sin(2 * np.pi * speed[i] * at + phase[i]) / (i + 1) for i in range(3))


def _idle(rng: np.random.Generator, s: Array) -> HandScript:
    """The helping hand: rests near the table, opens and closes a little, slides a few centimetres."""
    start = np.array([0.15, 0.0, 0.035]) + rng.uniform(-0.02, 0.02, 3) * [1, 1, 0]
    path = ease([0.1, 0.5, 0.9], [start, start + _xyz(-0.02, rng.uniform(0.01, 0.05), 0.01), start], s)
    fingers = ease_poses([0.0, 0.45, 1.0], ["relaxed", str(rng.choice(["flat", "preshape"])), "relaxed"], s)
    return HandScript(path + _wiggle(rng, s, 0.003, (3,)), _KNUCKLES, _constant(rng.uniform(0, 25), s),
                      _constant(8, s), _constant(rng.uniform(-6, 6), s),
                      fingers + _wiggle(rng, s, 0.02, (5, 4)))  # fmt: skip


def _object_place(rng: np.random.Generator, shape: ObjectShape) -> Array:
    return np.array([rng.uniform(0.02, 0.09), rng.uniform(0.06, 0.12), shape.half_m[2]])


def _grip(centre: Array, shape: ObjectShape) -> Array:
    """Where the hand takes an object that stands at `centre`: its upper half."""
    return centre + _xyz(0.0, 0.0, 0.35 * shape.half_m[2])


def _reach(rng: np.random.Generator, s: Array, shape: ObjectShape) -> Script:
    place = _object_place(rng, shape)
    grip = ease([0.08, 0.75], [_REST, _grip(place, shape)], s)
    grip[:, 2] += 0.05 * np.sin(np.pi * np.clip((s - 0.08) / 0.67, 0, 1))
    fingers = ease_poses([0.1, 0.5, 0.7, 0.9], ["relaxed", "spread", "preshape", "grasp"], s)
    main = HandScript(grip + _wiggle(rng, s, 0.002, (3,)), _PALM, np.radians(ease([0.1, 0.7], [10.0, 40.0], s)),
                      _constant(6, s), _constant(0, s), fingers)  # fmt: skip
    still = np.tile(place, (len(s), 1))
    return Script(main, _idle(rng, s), still, _yaw(np.zeros(len(s))))


def _pick_place(rng: np.random.Generator, s: Array, shape: ObjectShape) -> Script:
    place = _object_place(rng, shape)
    goal = place + _xyz(rng.uniform(-0.14, -0.09), rng.uniform(-0.04, 0.04), 0.0)
    lift = 0.5 * (place + goal) + _xyz(0.0, -0.02, rng.uniform(0.08, 0.12))
    held = ease([0.36, 0.58, 0.80], [place, lift, goal], s)
    grip = _grip(held, shape)
    grip = grip + ease([0.04, 0.30], [_REST - _grip(place, shape), np.zeros(3)], s)
    grip = grip + ease([0.86, 1.0], [np.zeros(3), [0.05, -0.06, 0.05]], s)
    grip[:, 2] += 0.04 * np.sin(np.pi * np.clip((s - 0.04) / 0.26, 0, 1))
    names = ["relaxed", "preshape", "preshape", "grasp", "grasp", "preshape", "relaxed"]
    fingers = ease_poses([0.02, 0.20, 0.28, 0.36, 0.80, 0.88, 1.0], names, s)
    main = HandScript(grip, _PALM, np.radians(ease([0.0, 0.3], [10.0, 42.0], s)), _constant(6, s), _constant(0, s),
                      fingers)  # fmt: skip
    return Script(main, _idle(rng, s), held, _yaw(np.zeros(len(s))))


def _push(rng: np.random.Generator, s: Array, shape: ObjectShape) -> Script:
    place = _object_place(rng, shape) + _xyz(0.0, -0.01, 0.0)
    far = place + _xyz(rng.uniform(-0.05, 0.02), rng.uniform(0.08, 0.12), 0.0)
    centre = ease([0.35, 0.85], [place, far], s)
    behind = centre + _xyz(0.012, -shape.half_m[1] - 0.012, 0.35 * shape.half_m[2] + 0.012)
    grip = behind + ease([0.05, 0.32], [_REST - place, np.zeros(3)], s)
    fingers = ease_poses([0.05, 0.30, 1.0], ["relaxed", "flat", "flat"], s)
    main = HandScript(grip, np.array([0.0, 0.165, -0.016]), np.radians(ease([0.0, 0.3], [5.0, 20.0], s)),
                      _constant(0, s), _constant(0, s), fingers)  # fmt: skip
    turn = _yaw(ease([0.35, 0.85], [0.0, rng.uniform(-0.25, 0.25)], s))
    return Script(main, _idle(rng, s), centre, turn)


def _wave(rng: np.random.Generator, s: Array, shape: ObjectShape) -> Script:
    raised = np.array([rng.uniform(0.06, 0.10), 0.08, rng.uniform(0.13, 0.17)])
    grip = ease([0.02, 0.25, 0.85, 1.0], [_REST, raised, raised, _REST], s)
    on = ease([0.15, 0.3, 0.8, 0.95], [0.0, 1.0, 1.0, 0.0], s)
    swing = on * np.sin(2 * np.pi * rng.uniform(2.2, 3.0) * s)
    grip[:, 0] += 0.035 * swing
    fingers = ease_poses([0.02, 0.25, 0.85, 1.0], ["relaxed", "spread", "spread", "relaxed"], s)
    extension = np.radians(ease([0.05, 0.25, 0.85, 1.0], [8.0, 32.0, 32.0, 8.0], s))
    main = HandScript(grip, _KNUCKLES, _constant(8, s), extension, -np.radians(16) * swing, fingers)
    still = np.tile(_object_place(rng, shape) + _xyz(-0.06, 0.14, 0.0), (len(s), 1))
    return Script(main, _idle(rng, s), still, _yaw(np.zeros(len(s))))


def _wipe(rng: np.random.Generator, s: Array, shape: ObjectShape) -> Script:
    middle = np.array([rng.uniform(0.02, 0.07), rng.uniform(0.05, 0.09), shape.half_m[2]])
    turns = 2 * np.pi * rng.uniform(1.6, 2.4) * ease([0.22, 1.0], [0.0, 1.0], s) + rng.uniform(0, 2 * np.pi)
    radius = ease([0.2, 0.4], [0.0, 0.05], s)[:, None]
    circle = radius * np.stack([1.2 * np.cos(turns), np.sin(turns), np.zeros_like(s)], 1)
    centre = middle + circle
    grip = centre + _xyz(0.0, 0.0, shape.half_m[2]) + ease([0.02, 0.2], [_REST - middle, np.zeros(3)], s)
    fingers = ease_poses([0.02, 0.2], ["relaxed", "flat"], s)
    main = HandScript(grip, _KNUCKLES, _constant(4, s), np.radians(ease([0.0, 0.2], [8.0, 16.0], s)),
                      np.radians(8) * np.sin(turns), fingers + _wiggle(rng, s, 0.02, (5, 4)))  # fmt: skip
    return Script(main, _idle(rng, s), centre, _yaw(0.15 * np.sin(turns) * radius[:, 0] / 0.05))


def _rotate(rng: np.random.Generator, s: Array, shape: ObjectShape) -> Script:
    place = _object_place(rng, shape) + _xyz(0.01, 0.0, 0.0)
    top = place + _xyz(0.0, 0.0, shape.half_m[2] + 0.004)
    grip = np.tile(top, (len(s), 1)) + ease([0.03, 0.25], [_REST - top, np.zeros(3)], s)
    grip[:, 2] += 0.04 * np.sin(np.pi * np.clip((s - 0.03) / 0.22, 0, 1))
    angle = np.radians(ease([0.30, 0.60, 0.62, 0.95], [-18.0, 24.0, 24.0, -18.0], s))
    fingers = ease_poses([0.02, 0.15, 0.26], ["relaxed", "spread", "claw"], s)
    main = HandScript(grip, np.array([-0.006, 0.125, -0.052]), _constant(12, s), _constant(-6, s), angle, fingers)
    return Script(main, _idle(rng, s), np.tile(place, (len(s), 1)), _yaw(angle - angle[0]))


ACTIONS: dict[str, Action] = {
    "reach": Action("reach", "reach for the {noun}", _reach),
    "pick-place": Action("place", "pick up the {noun} and place it", _pick_place),
    "push": Action("push", "push the {noun} across the table", _push),
    "wave": Action("wave", "wave with one hand", _wave, noun="hand"),
    "wipe": Action("wipe", "wipe the table with the {noun}", _wipe),
    "rotate": Action("rotate", "rotate the {noun}", _rotate),
}
