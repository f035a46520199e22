"""The windows that a table has, from a scan of light columns: a few bytes per clip."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Any

import lance
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from handloom.errors import ConfigError, StoreError
from handloom.schemas.tables.stage_columns import key_column
from handloom.store.embodiment import ALL, HUMAN, ROBOT
from handloom.store.filters import clause, filtered
from handloom.store.lance_faults import LANCE_ERRORS, first_words
from handloom.store.retry import past_lost_indexes
from handloom.store.stages.row_keys import Spread, key_spread, none_has, stages_behind, with_demand
from handloom.windows.chosen import windows_within
from handloom.windows.spec import COMPUTED_BY, IMAGES, NULL_WHERE, VIDEO_OF, WindowSpec
from handloom.windows.split import held_out_rows, joined_videos, num_videos, of_robots


@dataclass(frozen=True)
class Plan:
    """The windows of a version of a table, clip by clip in stored order. R: clips that have windows.

    rows: (R,) int64, the clip's place among the table's rows, as `take` counts them. ids: (R,) its id. steps: (R,)
    int32, steps of the clip at the windows' rate. starts: (R + 1,) int64, number of its first window, and the number of
    windows. counts: rows left out, by reason. num_videos: videos with windows, on both sides of a split. stage_keys:
    how many of the R rows have which key of each stage whose columns are read. firsts: (R,) int64, which of the clip's
    windows its first one here is; None: window 0 of every clip.
    """

    rows: NDArray[np.int64]
    ids: pa.Array
    steps: NDArray[np.int32]
    starts: NDArray[np.int64]
    counts: dict[str, int]
    num_videos: int = 0
    stage_keys: Spread = field(default_factory=dict)
    firsts: NDArray[np.int64] | None = None

    @property
    def num_windows(self) -> int:
        return int(self.starts[-1])

    def locate(self, windows: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """(clip, which of its windows) of each window number."""
        clips = np.searchsorted(self.starts, windows, side="right") - 1
        within = windows - self.starts[clips]
        return clips, within if self.firsts is None else within + self.firsts[clips]


def make_plan(table: lance.LanceDataset, spec: WindowSpec, robots: Collection[str] = ()) -> Plan:
    """Count the windows of every row that passes the spec's filter and split. robots: names of robots' datasets.

    Clips of the other embodiment are left out and counted as `other_embodiment`, rows of another key than the demanded
    one of a stage as `other_stage_key`, rows that lack a column (no poses for
    a world column, no embedding) as `null_COLUMN`, rows shorter than a window as `too_short`, rows of the other split
    as `other_split`. One side of a split may be empty; then there are no windows (`Windows.why_empty`).

    Raises:
        ConfigError: the filter cannot be used, or there is no window in either split; the message says why.
    """
    found = _scan(table, spec)
    counts = Counter(rows=table.count_rows())
    counts["filtered"] = counts["rows"] - found.num_rows
    if spec.stage_keys:
        counts["other_stage_key"] = table.count_rows(clause(spec.where)) - found.num_rows
        counts["filtered"] -= counts["other_stage_key"]
    keep = _embodied(found, spec, robots)
    if robots and spec.table == "clips":
        counts["other_embodiment"] = int((~keep).sum())
    for column in _null_columns(found):
        is_null = found.column(column).to_numpy() & keep
        counts[column] = int(is_null.sum())
        keep &= ~is_null
    steps = _steps(found, spec)
    per_clip = np.where(keep, count_windows(steps, spec), 0)
    counts["too_short"] = int((keep & (per_clip == 0)).sum())
    firsts = None
    if spec.spans:
        num_before = int((per_clip > 0).sum())
        firsts, per_clip = _within(found, spec, per_clip)
        counts["outside_times"] = num_before - int((per_clip > 0).sum())
    if not per_clip.any():
        raise _nothing(table, spec, counts, steps[keep])
    used = np.flatnonzero(per_clip)
    with_windows = found.take(pa.array(used))
    joined = {} if spec.split is None else joined_videos(table, spec)
    if spec.split is not None:
        held_out = held_out_rows(with_windows, spec, robots, lambda: long_enough(table, spec), joined)
        outside = held_out != (spec.split == "held_out")
        counts["other_split"] = int(outside.sum())
        per_clip[used[outside]] = 0
    used = np.flatnonzero(per_clip)
    counts["clips"], counts["windows"] = len(used), int(per_clip.sum())
    _check_widths(found.take(pa.array(used)), spec)
    starts = np.concatenate([[0], np.cumsum(per_clip[used])]).astype(np.int64)
    ids = found.column(spec.id_column).combine_chunks().take(pa.array(used))
    rows = found.column("_row").to_numpy()[used].astype(np.int64)
    keys = _keys(found, used)
    firsts = None if firsts is None else firsts[used]
    light = steps[used].astype(np.int32)
    return Plan(rows, ids, light, starts, dict(counts), num_videos(with_windows, spec, joined), keys, firsts)


def count_windows(steps: NDArray[np.integer[Any]], spec: WindowSpec) -> NDArray[np.int64]:
    """Windows of clips with so many steps: whole windows, or with `pad` one for every `now` in the clip."""
    last = np.asarray(steps, np.int64) - (1 if spec.pad else spec.num_steps)
    return np.where(last < 0, 0, last // spec.stride + 1)


def now_of(number: int, spec: WindowSpec) -> int:
    """The step of its clip that is `now` in a clip's window of this number."""
    return number * spec.stride + (0 if spec.pad else spec.past - 1)


