"""Which windows there are: from a light scan of the table, a few bytes per clip."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass

import lance
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from handloom.errors import ConfigError, StoreError
from handloom.store.embodiment import ALL, HUMAN, ROBOT
from handloom.store.lance_faults import LANCE_ERRORS, first_words
from handloom.store.sql import clause, filtered
from handloom.windows.spec import COMPUTED_BY, IMAGES, NULL_WHERE, VIDEO_OF, WindowSpec
from handloom.windows.split import held_out_rows, num_videos, of_robots


@dataclass(frozen=True)
class Plan:
    """The windows of a table's version, clip by clip in stored order; arrays are of equal length R, the clips in use.

    rows: (R,) int64, the clip's place among the table's rows, as `take` counts them. ids: (R,) its id. steps: (R,)
    int32, steps that the clip has on the windows' rate. starts: (R + 1,) int64, the number of its first window, and
    their sum. counts: what was left out, and why. num_videos: that have windows, on either side of a split.
    """

    rows: NDArray[np.int64]
    ids: pa.Array
    steps: NDArray[np.int32]
    starts: NDArray[np.int64]
    counts: dict[str, int]
    num_videos: int = 0

    @property
    def num_windows(self) -> int:
        return int(self.starts[-1])

    def locate(self, windows: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """(clip, which of its windows) of each window number."""
        clips = np.searchsorted(self.starts, windows, side="right") - 1
        return clips, windows - self.starts[clips]


def make_plan(table: lance.LanceDataset, spec: WindowSpec, robots: Collection[str] = ()) -> Plan:
    """Count the windows of every row that passes the spec's filter and split. robots: names of robots' datasets.

    Clips of the other embodiment are left out and counted as `other_embodiment`, rows without a needed column (no poses
    for a world column, no embedding) as `null_COLUMN`, rows shorter than a window as `too_short`, rows of the other
    split as `other_split`. One side of a split may be empty; then there are no windows (`Windows.why_empty`).

    Raises:
        ConfigError: an unreadable filter; no window is left in either split: the message says what took them.
    """
    found = _scan(table, spec)
    counts = Counter(rows=table.count_rows())
    counts["filtered"] = counts["rows"] - found.num_rows
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
    if not per_clip.any():
        raise _nothing(spec, counts, steps[keep])
    used = np.flatnonzero(per_clip)
    with_windows = found.take(pa.array(used))
    if spec.split is not None:
        held_out = held_out_rows(with_windows, spec, robots, lambda: long_enough(table, spec))
        outside = held_out != (spec.split == "held_out")
        counts["other_split"] = int(outside.sum())
        per_clip[used[outside]] = 0
    used = np.flatnonzero(per_clip)
    counts["clips"], counts["windows"] = len(used), int(per_clip.sum())
    _check_widths(found.take(pa.array(used)), spec)
    starts = np.concatenate([[0], np.cumsum(per_clip[used])]).astype(np.int64)
    ids = found.column(spec.id_column).combine_chunks().take(pa.array(used))
    rows = found.column("_row").to_numpy()[used].astype(np.int64)
    return Plan(rows, ids, steps[used].astype(np.int32), starts, dict(counts), num_videos(with_windows, spec))


def count_windows(steps: NDArray[np.integer], spec: WindowSpec) -> NDArray[np.int64]:
    """Windows of a clip of so many steps: whole ones, or with `pad` one for every `now` in the clip."""
    room = np.asarray(steps, np.int64) - (1 if spec.pad else spec.num_steps)
    return np.where(room < 0, 0, room // spec.stride + 1)


def now_of(number: NDArray[np.integer] | int, spec: WindowSpec) -> NDArray[np.integer] | int:
    """The step in its clip at which a clip's window of this number stands."""
    return number * spec.stride + (0 if spec.pad else spec.past - 1)


def _scan(table: lance.LanceDataset, spec: WindowSpec) -> pa.Table:
    """Ids, lengths and the null marks of the rows that pass `where`; `_row` is their place in the table."""
    light = {name: name for name in (spec.id_column, "num_frames", *VIDEO_OF[spec.table])}
    if spec.rate_hz is not None:
        light["frame_s"] = "frame_s"
    if spec.table == "robot_episodes":
        light |= {"dataset": "dataset"} | {f"{name}_names": f"{name}_names" for name in _vectors(spec)}
    for name in spec.columns():
        if name in NULL_WHERE:
            light[f"null_{name}"] = NULL_WHERE[name]
        elif name.startswith("embedding_") or name in _vectors(spec):
            light[f"null_{name}"] = f"{name} IS NULL"
    return _read(table, spec, light | {"_row": "_rowoffset"}, spec.where)


