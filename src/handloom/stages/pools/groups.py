"""Which stages share an actor: a run's stages as a chain of groups, each of which gets a pool of actors."""

from __future__ import annotations

import json
from collections.abc import Collection, Hashable, Mapping, Sequence
from dataclasses import dataclass

from handloom.errors import ConfigError
from handloom.schemas.settings import StageConfig
from handloom.stages.graph import StageGraph


@dataclass(frozen=True)
class Needs:
    """What an actor of a group reserves, and its environment (JSON of Ray's `runtime_env`). None: as `[resources]`
    says for the actors that hold the models."""

    cpus: float | None = None
    gpus: float | None = None
    memory_mb: int | None = None
    env: str = "{}"

    @staticmethod
    def of(config: StageConfig | None) -> Needs:
        """Those of a stage; `SHARED` where it has none of its own."""
        if config is None or not config.has_pool:
            return SHARED
        return Needs(config.cpus, config.gpus, config.memory_mb, json.dumps(config.env, sort_keys=True))


SHARED = Needs()
WIDE = 16 / 9


@dataclass(frozen=True)
class Group:
    """Stages that one actor computes, in order. steps: the same stages, divided where clips come together: a step is a
    stage that gets several clips at once, or stages that are computed clip after clip."""

    stages: tuple[str, ...]
    needs: Needs
    steps: tuple[tuple[str, ...], ...]
    batch_clips: int = 1

    @property
    def name(self) -> str:
        """For messages."""
        return ", ".join(self.stages)


def groups_of(graph: StageGraph, configs: Mapping[str, StageConfig], idle: Collection[str] = ()) -> tuple[Group, ...]:
    """The groups of a run, in order: as few as possible. The first decodes; the last writes.

    Without stages that have needs of their own (`StageConfig.has_pool`) it is one group.

    Args:
        idle: stages that are in no group: their columns, if any are read, are in the rows.

    Raises:
        ConfigError: the decoding stage was given a pool.
    """
    if "probe" in configs and configs["probe"].has_pool:
        problem = "[stages.probe]: videos are decoded in the first group of actors, which cannot have a pool of its own"
        raise ConfigError(problem, "set resources.cpus_per_actor, or resources.mode = 'split' and num_decode_actors")
    names = [name for name in graph.names if name not in idle]
    reads = {name: [read for read in graph[name].reads_stages if read not in idle] for name in names}
    needs = {name: Needs.of(configs.get(name)) for name in names}
    batch = {name: configs[name].batch_clips for name in graph.own if name in configs}
    found = []
    for stages in chain(names, reads, needs, SHARED):
        together = {name: name if batch.get(name, 1) > 1 else "" for name in stages}
        inside = {name: [read for read in reads[name] if read in together] for name in stages}
        steps = chain(stages, inside, together, None)
        found.append(Group(stages, needs[stages[0]], steps, max(batch.get(name, 1) for name in stages)))
    return tuple(found)


def sent_bytes_per_s(graph: StageGraph, groups: Sequence[Group]) -> float:
    """Bytes of frames that the first group sends on, for a second of video of 16:9: all frames if a stage that handloom
    brings reads them in a later group, else those that stages of one's own ask for."""
    video = graph.settings.video
    reading = [graph[name] for group in groups[1:] for name in group.stages if graph[name].reads_frames]
    whole = video.sample_hz * video.short_side_px**2 * WIDE * 3
    if any(stage.name not in graph.own for stage in reading):
        return whole
    total = 0.0
    for request in (stage.request for stage in reading):
        side = min(request.short_side_px or video.short_side_px, video.short_side_px)
        rate = min(request.hz or request.count or video.sample_hz, video.sample_hz)  # a clip is a second at least
        total += rate * side**2 * WIDE * 3
    return total


def chain(
    names: Sequence[str],
    reads: Mapping[str, Collection[str]],
    kinds: Mapping[str, Hashable],
    first: Hashable | None,
) -> tuple[tuple[str, ...], ...]:
    """The shortest division of `names` into groups of one kind each, in which no stage is before one that it reads.

    Of several it takes the one that computes each stage as early as it can.

    Args:
        names: in an order in which they can be computed.
        first: the kind of the first group; None: any.
    """
    everything = frozenset(names)
    front: dict[frozenset[str], tuple[tuple[str, ...], ...]] = {frozenset(): ()}
    while everything not in front:
        following: dict[frozenset[str], tuple[tuple[str, ...], ...]] = {}
        for done, groups in front.items():
            wanted = [first] if first is not None and not groups else _next_kinds(names, reads, kinds, done)
            for kind in wanted:
                group = _ready(names, reads, kinds, done, kind)
                following.setdefault(done | set(group), (*groups, group))
        front = following
    return front[everything]


def _next_kinds(
    names: Sequence[str], reads: Mapping[str, Collection[str]], kinds: Mapping[str, Hashable], done: frozenset[str]
) -> list[Hashable]:
    """The kinds worth trying next. If all that is left of one kind can be computed now, no other order is shorter."""
    left = [name for name in names if name not in done]
    found = []
    for kind in dict.fromkeys(kinds[name] for name in left):
        ready = _ready(names, reads, kinds, done, kind)
        if len(ready) == sum(kinds[name] == kind for name in left):
            return [kind]
        if ready:
            found.append(kind)
    return found


def _ready(
    names: Sequence[str],
    reads: Mapping[str, Collection[str]],
    kinds: Mapping[str, Hashable],
    done: frozenset[str],
    kind: Hashable,
) -> tuple[str, ...]:
    """All stages of this kind that can be computed after `done`, one after another."""
    group: list[str] = []
    for name in names:
        if name not in done and kinds[name] == kind and all(read in done or read in group for read in reads[name]):
            group.append(name)
    return tuple(group)
