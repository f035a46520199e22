"""Deletes all but one of the rows that several writers have appended under one key.

Lance appends rows whether their keys exist or not. A writer that finds commits of others before its own looks for
repeated keys and deletes them. Several processes may do so at once: each decides on one version of the table, and its
delete fails if a newer version has touched the same fragments, so all agree on the row that stays.
"""

from __future__ import annotations

import lance

from handloom.store.retry import retried
from handloom.store.tables import Tables

ROWS_PER_DELETE = 500


def drop_repeated(db: Tables, name: str, key: str = "clip_id", *, keep_last: bool = False) -> int:
    """Delete every row whose key has an earlier row (with `keep_last`, a later one). Returns how many: normally none.

    Raises StoreError if the table cannot be read or written.
    """
    uri = db.location.table_uri(name)
    dropped = 0
    while some := retried(f"remove repeated rows of {name}", uri, lambda: _drop_some(db, name, key, keep_last)):
        dropped += some
    return dropped


def _drop_some(db: Tables, name: str, key: str, keep_last: bool) -> int:
    table = db.table(name)
    if table is None:
        return 0
    repeated = _repeated(table, key, keep_last)[:ROWS_PER_DELETE]
    if repeated:
        # No retries by Lance: they would delete the same row ids in a newer version, and compaction changes row ids.
        table.delete(f"_rowid IN ({', '.join(map(str, repeated))})", conflict_retries=0)
    return len(repeated)


def _repeated(table: lance.LanceDataset, key: str, keep_last: bool) -> list[int]:
    """Row ids, in the order in which the rows were committed."""
    rows = table.to_table(columns=[key], with_row_id=True)
    pairs = zip(rows.column("_rowid").to_pylist(), rows.column(key).to_pylist(), strict=True)
    seen: set[str] = set()
    repeated = []
    for row_id, value in sorted(pairs, reverse=keep_last):
        if value in seen:
            repeated.append(row_id)
        seen.add(value)
    return repeated
