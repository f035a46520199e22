"""`handloom run`: every clip of the list without a row, through Ray, into committed rows or rejects."""

from __future__ import annotations

import gc
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import ray

from handloom.api import Database
from handloom.errors import HandloomError, StoreError
from handloom.pipelines.cluster.connect import joined
from handloom.pipelines.cluster.head import Head, LastWords
from handloom.pipelines.cluster.nodes import Nodes, trial_videos
from handloom.pipelines.cluster.scaling import PoolScaler
from handloom.pipelines.configure import check_stored
from handloom.pipelines.run.deadlines import Deadlines
from handloom.pipelines.run.graph import Graph
from handloom.pipelines.run.interrupts import Interrupts
from handloom.pipelines.run.pending import CommitTally, Pending
from handloom.pipelines.run.present import present_first, renew_changed_videos
from handloom.pipelines.run.progress import ProgressLine, announce
from handloom.pipelines.run.results import ResultStream
from handloom.pipelines.run.rounds import Rounds, lost
from handloom.pipelines.run.verdicts import Verdicts
from handloom.schemas.clip import Clip
from handloom.schemas.settings import RunConfig, of_any_version
from handloom.schemas.tables.arrow import clips_schema
from handloom.schemas.tables.reject import REASONS
from handloom.store.clips.clip_list import AddResult, pending_clips
from handloom.store.clips.commit import Committer, unfinished
from handloom.store.runs.lease import leased
from handloom.store.runs.runs import end_run, stored_settings
from handloom.workers.extraction.versions import model_versions
from handloom.workers.ledger import Progress, start_ledger
from handloom.workers.probe import Trial
from handloom.workers.process import WorkerSetup
from handloom.workers.shard import ShardResult

log = logging.getLogger(__name__)

LEDGER_TIMEOUT_S = 10.0
LATE_QUIET_S, LATE_LIMIT_S = 1.5, 4.0  # an interrupted run takes what is written and on its way to the driver
MAX_LOST_POOLS = 2
WIDE = 16 / 9


@dataclass(frozen=True)
class RunSummary:
    """What one run did. `exit`: `done`, `rejects` or `interrupted`; counts are of this run only.

    left_nodes: nodes that got no work any more, by their host's name, and why.
    changed_videos: videos that were other files than before when it began. redone: rows and rejects made of their old
    files, which were removed.
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


def stored_config(db: Database) -> RunConfig:
    """The settings that the database's rows were made with; the defaults where it has none."""
    stored = stored_settings(db)
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
    watch: Callable[[ray.actor.ActorHandle], None] | None = None,
) -> RunSummary:
    """Process every clip that has neither a row nor a reject, and commit as they are finished.

    Args:
        config: None goes on with the settings of the database (defaults where it has none).
        retry_rejects: reasons of rejects to try again; `("all",)` for every reason.
        limit: process at most this many clips.
        where: SQL filter on the clip list. Runs whose filters select no clip in common may work side by side.
        source_options: fsspec's options for s3:// videos.
        watch: called with the run's ledger once it is there, and again when all clips are finished (benchmarks, tests).

    Raises:
        ConfigError: other settings than the database's; no such cluster; `where` cannot be used.
        StoreError: another run works on these clips; the database cannot be written, or was replaced.
    """
    config = config or stored_config(db)
    settings = config.settings()
    versions = model_versions(settings)
    run_key = settings.run_key(versions)
    check_stored(stored_settings(db), settings, versions, run_key)
    reasons = REASONS if "all" in retry_rejects else retry_rejects
    started = time.monotonic()
    tally, exit, renewed = CommitTally(), "failed", AddResult(0, 0, 0, 0)
    described = {
        "settings": settings.model_dump(mode="json"),
        "resources": config.resources.model_dump(mode="json"),
        "versions": versions,
    }
    with leased(db, run_key, **described, where=where) as lease, Interrupts() as interrupts:
        try:
            renewed = renew_changed_videos(db, where)
            committer = Committer(
                db, run_key, clips_schema(settings.num_tracks(), num_grid=settings.num_grid()), lease.check
            )
            clips = present_first(pending_clips(db, retry_reasons=reasons, where=where))[:limit]
            if clips:
                pending = Pending(committer, config.resources, tally, interrupts)
                setup = _setup(db, config, versions, source_options)
                with LastWords(db.uri, len(clips)) as last_words:
                    job = _Job(setup, pending, tally, last_words, lambda: _end(db, lease.run, "failed", tally))
                    _process(clips, job, interrupts, ray_address, quiet, watch or (lambda _: None))
                _check_all_ended(db, [clip.clip_id for clip in clips])
                pending.check_end()
            exit = "rejects" if tally.num_rejects else "done"
        except KeyboardInterrupt:
            exit = "interrupted"
        finally:
            with interrupts.held():
                lease.release()
                _end(db, lease.run, exit, tally)
    wall_s = time.monotonic() - started
    num_pending = len(pending_clips(db, where=where)) if exit == "interrupted" or limit is not None else 0
    counts = (tally.num_clips, tally.num_rejects, tally.num_frames, wall_s, dict(tally.reasons), num_pending)
    done = (db.version, tally.left_nodes, renewed.changed_videos, renewed.redone)
    return RunSummary(lease.run.run_id, run_key, exit, *counts, *done)


