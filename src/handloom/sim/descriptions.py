"""Descriptions of robots (MJCF): of a name, inside an installed package; or a file or folder of the user's.

`robosuite`'s wheel carries the files with their meshes. It is not imported: that would open a viewer's libraries.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from handloom.errors import ConfigError

PACKAGE = "robosuite"
_ASSETS = "models/assets"
NAMED = {
    "gr1": "robots/gr1/robot.xml",  # Fourier GR1T2: legs, waist, head, two arms of 7 joints; no hands
    "panda": "robots/panda/robot.xml",  # Franka Emika's arm of 7 joints; no gripper
    "panda_gripper": "grippers/panda_gripper.xml",
    "fourier_left_hand": "grippers/fourier_left_hand.xml",
    "fourier_right_hand": "grippers/fourier_right_hand.xml",
}
"""By name: the file in `robosuite`'s assets."""
SUFFIXES = (".xml", ".mjcf", ".urdf")


def find_description(name: str) -> Path:
    """The file that describes a robot.

    Args:
        name: a key of `NAMED`; or the path of an MJCF or URDF file; or of a folder with one, as in MuJoCo Menagerie
            (`unitree_g1/` with `g1.xml` beside `scene.xml`).

    Raises:
        ConfigError: there is no such name or file; a folder has none, or several.
        ModuleNotFoundError: a name whose package is not installed.
    """
    if name in NAMED:
        return _packaged(name)
    path = Path(name).expanduser()
    if path.is_dir():
        return _in_folder(path)
    if not path.is_file():
        known = f"one of {', '.join(NAMED)}, or the path of an MJCF file or of a folder with one"
        raise ConfigError(f"there is no robot {name!r}", known)
    if path.suffix.lower() not in SUFFIXES:
        raise ConfigError(f"{path} is no description of a robot", f"expected a file {', '.join(SUFFIXES)}")
    return path.resolve()


def open_spec(path: Path) -> Any:
    """The description as an `mujoco.MjSpec`, to be changed and `compiled`. Raises ConfigError: it cannot be read."""
    import mujoco

    try:
        return mujoco.MjSpec.from_file(str(path))
    except ValueError as error:
        raise _unreadable(path, error) from error


def compiled(spec: Any, path: Path) -> Any:
    """The `mujoco.MjModel` of a spec that was opened from `path`. GR1's meshes take 1.5 s of CPU.

    Raises ConfigError where MuJoCo refuses it, such as for a mesh that is not there.
    """
    try:
        return spec.compile()
    except ValueError as error:
        raise _unreadable(path, error) from error


def require_joints(spec: Any, names: Iterable[str], description: str) -> None:
    """Raise ConfigError if a spec lacks a joint, with the joint's name and similar ones that there are."""
    there = [joint.name for joint in spec.joints]
    missing = [name for name in names if name not in there]
    if missing:
        near = get_close_matches(missing[0], there, n=3, cutoff=0.4) or there
        raise ConfigError(
            f"the robot {description} has no joint {', '.join(missing)}",
            f"names that it has: {', '.join(name for name in near if name) or 'none'}",
        )


def _unreadable(path: Path, error: ValueError) -> ConfigError:
    first = str(error).strip().splitlines()[0]
    hint = "its meshes must lie beside it; `python -m mujoco.viewer --mjcf FILE` shows what MuJoCo makes of it"
    return ConfigError(f"MuJoCo cannot read the robot {path}: {first}", hint)


def _packaged(name: str) -> Path:
    spec = importlib.util.find_spec(PACKAGE)
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError(f"No module named {PACKAGE!r}: it carries the robot {name!r}", name=PACKAGE)
    path = Path(spec.origin).parent / _ASSETS / NAMED[name]
    if not path.is_file():
        raise ConfigError(f"the package {PACKAGE} here has no {path.name} of {name!r}: {path}", "pip install '.[sim]'")
    return path


def _in_folder(folder: Path) -> Path:
    files = sorted(path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES)
    robots = [path for path in files if not path.stem.startswith("scene")]
    named = [path for path in robots if folder.resolve().name.endswith(path.stem)]
    found = named if len(named) == 1 else robots
    if len(found) != 1:
        there = ", ".join(path.name for path in found) or "none"
        raise ConfigError(f"{folder} has {len(found)} descriptions of robots: {there}", "name the file")
    return found[0].resolve()
