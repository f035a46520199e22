"""The runs: one row per `handloom run`, written at its start and completed at its end."""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from typing import Any

import lance
import pyarrow as pa

from handloom.schemas.tables.arrow import RUNS
from handloom.store.retry import retried
from handloom.store.sql import quoted
from handloom.store.tables import Tables


@dataclass(frozen=True)
class Run:
    """A row of `runs`. `settings`, `resources`, `versions`, `stage_s` are JSON; None marks what is not known yet.

    exit: `done`, `rejects`, `interrupted`, `failed`; `killed` where a later run has found that it had died; None while
        it runs. holder: JSON of `handloom.store.runs.holder.Holder`.
    """

    run_id: str
    run_key: str
    started_at: datetime
    settings: str
    resources: str
    versions: str
    ended_at: datetime | None = None
    exit: str | None = None
    num_clips: int | None = None
    num_rejects: int | None = None
    num_frames: int | None = None
    wall_s: float | None = None
    stage_s: str | None = None
    holder: str | None = None
    heartbeat_at: datetime | None = None
    left_nodes: str | None = None


@dataclass(frozen=True)
class StoredSettings:
    """What the rows of a database were made with."""

    run_key: str
    settings: dict[str, Any]
    versions: dict[str, str]


def start_run(
    db: Tables,
    run_key: str,
    *,
    settings: Mapping[str, Any],
    resources: Mapping[str, Any],
    versions: Mapping[str, str],
) -> Run:
    """Record that a run begins, without a lease (`handloom.store.runs.lease`): for what is no run of its own."""
    run = new_run(run_key, settings=settings, resources=resources, versions=versions)
    db.ensure_table("runs", RUNS)
    _upsert(db, run)
    return run


def new_run(
    run_key: str, *, settings: Mapping[str, Any], resources: Mapping[str, Any], versions: Mapping[str, str]
) -> Run:
    """A run that begins now, under an id of its own; nothing is written."""
    texts = (json.dumps(dict(values), sort_keys=True) for values in (settings, resources, versions))
    return Run(uuid.uuid4().hex[:12], run_key, datetime.now(UTC), *texts)


def end_run(
    db: Tables,
    run: Run,
    exit: str,
    *,
    num_clips: int,
    num_rejects: int,
    num_frames: int,
    stage_s: Mapping[str, float],
    left_nodes: Mapping[str, str] | None = None,
) -> Run:
    """Record how a run ended, its counts (of this run only) and the seconds per stage summed over actors.

    left_nodes: nodes that got no work any more, by their host's name, and why.
    """
    ended_at = datetime.now(UTC)
    ended = replace(
        run,
        ended_at=ended_at,
        exit=exit,
        num_clips=num_clips,
        num_rejects=num_rejects,
        num_frames=num_frames,
        wall_s=(ended_at - run.started_at).total_seconds(),
        stage_s=json.dumps(dict(stage_s), sort_keys=True),
        heartbeat_at=None if run.holder is None else ended_at,
        left_nodes=None if left_nodes is None else json.dumps(dict(left_nodes)),
    )
    _upsert(db, ended)
    return ended


def list_runs(db: Tables) -> list[Run]:
    """All runs, oldest first."""
    rows = db.runs()
    return [Run(**row) for row in rows.select(RUNS.names).to_pylist()] if rows.num_rows else []


def latest_run(db: Tables) -> Run | None:
    """The newest run, but for finished ones that found nothing to do after one that did."""
    runs = list_runs(db)
    busy = [run for run in runs if run.exit is None or run.num_clips or run.num_rejects]
    return (busy or runs or [None])[-1]


def stored_settings(db: Tables) -> StoredSettings | None:
    """What the committed rows were made with; where there are none, what the rejects were made with; else None.

    A run whose `run_key` differs cannot go on with this database: `handloom.schemas.settings.differing` names the
    settings, and the versions of models may differ too.
    """
    for table in ("clips", "rejects"):
        first = db.read(table, ["run_key"], limit=1)
        if not first.num_rows:
            continue
        run_key = first.column("run_key")[0].as_py()
        rows = db.read("runs", where=f"run_key = {quoted(run_key)}", limit=1).to_pylist()
        settings, versions = (json.loads(rows[0][n]) if rows else {} for n in ("settings", "versions"))
        return StoredSettings(run_key, settings, versions)
    return None


def _upsert(db: Tables, run: Run) -> None:
    uri = db.location.table_uri("runs")
    rows = pa.Table.from_pylist([asdict(run)], schema=RUNS)

    def attempt() -> None:
        table = lance.dataset(uri, storage_options=db.storage_options or None)
        table.merge_insert("run_id").when_matched_update_all().when_not_matched_insert_all().execute(rows)

    retried("write the run record", uri, attempt)
