"""`handloom export`: the rows in the files of other systems."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import pyarrow as pa

from handloom.api import Database
from handloom.errors import ConfigError, StoreError
from handloom.export.card import Card, CardTally
from handloom.export.shards import ExportShard, export_arrow, export_parquet
from handloom.schemas.tables.stage_columns import is_private
from handloom.store.embodiment import ALL, HUMAN, ROBOT, narrowed, robot_datasets
from handloom.store.filters import clause
from handloom.store.runs.runs import recorded_licences, stored_settings
from handloom.store.stages.row_keys import (
    StageKeys,
    demanded,
    key_spread,
    none_has,
    note_mixed,
    stages_behind,
    with_demand,
)

log = logging.getLogger(__name__)

TITLES = {HUMAN: "Clips of human hands", ROBOT: "Clips of robots", ALL: "Clips of people and of robots"}
BATCH_ROWS = 8  # a row is one to five megabytes
FORMATS = {"parquet": export_parquet, "arrow": export_arrow}
LAYOUTS = {
    "parquet": """One row per clip in `clips-*.parquet`, with the table's own columns and types; `index.json` lists the
files with their SHA-256. NaN is an unknown value, null a column that was not computed.

```python
import pyarrow.parquet as pq

clips = pq.read_table("clips-00000-of-00001.parquet")
```""",
    "arrow": """One row per clip in `clips-*.arrow`, with the table's own columns and types; Arrow IPC files, not
compressed, to be memory-mapped. `index.json` lists them with their SHA-256. NaN is an unknown value, null a column
that was not computed.

```python
import pyarrow as pa

clips = pa.ipc.open_file(pa.memory_map("clips-00000-of-00001.arrow")).read_all()
```""",
}


class Opened(NamedTuple):
    """The rows to export. table: at the version to read. source: for the index and the card. where: the filter, the
    embodiment and the demanded stage keys together."""

    table: Any
    source: dict[str, Any]
    where: str | None

    def columns(self) -> list[str]:
        """All columns but those that only handloom's own stages read."""
        return [name for name in self.table.schema.names if not is_private(name)]


def export(
    db: Database,
    form: str,
    out: str,
    where: str | None = None,
    *,
    embodiment: str = HUMAN,
    stage_keys: StageKeys = None,
    **options: Any,
) -> list[ExportShard]:
    """Write the rows that pass `where`, of the newest version, in shards of the table's own schema.

    Args:
        embodiment: whose clips: `human`, `robot` or `all`.
        stage_keys: only rows with these keys, by stage; `current`: those of the last run, for all stages.

    Raises:
        StoreError: nothing is processed yet, or `out` cannot be written.
        ConfigError: `out` is not empty, no clip is of this embodiment or has the stage keys, or `where` is no SQL.
    """
    rows = opened(db, "clips", where, embodiment, stage_keys)
    table, source, columns, tally = rows.table, rows.source, rows.columns(), CardTally()
    batches = tally.over(db.batches(columns, rows.where, table.version, BATCH_ROWS))
    schema = pa.schema([table.schema.field(name) for name in columns], table.schema.metadata)
    data_files = "clips-*.parquet" if form == "parquet" else None
    card = Card(form, TITLES[embodiment], LAYOUTS[form], source, data_files)
    text: Callable[[], str] = lambda: card.text(tally)
    return FORMATS[form](batches, out, schema=schema, metadata=source, card=text, **options)


def opened(
    db: Database,
    name: str,
    where: str | None,
    embodiment: str = HUMAN,
    stage_keys: StageKeys = None,
    columns: Iterable[str] | None = None,
) -> Opened:
    """The table at its newest version, narrowed to an embodiment where it holds clips.

    columns: that are exported; None: all. Several keys of a stage behind them are logged as a warning.

    Raises StoreError without any row, ConfigError if all rows that pass are of the other embodiment or of other keys.
    """
    table = db.table(name)
    if table is None or not db.count(name):
        doing = "process them with `handloom run --db DB`"
        if name == "robot_episodes":
            doing = "read some with `handloom ingest lerobot` or `handloom ingest calvin`"
        raise StoreError(f"{db.uri} holds no {'processed clips' if name == 'clips' else 'robot episodes'} yet", doing)
    source = {"db": db.uri, "table": name, "version": table.version, "where": where}
    if where is not None and not db.count(name, where):
        raise _none_pass(db, name, where)
    if name != "clips":
        demanded(db, table.schema, stage_keys, ())  # refused: other tables have no stages
        return Opened(table, source, where)
    stored = stored_settings(db)
    source |= {"run_key": stored.run_key, "settings": stored.settings, "versions": stored.versions} if stored else {}
    source["licences"] = recorded_licences(db)
    used, robots = db.expanded(narrowed(db, where, embodiment)), robot_datasets(db)
    source |= {"embodiment": embodiment, "robot_datasets": list(robots)}
    if robots and embodiment != ALL:
        source["other_embodiment"] = _left_out(db, where, used, embodiment)
    columns = table.schema.names if columns is None else columns
    if demand := demanded(db, table.schema, stage_keys, columns):
        passing, used = used, with_demand(used, demand)
        kept, num_all = (table.count_rows(clause(condition)) for condition in (used, passing))
        if not kept:
            raise none_has(demand, key_spread(table, demand, passing))
        source |= {"stage_keys": demand, "other_stage_key": num_all - kept}
    spread = key_spread(table, stages_behind(table.schema, columns), used)
    note_mixed(spread, f"export of {db.uri}")
    if spread:
        source["rows_of_key"] = {stage: {key or "": n for key, n in counts.items()} for stage, counts in spread.items()}
    return Opened(table, source, used)


def _none_pass(db: Database, name: str, where: str) -> ConfigError:
    rows = f"{db.count(name)} {'clips' if name == 'clips' else 'robot episodes'} of {db.uri}"
    return ConfigError(f"--where {where!r} passes none of the {rows}", "change the filter, or leave it out for all")


def _left_out(db: Database, where: str | None, used: str | None, embodiment: str) -> int:
    """How many clips of the other embodiment pass the filter; logs a warning. Raises ConfigError if all do."""
    passing, kept = db.count("clips", where), db.count("clips", used)
    asked, others = ("people", "robots") if embodiment == HUMAN else ("robots", "people")
    if passing and not kept:
        raise ConfigError(
            f"clips of {asked} are exported, and all {passing} clips{' that pass --where' if where else ''} are of "
            f"{others}",
            f"--embodiment {ROBOT if others == 'robots' else HUMAN} takes them; robots' states and actions: "
            "`handloom export lerobot --table robot_episodes`",
        )
    if passing > kept:
        log.warning("left out %d clips of %s: --embodiment all takes them too", passing - kept, others)
    return passing - kept
