"""Pictures of an episode, from the states that it kept."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from handloom.sim.rendering import Camera, Painter
from handloom.sim.tabletop.scene import Scene
from handloom.sim.tabletop.simulation import FRAME_S, Simulation

FILM_HZ = 1.0 / FRAME_S
CAMERA = Camera("corner", 480, 360)


def film(scene: Scene, states: NDArray[np.float32], backend: str, every: int = 1) -> Iterator[NDArray[np.uint8]]:
    """Pictures (h, w, 3) RGB of the states (F, nq) of an episode, each `every`th, and the last."""
    import mujoco

    sim = Simulation(scene)
    painter = Painter(sim, CAMERA, backend)
    try:
        for number in [*range(0, len(states) - 1, every), len(states) - 1]:
            sim.data.qpos[:] = states[number]
            mujoco.mj_forward(sim.model, sim.data)
            yield painter.picture()
    finally:
        painter.close()
