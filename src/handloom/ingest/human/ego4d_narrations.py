"""`narration.json` and `all_narrations_redacted.json`: what people do, as annotators wrote it, at points in time.

Format of the first: ego4d-data.org/docs/data/annotations-schemas. The second comes with the v2 download and is not
described there; its layout follows from public code that reads it.
"""

from __future__ import annotations

import bisect
import math
import re
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import with_config
from typing_extensions import TypedDict

from handloom.errors import ConfigError
from handloom.ingest.human.cutting import Interval
from handloom.ingest.result import Gathering
from handloom.io.reading import read_json
from handloom.io.remote import Options
from handloom.schemas.json_format import STRICT, BadEntry, Entry, Form, Listed, Seconds, Text, shown, shown_keys

PASSES = ("narration_pass_1", "narration_pass_2")
LAYOUTS = f"{PASSES[0]} and {PASSES[1]} (narration.json), or narrations (all_narrations_redacted.json)"
SAME_EVENT_S = 1.0
_TAG = re.compile(r"#\s*([CcOo])\s+")
_UUID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)
_Found = tuple[str, Any]  # a narration's place in the file, and its JSON


@dataclass(frozen=True)
class NarrationWindow:
    """The clip around a narration at t.

    fixed: `[t - before_s, t + after_s)`. By default 3 s, the length of the clips that GR-1 pre-trains on, one third of
    it before t as in Ego4DSounds (0.5 s before, 1 s after). The id of such a clip does not depend on other narrations,
    and it is long enough to see a hand move.

    contextual: `[t - b/2a, t + b/2a)`, b the mean distance of consecutive narrations of the video (per annotation
    pass), a = `alpha_s`, that mean over all of Ego4D. Lin et al., Egocentric Video-Language Pretraining (EgoVLP),
    NeurIPS 2022, section 3.1. About 1 s long on average, and it depends on all narrations of the video.
    """

    mode: Literal["fixed", "contextual"] = "fixed"
    before_s: float = 1.0
    after_s: float = 2.0
    alpha_s: float = 4.9

    def __post_init__(self) -> None:
        if self.mode not in ("fixed", "contextual"):
            raise ConfigError(f"narration window {self.mode!r}, expected fixed or contextual")
        sides = (self.before_s, self.after_s)
        if not all(math.isfinite(side) and side >= 0 for side in sides) or sum(sides) < 0.1:
            problem = f"narration window of {sides[0]} s before and {sides[1]} s after, expected 0.1 s or more in all"
            raise ConfigError(problem, "give longer --before-s and --after-s; 1 and 2 are the defaults")
        if not (math.isfinite(self.alpha_s) and self.alpha_s > 0):
            raise ConfigError(f"narration window alpha_s {self.alpha_s}, expected seconds above 0")

    def around(self, time_s: float, mean_gap_s: float) -> Interval:
        """Start and end in seconds, rounded to microseconds. mean_gap_s: between narrations, for `contextual`."""
        if self.mode == "contextual":
            half = mean_gap_s / (2 * self.alpha_s)
            return round(time_s - half, 6), round(time_s + half, 6)
        return round(time_s - self.before_s, 6), round(time_s + self.after_s, 6)


@dataclass(frozen=True)
class Narration:
    """A narration without its tag. who: "C" (`#C`, the camera wearer), "O" (`#O`, another person) or None.

    window: not clipped to the video. repeated: an earlier pass has the same text within `SAME_EVENT_S`.
    """

    time_s: float
    text: str
    who: str | None
    unsure: bool
    window: Interval
    repeated: bool


@with_config(STRICT)
class _Narration(TypedDict):
    """A narration of narration.json."""

    timestamp_sec: Seconds
    narration_text: Text


@with_config(STRICT)
class _RedactedNarration(TypedDict):
    """A narration of all_narrations_redacted.json."""

    time: Seconds
    text: Text


class _Pass(Entry):
    narrations: Listed | None = None
    summaries: Any = None


class _Video(Entry):
    narrations: Listed | None = None


_NARRATION, _REDACTED, _PASS, _VIDEO = Form(_Narration), Form(_RedactedNarration), Form(_Pass), Form(_Video)


def read_narrations(path: str, options: Options = None) -> dict[str, Any]:
    """`{video_uid: its annotations}`: below `videos`, as an object or a list, or (v1) at the top level.

    Raises:
        ConfigError: the file cannot be read or has another shape.
    """
    content = read_json(path, "narration file", options)
    if isinstance(content, dict) and isinstance(content.get("videos"), dict):
        content = content["videos"]
    elif isinstance(content, dict) and isinstance(content.get("videos"), list):
        content = _by_uid(content["videos"])
    elif isinstance(content, dict):  # beside the videos: version, date, description
        content = {uid: v for uid, v in content.items() if isinstance(v, dict | list) or _UUID.fullmatch(uid)}
    if not isinstance(content, dict) or not any(isinstance(value, dict | list) for value in content.values()):
        raise ConfigError(
            f"narration file {path}: the top level is {shown(content)}, expected an object of videos, each with "
            f"{LAYOUTS}",
            "check that it is Ego4D's narration.json or all_narrations_redacted.json",
        )
    return content


