"""What the cluster has free, and how many actors of a run fit into it."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

import ray

from handloom.errors import ConfigError
from handloom.pipelines.cluster.ray_private import Amounts, free_by_node, gets_more_nodes
from handloom.schemas.settings import Resources

SLACK = 1e-6  # Ray counts in ten-thousandths
MEMORY_SHARE = 0.9


@dataclass(frozen=True)
class Pools:
    """Actors per pool, and the memory that Ray reserves for each. num_decode is 0 in fused mode."""

    num_actors: int
    num_decode: int
    memory_bytes: int


@dataclass(frozen=True)
class ClusterSnapshot:
    """The cluster at one moment, per node. free: what nobody has reserved. scales: nodes come when asked for.

    partial: there are more nodes, which get no work.
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
        """The same cluster if nobody else were on it."""
        return replace(self, free=self.nodes)


def look(without: Collection[str] = ()) -> ClusterSnapshot:
    """What the cluster has now, without these nodes (Ray's ids). Ray tells it with a delay of about a second."""
    nodes = {node["NodeID"]: node["Resources"] for node in ray.nodes() if node["Alive"]}
    free = free_by_node()
    ids = [node_id for node_id in sorted(nodes) if node_id not in without]
    room = (tuple(nodes[i] for i in ids), tuple(free.get(i, {}) for i in ids))
    return ClusterSnapshot(*room, gets_more_nodes(), len(ids) < len(nodes))


def actor_needs(resources: Resources) -> Amounts:
    """What one model actor takes."""
    return {"CPU": resources.cpus_per_actor, "GPU": resources.gpus_per_actor}


def count_fitting(nodes: Sequence[Amounts], each: Amounts) -> int:
    """How many times `each` fits, never across nodes."""
    return sum(_on_one(node, each) for node in nodes)


def _on_one(node: Amounts, each: Amounts) -> int:
    return min(int(node.get(name, 0.0) / amount + SLACK) for name, amount in each.items() if amount)


def place(nodes: Sequence[Amounts], each: Amounts, count: int) -> tuple[list[dict[str, float]], int]:
    """`count` of `each` put on the nodes, those without GPUs first, as Ray does. Returns what is left, how many fit."""
    left, placed = [dict(node) for node in nodes], 0
    for node in sorted(left, key=lambda node: node.get("GPU", 0.0)):
        here = min(count - placed, _on_one(node, each))
        for name, amount in each.items():
            node[name] = node.get(name, 0.0) - here * amount
        placed += here
    return left, placed


def size_pools(resources: Resources, num_shards: int, room: ClusterSnapshot) -> Pools:
    """As many actors as fit into what is free, less what is kept for others; never more than there are shards.

    `reserve_cpus` and `reserve_gpus` are kept for others: what others hold already counts towards them. Memory alone
    never forbids the first actor of each pool: a small machine gets a smaller reservation.

    Returns:
        Pools with num_actors 0 where one actor of each pool does not fit into what is free now.

    Raises:
        ConfigError: the whole cluster, empty, cannot hold what was asked for, and gets no more nodes.
    """
    if not room.scales:
        asked = 1 if room.partial else resources.num_actors or 1  # nodes that were left take their actors with them
        most = pools_now(resources, num_shards, room.emptied())
        if most.num_actors < min(asked, max(num_shards, 1)):
            raise _too_large(resources, most, room)
    return pools_now(resources, num_shards, room)


def could_hold(resources: Resources, room: ClusterSnapshot) -> bool:
    """Whether one actor of each pool fits, if nobody else is on the cluster."""
    return bool(pools_now(resources, 1, room.emptied()).num_actors)


def pools_now(resources: Resources, num_shards: int, room: ClusterSnapshot) -> Pools:
    """As `size_pools`, whatever the cluster could hold: its nodes may have gone during the run, and come back."""
    num_shards = max(num_shards, 1)
    allowed = {name: room.free_of(name) - kept for name, kept in _still_kept(resources, room).items()}
    decode, num_decode, nodes = {"CPU": resources.cpus_per_decode_actor}, 0, room.free
    if resources.mode == "split":
        num_decode = resources.num_decode_actors or max(1, int(allowed["CPU"] / resources.cpus_per_decode_actor / 3))
        nodes, num_decode = place(room.free, decode, min(num_decode, num_shards))
        if not num_decode:
            return Pools(0, 0, 0)
        allowed["CPU"] -= num_decode * resources.cpus_per_decode_actor
    each = actor_needs(resources)
    room_for = min(count_fitting(nodes, each), _on_one(allowed, each))
    memory, memory_each = room.free_of("memory"), resources.actor_memory_mb << 20
    by_memory = max(1, sum(int(node.get("memory", 0.0) / memory_each) for node in room.free) - num_decode)
    num_actors = max(0, min(resources.num_actors or by_memory, room_for, num_shards))
    return Pools(num_actors, num_decode, int(min(memory_each, MEMORY_SHARE * memory / max(1, num_actors + num_decode))))


def _still_kept(resources: Resources, room: ClusterSnapshot) -> dict[str, float]:
    """What is to be kept for others and is not used by them yet."""
    kept = {"CPU": resources.reserve_cpus, "GPU": resources.reserve_gpus}
    return {name: max(0.0, amount - room.used(name)) for name, amount in kept.items()}


def _too_large(resources: Resources, most: Pools, room: ClusterSnapshot) -> ConfigError:
    asked = f"{resources.num_actors or 1} model actors of {amounts_text(actor_needs(resources))}"
    if resources.mode == "split":
        num_decode = resources.num_decode_actors or max(1, most.num_decode)
        asked += f" beside {num_decode} decode actors of {resources.cpus_per_decode_actor:g} CPUs"
    kept = {"CPU": resources.reserve_cpus, "GPU": resources.reserve_gpus}
    if any(kept.values()):
        asked += f" and {amounts_text(kept)} kept for others"
    return ConfigError(
        f"the cluster has {amounts_text(room.total)}, but {asked} were asked for",
        "lower resources.num_actors, resources.cpus_per_actor or resources.reserve_cpus, or use resources.mode = "
        "'fused'; `ray status` shows what the cluster has",
    )


def amounts_text(amounts: Amounts) -> str:
    """`2 CPUs and 0.5 GPUs`; CPUs are always named."""
    gpus = f" and {amounts['GPU']:g} GPUs" if amounts.get("GPU") else ""
    return f"{amounts.get('CPU', 0.0):g} CPUs{gpus}"
