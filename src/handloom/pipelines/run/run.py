"""`handloom run`: every clip of the list without a row, through Ray, into committed rows or rejects."""

from __future__ import annotations

import gc
import logging
import math
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import ray

from handloom.api import Database
from handloom.errors import HandloomError, StoreError
from handloom.pipelines.cluster.connect import joined
from handloom.pipelines.cluster.environments import failing_environments
from handloom.pipelines.cluster.head_health import Head, LastWords
from handloom.pipelines.cluster.nodes import Nodes, trial_videos
from handloom.pipelines.cluster.scaling import PoolScaler
from handloom.pipelines.run.changed_videos import renew_changed_videos
from handloom.pipelines.run.graph import Graph
from handloom.pipelines.run.hangs import Deadlines
from handloom.pipelines.run.interrupts import Interrupts
from handloom.pipelines.run.pending import CommitTally, Pending
from handloom.pipelines.run.progress import ProgressLine, announce
from handloom.pipelines.run.results import ResultStream
from handloom.pipelines.run.rounds import Rounds, lost
from handloom.pipelines.run.todo.plan import Todo, asked_of, plan_work
from handloom.pipelines.run.todo.recompute import keeps
from handloom.pipelines.run.upkeep import Upkeep
from handloom.pipelines.run.verdicts import Verdicts
from handloom.schemas.clip import Clip
from handloom.schemas.settings import RunConfig, of_any_version
from handloom.schemas.tables.reject import REASONS
from handloom.stages.pools.groups import WIDE, sent_bytes_per_s
from handloom.stages.versions import model_versions
from handloom.store.clips.changed_labels import bring_words
from handloom.store.clips.clip_list import AddResult, pending_clips
from handloom.store.clips.commit import unfinished
from handloom.store.clips.copied_values import store_digests
from handloom.store.clips.segments import bring_segments
from handloom.store.runs.lease import leased
from handloom.store.runs.runs import end_run, list_runs, settings_to_go_on, stage_seconds
from handloom.store.stages.staged import remove_leftovers
from handloom.workers.ledger import Progress, start_ledger
from handloom.workers.probe import Trial
from handloom.workers.setup import WorkerSetup
from handloom.workers.shard import ShardResult

log = logging.getLogger(__name__)

LEDGER_TIMEOUT_S = 10.0
LATE_QUIET_S, LATE_LIMIT_S = 1.5, 4.0  # an interrupted run takes what is written and on its way to the driver
MAX_LOST_POOLS = 2


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


