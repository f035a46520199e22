"""The lease of a run: the clips of a database that it alone works on, and its heartbeat.

A run that begins adds its row to `runs`, with its process (`holder`) and its filter, and writes `heartbeat_at` every
few seconds. A run that selects clips of another active run is refused. Clocks need not agree: Lance orders commits, on
disks and in S3, and a run has the lease if no other run is active in the version that its own row made. The operating
system says whether a process on this machine runs; one on another machine counts as gone when its heartbeat has not
changed for `STALE_S` seconds of the observer's clock. The `exit` of a run that is gone becomes `killed`; if it was only
asleep, it finds that out before its next commit, and stops.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import lance
import pyarrow as pa

from handloom.errors import ConfigError, StoreError
from handloom.plural import plural
from handloom.schemas.tables.arrow import CLIP_LIST, RUNS
from handloom.store.filters import clause, quoted
from handloom.store.lance_faults import LANCE_ERRORS, first_words
from handloom.store.location import lance_errors
from handloom.store.retry import retried
from handloom.store.runs.holder import Holder, this_process
from handloom.store.runs.runs import Run, RunProgress, list_runs, new_run
from handloom.store.tables import Tables

log = logging.getLogger(__name__)

BEAT_S = 10.0  # a heartbeat is a version of `runs`: 10 ms of CPU time, 9 KB
STALE_S = 60.0  # six heartbeats
POLL_S = 0.25
BEATS_PER_TIDY = 30  # every five minutes the versions that heartbeats have made are deleted
KEPT_VERSIONS = timedelta(minutes=10)
MAX_FRAGMENTS = 64  # of `runs`, one a run; a heartbeat reads each


class DatabaseBusy(StoreError):
    """A run works on the database."""


class Lease:
    """The lease of one run; a thread writes its heartbeats. run: its row of `runs`."""

    def __init__(self, db: Tables, run: Run, beat_s: float) -> None:
        self.run = run
        self._db = db
        self._beat_s = beat_s
        self._progress: str | None = None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._beats, name="handloom-lease", daemon=True)
        self._thread.start()

    def tell(self, progress: RunProgress) -> None:
        """How far the run is: written with the next heartbeat."""
        self._progress = progress.to_json()

    def check(self) -> None:
        """Write a heartbeat. Raises StoreError if another run has taken over: this one may not commit."""
        if not _beat(self._db, self.run, self._progress):
            raise StoreError(
                f"run {self.run.run_id} stops: another run on {self._db.uri} saw no heartbeat and took over its clips. "
                "Was this machine asleep, or without its network?",
                "what it has committed stays; the other run does the rest (`handloom status`)",
            )

    def release(self) -> None:
        """Stop the heartbeats. The caller writes how the run ended (`end_run`)."""
        self._stop.set()
        self._thread.join(self._beat_s)

    def _beats(self) -> None:
        number = 0
        while not self._stop.wait(self._beat_s):
            number += 1
            try:
                if not _beat(self._db, self.run, self._progress):
                    log.error("the lease of run %s is lost: it stops at its next commit", self.run.run_id)
                    return
                if number % BEATS_PER_TIDY == 0:
                    _tidy(self._db)
            except StoreError as error:
                log.warning("no heartbeat: %s", error.problem)


@contextmanager
def leased(
    db: Tables,
    run_key: str,
    *,
    settings: Mapping[str, Any],
    resources: Mapping[str, Any],
    versions: Mapping[str, str],
    stage_keys: Mapping[str, str] | None = None,
    where: str | None = None,
    beat_s: float = BEAT_S,
    stale_s: float = STALE_S,
) -> Iterator[Lease]:
    """Begin a run: write its row of `runs`, and lease the clips of the list that pass `where` (None: all).

    After the block the caller writes how the run ended, with `end_run`.

    Raises:
        ConfigError: `where` cannot be used.
        StoreError: another run works on some of these clips, or has another run key; the database cannot be written.
    """
    db.ensure_table("clip_list", CLIP_LIST)
    db.ensure_table("runs", RUNS)
    if where is not None:
        db.count("clip_list", where)
    _tidy(db)
    run = new_run(db, run_key, settings=settings, resources=resources, versions=versions, stage_keys=stage_keys)
    run = replace(run, holder=this_process(where).to_json())
    _take(db, run, where, stale_s)
    lease = Lease(db, run, beat_s)
    try:
        yield lease
    finally:
        lease.release()


@contextmanager
def alone(db: Tables, doing: str, refused: str = "nothing can be removed meanwhile") -> Iterator[None]:
    """Keep runs away while rows are removed or compared: a run that begins meanwhile is refused. No row of `runs`
    remains.

    Writes nothing if there was never a run. doing: a word that stands for the run key in the other run's message.
    refused: what cannot be done while a run works, for the message.

    Raises DatabaseBusy if a run works on the database.
    """
    for run in living_runs(db):
        if _holder(run).has_gone() is False:
            problem = f"run {run.run_id} works on {db.uri} since {run.started_at:%Y-%m-%d %H:%M} UTC ({_who(run)})"
            raise DatabaseBusy(f"{problem}: {refused}", "wait until it has ended, or stop it")
    if db.table("runs") is None:
        yield
        return
    with leased(db, doing, settings={}, resources={}, versions={}) as lease:
        try:
            yield
        finally:
            lease.release()
            _withdraw(db, lease.run)


def living_runs(db: Tables) -> list[Run]:
    """The runs that have not ended and whose process is not known to be gone; on other machines it may be."""
    return [run for run in list_runs(db) if run.exit is None and run.holder and not _holder(run).has_gone()]


def run_state(run: Run, now: datetime) -> str:
    """How a run has ended (its `exit`); `running`; `gone`: its process has ended without a word; `silent`: there was no
    heartbeat for `STALE_S` seconds before `now`, as it sleeps, or as its machine is lost or has another clock.
    """
    if run.exit is not None:
        return run.exit
    if run.holder is None or _holder(run).has_gone():
        return "gone"
    return "silent" if (now - (run.heartbeat_at or run.started_at)).total_seconds() > STALE_S else "running"


def _take(db: Tables, run: Run, where: str | None, stale_s: float) -> None:
    """Add the run's row, unless another run works on its clips."""
    uri = db.location.table_uri("runs")
    others = _Others(db, run, where, stale_s)
    others.wait(None)
    with lance_errors("write the run record", uri):
        rows = pa.Table.from_pylist([asdict(run)], schema=RUNS)
        mine = lance.write_dataset(rows, uri, mode="append", storage_options=db.storage_options or None)
    try:
        with lance_errors("read the runs", uri):
            there = mine.to_table(columns=["run_id"], filter="exit IS NULL").column("run_id").to_pylist()
        others.wait(set(there) - {run.run_id})
        won = _beat(db, run)
    except BaseException:  # refused, or Ctrl-C while it waited: others must not wait for this record; raised again
        _withdraw(db, run)
        raise
    if not won:
        raise StoreError(f"the record of run {run.run_id} is gone from {uri}", "start the run again")


