"""The graph of stages, from what each reads and writes."""

from __future__ import annotations

import difflib
import graphlib
import hashlib
import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, Protocol

import pyarrow as pa

from handloom.errors import ConfigError
from handloom.schemas.settings import Settings
from handloom.schemas.tables.arrow import CLIP_LIST, clips_schema
from handloom.schemas.tables.stage_columns import COLUMNS_OF, stage_fields
from handloom.schemas.version_policy import counted
from handloom.stages.stage import owned


class Node(Protocol):
    """A stage as the graph sees it: one that handloom brings (`work.BuiltinStage`) or one's own (`own.OwnStage`)."""

    @property
    def name(self) -> str: ...
    @property
    def reads_stages(self) -> tuple[str, ...]: ...
    @property
    def columns(self) -> tuple[str, ...]: ...
    @property
    def clip_fields(self) -> tuple[str, ...]: ...
    @property
    def reads_frames(self) -> bool: ...
    def key_settings(self) -> Mapping[str, Any]: ...
    def key_identity(self, versions: Mapping[str, str]) -> Mapping[str, str]: ...


class StageGraph:
    """Stages in an order in which they can be computed.

    Raises ConfigError, which names the stages: a circle, a column that two stages write or that is in the clip list, a
    stage or column that nobody writes, two stages of one name.
    """

    def __init__(self, settings: Settings, nodes: Sequence[Node], own_fields: Mapping[str, Sequence[pa.Field]]) -> None:
        """own_fields: the columns of the stages that handloom does not bring, by stage."""
        self.settings = settings
        _check_columns(nodes)
        self._nodes = {node.name: node for node in nodes}
        _check_reads(nodes)
        self.names = _sorted(nodes)
        self.nodes = [self._nodes[name] for name in self.names]
        self._own_fields = {
            name: [owned(field, name, self._read_of_list(name)) for field in fields]
            for name, fields in own_fields.items()
        }

    def __getitem__(self, name: str) -> Any:
        return self._nodes[name]

    def __contains__(self, name: str) -> bool:
        return name in self._nodes

    @property
    def own(self) -> list[str]:
        """The stages that handloom does not bring, in order."""
        return [name for name in self.names if name not in COLUMNS_OF]

    def own_fields(self, stage: str) -> Sequence[pa.Field]:
        """The columns of a stage that handloom does not bring."""
        return self._own_fields[stage]

    def _read_of_list(self, stage: str) -> list[str]:
        """The columns of the clip list that a stage reads, itself or through other stages of one's own."""
        own = [self[name] for name in self.ancestors([stage]) if name not in COLUMNS_OF]
        return list(dict.fromkeys(field for node in own for field in node.clip_fields))

    def schema(self) -> pa.Schema:
        """Of `clips`: what handloom writes, own columns, then the key and state columns of all stages."""
        base = clips_schema(self.settings.num_tracks(), num_grid=self.settings.num_grid())
        own = [field for name in self.own for field in self._own_fields[name]]
        return pa.schema([*base, *own, *stage_fields(self.names)], metadata=base.metadata)

    def keys(self, versions: Mapping[str, str]) -> dict[str, str]:
        """`{stage: key}`. versions: `stages.versions.model_versions`."""
        return keys_of(self.nodes, versions)

    def dependents(self, names: Iterable[str]) -> list[str]:
        """These stages and all that depend on them, in order."""
        found = set(names)
        for node in self.nodes:
            if found.intersection(node.reads_stages):
                found.add(node.name)
        return [name for name in self.names if name in found]

    def ancestors(self, names: Iterable[str]) -> list[str]:
        """These stages and all that they depend on, in order."""
        found = set(names)
        for node in reversed(self.nodes):
            if node.name in found:
                found.update(node.reads_stages)
        return [name for name in self.names if name in found]

    def chosen(self, names: Collection[str]) -> list[str]:
        """These stages in order. Raises ConfigError, with the nearest names, for one that is not in the graph."""
        for name in names:
            if name not in self._nodes:
                near = difflib.get_close_matches(name, self.names, 3, 0.5)
                problem = f"there is no stage {name!r}" + (f"; near: {', '.join(near)}" if near else "")
                raise ConfigError(problem, f"stages: {', '.join(self.names)}; own ones are declared in [stages.NAME]")
        return [name for name in self.names if name in names]


def _sorted(nodes: Sequence[Node]) -> list[str]:
    """A topological order; of several stages that can follow, the first in `nodes`."""
    rank = {node.name: number for number, node in enumerate(nodes)}
    sorter = graphlib.TopologicalSorter({node.name: node.reads_stages for node in nodes})
    try:
        sorter.prepare()
    except graphlib.CycleError as error:
        circle = " -> ".join(reversed(error.args[1]))
        raise ConfigError(
            f"stages read each other in a circle: {circle}", "a stage reads columns of earlier ones only"
        ) from None
    order: list[str] = []
    ready: list[str] = []
    while sorter.is_active():
        ready += sorter.get_ready()
        ready.sort(key=rank.__getitem__)
        order.append(ready.pop(0))
        sorter.done(order[-1])
    return order


def _check_columns(nodes: Sequence[Node]) -> None:
    writers = {name: "clip list" for name in CLIP_LIST.names} | {"host": "run", "run_key": "run", "_rowid": "table"}
    names: set[str] = set()
    for node in nodes:
        if node.name in names:
            raise ConfigError(f"there are two stages {node.name!r}", "give one of them another name")
        names.add(node.name)
        for column in node.columns:
            if column in writers and not (column == "end_s" and node.name == "probe"):
                problem = f"the column {column} is written by {writers[column]!r} and by the stage {node.name!r}"
                raise ConfigError(problem, "give the stage's column another name")
            writers[column] = node.name


def _check_reads(nodes: Sequence[Node]) -> None:
    names = {node.name for node in nodes}
    for node in nodes:
        for read in node.reads_stages:
            if read not in names:
                known = [*names, *(column for other in nodes for column in other.columns), *CLIP_LIST.names]
                near = difflib.get_close_matches(read, known, 3, 0.6)
                problem = f"the stage {node.name!r} reads {read!r}, which no stage writes"
                problem += f"; near: {', '.join(near)}" if near else ""
                hint = f"docs/tables.md has every column; is the stage that writes {read} left out of the settings? "
                raise ConfigError(problem, f"{hint}Stages: {', '.join(sorted(names))}")


def stage_key(name: str, settings: Mapping[str, Any], identity: Mapping[str, str], reads: Mapping[str, str]) -> str:
    """16 hex digits over a stage's name, settings and identity, and the keys of the stages it reads (`{name: key}`)."""
    content = {"name": name, "settings": settings, "identity": identity, "reads": reads}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


def keys_of(stages: Sequence[Node], versions: Mapping[str, str]) -> dict[str, str]:
    """`{name: key}` of stages in the order in which they are computed. versions: of this process or of a record."""
    counting = counted(versions)
    keys: dict[str, str] = {}
    for stage in stages:
        reads = {name: keys[name] for name in stage.reads_stages}
        keys[stage.name] = stage_key(stage.name, stage.key_settings(), stage.key_identity(counting), reads)
    return keys
