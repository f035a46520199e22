"""The table `runs`: one row per `handloom run`, written when it starts and completed when it ends."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from typing import Any, Final

import lance
import pyarrow as pa
import pyarrow.compute as pc

from handloom.schemas.tables.arrow import RUNS
from handloom.schemas.version_policy import licences_in
from handloom.store.filters import quoted
from handloom.store.retry import retried
from handloom.store.tables import Tables

STAGES_BEFORE: Final[dict[str, tuple[str, ...]]] = {
    "hands": ("hands_2d",),
    "hand_fit": ("lens", "hands_3d"),
    "camera": ("camera", "world"),
    "pictures": ("frames", "images"),
    "embeddings": ("motion", "appearance"),
    "row": ("probe",),
}
"""Steps in the records of runs by 0.3 and before, and the stages that compute the same today."""


@dataclass(frozen=True)
class Run:
    """A row of `runs`. `settings`, `resources`, `versions`, `stage_s`, `stage_keys`, `stage_clips`, `stage_counts` are
    JSON; None: not known (yet).

    number: above those of all runs that began before, as clocks differ, and are set back. progress: JSON of
        `RunProgress`; None: not told yet, or it has ended and the other columns say what it did.
    exit: `done`, `rejects`, `interrupted`, `failed`; `killed` if a later run has found that its process is gone; None
        while it runs. holder: JSON of `handloom.store.runs.holder.Holder`.
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
    stage_keys: str | None = None
    stage_clips: str | None = None
    number: int | None = None
    stage_counts: str | None = None
    progress: str | None = None


LOAD, DECODE, WAIT, WRITE = "load", "decode", "decode_wait", "write"
SHARD = "shard"  # between a shard's clips
READ = "read"  # of a row that exists
"""What workers do beside stages, in `RunProgress.stages`. Here: who only reads has no Ray."""


@dataclass(frozen=True)
class RunProgress:
    """How far a run is that has not ended, as it said with its last heartbeat.

    total: the clips (`units`: `clips`), or the rows that get new columns (`rows`), that it has to do. rows, rejects,
    frames: what it has done since it began; the last of them may not be committed yet. clips_per_s, frames_per_s: over
    the last minute; None before the first clip has ended. left_s: the time left at the mean rate so far; None: not
    known. stages: {stage: (workers that compute it now, seconds since the first of them began it)}.
    """

    total: int
    units: str = "clips"
    rows: int = 0
    rejects: int = 0
    frames: int = 0
    clips_per_s: float | None = None
    frames_per_s: float | None = None
    left_s: float | None = None
    stages: Mapping[str, tuple[int, float]] = field(default_factory=dict)

    def to_json(self) -> str:
        return json.dumps(asdict(self), sort_keys=True)

    @staticmethod
    def from_json(text: str) -> RunProgress:
        """Of any version: what it does not say is unknown, what is not known here is left out."""
        values = json.loads(text)
        return RunProgress(**{name: values[name] for name in RunProgress.__dataclass_fields__ if name in values})


@dataclass(frozen=True)
class StoredSettings:
    """The settings, versions and stage keys with which a database goes on. stage_keys: None before 0.4."""

    run_key: str
    settings: dict[str, Any]
    versions: dict[str, str]
    stage_keys: dict[str, str] | None = None


def start_run(
    db: Tables,
    run_key: str,
    *,
    settings: Mapping[str, Any],
    resources: Mapping[str, Any],
    versions: Mapping[str, str],
    stage_keys: Mapping[str, str] | None = None,
) -> Run:
    """Record that a run begins, without a lease (`handloom.store.runs.lease`)."""
    run = new_run(db, run_key, settings=settings, resources=resources, versions=versions, stage_keys=stage_keys)
    db.ensure_table("runs", RUNS)
    _upsert(db, run)
    return run


def new_run(
    db: Tables,
    run_key: str,
    *,
    settings: Mapping[str, Any],
    resources: Mapping[str, Any],
    versions: Mapping[str, str],
    stage_keys: Mapping[str, str] | None = None,
) -> Run:
    """A run that begins now, with a new id and number; nothing is written. stage_keys: `{stage: key}` of all its
    stages."""
    runs = db.read("runs", ["number"])
    return Run(
        uuid.uuid4().hex[:12],
        run_key,
        datetime.now(UTC),
        settings=_json(settings),
        resources=_json(resources),
        versions=_json(versions),
        stage_keys=None if stage_keys is None else _json(stage_keys),
        number=1 + ((pc.max(runs.column("number")).as_py() or 0) if runs.num_rows else 0),
    )


