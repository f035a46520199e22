"""Means, spreads and quantiles of fields, for normalisation: computed once over the windows' rows, then stored."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import lance
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from handloom.errors import ConfigError, StoreError
from handloom.schemas.tables.stage_columns import is_per_frame
from handloom.store.filters import quoted
from handloom.store.lance_faults import LANCE_ERRORS, first_words
from handloom.windows.rows.reader import RowReader, TableRow
from handloom.windows.spec import COMPUTED_BY, FIRST, FRAMED, check_columns, make_spec

if TYPE_CHECKING:
    from handloom.windows.dataset import WindowDataset

log = logging.getLogger(__name__)

TABLE = "window_statistics"
SCHEMA = pa.schema(
    [
        pa.field("key", pa.string(), nullable=False),  # hash of table, version, rows and field
        pa.field("table", pa.string(), nullable=False),
        pa.field("version", pa.int64(), nullable=False),
        pa.field("field", pa.string(), nullable=False),
        pa.field("statistics", pa.string(), nullable=False),  # JSON
    ]
)
ROWS_AT_ONCE = 32
QUANTILE_VALUES = 1 << 24  # 64 MiB of float32 per field: 133 000 frames of hands, 5 400 of 1 552 tracks in pixels
QUANTILES = {"q01": 0.01, "q99": 0.99}


def statistics(windows: WindowDataset, fields: Sequence[str] | None = None) -> dict[str, dict[str, Any]]:
    """`{field: {mean, std, min, max, q01, q99, count, num_missing}}`, each an array of a frame's shape.

    Over all frames of the rows that have windows, each frame once. NaN is missing: it is counted and left out of the
    averages; an element that is never known is NaN. std is that of the population. Quantiles are exact up to 2^24
    numbers of a field (64 MiB, 133 000 frames of hands); beyond that they are those of every n-th frame. fields: by
    default all floating per-frame fields of the windows.

    Stored in the table `window_statistics` by version and rows; if the database cannot be written they are computed
    again every time, with a warning in the log. Raises ConfigError for a field without numbers per frame, and for a
    field in `fields` of which no frame is known.
    """
    names = _fields(windows, fields)
    found = {name: stored for name in names if (stored := _stored(windows, name)) is not None}
    missing = [name for name in names if name not in found]
    if missing:
        computed = compute_statistics(windows, missing)
        _keep(windows, computed)
        found |= computed
    for name in fields or ():
        if not found[name]["count"].any():
            raise _unknown(name, int(found[name]["num_missing"].max()))
    return {name: found[name] for name in names}


def _fields(windows: WindowDataset, fields: Sequence[str] | None) -> list[str]:
    spec = windows.spec
    schema = windows.db.existing_table(spec.table, windows.version).schema
    own = {field.name: _number(field.type) for field in schema if is_per_frame(field)}
    framed = FRAMED[spec.table] | {name for name, kind in own.items() if kind is not None}
    if fields is None:
        fields = [
            name for name in spec.columns() if name in framed and pa.types.is_floating(own.get(name, pa.float32()))
        ]
        fields = [name for name in fields if name in own or not name.endswith(("_visible", "_infilled", "_flags"))]
    for name in fields:
        if name not in framed:
            known = ", ".join(sorted(framed))
            problem = f"statistics of {name!r}: no column of {spec.table} with numbers for each frame"
            raise ConfigError(problem, f"one of {known}")
    check_columns(replace(spec, fields=tuple(fields)), schema)
    return list(fields)


def _number(kind: pa.DataType) -> pa.DataType | None:
    """The type of a list's numbers, however deep; None where it holds others."""
    while pa.types.is_list(kind) or pa.types.is_fixed_size_list(kind):
        kind = kind.value_type
    return kind if pa.types.is_floating(kind) or pa.types.is_integer(kind) or pa.types.is_boolean(kind) else None


def compute_statistics(
    windows: WindowDataset, names: Sequence[str], *, quantile_values: int = QUANTILE_VALUES
) -> dict[str, dict[str, Any]]:
    """As `statistics`, computed anew and not stored. quantile_values: of a field, of which quantiles are exact."""
    spec = make_spec(past=1, future=0, fields=names, table=windows.spec.table, track_grid=FIRST)
    reader = RowReader(windows.db.location, spec, windows.version, 0)
    total = int(windows.plan.steps.sum())
    sums = {name: _Sums(total, quantile_values) for name in names}
    for row in _rows(reader, windows.plan.rows):
        for name in names:
            values = row.framed[name]
            if values is None:
                sums[name].skip(len(row.frame_s))
            else:
                sums[name].add(values)
    return {name: sums[name].result(name) for name in names}


def _rows(reader: RowReader, places: NDArray[np.int64]) -> Iterator[TableRow]:
    for start in range(0, len(places), ROWS_AT_ONCE):
        yield from reader.read(places[start : start + ROWS_AT_ONCE].tolist())


