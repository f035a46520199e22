"""What every ingest source returns, and how it gathers it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace

from handloom.schemas.clip import Clip

Progress = Callable[[int, int | None], None]
"""Called as `progress(done, total)`; total is None while it is not known."""

PROGRESS_EVERY = 1000


@dataclass(frozen=True)
class IngestResult:
    """A source's clip list.

    clips: ids unique, sorted by video, then time. The same input gives the same list, in whatever order it was read.
    problems: one line per input that could not be used as given, naming file, row or key, value and what was expected.
    counts: always `entries` (rows, narrations, files, ... that were read), `clips`, `merged` (entries whose clip
        another entry already gave), `bad` (entries that gave no clip; each is named in `problems`) and
        `videos_missing`; every `skipped_WHY` counts entries left out on purpose. Each source documents how they add up.
    """

    clips: list[Clip]
    problems: list[str]
    counts: dict[str, int]


class Gathering:
    """Collects clips, problems and counts; entries with the same clip id become one clip."""

    def __init__(self, progress: Progress | None = None, total: int | None = None, every: int = PROGRESS_EVERY) -> None:
        self.problems: list[str] = []
        self.counts: Counter[str] = Counter()
        self.total = total
        self._progress = progress
        self._every = every
        self._done = 0
        self._clips: dict[str, Clip] = {}
        self._more: dict[str, list[Clip]] = {}

    def step(self) -> None:
        """One more entry was looked at."""
        self._done += 1
        if self._progress is not None and self._done % self._every == 0:
            self._progress(self._done, self.total)

    def add(self, clip: Clip) -> None:
        if clip.clip_id in self._clips:
            self.counts["merged"] += 1
            self._more.setdefault(clip.clip_id, [self._clips[clip.clip_id]]).append(clip)
        else:
            self._clips[clip.clip_id] = clip

    def bad(self, problem: str) -> None:
        """An entry that gives no clip."""
        self.counts["bad"] += 1
        self.problems.append(problem)

    def result(self) -> IngestResult:
        for clip_id, same in self._more.items():
            self._clips[clip_id] = merge(same)
        clips = sorted(self._clips.values(), key=_order)
        if self._progress is not None:
            self._progress(self._done, self._done)
        always = {"entries": 0, "clips": len(clips), "merged": 0, "bad": 0, "videos_missing": 0}
        return IngestResult(clips, self.problems, always | dict(sorted(self.counts.items())))


def merge(same: list[Clip]) -> Clip:
    """Clips of the same pixels as one: different narrations, verbs and nouns are kept, joined by `; `.

    The id of a clip is its video and its times, so two narrations of one range are one clip; nothing that was said
    about it is lost, and its pixels are processed once.
    """
    joined = {}
    for name in ("narration", "verb", "noun"):
        values = dict.fromkeys(value for clip in same if (value := getattr(clip, name)))
        joined[name] = "; ".join(values) or None
    return replace(same[0], **joined)


def _order(clip: Clip) -> tuple[str, str, float, float]:
    return clip.dataset, clip.video_id, clip.start_s, float("inf") if clip.end_s is None else clip.end_s
