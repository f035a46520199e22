"""The commit: the driver makes written fragments part of `clips` and lost clips part of `rejects`.

Lance does not protect an append: the same fragments appended twice double their rows, and an append with a stale read
version is silently rebased (measured with pylance 14.0.2, also with `max_retries=0`). So each commit looks at what
others have committed since the last one, is an anti-join on `clip_id` with all of it, an append, and a look at what
came in between: a clip that two drivers have added keeps the row that was there first. Leases keep drivers apart
(`handloom.store.runs.lease`); this holds where they meet all the same, one of them woken from a long sleep. Two tables
cannot change in one transaction; whatever a kill leaves between them, `reconcile` puts right at the start of the next
run.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import lance
import pyarrow as pa
from lance import LanceOperation

from handloom.errors import CommitConflict, StoreError
from handloom.schemas.tables.arrow import REJECTS
from handloom.schemas.tables.reject import Reject
from handloom.store.clips.reconcile import delete_rejects, reconcile
from handloom.store.fragments import FragmentRecord, read_rows, write_fragment
from handloom.store.lance_faults import LANCE_ERRORS
from handloom.store.location import lance_errors
from handloom.store.repeated import drop_repeated
from handloom.store.retry import retried
from handloom.store.search.index import ensure_text_indexes
from handloom.store.tables import Tables


def unfinished(db: Tables, clip_ids: Iterable[str]) -> list[str]:
    """Those of `clip_ids` that have neither a row nor a reject, in their order; without those no longer listed.

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


def _ids(db: Tables, name: str) -> set[str]:
    table = db.read(name, ["clip_id"])
    return set(table.column("clip_id").to_pylist()) if table.num_rows else set()


log = logging.getLogger(__name__)

HARMLESS = (
    LanceOperation.CreateIndex,
    LanceOperation.Rewrite,  # compaction
    LanceOperation.Merge,  # a column is added
    LanceOperation.Project,  # a column is dropped, or may hold null
)
"""What adds and loses no row."""
REPLACED = (LanceOperation.Overwrite, LanceOperation.Restore, LanceOperation.Clone)


@dataclass(frozen=True)
class CommitResult:
    """What one commit changed. `num_dropped` rows were offered but already there; `version` is that of `clips`."""

    num_clips: int
    num_rejects: int
    num_dropped: int
    version: int


def done_ids(db: Tables, run_key: str | None = None) -> set[str]:
    """Ids of the committed clips, of one run key or of all."""
    where = None if run_key is None else f"run_key = '{run_key}'"
    rows = db.clips(["clip_id"], where)
    return set(rows.column("clip_id").to_pylist()) if rows.num_columns else set()


class _Sent:
    """What one commit has sent: which file holds which clips, and the clips whose rows of these files stay."""

    def __init__(self) -> None:
        self.clips_of: dict[str, tuple[str, ...]] = {}
        self.landed: set[str] = set()


