"""`fho_main.json`: actions of Ego4D's hands and objects benchmark.

Format: ego4d-data.org/docs/data/annotations-schemas.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from handloom.ingest.human.ego4d_narrations import without_tag
from handloom.ingest.json_shape import BadEntry, entries, seconds, shown_keys, text
from handloom.ingest.result import Gathering


@dataclass(frozen=True)
class Action:
    """One narrated action, times on the video's clock. start_s may be after end_s: such a clip ends as a reject."""

    start_s: float
    end_s: float
    narration: str | None
    verb: str | None
    noun: str | None
    where: str


def actions_of(video: Any, where: str, gathering: Gathering) -> Iterator[Action]:
    """The accepted actions of one entry of `videos`; rejected and invalid ones are counted, bad ones named."""
    for i, interval in enumerate(_checked(video, "annotated_intervals", where, gathering)):
        here = f"{where}.annotated_intervals[{i}]"
        for j, action in enumerate(_checked(interval, "narrated_actions", here, gathering)):
            gathering.counts["entries"] += 1
            gathering.step()
            if reason := _why_skipped(interval, action):
                gathering.counts[f"skipped_{reason}"] += 1
                continue
            try:
                yield _read(action, f"{here}.narrated_actions[{j}]")
            except BadEntry as error:
                gathering.bad(str(error))


def _checked(entry: Any, key: str, where: str, gathering: Gathering) -> list[Any]:
    """The list under `key`. An object that lacks the key altogether is of another layout: bad, not empty."""
    try:
        listed = entries(entry, key, where)
        if key not in entry:
            raise BadEntry(where, shown_keys(entry), f"an object with {key}")
        return listed
    except BadEntry as error:
        gathering.counts["entries"] += 1
        gathering.bad(str(error))
        return []


def _why_skipped(interval: Any, action: Any) -> str | None:
    if not isinstance(action, dict):
        return None  # not skipped: reading it says what is wrong
    if interval.get("redacted") is True:
        return "redacted"
    if action.get("is_rejected") is True:
        return "rejected"
    if action.get("is_invalid_annotation") is True or action.get("is_valid_action") is False:
        return "invalid"
    return None


def _read(action: Any, where: str) -> Action:
    if not isinstance(action, dict):
        raise BadEntry(where, action, "an object")
    said = text(action, "narration_text", where) if action.get("narration_text") is not None else None
    return Action(
        start_s=round(seconds(action, "start_sec", where), 6),
        end_s=round(seconds(action, "end_sec", where), 6),
        narration=without_tag(said)[1] if said else None,
        verb=_verb(action),
        noun=_noun(action),
        where=where,
    )


def _verb(action: dict[str, Any]) -> str | None:
    """The taxonomy's verb; the annotator's own word where the taxonomy has none (`[other]`)."""
    structured, freeform = action.get("structured_verb"), action.get("freeform_verb")
    if isinstance(structured, str) and structured and not structured.startswith("["):
        return structured
    return freeform if isinstance(freeform, str) and freeform else None


def _noun(action: dict[str, Any]) -> str | None:
    """The noun that most boxes around the object of change carry; None where no box names one."""
    nouns: Counter[str] = Counter()
    frames = action.get("frames")
    for frame in frames if isinstance(frames, list) else []:
        boxes = frame.get("boxes") if isinstance(frame, dict) else None
        for box in boxes if isinstance(boxes, list) else []:
            if isinstance(box, dict) and box.get("object_type") == "object_of_change":
                noun = box.get("structured_noun")
                nouns.update([noun] if isinstance(noun, str) and noun else [])
    return min(nouns, key=lambda noun: (-nouns[noun], noun), default=None)
