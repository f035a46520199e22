"""Upkeep of `clips` while it grows: many small fragments become few large ones, and old versions are dropped.

Every commit writes an entry for each fragment of the table, and every reader opens all of them. Merging copies each row
once, into fragments that stay. It takes three steps, so that the copying can be done anywhere and beside commits:
`plan` says what to merge, `rewrite` copies one task's rows into new files, which nobody sees, `put_in_place` commits
them. Lance refuses the last step if another writer has changed one of the old fragments meanwhile (a delete, new
values in a column); rows that were appended meanwhile do not matter (tried with pylance 14.0.2). Readers of older
versions keep the old files until `drop_old_versions`.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import lance
from lance.optimize import Compaction, CompactionTask, RewriteResult

from handloom.store.lance_faults import LANCE_ERRORS, first_words, is_conflict
from handloom.store.location import Location, lance_errors, store_error
from handloom.store.search.copies import sweep_copies
from handloom.store.tables import Tables

log = logging.getLogger(__name__)

MAX_SMALL_FRAGMENTS = 512  # a manifest of 0.14 MB; reading one column of 1000 fragments takes 0.3 s, of 16 0.02 s
SMALL_ROWS, SMALL_BYTES = 1024, 1 << 30  # a fragment with either as many rows or bytes stays as it is
MAX_REJECT_FRAGMENTS = 64
MERGING = {
    "target_rows_per_fragment": 8192,  # 512 shards of 16 clips; a million clips are 122 fragments
    "max_bytes_per_file": 8 << 30,
    "batch_size": 32,  # Lance's default is 8192 rows, and a row has up to a megabyte
    "io_buffer_size": 256 << 20,
}


def plan(db: Tables, max_small: int = MAX_SMALL_FRAGMENTS) -> list[str]:
    """Tasks for `rewrite`, each of neighbouring fragments; none while at most `max_small` fragments are small.

    Merged fragments come behind all others, so the order of rows changes. Raises StoreError if the table cannot be
    read.
    """
    table = db.table("clips")
    if table is None or table.stats.dataset_stats(SMALL_ROWS)["num_small_files"] <= max_small:
        return []
    with lance_errors("plan to merge fragments", table.uri):
        fragments = table.get_fragments()
        large = [f.fragment_id for f in fragments if not _is_small(f)]
        if len(fragments) - len(large) <= max_small:
            return []
        options: Any = {**MERGING, "excluded_fragment_ids": large, "num_threads": 1}
        plan: Any = Compaction.plan(table, options)  # pylance 14 has no types for what it makes
        tasks = [task.json() for task in plan.tasks]
    full = [task for task in tasks if _num_rows(task) >= SMALL_ROWS]
    return full or tasks  # the rest would be merged again soon


def rewrite(uri: str, task: str, storage_options: dict[str, str] | None = None) -> str:
    """Copy the rows of a task into new files; returns what `put_in_place` commits. Changes no table.

    Takes about 4 s per GB, and half a GB of memory. Raises StoreError if that fails (a full disk), or if the
    fragments no longer exist.
    """
    table_uri = Location.parse(uri).table_uri("clips")
    with lance_errors("merge fragments", table_uri):
        kind: Any = CompactionTask
        todo = kind.from_json(task)
        table = lance.dataset(table_uri, version=todo.read_version, storage_options=storage_options or None)
        return todo.execute(table).json()


def put_in_place(db: Tables, rewritten: Sequence[str]) -> int | None:
    """Commit merged fragments in place of the old ones, and return the new version of `clips`.

    None: another writer has changed one of them meanwhile, so nothing was done; `plan` again. Column updates refer to
    fragments by number: no update may be under way. Raises StoreError if the table cannot be written.
    """
    table = db.existing_table("clips")
    try:
        kind: Any = RewriteResult
        Compaction.commit(table, [kind.from_json(text) for text in rewritten])
    except LANCE_ERRORS as error:
        if is_conflict(error):
            log.info("fragments changed while they were merged: %s", first_words(error))
            return None
        raise store_error("put merged fragments in place", table.uri, error) from error
    return table.version


def tidy(db: Tables, keep: timedelta) -> int:
    """Drop old versions of `clips` and `rejects`, and merge the fragments of `rejects`; the number of versions of
    `clips` that were dropped."""
    rejects = db.table("rejects")
    if rejects is not None and len(rejects.get_fragments()) > MAX_REJECT_FRAGMENTS:
        try:
            rejects.optimize.compact_files(num_threads=1)
            rejects.cleanup_old_versions(keep, error_if_tagged_old_versions=False)
        except LANCE_ERRORS as error:  # the driver writes rejects meanwhile
            log.info("rejects is not tidied: %s", first_words(error))
    return drop_old_versions(db, keep)


def drop_old_versions(db: Tables, keep: timedelta) -> int:
    """Drop versions of `clips` older than `keep`, and files and copies that only they use; returns their number.

    The newest version and tagged ones stay. Files that no version has ever used may be those of a worker whose shard is
    not yet committed: Lance deletes them only once they are a week old. Reads the manifest of every version.
    """
    table = db.existing_table("clips")
    with lance_errors("drop old versions", table.uri):
        dropped = table.cleanup_old_versions(keep, error_if_tagged_old_versions=False).old_versions
    sweep_copies(table)
    return dropped


def _is_small(fragment: lance.LanceFragment) -> bool:
    num_bytes = sum(file.file_size_bytes or 0 for file in fragment.metadata.files)
    return fragment.physical_rows < SMALL_ROWS and num_bytes < SMALL_BYTES


def _num_rows(task: str) -> int:
    return sum(fragment["physical_rows"] for fragment in json.loads(task)["task"]["fragments"])
