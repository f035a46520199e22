"""Which stages of which rows a run computes: those that are missing, and those that were made with other settings."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from handloom.stages.graph import StageGraph
from handloom.store.stages.rejects import rejected_clips
from handloom.store.stages.row_keys import keys_by_clip
from handloom.store.tables import Tables


@dataclass
class Survey:
    """The rows that are not whole.

    targets: {clip id: stages to compute, in order}. num_kept: rows whose outdated stages stay as they are. left_out:
    {stage: clips whose rows lack it and cannot get it, as they keep an outdated stage that it reads}. num_outdated:
    {stage: rows with another key of it that get it}. lacking: {clip id: stages without a key}, of `targets`.
    """

    targets: dict[str, tuple[str, ...]] = field(default_factory=dict)
    num_kept: int = 0
    left_out: dict[str, set[str]] = field(default_factory=dict)
    num_outdated: Counter[str] = field(default_factory=Counter)
    lacking: dict[str, frozenset[str]] = field(default_factory=dict)

    def num_of(self, stage: str) -> int:
        """Rows for which a stage is computed."""
        return sum(stage in stages for stages in self.targets.values())


def survey(
    db: Tables,
    graph: StageGraph,
    keys: Mapping[str, str],
    *,
    only: Collection[str] | None = None,
    changed: Mapping[str, Collection[str]] | None = None,
    retry: Collection[str] = (),
    keep: bool = False,
) -> Survey:
    """Compare the keys of all rows with today's.

    Args:
        keys: `{stage: key}` of today's settings and versions.
        only: compute these stages only, with what they need and with the rows' other columns that depend on them.
        changed: {clip id: stages whose input in the clip list has changed}.
        retry: reasons of rejects with today's key that are tried again; other rejected stages are left out.
        keep: leave outdated stages as they are, with what depends on them.

    Reads the key columns alone. Raises StoreError.
    """
    rejected = rejected_clips(db, {name: keys[name] for name in graph.names}, but=retry)
    found = Survey()
    plans: dict[tuple[frozenset[str], ...], tuple[str, ...]] = {}
    for clip_id, stored in keys_by_clip(db, graph.names):
        missing = frozenset(name for name in graph.names if stored.get(name) is None)
        outdated = frozenset(name for name, key in stored.items() if key not in (None, keys[name]))
        touched = frozenset((changed or {}).get(clip_id, ()))
        failed = frozenset(name for name in missing | outdated if clip_id in rejected[name]) - touched
        left = outdated if keep else frozenset()
        if keep:
            found.num_kept += bool(outdated)
            barred = missing.intersection(graph.dependents(outdated)) if missing and outdated else frozenset()
            for name in barred:
                found.left_out.setdefault(name, set()).add(clip_id)
            missing, outdated = missing - barred, frozenset()
        if not (missing or outdated or touched):
            continue
        case = (missing, outdated, touched, left | failed)
        if case not in plans:
            plans[case] = targets_of(graph, *case, only)
        if plans[case]:
            found.targets[clip_id] = plans[case]
            found.lacking[clip_id] = missing
            found.num_outdated.update(outdated.intersection(plans[case]))
    return found


def targets_of(
    graph: StageGraph,
    missing: Collection[str],
    outdated: Collection[str],
    touched: Collection[str],
    failed: Collection[str],
    only: Collection[str] | None = None,
) -> tuple[str, ...]:
    """The stages to compute for a row, in order.

    Stages that depend on an outdated one are outdated, too: their keys hold its key. Those that depend on a missing one
    may have today's key where an ingest has removed its key as its words changed. What was rejected is left out, with
    all that needs it, and with what may only change together with it.

    Args:
        missing: without a key. outdated: with another one. touched: with today's, but made from another input.
        failed: of the missing and outdated ones, those that have failed.
    """
    stale = {*outdated, *graph.dependents([*missing, *touched])}
    if only is not None:
        wanted = set(graph.ancestors(set(only) & stale)) & stale
        stale = wanted | (set(graph.dependents(wanted)) & stale - set(missing))
    for name in graph.chosen(failed):
        stale -= set(graph.dependents([name]))
        if name in outdated:
            stale -= set(graph.dependents(set(graph.ancestors([name])) & stale))
    return tuple(name for name in graph.names if name in stale)


def roots(graph: StageGraph, stages: Iterable[str]) -> list[str]:
    """Of these stages, those that read none of the others, in order."""
    some = set(stages)
    return [name for name in graph.names if name in some and not some.intersection(graph[name].reads_stages)]


def by_targets(survey_: Survey, clip_ids: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """The targets of these clips alone."""
    return {clip_id: survey_.targets[clip_id] for clip_id in clip_ids if clip_id in survey_.targets}
