"""Things on a table that nobody touches."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from handloom.synth.objects import NOUNS, STANDALONE, varied
from handloom.synth.script.scene import SceneSpec
from handloom.synth.script.timeline import Thing

TRIES = 60

Array = NDArray[np.float64]


def place_bystanders(
    spec: SceneSpec,
    things: Sequence[Thing],
    taken: Sequence[tuple[Array, float]],
    spare_m: float,
    gap_m: Callable[[Array, float], float] = lambda spot, height_m: np.inf,
) -> list[Thing]:
    """One to three things, or as many as the scene asks for, beside the moved `things`; fewer where there is no room.

    taken: paths (F, 2) over the table in metres, and the radius that is free of others around each. spare_m: between a
    thing and all that moves. gap_m: how far a spot (3,), for a thing of this height, is from what else moves.
    """
    rng = np.random.default_rng([spec.seed, 6])
    wanted = int(rng.integers(1, 4)) if spec.distractors is None else spec.distractors
    nouns = [noun for noun in STANDALONE if noun not in {thing.noun for thing in things}]
    around, out = list(taken), list[Thing]()
    for _ in range(TRIES):
        if len(out) == wanted:
            break
        noun = str(rng.choice(nouns))
        shape = varied(NOUNS[noun], rng)
        spot = np.array([rng.uniform(-0.30, 0.30), rng.uniform(0.02, 0.42), shape.half_m[2]])
        gaps = [float(np.linalg.norm(path - spot[:2], axis=-1).min()) - radius for path, radius in around]
        if min(*gaps, gap_m(spot, 2 * shape.half_m[2])) > shape.radius_m + spare_m:
            out.append(Thing(noun, shape, spot, float(rng.uniform(-np.pi, np.pi)), acted=False))
            around.append((spot[None, :2], shape.radius_m))
            nouns.remove(noun)
    return out
