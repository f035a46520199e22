"""A row as a worker reads it, to compute further columns of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import lance
import pyarrow as pa

from handloom.store.filters import in_list
from handloom.store.location import Location, lance_errors


class StoredRows:
    """Reads rows of `clips`, of the version that the table had when this was made. Workers make one a shard.

    Raises StoreError.
    """

    def __init__(self, uri: str, storage_options: Mapping[str, str] | None = None) -> None:
        self._uri = Location.parse(uri).table_uri("clips")
        with lance_errors("open table clips", self._uri):
            self._table = lance.dataset(self._uri, storage_options=dict(storage_options or {}) or None)
            self._names = frozenset(self._table.schema.names)  # Lance makes a schema anew each time it is asked

    def row(self, clip_id: str, columns: Sequence[str], fragment: int | None = None) -> pa.Table | None:
        """The columns of a clip's row that the table has; None without a row.

        fragment: where the row was when the shard was planned: it is looked for there first.
        """
        there = [name for name in columns if name in self._names]
        where = in_list("clip_id", [clip_id])
        with lance_errors(f"read the row of {clip_id}", self._uri):
            found = None if fragment is None else self._table.get_fragment(fragment)
            if found is not None:
                rows = self._table.scanner(columns=there, filter=where, fragments=[found]).to_table()
                if rows.num_rows:
                    return rows.slice(0, 1)
            rows = self._table.to_table(columns=there, filter=where)
        return rows.slice(0, 1) if rows.num_rows else None
