"""The commit of new columns: the driver adds the staged columns of clips that have a row, a fragment at a time.

The columns of a fragment change in one commit, and with them its clips' keys: a reader sees all of an update or nothing
of it. A commit reads what others have committed, and Lance refuses it if another one has changed the same fragments in
between (an update, a removal, compaction): then it is made again, from the staged files, for the fragments of today.
The values are found by clip, so a second try changes nothing. Appended rows are no conflict. Readers of older versions
keep their files.
"""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import lance
import pyarrow as pa
from lance import LanceOperation

from handloom.errors import CommitConflict, StoreError
from handloom.store.retry import retried
from handloom.store.stages.apply import FragmentChange, FragmentJob, apply_update
from handloom.store.stages.columns import can_hold
from handloom.store.stages.places import Places
from handloom.store.stages.rejects import StageReject, StageRejects
from handloom.store.stages.staged import ColumnUpdate, remove_staged
from handloom.store.tables import Tables

Apply = Callable[[Sequence[FragmentJob]], Sequence[FragmentChange]]
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class UpdateResult:
    """What one commit changed.

    num_clips: with new columns. gone: clips without a row: it was removed meanwhile. fragments: changed ones.
    num_bytes: of new data files. version: of `clips`. num_rejects: stages of clips that were rejected.
    """

    num_clips: int
    gone: tuple[str, ...]
    fragments: int
    num_bytes: int
    version: int
    num_rejects: int = 0


@dataclass
class _Written:
    """A change and the fragment, as Lance describes it, that it was made from."""

    before: str
    change: FragmentChange


