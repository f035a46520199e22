"""The driver while its workers work: one pool of actors after another, until every clip has ended.

A pool is built anew when the cluster, or what a run may take of it, has changed. Whatever ends a pool, the results that
have arrived are committed.
"""

from __future__ import annotations

import gc
import logging
import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import ray

from handloom.errors import HandloomError
from handloom.pipelines.cluster.connect import joined
from handloom.pipelines.cluster.environments import failing_environments
from handloom.pipelines.cluster.head_health import Head, LastWords
from handloom.pipelines.cluster.nodes import Nodes, trial_videos
from handloom.pipelines.cluster.scaling import PoolScaler
from handloom.pipelines.run.graph import Graph
from handloom.pipelines.run.hangs import Deadlines
from handloom.pipelines.run.interrupts import Interrupts
from handloom.pipelines.run.pending import CommitTally, Pending
from handloom.pipelines.run.progress import ProgressLine
from handloom.pipelines.run.results import ResultStream
from handloom.pipelines.run.rounds import Rounds
from handloom.pipelines.run.todo.plan import Todo
from handloom.pipelines.run.upkeep import Upkeep
from handloom.pipelines.run.verdicts import Verdicts
from handloom.schemas.clip import Clip
from handloom.stages.pools.groups import WIDE, sent_bytes_per_s
from handloom.store.runs.runs import RunProgress
from handloom.workers.ledger import Progress, start_ledger
from handloom.workers.probe import Trial
from handloom.workers.setup import WorkerSetup
from handloom.workers.shard import ShardResult

log = logging.getLogger(__name__)

LEDGER_TIMEOUT_S = 10.0
LATE_QUIET_S, LATE_LIMIT_S = 1.5, 4.0  # an interrupted run takes what is written and on its way to the driver
MAX_LOST_POOLS = 2


@dataclass(frozen=True)
class RunParts:
    """The classes that a run makes its pools and its list of nodes of. Tests put faulty ones in."""

    graph: Callable[..., Graph] = Graph
    nodes: Callable[..., Nodes] = Nodes


@dataclass
class Job:
    """What the driver holds while its workers work. fail: records that the run has failed. tell: how far it
    is, for its record."""

    setup: WorkerSetup
    pending: Pending
    upkeep: Upkeep
    tally: CommitTally
    last_words: LastWords
    fail: Callable[[], None]
    parts: RunParts
    known_s: Mapping[str, float]  # seconds a clip of stages, by earlier runs
    tell: Callable[[RunProgress], None]
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


def compute(todo: Todo, job: Job, interrupts: Interrupts, ray_address, quiet, watch) -> None:
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
            with ProgressLine(len(clips), progress, quiet=quiet, num_rows=len(todo.targets), tell=job.tell), scaler:
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
    rounds: Rounds, job: Job, head: Head, scaler: PoolScaler, nodes: Nodes, verdicts: Verdicts, ledger, progress
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


def _trial(clips: Sequence[Clip], setup: WorkerSetup) -> Trial:
    videos = trial_videos([clip.video_uri for clip in clips])
    where = (setup.db_uri, setup.storage_options, setup.source_options, setup.resources.fetch_cache_dir)
    return Trial(*where, videos, setup.settings, setup.versions)


def _shard_s(setup: WorkerSetup) -> float:
    """The longest shard: frames that travel are one object in the store, of at most half `inline_frames_mb`."""
    resources, video = setup.resources, setup.settings.video
    bytes_per_s = sent_bytes_per_s(setup.graph, setup.groups)
    if resources.mode == "split":
        bytes_per_s = max(bytes_per_s, video.sample_hz * video.short_side_px**2 * WIDE * 3)
    return min(resources.shard_s, (resources.inline_frames_mb << 20) / 2 / bytes_per_s if bytes_per_s else math.inf)
