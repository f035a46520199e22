"""The table `skills`: skills by name, written, read and removed."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import pyarrow as pa

from handloom.errors import ConfigError, StoreError
from handloom.schemas.tables.skills import SKILLS, TABLE
from handloom.store.filters import in_list
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


def delete_skill(db: Tables, name: str) -> None:
    """Remove a row. Raises StoreError if there is no such skill, or the table cannot be written."""
    read_skill(db, name)
    delete = lambda: db.existing_table(TABLE).delete(in_list("name", [name]))
    retried("remove a skill", db.location.table_uri(TABLE), delete)


def without_row(db: Tables, clip_ids: Collection[str]) -> set[str]:
    """Those of the clips that have no row in `clips`: they were removed, or their rows were."""
    if not clip_ids or db.table("clips") is None:
        return set(clip_ids)
    there = db.read("clips", ["clip_id"], in_list("clip_id", clip_ids)).column("clip_id").to_pylist()
    return set(clip_ids) - set(there)


def taught_by(db: Tables, clip_ids: Collection[str]) -> list[str]:
    """Names of the skills that were learned from some of these clips, sorted."""
    wanted = set(clip_ids)
    rows = db.read(TABLE, ["name", "clip_ids"]).to_pylist()
    return sorted(row["name"] for row in rows if wanted.intersection(row["clip_ids"]))


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
