"""How a run of extraction shares its cluster: it takes what is free, scales down for training, and grows again.

The pool of a run cannot change its size while it works. So the workers are told to stop after the clip in flight, what
is finished is committed, and the other clips go to a new pool. Every clip still ends as exactly one row or reject: a
clip that was not finished has written nothing.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import ray
from ray.autoscaler.sdk import request_resources

from handloom.errors import StoreError
from handloom.pipelines.cluster.broker import (
    EXTRACTION,
    GRANTED,
    HOLDING,
    REMIND_S,
    TRAINING,
    WAITING,
    ClusterView,
    JobDemand,
    Lease,
    named,
    not_free,
)
from handloom.pipelines.cluster.capacity import (
    ClusterSnapshot,
    Pools,
    actor_needs,
    amounts_text,
    could_hold,
    pools_now,
    reserved_bundles,
    size_pools,
)
from handloom.pipelines.cluster.scaling_rule import GROW_AFTER_S, ResizeRule
from handloom.pipelines.cluster.stage_pools import MIN_SHARDS, Rates, better
from handloom.schemas.settings import Resources
from handloom.stages.pools.groups import Group
from handloom.workers.shard import ShardResult

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ScalingTimes:
    """Seconds.

    poll_s: between two looks at the cluster while a pool works. look_s, steady_s: what is free is looked at every
    `look_s`, until it has been the same for `steady_s`. grant_s: the longest wait for training to take what it was
    granted. retry_s: between two tries of a run that waits. remind_s: between two of its log lines. grow_after_s: how
    long resources must have been free before a run takes more of them.
    """

    poll_s: float = 2.0
    look_s: float = 0.25
    steady_s: float = 2.0
    grant_s: float = 30.0
    retry_s: float = 1.0
    remind_s: float = REMIND_S
    grow_after_s: float = GROW_AFTER_S


class PoolScaler:
    """One run's share of the cluster, from pool to pool. Use as a context manager around the whole run.

    Args:
        ledger: the run's, which tells workers to stop.
        groups: of stages; with several each has a pool, and their sizes follow from what was measured so far.
        known_s: seconds a clip of stages, by earlier runs.
    """

    def __init__(
        self,
        resources: Resources,
        db_uri: str,
        ledger: ray.actor.ActorHandle,
        view: ClusterView | None = None,
        times: ScalingTimes | None = None,
        groups: Sequence[Group] = (),
        known_s: Mapping[str, float] | None = None,
    ) -> None:
        self._resources, self._ledger = resources, ledger
        self.rates = Rates(groups, known_s or {})
        self._sized_on: ClusterSnapshot | None = None
        self._view, self._times = view or ClusterView(), times or ScalingTimes()
        self._job = named(f"extraction into {db_uri}")
        self._lease = Lease(JobDemand(self._job, EXTRACTION, (), HOLDING), create=False)
        self._ignored: set[str] = set()  # jobs that did not take what this run had freed for them
        self._asked_for_nodes = False
        self._without: frozenset[str] = frozenset()

    def __enter__(self) -> PoolScaler:
        self._lease.__enter__()
        return self

    def __exit__(self, *trace: object) -> None:
        self._lease.__exit__(*trace)
        if self._asked_for_nodes:
            request_resources(bundles=[])

    def fits(self, without: Collection[str]) -> bool:
        """Whether the run's workers fit onto the cluster without these nodes."""
        return could_hold(self._resources, self._view.look(without), self.rates)

    def pools(
        self,
        num_shards: int,
        first: bool,
        without: frozenset[str] = frozenset(),
        has_new_nodes: Callable[[], bool] = lambda: False,
    ) -> Pools:
        """The pools that fit now. Waits if none does.

        At the start of the run, or when no node is left, the wait ends after `wait_s`; later, while others hold the
        resources, it lasts until they give them back.

        Args:
            first: whether these are the first pools of the run.
            without: nodes that get no worker.
            has_new_nodes: whether nodes have come that must be tried first; then the pools have no actors.

        Raises:
            ConfigError: at the start: the cluster can never hold the pools, or did not become free within `wait_s`.
            StoreError: later: no node that could hold them came within `wait_s`.
        """
        self._without = without
        self._wait_for_training((GRANTED,) if first else (WAITING, GRANTED))
        r, times, started, reminded = self._resources, self._times, time.monotonic(), -self._times.remind_s
        self._ask_for_nodes(min(num_shards, r.num_actors or 1))
        size, lacking_since = (size_pools if first else pools_now), started
        while True:
            cluster = self._steady(without)
            if has_new_nodes():
                return Pools(0, 0, 0)
            found = size(r, num_shards, cluster, self.rates)
            if found.num_actors:
                break
            now = time.monotonic()
            if not first and could_hold(r, cluster, self.rates):
                lacking_since = now
            if now - lacking_since >= r.wait_s:
                raise not_free([actor_needs(r)], r.wait_s, self._holders()) if first else _no_nodes(r, cluster)
            if now - started - reminded >= times.remind_s:
                reminded = now - started
                limit = "until there are some" if lacking_since == now else f"up to {r.wait_s:g} s"
                log.warning("extraction waits for free resources, %s: %s", limit, self._holders())
            time.sleep(times.retry_s)
        self._report(found, cluster, num_shards)
        self._sized_on = cluster
        self._lease.change(HOLDING, reserved_bundles(r, found))
        return found

    def _ask_for_nodes(self, num_actors: int) -> None:
        """Ask an autoscaler, if there is one, for `num_actors`. The run begins with what is there, and grows too."""
        if self._view.look().scales:
            num_decode = self._resources.num_decode_actors or 1 if self._resources.mode == "split" else 0
            wanted = reserved_bundles(self._resources, Pools(num_actors, num_decode, 0))
            request_resources(bundles=[dict(bundle) for bundle in wanted])
            self._asked_for_nodes = True

    def _report(self, found: Pools, cluster: ClusterSnapshot, num_shards: int) -> None:
        alone = pools_now(self._resources, num_shards, cluster.emptied(), self.rates)
        if found.num_actors < alone.num_actors:
            counts = (found.num_actors, alone.num_actors)
            log.warning("extraction works with %d actors instead of %d: %s", *counts, self._holders())

    def _holders(self) -> str:
        return self._view.holders_text(self._job)

    def _wait_for_training(self, states: tuple[str, ...]) -> None:
        """Before the run takes resources: wait until training jobs in these states have taken theirs."""
        self._lease.change(HOLDING, ())
        until = time.monotonic() + self._times.grant_s
        while asking := [d for d in self._view.others(self._job) if d.kind == TRAINING and d.state in states]:
            asking = [demand for demand in asking if demand.job not in self._ignored]
            if not asking:
                return
            if time.monotonic() > until:
                self._ignored |= {demand.job for demand in asking if demand.state == WAITING}
                return
            time.sleep(self._times.look_s)

    def _steady(self, without: Collection[str]) -> ClusterSnapshot:
        """What is free, once it has stopped changing: Ray reports what was given back a second late."""
        cluster, since = self._view.look(without), time.monotonic()
        times = self._times
        while any(cluster.used(name) > 1e-3 for name in ("CPU", "GPU")) and time.monotonic() - since < times.steady_s:
            time.sleep(times.look_s)
            now = self._view.look(without)
            if now != cluster:
                cluster, since = now, time.monotonic()
        return cluster

    @contextmanager
    def watched(self, pools: Pools, num_shards: int) -> Iterator[Watch]:
        """While the block lasts, a thread looks whether the pools should change; `drained` says that they must."""
        watch = Watch(self, pools, num_shards)
        thread = threading.Thread(target=watch.run, args=(self._times.poll_s,), daemon=True, name="scaling")
        thread.start()
        try:
            yield watch
        finally:
            watch.end()
            thread.join()

    def drain(self) -> int:
        """Tell the workers to stop after the clip in flight. Returns how many shards they have begun."""
        return ray.get(self._ledger.drain.remote())

    def resume(self) -> None:
        """Let the workers of the next pool begin shards again."""
        ray.get(self._ledger.resume.remote())

    def rule(self, pools: Pools) -> ResizeRule:
        """When these pools should change."""
        return ResizeRule(self._resources, pools, self._times.grow_after_s)

    def why_other_sizes(self, pools: Pools, num_left: int) -> str:
        """Why the pools of the groups of stages should change their sizes, by measured rates; else empty."""
        if not pools.stages or self._sized_on is None or self.rates.num_shards < MIN_SHARDS * len(pools.stages):
            return ""
        other = pools_now(self._resources, num_left, self._sized_on, self.rates)
        if not better(pools.stages, other.stages, self.rates.seconds()):
            return ""
        sizes = " + ".join(str(pool.num_actors) for pool in other.stages)
        return f"changes its pools to {sizes} actors, by what the groups of stages take"

    def why_change(self, rule: ResizeRule, may_grow: bool) -> str:
        """What `rule` says of the cluster as it is now."""
        cluster, demands = self._view.look(), self._view.others(self._job)
        usable = self._view.look(self._without) if self._without else cluster
        return rule.why(cluster, demands, time.monotonic(), usable if may_grow else None, self._ignored)


