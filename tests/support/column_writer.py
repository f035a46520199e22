"""A driver to be killed: gives every row its new columns, two clips a commit, again and again.

    python -m support.column_writer DB SEED

It says "ready" before its first commit, and ends when every row has the columns of the seed.
"""

from __future__ import annotations

import sys

import pyarrow as pa
from support.column_tables import FIELDS, STAGES, new_columns
from support.rows import RUN_KEY, make_clip

from handloom.api import Database
from handloom.schemas.tables.stage_columns import key_column
from handloom.store.stages.staged import write_update
from handloom.store.stages.update import ColumnCommitter

NUMBERS = {make_clip(number).clip_id: number for number in range(30)}


def outdated(db: Database, seed: int) -> list[int]:
    """Clips whose row lacks a key of this seed."""
    keys = [key_column(stage) for stage in STAGES]
    rows: pa.Table = db.clips(["clip_id", *keys])
    wanted = [f"{stage}-{seed}" for stage in STAGES]
    return [NUMBERS[row["clip_id"]] for row in rows.to_pylist() if [row[key] for key in keys] != wanted]


def main(uri: str, seed: int) -> None:
    db = Database.open(uri)
    columns = ColumnCommitter(db, RUN_KEY, FIELDS)
    print("ready", flush=True)
    while todo := outdated(db, seed):
        columns.commit([write_update(uri, new_columns(todo[:2], STAGES, seed), "killed")])


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
