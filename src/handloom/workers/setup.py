"""What all workers of a run get: settings, versions, addresses; the graph of stages and its groups."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from handloom.errors import ConfigError
from handloom.schemas.settings import OWN_STAGE, Resources, Settings
from handloom.stages.graph import StageGraph
from handloom.stages.pools.groups import SHARED, Group, groups_of
from handloom.stages.registry import stage_graph
from handloom.stages.versions import check_same, model_versions
from handloom.video.decode.decoder import DecodeLimits, Decoder
from handloom.video.fetch.cache import cache_folder
from handloom.video.fetch.video_source import VideoSource


@dataclass(frozen=True)
class WorkerSetup:
    """Settings, versions and addresses; the same for all workers of a run."""

    settings: Settings
    resources: Resources
    versions: dict[str, str]  # the driver's: a worker with other versions makes no rows
    db_uri: str
    storage_options: dict[str, str]  # Lance's, for the database
    source_options: dict[str, Any]  # fsspec's, for s3:// videos
    run_id: str = "none"  # of the run that holds the lease: its staged files lie in a folder of that name
    idle: frozenset[str] = frozenset()  # stages with a pool that no clip of the run needs: in no group
    wanted: frozenset[str] | None = None  # stages that are loaded at once, others when a row turns out to need them

    def __getstate__(self) -> dict[str, Any]:
        """What is known of the graph travels, not the graph: a node may lack the class of a stage."""
        known = {"groups": self.groups, "own_stages": self.own_stages, "stage_keys": self.stage_keys}
        return {name: value for name, value in (vars(self) | known).items() if name != "graph"}

    @property
    def run_key(self) -> str:
        return self.settings.run_key(self.versions)

    @cached_property
    def graph(self) -> StageGraph:
        return stage_graph(self.settings)

    @cached_property
    def groups(self) -> tuple[Group, ...]:
        """The groups of stages, each of which has a pool of actors."""
        return groups_of(self.graph, self.settings.stages, self.idle)

    @cached_property
    def own_stages(self) -> list[str]:
        """The stages that handloom does not bring."""
        return self.graph.own

    @cached_property
    def stage_keys(self) -> dict[str, str]:
        """`{stage: key}` of all stages."""
        return self.graph.keys(self.versions)

    def check_versions(self, host: str) -> None:
        """Raise ConfigError where this process, on `host`, would make other rows than the driver."""
        check_same(self.versions, model_versions(self.settings), host)

    def check_group(self, group: Group, host: str) -> None:
        """As `check_versions`; in an environment of its own a group's stages count, not what others use."""
        theirs = model_versions(self.settings)
        if group.needs.env == SHARED.env:
            return check_same(self.versions, theirs, host)
        names = {"handloom"}.union(*(self.graph[name].key_identity(self.versions) for name in group.stages))
        names |= {OWN_STAGE + name for name in group.stages}
        ours = {name: text for name, text in self.versions.items() if name in names}
        return check_same(ours, {name: text for name, text in theirs.items() if name in names}, host)

    def decoder(self, alive: Callable[[], None] = lambda: None) -> Decoder:
        """A decoder for this node. alive: called repeatedly while a video is fetched."""
        r = self.resources
        cache_dir = cache_folder(r.fetch_cache_dir)  # a folder of this node
        source = VideoSource(cache_dir, r.fetch_cache_mb, r.fetch_attempts, self.source_options, alive)
        limits = DecodeLimits(r.decode_timeout_s, r.decode_memory_mb, r.decode_ahead_mb, r.decode_sandbox)
        return Decoder(self.settings.video.sample_hz, self.settings.video.short_side_px, limits, source)


def refusal(error: ConfigError, host: str) -> tuple[str, str]:
    """A ConfigError of this node as `ShardResult.refused`, with the node's name."""
    return (error.problem if host in error.problem else f"on {host}: {error.problem}"), error.hint
