"""The table `robot_episodes`: each episode exactly once and whole, also after a kill."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import lance
import pyarrow as pa

from handloom.errors import CommitConflict
from handloom.schemas.tables.robot import ROBOT_EPISODES, TABLE
from handloom.store.filters import in_list
from handloom.store.repeated import drop_repeated
from handloom.store.retry import retried
from handloom.store.tables import Tables

_KNOWN_COLUMNS = ("episode_id", "source_key", "source_uri", "clip_ids")


@dataclass(frozen=True)
class EpisodesWritten:
    """What `write_episodes` did: how many episodes were new, replaced an older row, or existed unchanged.

    version: of `robot_episodes`; None if there is no table.
    """

    added: int
    replaced: int
    already_there: int
    version: int | None


@dataclass(frozen=True)
class KnownEpisode:
    """A committed episode: the hash of its source (`source_key`), the source's URI, and its clips."""

    source_key: str
    source_uri: str
    clip_ids: tuple[str | None, ...]


def known_episodes(db: Tables, dataset: str | None = None) -> dict[str, KnownEpisode]:
    """`{episode_id: KnownEpisode}` of the committed episodes of one dataset, or of all."""
    where = None if dataset is None else in_list("dataset", [dataset])
    rows = db.read(TABLE, _KNOWN_COLUMNS, where)
    if not rows.num_columns:
        return {}
    return _episodes_of(rows)


def _episodes_of(rows: pa.Table) -> dict[str, KnownEpisode]:
    values = zip(*(rows.column(name).to_pylist() for name in _KNOWN_COLUMNS), strict=True)
    return {i: KnownEpisode(key, uri, tuple(clips)) for i, key, uri, clips in values}


def read_episodes(
    db: Tables, columns: Sequence[str] | None = None, where: str | None = None, version: int | None = None
) -> pa.Table:
    """Rows of `robot_episodes` in stored order; without rows and columns before the first ingest.

    Name the columns: with images a row has tens of megabytes. `handloom.schemas.tables.robot.episode_arrays` turns a
    row into arrays. Raises ConfigError for a filter that Lance cannot use, StoreError if the table cannot be read.
    """
    return db.read(TABLE, columns, where, version)


class EpisodeWriter:
    """Commits episodes in batches. It reads the table's keys once, and again when others have written to it."""

    def __init__(self, db: Tables) -> None:
        self._db = db
        self._uri = db.location.table_uri(TABLE)
        self._known: dict[str, KnownEpisode] = {}
        self._version: int | None = None  # of the table when `_known` was read

    def write(self, batches: Iterable[pa.RecordBatch | pa.Table]) -> EpisodesWritten:
        """As `write_episodes`."""
        self._db.ensure_table(TABLE, ROBOT_EPISODES)
        added = replaced = same = 0
        for batch in batches:
            table = _last_of_each(pa.Table.from_batches([batch]) if isinstance(batch, pa.RecordBatch) else batch)
            new, changed = self._commit(table)
            added, replaced, same = added + new, replaced + changed, same + table.num_rows - new - changed
        table = self._db.table(TABLE)
        return EpisodesWritten(added, replaced, same, None if table is None else table.version)

    def _open(self) -> lance.LanceDataset:
        return lance.dataset(self._uri, storage_options=self._db.storage_options or None)

    def _commit(self, rows: pa.Table) -> tuple[int, int]:
        """(new, replaced) of one batch. Every try compares with the newest version, so no episode is written twice."""
        first: list[tuple[int, int]] = []  # the counts of the first try: later tries may find its rows

        def attempt() -> None:
            seen = self._open().version  # before the episodes are read
            if seen != self._version:
                self._known = known_episodes(self._db)
            new, changed = _new_and_changed(rows, self._known)
            first.append((len(new), len(changed)))
            self._version = None
            if len(new):
                _append(self._db, self._uri, rows if len(new) == rows.num_rows else rows.take(new), seen)
            if len(changed):
                self._open().merge_insert("episode_id").when_matched_update_all().execute(rows.take(changed))
            wrote = bool(len(new)) + bool(len(changed))
            if self._open().version == seen + wrote:  # no other process has written
                self._known |= _episodes_of(rows)
                self._version = seen + wrote

        retried("commit robot episodes", self._uri, attempt)
        return first[0]


def write_episodes(db: Tables, batches: Iterable[pa.RecordBatch | pa.Table]) -> EpisodesWritten:
    """Commit episodes. A batch is one commit, so a kill leaves whole batches and nothing of the others.

    An episode that exists with the same `source_key` is left alone; with another key its row is replaced. Of several
    rows with one id in a batch the last wins. One batch is in memory at a time.

    Raises:
        CommitConflict: another process added the same episodes meanwhile; its rows stay, ours are removed.
        StoreError: the table cannot be written; batches that were committed before stay.
    """
    return EpisodeWriter(db).write(batches)


def _append(db: Tables, uri: str, rows: pa.Table, seen: int) -> None:
    """Append rows and check that nobody appended the same ones since version `seen`: Lance rebases a stale append."""
    after = lance.write_dataset(rows, uri, mode="append", storage_options=db.storage_options or None)
    if after.version == seen + 1:
        return
    ids = rows.column("episode_id").to_pylist()
    found = after.to_table(columns=["episode_id"], filter=in_list("episode_id", ids))
    if found.num_rows == len(ids):
        return
    drop_repeated(db, TABLE, "episode_id")
    raise CommitConflict(
        f"another process wrote the same episodes to {uri} at the same time, {ids[0]} among them",
        "let one ingest at a time write a dataset; run again when the other ended: finished episodes stay",
    )


def _new_and_changed(rows: pa.Table, known: dict[str, KnownEpisode]) -> tuple[list[int], list[int]]:
    """Row numbers of the episodes that are not in the table, and of those that are in it with another source key."""
    ids, keys = rows.column("episode_id").to_pylist(), rows.column("source_key").to_pylist()
    new = [n for n, episode_id in enumerate(ids) if episode_id not in known]
    pairs = enumerate(zip(ids, keys, strict=True))
    changed = [n for n, (i, key) in pairs if i in known and known[i].source_key != key]
    return new, changed


def _last_of_each(rows: pa.Table) -> pa.Table:
    last = {episode_id: number for number, episode_id in enumerate(rows.column("episode_id").to_pylist())}
    return rows if len(last) == rows.num_rows else rows.take(sorted(last.values()))