class _Others:
    """The other runs that have not ended, as a run that begins sees them."""

    def __init__(self, db: Tables, run: Run, where: str | None, stale_s: float) -> None:
        self._db = db
        self._run = run
        self._where = where
        self._stale_s = stale_s
        self._seen: dict[str, tuple[datetime | None, float]] = {}  # last heartbeat, and when it was first seen
        self._shared: dict[str | None, int | None] = {}

    def wait(self, before: set[str] | None) -> None:
        """Wait until every other run with common clips has ended or is known to be gone.

        before: ids of the runs whose rows are older than this run's; they have priority, also those without a heartbeat
            yet. None: this run has no row yet; runs without a heartbeat are left out.

        Raises StoreError if one of them is active.
        """
        is_logged = False
        while others := [other for other in list_runs(self._db) if self._in_the_way(other, before)]:
            unclear = [other.run_id for other in others if not self._has_died(other)]
            if not unclear:
                continue
            if not is_logged and before is None:
                log.warning("waiting up to %.0f s to see whether run %s is active", self._stale_s, unclear[0])
                is_logged = True
            time.sleep(POLL_S)

    def _in_the_way(self, other: Run, before: set[str] | None) -> bool:
        if other.exit is not None or other.holder is None or other.run_id == self._run.run_id:
            return False
        if other.heartbeat_at is None if before is None else other.run_id not in before:
            return False
        return other.run_key != self._run.run_key or self._num_shared(other) != 0

    def _has_died(self, other: Run) -> bool:
        """Mark a run as killed if its process is gone; False if that is not known yet. Raises StoreError if it is
        active.

        On this machine clocks agree: a process that exists without a recent heartbeat (it was stopped, or did not write
        its end) is watched like one on another machine.
        """
        gone = _holder(other).has_gone()
        heartbeat, since = self._seen.setdefault(other.run_id, (other.heartbeat_at, time.monotonic()))
        beats = other.heartbeat_at != heartbeat
        if gone is False and other.heartbeat_at is not None:
            beats |= abs((datetime.now(UTC) - other.heartbeat_at).total_seconds()) < self._stale_s
        if beats:
            raise self._refused(other)
        return bool(gone or time.monotonic() - since >= self._stale_s) and self._marked_killed(other)

    def _marked_killed(self, other: Run) -> bool:
        """Write that the other run was killed; False if its record has changed meanwhile."""
        same = "IS NULL" if other.heartbeat_at is None else f"= {_sql_time(other.heartbeat_at)}"
        marked = _update(self._db, other.run_id, {"exit": "'killed'"}, f"heartbeat_at {same}")
        if marked:
            log.warning("run %s is gone (%s); its clips are taken over", other.run_id, _who(other))
        return marked

    def _num_shared(self, other: Run) -> int | None:
        """Clips of the list that both runs select; None if unknown."""
        where = _holder(other).where
        if where not in self._shared:
            both = " AND ".join(str(clause(condition)) for condition in (where, self._where) if condition is not None)
            try:
                self._shared[where] = self._db.count("clip_list", both) if both else None
            except ConfigError:  # the other's filter names a column that was dropped
                self._shared[where] = None
        return self._shared[where]

    def _refused(self, other: Run) -> DatabaseBusy:
        shared = self._num_shared(other)
        beaten = f"{other.heartbeat_at:%H:%M:%S}" if other.heartbeat_at else "unknown"
        since = f"{other.started_at:%Y-%m-%d %H:%M} UTC ({_who(other)}; last heartbeat {beaten} UTC)"
        problem = f"run {other.run_id} works on {self._db.uri} since {since}"
        if other.run_key != self._run.run_key:
            return DatabaseBusy(f"{problem}, with other settings or versions", "wait until it has ended")
        if _holder(other).where is not None:
            problem += f", on the clips that pass {_holder(other).where!r}"
        if shared is not None:
            problem += f"; {plural(shared, 'clip of the list is', 'clips of the list are')} in both runs"
        return DatabaseBusy(
            problem,
            "wait until it has ended, or stop it there; to share the work on purpose, give each run a --where of its "
            "own, without common clips",
        )