class Watch:
    """Looks every few seconds whether a run should scale down or grow, and tells its workers to stop if so."""

    def __init__(self, scaler: PoolScaler, pools: Pools, num_shards: int) -> None:
        self._scaler, self._pools, self._num_left = scaler, pools, num_shards
        self._ended, self._all_up = threading.Event(), False
        self._num_back = 0  # shards that workers had begun, and whose results have come
        self._num_begun: int | None = None  # shards that workers had begun when they were told to stop
        self.drained = False

    def arrived(self, result: ShardResult) -> bool:
        """Count a result; the first says that all actors have started. True once only untouched shards are to come.

        Many untouched shards take minutes to come. The shard of a worker that has died may come back untouched: then
        this stays False, and the graph ends by itself.
        """
        self._all_up, self._num_left = True, self._num_left - 1
        if self._pools.stages:
            self._scaler.rates.add(len(result.clip_ids()), result.stage_s)
        self._num_back += not result.given_back
        return self._num_begun is not None and self._num_back >= self._num_begun

    def stopping(self, num_begun: int) -> None:
        """The workers have been told to stop, and had begun `num_begun` shards until then."""
        self._num_begun = num_begun

    def stop(self, why: str) -> None:
        """Tell the workers to stop after the clip in flight; once."""
        if not self.drained:
            self.drained = True
            self.stopping(self._scaler.drain())
            log.warning("extraction %s; the clips in flight are finished first", why)

    def end(self) -> None:
        self._ended.set()

    def run(self, poll_s: float) -> None:
        """Look until the pools must change, or `end` is called."""
        rule = self._scaler.rule(self._pools)
        while not self._ended.wait(poll_s):
            may_grow = self._all_up and self._num_left > 2 * self._pools.num_actors
            try:
                why = self._scaler.why_change(rule, may_grow)
                if not why and may_grow:
                    why = self._scaler.why_other_sizes(self._pools, self._num_left)
                if why and not self._ended.is_set():
                    self.stop(why)
                    return
            except (ray.exceptions.RayError, RuntimeError, OSError) as error:
                log.info("the cluster did not reply: %s", error)  # the run's own end says why


def _no_nodes(resources: Resources, cluster: ClusterSnapshot) -> StoreError:
    has, needs = amounts_text(cluster.total), amounts_text(actor_needs(resources))
    waited = f"no node that can work has come within {resources.wait_s:g} s"
    return StoreError(
        f"{waited}: the nodes left have {has}, an actor needs {needs}",
        "finished clips are committed: run again when there are nodes, or raise resources.wait_s",
    )