def _setup(db: Database, config: RunConfig, versions: dict[str, str], source_options) -> WorkerSetup:
    return WorkerSetup(config.settings(), config.resources, versions, db.uri, db.storage_options, source_options or {})


def _trial(clips: Sequence[Clip], setup: WorkerSetup) -> Trial:
    videos = trial_videos([clip.video_uri for clip in clips])
    where = (setup.db_uri, setup.storage_options, setup.source_options, setup.resources.fetch_cache_dir)
    return Trial(*where, videos, setup.settings, setup.versions)


@dataclass
class _Job:
    """What the driver holds while its workers work. fail: records that the run has failed."""

    setup: WorkerSetup
    pending: Pending
    tally: CommitTally
    last_words: LastWords
    fail: Callable[[], None]
    num_lost_pools: int = 0

    def another_pool(self, error: ray.exceptions.RayError) -> bool:
        """Whether to go on after a pool that has ended by itself (at a load of 30 Ray lost an actor before it began).

        A pool that ends so again and again has a reason.
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
        self._tell()

    def add(self, result: ShardResult) -> None:
        """Keep a result for the next commit."""
        self.pending.add(result)
        self._tell()

    def _tell(self) -> None:
        self.last_words.know(num_clips=self.tally.num_clips, num_rejects=self.tally.num_rejects)


def _process(clips, job: _Job, interrupts: Interrupts, ray_address, quiet, watch) -> None:
    """The Ray part. However it ends, everything finished until then is committed."""
    setup = job.setup
    announce(len(clips), ray_address, quiet)
    with joined(ray_address), Head(ray.get_runtime_context().gcs_address, job.last_words) as head:
        interrupts.install()
        ledger = start_ledger()
        watch(ledger)

        def progress() -> Progress:
            return ray.get(ledger.progress.remote(), timeout=LEDGER_TIMEOUT_S)

        try:
            balance = PoolScaler(setup.resources, setup.db_uri, ledger)
            with ProgressLine(len(clips), progress, quiet=quiet), balance:
                rounds, nodes = Rounds(clips), Nodes(_trial(clips, setup), balance.fits)
                verdicts = Verdicts(nodes, clips, setup.db_uri)
                try:
                    while rounds.left:
                        if rounds.number:
                            gc.collect()  # a pool that did not come up holds its actors in a circle of references
                            balance.resume()
                        nodes.look()
                        _work(rounds, job, head, balance, nodes, verdicts, ledger, progress)
                    nodes.drop_gone()
                finally:
                    job.tally.left_nodes = nodes.left_nodes()
        except ray.exceptions.RayTaskError:
            raise  # a bug in a worker keeps its trace
        except ray.exceptions.RayError as error:
            problem = f"the run cannot go on, Ray reports {type(error).__name__}: {str(error).strip()}"
            raise HandloomError(problem, "finished clips are committed: run again to go on") from error
        watch(ledger)


def _work(
    rounds: Rounds, job: _Job, head: Head, balance: PoolScaler, nodes: Nodes, verdicts: Verdicts, ledger, progress
) -> None:
    """One round: one pool of actors, until every shard has come back or the pool is to change."""
    setup, pending = job.setup, job.pending
    num_cpus = int(ray.cluster_resources().get("CPU", 1))
    clips, without = verdicts.next_pool(rounds.left)
    shards = rounds.shards(clips, setup.resources.shard_clips, _shard_s(setup), num_cpus)
    pools = balance.pools(len(shards), first=not rounds.number, without=without, untried=nodes.untried)
    if not pools.num_actors:
        return  # nodes have come: they are tried first
    counts = (rounds.number, len(clips), len(shards), pools.num_actors, pools.num_decode)
    log.info("a pool begins round=%d clips=%d shards=%d actors=%d decode_actors=%d", *counts)
    graph = Graph(shards, setup, pools, ledger, without)
    deadlines = Deadlines(ledger, nodes)
    arrivals = ResultStream(graph, graph.close, lambda: progress().idle_s)
    cut_off = False
    with arrivals, balance.watched(pools, len(shards)) as watched:
        try:
            for result in arrivals:
                job.tick(head)
                cut_off = deadlines.look() or nodes.all_gone()
                if cut_off:
                    break
                if result is None:
                    continue
                result = verdicts.on(result)
                rounds.heard(result)
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
    """Split mode: a shard's frames are one object in the store, of half of `inline_frames_mb` at most."""
    resources, video = setup.resources, setup.settings.video
    if resources.mode == "fused":
        return resources.shard_s
    bytes_per_s = video.sample_hz * video.short_side_px**2 * WIDE * 3
    return min(resources.shard_s, (resources.inline_frames_mb << 20) / 2 / bytes_per_s)


def _check_all_ended(db: Database, clip_ids: Sequence[str]) -> None:
    """Raise StoreError where the database does not hold the end of every clip of the run, whatever was counted."""
    left = unfinished(db, clip_ids)
    if left:
        raise lost(left, "at the end of the run")


def _end(db: Database, record, exit: str, tally: CommitTally) -> None:
    try:
        counts = {"num_clips": tally.num_clips, "num_rejects": tally.num_rejects, "num_frames": tally.num_frames}
        end_run(db, record, exit, **counts, stage_s=tally.stage_s, left_nodes=tally.left_nodes)
    except StoreError as error:
        if exit != "failed":
            raise
        log.warning("the run's end could not be recorded: %s", error.problem)  # the first error is the one to report
