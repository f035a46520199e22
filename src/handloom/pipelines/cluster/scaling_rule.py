"""When the pool of a run should change its size: rules on what the cluster has free and what other jobs ask for."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from handloom.pipelines.cluster.broker import GRANTED, TRAINING, WAITING, JobDemand
from handloom.pipelines.cluster.capacity import (
    SLACK,
    ClusterSnapshot,
    Pools,
    actor_needs,
    count_fitting,
    reserved_bundles,
)
from handloom.plural import plural
from handloom.schemas.settings import Resources

GROW_SHARE = 4  # grow by a quarter at least: a new pool costs seconds
GROW_AFTER_S = 10.0


def find_request(
    resources: Resources,
    pools: Pools,
    cluster: ClusterSnapshot,
    demands: Sequence[JobDemand],
    ignored: Collection[str] = (),
) -> JobDemand | None:
    """The first training job that waits, and whose resources would be free if this run kept `min_actors` only.

    ignored: jobs that had their chance before, and did not take it.
    """
    spare = pools.num_actors - min(resources.min_actors, pools.num_actors)
    each = actor_needs(resources)
    after = {name: cluster.free_of(name) + spare * amount for name, amount in each.items()}
    waiting = [d for d in demands if d.kind == TRAINING and d.state == WAITING and d.job not in ignored]
    served = [demand for demand in waiting if all(demand.needs(name) <= after[name] + SLACK for name in after)]
    return served[0] if spare and served else None


def count_more(resources: Resources, pools: Pools, cluster: ClusterSnapshot, demands: Sequence[JobDemand]) -> int:
    """How many model actors the run could add to what is free; 0 while another job is about to take it.

    `num_actors`, `reserve_cpus` and `reserve_gpus` hold for the grown pool as for every other.
    """
    if any(demand.state in (WAITING, GRANTED) for demand in demands):
        return 0
    each, own = actor_needs(resources), reserved_bundles(resources, pools)
    more = count_fitting(cluster.free, {**each, "memory": resources.actor_memory_mb << 20})
    for name, kept in (("CPU", resources.reserve_cpus), ("GPU", resources.reserve_gpus)):
        if each[name]:
            allowed = cluster.total[name] - kept - sum(bundle.get(name, 0.0) for bundle in own)
            more = min(more, int(allowed / each[name] + SLACK))
    if resources.num_actors:
        more = min(more, resources.num_actors - pools.num_actors)
    return max(0, more)


class ResizeRule:
    """Decides, look by look, whether the pool at work should change.

    Args:
        grow_after_s: how long the resources for more actors must have been free.
    """

    def __init__(self, resources: Resources, pools: Pools, grow_after_s: float = GROW_AFTER_S) -> None:
        self._resources, self._pools, self._grow_after_s = resources, pools, grow_after_s
        self._free_since: float | None = None
        self._left_over: int | None = None  # what pools of several groups have left: more CPUs do not help the slowest

    def why(
        self,
        cluster: ClusterSnapshot,
        demands: Sequence[JobDemand],
        now: float,
        usable: ClusterSnapshot | None = None,
        ignored: Collection[str] = (),
    ) -> str:
        """Why the pool should change now, as the end of a sentence that begins with `extraction`; else empty.

        Args:
            demands: of the other jobs.
            now: in seconds, of a clock that never goes back.
            usable: the part of the cluster on which the run works; None while it must not grow.
            ignored: see `find_request`.
        """
        request = find_request(self._resources, self._pools, cluster, demands, ignored)
        if request is not None:
            return f"scales down for {request.text()}"
        more = count_more(self._resources, self._pools, usable, demands) if usable is not None else 0
        if self._pools.stages and usable is not None:
            self._left_over = more if self._left_over is None else min(more, self._left_over)
            more -= self._left_over
        if more < max(1, self._pools.num_actors // GROW_SHARE):
            self._free_since = None
            return ""
        self._free_since = now if self._free_since is None else self._free_since
        if now - self._free_since < self._grow_after_s:
            return ""
        return f"adds up to {plural(more, 'actor')}: resources have been free for {self._grow_after_s:g} s"
