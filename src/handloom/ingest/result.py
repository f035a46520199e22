"""What every ingest source returns, and how it gathers it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

from handloom.errors import ConfigError
from handloom.ingest.names import composed
from handloom.schemas.clip import Clip

Progress = Callable[[int, int | None], None]
"""Called as `progress(done, total)`; total is None while it is not known."""

PROGRESS_EVERY = 1000
WORDS = ("narration", "verb", "noun", "participant", "split")
JOINED = ("narration", "verb", "noun")
"""Words that are joined if several entries describe the same times."""
LEFT_OUT = ("bad", "bad_videos", "bad_labels", "bad_cameras", "none_there")
"""Counts of input that could not be used. What was left out on purpose is counted as `skipped_WHY`."""


@dataclass(frozen=True)
class IngestResult:
    """A source's clip list.

    clips: ids unique, sorted by video, then time. The same input gives the same list, in whatever order it was read.
    problems: one line per input that could not be used as given, naming file, row or key, value and what was expected.
    counts: always `entries` (rows, narrations, files, ... that were read), `clips`, `merged` (entries whose clip
        another entry already gave), `bad` (entries that gave no clip; each is named in `problems`) and
        `videos_missing`; every `skipped_WHY` counts entries left out on purpose. Each source documents how they add up.
    absent: ids of clips that were left out because their video is not there.
    notes: one line per decision about several videos, such as their camera.
    """

    clips: list[Clip]
    problems: list[str]
    counts: dict[str, int]
    absent: frozenset[str] = frozenset()
    notes: tuple[str, ...] = ()

    @property
    def num_left_out(self) -> int:
        """How many entries and files could not be used; each is named in `problems`."""
        return sum(self.counts.get(name, 0) for name in LEFT_OUT)


class Gathering:
    """Collects clips, problems and counts; entries with the same clip id become one clip."""

    def __init__(self, progress: Progress | None = None, total: int | None = None, every: int = PROGRESS_EVERY) -> None:
        self.problems: list[str] = []
        self.notes: list[str] = []
        self.counts: Counter[str] = Counter()
        self.absent: set[str] = set()
        self.total = total
        self._progress = progress
        self._every = every
        self._done = 0
        self._clips: dict[str, Clip] = {}
        self._more: dict[str, list[Clip]] = {}

    @property
    def num_clips(self) -> int:
        return len(self._clips)

    def step(self) -> None:
        """Count one more entry as read, and report progress."""
        self._done += 1
        if self._progress is not None and self._done % self._every == 0:
            self._progress(self._done, self.total)

    def add(self, clip: Clip) -> None:
        """Add a clip, its words in Unicode's composed form: text search splits decomposed words at every accent."""
        words: dict[str, Any] = {
            name: composed(text) for name in WORDS if (text := getattr(clip, name)) and not text.isascii()
        }
        clip = replace(clip, **words) if words else clip
        if clip.clip_id in self._clips:
            self.counts["merged"] += 1
            self._more.setdefault(clip.clip_id, [self._clips[clip.clip_id]]).append(clip)
        else:
            self._clips[clip.clip_id] = clip

    def bad(self, problem: str) -> None:
        """Count and name an entry that gives no clip."""
        self.counts["bad"] += 1
        self.problems.append(problem)

    @contextmanager
    def reading(self, what: str, hint: str) -> Iterator[None]:
        """Wraps the reading of one annotation file. Raises ConfigError if no entry of it could be used.

        Entries that are left out on purpose count as usable, entries of unknown videos do not.
        """
        before, num_problems = Counter(self.counts), len(self.problems)
        yield
        read = self.counts - before
        lost = {name: read[name] for name in ("bad", "skipped_not_in_manifest") if read[name]}
        if read["entries"] <= sum(lost.values()):
            counted = ", ".join(f"{name} {count}" for name, count in lost.items()) or "it holds no entry"
            first = f"; the first: {self.problems[num_problems]}" if len(self.problems) > num_problems else ""
            raise ConfigError(f"nothing of {what} can be used: {counted}{first}", hint)

    def result(self) -> IngestResult:
        for clip_id, same in self._more.items():
            self._clips[clip_id] = merge(same)
        clips = sorted(self._clips.values(), key=_order)
        if self._progress is not None:
            self._progress(self._done, self._done)
        always = {"entries": 0, "clips": len(clips), "merged": 0, "bad": 0, "videos_missing": 0}
        counts = always | dict(sorted(self.counts.items()))
        return IngestResult(clips, self.problems, counts, frozenset(self.absent), tuple(self.notes))


def merge(same: list[Clip]) -> Clip:
    """Clips of the same pixels as one: different narrations, verbs and nouns are kept, joined by `; `.

    The id of a clip is its video and its times, so two narrations of one range are one clip: no narration is lost, and
    the pixels are processed once.
    """
    joined: dict[str, Any] = {}
    for name in JOINED:
        values = dict.fromkeys(value for clip in same if (value := getattr(clip, name)))
        joined[name] = "; ".join(values) or None
    return replace(same[0], **joined)


def _order(clip: Clip) -> tuple[str, str, float, float]:
    return clip.dataset, clip.video_id, clip.start_s, float("inf") if clip.end_s is None else clip.end_s
