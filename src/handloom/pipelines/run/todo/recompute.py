"""Whether a run may go on with a table whose rows were made with other settings or versions, and what that changes."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from handloom.errors import ConfigError
from handloom.pipelines.configure import describe_change, warn_of_releases
from handloom.pipelines.run.todo.survey import roots
from handloom.plural import plural
from handloom.schemas.settings import Settings
from handloom.stages.graph import StageGraph
from handloom.stages.keys import recorded_keys
from handloom.store.runs.runs import StoredSettings, newest_of_stages
from handloom.store.tables import Tables

ALL = "all"
NONE = "none"
"""Instead of stages to compute again: rows keep what they have, although it is outdated."""


@dataclass(frozen=True)
class Change:
    """How today's stages differ from those of the last run. stages: those with another key, in order. roots: where that
    began. settings, versions: what differs, as sentences."""

    stages: tuple[str, ...] = ()
    roots: tuple[str, ...] = ()
    settings: str = ""
    versions: str = ""


def change_since(
    stored: StoredSettings | None,
    graph: StageGraph,
    keys: Mapping[str, str],
    settings: Settings,
    versions: dict[str, str],
) -> Change:
    """Compare with the settings and versions of the last run. Warns if only releases that count as the same differ."""
    if stored is None:
        return Change()
    before = stored.stage_keys or recorded_keys(stored.settings, stored.versions)
    stages = [name for name in graph.names if name in before and before[name] != keys[name]]
    if not stages:
        warn_of_releases(stored.versions, versions)
        return Change()
    changed, others = describe_change(stored, settings, versions)
    return Change(tuple(stages), tuple(roots(graph, stages)), changed, others)


def check_allowed(
    change: Change,
    graph: StageGraph,
    recompute: Collection[str] | None,
    rows: Mapping[str, int],
    rates: Mapping[str, float],
    retyped: Collection[str] = (),
) -> None:
    """Refuse to outdate rows unless the user has asked for it, or to keep them as they are.

    Args:
        recompute: stages that may be computed again, with those that depend on them; `all`; `none`: rows stay as they
            are; None: the user has said nothing.
        rows: {stage: rows for which it would be computed}. rates: {stage: seconds a clip}.
        retyped: stages that write a column as another type: no row can stay as it is.

    Raises:
        ConfigError: it lists what differs, the stages, rows and estimated hours, and the ways to go on.
    """
    if not change.stages or (recompute is None and not any(rows.values())) or keeps(recompute):
        return
    allowed = allowed_stages(graph, recompute)
    left = [name for name in change.stages if name not in allowed]
    if not left:
        return
    differing = "; ".join(filter(None, (change.settings, change.versions)))
    listed = differing or f"stages {', '.join(change.roots)} have other keys (another version of the tables)"
    made = "with other settings" if change.settings else "by another version of handloom, or of its packages"
    num = max(rows.get(name, 0) for name in left)
    effort = f"{plural(num, 'row')} of stages {', '.join(left)} would be computed again{_hours(left, rows, rates)}"
    again = _command(graph, recompute, left)
    ways = [f"compute them again with {again}"]
    if not retyped:
        ways.append(f"process new clips alone with --recompute {NONE}: these rows stay as they are")
    ways += ["go on with the database's own settings (leave out --config and --set)"] if change.settings else []
    raise ConfigError(
        f"the rows of this database were made {made}: {listed}. {effort[:1].upper()}{effort[1:]}",
        f"{'; or '.join(ways)}; or ingest into another --db",
    )


def allowed_stages(graph: StageGraph, recompute: Collection[str] | None) -> set[str]:
    """The stages that may be computed again. Raises ConfigError for one that is unknown."""
    if recompute is None or keeps(recompute):
        return set()
    return set(graph.names if ALL in recompute else graph.dependents(graph.chosen(recompute)))


def check_rows_allowed(
    graph: StageGraph, recompute: Collection[str], outdated: Mapping[str, int], rates: Mapping[str, float]
) -> None:
    """Refuse to compute stages of rows again that `recompute` does not name, even if the settings are those of the last
    run: it has kept these rows, or was ended before it came to them. outdated: {stage: rows that have another key}.

    Raises ConfigError.
    """
    allowed = allowed_stages(graph, recompute)
    left = [name for name in graph.names if outdated.get(name) and name not in allowed]
    if not left:
        return
    num = max(outdated[name] for name in left)
    problem = f"{plural(num, 'row')} of stages {', '.join(left)} are outdated as well{_hours(left, outdated, rates)}"
    raise ConfigError(problem, f"compute them again with {_command(graph, recompute, left)}; or all with --recompute")


def check_whole(dropped: Sequence[str], is_part: bool) -> None:
    """Refuse to drop columns of all rows in a run that computes them for some, or not at all. Raises ConfigError."""
    if is_part:
        named = ", ".join(dropped)
        problem = f"the columns {named} get another type or another stage, and so lose the values of all rows"
        hint = "leave out --where, --limit and --stages; or ingest these clips into another --db to try it"
        raise ConfigError(problem, hint)


def _command(graph: StageGraph, recompute: Collection[str] | None, left: Sequence[str]) -> str:
    """The option that computes these stages again, too."""
    return f"--recompute {','.join([*recompute, *roots(graph, left)])}" if recompute else "--recompute"


def keeps(recompute: Collection[str] | None) -> bool:
    """Whether outdated rows are left as they are. Raises ConfigError for `none` beside stages."""
    if recompute is None or NONE not in recompute:
        return False
    if len(recompute) > 1:
        raise ConfigError(f"--recompute {','.join(recompute)}: {NONE} stands alone", "leave it out, or the stages")
    return True


def kept_before(db: Tables) -> bool:
    """Whether the last run has left outdated rows as they are: those that follow do the same until `--recompute`."""
    run = newest_of_stages(db)
    return run is not None and json.loads(run.resources or "{}").get("recompute") == [NONE]


def _hours(stages: Sequence[str], rows: Mapping[str, int], rates: Mapping[str, float]) -> str:
    """About how long these stages take for so many rows; "" if no rate is known."""
    known = [name for name in stages if name in rates]
    if not known:
        return ""
    seconds = sum(rates[name] * rows.get(name, 0) for name in known)
    few = f"{seconds / 60:.1f} min" if seconds >= 6 else f"{max(1, round(seconds))} s"
    told = f"{seconds / 3600:.1f} h" if seconds >= 360 else few
    unknown = [name for name in stages if name not in rates and rows.get(name)]
    return f", {'more than' if unknown else 'about'} {told} of one core"
