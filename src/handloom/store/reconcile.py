"""Put right what a kill between two commits, or two writers at once, can leave behind."""

from __future__ import annotations

from collections.abc import Iterable

from handloom.store.database import Database
from handloom.store.location import lance_errors
from handloom.store.sql import in_list

IDS_PER_DELETE = 500


def reconcile(db: Database) -> None:
    """Leave exactly one row per clip in `clips` and `rejects` together: a row in `clips` wins over a reject."""
    drop_repeated_clips(db)
    _drop_repeated(db, "rejects", keep_last=True)
    rejects = db.read("rejects", ["clip_id"])
    if not rejects.num_rows:
        return
    rejected = rejects.column("clip_id").to_pylist()
    done = set(db.clips(["clip_id"]).column("clip_id").to_pylist()) if db.version else set()
    delete_rejects(db, (i for i in rejected if i in done))


def drop_repeated_clips(db: Database) -> int:
    """Delete every row of `clips` whose clip has an earlier row. Returns how many there were: none, normally."""
    return _drop_repeated(db, "clips", keep_last=False)


def delete_rejects(db: Database, clip_ids: Iterable[str]) -> None:
    """Delete the rejects of these clips."""
    ids = sorted(clip_ids)
    for start in range(0, len(ids), IDS_PER_DELETE):
        table = db.table("rejects")
        if table is not None:
            with lance_errors("remove healed rejects", db.location.table_uri("rejects")):
                table.delete(in_list("clip_id", ids[start : start + IDS_PER_DELETE]))


def _drop_repeated(db: Database, name: str, keep_last: bool) -> int:
    table = db.table(name)
    if table is None:
        return 0
    with lance_errors(f"read table {name}", db.location.table_uri(name)):
        rows = table.to_table(columns=["clip_id"], with_row_id=True)
    ids = zip(rows.column("_rowid").to_pylist(), rows.column("clip_id").to_pylist(), strict=True)
    seen: set[str] = set()
    repeated = []
    for row_id, clip_id in sorted(ids, reverse=keep_last):
        if clip_id in seen:
            repeated.append(row_id)
        seen.add(clip_id)
    for start in range(0, len(repeated), IDS_PER_DELETE):
        with lance_errors(f"remove repeated rows of {name}", db.location.table_uri(name)):
            table.delete(f"_rowid IN ({', '.join(map(str, repeated[start : start + IDS_PER_DELETE]))})")
    return len(repeated)
