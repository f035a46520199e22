"""A table with things on it: what stands where, and where it shall be in the end.

Frame: origin on the table before the robot, x to the right, y away from the robot, z up; metres. It is the frame of
the things of a skill: y away from who acts.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, ValidationError, model_validator

from handloom.errors import ConfigError
from handloom.schemas.settings import Frozen

Floats = NDArray[np.float64]

Kind = Literal["box", "cylinder", "cup", "ball"]
WALL_M = 0.004
TABLE_M = ((-0.7, 0.7), (-0.38, 0.62))
"""The table's edges, x and y."""
REACH = ((-0.32, 0.32), (-0.06, 0.25))
FROM_BASE_M = (0.36, 0.70)
"""Where things can stand so that the arm reaches them from above: x and y, and how far from its base."""
START = "start"
PAGE = "docs/vlmimic.md describes the file"


class Thing(Frozen):
    """One thing. Its frame: origin in the middle of its box, axes as the scene's where `yaw_deg` is 0."""

    name: str = Field(pattern=r"^[A-Za-z][A-Za-z0-9_]{0,20}$")
    """The letter of the skill (`A`, `B`), or the name of an obstacle."""
    kind: Kind
    """`cup`: a cylinder that is open above; a bowl is a wide one."""
    size_m: tuple[float, float, float]
    """Along x, y and z of its own frame, before `yaw_deg`."""
    place_m: tuple[float, float]
    """x and y of its middle; it stands on the table."""
    yaw_deg: float = 0.0
    grip_friction: float = Field(1.5, ge=0.01, le=2)
    """Sliding friction between its sides and the pads of the fingers, which are of rubber; on the table it has 0.5."""
    density: float = Field(350.0, ge=10, le=20000)
    """Kilograms in a cubic metre of what it is made of."""

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if not all(0.004 <= side <= 0.4 for side in self.size_m):
            raise ValueError(f"thing {self.name!r} is {self.size_m} m large; each side must be 0.004 to 0.4")
        if not all(math.isfinite(value) for value in (*self.place_m, self.yaw_deg)):
            raise ValueError(f"thing {self.name!r} stands at {self.place_m}, turned by {self.yaw_deg}")
        if not all(low <= at <= high for at, (low, high) in zip(self.place_m, TABLE_M, strict=True)):
            (left, right), (near, far) = TABLE_M
            table = f"x {left} to {right}, y {near} to {far} m"
            raise ValueError(f"thing {self.name!r} stands at {self.place_m}, beside the table: {table}")
        if self.name == START:
            raise ValueError(f"no thing can have the name {START!r}: goals mean a thing's own first place by it")
        if self.kind in ("cylinder", "cup") and abs(self.size_m[0] - self.size_m[1]) > 1e-6:
            raise ValueError(f"thing {self.name!r} is a {self.kind}, and its x and y sizes differ: {self.size_m}")
        return self

    @property
    def pose(self) -> Floats:
        """(4, 4) scene_from_thing where it stands."""
        out = np.eye(4)
        c, s = math.cos(math.radians(self.yaw_deg)), math.sin(math.radians(self.yaw_deg))
        out[:2, :2] = [[c, -s], [s, c]]
        out[:3, 3] = [*self.place_m, 0.5 * self.size_m[2]]
        return out

    @property
    def box_m(self) -> Floats:
        """(6,) least and largest x, y, z of its box along the scene's axes, from its middle."""
        half = 0.5 * np.array(self.size_m)
        if self.kind not in ("cylinder", "cup"):
            half[:2] = np.abs(self.pose[:2, :2]) @ half[:2]
        return np.concatenate([-half, half])


class Goal(Frozen):
    """Where a thing shall be in the end: its middle from the middle of `beside` (its own first place: `start`)."""

    thing: str
    beside: str = START
    place_m: tuple[float, float, float] = (0.0, 0.0, 0.0)
    tolerance_m: float = Field(0.05, gt=0, le=0.5)
    """Horizontally. Upwards half of the thing's height may be missing or too much, and 2 cm at least."""
    upright: bool = True
    """Whether it must stand as it did; balls may lie as they like."""

    @model_validator(mode="after")
    def _is_finite(self) -> Self:
        if not all(math.isfinite(value) for value in self.place_m):
            raise ValueError(f"the goal of {self.thing!r} is at {self.place_m}")
        return self


class Scene(Frozen):
    """Things of the skill by their letters, obstacles, and the goals that say whether an episode succeeded."""

    things: tuple[Thing, ...] = Field(min_length=1)
    obstacles: tuple[Thing, ...] = ()
    goals: tuple[Goal, ...] = ()

    @model_validator(mode="after")
    def _names(self) -> Self:
        names = [one.name for one in (*self.things, *self.obstacles)]
        if len(set(names)) < len(names):
            raise ValueError(f"two things have one name: {', '.join(names)}")
        for goal in self.goals:
            if goal.thing not in names or goal.beside not in (START, *names) or goal.beside == goal.thing:
                raise ValueError(f"a goal puts {goal.thing!r} beside {goal.beside!r}; things: {', '.join(names)}")
        return self

    def thing(self, name: str) -> Thing | None:
        return next((one for one in (*self.things, *self.obstacles) if one.name == name), None)

    def to_json(self) -> str:
        return json.dumps(self.model_dump(), indent=1)


PARTS: Mapping[str, type[Frozen]] = {"things": Thing, "obstacles": Thing, "goals": Goal}


def read_scene(path: Path) -> Scene:
    """A scene from a JSON file. Raises ConfigError if it cannot be read, or says something impossible."""
    try:
        return Scene.model_validate_json(path.read_text("utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"--scene {path} cannot be read: {error}", "`seen`, `unseen`, or a JSON file") from error
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "the scene"
        told = first["msg"].removeprefix("Value error, ")
        if first["type"] == "extra_forbidden":
            model = PARTS.get(str(first["loc"][0]), Scene) if len(first["loc"]) > 1 else Scene
            known = ", ".join(model.model_fields)
            raise ConfigError(f"--scene {path}: {where} is not known", f"one of {known}; {PAGE}") from error
        given = f", not {first['input']!r}" if isinstance(first["input"], int | float | str) and first["loc"] else ""
        raise ConfigError(f"--scene {path}: {where}: {told}{given}", PAGE) from error


def box_distance(a: Thing, b: Thing) -> float:
    """How far the upright boxes of two standing things are apart, negative where they overlap."""
    gap = np.abs(np.subtract(a.place_m, b.place_m)) - a.box_m[3:5] - b.box_m[3:5]
    return float(gap.max())
