"""A worker's rows as a fragment: a row that cannot be written costs its clip only."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain

import pyarrow as pa

from handloom.errors import ClipError
from handloom.schemas.tables.reject import Reject
from handloom.store.fragments import FragmentRecord, write_fragment
from handloom.store.runs.runs import WRITE
from handloom.workers.bugs import bugs_as_rejects

Written = tuple[list[pa.RecordBatch], list[FragmentRecord], list[Reject]]


def write_rows(db_uri: str, rows: list[pa.RecordBatch], schema: pa.Schema, storage_options: dict[str, str]) -> Written:
    """The rows that were written, their fragments, and rejects of rows that cannot be written. Raises StoreError."""
    if not rows:
        return [], [], []
    try:
        with bugs_as_rejects(clip_id_of(rows[0]), lambda: WRITE):
            return rows, [write_fragment(db_uri, rows, schema, storage_options)], []
    except ClipError as bug:
        if len(rows) == 1:
            return [], [], [Reject.from_error(bug)]
    parts = (write_rows(db_uri, [row], schema, storage_options) for row in rows)
    written, records, rejects = zip(*parts, strict=True)
    return [*chain(*written)], [*chain(*records)], [*chain(*rejects)]


def one_record(records: Sequence[FragmentRecord]) -> FragmentRecord | None:
    """All of them as one; None without any."""
    if not records:
        return None
    return FragmentRecord(tuple(f for r in records for f in r.fragments), tuple(i for r in records for i in r.clip_ids))


def clip_id_of(row: pa.RecordBatch) -> str:
    return row.column("clip_id")[0].as_py()


def num_frames_of(row: pa.RecordBatch) -> int:
    return row.column("num_frames")[0].as_py()
