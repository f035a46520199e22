"""Compares the clips of an ingest with the clip list: other clips of the same videos, and values to keep."""

from __future__ import annotations

import math
import unicodedata
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from typing import Any

from handloom.schemas.clip import Clip
from handloom.store.filters import in_list
from handloom.store.tables import Tables

_COLUMNS = ("clip_id", "dataset", "video_id", "start_s", "end_s")


@dataclass(frozen=True)
class Cut:
    """A clip of the list. end_s: None if the video's length was unknown."""

    clip_id: str
    start_s: float
    end_s: float | None


@dataclass(frozen=True)
class OtherCuts:
    """Clips of the list that are of an ingest's videos, but not among its clips.

    by_video: {(dataset, video id): its cuts}. overlapping: (new clip, a cut that overlaps it), at most one for each
    clip that is not in the list yet; cuts with an unknown end are left out.
    """

    by_video: dict[tuple[str, str], list[Cut]]
    overlapping: list[tuple[Clip, Cut]]

    @property
    def clip_ids(self) -> list[str]:
        """Ids of all cuts."""
        return [cut.clip_id for cuts in self.by_video.values() for cut in cuts]


def other_cuts(db: Tables, clips: Sequence[Clip], without: Collection[str] = ()) -> OtherCuts:
    """Compare an ingest's clips with the list, before it is written. Raises StoreError if it cannot be read.

    without: ids to leave out. Ids that differ only in their Unicode form are equal (`clip_list.add_clips`).
    """
    given: dict[tuple[str, str], list[Clip]] = defaultdict(list)
    for clip in clips:
        given[clip.dataset, _composed(clip.video_id)].append(clip)
    ids = {_composed(clip.clip_id) for clip in clips}
    listed: set[str] = set()
    others: dict[tuple[str, str], list[Cut]] = defaultdict(list)
    where = in_list("dataset", sorted({dataset for dataset, _ in given}))
    for batch in db.batches(_COLUMNS, where, batch_size=8192, name="clip_list"):
        for clip_id, dataset, video_id, start_s, end_s in zip(
            *(batch.column(n).to_pylist() for n in _COLUMNS), strict=True
        ):
            if (composed := _composed(clip_id)) in ids:
                listed.add(composed)
            elif (dataset, _composed(video_id)) in given and clip_id not in without:
                others[dataset, _composed(video_id)].append(Cut(clip_id, start_s, end_s))
    overlapping: list[tuple[Clip, Cut]] = []
    for video, cuts in others.items():
        new = (clip for clip in given[video] if _composed(clip.clip_id) not in listed)
        overlapping += _overlapping(new, [cut for cut in cuts if cut.end_s is not None])
    return OtherCuts(dict(others), overlapping)


def keep_unsaid(db: Tables, clips: Sequence[Clip], names: Sequence[str]) -> list[Clip]:
    """The clips, with None in the fields `names` replaced by the list's values."""
    known: dict[str, tuple[str | None, ...]] = {}
    where = in_list("dataset", sorted({clip.dataset for clip in clips}))
    columns = ("clip_id", *names)
    for batch in db.batches(columns, where, batch_size=8192, name="clip_list"):
        for clip_id, *said in zip(*(batch.column(name).to_pylist() for name in columns), strict=True):
            if any(value is not None for value in said):
                known[_composed(clip_id)] = tuple(said)
    kept = []
    for clip in clips:
        before = dict(zip(names, known.get(_composed(clip.clip_id), ()), strict=False))
        unsaid: dict[str, Any] = {
            name: value for name, value in before.items() if value is not None and getattr(clip, name) is None
        }
        kept.append(replace(clip, **unsaid) if unsaid else clip)
    return kept


def _overlapping(clips: Iterable[Clip], cuts: list[Cut]) -> list[tuple[Clip, Cut]]:
    """Each clip that overlaps one of `cuts`, and that cut."""
    cuts = sorted((cut for cut in cuts if math.isfinite(cut.start_s)), key=lambda cut: cut.start_s)
    starts = [cut.start_s for cut in cuts]
    latest = list(accumulate(cuts, _later))
    found = []
    for clip in clips:
        before = bisect_left(starts, _end(clip.end_s))  # those that begin before the clip ends
        if before and _end(latest[before - 1].end_s) > clip.start_s:
            found.append((clip, latest[before - 1]))
    return found


def _later(one: Cut, other: Cut) -> Cut:
    return one if _end(one.end_s) >= _end(other.end_s) else other


def _end(end_s: float | None) -> float:
    return math.inf if end_s is None else end_s


def _composed(text: str) -> str:
    return text if text.isascii() else unicodedata.normalize("NFC", text)
