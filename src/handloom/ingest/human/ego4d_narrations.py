"""`narration.json` and `all_narrations_redacted.json`: what annotators said is done, as points in time.

Format of the first: ego4d-data.org/docs/data/annotations-schemas. The second comes with the v2 download and is not
described there; its layout is known from the code of others that reads it.
"""

from __future__ import annotations

import bisect
import math
import re
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

from handloom.errors import ConfigError
from handloom.ingest.files import Options, read_json
from handloom.ingest.human.cutting import Interval
from handloom.ingest.json_shape import BadEntry, entries, seconds, shown, shown_keys, text
from handloom.ingest.result import Gathering

PASSES = ("narration_pass_1", "narration_pass_2")
LAYOUTS = f"{PASSES[0]} and {PASSES[1]} (narration.json), or narrations (all_narrations_redacted.json)"
SAME_EVENT_S = 1.0
_TAG = re.compile(r"#\s*([CcOo])\s+")
_UUID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)
_Entry = tuple[str, Any]  # where it stands in the file, and what stands there


@dataclass(frozen=True)
class NarrationWindow:
    """The clip around a narration at t.

    fixed: `[t - before_s, t + after_s)`. 3 s, the length of the clips that GR-1 pre-trains on, one third of it before
    t, as Ego4DSounds cuts (0.5 s before, 1 s after). The default, because such a clip keeps its id whatever else is in
    the file, and is long enough to see a hand move.

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
        if self.mode == "contextual":
            half = mean_gap_s / (2 * self.alpha_s)
            return round(time_s - half, 6), round(time_s + half, 6)
        return round(time_s - self.before_s, 6), round(time_s + self.after_s, 6)


@dataclass(frozen=True)
class Narration:
    """What was said, without its tag: `who` is "C" (`#C`, the camera wearer), "O" (`#O`, another person) or None.

    window: not clipped to the video. repeated: the other pass says the same at the same time.
    """

    time_s: float
    text: str
    who: str | None
    unsure: bool
    window: Interval
    repeated: bool


def read_narrations(path: str, options: Options = None) -> dict[str, Any]:
    """`{video_uid: what was said of it}`: under `videos`, as an object or a list, or (v1) at the top level.

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
    before: dict[str, list[float]] = defaultdict(list)  # what earlier passes said, and when
    for listed in _passes(video, where, gathering):
        good = [] if is_redacted else list(_read(listed, gathering))
        if is_redacted:
            gathering.counts["entries"] += len(listed)
            gathering.counts["skipped_redacted"] += len(listed)
        gap_s = _mean_gap([time_s for time_s, _ in good], window.alpha_s)
        now: dict[str, list[float]] = defaultdict(list)
        for time_s, said in good:
            who, words = without_tag(said)
            now[words.casefold()].append(time_s)
            repeated = _near(before.get(words.casefold(), []), time_s)
            yield Narration(time_s, words, who, "#unsure" in said.casefold(), window.around(time_s, gap_s), repeated)
        for words, times in now.items():
            before[words] = sorted([*before[words], *times])
    gathering.counts["videos_redacted"] += is_redacted
    gathering.counts["videos_without_narration"] += gathering.counts["entries"] == num_entries and not is_redacted


def without_tag(said: str) -> tuple[str | None, str]:
    """`#C C takes a cup` as `("C", "C takes a cup")`; who is None where the text has no such tag."""
    said = said.strip()
    match = _TAG.match(said)
    return (match.group(1).upper(), said[match.end() :].strip()) if match else (None, said)


def _by_uid(videos: list[Any]) -> dict[str, Any]:
    """Videos that are listed, by their uid; those without one, and repeated ones, by their place."""
    found: dict[str, Any] = {}
    for i, video in enumerate(videos):
        uid = video.get("video_uid") if isinstance(video, dict) else None
        found[uid if isinstance(uid, str) and uid not in found else f"videos[{i}]"] = video
    return found


def _passes(video: Any, where: str, gathering: Gathering) -> Iterator[list[_Entry]]:
    """What was said of a video, one list per annotation: people describe a video, or a part of it, independently."""
    try:
        yield from _layout(video, where, gathering)
    except BadEntry as error:
        gathering.counts["entries"] += 1
        gathering.bad(str(error))


def _layout(video: Any, where: str, gathering: Gathering) -> Iterator[list[_Entry]]:
    """Raises BadEntry for a video whose layout is not known: nobody shall believe that nothing was said of it."""
    if isinstance(video, list):
        yield from _annotations(where, video)
        return
    if not isinstance(video, dict):
        raise BadEntry(where, video, "an object")
    if video and all(isinstance(value, list) for value in video.values()) and "narrations" not in video:
        for name, listed in video.items():  # {annotation: [{"time", "text"}, ...]}, as others have sorted them
            yield [(f"{where}.{name}[{i}]", entry) for i, entry in enumerate(listed)]
        return
    for name in PASSES:
        if video.get(name) is not None:
            here = f"{where}.{name}"
            try:
                listed = entries(video[name], "narrations", here)
                if "narrations" not in video[name] and video[name] and "summaries" not in video[name]:
                    raise BadEntry(here, shown_keys(video[name]), "an object with narrations")
            except BadEntry as error:
                gathering.counts["entries"] += 1
                gathering.bad(str(error))
                continue
            yield [(f"{here}.narrations[{i}]", entry) for i, entry in enumerate(listed)]
    if "narrations" in video:
        yield from _annotations(f"{where}.narrations", entries(video, "narrations", where))
    elif video and not any(name in video for name in PASSES) and video.get("status") != "redacted":
        raise BadEntry(where, shown_keys(video), LAYOUTS)


def _annotations(where: str, listed: list[Any]) -> Iterator[list[_Entry]]:
    """The narrations of one list by the annotation they belong to, in the order of their first ones."""
    groups: dict[str, list[_Entry]] = {}
    for i, entry in enumerate(listed):
        key = entry.get("_annotation_uid") if isinstance(entry, dict) else None
        groups.setdefault(str(key), []).append((f"{where}[{i}]", entry))
    yield from groups.values()


def _read(listed: list[_Entry], gathering: Gathering) -> Iterator[tuple[float, str]]:
    for here, entry in listed:
        gathering.counts["entries"] += 1
        gathering.step()
        if isinstance(entry, dict) and entry.get("is_summary") is True:
            gathering.counts["skipped_summary"] += 1
            continue
        short = isinstance(entry, dict) and ("time" in entry or "text" in entry)
        time_key, text_key = ("time", "text") if short else ("timestamp_sec", "narration_text")
        try:
            time_s, said = seconds(entry, time_key, here), text(entry, text_key, here).strip()
        except BadEntry as error:
            gathering.bad(str(error))
            continue
        yield time_s, said


def _mean_gap(times: list[float], alone_s: float) -> float:
    """Mean distance of consecutive times; `alone_s` where there is none to measure."""
    gap_s = (max(times) - min(times)) / (len(times) - 1) if len(times) > 1 else 0.0
    return gap_s or alone_s


def _near(times: list[float], time_s: float) -> bool:
    i = bisect.bisect_left(times, time_s - SAME_EVENT_S)
    return i < len(times) and times[i] <= time_s + SAME_EVENT_S
