"""Columns that an existing table lacks, and columns that users have added to it.

A table may have been made by an older version of handloom, and users add columns of their own with Lance or LanceDB.
Columns that a later version has added to `clip_list`, `rejects` and `runs`, and some of `clips`, are added to older
tables before the next write, and read as null until then; other columns of `clips`, and later members of `quality`,
once its steps are taken (`store.stages.schema_steps`). Columns that handloom does not know stay as they are, and are
null in new rows.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import lance
import pyarrow as pa

from handloom.errors import StoreError
from handloom.schemas.tables.arrow import GROWING, KEY_MARK, TABLE_SCHEMA
from handloom.schemas.tables.stage_columns import KEY_PREFIX
from handloom.store.retry import retried

Rows = TypeVar("Rows", pa.Table, pa.RecordBatch)
log = logging.getLogger(__name__)


def bring_up_to_date(
    name: str, uri: str, reopen: Callable[[], lance.LanceDataset], schema: pa.Schema
) -> lance.LanceDataset:
    """The table with every column of `schema` and its key marked; columns of users are made nullable.

    Changes only metadata, no data, and nothing if the table is up to date.

    Raises:
        StoreError: a column of `schema` has another type in the table, is missing and cannot be added, or the table
            cannot be written.
    """

    def attempt() -> lance.LanceDataset:
        table = reopen()
        check_fields(name, table, schema)
        _check_number(name, table, schema)
        while _change(table, schema):
            table = reopen()
        return table

    return retried(f"bring table {name} up to date", uri, attempt)


def check_fields(name: str, table: lance.LanceDataset, schema: pa.Schema) -> None:
    """Raise StoreError if a column of `schema` has another type in the table, or is missing and cannot be added."""
    there = {field.name: field for field in table.schema}
    changed = [field.name for field in schema if field.name in there and not _can_hold(there[field.name], field)]
    missing = [field for field in schema if field.name not in there]
    grows = name in GROWING or name == "clips"
    wrong = changed + [field.name for field in missing if not grows or not field.nullable]
    if wrong:
        raise StoreError(
            f"table {name} has other columns than this run writes: {', '.join(wrong)} ({table.uri})",
            "use the settings and the version of handloom that the database was made with, or a new database",
        )


def schema_number(table: lance.LanceDataset) -> int:
    """`handloom_schema` of a table `clips`; 0 if it has none."""
    return int((table.schema.metadata or {}).get(b"handloom_schema", b"0"))


def _check_number(name: str, table: lance.LanceDataset, schema: pa.Schema) -> None:
    """Raise StoreError for a table of a later version, and for one whose keys of stages would be added as null."""
    number = schema_number(table)
    if name != "clips" or number == TABLE_SCHEMA:
        return
    what = f"table clips is of schema {number}, this version of handloom writes schema {TABLE_SCHEMA} ({table.uri})"
    if number > TABLE_SCHEMA:
        raise StoreError(what, "install the version of handloom that has last written to it, or a later one")
    if any(field.name.startswith(KEY_PREFIX) for field in schema):
        raise StoreError(what, "`handloom run` brings it up to date, without extracting anything again")


def _can_hold(there: pa.Field, field: pa.Field) -> bool:
    """Whether a column can hold values of a field: it is equal, or a struct that may lack members, in any order."""
    if there.equals(field):
        return True
    if not (pa.types.is_struct(there.type) and pa.types.is_struct(field.type)):
        return False
    members = {member.name: member for member in field.type}
    return all(member.name in members and member.equals(members[member.name]) for member in there.type)


def missing_fields(table: lance.LanceDataset, schema: pa.Schema) -> list[pa.Field]:
    """The fields of `schema` that the table lacks; of a struct column the members alone."""
    missing = [field for field in schema if field.name not in table.schema.names]
    for field in schema:
        if pa.types.is_struct(field.type) and field.name in table.schema.names:
            known = {member.name for member in table.schema.field(field.name).type}
            if members := [member for member in field.type if member.name not in known]:
                missing.append(field.with_type(pa.struct(members)))
    return missing


def allow_null(table: lance.LanceDataset, schema: pa.Schema) -> bool:
    """Make the columns that `schema` does not name nullable. Returns whether anything had to change.

    A column added as `num_frames * 2` is not nullable, like `num_frames`: without this no row could be appended.
    """
    strict = [field.name for field in table.schema if field.name not in schema.names and not field.nullable]
    if strict:
        changes: list[Any] = [{"path": column, "nullable": True} for column in strict]  # pylance 14 types them wrongly
        table.alter_columns(*changes)
        log.info("columns may hold null from now on table=%s columns=%s", table.uri, ",".join(strict))
    return bool(strict)


def absent_fields(name: str, schema: pa.Schema, columns: Sequence[str] | None) -> list[pa.Field]:
    """Those of `columns` (None: all) that are newer than this table, and are read as null."""
    return [
        field
        for field in GROWING.get(name, ())
        if field.nullable and field.name not in schema.names and (columns is None or field.name in columns)
    ]


def with_nulls(rows: Rows, absent: Sequence[pa.Field], columns: Sequence[str] | None) -> Rows:
    """The rows with the columns `absent` added as null, in the order of `columns`."""
    for field in absent:
        rows = rows.append_column(field, pa.nulls(rows.num_rows, field.type))
    return rows if columns is None else rows.select(columns)


def _change(table: lance.LanceDataset, schema: pa.Schema) -> bool:
    """Make one change if one is needed. Returns whether one was made."""
    if missing := missing_fields(table, schema):
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
