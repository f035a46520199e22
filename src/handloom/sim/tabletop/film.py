"""Pictures of an episode, from the states that it kept."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from handloom.sim.rendering import Camera, Painter
from handloom.sim.tabletop.model import load
from handloom.sim.tabletop.scene import START, Scene
from handloom.sim.tabletop.simulation import FRAME_S, Simulation

FILM_HZ = 1.0 / FRAME_S
CAMERA = Camera("corner", 480, 360)


def picture(sim: Simulation, backend: str) -> NDArray[np.uint8]:
    """(h, w, 3) RGB of a simulation as it is now."""
    painter = Painter(sim, CAMERA, backend)
    try:
        return painter.picture()
    finally:
        painter.close()


@dataclass(frozen=True)
class _Shown:
    model: Any
    data: Any


def film(scene: Scene, states: NDArray[np.float32], backend: str, every: int = 1) -> Iterator[NDArray[np.uint8]]:
    """Pictures (h, w, 3) RGB of the states (F, nq) of an episode, each `every`th, and the last; a disc under each
    thing's goal, as wide as the tolerance."""
    import mujoco

    model = load(scene, marks=True)
    shown = _Shown(model, mujoco.MjData(model))
    painter = Painter(shown, CAMERA, backend)
    try:
        for number in [*range(0, len(states) - 1, every), len(states) - 1]:
            shown.data.qpos[:] = states[number]
            mujoco.mj_kinematics(model, shown.data)
            _put_marks(scene, shown)
            mujoco.mj_forward(model, shown.data)
            yield painter.picture()
    finally:
        painter.close()


def _put_marks(scene: Scene, shown: _Shown) -> None:
    """Each disc to where the lower side of its thing shall be, beside the thing that the goal is relative to as it
    stands now."""
    for number, goal in enumerate(scene.goals):
        thing, base = scene.thing(goal.thing), scene.thing(goal.thing if goal.beside == START else goal.beside)
        if thing is None or base is None:
            continue
        place = base.pose[:3, 3] if goal.beside == START else shown.data.body(goal.beside).xpos
        at = place + np.array(goal.place_m) - [0.0, 0.0, 0.5 * thing.size_m[2] - 0.002]
        shown.data.mocap_pos[shown.model.body(f"goal_{number}").mocapid[0]] = at
