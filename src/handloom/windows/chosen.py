"""Windows of chosen clips alone: hits of a search, or ids."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from handloom.errors import ConfigError
from handloom.plural import plural
from handloom.store.filters import both, forms_of, in_list
from handloom.store.search.results import Hit, Hits
from handloom.store.tables import Tables

Span = tuple[str, float, float]
SLACK_S = 1e-3


def narrowed_to(db: Tables, clips: Hits | Sequence[str], asked: dict[str, Any]) -> dict[str, Any]:
    """The arguments of `Database.windows` for these clips: `where`, `version` and `spans` follow from them.

    Raises ConfigError for no clip, for something else than ids or hits, for hits with robot episodes, and for clips
    that have no row in this version.
    """
    if isinstance(clips, str):
        raise ConfigError(f"clips={clips!r}: expected hits of a search, or a list of ids", f"clips=[{clips!r}]")
    ids: list[Any] = list(clips)
    spans: tuple[Span, ...] = ()
    if isinstance(clips, Hits):
        if asked["table"] != "clips":
            raise ConfigError(f"clips are hits of a search in `clips`, and the table is {asked['table']}")
        ids = [hit.clip_id for hit in clips]
        spans = tuple(
            (h.clip_id, h.match_start_s, h.match_end_s)
            for h in clips
            if h.match_start_s is not None and h.match_end_s is not None
        )
        asked = asked | {"version": clips.version if asked["version"] is None else asked["version"]}
    if not ids:
        problem = "clips is empty: expected hits of a search, or ids"
        raise ConfigError(problem, "a search without a hit gives no windows")
    if others := [id_ for id_ in ids if not isinstance(id_, str)]:
        what = type(others[0]).__name__ if isinstance(others[0], Hit) else repr(others[0])
        hint = "hits, or a part of them: hits[:5]; or ids: [hit.clip_id for hit in hits]"
        raise ConfigError(f"clips holds {what}: expected hits of a search, or a list of ids", hint)
    column = "clip_id" if asked["table"] == "clips" else "episode_id"
    chosen = in_list(column, dict.fromkeys(form for id_ in ids for form in forms_of(id_)))
    _check_there(db, asked, column, ids, chosen)
    where = both(asked["where"], chosen)
    return asked | {"where": where, "spans": spans}


def _check_there(db: Tables, asked: dict[str, Any], column: str, ids: Sequence[str], chosen: str) -> None:
    """Raise ConfigError for ids without a row: training without them would be on something else."""
    table = db.table(asked["table"], asked["version"])
    if table is None:
        return
    there = set(db.read(asked["table"], [column], chosen, table.version).column(column).to_pylist())
    lacking = [id_ for id_ in dict.fromkeys(ids) if there.isdisjoint(forms_of(id_))]
    if lacking:
        named = ", ".join(lacking[:3]) + (", ..." if len(lacking) > 3 else "")
        problem = f"{len(lacking)} of {plural(len(set(ids)), 'clip')} have no row in version {table.version} of "
        hint = "leave them out, or give the version that has them (`hits.version`)"
        raise ConfigError(f"{problem}{asked['table']}: {named}", hint)


def windows_within(
    found: pa.Table,
    ids: str,
    spans: Sequence[Span],
    per_clip: NDArray[np.int64],
    reach: tuple[int, int, int, int],
    rate_hz: float | None,
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """(number of the first window, how many) of each row whose windows lie within its span; other rows keep theirs.

    reach: steps of a window before and after its now, now of window 0, and steps between windows. With `pad` a window
    counts by its now: the first two are 0.
    """
    before, after, first_now, stride = reach
    at = {clip_id: (start_s, end_s) for clip_id, start_s, end_s in spans}
    first, num = np.zeros(len(per_clip), np.int64), per_clip.copy()
    names = found.column(ids).to_pylist()
    for place in np.flatnonzero(per_clip):
        if names[place] not in at:
            continue
        start_s, end_s = at[names[place]]
        times = found.column("frame_s")[int(place)].values.to_numpy()
        if rate_hz is not None:
            num_steps = int(np.floor((times[-1] - times[0]) * rate_hz + 0.5)) + 1
            times = times[0] + np.arange(num_steps) / rate_hz
        inside = np.flatnonzero((times >= start_s - SLACK_S) & (times <= end_s + SLACK_S))
        low, high = (inside[0] + before, inside[-1] - after) if len(inside) else (0, -1)
        low = max(0, -((first_now - low) // stride))  # the first window whose now is not before `low`
        high = min(int(per_clip[place]) - 1, (high - first_now) // stride)
        first[place], num[place] = low, max(0, high - low + 1)
    return first, num
