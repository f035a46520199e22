"""Rows that several writers have added under one key, and how all but one of them go again.

Lance adds what is appended, whatever is there. Whoever finds other commits before its own looks for repeated keys and
deletes them. Several processes may do so at once: each decides from one version of the table, and deletes only where
that version is still the newest in what it touches, so they agree on the row that stays.
"""

from __future__ import annotations

import lance

from handloom.store.retry import retried
from handloom.store.tables import Tables

ROWS_PER_DELETE = 500


def drop_repeated(db: Tables, name: str, key: str = "clip_id", *, keep_last: bool = False) -> int:
    """Delete every row whose key has an earlier row, or a later one with `keep_last`. Returns how many: normally none.

    Raises StoreError where it cannot be read or written.
    """
    uri = db.location.table_uri(name)
    dropped = 0
    while some := retried(f"remove repeated rows of {name}", uri, lambda: _drop_some(db, name, key, keep_last)):
        dropped += some
    return dropped


def _drop_some(db: Tables, name: str, key: str, keep_last: bool) -> int:
    table = db.table(name)
    repeated = [] if table is None else _repeated(table, key, keep_last)[:ROWS_PER_DELETE]
    if repeated:
        # Lance's own retries would look for the same row numbers in a newer version: compaction gives them anew.
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
