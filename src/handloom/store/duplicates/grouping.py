"""The column `duplicate_group` of `clips`: near-duplicates, found over the whole table.

Two clips are near-duplicates if they show one recording, or are overlapping cuts of one video; a group is all that such
pairs join. Its name is the smallest id of its clips, so neither the order of the rows nor how often they
were grouped before changes it. New rows are compared with all. Where a row is gone, or was computed again, all rows are
compared again: it may have been what joined others.
"""

from __future__ import annotations

import hashlib
import json
import logging
import uuid
from dataclasses import asdict, dataclass
from typing import Any

import lance
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from handloom.errors import ConfigError, StoreError
from handloom.schemas.tables.duplicates import COLUMN, COMPARED, DUPLICATES, STAGE
from handloom.schemas.tables.stage_columns import key_column
from handloom.store.duplicates.compare import Thresholds, alike_pairs
from handloom.store.duplicates.groups import components, equal_pairs, overlapping_pairs
from handloom.store.location import lance_errors
from handloom.store.retry import retried
from handloom.store.stages.columns import add_columns_for
from handloom.store.stages.staged import write_update
from handloom.store.stages.update import ColumnCommitter
from handloom.store.tables import Tables

log = logging.getLogger(__name__)

METHOD = "3"  # of this package and of `video.fingerprint.compare`: part of the key
DEFAULT = Thresholds(look=0.75, agreement=0.90)
LAST = "handloom.duplicates"
"""Configuration of `clips`: the thresholds of the last time, and how many rows it grouped."""
KEYS = tuple(key_column(name) for name in COMPARED)


@dataclass(frozen=True)
class Duplicates:
    """What `group_duplicates` found.

    num_rows: with a group. num_groups: of two or more clips. num_in_groups: clips in those. num_without: rows that lack
    a stage that is compared, and so have no group. num_compared: rows that were compared with all. num_written: rows
    whose group or key is new. version: of `clips`. groups: the clips' ids, of groups of two or more, in order.
    """

    num_rows: int
    num_groups: int
    num_in_groups: int
    num_without: int
    num_compared: int
    num_written: int
    version: int
    thresholds: Thresholds
    groups: tuple[tuple[str, ...], ...] = ()


@dataclass(frozen=True)
class DuplicateCounts:
    """The rows of the column. outdated: made with other stages than the rows have now. missing: not grouped."""

    num_groups: int
    num_in_groups: int
    current: int
    outdated: int
    missing: int


def can_group(db: Tables) -> bool:
    """Whether the table has the columns that are compared."""
    table = db.table("clips")
    return table is not None and not _lacking(table)


def group_duplicates(db: Tables, *, look: float | None = None, agreement: float | None = None) -> Duplicates:
    """Bring the column `duplicate_group` up to date, in one commit; rows that have their group already are not written.

    look, agreement: as in `Thresholds`. None: that of the last time, of `DEFAULT` the first time.

    Raises:
        ConfigError: a threshold is not between 0 and 1.
        StoreError: nothing is processed yet, the table has no such columns, or cannot be read or written.
    """
    table = db.table("clips")
    if table is None:
        raise StoreError(f"{db.uri} holds no processed clips yet", "process them with `handloom run --db DB`")
    if lacking := _lacking(table):
        problem = f"near-duplicates are found by {' and '.join(COMPARED)}, and the table has no {', '.join(lacking)}"
        raise StoreError(f"{problem} ({table.uri})", f"`handloom run --db {db.uri}` computes what rows lack")
    last = _last(table)[0]
    thresholds = Thresholds(last.look if look is None else look, last.agreement if agreement is None else agreement)
    for name, least in asdict(thresholds).items():
        if not 0 < least <= 1:
            raise ConfigError(f"the threshold of {name} is {least:g}", "expected a number above 0, at most 1: 0.9")
    with lance_errors("compare the clips of", table.uri):
        rows = _Rows(table, thresholds)
        fresh = rows.fresh(_last(table)[1])
        pairs = [
            alike_pairs(table, rows.kinds, fresh, rows.order, thresholds),
            rows.cuts(),
            rows.joined_before(fresh),
        ]
    groups = rows.named(np.concatenate(pairs))
    version, num_written = _write(db, rows, groups, table.version)
    num_grouped = len(groups) - groups.count(None)
    several = _of_several(rows.ids.tolist(), groups)
    if _last(table) != (thresholds, num_grouped):
        told = json.dumps({**asdict(thresholds), "rows": num_grouped})
        retried("note what was grouped", table.uri, lambda: db.existing_table("clips").update_config({LAST: told}))
    log.info("near-duplicates are grouped rows=%d compared=%d", num_grouped, fresh.sum())
    return Duplicates(
        num_grouped,
        len(several),
        sum(map(len, several)),
        len(groups) - num_grouped,
        int(fresh.sum()),
        num_written,
        version,
        thresholds,
        several,
    )