class _Sums:
    """Means and variances, merged row by row (Chan, Golub and LeVeque 1983), and every n-th frame for quantiles."""

    def __init__(self, num_frames: int, quantile_values: int) -> None:
        """num_frames: the most frames that are added. quantile_values: numbers that are kept for quantiles."""
        self._num_frames = num_frames
        self._quantile_values = quantile_values
        self._step = 0
        self._seen = self._skipped = 0
        self._kept: list[NDArray[np.float32]] = []
        self.count: NDArray[np.int64] | None = None

    def skip(self, num_frames: int) -> None:
        """Count frames of a row where the field is null."""
        self._skipped += num_frames

    def add(self, values: NDArray[Any]) -> None:
        """values: (T, ...), NaN unknown."""
        self._step = self._step or max(1, -(-self._num_frames * values[:1].size // self._quantile_values))
        self._kept.append(values[(-self._seen) % self._step :: self._step].astype(np.float32))
        self._seen += len(values)
        values = values.astype(np.float64)
        known = np.isfinite(values)
        count = known.sum(axis=0)
        mean = np.where(known, values, 0.0).sum(axis=0) / np.maximum(count, 1)
        spread = (np.where(known, values - mean, 0.0) ** 2).sum(axis=0)
        low = np.where(known, values, np.inf).min(axis=0, initial=np.inf)
        high = np.where(known, values, -np.inf).max(axis=0, initial=-np.inf)
        if self.count is None:
            self.count, self.mean, self.spread, self.low, self.high = count, mean, spread, low, high
        elif self.count.shape != count.shape:
            raise ConfigError(f"rows of {self.count.shape} and of {count.shape} numbers per frame", "filter by dataset")
        else:
            both = np.maximum(self.count + count, 1)
            off = mean - self.mean
            self.spread = self.spread + spread + off**2 * self.count * count / both
            self.mean = self.mean + off * count / both
            self.count = self.count + count
            self.low, self.high = np.minimum(self.low, low), np.maximum(self.high, high)

    def result(self, name: str) -> dict[str, Any]:
        if self.count is None:
            raise _unknown(name, self._skipped)
        never = self.count == 0
        kept = np.concatenate(self._kept)
        kept = np.where(np.isfinite(kept), kept, np.nan)
        some = np.where(np.isnan(kept).all(axis=0), np.float32(0), kept)  # numpy warns of columns without a number
        found = {
            "mean": np.where(never, np.nan, self.mean),
            "std": np.where(never, np.nan, np.sqrt(self.spread / np.maximum(self.count, 1))),
            "min": np.where(never, np.nan, self.low),
            "max": np.where(never, np.nan, self.high),
        }
        quantiles = np.nanquantile(some, list(QUANTILES.values()), axis=0)
        found |= {name: np.where(never, np.nan, q) for name, q in zip(QUANTILES, quantiles, strict=True)}
        return found | {"count": self.count, "num_missing": self._seen + self._skipped - self.count}


def _unknown(field: str, num_frames: int) -> ConfigError:
    hint = COMPUTED_BY.get(field, "extract again with the settings that compute it")
    return ConfigError(f"column {field} is not known in any of {num_frames} frames", hint)


def _key(windows: WindowDataset, field: str) -> str:
    spec = windows.spec
    rows = hashlib.sha256(np.ascontiguousarray(windows.plan.rows).tobytes()).hexdigest()
    return hashlib.sha256(json.dumps([spec.table, windows.version, rows, field]).encode()).hexdigest()[:32]


def _stored(windows: WindowDataset, field: str) -> dict[str, Any] | None:
    found = windows.db.read(TABLE, ["statistics"], f"key = {quoted(_key(windows, field))}")
    if not found.num_rows:
        return None
    return {name: np.array(values) for name, values in json.loads(found.column(0)[0].as_py()).items()}


def _keep(windows: WindowDataset, found: dict[str, dict[str, Any]]) -> None:
    rows = [
        {
            "key": _key(windows, field),
            "table": windows.spec.table,
            "version": windows.version,
            "field": field,
            "statistics": json.dumps({name: np.asarray(values).tolist() for name, values in numbers.items()}),
        }
        for field, numbers in found.items()
    ]
    uri = windows.db.location.table_uri(TABLE)
    options = windows.db.storage_options or None
    try:
        windows.db.ensure_table(TABLE, SCHEMA)
        lance.write_dataset(pa.Table.from_pylist(rows, SCHEMA), uri, mode="append", storage_options=options)
    except (StoreError, *LANCE_ERRORS) as error:
        reason = error.problem if isinstance(error, StoreError) else first_words(error)
        log.warning("statistics are not kept and will be computed again: %s", reason)
