"""The tasks: scripted demonstrations, and scenes in which a robot does the same, with the script's own goals."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from handloom.bench.segments.exact import Viewpoint, exact_scene
from handloom.geometry.interactions.scene import Scene as Observed
from handloom.geometry.interactions.segments import find_segments
from handloom.sim.tabletop.draw import How, Pattern, draw_scene
from handloom.sim.tabletop.scene import Goal, Kind, Scene
from handloom.skills.execution import Execution, read_execution
from handloom.stages.builtin.segments import Segments, segment_cell
from handloom.synth.objects import NOUNS
from handloom.synth.script.demo import spec_of_beats, turn_specs
from handloom.synth.script.scene import SceneSpec
from handloom.synth.script.sequence import push_then_put

NOISE_PX = 1.0
KINDS: Mapping[str, Kind] = {"open": "cup", "cylinder": "cylinder", "box": "box", "ball": "ball"}
THINGS, CARRIED_IN, CARRIED_ON = ("can", "cup", "block", "apple", "bottle"), ("apple", "block"), ("block", "can")
PUSHED = ("jar", "box", "can")
AT_THING, OF_THING = (0.03, 0.105), (0.03, 0.025)
AT_OTHER, OF_OTHER = (0.17, 0.13), (0.02, 0.03)
AT_INTO, OF_INTO = (-0.13, 0.115), (0.02, 0.025)
"""Where the script puts things: middle and half width."""


@dataclass(frozen=True)
class Task:
    """words: what is done. spec: the scene of a demonstration. patterns: the things of a robot's scene. goals: where
    the script puts them, in the middle of what it draws, with a tolerance as wide as that."""

    words: str
    spec: Callable[[int, int], SceneSpec]
    patterns: tuple[Pattern, ...]
    goals: Callable[[Scene], tuple[Goal, ...]]

    def segments(self, seed: int, number: int, viewpoint: Viewpoint | None = None) -> list[dict[str, Any]]:
        """Demonstration `number`, as the stage `segments` sees it: hands and points are exact but for a pixel."""
        return segments_in(exact_scene(self.spec(seed, number), NOISE_PX, number, viewpoint)[0])

    def execution(self, seed: int, number: int) -> Execution:
        """The steps of demonstration `number`."""
        return read_execution(f"{number:03d}", self.segments(seed, number))

    def scene(self, how: How, seed: int) -> Scene:
        """A robot's scene by the seed."""
        return draw_scene(self.patterns, self.goals, how, seed)


def segments_in(scene: Observed) -> list[dict[str, Any]]:
    """What the stage `segments` makes of what was seen of a clip."""
    settings = Segments.Settings()
    return [segment_cell(one) for one in find_segments(scene, settings.contact_m, settings.min_path_m).segments]


def _turn(turn: str) -> Callable[[int, int], SceneSpec]:
    return lambda seed, number: turn_specs(turn, number + 1, seed)[number]


def _put(things: tuple[str, ...], into: str) -> Callable[[int, int], SceneSpec]:
    def spec(seed: int, number: int) -> SceneSpec:
        rng = np.random.default_rng([seed, 11, number, *into.encode()])
        return spec_of_beats(rng, push_then_put(rng, str(rng.choice(things)), into))

    return spec


def _pattern(
    name: str, nouns: tuple[str, ...], place: tuple[float, float], spread: tuple[float, float], carried: bool
) -> Pattern:
    shapes = []
    for noun in nouns:
        x, y, z = (2 * half for half in NOUNS[noun].half_m)
        shapes.append((KINDS[NOUNS[noun].parts[0].kind], (x, y, z)))
    return Pattern(name, tuple(shapes), place, spread, carried)


PUSHED_AWAY = _pattern("A", PUSHED, AT_OTHER, OF_OTHER, False)
CARRIED = _pattern("A", THINGS, AT_THING, OF_THING, True)
INTO_BOWL = (_pattern("A", ("bowl",), AT_INTO, OF_INTO, False), _pattern("B", CARRIED_IN, AT_THING, OF_THING, True))
ONTO_BOX = (_pattern("A", ("box",), AT_INTO, OF_INTO, False), _pattern("B", CARRIED_ON, AT_THING, OF_THING, True))


def aside(x: float, y: float, tolerance_m: float) -> Callable[[Scene], tuple[Goal, ...]]:
    """The goal that a thing `A` stands so far, in metres, from where it stood."""
    return lambda scene: (Goal(thing="A", place_m=(x, y, 0.0), tolerance_m=tolerance_m),)


def _in_bowl(scene: Scene) -> tuple[Goal, ...]:
    bowl, thing = scene.things
    above = 0.008 + 0.5 * (thing.size_m[2] - bowl.size_m[2])
    return (Goal(thing="B", beside="A", place_m=(0, 0, above), tolerance_m=0.45 * bowl.size_m[0], upright=False),)


def _on_box(scene: Scene) -> tuple[Goal, ...]:
    box, thing = scene.things
    above = 0.5 * (thing.size_m[2] + box.size_m[2])
    return (Goal(thing="B", beside="A", place_m=(0, 0, above), tolerance_m=0.5 * max(box.size_m[:2])),)


TASKS: Mapping[str, Task] = {
    "push": Task("push a thing away", _turn("push"), (PUSHED_AWAY,), aside(-0.015, 0.10, 0.05)),
    "move": Task("put a thing aside", _turn("move"), (CARRIED,), aside(-0.13, 0.01, 0.05)),
    "carry": Task("carry a thing aside", _turn("lift-carry-place"), (CARRIED,), aside(-0.17, -0.02, 0.06)),
    "put in": Task("push a bowl away, put a thing into it", _put(CARRIED_IN, "bowl"), INTO_BOWL, _in_bowl),
    "put on": Task("push a box away, put a thing onto it", _put(CARRIED_ON, "box"), ONTO_BOX, _on_box),
}
"""By name. The last two have a master: a thing that was moved before, so that it is known."""