def _within(
    found: pa.Table, spec: WindowSpec, per_clip: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """First window and number of windows of each row within the spec's spans."""
    reach = (0, 0, 0, spec.stride) if spec.pad else (spec.past - 1, spec.future, spec.past - 1, spec.stride)
    return windows_within(found, spec.id_column, spec.spans, per_clip, reach, spec.rate_hz)


def _scan(table: lance.LanceDataset, spec: WindowSpec) -> pa.Table:
    """Ids, lengths and nulls of the rows that pass `where`; `_row` is their place in the table."""
    light = {name: name for name in (spec.id_column, "num_frames", *VIDEO_OF[spec.table])}
    if spec.rate_hz is not None or spec.spans:
        light["frame_s"] = "frame_s"
    if spec.table == "robot_episodes":
        light |= {"dataset": "dataset"} | {f"{name}_names": f"{name}_names" for name in _vectors(spec)}
    for name in (name for name in spec.columns() if name not in spec.optional):
        if name in NULL_WHERE:
            light[f"null_{name}"] = NULL_WHERE[name]
        elif name.startswith("embedding_") or name in _vectors(spec):
            light[f"null_{name}"] = f"{name} IS NULL"
    for stage in stages_behind(table.schema, spec.read_columns()):
        light[f"key_{stage}"] = f"`{key_column(stage)}`"
    where = with_demand(spec.where, dict(spec.stage_keys))
    return _read(table, spec, light | {"_row": "_rowoffset"}, where)


def _keys(found: pa.Table, used: NDArray[np.int64]) -> Spread:
    """How many of the rows `used` have which key of each stage."""
    spread: Spread = {}
    for name in found.column_names:
        if name.startswith("key_"):
            counts = found.column(name).take(pa.array(used)).value_counts().to_pylist()
            spread[name.removeprefix("key_")] = Counter({pair["values"]: pair["counts"] for pair in counts})
    return spread


def long_enough(table: lance.LanceDataset, spec: WindowSpec) -> pa.Table:
    """The columns that identify a video, of all rows that are as long as a window, whatever their nulls."""
    timed = "num_frames" if spec.rate_hz is None else "frame_s"
    rows = _read(table, spec, {name: name for name in (*VIDEO_OF[spec.table], timed)})
    return rows.filter(pa.array(count_windows(_steps(rows, spec), spec) > 0))


def _read(table: lance.LanceDataset, spec: WindowSpec, columns: dict[str, str], where: str | None = None) -> pa.Table:
    try:
        with filtered(where, table):
            return past_lost_indexes(
                table.uri, lambda use: table.to_table(columns=columns, filter=clause(where), use_scalar_index=use)
            )
    except LANCE_ERRORS as error:
        raise StoreError(f"cannot read table {spec.table}: {first_words(error)}", "was it moved?") from error


def _embodied(found: pa.Table, spec: WindowSpec, robots: Collection[str]) -> NDArray[np.bool_]:
    """(R,) whether a row is of the spec's embodiment."""
    if spec.table != "clips" or spec.embodiment == ALL:
        return np.ones(found.num_rows, bool)
    return of_robots(found, spec, robots) == (spec.embodiment == ROBOT)


def _null_columns(found: pa.Table) -> list[str]:
    return [name for name in found.column_names if name.startswith("null_")]


def _steps(found: pa.Table, spec: WindowSpec) -> NDArray[np.int64]:
    if spec.rate_hz is None:
        return found.column("num_frames").to_numpy().astype(np.int64)
    times = found.column("frame_s").combine_chunks()
    offsets, flat = times.offsets.to_numpy(), times.values.to_numpy()
    length = offsets[1:] - offsets[:-1]
    if not len(flat):
        return length.astype(np.int64)
    first, last = flat[np.minimum(offsets[:-1], len(flat) - 1)], flat[np.maximum(offsets[1:] - 1, 0)]
    return np.where(length == 0, 0, np.floor((last - first) * spec.rate_hz + 0.5) + 1).astype(np.int64)


def _vectors(spec: WindowSpec) -> list[str]:
    """The columns of robot episodes whose width differs between datasets."""
    return [n for n in ("state", "action") if spec.table == "robot_episodes" and n in spec.fields]


def _check_widths(found: pa.Table, spec: WindowSpec) -> None:
    """Raise ConfigError if states or actions of the rows differ in width."""
    for name in _vectors(spec):
        names = found.column(f"{name}_names").to_pylist()
        widths = {len(n): d for n, d in zip(names, found.column("dataset").to_pylist(), strict=True) if n is not None}
        if len(widths) > 1:
            (few, one), (many, other) = sorted(widths.items())[:2]
            raise ConfigError(
                f"{name} has {few} numbers in dataset {one!r} and {many} in {other!r}",
                f"one kind of robot at a time: where=\"dataset = '{one}'\"",
            )


def _nothing(
    table: lance.LanceDataset, spec: WindowSpec, counts: Counter[str], steps: NDArray[np.int64]
) -> ConfigError:
    """The error for a spec without windows: the reason that took the most rows, and what to do."""
    if not counts["rows"]:
        what = "`handloom run`" if spec.table == "clips" else "`handloom ingest lerobot`"
        return ConfigError(f"table {spec.table} holds no row", f"fill it with {what}")
    if others := counts["outside_times"]:
        return ConfigError(
            f"no window: in {others} clips the matching times are shorter than a window of {spec.num_steps} steps",
            "take fewer steps in a window, pad=True, or ids without times: clips=[hit.clip_id for hit in hits]",
        )
    if counts["too_short"]:
        rate = f"at {spec.rate_hz:g} Hz" if spec.rate_hz else "as sampled"
        closer = "a higher rate_hz, " if spec.rate_hz else ""  # as many steps take less time
        return ConfigError(
            f"no window: the longest of {counts['too_short']} rows has {int(steps.max())} steps {rate}, a window takes "
            f"{spec.num_steps} (past {spec.past} + future {spec.future})",
            f"take fewer steps in a window, {closer}longer clips, or pad=True",
        )
    if (others := counts["other_embodiment"]) and others == counts["rows"] - counts["filtered"]:
        asked, there = ("people", "robots") if spec.embodiment == HUMAN else ("robots", "people")
        return ConfigError(
            f"windows of {asked} are asked for (embodiment={spec.embodiment!r}), and all {others} clips"
            f"{' that pass the filter' if spec.where else ''} are of {there}",
            f"embodiment={ROBOT if there == 'robots' else HUMAN!r} takes them, {ALL!r} takes both",
        )
    if (others := counts["other_stage_key"]) and others == counts["rows"] - counts["filtered"]:
        demand = dict(spec.stage_keys)
        return none_has(demand, key_spread(table, demand, spec.where))
    nulls = {name.removeprefix("null_"): n for name, n in counts.items() if name.startswith("null_") and n}
    if nulls:
        column = max(nulls, key=lambda name: nulls[name])
        hint = COMPUTED_BY.get(column, "extract again with the settings that compute it")
        return ConfigError(f"column {column} is null in all {nulls[column]} rows that are asked for", hint)
    return ConfigError(f"where = {spec.where!r} passes none of {counts['rows']} rows", "change the filter")


def check_images(table: lance.LanceDataset, spec: WindowSpec, plan: Plan) -> None:
    """Raise ConfigError if images are asked for and no row has any. All rows are read only if the first has none."""
    column = "frame_jpeg"
    if not spec.cameras or not len(plan.rows):
        return
    first = table.take([int(plan.rows[0])], columns=[column])
    if first.column(0).null_count and table.count_rows(filter=f"{column} IS NOT NULL") == 0:
        raise ConfigError(
            f"fields asks for {IMAGES}, and column {column} is null in every row of {spec.table}", COMPUTED_BY[column]
        )
