"""`handloom export`: the rows in the files of other systems."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from handloom.errors import StoreError
from handloom.export.card import Card, Tally
from handloom.export.shards import Shard, export_arrow, export_parquet
from handloom.store.database import Database
from handloom.store.runs import stored_settings

BATCH_ROWS = 8  # a row is one to five megabytes
FORMATS = {"parquet": export_parquet, "arrow": export_arrow}
LAYOUTS = {
    "parquet": """One row per clip in `clips-*.parquet`, with the table's own columns and types; `index.json` lists the
files with their SHA-256. NaN is a value that is not known, null a column that was not computed.

```python
import pyarrow.parquet as pq

clips = pq.read_table("clips-00000-of-00001.parquet")
```""",
    "arrow": """One row per clip in `clips-*.arrow`, with the table's own columns and types; Arrow IPC files, not
compressed, to be memory-mapped. `index.json` lists them with their SHA-256. NaN is a value that is not known, null a
column that was not computed.

```python
import pyarrow as pa

clips = pa.ipc.open_file(pa.memory_map("clips-00000-of-00001.arrow")).read_all()
```""",
}


def export(db: Database, form: str, out: str, where: str | None = None, **options: Any) -> list[Shard]:
    """Write the rows that pass `where`, of the newest version, in shards of the table's own schema.

    Raises:
        StoreError: nothing is processed yet, or `out` cannot be written.
        ConfigError: `out` is not empty, or `where` is no SQL.
    """
    table, source = opened(db, "clips", where)
    tally = Tally()
    batches = tally.over(db.batches(where=where, version=table.version, batch_size=BATCH_ROWS))
    data_files = "clips-*.parquet" if form == "parquet" else None
    card = Card(form, "Clips of human hands", LAYOUTS[form], source, data_files)
    text: Callable[[], str] = lambda: card.text(tally)
    return FORMATS[form](batches, out, schema=table.schema, metadata=source, card=text, **options)


def opened(db: Database, name: str, where: str | None) -> tuple[Any, dict[str, Any]]:
    """The table at its newest version, and what an index says about it. Raises StoreError where it holds no row."""
    table = db.table(name)
    if table is None or not db.count(name):
        doing = "process them with `handloom run --db DB`"
        if name == "robot_episodes":
            doing = "read some with `handloom ingest lerobot` or `handloom ingest calvin`"
        raise StoreError(f"{db.uri} holds no {'processed clips' if name == 'clips' else 'robot episodes'} yet", doing)
    source = {"db": db.uri, "table": name, "version": table.version, "where": where}
    stored = stored_settings(db) if name == "clips" else None
    source |= {"run_key": stored.run_key, "settings": stored.settings, "versions": stored.versions} if stored else {}
    return table, source
