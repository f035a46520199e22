"""The action times of a data set (EPIC-KITCHENS: start and stop of every narration) beside the segments of rows.

The clip list has one entry an annotated action. A row that spans several of them, of the same video, is measured on
those inside it; its own start and end say nothing, so they do not count.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from handloom.bench.segments.scores import (
    DURATIONS,
    IOU,
    WITHIN_S,
    Counts,
    Span,
    boundaries,
    matched_times,
    recall_by_duration,
    segment_counts,
    uniform,
)
from handloom.schemas.tables.segments import COLUMN
from handloom.store.tables import Tables

OURS, UNIFORM = "handloom", "uniform"
MIN_INSIDE = 0.9
"""Least share of an action that lies inside a row."""


def annotated_results(db: Tables) -> dict[str, Any]:
    """Boundaries, segments and recall by duration of all rows with annotated actions inside; annotations do not say
    which hand acts, so the segments of both hands are taken together."""
    totals: dict[str, dict[Any, Counts]] = {name: _empty() for name in (OURS, UNIFORM)}
    rows = actions = 0
    for row, true in rows_with_actions(db):
        rows, actions = rows + 1, actions + len(true)
        ours = [Span(one["start_s"], one["end_s"]) for one in row[COLUMN]]
        length = sum(span.end_s - span.start_s for span in true) / len(true)
        cuts = uniform(row["start_s"], row["end_s"], "any", length)
        for name, found in ((OURS, ours), (UNIFORM, cuts)):
            _add(totals[name], true, found, row)
    out: dict[str, Any] = {"rows": rows, "actions": actions}
    if not rows:
        return out | {"note": "no row spans several annotated actions: ingest the videos as longer clips as well"}
    for name, total in totals.items():
        out[name] = {
            "boundary": total["boundary"].scores(),
            **{f"segment_iou_{least}": total[least].scores() for least in IOU},
            "recall_by_duration": {key: total[key].scores()["recall"] for key in DURATIONS},
        }
    return out


def rows_with_actions(db: Tables) -> Iterator[tuple[Mapping[str, Any], list[Span]]]:
    """Rows with segments, and the annotated actions inside each."""
    table = db.table("clips")
    if table is None or COLUMN not in table.schema.names:
        return
    listed = db.read("clip_list", ["clip_id", "video_uri", "start_s", "end_s", "narration", "verb"]).to_pylist()
    of_video: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for one in listed:
        if one["end_s"] is not None and (one["narration"] is not None or one["verb"] is not None):
            of_video[one["video_uri"]].append(one)
    for batch in db.batches(["clip_id", "video_uri", "start_s", "end_s", COLUMN], batch_size=64):
        for row in batch.to_pylist():
            inside = actions_inside(row, of_video[row["video_uri"]])
            if inside and row[COLUMN] is not None:
                yield row, inside


def actions_inside(row: Mapping[str, Any], listed: Sequence[Mapping[str, Any]]) -> list[Span]:
    """The annotated actions, other than the row's own, that lie in a row; cut at its ends."""
    out = []
    for one in listed:
        start_s, end_s = max(one["start_s"], row["start_s"]), min(one["end_s"], row["end_s"])
        length = one["end_s"] - one["start_s"]
        if one["clip_id"] != row["clip_id"] and length > 0 and end_s - start_s >= MIN_INSIDE * length:
            out.append(Span(start_s, end_s))
    return sorted(out, key=lambda span: (span.start_s, span.end_s))


def _empty() -> dict[Any, Counts]:
    return {name: Counts() for name in ("boundary", *IOU, *DURATIONS)}


def _add(total: dict[Any, Counts], true: list[Span], found: list[Span], row: Mapping[str, Any]) -> None:
    a, b = (
        [at for at in boundaries(spans) if row["start_s"] + WITHIN_S < at < row["end_s"] - WITHIN_S]
        for spans in (true, found)
    )
    total["boundary"].add(Counts(len(a), len(b), matched_times(a, b, WITHIN_S)))
    for least in IOU:
        total[least].add(segment_counts(true, found, least))
    for name, counts in recall_by_duration(true, found).items():
        total[name].add(counts)
