"""`handloom run`: every clip of the list without a row, through Ray, into committed rows or rejects."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import ray

from handloom.api import Database
from handloom.errors import ConfigError, StoreError
from handloom.pipelines.cluster.head_health import LastWords
from handloom.pipelines.run.changed_videos import renew_changed_videos
from handloom.pipelines.run.driver import Job, RunParts, compute
from handloom.pipelines.run.interrupts import Interrupts
from handloom.pipelines.run.pending import CommitTally, Pending
from handloom.pipelines.run.progress import announce, units_of
from handloom.pipelines.run.rounds import lost
from handloom.pipelines.run.todo.plan import Todo, asked_of, plan_work
from handloom.pipelines.run.todo.recompute import keeps
from handloom.pipelines.run.upkeep import Upkeep
from handloom.plural import plural
from handloom.schemas.settings import RunConfig, of_any_version
from handloom.schemas.tables.reject import REASONS
from handloom.stages.versions import model_versions
from handloom.store.clips.changed_labels import bring_words
from handloom.store.clips.clip_list import AddResult, pending_clips
from handloom.store.clips.commit import unfinished
from handloom.store.clips.copied_values import store_digests
from handloom.store.clips.segments import bring_segments
from handloom.store.runs.lease import leased
from handloom.store.runs.runs import RunProgress, end_run, list_runs, settings_to_go_on, stage_seconds
from handloom.store.stages.staged import remove_leftovers
from handloom.workers.setup import WorkerSetup

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class RunSummary:
    """What one run did. Counts are of this run only.

    exit: `done`, `rejects` or `interrupted`. left_nodes: the hosts of nodes that got no more work, and why.
    changed_videos: videos whose files had been replaced when the run began. redone: rows and rejects of the old files,
    which were removed. num_updates: clips with a row that got new columns. num_stage_rejects: stages that failed on
    clips with a row. num_pending: what an interrupted run, or one with a limit, has left: clips without a row, and rows
    that lack something. stages: {stage: rows for which it was to be computed}. stages_again: those of them that had
    older columns of it. left_out: {stage: rows that lack it and do not get it, as they keep outdated columns that it
    reads}; it is `rejects` if one is a stage of one's own.
    """

    run_id: str
    run_key: str
    exit: str
    num_clips: int
    num_rejects: int
    num_frames: int
    wall_s: float
    reasons: dict[str, int]
    num_pending: int
    version: int | None
    left_nodes: dict[str, str] = field(default_factory=dict)
    changed_videos: int = 0
    redone: int = 0
    num_updates: int = 0
    num_stage_rejects: int = 0
    stages: dict[str, int] = field(default_factory=dict)
    left_out: dict[str, int] = field(default_factory=dict)
    stages_again: dict[str, int] = field(default_factory=dict)


def stored_config(db: Database) -> RunConfig:
    """The settings with which the database goes on; the defaults where no run has recorded any."""
    stored = settings_to_go_on(db)
    return RunConfig(**of_any_version(stored.settings)) if stored else RunConfig()


def run(
    db: Database,
    config: RunConfig | None,
    *,
    ray_address: str | None = None,
    retry_rejects: Sequence[str] = (),
    limit: int | None = None,
    where: str | None = None,
    source_options: dict[str, Any] | None = None,
    quiet: bool = False,
    recompute: Collection[str] | None = None,
    stages: Collection[str] | None = None,
    watch: Callable[[ray.actor.ActorHandle], None] | None = None,
    parts: RunParts | None = None,
) -> RunSummary:
    """Compute what is missing, and commit it as it is finished: clips that have neither a row nor a reject get all
    stages; of rows, the stages that they lack or have with another key, and those that depend on them.

    Args:
        config: None continues with the settings of the database, or with the defaults if it has none.
        retry_rejects: reasons of rejects to try again; `("all",)` for every reason.
        limit: process at most this many clips.
        recompute: stages whose changed settings or versions, or changed inputs in the clip list, may outdate rows, with
            all that depend on them; `("all",)`: any; `("none",)`: outdated rows stay as they are, new clips are
            processed; None: as `none` if the last run did so, else such a change is refused.
        stages: compute only these, of clips that have a row, with what they need.
        where: SQL filter on the clip list. Runs whose filters select no common clip may work side by side.
        source_options: fsspec's options for s3:// videos.
        watch: called with the run's ledger when the ledger has started, and again when all clips are finished
            (benchmarks, tests).
        parts: see `RunParts`.

    Raises:
        ConfigError: settings differ from the database's, without `recompute`; an unknown stage; no such cluster;
            `where` cannot be used, or passes no clip of the list.
        StoreError: another run works on these clips; the database cannot be written, or was replaced.
    """
    if where is not None:
        _check_some_pass(db, where)
    config = config or stored_config(db)
    settings = config.settings()
    versions = model_versions(settings)
    run_key = settings.run_key(versions)
    is_part = where is not None or limit is not None
    asked = asked_of(db, settings, versions, recompute, stages, is_part)
    reasons = REASONS if "all" in retry_rejects else retry_rejects
    started = time.monotonic()
    tally, exit, renewed = CommitTally(), "failed", AddResult(0, 0, 0, 0)
    todo: Todo | None = None
    described: dict[str, Any] = {
        "settings": settings.model_dump(mode="json"),
        "resources": config.resources.model_dump(mode="json"),
        "versions": versions,
    }
    if keeps(asked.recompute):
        described["resources"]["recompute"] = list(asked.recompute or ())  # runs that follow do the same
    with leased(db, run_key, **described, where=where, stage_keys=asked.keys) as lease, Interrupts() as interrupts:
        try:
            renewed = renew_changed_videos(db, where)
            store_digests(db)
            bring_words(db)  # an ingest may have been killed before it did
            remove_leftovers(db)
            which: dict[str, Any] = {"retry_reasons": reasons, "where": where, "limit": limit}
            todo = plan_work(db, asked, run_key, lease.check, **which)
            if todo.clips:
                pending = Pending(
                    todo.committer,
                    config.resources,
                    tally,
                    interrupts,
                    columns=todo.columns,
                    stage_keys=asked.keys,
                    targets=todo.targets,
                )
                setup = _setup(db, config, versions, source_options, lease.run.run_id)
                setup = replace(setup, idle=todo.idle(asked.graph, settings.stages), wanted=todo.wanted)
                announce(len(todo.clips), ray_address, quiet, todo.rows, len(todo.targets))
                lease.tell(RunProgress(len(todo.clips), units_of(len(todo.clips), len(todo.targets))))
                with LastWords(db.uri, len(todo.clips)) as last_words:
                    fail = partial(_end, db, lease.run, "failed", tally)
                    known_s = stage_seconds(list_runs(db), asked.keys) if len(setup.groups) > 1 else {}
                    upkeep = Upkeep(db, config.resources, interrupts, lease.check)
                    job = Job(setup, pending, upkeep, tally, last_words, fail, parts or RunParts(), known_s, lease.tell)
                    compute(todo, job, interrupts, ray_address, quiet, watch or (lambda _: None))
                _check_all_ended(db, [clip.clip_id for clip in todo.clips])
                pending.check_end()
            bring_words(db)  # of rows whose clips an ingest has changed while they were made
            bring_segments(db)
            own_left_out = any(config.stages[name].class_ for name in todo.left_out if name in config.stages)
            exit = "rejects" if tally.num_rejects or tally.num_stage_rejects or own_left_out else "done"
        except KeyboardInterrupt:
            exit = "interrupted"
        finally:
            with interrupts.held():
                lease.release()
                _end(db, lease.run, exit, tally)
    wall_s = time.monotonic() - started
    num_pending = 0
    if exit == "interrupted" or limit is not None:
        num_pending = len(pending_clips(db, where=where)) if asked.only is None else 0
        num_pending += 0 if todo is None else max(0, todo.num_rows - tally.num_updated - tally.num_not_updated)
    counts = (tally.num_clips, tally.num_rejects, tally.num_frames, wall_s, dict(tally.reasons), num_pending)
    done = (db.version, tally.left_nodes, renewed.changed_videos, renewed.redone)
    of_stages = ({}, {}) if todo is None else (todo.rows, todo.left_out)
    again = {} if todo is None else todo.again
    columns = (tally.num_updates, tally.num_stage_rejects, *of_stages)
    return RunSummary(lease.run.run_id, run_key, exit, *counts, *done, *columns, again)


def _check_some_pass(db: Database, where: str) -> None:
    """Raise ConfigError for a filter that passes no clip of a list that has some."""
    num = db.count("clip_list")
    if num and not db.read("clip_list", ["clip_id"], where, limit=1).num_rows:
        hint = "change the filter, or leave it out for all; `handloom status --db DB --clips` lists them"
        raise ConfigError(f"--where {where!r} passes none of the {plural(num, 'clip')} in the list of {db.uri}", hint)


def _setup(db: Database, config: RunConfig, versions: dict[str, str], source_options, run_id: str) -> WorkerSetup:
    where = (db.uri, db.storage_options, source_options or {}, run_id)
    return WorkerSetup(config.settings(), config.resources, versions, *where)


def _check_all_ended(db: Database, clip_ids: Sequence[str]) -> None:
    """Raise StoreError if a clip of the run has neither a row nor a reject in the database, whatever was counted."""
    left = unfinished(db, clip_ids)
    if left:
        raise lost(left, "at the end of the run")


def _end(db: Database, record, exit: str, tally: CommitTally) -> None:
    try:
        counts: dict[str, Any] = {
            "num_clips": tally.num_clips,
            "num_rejects": tally.num_rejects,
            "num_frames": tally.num_frames,
        }
        stages: dict[str, Any] = {"stage_s": tally.stage_s, "stage_clips": tally.stage_clips}
        stages["stage_counts"] = tally.stage_counts
        end_run(db, record, exit, **counts, **stages, left_nodes=tally.left_nodes)
    except StoreError as error:
        if exit != "failed":
            raise
        log.warning("the run's end could not be recorded: %s", error.problem)  # the first error is the one to report
