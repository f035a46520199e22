"""The key `calibrated` that `handloom calibrate` adds to a clip's `camera` and `hand` JSON.

It keeps the values from before, which a new calibration takes as the assumed ones, and the estimate from this clip
alone (`seen`): extraction with a calibrated lens estimates none, so the clip's own estimate would be lost.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any

from pydantic import ConfigDict, TypeAdapter, ValidationError

from handloom.schemas.bounded_json import CAMERA, parse

KEY = "calibrated"
POSES = ("world_from_camera", "world_scale")  # do not depend on the lens, so they are not kept in `before`


@dataclass(frozen=True)
class Seen:
    """An estimate from one clip alone. value: focal length over the image's longer side, or length of a hand in metres.
    sigma: relative standard deviation of value. bend: of the lens, see `geometry.shared_value.bend_of`; None for
    a hand.
    """

    __pydantic_config__ = ConfigDict(extra="forbid")

    value: float
    sigma: float
    bend: float | None = None


@dataclass(frozen=True)
class Calibrated:
    """A calibration over several clips.

    by, group: which clips were taken together. num_clips: how many of them have an estimate. value, sigma, bend: the
    estimate from all of them. seen: the estimate from this clip. told: what was known of its lens without its motion:
    the assumed value and the estimate from its hands. before: the JSON before calibration, without poses; None: there
    was none.
    """

    __pydantic_config__ = ConfigDict(extra="forbid")

    by: str
    group: str
    num_clips: int
    value: float
    sigma: float
    bend: float | None = None
    seen: Seen | None = None
    told: Seen | None = None
    before: dict[str, Any] | None = None

    @property
    def shared(self) -> tuple[str, str, int, float, float, float | None]:
        """The values that all clips of the group share."""
        return self.by, self.group, self.num_clips, self.value, self.sigma, self.bend


def is_calibrated(text: str | None) -> bool:
    """Whether a `camera` or `hand` JSON has the key of `calibrate`; it is not parsed."""
    return text is not None and f'"{KEY}":' in text


def read_calibrated(text: str | None) -> Calibrated | None:
    """The calibration in a JSON; None if it has none of this form. Raises ValueError if it is not JSON."""
    found = None if text is None or not is_calibrated(text) else parse(text, CAMERA).get(KEY)
    if not isinstance(found, dict):
        return None
    try:
        return TypeAdapter(Calibrated).validate_python(found)
    except ValidationError:
        return None


def before_calibration(text: str | None) -> str | None:
    """The JSON as it was before `calibrate`; unchanged if it was not calibrated."""
    found = read_calibrated(text)
    if found is None:
        return text
    poses = {name: value for name, value in parse(text or "{}", CAMERA).items() if name in POSES}
    return dump(poses | (found.before or {})) if poses or found.before is not None else None


def with_calibration(before: str | None, values: dict[str, Any], calibrated: Calibrated) -> str:
    """The JSON `before` with `values` and the key `calibrated`. A value of None removes its key."""
    content = {} if before is None else parse(before, CAMERA)
    kept = {name: value for name, value in content.items() if name not in POSES}
    own = asdict(calibrated) | {"before": None if before is None else kept}
    merged = content | values | {KEY: {name: value for name, value in own.items() if value is not None}}
    return dump({name: value for name, value in merged.items() if value is not None})


def dump(content: dict[str, Any]) -> str:
    """The text of a JSON in the clip list: equal content gives equal text."""
    return json.dumps(content, sort_keys=True, separators=(",", ":"))