class Committer:
    """Writes `clips` and `rejects` for one driver.

    Making one creates the tables where they are missing and reconciles them. From then on it knows which clips are done
    (`done`) and which are rejected (`attempts`: clip_id to attempts so far), and keeps both up to date.

    `allowed` is called before each commit, and raises where this driver may not write any more.

    Raises StoreError if the database cannot be written or holds clips of another run key.
    """

    def __init__(self, db: Tables, run_key: str, schema: pa.Schema, allowed: Callable[[], None] = lambda: None) -> None:
        self._db = db
        self._run_key = run_key
        self._schema = schema
        self._allowed = allowed
        self._uri = db.location.table_uri("clips")
        self._options = db.storage_options or None
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
        """Commit finished clips, then lost ones; each clip ends in exactly one of the two tables.

        Safe to call again with the same records: rows already there are dropped. A clip that is rejected again replaces
        its reject (attempts add up); a clip that has a row is never rejected, and its reject goes.

        Raises:
            CommitConflict: `clips` was replaced during this run.
            StoreError: it could not be written (full disk, permission, network); what was committed before stays.
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
        """One try: newest version, anti-join, append, and what came in between. Lance's errors come out as they are."""
        table = self._open()
        self._catch_up(table, sent)  # an earlier try may have landed although it was reported as failed
        wanted = self._missing(records)
        if not wanted:
            return
        sent.clips_of.update({file: record.clip_ids for record in wanted for file in record.files()})
        after = lance.LanceDataset.commit(
            self._uri,
            LanceOperation.Append([fragment for record in wanted for fragment in record.metadata()]),
            read_version=table.version,
            storage_options=self._options,
            commit_message=f"handloom run_key={self._run_key}",
        )
        self._catch_up(after, sent)

    def _catch_up(self, table: lance.LanceDataset, sent: _Sent) -> None:
        """Learn what was committed since the last look, by this driver (the files `sent`) and by others.

        Only what was appended is read, unless something else has changed. A clip that is there twice loses its later
        row.
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
        """What made a version; None where that cannot be told."""
        try:
            transaction = table.read_transaction(version)
        except (TypeError, *LANCE_ERRORS):
            # pylance 14.0.2 cannot rebuild the description of a compaction that moved indexes; or old versions were
            # dropped meanwhile.
            return None
        return None if transaction is None else transaction.operation

    def _appended(
        self, table: lance.LanceDataset, operation: LanceOperation.BaseOperation | None, sent: _Sent
    ) -> set[str] | None:
        """The clips that an operation added; None: everything is to be looked at again."""
        if isinstance(operation, HARMLESS) or type(operation) is LanceOperation.BaseOperation:
            return set()  # a bare BaseOperation: reserved fragment ids, table settings
        if not isinstance(operation, LanceOperation.Append):
            return None
        files = _files(operation)
        if files <= sent.clips_of.keys():
            return {clip_id for file in files for clip_id in sent.clips_of[file]}
        added = [f for f in table.get_fragments() if files & {file.path for file in f.metadata.files}]
        if len(added) < len(operation.fragments):
            return None  # compacted meanwhile
        rows = table.scanner(columns=["clip_id", "run_key"], fragments=added).to_table()
        self._check_run_keys(rows)
        return set(rows.column("clip_id").to_pylist())

    def _conflict(self, found: str) -> CommitConflict:
        return CommitConflict(
            f"table {self._uri} was replaced by another one during this run: {found}",
            "run again to go on with the new table; what this run had committed is in the old versions",
        )

    def _missing(self, records: Sequence[FragmentRecord]) -> list[FragmentRecord]:
        """The records that hold no committed row and no row twice; one that does is rewritten or left out."""
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

    def _load(self, table: lance.LanceDataset) -> None:
        """Read what is committed: `done` and the version. Rows that repeat a clip go."""
        with lance_errors("read the committed clips", self._uri):
            rows = table.to_table(columns=["clip_id", "run_key"])
        self._check_run_keys(rows)
        self.done: set[str] = set(rows.column("clip_id").to_pylist())
        self._version = table.version
        if rows.num_rows > len(self.done):
            drop_repeated(self._db, "clips")

    def _check_run_keys(self, rows: pa.Table) -> None:
        others = set(rows.column("run_key").unique().to_pylist()) - {self._run_key}
        if others:
            raise StoreError(
                f"{self._db.uri} holds clips of run key {', '.join(sorted(others))}, this run has {self._run_key}: "
                "other settings, models or another version of handloom",
                "use the settings the database was made with, or a new database",
            )

    def _commit_rejects(self, rejects: Iterable[Reject]) -> int:
        """Upsert rejects. The attempts are absolute numbers, so that sending them again changes nothing."""
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


def _files(operation: LanceOperation.Append) -> set[str]:
    return {file.path for fragment in operation.fragments for file in fragment.files}


def _attempts(db: Tables) -> dict[str, int]:
    rejects = db.read("rejects", ["clip_id", "attempts"])
    return dict(zip(*(rejects.column(n).to_pylist() for n in ("clip_id", "attempts")), strict=True))