def _beat(db: Tables, run: Run, progress: str | None = None) -> bool:
    """Write a heartbeat, and how far the run is. Returns whether the run still has its lease."""
    told = {} if progress is None else {"progress": quoted(progress)}
    return _update(db, run.run_id, {"heartbeat_at": _sql_time(datetime.now(UTC)), **told})


def _update(db: Tables, run_id: str, values: dict[str, str], condition: str = "true") -> bool:
    """Change the row of a run that has not ended. Returns whether there is one that passes the condition."""
    uri = db.location.table_uri("runs")
    where = f"run_id = {quoted(run_id)} AND exit IS NULL AND {condition}"

    def attempt() -> bool:
        table = lance.dataset(uri, storage_options=db.storage_options or None)
        return bool(table.update(values, where=where)["num_rows_updated"])

    return retried("write to the run record", uri, attempt)


def _withdraw(db: Tables, run: Run) -> None:
    uri = db.location.table_uri("runs")
    try:
        lance.dataset(uri, storage_options=db.storage_options or None).delete(f"run_id = {quoted(run.run_id)}")
    except LANCE_ERRORS as error:  # the error that ended the run is raised already
        log.warning("the record of run %s stays: %s", run.run_id, first_words(error))


def _tidy(db: Tables) -> None:
    """Delete old versions of `runs` and merge its small fragments; after a failure the next call tries again."""
    try:
        table = lance.dataset(db.location.table_uri("runs"), storage_options=db.storage_options or None)
        if len(table.get_fragments()) > MAX_FRAGMENTS:
            table.optimize.compact_files()
        table.cleanup_old_versions(older_than=KEPT_VERSIONS, error_if_tagged_old_versions=False)
    except LANCE_ERRORS as error:
        log.info("runs is not tidied: %s", first_words(error))


def _holder(run: Run) -> Holder:
    return Holder.from_json(run.holder or "{}")


def _who(run: Run) -> str:
    holder = _holder(run)
    return f"host {holder.host}, process {holder.pid}, user {holder.user}"


def _sql_time(moment: datetime) -> str:
    return f"to_timestamp_micros({round(moment.timestamp() * 1e6)})"
