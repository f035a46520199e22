"""Columns of `clips` for stages: added before a run that computes them, and null until then.

Adding a column, or changing its metadata, writes a manifest and no data. A column whose type has changed (an embedding
of another width) is dropped together with its stage's key column, and both are added again: a kill in between leaves a
table without either, which reads as not computed. So is a column that another stage writes now, because its stage is
declared no more: the values are the old stage's, and the new one has another key.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable, Mapping, Sequence

import lance
import pyarrow as pa

from handloom.errors import ConfigError, StoreError
from handloom.schemas.tables.arrow import TABLE_SCHEMA
from handloom.schemas.tables.stage_columns import COLUMNS_OF, KEY_PREFIX, key_column, owner_of
from handloom.store.columns import missing_fields, schema_number
from handloom.store.retry import retried
from handloom.store.tables import Tables

log = logging.getLogger(__name__)

MAX_NAMED = 3


def add_columns_for(
    db: Tables, fields: Iterable[pa.Field], *, ours: Iterable[str] = (), replace: bool = False
) -> tuple[str, ...]:
    """Give `clips` these columns: missing ones are added as null, metadata is brought up to date.

    Args:
        fields: columns of all stages (`schemas.tables.stage_columns.owner_of`), of the clip list and of the run.
        ours: names that handloom has always written, whatever the metadata in the table says: those of `clips_schema`.
        replace: drop a column that has another type, with its values and those of its stage's key column.

    A column of a stage that writes none of `fields` is dropped likewise, if another stage writes it now.

    Returns the names of the columns that hold no values now: added or dropped and added again.

    Raises:
        ConfigError: a column belongs to a user, or to another stage of `fields`.
        StoreError: the table is of an older schema (`store.stages.schema_steps`); a column has another type (without
            `replace`) or is missing and not nullable; the table cannot be written.
    """
    wanted = {field.name: field for field in fields}
    known = set(ours)
    empty: dict[str, None] = {}

    def attempt() -> None:
        while _change(db.existing_table("clips"), wanted, known, replace, empty):
            pass

    retried("add columns to clips", db.location.table_uri("clips"), attempt)
    added = tuple(name for name in empty if name in wanted)
    if added:
        log.info("columns without values were added columns=%s", ",".join(added))
    return added


def check_columns(
    db: Tables, fields: Iterable[pa.Field], *, ours: Iterable[str] = (), replace: Collection[str] = ()
) -> tuple[str, ...]:
    """What `add_columns_for` would drop, before anything is written. Raises its errors; without a table nothing.

    replace: stages whose columns may be dropped.
    """
    if (table := db.table("clips")) is None:
        return ()
    fields = list(fields)
    there = {field.name: field for field in table.schema}
    wanted = {field.name: field for field in fields if field.name in there}
    known = set(ours)
    left = _left(there, wanted, _stages(fields))
    for name, field in wanted.items():
        if name not in left:
            _check_owner(there[name], field, known, table.uri)
    other = [field for field in _other_types(there, wanted) if field.name not in left]
    if kept := [field for field in other if owner_of(wanted[field.name]) not in replace]:
        raise _other_type(kept, wanted, table.uri)
    return (*left, *(field.name for field in other))


def changes_type(db: Tables, fields: Iterable[pa.Field]) -> set[str]:
    """The stages that have a column in `clips` and now write it as another type."""
    table = db.table("clips")
    there = {} if table is None else {field.name: field for field in table.schema}
    found = _other_types(there, {field.name: field for field in fields})
    return {owner for field in found if (owner := owner_of(field)) is not None}


def _change(
    table: lance.LanceDataset, wanted: Mapping[str, pa.Field], ours: set[str], replace: bool, empty: dict[str, None]
) -> bool:
    """Make one commit if one is needed. Returns whether one was made. Raises Lance's own errors."""
    if (number := schema_number(table)) < TABLE_SCHEMA:  # key columns that are null now would stay so
        problem = (
            f"table clips is of schema {number}, this version of handloom writes schema {TABLE_SCHEMA} ({table.uri})"
        )
        raise StoreError(problem, "`handloom run` brings it up to date, without extracting anything again")
    there = {field.name: field for field in table.schema}
    left = _left(there, wanted, _stages(wanted.values()))
    for name in wanted.keys() & there.keys() - left.keys():
        _check_owner(there[name], wanted[name], ours, table.uri)
    other = [field for field in _other_types(there, wanted) if field.name not in left]
    if other and not replace:
        raise _other_type(other, wanted, table.uri)
    if other or left:
        for name, (before, now) in left.items():
            told = "its old values are dropped, and computed again"
            log.warning(
                "column %s of stage %s, which is declared no more, is of stage %s now: %s", name, before, now, told
            )
        dropped = _with_keys([*other, *(there[name] for name in left)], wanted, there)
        table.drop_columns(dropped)
        log.info("columns are dropped, to be computed again table=%s columns=%s", table.uri, ",".join(dropped))
        empty.update(dict.fromkeys(dropped))
        return True
    missing = missing_fields(table, pa.schema(list(wanted.values())))
    if missing:
        if strict := [field.name for field in missing if not field.nullable]:
            problem = f"{table.uri} has no column {', '.join(strict)}, which cannot be null"
            raise StoreError(problem, "use the version of handloom that the database was made with, or a new database")
        table.add_columns(pa.schema(missing))
        empty.update(dict.fromkeys(field.name for field in missing if field.name not in there))
        return True
    changed = {name: new for name in wanted if (new := _new_metadata(there[name], wanted[name]))}
    if changed:
        table.update_field_metadata(changed)
    return bool(changed)


