"""What `handloom calibrate` writes into a clip's `camera` and `hand` JSON beside the numbers: the key `calibrated`.

It keeps what was there before, which counts as what was assumed, and what the clip alone says (`seen`): a row that is
made with a calibrated lens looks for none, so the clip's own word would be lost.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any

from handloom.schemas.bounded_json import CAMERA, parse

KEY = "calibrated"
POSES = ("world_from_camera", "world_scale")  # a clip's own, whatever its lens is: not kept twice


@dataclass(frozen=True)
class Seen:
    """What one clip says by itself. value: a focal length over the picture's longer side, or a hand's length, m. sigma:
    its relative standard deviation. bend: of the lens, see `geometry.calibration.bend_of`.
    """

    value: float
    sigma: float
    bend: float | None = None


@dataclass(frozen=True)
class Calibrated:
    """by, group: which clips were taken together. num_clips: how many of them said something. value, sigma, bend: what
    they say. seen: what this clip says. told: what was known of its lens before its motion said anything: what was
    assumed, and what its hands tell. before: the JSON without all this, without poses; None: there was none.
    """

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
    def said(self) -> tuple[str, str, int, float, float, float | None]:
        """What is the same in all clips of the group."""
        return self.by, self.group, self.num_clips, self.value, self.sigma, self.bend


def is_calibrated(text: str | None) -> bool:
    """Whether a `camera` or `hand` JSON was written by `calibrate`, at a glance."""
    return text is not None and f'"{KEY}":' in text


def read_calibrated(text: str | None) -> Calibrated | None:
    """None where it was not calibrated, or somebody else wrote the key. Raises ValueError where it is no JSON."""
    found = parse(text, CAMERA).get(KEY) if text is not None and is_calibrated(text) else None
    if not isinstance(found, dict):
        return None
    try:
        words = {name: Seen(**found[name]) for name in ("seen", "told") if found.get(name) is not None}
        return Calibrated(**(found | words))
    except TypeError:
        return None


def before_calibration(text: str | None) -> str | None:
    """The JSON as it was before `calibrate`; as it is where that has not written it."""
    found = read_calibrated(text)
    if found is None:
        return text
    poses = {name: value for name, value in parse(text, CAMERA).items() if name in POSES}
    return dump(poses | (found.before or {})) if poses or found.before is not None else None


def with_calibration(before: str | None, values: dict[str, Any], calibrated: Calibrated) -> str:
    """The JSON `before` with `values`, and with what they come from. A value of None takes its key out."""
    content = {} if before is None else parse(before, CAMERA)
    kept = {name: value for name, value in content.items() if name not in POSES}
    own = asdict(calibrated) | {"before": None if before is None else kept}
    merged = content | values | {KEY: {name: value for name, value in own.items() if value is not None}}
    return dump({name: value for name, value in merged.items() if value is not None})


def dump(content: dict[str, Any]) -> str:
    """As every JSON of the clip list is written: equal content is equal text."""
    return json.dumps(content, sort_keys=True, separators=(",", ":"))
