"""`narration.json`: what annotators said is done, as points in time.

Format: ego4d-data.org/docs/data/annotations-schemas.
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
from handloom.ingest.cutting import Interval
from handloom.ingest.files import Options, read_json
from handloom.ingest.json_shape import BadEntry, entries, seconds, shown, text
from handloom.ingest.result import Gathering

PASSES = ("narration_pass_1", "narration_pass_2")
SAME_EVENT_S = 1.0
_TAG = re.compile(r"#\s*([CcOo])\s+")


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
            raise ConfigError(f"narration window of {sides[0]} s before and {sides[1]} s after, expected 0.1 s or more")
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
    """`{video_uid: passes}`, of the v2 file (under `videos`) and of the v1 file (at the top level).

    Raises:
        ConfigError: the file cannot be read or has another shape.
    """
    content = read_json(path, "narration file", options)
    if isinstance(content, dict) and isinstance(content.get("videos"), dict):
        content = content["videos"]
    elif isinstance(content, dict):  # beside the videos: version, date, description
        content = {uid: passes for uid, passes in content.items() if isinstance(passes, dict)}
    if not isinstance(content, dict) or not any(isinstance(value, dict) for value in content.values()):
        raise ConfigError(
            f"narration file {path}: the top level is {shown(content)}, expected an object of videos, each with "
            f"{PASSES[0]} or {PASSES[1]}",
            "check that it is Ego4D's narration.json",
        )
    return content


def narrations_of(
    uid: str, passes: Any, window: NarrationWindow, file_name: str, gathering: Gathering
) -> Iterator[Narration]:
    """A video's narrations; bad ones go to the problems."""
    if not isinstance(passes, dict):
        gathering.counts["entries"] += 1
        gathering.bad(str(BadEntry(f"{file_name}: {uid}", passes, "an object")))
        return
    first_pass: dict[str, list[float]] = defaultdict(list)
    for name in PASSES:
        where = f"{file_name}: {uid}.{name}"
        try:
            listed = entries(passes[name], "narrations", where) if passes.get(name) is not None else []
        except BadEntry as error:
            gathering.counts["entries"] += 1
            gathering.bad(str(error))
            continue
        good = list(_read(listed, where, gathering))
        gap_s = _mean_gap([time_s for time_s, _ in good], window.alpha_s)
        for time_s, said in good:
            who, words = without_tag(said)
            repeated = name != PASSES[0] and _near(first_pass.get(words.casefold(), []), time_s)
            if name == PASSES[0]:
                first_pass[words.casefold()].append(time_s)
            unsure = "#unsure" in said.casefold()
            yield Narration(time_s, words, who, unsure, window.around(time_s, gap_s), repeated)
        for times in first_pass.values():
            times.sort()


def without_tag(said: str) -> tuple[str | None, str]:
    """`#C C takes a cup` as `("C", "C takes a cup")`; who is None where the text has no such tag."""
    said = said.strip()
    match = _TAG.match(said)
    return (match.group(1).upper(), said[match.end() :].strip()) if match else (None, said)


def _read(listed: list[Any], where: str, gathering: Gathering) -> Iterator[tuple[float, str]]:
    for i, entry in enumerate(listed):
        gathering.counts["entries"] += 1
        gathering.step()
        here = f"{where}.narrations[{i}]"
        try:
            time_s, said = seconds(entry, "timestamp_sec", here), text(entry, "narration_text", here).strip()
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