def end_run(
    db: Tables,
    run: Run,
    exit: str,
    *,
    num_clips: int,
    num_rejects: int,
    num_frames: int,
    stage_s: Mapping[str, float],
    stage_clips: Mapping[str, int] | None = None,
    left_nodes: Mapping[str, str] | None = None,
    stage_counts: Mapping[str, Mapping[str, float]] | None = None,
) -> Run:
    """Record how a run ended, its own counts, and the seconds per stage summed over actors.

    left_nodes: {host: why} of the nodes that were given no more work.
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
        stage_s=_json(stage_s),
        stage_clips=None if stage_clips is None else _json(stage_clips),
        stage_counts=None if stage_counts is None else _json(stage_counts),
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
    """The newest run that has done something or still runs; if there is none, the newest."""
    runs = list_runs(db)
    busy = [run for run in runs if run.exit is None or run.num_clips or run.num_rejects or _computed(run)]
    return (busy or runs)[-1] if runs else None


def newest_of_stages(db: Tables) -> Run | None:
    """The newest run whose stages are known: none of handloom 0.3, nor a row that keeps runs away while others remove
    rows (`lease.alone`), which stays if they are killed."""
    return next((run for run in reversed(list_runs(db)) if run.stage_keys is not None), None)


def _computed(run: Run) -> bool:
    """Whether it has computed a stage, perhaps only for rows that there were."""
    return any(json.loads(run.stage_clips).values()) if run.stage_clips else False


def stored_settings(db: Tables) -> StoredSettings | None:
    """The settings of the newest run, which change only where a user allows it (`pipelines/run/todo/recompute.py`).

    None if there is neither a row nor a reject.
    Rows may have been made with older ones: their stage keys say so.
    """
    for table in ("clips", "rejects"):
        first = db.read(table, ["run_key"], limit=1)
        if not first.num_rows:
            continue
        run = newest_of_stages(db)
        if run is not None:
            return _settings_of(run)
        run_key = first.column("run_key")[0].as_py()
        rows = db.read("runs", where=f"run_key = {quoted(run_key)}", limit=1).to_pylist()
        settings, versions = (json.loads(rows[0][n]) if rows else {} for n in ("settings", "versions"))
        return StoredSettings(run_key, settings, versions)
    return None


def settings_to_go_on(db: Tables) -> StoredSettings | None:
    """Those of a run without settings of its own: `stored_settings`, or of a run that was ended before its first
    commit."""
    run = newest_of_stages(db)
    return stored_settings(db) or (None if run is None else _settings_of(run))


def _settings_of(run: Run) -> StoredSettings:
    keys = json.loads(run.stage_keys or "{}")
    return StoredSettings(run.run_key, json.loads(run.settings), json.loads(run.versions), keys)


def recorded_licences(db: Tables) -> dict[str, dict[str, str]]:
    """`{stage: {key: licence}}` of weights, as this database's runs have recorded them."""
    found: dict[str, dict[str, str]] = {}
    for run in db.read("runs", ["versions", "stage_keys"]).to_pylist():
        keys = json.loads(run["stage_keys"]) if run["stage_keys"] else {}
        for stage, licence in licences_in(json.loads(run["versions"])).items():
            if stage in keys:
                found.setdefault(stage, {})[keys[stage]] = licence
    return found


def stage_seconds(runs: Iterable[Run], keys: Mapping[str, str | None]) -> dict[str, float]:
    """`{stage: seconds a clip}`, decoding not included: of the runs with the stage's key, or where there is none, of
    the newest that has computed it. runs: oldest first. keys: of today."""
    sums: dict[str, tuple[bool, float, int]] = {}
    for run in runs:
        of_run = json.loads(run.stage_keys or "{}")
        clips = json.loads(run.stage_clips) if run.stage_clips else {}
        for stage, seconds in _seconds(run).items():
            num = clips.get(stage, 0) if run.stage_clips else run.num_clips
            if not num:
                continue
            same = stage in keys and of_run.get(stage) == keys[stage]
            before = sums.get(stage, (False, 0.0, 0))
            if same and before[0]:
                sums[stage] = (True, before[1] + seconds, before[2] + num)
            elif same or not before[0]:
                sums[stage] = (same, seconds, num)
    return {stage: seconds / num for stage, (_, seconds, num) in sums.items()}


def _seconds(run: Run) -> dict[str, float]:
    """Seconds by stage; those of a step of 0.3 are divided evenly between the stages of today."""
    found: dict[str, float] = json.loads(run.stage_s or "{}")
    if run.stage_keys is not None:
        return found
    steps = {step: STAGES_BEFORE.get(step, (step,)) for step in found}
    return {stage: found[step] / len(stages) for step, stages in steps.items() for stage in stages}


def _json(values: Mapping[str, Any]) -> str:
    return json.dumps(dict(values), sort_keys=True)


def _upsert(db: Tables, run: Run) -> None:
    uri = db.location.table_uri("runs")
    rows = pa.Table.from_pylist([asdict(run)], schema=RUNS)

    def attempt() -> None:
        table = lance.dataset(uri, storage_options=db.storage_options or None)
        table.merge_insert("run_id").when_matched_update_all().when_not_matched_insert_all().execute(rows)

    retried("write the run record", uri, attempt)