def _of_several(ids: list[str], groups: list[str | None]) -> tuple[tuple[str, ...], ...]:
    """The ids of each group of two or more clips, in order."""
    members: dict[str, list[str]] = {}
    for group, id_ in sorted((group, id_) for group, id_ in zip(groups, ids, strict=True) if group is not None):
        members.setdefault(group, []).append(id_)
    return tuple(tuple(some) for some in members.values() if len(some) > 1)


def duplicate_counts(db: Tables) -> DuplicateCounts | None:
    """How many rows have their group, and how many lack it or have one of other embeddings; None: never computed."""
    table = db.table("clips")
    if table is None or COLUMN not in table.schema.names:
        return None
    keys = [name for name in (*KEYS, key_column(STAGE)) if name in table.schema.names]
    there = db.read("clips", [COLUMN, *keys], version=table.version)
    columns = {name: there.column(name).to_pylist() for name in there.column_names}
    nothing = [None] * there.num_rows
    expected = _keys([columns.get(name, nothing) for name in KEYS], _last(table)[0])
    kept = columns.get(key_column(STAGE), nothing)
    current = sum(key is not None and key == now for key, now in zip(kept, expected, strict=True))
    outdated = sum(key is not None and key != now for key, now in zip(kept, expected, strict=True))
    sizes = [entry["counts"] for entry in there.column(COLUMN).drop_null().value_counts().to_pylist()]
    several = [size for size in sizes if size > 1]
    return DuplicateCounts(len(several), sum(several), current, outdated, there.num_rows - current - outdated)


