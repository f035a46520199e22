"""What the cluster has free, and how many actors of a run fit into it."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import TypeGuard

import ray

from handloom.errors import ConfigError
from handloom.pipelines.cluster.ray_private import Amounts, free_by_node, gets_more_nodes
from handloom.pipelines.cluster.stage_pools import GPUS, MEMORY_SHARE, Rates, StagePool, needs_of, sized
from handloom.schemas.settings import Resources
from handloom.stages.pools.groups import Group

SLACK = 1e-6  # Ray counts in ten-thousandths


@dataclass(frozen=True)
class Pools:
    """Actors per pool, and the memory that Ray reserves for each. num_decode is 0 in fused mode.

    stages: of each group of stages, where there are several; the first is that of `num_actors`.
    """

    num_actors: int
    num_decode: int
    memory_bytes: int
    stages: tuple[StagePool, ...] = ()


@dataclass(frozen=True)
class ClusterSnapshot:
    """The cluster at one moment.

    Args:
        nodes: what each node has.
        free: what is not reserved, in the same order.
        scales: an autoscaler adds nodes when they are asked for.
        partial: the cluster has other nodes too, which get no work from this run.
    """

    nodes: tuple[Amounts, ...]
    free: tuple[Amounts, ...]
    scales: bool = False
    partial: bool = False

    @property
    def total(self) -> Amounts:
        return {name: sum(node.get(name, 0.0) for node in self.nodes) for name in ("CPU", "GPU", "memory")}

    def free_of(self, name: str) -> float:
        return sum(node.get(name, 0.0) for node in self.free)

    def used(self, name: str) -> float:
        return max(0.0, self.total.get(name, 0.0) - self.free_of(name))

    def emptied(self) -> ClusterSnapshot:
        """The same cluster without any other job."""
        return replace(self, free=self.nodes)


def look(without: Collection[str] = ()) -> ClusterSnapshot:
    """What the cluster has now, without these nodes (Ray's ids). Ray's numbers are about a second old."""
    nodes = {node["NodeID"]: node["Resources"] for node in ray.nodes() if node["Alive"]}
    free = free_by_node()
    ids = [node_id for node_id in sorted(nodes) if node_id not in without]
    amounts = (tuple(nodes[i] for i in ids), tuple(free.get(i, {}) for i in ids))
    return ClusterSnapshot(*amounts, scales=gets_more_nodes(), partial=len(ids) < len(nodes))


def actor_needs(resources: Resources) -> Amounts:
    """What one model actor takes."""
    return {"CPU": resources.cpus_per_actor, "GPU": resources.gpus_per_actor}


def reserved_bundles(resources: Resources, pools: Pools) -> list[Amounts]:
    """What each actor of the pools reserves, one entry per actor; memory is not counted."""
    decode: list[Amounts] = [{"CPU": resources.cpus_per_decode_actor}] * pools.num_decode
    if pools.stages:
        amounts = [({"CPU": pool.cpus, "GPU": pool.gpus}, pool.num_actors) for pool in pools.stages]
        each = [({name: amount for name, amount in one.items() if amount}, number) for one, number in amounts]
        return [one for one, number in each for _ in range(number)] + decode
    of_all: Amounts = {name: amount for name, amount in actor_needs(resources).items() if amount}
    return [of_all] * pools.num_actors + decode


def count_fitting(nodes: Sequence[Amounts], each: Amounts) -> int:
    """How many times `each` fits, never across nodes."""
    return sum(_on_one(node, each) for node in nodes)


def _on_one(node: Amounts, each: Amounts) -> int:
    return min(int(node.get(name, 0.0) / amount + SLACK) for name, amount in each.items() if amount)


def place(nodes: Sequence[Amounts], each: Amounts, count: int) -> tuple[list[dict[str, float]], int]:
    """Put `count` of `each` on the nodes, those without GPUs first, as Ray does.

    Returns:
        What is then free on each node (in their order), and how many fitted.
    """
    left, placed = [dict(node) for node in nodes], 0
    for node in sorted(left, key=lambda node: node.get("GPU", 0.0)):
        here = min(count - placed, _on_one(node, each))
        for name, amount in each.items():
            node[name] = node.get(name, 0.0) - here * amount
        placed += here
    return left, placed


def size_pools(resources: Resources, num_shards: int, cluster: ClusterSnapshot, rates: Rates | None = None) -> Pools:
    """As many actors as fit into what is free, less what is kept for others; never more than there are shards.

    `reserve_cpus` and `reserve_gpus` are kept for others; what others hold already counts towards them. The first actor
    of each pool is never refused for lack of memory: a small machine gets a smaller reservation.

    Returns:
        Pools with num_actors 0 where one actor of each pool does not fit into what is free now.

    Raises:
        ConfigError: the cluster could not hold what was asked for even if it were empty, and gets no more nodes.
    """
    if not cluster.scales:
        asked = 1 if cluster.partial else resources.num_actors or 1  # nodes left out would have held some of them
        most = pools_now(resources, num_shards, cluster.emptied(), rates)
        if most.num_actors < (1 if has_stage_pools(rates) else min(asked, max(num_shards, 1))):
            raise _too_large(resources, most, cluster, rates)
    return pools_now(resources, num_shards, cluster, rates)


def could_hold(resources: Resources, cluster: ClusterSnapshot, rates: Rates | None = None) -> bool:
    """Whether one actor of each pool fits onto the cluster without other jobs."""
    return bool(pools_now(resources, 1, cluster.emptied(), rates).num_actors)


def has_stage_pools(rates: Rates | None) -> TypeGuard[Rates]:
    """Whether groups of stages have pools of their own."""
    return rates is not None and len(rates.groups) > 1


def pools_now(resources: Resources, num_shards: int, cluster: ClusterSnapshot, rates: Rates | None = None) -> Pools:
    """As `size_pools`, without its error: during a run nodes go, and come back."""
    num_shards = max(num_shards, 1)
    allowed = {name: cluster.free_of(name) - kept for name, kept in _still_kept(resources, cluster).items()}
    decode, num_decode = {"CPU": resources.cpus_per_decode_actor}, 0
    nodes: Sequence[Amounts] = cluster.free
    if resources.mode == "split":
        num_decode = resources.num_decode_actors or max(1, int(allowed["CPU"] / resources.cpus_per_decode_actor / 3))
        nodes, num_decode = place(cluster.free, decode, min(num_decode, num_shards))
        if not num_decode:
            return Pools(0, 0, 0)
        allowed["CPU"] -= num_decode * resources.cpus_per_decode_actor
    if has_stage_pools(rates):
        memory_each = resources.actor_memory_mb << 20
        memory, num_actors = cluster.free_of("memory"), num_decode + len(rates.groups)
        of_decode = int(min(memory_each, MEMORY_SHARE * memory / num_actors))
        room = _limited(nodes, allowed | {"memory": memory - num_decode * of_decode})
        for node, whole in zip(room, cluster.nodes, strict=True):
            node.update({GPUS: 1.0} if whole.get("GPU") else {})
        stages = sized(rates.groups, resources, num_shards, room, rates.seconds())
        return Pools(stages[0].num_actors if stages else 0, num_decode, of_decode, tuple(stages))
    each = actor_needs(resources)
    num_free = min(count_fitting(nodes, each), _on_one(allowed, each))
    memory, memory_each = cluster.free_of("memory"), resources.actor_memory_mb << 20
    by_memory = max(1, sum(int(node.get("memory", 0.0) / memory_each) for node in cluster.free) - num_decode)
    num_actors = max(0, min(resources.num_actors or by_memory, num_free, num_shards))
    return Pools(num_actors, num_decode, int(min(memory_each, MEMORY_SHARE * memory / max(1, num_actors + num_decode))))


def _still_kept(resources: Resources, cluster: ClusterSnapshot) -> dict[str, float]:
    """The part of `reserve_cpus` and `reserve_gpus` that others do not use yet."""
    kept = {"CPU": resources.reserve_cpus, "GPU": resources.reserve_gpus}
    return {name: max(0.0, amount - cluster.used(name)) for name, amount in kept.items()}


def _limited(nodes: Sequence[Amounts], allowed: Amounts) -> list[dict[str, float]]:
    """What the nodes have free, less what is kept for others: taken from the nodes with the most of it."""
    left = [dict(node) for node in nodes]
    for name, most in allowed.items():
        over = sum(node.get(name, 0.0) for node in left) - most
        for node in sorted(left, key=lambda node: -node.get(name, 0.0)):
            taken = min(max(over, 0.0), node.get(name, 0.0))
            node[name], over = node.get(name, 0.0) - taken, over - taken
    return left


def _too_large(resources: Resources, most: Pools, cluster: ClusterSnapshot, rates: Rates | None = None) -> ConfigError:
    if has_stage_pools(rates):
        each = [(group, needs_of(group, resources)) for group in rates.groups]
        asked = "; ".join(f"{amounts_text({'CPU': n.cpus, 'GPU': n.gpus})}{_memory(g)} for {g.name}" for g, n in each)
        if resources.mode == "split":
            num_decode = resources.num_decode_actors or max(1, most.num_decode)
            asked += f"; {resources.cpus_per_decode_actor:g} CPUs for each of {num_decode} decode actors"
        memory = f" and {cluster.total.get('memory', 0.0) / 2**20:.0f} MB" if any(_memory(g) for g, _ in each) else ""
        return ConfigError(
            f"the cluster has {amounts_text(cluster.total)}{memory}, but one actor of each pool needs {asked}",
            "lower cpus, gpus or memory_mb in [stages.NAME], or leave them out: the stage then runs with the others",
        )
    asked = f"{resources.num_actors or 1} model actors of {amounts_text(actor_needs(resources))}"
    if resources.mode == "split":
        num_decode = resources.num_decode_actors or max(1, most.num_decode)
        asked += f" beside {num_decode} decode actors of {resources.cpus_per_decode_actor:g} CPUs"
    kept = {"CPU": resources.reserve_cpus, "GPU": resources.reserve_gpus}
    if any(kept.values()):
        asked += f" and {amounts_text(kept)} kept for others"
    return ConfigError(
        f"the cluster has {amounts_text(cluster.total)}, but {asked} were asked for",
        "lower resources.num_actors, resources.cpus_per_actor or resources.reserve_cpus, or use resources.mode = "
        "'fused'; `ray status` shows what the cluster has",
    )


def _memory(group: Group) -> str:
    """The memory that its stages ask for."""
    return f" and {group.needs.memory_mb} MB" if group.needs.memory_mb else ""


def amounts_text(amounts: Amounts) -> str:
    """`2 CPUs and 0.5 GPUs`; CPUs are always named."""
    gpus = f" and {amounts['GPU']:g} GPUs" if amounts.get("GPU") else ""
    return f"{amounts.get('CPU', 0.0):g} CPUs{gpus}"