def can_hold(there: pa.DataType, wanted: pa.DataType) -> bool:
    """Whether a column's type is the wanted one; a struct's members may be in another order, or be added later."""
    if there == wanted:
        return True
    if not (pa.types.is_struct(there) and pa.types.is_struct(wanted)):
        return False
    members = {member.name: member.type for member in wanted}
    return all(members.get(member.name) == member.type for member in there)


def _stages(fields: Iterable[pa.Field]) -> set[str]:
    """The stages of a run, with those that handloom brings."""
    return {owner for field in fields if (owner := owner_of(field)) is not None} | COLUMNS_OF.keys()


def _left(
    there: Mapping[str, pa.Field], wanted: Mapping[str, pa.Field], stages: Collection[str]
) -> dict[str, tuple[str, str]]:
    """`{column: (its stage, the stage that writes it now)}` of stages that are no longer declared."""
    pairs = {name: (owner_of(there[name]), owner_of(field)) for name, field in wanted.items() if name in there}
    return {
        name: (before, now)
        for name, (before, now) in pairs.items()
        if before is not None and now is not None and before != now and before not in stages
    }


def _other_types(there: Mapping[str, pa.Field], wanted: Mapping[str, pa.Field]) -> list[pa.Field]:
    """The columns of the table that are of another type than the run writes."""
    return [there[name] for name in wanted if name in there and not can_hold(there[name].type, wanted[name].type)]


def _with_keys(fields: Sequence[pa.Field], wanted: Mapping[str, pa.Field], there: Mapping[str, pa.Field]) -> list[str]:
    """The columns and the key columns of the stages that write them now: without its key a stage counts as not
    computed. A stage that has no column any more loses its key, too."""
    names = [field.name for field in fields]
    writers = {stage for name in names if (stage := owner_of(wanted[name])) is not None}
    before = {stage for field in fields if (stage := owner_of(field)) is not None}
    rest = {owner_of(field) for name, field in there.items() if name not in names and not name.startswith(KEY_PREFIX)}
    keys = [key_column(stage) for stage in sorted(writers | before - rest)]
    return [*names, *(key for key in keys if key in there and key not in names)]


def _check_owner(there: pa.Field, wanted: pa.Field, ours: set[str], uri: str) -> None:
    """Raise ConfigError if a column is not this stage's to write."""
    before, now = owner_of(there), owner_of(wanted)
    if before is not None and before != now:
        problem = f"column {there.name} of {uri} belongs to stage {before}"
        problem += f", stage {now} writes one of that name" if now else ", and not to the run"
        raise ConfigError(problem, f"give the column of stage {now or before} another name")
    if before is None and now is not None and there.name not in ours:
        problem = f"column {there.name} of {uri} was added by a user, stage {now} writes one of that name"
        hint = f"give the stage's column another name, or rename the user's with Lance (`alter_columns`) in {uri}"
        raise ConfigError(problem, hint)


def _other_type(fields: Sequence[pa.Field], wanted: Mapping[str, pa.Field], uri: str) -> StoreError:
    named = [f"{field.name} ({field.type}, this run writes {wanted[field.name].type})" for field in fields[:MAX_NAMED]]
    named += [f"{len(fields) - MAX_NAMED} more"] if len(fields) > MAX_NAMED else []
    stages = sorted({owner for field in fields if (owner := owner_of(field)) is not None})
    hint = f"recompute {', '.join(stages) or 'them'} (`handloom run --recompute`): the old values are dropped"
    return StoreError(f"columns of {uri} have another type: {', '.join(named)}", hint)


def _new_metadata(there: pa.Field, wanted: pa.Field) -> dict[str, str | None]:
    """Entries of the field's metadata that must change; others that the table has stay."""
    before, now = there.metadata or {}, wanted.metadata or {}
    return {key.decode(): text.decode() for key, text in now.items() if before.get(key) != text}
