"""What a run has to do: clips without a row, and stages that rows lack or have with another key; and its committers."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

import pyarrow as pa

from handloom.api import Database
from handloom.pipelines.run.changed_videos import present_first
from handloom.pipelines.run.todo.recompute import (
    NONE,
    Change,
    allowed_stages,
    change_since,
    check_allowed,
    check_rows_allowed,
    check_whole,
    keeps,
    kept_before,
)
from handloom.pipelines.run.todo.survey import Survey, by_targets, survey
from handloom.plural import plural
from handloom.schemas.clip import Clip
from handloom.schemas.settings import Settings, StageConfig
from handloom.schemas.tables.arrow import clips_schema
from handloom.schemas.tables.stage_columns import owner_of
from handloom.stages.graph import StageGraph
from handloom.stages.keys import recorded_keys
from handloom.stages.registry import stage_graph
from handloom.store.clips.changed_inputs import changed_inputs, fields_text, outdated_rows
from handloom.store.clips.clip_list import pending_clips, read_clips
from handloom.store.clips.commit import Committer
from handloom.store.runs.runs import list_runs, stage_seconds, stored_settings
from handloom.store.stages.columns import add_columns_for, changes_type, check_columns
from handloom.store.stages.schema_steps import to_newest
from handloom.store.stages.update import ColumnCommitter

log = logging.getLogger(__name__)

Targets = Mapping[str, tuple[str, ...]]


@dataclass(frozen=True)
class Asked:
    """The stages of a run. keys: `{stage: key}`. recompute: see `run`. only: stages to compute for rows, in order;
    None: all, and all clips without a row. change: what differs from the last run."""

    graph: StageGraph
    keys: dict[str, str]
    recompute: tuple[str, ...] | None
    only: tuple[str, ...] | None
    change: Change


@dataclass(frozen=True)
class Todo:
    """clips: to process, those without a row first. targets: of the others, the stages to compute. rows: by stage, how
    many rows get it. again: those of `rows` that have older columns. num_rows: rows that lack something, also those
    beyond the limit. left_out: by stage, how many rows lack it and cannot get it (`Survey`)."""

    clips: list[Clip]
    targets: Targets
    rows: dict[str, int]
    again: dict[str, int]
    committer: Committer
    columns: ColumnCommitter
    num_rows: int
    left_out: dict[str, int]

    @property
    def wanted(self) -> frozenset[str] | None:
        """The stages that rows get; None: all, since there are new clips."""
        if len(self.targets) < len(self.clips):
            return None
        return frozenset(name for stages in set(self.targets.values()) for name in stages)

    def idle(self, graph: StageGraph, configs: Mapping[str, StageConfig]) -> frozenset[str]:
        """Stages with a pool of their own that no clip needs. Their environments are not built, their GPUs not asked
        for: a run that adds a cheap column took a minute and 2.1 GB for the environment of another stage."""
        wanted = self.wanted
        if wanted is None:
            return frozenset()
        pools = frozenset(name for name in graph.names if name in configs and configs[name].has_pool)
        return pools.difference(graph.ancestors(wanted))


def asked_of(
    db: Database,
    settings: Settings,
    versions: dict[str, str],
    recompute: Collection[str] | None,
    stages: Collection[str] | None,
    is_part: bool = False,
) -> Asked:
    """What a run may do with this database. Nothing is written: the settings of a run that is refused are not those of
    the next one.

    Args:
        is_part: the run leaves out some clips (`--where`, `--limit`).

    Raises:
        ConfigError: stages cannot be used; its rows were made with others, and `recompute` does not allow to compute
            them again; a column of a stage belongs to somebody else.
        StoreError: columns have another type, and `recompute` does not allow to drop them.
    """
    graph = stage_graph(settings)
    keys = graph.keys(versions)
    only = None if stages is None else tuple(graph.chosen(stages))
    change = change_since(stored_settings(db), graph, keys, settings, versions)
    if recompute is None and not change.stages and kept_before(db):
        recompute = (NONE,)
    allowed = allowed_stages(graph, recompute)
    fields = _of_stages(graph)
    if change.stages or (allowed and allowed != set(graph.names)):
        found = survey(db, graph, keys)
        counts = {name: found.num_of(name) for name in graph.names}
        rates = stage_seconds(list_runs(db), keys)
        check_allowed(change, graph, recompute, counts, rates, changes_type(db, fields))
        if allowed:
            check_rows_allowed(graph, recompute or (), found.num_outdated, rates)
    if dropped := check_columns(db, fields, ours=clips_schema(1).names, replace=allowed):
        computed = graph.names if only is None else graph.ancestors(only)
        owners = {field.name: owner_of(field) for field in fields}
        check_whole(dropped, is_part or any(owners.get(name) not in computed for name in dropped))
    return Asked(graph, keys, None if recompute is None else tuple(recompute), only, change)


def plan_work(
    db: Database,
    asked: Asked,
    run_key: str,
    allowed: Callable[[], None],
    *,
    retry_reasons: Sequence[str],
    where: str | None,
    limit: int | None,
) -> Todo:
    """Bring the table to the columns of the run, and list what it has to do.

    Args:
        allowed: called before each commit.
        retry_reasons: of rejects to try again.

    Raises:
        ConfigError: a column of a stage belongs to somebody else.
        StoreError: the tables cannot be read or written.
    """
    graph = asked.graph
    schema = graph.schema()
    if db.version is not None:
        replace = asked.recompute is not None and not keeps(asked.recompute)
        to_newest(db, schema, recorded_keys, replace=replace)
        add_columns_for(db, _of_stages(graph), ours=clips_schema(1).names, replace=replace)
    committer = Committer(db, run_key, schema, allowed, [run.run_key for run in list_runs(db)])
    columns = ColumnCommitter(db, run_key, schema, allowed)
    changed, keep = _changed(db, asked), keeps(asked.recompute)
    found = survey(db, graph, asked.keys, only=asked.only, changed=changed, retry=retry_reasons, keep=keep)
    if found.num_kept:
        kept = plural(found.num_kept, "row")
        log.warning("%s of older stage keys stay as they are; --recompute computes them again", kept)
    left_out = _left_out(db, found, asked.only or graph.names, where)
    new = pending_clips(db, retry_reasons=retry_reasons, where=where) if asked.only is None else []
    rows = _listed(db, found.targets, where)
    clips = [*present_first(new), *present_first(rows)][:limit]
    targets = by_targets(found, [clip.clip_id for clip in clips])
    counts = {name: sum(name in stages for stages in targets.values()) for name in graph.names}
    counts = {name: num for name, num in counts.items() if num}
    lacking = Counter(name for clip_id in targets for name in found.lacking[clip_id].intersection(targets[clip_id]))
    again = {name: num - lacking[name] for name, num in counts.items() if num > lacking[name]}
    return Todo(clips, targets, counts, again, committer, columns, len(rows), left_out)


def _left_out(db: Database, found: Survey, stages: Sequence[str], where: str | None) -> dict[str, int]:
    """`{stage: rows}` of `Survey.left_out`, of these stages and of the clips that pass the filter."""
    if not found.left_out:
        return {}
    chosen = None if where is None else {clip.clip_id for clip in read_clips(db, where=where)}
    rows = {name: found.left_out.get(name, set()) for name in stages}
    counts = {name: len(some if chosen is None else some & chosen) for name, some in rows.items()}
    for name in filter(counts.get, counts):
        lacking = plural(counts[name], "row lacks", "rows lack")
        log.warning("%s the stage %s, which reads columns of older stage keys: --recompute gives it", lacking, name)
    return {name: num for name, num in counts.items() if num}


def _of_stages(graph: StageGraph) -> list[pa.Field]:
    """The columns that stages write, with their keys and states."""
    return [field for field in graph.schema() if owner_of(field) is not None]


def _changed(db: Database, asked: Asked) -> dict[str, tuple[str, ...]]:
    """{clip id: stages whose input in the clip list has changed}, if they may be computed again."""
    if db.version is None:
        return {}
    if asked.recompute is None or keeps(asked.recompute):
        if left := outdated_rows(db):
            made = plural(len(left), "row was", "rows were")
            told = fields_text(sorted(frozenset[str]().union(*left.values())))
            log.warning("%s made with another %s than the list has: --recompute computes them again", made, told)
        return {}
    allowed = allowed_stages(asked.graph, asked.recompute)
    readers = {name: set(asked.graph[name].clip_fields) for name in allowed}
    found = {}
    for clip_id, fields in changed_inputs(db).items():
        stages = tuple(name for name, read in readers.items() if read & fields)
        if stages:
            found[clip_id] = stages
    return found


def _listed(db: Database, targets: Targets, where: str | None) -> list[Clip]:
    """The clips of the list that have targets; of rows whose clips are not listed nothing is computed."""
    if not targets:
        return []
    return [clip for clip in read_clips(db, where=where) if clip.clip_id in targets]
