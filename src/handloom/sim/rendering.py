"""Pictures of a world, by OpenGL without a screen: EGL where there is a driver for it, else OSMesa, in software.

A process can load one of the two; which one works is found out in processes of their own, once.
"""

from __future__ import annotations

import importlib
import subprocess
import sys
from dataclasses import dataclass
from functools import cache
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from handloom.errors import ConfigError
from handloom.sim.world import require_simulator

BACKENDS = ("egl", "osmesa")
CAMERAS = ("corner", "corner2", "corner3", "corner4", "topview", "behindGripper", "gripperPOV")
LIBRARIES = "apt-get install libosmesa6 (in software, on any machine), or libegl1 with a driver"
_PROBE = (
    "import importlib, mujoco; "
    "context = importlib.import_module('mujoco.{name}').GLContext(16, 16); context.make_current(); "
    "model = mujoco.MjModel.from_xml_string('<mujoco/>'); "
    "mujoco.MjrContext(model, mujoco.mjtFontScale.mjFONTSCALE_150)"
)
_MAX_GEOMS = 2000


@dataclass(frozen=True)
class Camera:
    """One of a world's cameras and the size of its pictures in pixels, both even.

    shadows: whether they are drawn. In software they take four fifths of a small picture's time.
    """

    name: str
    width: int
    height: int
    shadows: bool = False

    def __post_init__(self) -> None:
        if self.name not in CAMERAS:
            raise ConfigError(f"there is no camera {self.name!r}", f"one of: {', '.join(CAMERAS)}")
        if self.width % 2 or self.height % 2 or min(self.width, self.height) < 16:
            raise ConfigError(f"pictures of {self.width}x{self.height} px", "both sides must be even, and 16 or more")


@cache
def backends() -> dict[str, str]:
    """`{egl, osmesa: why it does not work here; empty where it does}`. Raises ModuleNotFoundError: no simulator."""
    require_simulator()
    found = {}
    for name in BACKENDS:
        told = subprocess.run([sys.executable, "-c", _PROBE.format(name=name)], capture_output=True, text=True)
        lines = told.stderr.strip().splitlines()
        found[name] = "" if told.returncode == 0 else lines[-1][:200] if lines else f"it ended with {told.returncode}"
        if not found[name]:
            break
    return found


def backend() -> str:
    """The first of `BACKENDS` that works here. Raises ConfigError, with what is missing and how to get it."""
    found = backends()
    for name, problem in found.items():
        if not problem:
            return name
    told = "; ".join(f"{name}: {problem}" for name, problem in found.items())
    asked = [name for name in ("MUJOCO_GL", "PYOPENGL_PLATFORM") if name in told]
    hint = f"unset {' and '.join(asked)} in the environment" if asked else LIBRARIES
    raise ConfigError(f"this machine cannot draw pictures: {told}", hint)


class Drawn(Protocol):
    """What can be drawn: MuJoCo's model and state."""

    @property
    def model(self) -> Any: ...

    @property
    def data(self) -> Any: ...


class Painter:
    """Draws one world through one camera.

    Args:
        backend: what `backend()` gave; one in a process.
    """

    def __init__(self, world: Drawn, camera: Camera, backend: str) -> None:
        import mujoco

        self._world, self._size = world, (camera.width, camera.height)
        context: Any = importlib.import_module(f"mujoco.{backend}").GLContext
        model = world.model
        model.vis.global_.offwidth = max(model.vis.global_.offwidth, camera.width)
        model.vis.global_.offheight = max(model.vis.global_.offheight, camera.height)
        self._context = context(camera.width, camera.height)
        self._context.make_current()
        self._scene = mujoco.MjvScene(model, _MAX_GEOMS)
        self._scene.flags[mujoco.mjtRndFlag.mjRND_SHADOW] = camera.shadows
        self._gl = mujoco.MjrContext(model, mujoco.mjtFontScale.mjFONTSCALE_150)
        mujoco.mjr_setBuffer(mujoco.mjtFramebuffer.mjFB_OFFSCREEN, self._gl)
        self._rect = mujoco.MjrRect(0, 0, camera.width, camera.height)
        self._camera, self._option = mujoco.MjvCamera(), mujoco.MjvOption()
        self._camera.type = mujoco.mjtCamera.mjCAMERA_FIXED
        self._camera.fixedcamid = number = model.camera(camera.name).id
        # Meta-World's cameras of the corners hang upside down: the y axis of their picture points down in the world.
        self._turned = bool(world.data.cam_xmat[number].reshape(3, 3)[2, 1] < -0.1)

    def picture(self) -> NDArray[np.uint8]:
        """(h, w, 3) RGB of the world as it is now, with what is up in the world above."""
        import mujoco

        self._context.make_current()
        every = mujoco.mjtCatBit.mjCAT_ALL
        model, data = self._world.model, self._world.data
        mujoco.mjv_updateScene(model, data, self._option, None, self._camera, every, self._scene)
        mujoco.mjr_render(self._rect, self._scene, self._gl)
        pixels = np.empty((self._size[1], self._size[0], 3), np.uint8)
        mujoco.mjr_readPixels(pixels, None, self._rect, self._gl)
        return np.ascontiguousarray(pixels[:, ::-1] if self._turned else pixels[::-1])  # rows come from below

    def close(self) -> None:
        """Free the context's memory."""
        self._gl.free()
        self._context.free()
