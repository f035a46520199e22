"""The table `skills`: skills by name, written and read."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

from handloom.errors import ConfigError, StoreError
from handloom.schemas.tables.skills import SKILLS, TABLE
from handloom.store.retry import retried
from handloom.store.tables import Tables


def write_skills(db: Tables, rows: Sequence[Mapping[str, Any]], replace: bool = False) -> None:
    """Add skills, all in one commit.

    replace: in place of those of the same names. Raises ConfigError if a name is taken otherwise, StoreError if the
    table cannot be written.
    """
    table = pa.Table.from_pylist([dict(row) for row in rows], SKILLS)
    db.ensure_table(TABLE, SKILLS)

    def write() -> None:
        names = {row["name"] for row in rows}
        taken = sorted(names & set(db.read(TABLE, ["name"]).column("name").to_pylist()))
        if taken and not replace:
            raise ConfigError(f"there is a skill {taken[0]!r} already", "give another --name, or --replace")
        merge = db.existing_table(TABLE).merge_insert("name").when_matched_update_all()
        merge.when_not_matched_insert_all().execute(table)

    retried("write the skills", db.location.table_uri(TABLE), write)


def read_skills(db: Tables) -> list[dict[str, Any]]:
    """All rows, by name; empty without any."""
    rows = db.read(TABLE).to_pylist()
    return sorted(rows, key=lambda row: row["name"])


def read_skill(db: Tables, name: str) -> dict[str, Any]:
    """One row. Raises StoreError, with the nearest names, if there is no such skill."""
    rows = read_skills(db)
    for row in rows:
        if row["name"] == name:
            return row
    names = [row["name"] for row in rows]
    close = difflib.get_close_matches(name, names, 3, 0.4) or names[:5]
    hint = f"did you mean {', '.join(close)}?" if close else "learn one with `handloom skill learn`"
    raise StoreError(f"there is no skill {name!r} in {db.uri}", hint)
