"""The table `segments`: one row for each atomic action of a clip.

The column `segments` of `clips` is the truth, and the table follows from it. A clip is written in one commit, its old
segments away and its new ones in, with the key of its stage and the words that it has. `bring_segments` compares both
with `clips`: whatever a kill, an ingest or a removal has left is mended by the next call. It is called at the end of a
run, and by `handloom index`.
"""

from __future__ import annotations

import itertools
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import lance
import pyarrow as pa
import pyarrow.compute as pc

from handloom.schemas.tables.segments import COLUMN, OF_CLIP, SEGMENT, SEGMENTS, TABLE
from handloom.schemas.tables.stage_columns import key_column
from handloom.store.filters import in_list
from handloom.store.location import lance_errors
from handloom.store.tables import Tables

log = logging.getLogger(__name__)

CLIPS_PER_COMMIT = 512
SEEN_VERSION = "handloom.clips_version"
"""Configuration of the table: the version of `clips` that it was last compared with."""


@dataclass(frozen=True)
class SegmentsBrought:
    """What `bring_segments` did: clips whose segments were written, clips whose segments were removed."""

    num_clips: int = 0
    num_removed: int = 0


def bring_segments(db: Tables) -> SegmentsBrought:
    """Make the table `segments` say what `clips` says. Without a new version of `clips` nothing is read.

    Runs on different clips may call it at once: each writes what it finds missing, and equal rows merge by their ids.
    Raises StoreError.
    """
    clips = db.table("clips")
    if clips is None or COLUMN not in clips.schema.names or key_column(COLUMN) not in clips.schema.names:
        return SegmentsBrought()
    table = db.table(TABLE)
    if table is not None and _seen(table) == clips.version:
        return SegmentsBrought()
    told, state = _of_clips(db, clips.version), _of_table(db)
    gone = [clip_id for clip_id in state if clip_id not in told]
    behind = [clip_id for clip_id, now in told.items() if state.get(clip_id) != now]
    table = db.ensure_table(TABLE, SEGMENTS)
    with lance_errors(f"write table {TABLE}", table.uri):
        for part in _parts(gone):
            table.delete(in_list("clip_id", part))
        num_written = sum(_write(db, table, clips.version, part, state) for part in _parts(behind))
        db.existing_table(TABLE).update_config({SEEN_VERSION: str(clips.version)})
    if num_written or gone:
        log.info("segments are those of the clips now clips=%d removed=%d", num_written, len(gone))
    return SegmentsBrought(num_written, len(gone))


def _seen(table: lance.LanceDataset) -> int | None:
    seen = table.config().get(SEEN_VERSION, "")
    return int(seen) if seen.isdigit() else None


def _of_clips(db: Tables, version: int) -> dict[str, tuple[Any, ...]]:
    """`{clip id: (stage key, words)}` of the clips for which the stage was computed."""
    rows = db.read("clips", ["clip_id", key_column(COLUMN), *OF_CLIP], version=version)
    columns = (rows.column(name).to_pylist() for name in ("clip_id", key_column(COLUMN), *OF_CLIP))
    return {clip_id: tuple(rest) for clip_id, *rest in zip(*columns, strict=True) if rest[0] is not None}


def _of_table(db: Tables) -> dict[str, tuple[Any, ...]]:
    """The same of the table's clips."""
    rows = db.read(TABLE, ["clip_id", "stage_key", *OF_CLIP])
    if not rows.num_rows:
        return {}
    columns = (rows.column(name).to_pylist() for name in ("clip_id", "stage_key", *OF_CLIP))
    return {clip_id: tuple(rest) for clip_id, *rest in zip(*columns, strict=True)}


def _parts(clip_ids: Sequence[str]) -> Iterator[Sequence[str]]:
    for start in range(0, len(clip_ids), CLIPS_PER_COMMIT):
        yield clip_ids[start : start + CLIPS_PER_COMMIT]


def _write(
    db: Tables, table: lance.LanceDataset, version: int, clip_ids: Sequence[str], state: dict[str, tuple[Any, ...]]
) -> int:
    """One commit: the segments of some clips in place of those in the table. Returns the number of clips written."""
    columns = ["clip_id", key_column(COLUMN), *OF_CLIP, COLUMN]
    rows = segment_rows(db.read("clips", columns, in_list("clip_id", clip_ids), version, few=True))
    old = [clip_id for clip_id in clip_ids if clip_id in state]
    if not rows.num_rows and not old:
        return 0
    merge = db.existing_table(TABLE).merge_insert("segment_id").when_matched_update_all().when_not_matched_insert_all()
    merge.when_not_matched_by_source_delete(in_list("clip_id", old) if old else "false").execute(rows)
    return len(set(rows.column("clip_id").to_pylist()) | set(old))


def segment_rows(clips: pa.Table) -> pa.Table:
    """Rows of `segments` from rows of `clips` with its column, key and words."""
    lists = clips.column(COLUMN).combine_chunks()
    lists = lists.chunk(0) if isinstance(lists, pa.ChunkedArray) else lists
    parents = pc.list_parent_indices(lists)
    each = lists.flatten()
    numbers = itertools.chain.from_iterable(range(num or 0) for num in pc.list_value_length(lists).to_pylist())
    clip_ids = clips.column("clip_id").take(parents)
    ids = pa.array([f"{id_}#{number}" for id_, number in zip(clip_ids.to_pylist(), numbers, strict=True)], pa.string())
    columns: dict[str, Any] = {"segment_id": ids, "clip_id": clip_ids}
    columns["stage_key"] = clips.column(key_column(COLUMN)).take(parents)
    columns |= {name: clips.column(name).take(parents) for name in OF_CLIP}
    columns |= {field.name: each.field(number) for number, field in enumerate(SEGMENT)}
    return pa.table([columns[field.name] for field in SEGMENTS], schema=SEGMENTS)
