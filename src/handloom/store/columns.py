"""Columns of a table that is there: those it lacks, and those that somebody else has added.

A table may have been made by an older version of handloom, and users add columns of their own with Lance or LanceDB.
What a later version has added to `clip_list`, `rejects` and `runs` is null in older tables: added before something is
written, read as null until then. Columns that handloom does not know are left alone; rows that it adds have null there.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import TypeVar

import lance
import pyarrow as pa

from handloom.errors import StoreError
from handloom.schemas.tables.arrow import GROWING, KEY_MARK
from handloom.store.retry import retried

Rows = TypeVar("Rows", pa.Table, pa.RecordBatch)
log = logging.getLogger(__name__)


def bring_up_to_date(
    name: str, uri: str, reopen: Callable[[], lance.LanceDataset], schema: pa.Schema
) -> lance.LanceDataset:
    """The table with every column of `schema`, its key marked, and room for null in columns of others.

    Changes the description of the table only, no data; nothing where it is up to date.

    Raises:
        StoreError: a column of `schema` is of another type or is missing in a table that does not grow; it cannot be
            written.
    """

    def attempt() -> lance.LanceDataset:
        table = reopen()
        check_fields(name, table, schema)
        while _change(table, schema):
            table = reopen()
        return table

    return retried(f"bring table {name} up to date", uri, attempt)


def check_fields(name: str, table: lance.LanceDataset, schema: pa.Schema) -> None:
    """Raise StoreError where a column of `schema` is another one in the table, or is missing and cannot be added."""
    there = {field.name: field for field in table.schema}
    changed = [field.name for field in schema if field.name in there and not there[field.name].equals(field)]
    missing = [field for field in schema if field.name not in there]
    wrong = changed + [field.name for field in missing if name not in GROWING or not field.nullable]
    if wrong:
        raise StoreError(
            f"table {name} has other columns than this run writes: {', '.join(wrong)} ({table.uri})",
            "use the settings and the version of handloom that the database was made with, or a new database",
        )


def allow_null(table: lance.LanceDataset, schema: pa.Schema) -> bool:
    """Let columns that `schema` does not name hold null; whether something had to change.

    A column added as `num_frames * 2` cannot: Lance takes that over from `num_frames`, and no row could be appended.
    """
    strict = [field.name for field in table.schema if field.name not in schema.names and not field.nullable]
    if strict:
        table.alter_columns(*({"path": column, "nullable": True} for column in strict))
        log.info("columns may hold null from now on table=%s columns=%s", table.uri, ",".join(strict))
    return bool(strict)


def absent_fields(name: str, schema: pa.Schema, columns: Sequence[str] | None) -> list[pa.Field]:
    """The columns asked for (None: all) that a later version has added to tables like this one: to be read as null."""
    return [
        field
        for field in GROWING.get(name, ())
        if field.nullable and field.name not in schema.names and (columns is None or field.name in columns)
    ]


def with_nulls(rows: Rows, absent: Sequence[pa.Field], columns: Sequence[str] | None) -> Rows:
    """The rows with these columns as null, in the order of `columns`."""
    for field in absent:
        rows = rows.append_column(field, pa.nulls(rows.num_rows, field.type))
    return rows if columns is None else rows.select(columns)


def _change(table: lance.LanceDataset, schema: pa.Schema) -> bool:
    """Make one change that is needed; False where none is."""
    missing = [field for field in schema if field.name not in table.schema.names]
    if missing:
        table.add_columns(pa.schema(missing))
        return True
    if allow_null(table, schema):
        return True
    unmarked = [field.name for field in schema if _is_key(field) and not _is_key(table.schema.field(field.name))]
    if unmarked:
        table.update_field_metadata({column: {KEY_MARK: "true"} for column in unmarked})
    return bool(unmarked)


def _is_key(field: pa.Field) -> bool:
    return (field.metadata or {}).get(KEY_MARK.encode()) == b"true"
