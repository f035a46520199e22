"""The filters of the search page as one SQL filter, for searches that rank: `Catalogue.masks` passes the same clips."""

from __future__ import annotations

from collections.abc import Iterable

from handloom.errors import ConfigError
from handloom.schemas.tables.stage_columns import key_column
from handloom.store.filters import clause, in_list
from handloom.web.catalogue import NUMBERS, Catalogue, Filters, Known

MOST_IDS = 20_000  # in one filter


def sql_of(catalogue: Catalogue, filters: Filters, known: Known) -> str | None:
    """The filters as one SQL filter, for searches that rank; None: all pass. Raises ConfigError as `masks`."""
    parts = [] if filters.where is None else [clause(catalogue.db.expanded(filters.where)) or "true"]
    for name, values in filters.chosen.items():
        parts.append(_chosen_sql(name, values, known))
    for name, (least, most) in filters.ranges.items():
        catalogue.number(name)
        column = name if name in NUMBERS else f"quality.{name}"
        bounds = [f"{column} >= {least!r}"] if least is not None else []
        bounds += [f"{column} <= {most!r}"] if most is not None else []
        parts.append(" AND ".join(bounds) or f"{column} IS NOT NULL")
    for stage, state in filters.stages:
        parts.append(_stage_sql(catalogue, stage, state, known))
    return " AND ".join(f"({part})" for part in parts) or None


def _chosen_sql(name: str, values: Iterable[str], known: Known) -> str:
    if name == "hand":
        cases = {
            "none": "NOT hand_left AND NOT hand_right",
            "left": "hand_left AND NOT hand_right",
            "right": "hand_right AND NOT hand_left",
            "both": "hand_left AND hand_right",
        }
        return " OR ".join(f"({cases[value]})" for value in values if value in cases) or "false"
    if name == "flag":
        ids = {flag: [one for one, said in known.verdicts.items() if said == flag] for flag in ("good", "bad")}
        asked = [_ids_sql(ids[value]) for value in values if value in ids]
        if "none" in values:
            asked.append(f"NOT ({_ids_sql([*ids['good'], *ids['bad']])})")
        return " OR ".join(asked) or "false"
    column = "world_scale" if name == "scale" else name
    some = in_list(column, [value for value in values if value])
    return f"{some} OR {column} IS NULL" if "" in values else some


def _stage_sql(catalogue: Catalogue, stage: str, state: str, known: Known) -> str:
    catalogue.check_stage(stage, state)
    if state == "rejected":
        return _ids_sql(known.rejected(stage))
    column = f"`{key_column(stage)}`"
    if state == "missing":
        return f"{column} IS NULL"
    key = known.keys().get(stage)
    same = "false" if key is None else in_list(column, [key])
    return same if state == "current" else f"{column} IS NOT NULL AND NOT ({same})"


def _ids_sql(ids: Iterable[str]) -> str:
    listed = list(ids)
    if len(listed) > MOST_IDS:
        problem = f"{len(listed)} clips are in the filter of a search, at most {MOST_IDS} can be"
        raise ConfigError(problem, "search without this filter")
    return in_list("clip_id", listed)