def narrations_of(
    uid: str, video: Any, window: NarrationWindow, file_name: str, gathering: Gathering
) -> Iterator[Narration]:
    """A video's narrations; bad ones, and a video of an unknown layout, go to the problems."""
    where = f"{file_name}: {uid}"
    is_redacted = isinstance(video, dict) and video.get("status") == "redacted"
    num_entries = gathering.counts["entries"]
    earlier: dict[str, list[float]] = defaultdict(list)  # times of each text in earlier passes, seconds
    for listed in _passes(video, where, gathering):
        good = [] if is_redacted else list(_read(listed, gathering))
        if is_redacted:
            gathering.counts["entries"] += len(listed)
            gathering.counts["skipped_redacted"] += len(listed)
        gap_s = _mean_gap([time_s for time_s, _ in good], window.alpha_s)
        now: dict[str, list[float]] = defaultdict(list)
        for time_s, text in good:
            who, words = without_tag(text)
            now[words.casefold()].append(time_s)
            repeated = _near(earlier.get(words.casefold(), []), time_s)
            yield Narration(time_s, words, who, "#unsure" in text.casefold(), window.around(time_s, gap_s), repeated)
        for words, times in now.items():
            earlier[words] = sorted([*earlier[words], *times])
    gathering.counts["videos_redacted"] += is_redacted
    gathering.counts["videos_without_narration"] += gathering.counts["entries"] == num_entries and not is_redacted


def without_tag(text: str) -> tuple[str | None, str]:
    """`#C C takes a cup` as `("C", "C takes a cup")`; None in place of the tag if the text has none."""
    text = text.strip()
    match = _TAG.match(text)
    return (match.group(1).upper(), text[match.end() :].strip()) if match else (None, text)


def _by_uid(videos: list[Any]) -> dict[str, Any]:
    """A list of videos by their uid; videos without one, and repeated ones, by their place in the list."""
    found: dict[str, Any] = {}
    for i, video in enumerate(videos):
        uid = video.get("video_uid") if isinstance(video, dict) else None
        found[uid if isinstance(uid, str) and uid not in found else f"videos[{i}]"] = video
    return found


def _passes(video: Any, where: str, gathering: Gathering) -> Iterator[list[_Found]]:
    """The narrations of a video, one list per annotation: several people describe a video, or parts of it."""
    try:
        yield from _layout(video, where, gathering)
    except BadEntry as error:
        gathering.counts["entries"] += 1
        gathering.bad(str(error))


def _layout(video: Any, where: str, gathering: Gathering) -> Iterator[list[_Found]]:
    """Raises BadEntry for an unknown layout: it must not look like a video without narrations."""
    if isinstance(video, list):
        yield from _annotations(where, video)
        return
    narrations = _VIDEO.read(video, where).narrations
    if video and all(isinstance(value, list) for value in video.values()) and "narrations" not in video:
        for name, listed in video.items():  # {annotation: [{"time", "text"}, ...]}, the layout of converted files
            yield [(f"{where}.{name}[{i}]", entry) for i, entry in enumerate(listed)]
        return
    for name in PASSES:
        if video.get(name) is not None:
            here = f"{where}.{name}"
            try:
                found = _PASS.read(video[name], here)
                if video[name] and not found.model_fields_set:
                    raise BadEntry(f"{here} is {shown_keys(video[name])}, expected an object with narrations")
            except BadEntry as error:
                gathering.counts["entries"] += 1
                gathering.bad(str(error))
                continue
            yield [(f"{here}.narrations[{i}]", entry) for i, entry in enumerate(found.narrations or [])]
    if "narrations" in video:
        yield from _annotations(f"{where}.narrations", narrations or [])
    elif video and not any(name in video for name in PASSES) and video.get("status") != "redacted":
        raise BadEntry(f"{where} is {shown_keys(video)}, expected {LAYOUTS}")


def _annotations(where: str, listed: list[Any]) -> Iterator[list[_Found]]:
    """The narrations of one list by the annotation they belong to, in the order of their first ones."""
    groups: dict[str, list[_Found]] = {}
    for i, entry in enumerate(listed):
        key = entry.get("_annotation_uid") if isinstance(entry, dict) else None
        groups.setdefault(str(key), []).append((f"{where}[{i}]", entry))
    yield from groups.values()


def _read(listed: list[_Found], gathering: Gathering) -> Iterator[tuple[float, str]]:
    for here, entry in listed:
        gathering.counts["entries"] += 1
        gathering.step()
        if isinstance(entry, dict) and entry.get("is_summary") is True:
            gathering.counts["skipped_summary"] += 1
            continue
        try:
            if isinstance(entry, dict) and ("time" in entry or "text" in entry):
                redacted = _REDACTED.read(entry, here)
                time_s, text = redacted["time"], redacted["text"]
            else:
                narration = _NARRATION.read(entry, here)
                time_s, text = narration["timestamp_sec"], narration["narration_text"]
        except BadEntry as error:
            gathering.bad(str(error))
            continue
        yield time_s, text


def _mean_gap(times: list[float], alone_s: float) -> float:
    """Mean distance of consecutive times in seconds; `alone_s` if there are fewer than two."""
    gap_s = (max(times) - min(times)) / (len(times) - 1) if len(times) > 1 else 0.0
    return gap_s or alone_s


def _near(times: list[float], time_s: float) -> bool:
    i = bisect.bisect_left(times, time_s - SAME_EVENT_S)
    return i < len(times) and times[i] <= time_s + SAME_EVENT_S