@dataclass(frozen=True)
class RunParts:
    """The classes that a run makes its pools and its list of nodes of. Tests put faulty ones in."""

    graph: Callable[..., Graph] = Graph
    nodes: Callable[..., Nodes] = Nodes


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
            `where` cannot be used.
        StoreError: another run works on these clips; the database cannot be written, or was replaced.
    """
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
                with LastWords(db.uri, len(todo.clips)) as last_words:
                    fail = partial(_end, db, lease.run, "failed", tally)
                    known_s = stage_seconds(list_runs(db), asked.keys) if len(setup.groups) > 1 else {}
                    upkeep = Upkeep(db, config.resources, interrupts, lease.check)
                    job = _Job(setup, pending, upkeep, tally, last_words, fail, parts or RunParts(), known_s)
                    _process(todo, job, interrupts, ray_address, quiet, watch or (lambda _: None))
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


def _setup(db: Database, config: RunConfig, versions: dict[str, str], source_options, run_id: str) -> WorkerSetup:
    where = (db.uri, db.storage_options, source_options or {}, run_id)
    return WorkerSetup(config.settings(), config.resources, versions, *where)


def _trial(clips: Sequence[Clip], setup: WorkerSetup) -> Trial:
    videos = trial_videos([clip.video_uri for clip in clips])
    where = (setup.db_uri, setup.storage_options, setup.source_options, setup.resources.fetch_cache_dir)
    return Trial(*where, videos, setup.settings, setup.versions)


@dataclass
class _Job:
    """What the driver holds while its workers work. fail: records that the run has failed."""

    setup: WorkerSetup
    pending: Pending
    upkeep: Upkeep
    tally: CommitTally
    last_words: LastWords
    fail: Callable[[], None]
    parts: RunParts
    known_s: Mapping[str, float]  # seconds a clip of stages, by earlier runs
    num_lost_pools: int = 0

    def another_pool(self, error: ray.exceptions.RayError) -> bool:
        """Whether to go on after a pool has ended by itself: at a load of 30 Ray lost an actor before it began.

        After more than `MAX_LOST_POOLS` such ends the cause is another.
        """
        self.num_lost_pools += isinstance(error, ray.exceptions.ActorDiedError)
        return isinstance(error, ray.exceptions.ActorDiedError) and self.num_lost_pools <= MAX_LOST_POOLS

    def tick(self, head: Head) -> None:
        """Commit if it is time; end the process where the cluster has gone."""
        if head.lost:
            self.pending.flush()
            self.fail()
            head.give_up()
        self.pending.tick()
        self.upkeep.tick(self.pending.version)
        self._update()

    def add(self, result: ShardResult) -> None:
        """Keep a result for the next commit."""
        self.pending.add(result)
        self._update()

    def _update(self) -> None:
        self.last_words.know(num_clips=self.tally.num_clips, num_rejects=self.tally.num_rejects)


def _process(todo: Todo, job: _Job, interrupts: Interrupts, ray_address, quiet, watch) -> None:
    """The Ray part. However it ends, everything finished until then is committed."""
    setup, clips = job.setup, todo.clips
    with joined(ray_address), Head(ray.get_runtime_context().gcs_address, job.last_words) as head, job.upkeep:
        interrupts.install()
        ledger = start_ledger()
        watch(ledger)

        def progress() -> Progress:
            found: Any = ray.get(ledger.progress.remote(), timeout=LEDGER_TIMEOUT_S)
            return found

        try:
            scaler = PoolScaler(setup.resources, setup.db_uri, ledger, groups=setup.groups, known_s=job.known_s)
            with ProgressLine(len(clips), progress, quiet=quiet, num_rows=len(todo.targets)), scaler:
                batch_clips = {name: stage.batch_clips for name, stage in setup.settings.stages.items()}
                rounds = Rounds(clips, todo.targets, todo.columns.fragment_of, batch_clips)
                nodes = job.parts.nodes(_trial(clips, setup), scaler.fits)
                verdicts = Verdicts(nodes, clips, setup.db_uri)
                try:
                    while rounds.left:
                        if rounds.number:
                            gc.collect()  # a pool that did not come up holds its actors in a circle of references
                            scaler.resume()
                        nodes.look()
                        _check_environments(setup, nodes)
                        _work(rounds, job, head, scaler, nodes, verdicts, ledger, progress)
                    nodes.drop_gone()
                finally:
                    job.tally.left_nodes = nodes.left_nodes()
                    with suppress(ray.exceptions.RayError):  # the run ends with its own error, and the counts unknown
                        counts: Any = ray.get(ledger.stage_counts.remote(), timeout=LEDGER_TIMEOUT_S)
                        job.tally.stage_counts = counts
        except ray.exceptions.RayTaskError:
            raise  # a bug in a worker keeps its trace
        except ray.exceptions.RayError as error:
            problem = f"the run cannot go on, Ray reports {type(error).__name__}: {str(error).strip()}"
            raise HandloomError(problem, "finished clips are committed: run again to go on") from error
        watch(ledger)


def _check_environments(setup: WorkerSetup, nodes: Nodes) -> None:
    """Leave nodes on which the environment of a stage cannot be built. Raises its ConfigError where none is left."""
    for node_id, error in failing_environments(setup, list(nodes.used)).items():
        if not nodes.spare([node_id]):
            raise error
        nodes.leave(node_id, error.problem)


def _work(
    rounds: Rounds, job: _Job, head: Head, scaler: PoolScaler, nodes: Nodes, verdicts: Verdicts, ledger, progress
) -> None:
    """One round: one pool of actors, until every shard has come back or the pool must change."""
    setup, pending = job.setup, job.pending
    num_cpus = int(ray.cluster_resources().get("CPU", 1))
    clips, without = verdicts.next_pool(rounds.left)
    shards = rounds.shards(clips, setup.resources.shard_clips, _shard_s(setup), num_cpus)
    pools = scaler.pools(len(shards), first=not rounds.number, without=without, has_new_nodes=nodes.has_new)
    if not pools.num_actors:
        return  # nodes have come: they are tried first
    counts = (rounds.number, len(clips), len(shards), pools.num_actors, pools.num_decode)
    log.info("a pool begins round=%d clips=%d shards=%d actors=%d decode_actors=%d", *counts)
    ray.get(ledger.use.remote([node_id for node_id in nodes.used if node_id not in without]))
    graph = job.parts.graph(shards, setup, pools, ledger, without)
    deadlines = Deadlines(ledger, nodes)
    arrivals = ResultStream(graph, graph.close, lambda: progress().idle_s)
    cut_off = False
    with arrivals, scaler.watched(pools, len(shards)) as watched:
        try:
            for result in arrivals:
                job.tick(head)
                cut_off = deadlines.look() or nodes.all_gone()
                if cut_off:
                    break
                if result is None:
                    continue
                if result.interrupted is not None:
                    log.warning(
                        "a worker was interrupted at stage %s: the run ends as after Ctrl-C", result.interrupted
                    )
                    raise KeyboardInterrupt
                result = verdicts.on(result)
                rounds.add(result)
                job.add(result)
                if verdicts.without > without:
                    watched.stop("leaves a node")
                if watched.arrived(result):
                    break
        except KeyboardInterrupt:
            for result in arrivals.drain(LATE_QUIET_S, LATE_LIMIT_S):
                pending.keep(verdicts.sure(result))
            raise
        except ray.exceptions.RayError as error:
            if isinstance(error, ray.exceptions.RayTaskError) or not (nodes.lost_one() or job.another_pool(error)):
                raise
            cut_off = True  # Ray Data cannot go on; another pool can
            log.warning("the pool has ended, another one goes on: %s", str(error).strip().splitlines()[0])
        finally:
            pending.flush()  # before the actors are stopped: that may take longer than the patience of Slurm
    if cut_off:
        ray.get(ledger.cut_off.remote(list(nodes.left)))
    rounds.end(watched.drained or cut_off)


def _shard_s(setup: WorkerSetup) -> float:
    """The longest shard: frames that travel are one object in the store, of at most half `inline_frames_mb`."""
    resources, video = setup.resources, setup.settings.video
    bytes_per_s = sent_bytes_per_s(setup.graph, setup.groups)
    if resources.mode == "split":
        bytes_per_s = max(bytes_per_s, video.sample_hz * video.short_side_px**2 * WIDE * 3)
    return min(resources.shard_s, (resources.inline_frames_mb << 20) / 2 / bytes_per_s if bytes_per_s else math.inf)


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
