"""The segments of a clip in words: a line about what was judged, a table for a terminal, a dict for JSON."""

from __future__ import annotations

from typing import Any

import numpy as np

from handloom.geometry.interactions.segments import BY_SHAPE
from handloom.geometry.interactions.words import segment_words

MOST = 0.9
"""Share of the frames from which on hands count as placed in the whole clip."""
HEADER = ("hand", "from", "to", "action", "thing", "confidence", "contact")
NOT_KNOWN = "actions: not known, no hand of this row has a place (or the stage `segments` has not run on it)"


def is_unsure(segment: dict[str, Any]) -> bool:
    """Whether its confidence is no higher than that of contacts which the hand's shape alone tells; they are often late
    or wrong."""
    return float(segment["confidence"]) <= BY_SHAPE + 1e-6


def placed_share(row: dict[str, Any]) -> tuple[float | None, bool]:
    """Share of the frames in which a hand has a place, and whether it is one in the world: without a camera path in
    metres, hands have places in the camera's frame alone. None: the row has no such column."""
    in_world = row.get("hand_keypoints_world_m") is not None
    keypoints = row.get("hand_keypoints_world_m" if in_world else "hand_keypoints_cam_m")
    if keypoints is None or not len(keypoints):
        return None, in_world
    return float(np.isfinite(keypoints).all(axis=(2, 3)).any(axis=1).mean()), in_world


def judged_text(row: dict[str, Any]) -> str | None:
    """`actions: none found; hands had a place in the world in 34 % of the frames`. None where actions were found and
    hands had a place in most frames, or nothing is known of actions."""
    segments, (share, in_world) = row.get("segments"), placed_share(row)
    if segments is None or (segments and (share is None or share >= MOST)):
        return None
    found = f"{len(segments)} found" if segments else "none found"
    if share is None:
        return f"actions: {found}"
    where = "in the world" if in_world else "in the camera's frame"
    return f"actions: {found}; hands had a place {where} in {share:.0%} of the frames".replace("%", " %")


def segments_dict(row: dict[str, Any]) -> dict[str, Any]:
    """The clip's segments for JSON; `segments` is null where nothing is known."""
    share, in_world = placed_share(row)
    segments = row.get("segments")
    return {
        "clip_id": row["clip_id"],
        "hands_placed": share,
        "hands_in_world": in_world,
        "segments": None if segments is None else [_told(one) for one in segments],
    }


def segments_table(row: dict[str, Any]) -> str:
    """A line for each segment, below what was judged of the clip."""
    segments = row.get("segments")
    if segments is None:
        return NOT_KNOWN
    lines = [HEADER] + [_line(_told(one)) for one in segments]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    table = ["  ".join(map(str.ljust, line, widths)).rstrip() for line in lines] if segments else []
    if any(map(is_unsure, segments)):
        table.append(f"?: unsure, confidence at most {BY_SHAPE:g}")
    return "\n".join([text for text in (judged_text(row),) if text] + table)


def _told(one: dict[str, Any]) -> dict[str, Any]:
    thing = next((one[role] for role in ("slave", "master") if one[role].startswith("object_")), None)
    return {
        **{name: one[name] for name in ("hand", "start_s", "end_s", "phase")},
        "text": segment_words(one),
        "thing": thing,
        "confidence": round(float(one["confidence"]), 3),
        "unsure": is_unsure(one),
        **{name: one[name] for name in ("contact_start_s", "contact_end_s")},
    }


def _line(told: dict[str, Any]) -> tuple[str, ...]:
    contact = "-"
    if told["contact_start_s"] is not None:
        contact = f"{told['contact_start_s']:.2f} to {told['contact_end_s']:.2f} s"
    confidence = f"{told['confidence']:.2f}" + (" ?" if told["unsure"] else "")
    times = (f"{told[name]:.2f} s" for name in ("start_s", "end_s"))
    return (told["hand"], *times, told["text"], told["thing"] or "-", confidence, contact)
