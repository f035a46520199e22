"""What the clip list says of the hands of a clip: how large they are, and how large the 2D model draws them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from handloom.schemas.bounded_json import CAMERA, parse

LENGTH_RANGE_M = (0.08, 0.26)  # wrist to tip of the middle finger: of a small child, of the largest hand on record
SEEN_RANGE = (0.3, 2.0)
MEASURED_SEEN_SIGMA = 0.08
"""Of a `seen_size` that comes without one: with EgoDex's, measured on two clips, distances in six are off by 10 %
(rms), the length of the hands included."""


@dataclass(frozen=True)
class HandSize:
    """length_m: from the wrist to the tip of the middle finger. sigma: its relative standard deviation. seen_size: size
    as drawn over the hand's own. source: who says so. seen_sigma: relative standard deviation of seen_size. None: not
    said."""

    length_m: float | None = None
    sigma: float | None = None
    seen_size: float | None = None
    source: str | None = None
    seen_sigma: float | None = None


def parse_hand(text: str | None) -> HandSize:
    """The `hand` JSON of a clip. Raises ValueError with what is wrong."""
    if text is None:
        return HandSize()
    try:
        content = parse(text, CAMERA)
    except json.JSONDecodeError as error:
        raise ValueError(f"it is not JSON ({error})") from None
    if not isinstance(content, dict):
        raise ValueError(f"it is {type(content).__name__}, expected an object with length_m or seen_size")
    source = content.get("source")
    seen_size, seen_sigma = _number(content, "seen_size", SEEN_RANGE), _number(content, "seen_sigma", (0.0, 1.0))
    if seen_size is not None and seen_sigma is None:
        seen_sigma = MEASURED_SEEN_SIGMA
    return HandSize(
        _number(content, "length_m", LENGTH_RANGE_M),
        _number(content, "sigma", (0.0, 1.0)),
        seen_size,
        source if isinstance(source, str) else None,
        seen_sigma,
    )


def _number(content: dict[str, Any], name: str, limits: tuple[float, float]) -> float | None:
    value = content.get(name)
    if value is None:
        return None
    low, high = limits
    if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
        raise ValueError(f"{name} is {str(value)[:80]}, expected {low:g} to {high:g}")
    return float(value)
