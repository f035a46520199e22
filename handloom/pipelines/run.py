"""`handloom run`: every clip of the list without a row, through Ray, into committed rows or rejects."""

from __future__ import annotations

import logging
import signal
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import ray

from handloom.errors import HandloomError, StoreError
from handloom.pipelines.cluster import joined, size_pools
from handloom.pipelines.configure import check_stored
from handloom.pipelines.graph import results
from handloom.pipelines.progress import ProgressLine
from handloom.schemas.reasons import REASONS
from handloom.schemas.settings import RunConfig, Settings
from handloom.schemas.tables import clips_schema
from handloom.store.clip_list import pending_clips
from handloom.store.commit import Committer
from handloom.store.database import Database
from handloom.store.index import compact
from handloom.store.runs import end_run, start_run, stored_settings
from handloom.workers.extract import model_versions
from handloom.workers.ledger import start_ledger
from handloom.workers.process import WorkerSetup
from handloom.workers.shard import ShardResult, plan_shards

log = logging.getLogger(__name__)

SPLIT_SHARD_S = 15.0  # a shard's frames are one object in the store


@dataclass(frozen=True)
class RunSummary:
    """What one run did. `exit`: `done`, `rejects` or `interrupted`; counts are of this run only."""

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


@dataclass
class _Tally:
    """What has been committed so far."""

    num_clips: int = 0
    num_rejects: int = 0
    num_frames: int = 0
    reasons: Counter[str] = field(default_factory=Counter)
    stage_s: dict[str, float] = field(default_factory=lambda: defaultdict(float))


def run(
    db: Database,
    config: RunConfig | None,
    *,
    ray_address: str | None = None,
    retry_rejects: Sequence[str] = (),
    limit: int | None = None,
    source_options: dict[str, Any] | None = None,
    quiet: bool = False,
    watch: Callable[[ray.actor.ActorHandle], None] | None = None,
) -> RunSummary:
    """Process every clip that has neither a row nor a reject, and commit as they are finished.

    Args:
        config: None goes on with the settings of the database (defaults where it has none).
        retry_rejects: reasons of rejects to try again; `("all",)` for every reason.
        limit: process at most this many clips.
        source_options: fsspec's options for s3:// videos.
        watch: called with the run's ledger once it is there, and again when all clips are finished (benchmarks, tests).

    Raises:
        ConfigError: other settings than the database's; no such cluster.
        StoreError: the database cannot be written; CommitConflict: somebody else writes to it.
    """
    stored = stored_settings(db)
    if config is None:
        config = RunConfig(**stored.settings) if stored else RunConfig()
    settings, versions = config.settings(), model_versions()
    run_key = settings.run_key(versions)
    check_stored(stored, settings, versions, run_key)
    reasons = REASONS if "all" in retry_rejects else retry_rejects
    record = start_run(
        db,
        run_key,
        settings=settings.model_dump(mode="json"),
        resources=config.resources.model_dump(mode="json"),
        versions=versions,
    )
    started = time.monotonic()
    tally, exit = _Tally(), "failed"
    try:
        committer = Committer(db, run_key, clips_schema(settings.num_tracks()))
        clips = pending_clips(db, retry_reasons=reasons)[:limit]
        if clips:
            exit = _process(db, clips, config, run_key, committer, tally, ray_address, source_options, quiet, watch)
            compact(db)
        else:
            exit = "done"
        if exit == "done" and tally.num_rejects:
            exit = "rejects"
    finally:
        _end(db, record, exit, tally)
    wall_s = time.monotonic() - started
    num_pending = len(pending_clips(db)) if exit == "interrupted" or limit is not None else 0
    counts = (tally.num_clips, tally.num_rejects, tally.num_frames, wall_s, dict(tally.reasons), num_pending)
    return RunSummary(record.run_id, run_key, exit, *counts, db.version)