class _Rows:
    """The light columns of all rows, in stored order."""

    def __init__(self, table: lance.LanceDataset, thresholds: Thresholds) -> None:
        wanted = ["clip_id", "dataset", "video_id", "video_digest", "start_s", "end_s", *KEYS, *DUPLICATES.names]
        there = table.to_table(columns=[name for name in wanted if name in table.schema.names])
        self._there = there
        self.ids = np.array(there.column("clip_id").to_pylist(), dtype=str)
        self._keys = _keys([there.column(name).to_pylist() for name in KEYS], thresholds)
        self.kinds = _codes(self._keys)
        self.order = np.unique(self.ids, return_inverse=True)[1]
        self._group_before = self._values(COLUMN)
        self._key_before = self._values(key_column(STAGE))

    def fresh(self, num_before: int) -> NDArray[np.bool_]:
        """(R,) rows to compare with all. num_before: rows that were grouped the last time."""
        pairs = zip(self._keys, self._key_before, strict=True)
        same = np.array([key is not None and key == before for key, before in pairs], bool)
        if same.sum() != num_before:  # a row is gone or has other embeddings: it may have joined others
            same[:] = False
        return ~same & (self.kinds >= 0)

    def cuts(self) -> NDArray[np.int64]:
        """Pairs of overlapping cuts: of one video by its name, and by what its file holds."""
        start_s, end_s = (self._there.column(name).to_numpy() for name in ("start_s", "end_s"))
        names = zip(*(self._values(name) for name in ("dataset", "video_id")), strict=True)
        found = [
            overlapping_pairs(np.where(self.kinds >= 0, _codes(videos), -1), start_s, end_s)
            for videos in (list(names), self._values("video_digest"))
        ]
        return np.concatenate(found)

    def joined_before(self, fresh: NDArray[np.bool_]) -> NDArray[np.int64]:
        """Pairs that join the rows of one group of the last time, but for fresh ones."""
        return equal_pairs(np.where(fresh | (self.kinds < 0), -1, _codes(self._group_before)))

    def named(self, pairs: NDArray[np.int64]) -> list[str | None]:
        """(R,) the group of each row; None where a stage was not computed."""
        known, rank = np.unique(self.ids, return_inverse=True)
        first = components(len(known), rank[pairs])
        names = known[first[rank]].tolist()
        return [name if kind >= 0 else None for name, kind in zip(names, self.kinds.tolist(), strict=True)]

    def changes(self, groups: list[str | None]) -> pa.Table:
        """The rows whose group or key is another one than before, each clip once."""
        changed: dict[str, tuple[str, str | None]] = {}
        before = zip(self._group_before, self._key_before, strict=True)
        for id_, group, key, old in zip(self.ids.tolist(), groups, self._keys, before, strict=True):
            if group is not None and (group, key) != old:
                changed.setdefault(id_, (group, key))
        columns = [list(changed), *map(list, zip(*changed.values(), strict=True))] if changed else [[], [], []]
        schema = pa.schema([pa.field("clip_id", pa.string()), *(field.remove_metadata() for field in DUPLICATES)])
        return pa.table([pa.array(values, pa.string()) for values in columns], schema=schema)

    def _values(self, column: str) -> list[Any]:
        there = column in self._there.column_names
        return self._there.column(column).to_pylist() if there else [None] * self._there.num_rows


def _write(db: Tables, rows: _Rows, groups: list[str | None], version: int) -> tuple[int, int]:
    """Commit what has changed. Returns the version of `clips` and the number of rows written."""
    changes = rows.changes(groups)
    if not changes.num_rows:
        return version, 0
    add_columns_for(db, DUPLICATES)
    update = write_update(db.uri, changes, f"{STAGE}-{uuid.uuid4().hex}", db.storage_options or None)
    result = ColumnCommitter(db, STAGE, DUPLICATES).commit([update])
    return result.version, result.num_clips


def _lacking(table: lance.LanceDataset) -> list[str]:
    """Columns that a comparison needs and that the table does not have."""
    names = [name for stage, columns in COMPARED.items() for name in (*columns, key_column(stage))]
    return [name for name in names if name not in table.schema.names]


def _last(table: lance.LanceDataset) -> tuple[Thresholds, int]:
    """Thresholds and number of rows of the last time; `DEFAULT` and 0 before the first."""
    told = table.config().get(LAST)
    if told is None:
        return DEFAULT, 0
    values = json.loads(told)
    if "agreement" not in values:  # a development version of 0.4
        return DEFAULT, 0
    return Thresholds(values["look"], values["agreement"]), values["rows"]


def _keys(columns: list[list[str | None]], thresholds: Thresholds) -> list[str | None]:
    """The key that each row's group has by the keys of its stages; None where one of them was not computed."""
    made: dict[tuple[str | None, ...], str | None] = {}
    for told in set(zip(*columns, strict=True)):
        text = json.dumps([METHOD, asdict(thresholds), *told])
        made[told] = None if None in told else hashlib.blake2b(text.encode(), digest_size=8).hexdigest()
    return [made[told] for told in zip(*columns, strict=True)]


def _codes(values: list[Any]) -> NDArray[np.int64]:
    """A number for each distinct value; -1 for None."""
    known: dict[Any, int] = {None: -1}
    return np.array([known.setdefault(value, len(known) - 1) for value in values], np.int64)
