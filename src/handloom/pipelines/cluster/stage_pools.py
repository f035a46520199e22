"""How many actors each group of stages gets: their rates should be equal, and all of them must fit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from handloom.pipelines.cluster.ray_private import Amounts
from handloom.schemas.settings import Resources
from handloom.stages.pools.groups import SHARED, Group

FIRST_S, LATER_S = 1.0, 0.5
"""Guesses of the seconds a clip takes in the first group, which decodes, and in each later one: used until a shard has
come back. Not measured: a guess costs a second pool at most (`better`)."""
LEAST_CPUS = 0.05
GPUS = "has_gpus"  # among what a node has free: it has GPUs, used or not
BETTER = 1.25  # a change of pools costs the loading of all models
MIN_SHARDS = 4
MEMORY_SHARE = 0.9


@dataclass(frozen=True)
class StagePool:
    """The pool of one group. cpus, gpus, memory_bytes: of an actor. apart: it is kept off nodes with GPUs: Ray
    has put actors without a need of GPUs there, and those that need them found no CPU left."""

    num_actors: int
    cpus: float
    gpus: float
    memory_bytes: int
    apart: bool = False

    @property
    def each(self) -> Amounts:
        return {"CPU": self.cpus, "GPU": self.gpus, "memory": float(self.memory_bytes)}


@dataclass
class Rates:
    """Seconds per clip of each group, measured on the shards that have come back. known: of stages, by earlier runs."""

    groups: Sequence[Group]
    known: Mapping[str, float] = field(default_factory=dict)
    num_clips: int = 0
    num_shards: int = 0
    _seconds: dict[str, float] = field(default_factory=dict)

    def add(self, num_clips: int, stage_s: Mapping[str, float]) -> None:
        """A shard has come back."""
        if not num_clips:
            return
        self.num_clips += num_clips
        self.num_shards += 1
        for stage, seconds in stage_s.items():
            self._seconds[stage] = self._seconds.get(stage, 0.0) + seconds

    def seconds(self) -> list[float]:
        """Per clip, of each group; before the first shard those of earlier runs, or guesses. Decoding is in the first
        group."""
        if not self.num_clips:
            earlier = [sum(self.known.get(name, 0.0) for name in group.stages) for group in self.groups]
            guesses = [FIRST_S] + [LATER_S] * (len(self.groups) - 1)
            return [found or guess for found, guess in zip(earlier, guesses, strict=True)]
        later = {name for group in self.groups[1:] for name in group.stages}
        sums = [sum(s for name, s in self._seconds.items() if name not in later)]
        sums += [sum(self._seconds.get(name, 0.0) for name in group.stages) for group in self.groups[1:]]
        return [max(total / self.num_clips, 1e-6) for total in sums]


def needs_of(group: Group, resources: Resources) -> StagePool:
    """What one actor of a group reserves. With GPUs and without `cpus` it reserves no CPU: so it has a place."""
    needs = group.needs
    memory = (needs.memory_mb or resources.actor_memory_mb) << 20
    cpus = (0.0 if needs.gpus else resources.cpus_per_actor) if needs.cpus is None else needs.cpus
    gpus = resources.gpus_per_actor if needs == SHARED else needs.gpus or 0.0
    return StagePool(1, cpus, gpus, memory)


def sized(
    groups: Sequence[Group], resources: Resources, num_shards: int, free: Sequence[Amounts], seconds: Sequence[float]
) -> list[StagePool]:
    """The pools that fit into what each node has free; none where not one actor of each fits.

    Every group gets one actor, and then always the slowest one more, as long as there is room for it. On a machine with
    fewer CPUs than groups, actors without `cpus` of their own reserve less than they use. An actor without `memory_mb`
    of its own, whose memory fits nowhere, reserves what is left.
    """
    asked = [bool(group.needs.memory_mb) for group in groups]
    given = _with_less_memory(groups, [needs_of(group, resources) for group in groups], free)
    free = [dict(node) | ({GPUS: 1.0} if node.get("GPU", 0.0) else {}) for node in free]
    has_both = len({GPUS in node for node in free}) == 2
    for apart in (True, False) if has_both else (False,):
        for pools in (given, _with_fewer_cpus(groups, given, free)):
            each = [replace(pool, apart=apart and not pool.gpus) for pool in pools]
            nodes = _first_of_each(each, free, asked)
            if nodes is not None:
                return _grown(each, nodes, resources, num_shards, seconds)
    return []


def _grown(
    each: list[StagePool],
    nodes: Sequence[dict[str, float]],
    resources: Resources,
    num_shards: int,
    seconds: Sequence[float],
) -> list[StagePool]:
    most = min(max(num_shards, 1), resources.num_actors or max(num_shards, 1))
    while True:
        slowest = min(range(len(each)), key=lambda k: (each[k].num_actors / seconds[k], k))
        if each[slowest].num_actors >= most or not _take(nodes, each[slowest]):
            return each
        each[slowest] = replace(each[slowest], num_actors=each[slowest].num_actors + 1)


def rate(pools: Sequence[StagePool], seconds: Sequence[float]) -> float:
    """Clips a second, as far as the slowest group allows."""
    return min(pool.num_actors / spent for pool, spent in zip(pools, seconds, strict=True))


def better(now: Sequence[StagePool], other: Sequence[StagePool], seconds: Sequence[float]) -> bool:
    """Whether other pools would be so much faster that a change pays."""
    return bool(other) and rate(other, seconds) > BETTER * rate(now, seconds)


def _first_of_each(
    each: list[StagePool], free: Sequence[Amounts], asked: Sequence[bool]
) -> list[dict[str, float]] | None:
    """What is left after one actor of each; None where one does not fit. Those with GPUs first: few nodes hold them.

    asked: whose memory must not be less.
    """
    nodes = [dict(node) for node in free]
    for k in sorted(range(len(each)), key=lambda k: (-each[k].gpus, -each[k].cpus, k)):
        if _take(nodes, each[k]):
            continue
        without = {"CPU": each[k].cpus, "GPU": each[k].gpus}
        room = max((node.get("memory", 0.0) for node in nodes if _fits(node, without, each[k].apart)), default=None)
        if room is None or asked[k]:
            return None
        each[k] = replace(each[k], memory_bytes=int(room / 2))
        _take(nodes, each[k])
    return nodes


def _with_less_memory(groups: Sequence[Group], each: Sequence[StagePool], free: Sequence[Amounts]) -> list[StagePool]:
    """On a small machine every actor without `memory_mb` of its own reserves an equal part of what there is."""
    part = int(MEMORY_SHARE * sum(node.get("memory", 0.0) for node in free) / len(groups))
    sizes = [
        p.memory_bytes if g.needs.memory_mb else min(p.memory_bytes, part) for g, p in zip(groups, each, strict=True)
    ]
    return [replace(pool, memory_bytes=size) for pool, size in zip(each, sizes, strict=True)]


def _with_fewer_cpus(groups: Sequence[Group], each: list[StagePool], free: Sequence[Amounts]) -> list[StagePool]:
    asked = [group.needs.cpus is not None for group in groups]
    fixed = sum(pool.cpus for pool, is_asked in zip(each, asked, strict=True) if is_asked)
    rest = sum(pool.cpus for pool, is_asked in zip(each, asked, strict=True) if not is_asked)
    total = sum(int(node.get("CPU", 0.0)) for node in free)
    share = max(LEAST_CPUS, int(100 * (total - fixed) / rest) / 100) if rest else 1.0
    fewer = [pool.cpus if is_asked else pool.cpus * min(1.0, share) for pool, is_asked in zip(each, asked, strict=True)]
    return [replace(pool, cpus=cpus) for pool, cpus in zip(each, fewer, strict=True)]


def _fits(node: Mapping[str, float], each: Amounts, apart: bool) -> bool:
    if apart and GPUS in node:
        return False
    return all(node.get(name, 0.0) + 1e-6 >= amount for name, amount in each.items() if amount)


def _take(nodes: Sequence[dict[str, float]], pool: StagePool) -> bool:
    """Reserve it on a node, one without GPUs where that is possible, as Ray does. False where it fits nowhere."""
    for node in sorted(nodes, key=lambda node: node.get("GPU", 0.0)):
        if _fits(node, pool.each, pool.apart):
            for name, amount in pool.each.items():
                node[name] = node.get(name, 0.0) - amount
            return True
    return False