def long_enough(table: lance.LanceDataset, spec: WindowSpec) -> pa.Table:
    """Of all rows that are as long as a window, whatever they hold, what tells one video from another."""
    timed = "num_frames" if spec.rate_hz is None else "frame_s"
    rows = _read(table, spec, {name: name for name in (*VIDEO_OF[spec.table], timed)})
    return rows.filter(pa.array(count_windows(_steps(rows, spec), spec) > 0))


def _read(table: lance.LanceDataset, spec: WindowSpec, columns: dict[str, str], where: str | None = None) -> pa.Table:
    try:
        with filtered(where, table.schema):
            return table.to_table(columns=columns, filter=clause(where))
    except LANCE_ERRORS as error:
        raise StoreError(f"cannot read table {spec.table}: {first_words(error)}", "was it moved?") from error


def _embodied(found: pa.Table, spec: WindowSpec, robots: Collection[str]) -> NDArray[np.bool_]:
    """(R,) whether a row is of the embodiment that is asked for."""
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
    """Of robot episodes, the columns whose width is the dataset's own."""
    return [n for n in ("state", "action") if spec.table == "robot_episodes" and n in spec.fields]


def _check_widths(found: pa.Table, spec: WindowSpec) -> None:
    """Raise ConfigError where robots of different states or actions meet in one dataset of windows."""
    for name in _vectors(spec):
        names = found.column(f"{name}_names").to_pylist()
        widths = {len(n): d for n, d in zip(names, found.column("dataset").to_pylist(), strict=True) if n is not None}
        if len(widths) > 1:
            (few, one), (many, other) = sorted(widths.items())[:2]
            raise ConfigError(
                f"{name} has {few} numbers in dataset {one!r} and {many} in {other!r}",
                f"one kind of robot at a time: where=\"dataset = '{one}'\"",
            )


def _nothing(spec: WindowSpec, counts: Counter, steps: NDArray[np.int64]) -> ConfigError:
    """Says which of the reasons took the most rows, and what to do."""
    if not counts["rows"]:
        what = "`handloom run`" if spec.table == "clips" else "`handloom ingest lerobot`"
        return ConfigError(f"table {spec.table} holds no row", f"fill it with {what}")
    if counts["too_short"]:
        rate = f"at {spec.rate_hz:g} Hz" if spec.rate_hz else "as sampled"
        return ConfigError(
            f"no window: the longest of {counts['too_short']} rows has {int(steps.max())} steps {rate}, a window takes "
            f"{spec.num_steps} (past {spec.past} + future {spec.future})",
            "shorten the windows, lower rate_hz, or use pad=True",
        )
    if (others := counts["other_embodiment"]) and others == counts["rows"] - counts["filtered"]:
        asked, there = ("people", "robots") if spec.embodiment == HUMAN else ("robots", "people")
        return ConfigError(
            f"windows of {asked} are asked for (embodiment={spec.embodiment!r}), and all {others} clips"
            f"{' that pass the filter' if spec.where else ''} are of {there}",
            f"embodiment={ROBOT if there == 'robots' else HUMAN!r} takes them, {ALL!r} takes both",
        )
    nulls = {name.removeprefix("null_"): n for name, n in counts.items() if name.startswith("null_") and n}
    if nulls:
        column = max(nulls, key=lambda name: nulls[name])
        hint = COMPUTED_BY.get(column, "extract again with the settings that compute it")
        return ConfigError(f"column {column} is null in all {nulls[column]} rows that are asked for", hint)
    return ConfigError(f"where = {spec.where!r} passes none of {counts['rows']} rows", "change the filter")


def check_pictures(table: lance.LanceDataset, spec: WindowSpec, plan: Plan) -> None:
    """Raise ConfigError where pictures are asked for and no row has any: looks at all only where the first has none."""
    column = "frame_jpeg"
    if not spec.cameras or not len(plan.rows):
        return
    first = table.take([int(plan.rows[0])], columns=[column])
    if first.column(0).null_count and table.count_rows(filter=f"{column} IS NOT NULL") == 0:
        raise ConfigError(
            f"fields asks for {IMAGES}, and column {column} is null in every row of {spec.table}", COMPUTED_BY[column]
        )
