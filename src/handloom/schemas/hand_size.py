"""The `hand` JSON of the clip list: how large a clip's hands are, and how large their 2D keypoints show them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Annotated, Any

from handloom.schemas.bounded_json import CAMERA, parse
from handloom.schemas.json_format import Between, Entry, Form, OrElse

LENGTH_RANGE_M = (0.08, 0.26)  # wrist to tip of the middle finger: of a small child, of the largest hand on record
KEYPOINT_SCALE_RANGE = (0.3, 2.0)
MEASURED_SCALE_SIGMA = 0.08
"""Of a `keypoint_scale` that comes without one: with EgoDex's, measured on two clips, distances in six are off by 10 %
(rms), the length of the hands included."""
RENAMED = {"seen_size": "keypoint_scale", "seen_sigma": "keypoint_scale_sigma"}
"""Old and new names of the keys that were renamed in 0.4: older clip lists are read as they are."""


@dataclass(frozen=True)
class HandSize:
    """length_m: from the wrist to the tip of the middle finger, metres. sigma: its relative standard deviation.
    keypoint_scale: size as the 2D keypoints show it over the hand's own. source: where length and scale come from.
    keypoint_scale_sigma: relative standard deviation of keypoint_scale. None: unknown."""

    length_m: float | None = None
    sigma: float | None = None
    keypoint_scale: float | None = None
    source: str | None = None
    keypoint_scale_sigma: float | None = None


def with_names_of_today(content: dict[str, Any]) -> dict[str, Any]:
    """The members of a `hand` JSON under the names of today, which go before an old name beside them."""
    old = {RENAMED[name]: value for name, value in content.items() if name in RENAMED}
    return old | {name: value for name, value in content.items() if name not in RENAMED}


def text_of_today(text: str | None) -> str | None:
    """A clip's `hand` JSON with the names of today; a text without old names, and None, as they are.

    Two texts that differ in names alone are then equal: such a clip has not changed, and its row is up to date.
    """
    if text is None or not any(f'"{name}"' in text for name in RENAMED):
        return text
    try:
        content = parse(text, CAMERA)
    except ValueError:  # of such a clip `parse_hand` says what is wrong
        return text
    return (
        json.dumps(with_names_of_today(content), sort_keys=True, separators=(",", ":"))
        if isinstance(content, dict)
        else text
    )


class _Hand(Entry):
    length_m: Annotated[float, Between(*LENGTH_RANGE_M)] | None = None
    sigma: Annotated[float, Between(0, 1)] | None = None
    keypoint_scale: Annotated[float, Between(*KEYPOINT_SCALE_RANGE)] | None = None
    keypoint_scale_sigma: Annotated[float, Between(0, 1)] | None = None
    source: Annotated[str | None, OrElse(None)]


_HAND = Form(_Hand)


def parse_hand(text: str | None) -> HandSize:
    """The `hand` JSON of a clip, under old names, too. Raises ValueError: it says what is wrong."""
    if text is None:
        return HandSize()
    try:
        content = parse(text, CAMERA)
    except json.JSONDecodeError as error:
        raise ValueError(f"it is not JSON ({error})") from None
    hand = _HAND.read(with_names_of_today(content) if isinstance(content, dict) else content)
    is_unsure = hand.keypoint_scale is not None and hand.keypoint_scale_sigma is None
    scale_sigma = MEASURED_SCALE_SIGMA if is_unsure else hand.keypoint_scale_sigma
    return HandSize(hand.length_m, hand.sigma, hand.keypoint_scale, hand.source, scale_sigma)
