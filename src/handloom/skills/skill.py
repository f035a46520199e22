"""A skill: semantic and geometric constraints, as they are kept in the table `skills`."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from handloom.skills.execution import NUM_KEYPOINTS, Step

Floats = NDArray[np.float64]

FORMAT = 1


@dataclass(frozen=True)
class Region:
    """A region of grasps around one pose, like a task space region.

    middle: (4, 4) thing_from_hand. low, high: (6) bounds of x, y, z (metres, axes of the thing) and of the rotation
    vector (radians) from the middle pose. num: grasps that taught it.

    Source of the form: Berenson, Srinivasa and Kuffner, Task Space Regions, IJRR 30(12), 2011.
    """

    middle: Floats
    low: Floats
    high: Floats
    num: int


@dataclass(frozen=True)
class PathBounds:
    """Bounds of a trajectory at its 10 keypoints, as a function of boxes.

    low, high: (10, 6) metres and radians. by_box, by_master_box: (3) factors of the half size of the moved thing's box
    and of the master's box, along each axis, that are added to the places at the end (and in proportion on the way).
    """

    low: Floats
    high: Floats
    by_box: Floats
    by_master_box: Floats


@dataclass(frozen=True)
class Constraint:
    """What is asked of one step. step: phase, words, hand and roles, without geometry. text: one sentence of the
    reader. support: share of the demonstrations that have the step. box, master_box: (6) those of the demonstrations
    in the middle; None: unknown."""

    step: Step
    text: str
    support: float
    regions: tuple[Region, ...] = ()
    gap_m: tuple[float, float] | None = None
    path: PathBounds | None = None
    box: Floats | None = None
    master_box: Floats | None = None

    @property
    def has_geometry(self) -> bool:
        """Whether a step of another clip can be compared by grasp or path."""
        return bool(self.regions) or self.path is not None


@dataclass(frozen=True)
class Skill:
    """A name, a task in words, and the constraints of its steps in order.

    clip_ids: what it was learned from. most_apart: how much the order of sub-tasks may differ (`order.apart`). carried:
    of each thing that is carried (`carrying.carryings`) the bounds of its whole path; empty: no clip has all of them.
    """

    name: str
    task: str
    constraints: tuple[Constraint, ...]
    clip_ids: tuple[str, ...]
    reader: str
    most_apart: float
    carried: tuple[Constraint, ...] = ()

    @property
    def steps(self) -> tuple[Step, ...]:
        return tuple(one.step for one in self.constraints)

    @property
    def words(self) -> str:
        return ", ".join(step.words for step in self.steps)

    @property
    def is_told(self) -> bool:
        """Whether it is known of any step what is done with a thing."""
        return any(step.is_told for step in self.steps)

    def for_task(self, task: str) -> Skill:
        """The same with other words of its task."""
        return replace(self, task=task)

    def to_json(self) -> str:
        """One JSON object; numbers are exact."""
        return json.dumps({"format": FORMAT, **_plain(asdict(self))}, allow_nan=False)

    @classmethod
    def from_json(cls, text: str) -> Skill:
        """The same from JSON of this version. Raises ValueError for another format, or a damaged one."""
        try:
            told = json.loads(text)
        except RecursionError as error:
            raise ValueError("JSON that is nested too deeply") from error
        its_format = told.get("format") if isinstance(told, dict) else None
        if its_format != FORMAT:
            raise ValueError(f"format {its_format!r}, expected {FORMAT}")
        try:
            return cls._from_fields(told)
        except (KeyError, TypeError, IndexError, AttributeError) as error:
            raise ValueError(f"format {FORMAT}, but not its fields: {type(error).__name__} {error}") from error

    @classmethod
    def _from_fields(cls, told: Mapping[str, Any]) -> Skill:
        constraints = tuple(_constraint(one) for one in told["constraints"])
        carried = tuple(_constraint(one) for one in told.get("carried", ()))
        clip_ids = tuple(told["clip_ids"])
        return cls(told["name"], told["task"], constraints, clip_ids, told["reader"], told["most_apart"], carried)


def without_geometry(step: Step) -> Step:
    """A step's words, hand and roles."""
    return replace(
        step, start_s=0.0, end_s=0.0, grasp=None, path=None, box=None, master_box=None, gap=None, error_m=0.0
    )


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, np.ndarray):
        return value.tolist()
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value


def _array(value: Sequence[Any] | None, *shape: int) -> Any:
    """Raises ValueError for another shape."""
    if value is None:
        return None
    out = np.array(value, float)
    if out.shape != shape:
        raise ValueError(f"numbers of shape {out.shape}, expected {shape}")
    return out


def _constraint(told: Mapping[str, Any]) -> Constraint:
    regions = (
        Region(_array(one["middle"], 4, 4), _array(one["low"], 6), _array(one["high"], 6), one["num"])
        for one in told["regions"]
    )
    return Constraint(
        Step(**told["step"]),
        told["text"],
        told["support"],
        tuple(regions),
        None if told["gap_m"] is None else (told["gap_m"][0], told["gap_m"][1]),
        None if told["path"] is None else _path(told["path"]),
        _array(told["box"], 6),
        _array(told["master_box"], 6),
    )


def _path(told: Mapping[str, Any]) -> PathBounds:
    low, high = (_array(told[name], NUM_KEYPOINTS, 6) for name in ("low", "high"))
    return PathBounds(low, high, _array(told["by_box"], 3), _array(told["by_master_box"], 3))
