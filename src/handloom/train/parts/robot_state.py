"""A robot's state by the names of its numbers: the paper's ten numbers where it holds a pose, else unchanged."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from handloom.errors import ConfigError

Floats = NDArray[np.float64]

POSE_NAMES = ("x", "y", "z", "r1", "r2", "r3", "r4", "r5", "r6", "gripper")
_EULER = (("roll", "pitch", "yaw"), ("rx", "ry", "rz"), ("euler_x", "euler_y", "euler_z"), ("alpha", "beta", "gamma"))
_QUATERNION = (("qx", "qy", "qz", "qw"), ("quat_x", "quat_y", "quat_z", "quat_w"), ("rot_x", "rot_y", "rot_z", "rot_w"))
_ROT6D = tuple(
    tuple(f"{stem}{i}" for i in span) for stem in ("rot6d_", "r6d_", "r") for span in (range(6), range(1, 7))
)
_GRIPPER = ("gripper", "gripper_width", "gripper_opening", "gripper_opening_width", "gripper_state", "gripper_action")
_PREFIXES = re.compile(r"^(?:tcp|ee|eef|end_effector|pose|pos|position|state|action|robot|arm|main)[._ ]+")
_SUFFIXES = re.compile(r"[._ ](?:pos|position|m|rad)$")


@dataclass(frozen=True)
class StateForm:
    """Which numbers of a state are the parts of a pose.

    xyz: three indices. rotation: indices of 3 Euler angles, 4 numbers of a quaternion (x, y, z, w) or 6 of two columns.
    gripper: its index, or None (its number is then NaN, which is masked). euler: `XYZ`, `xyz`, see `from_euler`.
    things: (index, axis) of each further number that is kept: axis 0, 1 or 2 of a place, which is then told from the
    hand, or -1.
    """

    xyz: tuple[int, ...]
    rotation: tuple[int, ...]
    gripper: int | None
    euler: str
    things: tuple[tuple[int, int], ...] = ()

    @property
    def width(self) -> int:
        """Numbers of a converted state."""
        return len(POSE_NAMES) + len(self.things)

    @property
    def own(self) -> list[int]:
        """Indices of the robot's own numbers in a state, in its order."""
        parts = {*self.xyz, *self.rotation} | (set() if self.gripper is None else {self.gripper})
        return sorted(parts)

    def told(self, state: NDArray[np.floating]) -> Floats:
        """(..., S) as given to (..., things), places as seen from the hand."""
        state = np.asarray(state, np.float64)
        seen = [state[..., i] - (state[..., self.xyz[axis]] if axis >= 0 else 0.0) for i, axis in self.things]
        return np.stack(seen, axis=-1) if seen else np.empty((*state.shape[:-1], 0))

    def convert(self, state: NDArray[np.floating]) -> Floats:
        """(..., S) as given to (..., 10 + things): xyz in the dataset's unit, the first two columns of the rotation,
        gripper, things."""
        state = np.asarray(state, np.float64)
        turn = state[..., list(self.rotation)]
        if len(self.rotation) != 6:
            matrix = from_euler(turn, self.euler) if len(self.rotation) == 3 else from_quaternion(turn)
            turn = np.concatenate([matrix[..., 0], matrix[..., 1]], axis=-1)
        grip = np.full((*state.shape[:-1], 1), np.nan) if self.gripper is None else state[..., [self.gripper]]
        return np.concatenate([state[..., list(self.xyz)], turn, grip, self.told(state)], axis=-1)


def plain_name(name: str) -> str:
    """`x` for `observation.ee.x`, `EE_x` and `x`: the name without the part of the robot and without the unit."""
    short = name.strip().lower().removeprefix("observation.")
    while (stripped := _PREFIXES.sub("", short.replace("tcp_", "tcp.").replace("ee_", "ee."))) != short:
        short = stripped
    return _SUFFIXES.sub("", short)


def thing_name(name: str) -> str:
    """`goal.x` for `observation.environment_state.goal.x`."""
    return plain_name(name).removeprefix("environment_state.")


def form_of(
    names: Sequence[str] | None, euler: str = "XYZ", things: bool | Literal["places"] = False
) -> StateForm | None:
    """The form of a state with these names; None where it holds no pose of the end effector (joint angles, say).

    things: keep the other numbers, too; those of places (`NAME.x`, `.y`, `.z`) are told from the hand. `places`: those
    alone.
    """
    if not names:
        return None
    at: dict[str, int] = {}
    for index, name in enumerate(names):
        at.setdefault(plain_name(name), index)
    if not {"x", "y", "z"} <= at.keys():
        return None
    for wanted in (*_QUATERNION, *_ROT6D, *_EULER):
        if all(name in at for name in wanted):
            grip = next((at[name] for name in _GRIPPER if name in at), None)
            form = StateForm(tuple(at[n] for n in "xyz"), tuple(at[n] for n in wanted), grip, euler)
            used = {*form.xyz, *form.rotation, grip}
            rest = [i for i in range(len(names)) if i not in used] if things else []
            axes = ["xyz".find(thing_name(names[i]).rpartition(".")[2]) for i in rest]
            found = zip(rest, axes, strict=True)
            return replace(form, things=tuple(one for one in found if things is True or one[1] >= 0))
    return None


def check_things(form: StateForm | None, names: Sequence[str] | None, uri: str) -> None:
    """Raise ConfigError where a recipe is to be told of things, and the states of the database `uri` have none."""
    if form is None or not form.things:
        raise ConfigError(
            f"things are asked for, and the states of {uri} have none beside a pose: {list(names or ())}",
            "ingest with `--state observation.state --state observation.environment_state`, or set things = false",
        )


def from_euler(angles_rad: NDArray[np.floating], order: str = "XYZ") -> Floats:
    """(..., 3) angles about x, y and z to (..., 3, 3). `XYZ`: about the moving axes, Rx Ry Rz (ARM4R's robots); `xyz`:
    about the fixed axes, Rz Ry Rx (roll, pitch and yaw as PyBullet and CALVIN mean them)."""
    x, y, z = (_about(axis, np.asarray(angles_rad, np.float64)[..., axis]) for axis in range(3))
    return x @ y @ z if order == "XYZ" else z @ y @ x


def _about(axis: int, angle_rad: Floats) -> Floats:
    out = np.zeros((*angle_rad.shape, 3, 3))
    i, j = (axis + 1) % 3, (axis + 2) % 3
    out[..., axis, axis] = 1.0
    out[..., i, i] = out[..., j, j] = np.cos(angle_rad)
    out[..., j, i] = np.sin(angle_rad)
    out[..., i, j] = -out[..., j, i]
    return out


def from_quaternion(quaternion: NDArray[np.floating]) -> Floats:
    """(..., 4) x, y, z, w of any length but 0 to (..., 3, 3); NaN for a length of 0."""
    q = np.asarray(quaternion, np.float64)
    length = np.linalg.norm(q, axis=-1, keepdims=True)
    x, y, z, w = np.moveaxis(np.where(length > 0, q, np.nan) / np.where(length > 0, length, 1), -1, 0)
    rows = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
        [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
        [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
    ]
    return np.stack([np.stack(row, axis=-1) for row in rows], axis=-2)
