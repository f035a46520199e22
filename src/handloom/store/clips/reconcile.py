"""Repairs the tables after a kill between two commits, and after two writers at once."""

from __future__ import annotations

from collections.abc import Iterable

from handloom.store.filters import in_list
from handloom.store.location import lance_errors
from handloom.store.repeated import drop_repeated
from handloom.store.tables import Tables

IDS_PER_DELETE = 500


def reconcile(db: Tables) -> None:
    """Delete rows until `clips` and `rejects` together hold one row per clip; a row of `clips` wins over a reject."""
    drop_repeated(db, "clips")
    drop_repeated(db, "rejects", keep_last=True)
    rejects = db.read("rejects", ["clip_id"])
    if not rejects.num_rows:
        return
    rejected = rejects.column("clip_id").to_pylist()
    done = set(db.clips(["clip_id"]).column("clip_id").to_pylist()) if db.version else set()
    delete_rejects(db, (i for i in rejected if i in done))


def delete_rejects(db: Tables, clip_ids: Iterable[str]) -> None:
    """Delete the rejects of these clips."""
    ids = sorted(clip_ids)
    for start in range(0, len(ids), IDS_PER_DELETE):
        table, condition = db.table("rejects"), in_list("clip_id", ids[start : start + IDS_PER_DELETE])
        if table is not None:
            with lance_errors("remove healed rejects", db.location.table_uri("rejects")):
                table.delete(condition)  # Lance's own retries are safe: the condition is the same for any version
