"""The commit: the driver adds written fragments to `clips` and failed clips to `rejects`.

Lance does not protect an append: the same fragments appended twice double their rows, and an append with a stale read
version is silently rebased (measured with pylance 14.0.2, also with `max_retries=0`). So each commit reads what others
have committed since the last one, leaves out the clips that have a row (an anti-join on `clip_id`), appends, and reads
what others committed in between: a clip that two drivers have added keeps its first row. Leases keep drivers apart
(`handloom.store.runs.lease`); this is for drivers that meet all the same, for example after a long sleep of one. Two
tables cannot change in one transaction; `reconcile` repairs what a kill between them leaves, at the start of the next
run.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import lance
import pyarrow as pa
from lance import LanceOperation

from handloom.errors import CommitConflict, StoreError
from handloom.schemas.tables.arrow import REJECTS
from handloom.schemas.tables.reject import Reject
from handloom.store.clips.reconcile import delete_rejects, reconcile
from handloom.store.columns import allow_null
from handloom.store.fragments import FragmentRecord, open_again, read_rows, write_fragment
from handloom.store.lance_faults import LANCE_ERRORS
from handloom.store.location import lance_errors
from handloom.store.repeated import drop_repeated
from handloom.store.retry import retried
from handloom.store.search.index import ensure_text_indexes
from handloom.store.tables import Tables


def unfinished(db: Tables, clip_ids: Iterable[str]) -> list[str]:
    """Those of `clip_ids` that have neither a row nor a reject, in their order; clips no longer listed are left out.

    Reads one column of three tables: 0.1 s at 100,000 clips.
    """
    ended: set[str] = set()
    for name in ("clips", "rejects"):
        ended |= _ids(db, name)
    left = [clip_id for clip_id in clip_ids if clip_id not in ended]
    if not left:
        return []
    listed = _ids(db, "clip_list")
    return [clip_id for clip_id in left if clip_id in listed]


def done_ids(db: Tables) -> set[str]:
    """Ids of the clips that have a row."""
    return _ids(db, "clips")


def num_pending(db: Tables) -> int:
    """How many clips of the list have neither a row nor a reject; for their number it makes no `Clip` of each."""
    return len(_ids(db, "clip_list") - _ids(db, "clips") - _ids(db, "rejects"))


def _ids(db: Tables, name: str) -> set[str]:
    table = db.read(name, ["clip_id"])
    return set(table.column("clip_id").to_pylist()) if table.num_rows else set()


log = logging.getLogger(__name__)

HARMLESS = (
    LanceOperation.CreateIndex,
    LanceOperation.Rewrite,  # compaction
    LanceOperation.Merge,  # a column is added
    LanceOperation.Project,  # a column is dropped, or may hold null
    LanceOperation.DataReplacement,
)
"""Operations that neither add nor remove rows."""
REPLACED = (LanceOperation.Overwrite, LanceOperation.Restore, LanceOperation.Clone)


@dataclass(frozen=True)
class CommitResult:
    """What one commit changed. num_dropped: rows that were left out, as their clips had one. version: of `clips`."""

    num_clips: int
    num_rejects: int
    num_dropped: int
    version: int


class _Sent:
    """The files of one commit. clips_of: the clips in each file. landed: clips whose rows of these files stay."""

    def __init__(self) -> None:
        self.clips_of: dict[str, tuple[str, ...]] = {}
        self.landed: set[str] = set()


class Committer:
    """Writes `clips` and `rejects` for one driver.

    The constructor creates tables that are missing and reconciles them. `done` are the clips that have a row,
    `attempts` the rejected clips with their number of attempts; each commit updates both.

    allowed: called before each commit; it raises if this driver may not write any more.

    earlier: run keys of rows that may be there; stage keys say what each of them was made with.

    Raises StoreError if the database cannot be written or holds clips of another run key.
    """

    def __init__(
        self,
        db: Tables,
        run_key: str,
        schema: pa.Schema,
        allowed: Callable[[], None] = lambda: None,
        earlier: Iterable[str] = (),
    ) -> None:
        self._db = db
        self._run_key = run_key
        self._known_keys = {run_key, *earlier}
        self._schema = schema
        self._allowed = allowed
        self._uri = db.location.table_uri("clips")
        self._options = db.storage_options or None
        self._version: int
        self.done: set[str]
        db.ensure_table("clips", schema)
        db.ensure_table("rejects", REJECTS)
        ensure_text_indexes(db)
        reconcile(db)
        self._load(self._open())
        self.attempts = _attempts(db)

    @property
    def version(self) -> int:
        """Version of `clips` that this committer last saw."""
        return self._version

    def commit(self, records: Sequence[FragmentRecord], rejects: Iterable[Reject] = ()) -> CommitResult:
        """Commit finished clips, then rejects; each clip is then in exactly one of the two tables.

        Safe to call again with the same records: clips that have a row are left out. A clip that is rejected again
        replaces its reject (attempts add up); a clip with a row is never rejected, and its reject is deleted.

        Raises:
            CommitConflict: `clips` was replaced during this run.
            StoreError: the tables cannot be written (full disk, permission, network); earlier commits stay.
        """
        self._allowed()
        sent = _Sent()
        retried("commit finished clips", self._uri, lambda: self._append(records, sent))
        num_clips = len(sent.landed)
        offered = sum(len(record.clip_ids) for record in records)
        healed = {i for record in records for i in record.clip_ids} & self.attempts.keys() & self.done
        delete_rejects(self._db, healed)
        for clip_id in healed:
            del self.attempts[clip_id]
        num_rejects = self._commit_rejects(rejects)
        return CommitResult(num_clips, num_rejects, offered - num_clips, self._version)

    def _open(self) -> lance.LanceDataset:
        return lance.dataset(self._uri, storage_options=self._options)

    def _append(self, records: Sequence[FragmentRecord], sent: _Sent) -> None:
        """One try: read the newest version, anti-join, append, read what others committed in between.

        Raises Lance's own errors.
        """
        table = self._open()
        if allow_null(table, self._schema):  # else rows without a user's new column could not be read again
            table = self._open()
        self._catch_up(table, sent)  # an earlier try may have been committed although it was reported as failed
        columns = _field_ids(table.lance_schema.fields())
        wanted = [self._of_today(record, columns) for record in self._missing(records)]
        if not wanted:
            return
        sent.clips_of.update({file: record.clip_ids for record in wanted for file in record.files()})
        after = lance.LanceDataset.commit(
            table,  # opened already: its manifest is not read again
            LanceOperation.Append([fragment for record in wanted for fragment in record.metadata()]),
            read_version=table.version,
            storage_options=self._options,
            commit_message=f"handloom run_key={self._run_key}",
        )
        allow_null(after, self._schema)  # a column may have been added in between
        self._catch_up(after, sent)

    def _catch_up(self, table: lance.LanceDataset, sent: _Sent) -> None:
        """Read what this driver (the files in `sent`) and others have committed since the last call.

        Only appended files are read, unless the table was changed in another way. A clip with two rows loses the later.
        """
        if table.version < self._version:
            raise self._conflict(f"version {table.version} follows version {self._version}")
        repeated = unknown = False
        for version in range(self._version + 1, table.version + 1):
            operation = self._operation(table, version)
            if isinstance(operation, REPLACED):
                raise self._conflict(f"version {version} is of {type(operation).__name__}")
            clip_ids = self._appended(table, operation, sent)
            if clip_ids is None:
                unknown = True
                continue
            repeated |= not self.done.isdisjoint(clip_ids)
            if isinstance(operation, LanceOperation.Append) and sent.clips_of.keys() & _files(operation):
                sent.landed.update(clip_ids - self.done)
            self.done |= clip_ids
        if unknown or repeated:
            self._load(table)
        self._version = max(self._version, table.version)

    def _operation(self, table: lance.LanceDataset, version: int) -> LanceOperation.BaseOperation | None:
        """The operation that made a version; None if it cannot be read."""
        try:
            transaction = table.read_transaction(version)
        except TypeError as error:
            # pylance 14.0.2 cannot read the transaction of a compaction that remapped indexes: it says
            # "LanceOperation.RewrittenIndex.__init__() missing 3 required positional arguments".
            return LanceOperation.Rewrite([], []) if "RewrittenIndex" in str(error) else None
        except LANCE_ERRORS:
            return None  # old versions were dropped meanwhile
        return None if transaction is None else transaction.operation

    def _appended(
        self, table: lance.LanceDataset, operation: LanceOperation.BaseOperation | None, sent: _Sent
    ) -> set[str] | None:
        """The clips that an operation added; None: the whole table must be read again."""
        if isinstance(operation, HARMLESS) or type(operation) is LanceOperation.BaseOperation:
            return set()  # a bare BaseOperation: reserved fragment ids, table settings
        if isinstance(operation, LanceOperation.Update) and _keeps_rows(operation):
            return set()
        if not isinstance(operation, LanceOperation.Append):
            return None
        files = _files(operation)
        if files <= sent.clips_of.keys():
            return {clip_id for file in files for clip_id in sent.clips_of[file]}
        added = [f for f in table.get_fragments() if files & {file.path for file in f.metadata.files}]
        if len(added) < len(list(operation.fragments)):
            return None  # compacted meanwhile
        rows = table.scanner(columns=["clip_id", "run_key"], fragments=added).to_table()
        self._check_run_keys(rows)
        return set(rows.column("clip_id").to_pylist())

    def _conflict(self, found: str) -> CommitConflict:
        return CommitConflict(
            f"table {self._uri} was replaced by another one during this run: {found}",
            "run again to go on with the new table; what this run has committed is in the old versions",
        )

    def _missing(self, records: Sequence[FragmentRecord]) -> list[FragmentRecord]:
        """The records of new clips; one with clips that have a row or come twice is rewritten or left out."""
        seen: set[str] = set()
        wanted = []
        for record in records:
            fresh = [i for i in dict.fromkeys(record.clip_ids) if i not in seen and i not in self.done]
            seen.update(fresh)
            if len(fresh) == len(record.clip_ids):
                wanted.append(record)
            elif fresh:
                batches = read_rows(self._db.uri, record, fresh, self._schema, self._options)
                wanted.append(write_fragment(self._db.uri, batches, self._schema, self._options))
        return wanted

    def _of_today(self, record: FragmentRecord, columns: set[int]) -> FragmentRecord:
        """The record, written again if a column was dropped and added since its worker has opened the table.

        Lance knows columns by numbers: values under a number that is gone would read as null, without an error.

        columns: the table's numbers.
        """
        if record.field_ids() <= columns:
            return record
        open_again(self._db.uri)
        batches = read_rows(self._db.uri, record, record.clip_ids, self._schema, self._options)
        return write_fragment(self._db.uri, batches, self._schema, self._options)

    def _load(self, table: lance.LanceDataset) -> None:
        """Read `done` and the version from the table, and delete repeated rows."""
        with lance_errors("read the committed clips", self._uri):
            rows = table.to_table(columns=["clip_id", "run_key"])
        self._check_run_keys(rows)
        self.done = set(rows.column("clip_id").to_pylist())
        self._version = table.version
        if rows.num_rows > len(self.done):
            drop_repeated(self._db, "clips")

    def _check_run_keys(self, rows: pa.Table) -> None:
        others = set(rows.column("run_key").unique().to_pylist()) - self._known_keys
        if others:
            raise StoreError(
                f"{self._db.uri} holds clips of run key {', '.join(sorted(others))}, this run has {self._run_key}: "
                "other settings, models or another version of handloom",
                "use the settings the database was made with, or a new database",
            )

    def _commit_rejects(self, rejects: Iterable[Reject]) -> int:
        """Upsert rejects. Attempts are totals, so that writing them twice changes nothing."""
        lost = {r.clip_id: r for r in rejects if r.clip_id not in self.done}
        if not lost:
            return 0
        now = datetime.now(UTC)
        total = {clip_id: self.attempts.get(clip_id, 0) + reject.attempts for clip_id, reject in lost.items()}
        rows = [
            {
                "clip_id": r.clip_id,
                "stage": r.stage,
                "reason": r.reason,
                "detail": r.detail,
                "attempts": total[r.clip_id],
                "run_key": self._run_key,
                "at": now,
                "host": r.host,
            }
            for r in lost.values()
        ]
        uri = self._db.location.table_uri("rejects")
        values = pa.Table.from_pylist(rows, schema=REJECTS)
        retried("commit rejected clips", uri, lambda: self._merge_rejects(uri, values))
        self.attempts.update(total)
        return len(lost)

    def _merge_rejects(self, uri: str, rows: pa.Table) -> None:
        table = lance.dataset(uri, storage_options=self._options)
        table.merge_insert("clip_id").when_matched_update_all().when_not_matched_insert_all().execute(rows)


def _keeps_rows(operation: LanceOperation.Update) -> bool:
    """Whether it replaced values of columns, and neither added nor deleted rows."""
    return bool(operation.fields_modified) and not (operation.removed_fragment_ids or operation.new_fragments)


def _field_ids(fields: Iterable[Any]) -> set[int]:
    ids: set[int] = set()
    for field in fields:
        ids |= {field.id(), *_field_ids(field.children())}
    return ids


def _files(operation: LanceOperation.Append) -> set[str]:
    return {file.path for fragment in operation.fragments for file in fragment.files}


def _attempts(db: Tables) -> dict[str, int]:
    rejects = db.read("rejects", ["clip_id", "attempts"])
    return dict(zip(*(rejects.column(n).to_pylist() for n in ("clip_id", "attempts")), strict=True))