def _process(db, clips, config: RunConfig, run_key, committer, tally, ray_address, source_options, quiet, watch) -> str:
    """The Ray part: `done`, or `interrupted` after Ctrl-C or SIGTERM, everything finished until then committed."""
    settings, resources = config.settings(), config.resources
    with _interrupts(), joined(ray_address):
        shard_s = min(resources.shard_s, SPLIT_SHARD_S) if resources.mode == "split" else resources.shard_s
        num_cpus = int(ray.cluster_resources().get("CPU", 1))
        shards = list(plan_shards(clips, resources.shard_clips, shard_s, num_cpus))
        pools = size_pools(resources, len(shards))
        log.info("run begins clips=%d shards=%d actors=%d decode_actors=%d", len(clips), len(shards), *_sizes(pools))
        cache_dir = str(Path(tempfile.gettempdir()) / "handloom-videos")
        setup = WorkerSetup(
            settings, resources, run_key, db.uri, db.storage_options, source_options or {}, cache_dir
        )
        ledger = start_ledger()
        watch = watch or (lambda _: None)
        watch(ledger)
        pending = _Pending(committer, config, tally)
        with ProgressLine(len(clips), lambda: ray.get(ledger.progress.remote(), timeout=5), quiet=quiet):
            try:
                for result in results(shards, setup, pools, ledger):
                    pending.add(result)
            except KeyboardInterrupt:
                pending.flush()
                return "interrupted"
            except ray.exceptions.RayTaskError as error:
                pending.flush()
                raise _cause(error) from error
            except HandloomError:
                raise
        pending.flush()
        watch(ledger)
        return "done"


class _Pending:
    """Finished shards that wait for the next commit."""

    def __init__(self, committer: Committer, config: RunConfig, tally: _Tally) -> None:
        self._committer = committer
        self._resources = config.resources
        self._tally = tally
        self._results: list[ShardResult] = []
        self._last_commit = time.monotonic()

    def add(self, result: ShardResult) -> None:
        self._results.append(result)
        waiting = sum(_num_clips(r) for r in self._results)
        r = self._resources
        if waiting >= r.commit_clips or time.monotonic() - self._last_commit >= r.commit_s:
            self.flush()
            self._check_share()

    def flush(self) -> None:
        if not self._results:
            return
        results, self._results = self._results, []
        rejects = [reject for result in results for reject in result.rejects]
        done = self._committer.commit([r.record for r in results if r.record is not None], rejects)
        tally = self._tally
        tally.num_clips += done.num_clips
        tally.num_rejects += done.num_rejects
        tally.num_frames += sum(result.num_frames for result in results)
        tally.reasons.update(reject.reason for reject in rejects)
        for result in results:
            for stage, seconds in result.stage_s.items():
                tally.stage_s[stage] += seconds
        self._last_commit = time.monotonic()
        log.info("committed clips=%d rejects=%d version=%d", done.num_clips, done.num_rejects, done.version)

    def _check_share(self) -> None:
        """Stop a run that only rejects: something is wrong with more than its clips."""
        tally, r = self._tally, self._resources
        rejected = tally.num_rejects - tally.reasons["video_missing"]
        finished = tally.num_clips + rejected
        if finished >= r.min_clips_before_stop and rejected > r.max_reject_share * finished:
            reason, count = tally.reasons.most_common(1)[0]
            raise StoreError(
                f"{rejected} of {finished} clips were rejected, {count} of them because of {reason}: the run stops",
                "look at `handloom status`; raise resources.max_reject_share to go on all the same",
            )


def _num_clips(result: ShardResult) -> int:
    return len(result.rejects) + (len(result.record.clip_ids) if result.record else 0)


def _sizes(pools) -> tuple[int, int]:
    return pools.num_actors, pools.num_decode


def _cause(error: ray.exceptions.RayTaskError) -> BaseException:
    """A worker's own error where it is one of ours (a full disk); a bug keeps Ray's report with its trace."""
    cause = error.cause if isinstance(error.cause, HandloomError) else None
    return cause if cause is not None else error


def _end(db: Database, record, exit: str, tally: _Tally) -> None:
    try:
        counts = {"num_clips": tally.num_clips, "num_rejects": tally.num_rejects, "num_frames": tally.num_frames}
        end_run(db, record, exit, **counts, stage_s=tally.stage_s)
    except StoreError as error:
        if exit != "failed":
            raise
        log.warning("the run's end could not be recorded: %s", error.problem)  # the first error is the one to report


@contextmanager
def _interrupts() -> Iterator[None]:
    """SIGTERM (Slurm, Kubernetes) ends a run as Ctrl-C does."""

    def interrupt(signum: int, frame: object) -> None:
        raise KeyboardInterrupt

    try:
        previous = signal.signal(signal.SIGTERM, interrupt)
    except ValueError:  # not in the main thread: the caller's own handlers stay
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)
