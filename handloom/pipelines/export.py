"""`handloom export`: the rows of `clips` as files of other systems."""

from __future__ import annotations

from typing import Any

from handloom.errors import StoreError
from handloom.export.shards import Shard, export_arrow, export_parquet
from handloom.store.database import Database
from handloom.store.runs import stored_settings

BATCH_ROWS = 8  # a row is one to five megabytes
FORMATS = {"parquet": export_parquet, "arrow": export_arrow}


def export(db: Database, form: str, out: str, where: str | None = None, **options: Any) -> list[Shard]:
    """Write the rows that pass `where`, of the newest version, in shards of the table's own schema.

    Raises:
        StoreError: nothing is processed yet, or `out` cannot be written.
        ConfigError: `out` is not empty, or `where` is no SQL.
    """
    table = db.table("clips")
    if table is None or not db.count("clips"):
        raise StoreError(f"{db.uri} holds no processed clips yet", "process them with `handloom run --db DB`")
    stored = stored_settings(db)
    source = {"db": db.uri, "version": table.version, "where": where}
    source |= {"run_key": stored.run_key, "settings": stored.settings, "versions": stored.versions} if stored else {}
    batches = db.batches(where=where, version=table.version, batch_size=BATCH_ROWS)
    return FORMATS[form](batches, out, schema=table.schema, metadata=source, **options)
