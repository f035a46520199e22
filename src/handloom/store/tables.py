"""A database: a folder or `s3://` URI that holds the Lance tables `clip_list`, `clips`, `rejects`, `runs`."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any, Self

import lance
import pyarrow as pa
import pyarrow.compute as pc

from handloom.errors import ConfigError, StoreError
from handloom.schemas.tables.arrow import CLIP_LIST, VERDICTS
from handloom.store.columns import absent_fields, bring_up_to_date, with_nulls
from handloom.store.filters import clause, filtered, quoted, with_judged
from handloom.store.lance_faults import LANCE_ERRORS, first_words, is_missing
from handloom.store.location import Location, lance_errors, store_error
from handloom.store.retry import past_lost_indexes

TABLES = ("clip_list", "clips", "rejects", "runs")
NUM_VERSIONS = 1 << 64  # Lance's numbers have 64 bits


class NoVersionError(StoreError):
    """A table has not, or no longer, the version that is asked for."""


@dataclass(frozen=True)
class Tables:
    """The tables of one database. None is kept open: every read takes the newest version unless one is given."""

    location: Location

    @classmethod
    def open(cls, uri: str | Path, storage_options: Mapping[str, str] | None = None, *, create: bool = False) -> Self:
        """Open a database; with `create`, make an empty one if there is none.

        Raises:
            StoreError: there is no database (without `create`), the folder holds something else, it is a file, or it
                cannot be read or written.
        """
        if create:
            database = cls.open_or_new(uri, storage_options)
            database.ensure_table("clip_list", CLIP_LIST)
            return database
        location = Location.parse(uri, storage_options)
        if location.is_local:
            _check_folder(location.path, create=False)
        database = cls(location)
        if (clip_list := database.table("clip_list")) is None:
            raise _no_database(location.uri)
        database._check_clip_list(clip_list)
        return database

    @classmethod
    def open_or_new(
        cls, uri: str | Path, storage_options: Mapping[str, str] | None = None, *, only_read: bool = False
    ) -> Self:
        """Open a database. If there is none, the first write makes it: a failure before that leaves nothing behind.

        only_read: do not try whether its folder can be made.

        Raises:
            StoreError: the folder holds something else or cannot be made, it is a file, or it cannot be read.
        """
        location = Location.parse(uri, storage_options)
        if location.is_local:
            _check_folder(location.path, create=True, only_read=only_read)
        database = cls(location)
        if (clip_list := database.table("clip_list")) is not None:
            database._check_clip_list(clip_list)
        return database

    def _check_clip_list(self, clip_list: lance.LanceDataset) -> None:
        missing = {field.name for field in CLIP_LIST if not field.nullable} - set(clip_list.schema.names)
        if missing:
            uri = self.location.table_uri("clip_list")
            problem = f"{uri} is not a clip list of handloom: it lacks {', '.join(sorted(missing))}"
            raise StoreError(problem, "use another folder for the database")

    @property
    def uri(self) -> str:
        return self.location.uri

    @property
    def storage_options(self) -> dict[str, str]:
        return dict(self.location.storage_options)

    @property
    def version(self) -> int | None:
        """Newest version of `clips`; None before the first run."""
        clips = self.table("clips")
        return None if clips is None else clips.version

    def table(
        self, name: str, version: int | None = None, session: lance.Session | None = None
    ) -> lance.LanceDataset | None:
        """The Lance table, at its newest version or at `version`; None if the table does not exist.

        session: caches that several readers share.
        """
        uri = self.location.table_uri(name)
        if isinstance(version, int) and not 0 <= version < NUM_VERSIONS and (newest := self.table(name)) is not None:
            raise NoVersionError(f"table {name} has no version {version} ({uri})", versions_there(newest))
        try:
            return lance.dataset(uri, version=version, storage_options=self.storage_options or None, session=session)
        except LANCE_ERRORS as error:
            if not is_missing(error):
                raise store_error(f"open table {name}", uri, error) from error
            if version is not None and (newest := self.table(name)) is not None:
                raise NoVersionError(
                    f"table {name} has no version {version} ({uri})", versions_there(newest)
                ) from error
            return None

    def ensure_table(self, name: str, schema: pa.Schema) -> lance.LanceDataset:
        """The table, ready for writing: created if it is missing, with the columns that an older version lacked.

        Raises StoreError if a column has another type than in `schema`, or is missing and cannot be added.
        """
        if self.table(name) is None:
            self._create(name, schema)
        return bring_up_to_date(name, self.location.table_uri(name), lambda: self.existing_table(name), schema)

    def existing_table(self, name: str, version: int | None = None) -> lance.LanceDataset:
        """The same for a table that must exist. Raises StoreError if it does not."""
        table = self.table(name, version)
        if table is None:
            raise StoreError(f"table {name} is gone ({self.location.table_uri(name)})", "was it removed meanwhile?")
        return table

    def _create(self, name: str, schema: pa.Schema) -> lance.LanceDataset:
        """A new table, or the one that another process has made meanwhile.

        If two processes create a table at once, `write_dataset(mode="create")` retries and overwrites the other's with
        its rows (20 of 60 tries with four threads); a commit without retries fails instead (0 of 60).
        """
        uri = self.location.table_uri(name)
        empty = lance.LanceOperation.Overwrite(schema, [])
        try:
            return lance.LanceDataset.commit(uri, empty, max_retries=0, storage_options=self.storage_options or None)
        except LANCE_ERRORS as error:
            if (table := self.table(name)) is not None:
                return table  # another process was faster
            raise store_error(f"create table {name}", uri, error) from error

    def read(
        self,
        name: str,
        columns: Sequence[str] | None = None,
        where: str | None = None,
        version: int | None = None,
        limit: int | None = None,
        few: bool = False,
    ) -> pa.Table:
        """Rows of one table, in stored order; a table without rows and columns if it does not exist.

        few: the filter passes a few rows only, so other columns are read of these rows alone: one row of 1000 fragments
        takes 0.3 s in place of 2.3 s.
        where: an SQL filter. Raises ConfigError, with the nearest names, for a filter that Lance cannot use.
        """
        table = self.table(name, version)
        if table is None:
            return pa.table({})
        with lance_errors(f"read table {name}", self.location.table_uri(name)), filtered(where, table):
            absent = absent_fields(name, table.schema, columns)
            stored = _stored(columns, absent, table.schema)
            scan = partial(table.scanner, stored, clause(self.expanded(where)), limit)
            late = True if few else None  # None: Lance's own rule
            rows = past_lost_indexes(
                table.uri, lambda use: scan(late_materialization=late, use_scalar_index=use).to_table()
            )
            return with_nulls(rows, absent, columns) if absent else rows

    def batches(
        self,
        columns: Sequence[str] | None = None,
        where: str | None = None,
        version: int | None = None,
        batch_size: int = 64,
        name: str = "clips",
    ) -> Iterator[pa.RecordBatch]:
        """Rows of a table, `batch_size` at a time and in stored order: for tables larger than memory."""
        table = self.table(name, version)
        if table is None:
            return
        with lance_errors(f"read table {name}", self.location.table_uri(name)), filtered(where, table):
            absent = absent_fields(name, table.schema, columns)
            scan = partial(
                table.to_batches,
                columns=_stored(columns, absent, table.schema),
                filter=clause(self.expanded(where)),
                batch_size=batch_size,
                batch_readahead=2,
                fragment_readahead=1,
            )
            for batch in past_lost_indexes(table.uri, lambda use: _begun(scan(use_scalar_index=use))):
                yield with_nulls(batch, absent, columns) if absent else batch

    def expanded(self, where: str | None) -> str | None:
        """The filter with the clips of today's judgements in place of `judged('good')`; others stay as they are.

        For filters that are given to Lance's tables: `read`, `batches`, `count`, search and windows do this themselves.
        Raises ConfigError for a verdict that there is not, StoreError if the judgements cannot be read.
        """
        return with_judged(where, self.judged)

    def judged(self, verdict: str | None = None, reason: str | None = None) -> list[str]:
        """Ids of the clips with this verdict, `good` or `bad` (None: either), and this reason (None: any), sorted.

        Raises as `expanded`.
        """
        if verdict not in (None, *VERDICTS):
            hint = f"expected {' or '.join(map(repr, VERDICTS))}; a reason comes second: judged('bad', 'blurred')"
            raise ConfigError(f"there is no verdict {verdict!r}", hint)
        given = {"verdict": verdict, "reason": reason}
        wanted = [f"{name} = {quoted(value)}" for name, value in given.items() if value is not None]
        rows = self.read("judgements", ["clip_id"], " AND ".join(wanted) or None)
        return sorted(rows.column("clip_id").to_pylist()) if rows.num_columns else []

    def clips(
        self, columns: Sequence[str] | None = None, where: str | None = None, version: int | None = None
    ) -> pa.Table:
        """The processed clips. Name the columns: a row is about a megabyte."""
        return self.read("clips", columns, where, version)

    def rejects(self) -> pa.Table:
        """The clips that could not be processed, without those that have a row: a run may crash between two commits."""
        rejects = self.read("rejects")
        if not rejects.num_rows:
            return rejects
        done = self.read("clips", ["clip_id"])
        if not done.num_rows:
            return rejects
        has_row = pc.is_in(rejects.column("clip_id"), value_set=done.column("clip_id").combine_chunks())
        return rejects.filter(pc.invert(has_row))

    def runs(self) -> pa.Table:
        """The runs, oldest first: by number, as clocks of machines differ; those of before 0.4 by their times."""
        runs = self.read("runs")
        if not runs.num_rows:
            return runs
        order = {"number": pc.fill_null(runs.column("number"), 0), "started_at": runs.column("started_at")}
        keys: Any = [(name, "ascending") for name in order]
        return runs.take(pc.sort_indices(pa.table(order), sort_keys=keys))

    def count(self, name: str, where: str | None = None) -> int:
        """Number of rows of a table; 0 if it does not exist."""
        table = self.table(name)
        if table is None:
            return 0
        with lance_errors(f"count table {name}", self.location.table_uri(name)), filtered(where, table):
            passing = clause(self.expanded(where))
            scan = partial(table.scanner, columns=[], filter=passing, with_row_id=True)
            return past_lost_indexes(
                table.uri,
                lambda use: table.count_rows(passing) if use else scan(use_scalar_index=False).count_rows(),
            )


def _begun(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """The same batches, the first one read already: indexes are opened for it."""
    first = next(batches, None)
    return chain([] if first is None else [first], batches)


def versions_there(table: lance.LanceDataset) -> str:
    """A sentence for errors: the oldest and the newest version that can be read."""
    found = [version["version"] for version in table.versions()]
    return f"the oldest version that still exists is {min(found)}, the newest {max(found)}"


def _stored(columns: Sequence[str] | None, absent: Sequence[pa.Field], schema: pa.Schema) -> list[str] | None:
    """The columns to read from disk: at least one, for the number of rows."""
    if columns is None:
        return None
    nulls = {field.name for field in absent}
    return [name for name in columns if name not in nulls] or schema.names[:1]


def _no_database(uri: str) -> StoreError:
    return StoreError(
        f"there is no database at {uri}", "make one with `handloom ingest folder DIR --db DB` (or `epic`, `ego4d`)"
    )


def _check_folder(path: Path, create: bool, only_read: bool = False) -> None:
    """Raise StoreError for a file, a folder that holds something else, and a missing folder unless it can be made.

    only_read: a missing folder is not made for a try.
    """
    try:
        if path.is_dir():
            names = sorted(entry.name for entry in path.iterdir() if not entry.name.startswith("."))
        elif path.exists():
            raise StoreError(f"{path} is a file, a database is a folder", "give a folder or an s3:// URI")
        elif not create:
            raise _no_database(str(path))
        else:
            if not only_read:
                _check_can_be_made(path)
            names = []
    except OSError as error:
        raise StoreError(f"cannot use {path} as a database: {error.strerror or first_words(error)}") from error
    others = [name for name in names if not (create and name == "videos")]  # an ingest was stopped before its first row
    if others and not any(f"{table}.lance" in names for table in TABLES):
        found = ", ".join(names[:5]) + (" ..." if len(names) > 5 else "")
        below = [name for name in names if (path / name / "clip_list.lance").is_dir()]
        hint = f"did you mean {path / below[0]}?" if below else "name the folder that `handloom ingest` wrote with --db"
        if create:
            hint = "give the database a new or an empty folder of its own"
        raise StoreError(f"{path} is not a handloom database: it holds {found}", hint)


def _check_can_be_made(path: Path) -> None:
    """Make the folder and remove it again, so that a failure is reported before any work. Raises OSError."""
    missing = [folder for folder in (path, *path.parents) if not folder.exists()]
    path.mkdir(parents=True, exist_ok=True)
    for folder in missing:
        with contextlib.suppress(OSError):  # another process has begun to use it
            folder.rmdir()