class ColumnCommitter:
    """Writes columns of existing rows, and `stage_rejects`, for one driver. rejects: what it knows of that table.

    Args:
        run_key: of the run, for rejects.
        fields: the columns that updates may hold; `clips` has them (`store.stages.columns.add_columns_for`).
        allowed: called before each commit; it raises if this driver may not write any more.
        apply: writes the data files of some fragments; by default in this process, one after the other.

    Raises StoreError if a column is not there or has another type.
    """

    def __init__(
        self,
        db: Tables,
        run_key: str,
        fields: Iterable[pa.Field],
        allowed: Callable[[], None] = lambda: None,
        apply: Apply | None = None,
    ) -> None:
        self._db = db
        self._uri = db.location.table_uri("clips")
        self._options = db.storage_options or None
        self._fields = {field.name: field for field in fields}
        self._allowed = allowed
        self._apply = apply
        self._committed: set[str] = set()  # staged files, which are deleted by now
        table = db.existing_table("clips")
        _check_fields(table, self._fields.values())
        self._places = Places(self._uri)
        self._places.catch_up(table)
        self._version = table.version
        self.rejects = StageRejects(db, run_key)

    @property
    def version(self) -> int:
        """Version of `clips` that this committer last saw."""
        return self._version

    def fragment_of(self, clip_id: str) -> int | None:
        """The fragment that holds a clip's row, as far as this committer has read; None: no row."""
        return self._places.of.get(clip_id)

    def commit(self, updates: Iterable[ColumnUpdate], rejects: Iterable[StageReject] = ()) -> UpdateResult:
        """Commit new columns, delete their staged files and the rejects of their stages, then write rejects.

        Of several values of a column the last update's counts. A clip without a row gets no reject of a stage. Safe to
        call again with the same updates, here or with another committer, until the files are deleted.

        Raises:
            CommitConflict: `clips` was replaced during this run.
            StoreError: the table cannot be written (full disk, permission, network), or a value has a wrong type;
                earlier commits stay.
        """
        waiting = [update for update in updates if update.file not in self._committed]
        for update in waiting:
            self._check_known(update)
        self._allowed()
        written: dict[int, _Written] = {}
        landed: dict[int, FragmentChange] = {}
        if waiting:
            retried("commit new columns", self._uri, lambda: self._attempt(waiting, written, landed))
        changed = {clip_id for change in landed.values() for clip_id in change.clip_ids}
        asked = dict.fromkeys(clip_id for update in waiting for clip_id in update.clip_ids)
        gone = tuple(clip_id for clip_id in asked if clip_id not in changed)
        if gone:
            log.warning("clips have no row any more, their new columns are dropped clips=%s", ",".join(gone[:20]))
        for update in waiting:
            self.rejects.heal(update.clip_ids, update.stages)
        failed = list(rejects)
        if any(reject.clip_id not in self._places.of for reject in failed):  # of rows that were appended meanwhile
            self._places.catch_up(self._db.existing_table("clips"))
        num_rejects = self.rejects.write(reject for reject in failed if reject.clip_id in self._places.of)
        remove_staged(self._db, [update.file for update in waiting])
        self._committed.update(update.file for update in waiting)
        num_bytes = sum(change.num_bytes for change in landed.values())
        return UpdateResult(len(changed), gone, len(landed), num_bytes, self.version, num_rejects)

    def _attempt(
        self, updates: Sequence[ColumnUpdate], written: dict[int, _Written], landed: dict[int, FragmentChange]
    ) -> None:
        """One try on the newest version. Raises Lance's own errors.

        written: changes of earlier tries by fragment, used again where the fragment is the same. landed: filled with
        what was committed, also by a try that was reported as failed.
        """
        table = self._db.existing_table("clips")
        self._places.catch_up(table)
        self._version = table.version
        jobs = self._jobs(table, updates)
        before = {job.fragment_id: _metadata(table, job.fragment_id) for job in jobs}
        texts = {id_: _text(metadata) for id_, metadata in before.items()}
        for id_, earlier in written.items():
            if id_ in before and earlier.change.file in {file.path for file in before[id_].files}:
                landed[id_] = earlier.change
        todo = [job for job in jobs if job.fragment_id not in landed]
        again = [job for job in todo if not _is_fresh(written.get(job.fragment_id), texts[job.fragment_id])]
        for change in self._applied(again, table):
            written[change.fragment_id] = _Written(texts[change.fragment_id], change)
        changes = [written[job.fragment_id].change for job in todo]
        changes = [change for change in changes if change.file is not None]
        if not changes:
            return
        after = lance.LanceDataset.commit(
            table,  # opened already: its manifest is not read again
            LanceOperation.Update(
                updated_fragments=[lance.FragmentMetadata.from_json(change.metadata) for change in changes],
                fields_modified=sorted({field for change in changes for field in change.fields}),
            ),
            read_version=table.version,
            storage_options=self._options,
            commit_message="handloom new columns",
        )
        landed.update({change.fragment_id: change for change in changes})
        self._version = after.version
        if after.version == table.version + 1:
            self._places.skip(after.version)  # otherwise others have committed in between: the next commit reads that

    def _applied(self, jobs: Sequence[FragmentJob], table: lance.LanceDataset) -> Sequence[FragmentChange]:
        if self._apply is not None:
            return self._apply(jobs)
        return [apply_update(job, self._options, table) for job in jobs]

    def _jobs(self, table: lance.LanceDataset, updates: Sequence[ColumnUpdate]) -> list[FragmentJob]:
        """One job a fragment that holds clips of the updates, in the order of the fragments."""
        wanted: dict[int, dict[int, None]] = defaultdict(dict)
        for number, update in enumerate(updates):
            for clip_id in update.clip_ids:
                if (fragment := self._places.of.get(clip_id)) is not None:
                    wanted[fragment][number] = None
        return [
            FragmentJob(self._uri, table.version, fragment, tuple(updates[number] for number in numbers))
            for fragment, numbers in sorted(wanted.items())
        ]

    def _check_known(self, update: ColumnUpdate) -> None:
        unknown = [name for name in update.columns if name not in self._fields]
        if unknown:
            problem = f"new columns {', '.join(unknown)} are none that this run writes"
            raise StoreError(f"{problem} (clip {update.clip_ids[0]}, {len(update.clip_ids)} clips)")


def _check_fields(table: lance.LanceDataset, fields: Iterable[pa.Field]) -> None:
    """Raise StoreError if the table lacks a column or has another type."""
    for field in fields:
        there = table.schema.field(field.name).type if field.name in table.schema.names else None
        if there is None or not can_hold(there, field.type):
            hint = "the columns of a run are added before it begins (`handloom run --recompute`)"
            raise StoreError(
                f"column {field.name} of {table.uri} is {there or 'not there'}, this run writes {field.type}", hint
            )


def _metadata(table: lance.LanceDataset, fragment_id: int) -> lance.FragmentMetadata:
    fragment = table.get_fragment(fragment_id)
    if fragment is None:
        problem = f"table {table.uri} was replaced by another one during this run: fragment {fragment_id} is gone"
        raise CommitConflict(problem, "run again to go on with the new table")
    return fragment.metadata


def _text(metadata: lance.FragmentMetadata) -> str:
    return repr(metadata)


def _is_fresh(written: _Written | None, now: str) -> bool:
    return written is not None and written.before == now
