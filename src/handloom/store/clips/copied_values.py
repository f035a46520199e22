"""The values that rows copy from the clip list, read from both tables to be compared.

Of the column `camera` only the digest is read. Tables written before 0.4 have none for their cameras: those cameras are
read once, and `store_digests` writes what was found.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import lance
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from handloom.schemas.clip import digest_of
from handloom.schemas.tables.arrow import CLIP_LIST
from handloom.store.location import lance_errors
from handloom.store.retry import retried
from handloom.store.tables import Tables

DIGEST = "camera_digest"
_BATCH_CLIPS = 1024  # a camera with poses has 30 KB


def read_copies(db: Tables, name: str, columns: Sequence[str], where: str | None = None) -> pa.Table:
    """`clip_id` and these columns of `clip_list` or `clips`, in stored order; a column that the table lacks is null.

    The digest of the camera is computed where the table has none. Raises StoreError.
    """
    names = ["clip_id", *columns]
    table = db.table(name)
    if table is None:
        return pa.schema([CLIP_LIST.field(column) for column in names]).empty_table()
    with lance_errors(f"read table {name}", table.uri):
        rows = table.to_table(columns=[column for column in names if column in table.schema.names], filter=where)
        for column in columns:
            if column not in rows.schema.names:
                kind = CLIP_LIST.field(column).type
                rows = rows.append_column(column, pa.nulls(rows.num_rows, kind))
        if DIGEST in columns and rows.column(DIGEST).null_count:
            found = dict(_missing_digests(table))
            ids, digests = rows.column("clip_id").to_pylist(), rows.column(DIGEST).to_pylist()
            whole = [found[clip_id] if digest is None else digest for clip_id, digest in zip(ids, digests, strict=True)]
            rows = rows.set_column(rows.schema.get_field_index(DIGEST), DIGEST, pa.array(whole, pa.string()))
    return rows.select(names)


def matched(rows: pa.Table, listed: pa.Table) -> tuple[pa.Table, pa.Table]:
    """The rows whose clip is among `listed`, and the values of `listed` beside each."""
    index = pc.index_in(rows.column("clip_id"), value_set=listed.column("clip_id"))
    known = index.is_valid()
    return rows.filter(known), listed.take(index.filter(known))


def differing(made: pa.Table, now: pa.Table, column: str) -> NDArray[np.bool_]:
    """Where a column of two tables of equal length differs; null equals null."""
    one, other = made.column(column), now.column(column)
    both = pc.and_(one.is_valid(), other.is_valid())
    unequal = pc.if_else(both, pc.not_equal(one, other), pc.xor(one.is_valid(), other.is_valid()))
    return unequal.to_numpy()


def write_copies(db: Tables, name: str, rows: pa.Table) -> None:
    """Write columns of existing rows, by their `clip_id`: new files for these columns alone. Raises StoreError.

    Measured with pylance 14.0.2: rows keep their order and place, full-text and scalar indexes find the new values
    without another build, and a run may commit rows meanwhile (120 commits beside 48 of words: nothing lost).
    """
    uri = db.location.table_uri(name)
    retried(f"write {', '.join(rows.schema.names[1:])} of {name}", uri, partial(_merge, db, uri, rows))


def store_digests(db: Tables) -> int:
    """Compute the digests of cameras that the tables lack, and write them. Returns how many: none after the first call.

    Raises StoreError.
    """
    num = 0
    for name in ("clips", "clip_list"):
        table = db.table(name)
        if table is None or not num_without_digest(table):
            continue
        if DIGEST not in table.schema.names:
            num += table.count_rows()
            retried(f"add {DIGEST} to {name}", table.uri, partial(_add_digest, db, name))
            continue
        with lance_errors(f"read table {name}", table.uri):
            found = list(_missing_digests(db.existing_table(name)))
        columns = zip(*found, strict=True)
        arrays = [pa.array(values, pa.string()) for values in columns]
        if arrays:
            schema = pa.schema([CLIP_LIST.field("clip_id"), CLIP_LIST.field(DIGEST)])
            write_copies(db, name, pa.Table.from_arrays(arrays, schema=schema))
        num += len(found)
    return num


def num_without_digest(table: lance.LanceDataset) -> int:
    """Number of rows whose camera has no digest yet. Raises StoreError."""
    with lance_errors("count the rows of", table.uri):
        return table.count_rows(filter=f"{DIGEST} IS NULL" if DIGEST in table.schema.names else None)


def _missing_digests(table: lance.LanceDataset) -> Iterator[tuple[str, str]]:
    """(clip id, digest) of the rows without one. Raises Lance's own errors."""
    where = f"{DIGEST} IS NULL" if DIGEST in table.schema.names else None
    columns = [name for name in ("clip_id", "camera") if name in table.schema.names]
    for batch in table.to_batches(columns=columns, filter=where, batch_size=_BATCH_CLIPS):
        ids = batch.column("clip_id").to_pylist()
        cameras = batch.column("camera").to_pylist() if "camera" in columns else [None] * len(ids)
        yield from zip(ids, map(digest_of, cameras), strict=True)


def _add_digest(db: Tables, name: str) -> None:
    """Add the column with its values, one new file for each fragment. Raises Lance's own errors."""
    table = db.existing_table(name)
    if DIGEST in table.schema.names:
        return
    schema = pa.schema([CLIP_LIST.field(DIGEST)])

    @lance.batch_udf(output_schema=schema)
    def digests(batch: pa.RecordBatch) -> pa.RecordBatch:
        cameras = batch.column("camera").to_pylist() if "camera" in batch.schema.names else [None] * batch.num_rows
        return pa.record_batch([pa.array([digest_of(camera) for camera in cameras], pa.string())], schema=schema)

    read = ["camera"] if "camera" in table.schema.names else ["clip_id"]
    table.add_columns(digests, read_columns=read, batch_size=_BATCH_CLIPS)


def _merge(db: Tables, uri: str, rows: pa.Table) -> None:
    table: Any = lance.dataset(uri, storage_options=db.storage_options or None)
    table.merge_insert("clip_id").when_matched_update_all().execute(rows)
