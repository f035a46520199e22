"""`fho_main.json`: actions of Ego4D's hands and objects benchmark.

Format: ego4d-data.org/docs/data/annotations-schemas.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import with_config
from typing_extensions import TypedDict

from handloom.ingest.human.ego4d_narrations import without_tag
from handloom.ingest.result import Gathering
from handloom.schemas.json_format import STRICT, BadEntry, Entry, Form, Listed, OrElse, Seconds, Text


@dataclass(frozen=True)
class Action:
    """One narrated action, times on the video's clock. start_s may be after end_s: such a clip ends as a reject."""

    start_s: float
    end_s: float
    narration: str | None
    verb: str | None
    noun: str | None
    where: str


class _Video(Entry):
    annotated_intervals: Listed | None


class _Interval(Entry):
    narrated_actions: Listed | None


_Word = Annotated[str | None, OrElse(None)]


@with_config(STRICT)
class _Box(TypedDict, total=False):
    object_type: _Word
    structured_noun: _Word


@with_config(STRICT)
class _Frame(TypedDict, total=False):
    boxes: Annotated[list[Annotated[_Box | None, OrElse(None)]], OrElse(())]


class _Action(Entry):
    start_sec: Seconds
    end_sec: Seconds
    narration_text: Text | None = None
    structured_verb: _Word
    freeform_verb: _Word
    frames: Annotated[list[Annotated[_Frame | None, OrElse(None)]], OrElse(())]


_VIDEO, _INTERVAL, _ACTION = Form(_Video), Form(_Interval), Form(_Action)


def actions_of(video: Any, where: str, gathering: Gathering) -> Iterator[Action]:
    """The accepted actions of one entry of `videos`. Rejected and invalid ones are counted, unreadable ones named."""
    for i, interval in enumerate(_read_list(_VIDEO, video, where, gathering)):
        here = f"{where}.annotated_intervals[{i}]"
        for j, action in enumerate(_read_list(_INTERVAL, interval, here, gathering)):
            gathering.counts["entries"] += 1
            gathering.step()
            if reason := _why_skipped(interval, action):
                gathering.counts[f"skipped_{reason}"] += 1
                continue
            try:
                yield _read(action, f"{here}.narrated_actions[{j}]")
            except BadEntry as error:
                gathering.bad(str(error))


def _read_list(form: Form[Any], entry: Any, where: str, gathering: Gathering) -> list[Any]:
    """The list under the one key of `form`. An entry without that key is bad: it is of another layout."""
    try:
        ((_, listed),) = form.read(entry, where)
        return listed or []
    except BadEntry as error:
        gathering.counts["entries"] += 1
        gathering.bad(str(error))
        return []


def _why_skipped(interval: dict[str, Any], action: Any) -> str | None:
    if not isinstance(action, dict):
        return None  # `_read` names what is wrong with it
    if interval.get("redacted") is True:
        return "redacted"
    if action.get("is_rejected") is True:
        return "rejected"
    if action.get("is_invalid_annotation") is True or action.get("is_valid_action") is False:
        return "invalid"
    return None


def _read(entry: Any, where: str) -> Action:
    action = _ACTION.read(entry, where)
    return Action(
        start_s=round(action.start_sec, 6),
        end_s=round(action.end_sec, 6),
        narration=without_tag(action.narration_text)[1] if action.narration_text else None,
        verb=_verb(action),
        noun=_noun(action),
        where=where,
    )


def _verb(action: _Action) -> str | None:
    """The taxonomy's verb; the annotator's own word if the taxonomy has none (`[other]`)."""
    verb = action.structured_verb
    return verb if verb and not verb.startswith("[") else action.freeform_verb or None


def _noun(action: _Action) -> str | None:
    """The most frequent noun of boxes around the object of change; None if no box has one."""
    boxes = (box for frame in action.frames if frame for box in frame["boxes"] if box)
    nouns = Counter(box["structured_noun"] for box in boxes if box["object_type"] == "object_of_change")
    del nouns[None], nouns[""]
    return min(nouns, key=lambda noun: (-nouns[noun], noun), default=None)
