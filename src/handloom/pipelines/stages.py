"""`handloom stages`: the stages in order, and how many rows have their columns of today's key."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from handloom.api import Database
from handloom.errors import ConfigError
from handloom.pipelines.index import duplicate_lines
from handloom.plural import plural
from handloom.schemas.settings import RunConfig, of_any_version
from handloom.schemas.tables.duplicates import STAGE as DUPLICATES
from handloom.schemas.tables.stage_columns import COLUMNS_OF, key_column, owner_of
from handloom.store.duplicates.grouping import DuplicateCounts, duplicate_counts
from handloom.store.filters import stages_of
from handloom.store.runs.runs import list_runs, settings_to_go_on, stage_seconds
from handloom.store.stages.counts import RowCounts, count_rows, stage_sizes


@dataclass(frozen=True)
class Declared:
    """A stage as the settings declare it. reads: stages. frames: `video`, `stored` or None. columns: of the row, that a
    stage of one's own reads. clip_fields: of the clip list. class_: of a stage of one's own."""

    name: str
    key: str | None
    reads: tuple[str, ...]
    frames: str | None
    columns: tuple[str, ...]
    clip_fields: tuple[str, ...]
    writes: tuple[str, ...]
    class_: str | None = None


@dataclass(frozen=True)
class StageState:
    """A stage and its rows. in_settings: False for one that has columns in the table and is not declared any more.

    clip_s: seconds of one actor for one clip, by what runs recorded. clip_bytes: on disk, of a row that has the
    columns. None: not known.
    """

    name: str
    key: str | None
    in_settings: bool
    reads: tuple[str, ...]
    frames: str | None
    columns: tuple[str, ...]
    clip_fields: tuple[str, ...]
    writes: tuple[str, ...]
    class_: str | None
    rows: RowCounts
    clip_s: float | None
    clip_bytes: float | None


@dataclass(frozen=True)
class StageStates:
    """All stages of a database. keys_of: `settings` if the keys follow from the settings in force and from this
    installation, `last run` if they are what the last run recorded: `why`."""

    db: str
    version: int | None
    num_rows: int
    num_listed: int
    keys_of: str
    why: str
    stages: tuple[StageState, ...]
    duplicates: DuplicateCounts | None = None

    def to_dict(self) -> dict[str, Any]:
        values = asdict(self)
        return values | {
            "stages": [{name.rstrip("_"): value for name, value in one.items()} for one in values["stages"]]
        }


def stage_states(db: Database, config: RunConfig | None = None) -> StageStates:
    """The stages and their rows.

    Args:
        config: the settings; None: those of the database. Where these cannot be used here (a package is missing), the
            keys of the last run are taken.

    Raises:
        ConfigError: the given settings cannot be used.
        StoreError: the database cannot be read.
    """
    declared, why = _declared(db, config)
    table = db.table("clips")
    there = [] if table is None else stages_of(table.schema)
    names = [stage.name for stage in declared]
    gone = [name for name in there if name not in (*names, DUPLICATES)]
    declared += [Declared(name, None, (), None, (), (), _columns(table, name)) for name in gone]
    keys = {stage.name: stage.key for stage in declared}
    counts = count_rows(db, keys, _recorded_keys)
    num_rows = 0 if table is None else table.count_rows()
    seconds, sizes = stage_seconds(list_runs(db), keys), stage_sizes(db)
    states = tuple(
        StageState(
            **{name: value for name, value in vars(stage).items()},
            in_settings=stage.name in names,
            rows=counts[stage.name],
            clip_s=seconds.get(stage.name),
            clip_bytes=_a_row(sizes.get(stage.name), num_rows - counts[stage.name].missing),
        )
        for stage in declared
    )
    keys_of = "last run" if why else "settings"
    listed = db.count("clip_list")
    return StageStates(db.uri, db.version, num_rows, listed, keys_of, why, states, duplicate_counts(db))


def stage_states_text(states: StageStates, given: str = "") -> str:
    """The result of `stage_states` as text. given: the options that named other settings, for the commands it shows."""
    version = states.version if states.version is not None else "-"
    listed = f"{plural(states.num_rows, 'row')} of {plural(states.num_listed, 'clip')} in the list"
    lines = [f"{states.db}  (version {version}): {listed}"]
    if states.why:
        lines.append(f"keys are those of the last run: {states.why}")
    width = max([len(stage.name) for stage in states.stages] + [5])
    head = f"{'current':>9} {'outdated':>9} {'missing':>9} {'rejected':>9} {'s/clip':>8} {'KB/clip':>8}"
    lines.append(f"{'stage':<{width}}  {'key':<16} {head}  reads")
    lines += [_line(stage, width) for stage in states.stages]
    behind = [stage.name for stage in states.stages if stage.in_settings and stage.rows.outdated]
    missing = [stage.name for stage in states.stages if stage.in_settings and stage.rows.missing]
    failed = [stage.name for stage in states.stages if stage.rows.rejected]
    if behind:
        what = "missing and outdated" if missing else "outdated"
        again = f"handloom run --db {states.db} --recompute{given}"
        lines.append(f"{what} columns are computed by: {again} (outdated: {', '.join(behind)})")
    elif missing:
        lines.append(f"missing columns are computed by: handloom run --db {states.db}{given}")
    if failed:
        again = f"handloom run --db {states.db} --retry-rejects{given}"
        lines.append(f"rejected ones are tried again by: {again} ({', '.join(failed)}); `handloom status` says why")
    if states.duplicates is not None:
        lines += duplicate_lines(asdict(states.duplicates), states.db)
    return "\n".join(lines)


def _line(stage: StageState, width: int) -> str:
    rows = stage.rows
    numbers = (rows.current, rows.outdated, rows.missing, rows.rejected)
    counts = " ".join(f"{'-' if num is None else num:>9}" for num in numbers)
    clip_s = "-" if stage.clip_s is None else f"{stage.clip_s:.3f}"
    size = "-" if stage.clip_bytes is None else f"{stage.clip_bytes / 1000:.1f}"
    reads = [*(["video"] if stage.frames == "video" else ["stored frames"] if stage.frames else []), *stage.reads]
    told = ", ".join([*reads, *stage.clip_fields]) if stage.in_settings else "(not in the settings any more)"
    return f"{stage.name:<{width}}  {stage.key or '-':<16} {counts} {clip_s:>8} {size:>8}  {told}".rstrip()


def _declared(db: Database, config: RunConfig | None) -> tuple[list[Declared], str]:
    """The stages in order, and why their keys are those of the last run; empty if they follow from the settings."""
    try:
        return _by_settings(config or _stored_config(db)), ""
    except (ConfigError, ModuleNotFoundError) as error:
        if config is not None:
            raise
        why = error.problem if isinstance(error, ConfigError) else f"the package {error.name} is not installed"
        return _by_last_run(db), why


def _by_settings(config: RunConfig) -> list[Declared]:
    from handloom.stages.own import OwnStage  # the stages need the extra `extract`
    from handloom.stages.registry import stage_graph
    from handloom.stages.versions import model_versions

    settings = config.settings()
    graph = stage_graph(settings)
    keys = graph.keys(model_versions(settings))
    found = []
    for node in graph.nodes:
        own = node if isinstance(node, OwnStage) else None
        frames = "video" if node.reads_frames else "stored" if own is not None and own.request is not None else None
        columns = () if own is None else own.reads_columns
        fields = (node.reads_stages, frames, columns, tuple(node.clip_fields), tuple(node.columns))
        found.append(Declared(node.name, keys[node.name], *fields, None if own is None else own.config.class_))
    return found


def _by_last_run(db: Database) -> list[Declared]:
    """The stages whose keys the last run recorded, and those that handloom brings."""
    table = db.table("clips")
    keys: dict[str, str] = next((json.loads(run.stage_keys) for run in reversed(list_runs(db)) if run.stage_keys), {})
    names = [*COLUMNS_OF, *(name for name in keys if name not in COLUMNS_OF)]
    return [Declared(name, keys.get(name), (), None, (), (), _columns(table, name)) for name in names]


def _recorded_keys(settings: dict[str, Any], versions: dict[str, str]) -> Mapping[str, str]:
    """Nothing without the extra `extract`."""
    try:
        from handloom.stages.keys import recorded_keys
    except ModuleNotFoundError:
        return {}
    return recorded_keys(settings, versions)


def _columns(table: Any, stage: str) -> tuple[str, ...]:
    """The columns of a stage that a table has, without its key and state."""
    if stage in COLUMNS_OF or table is None:
        return COLUMNS_OF.get(stage, ())
    return tuple(f.name for f in table.schema if owner_of(f) == stage and f.name != key_column(stage))


def _stored_config(db: Database) -> RunConfig:
    stored = settings_to_go_on(db)
    return RunConfig(**of_any_version(stored.settings)) if stored else RunConfig()


def _a_row(total: float | None, num_rows: int) -> float | None:
    return total / num_rows if total and num_rows > 0 else None
