"""The table `clip_features`: the vectors that retrieval compares, computed once per clip or episode and encoder.

A row holds the vector of a text and one vector for each of T images. Its id is a hash of what it was made from: with
another encoder, another T, or a row that was extracted anew it is another one. If two processes write one id at the
same time their values are equal, and reading takes one of them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from handloom.errors import ShapeError
from handloom.schemas.tables.arrow import key_field
from handloom.store.filters import in_list
from handloom.store.lance_faults import LANCE_ERRORS
from handloom.store.location import store_error
from handloom.store.tables import Tables

TABLE = "clip_features"
IDS_PER_READ = 1000

CLIP_FEATURES = pa.schema(
    [
        key_field("feature_id"),
        pa.field("table", pa.string(), nullable=False),  # clips or robot_episodes
        pa.field("row_id", pa.string(), nullable=False),  # clip_id or episode_id
        pa.field("row_key", pa.string(), nullable=False),  # the row's run_key or source_key
        pa.field("encoder_key", pa.string(), nullable=False),
        pa.field("num_steps", pa.int32(), nullable=False),  # T
        pa.field("text", pa.list_(pa.float16())),  # (D), null without a text
        pa.field("seen", pa.list_(pa.float16())),  # (T * E), NaN where an image is missing; null without any
    ],
    metadata={"handloom_schema": "1"},
)


@dataclass(frozen=True)
class ClipFeatures:
    """Vectors of N rows of a table. ids: (N). text: (N, D) float16, NaN for a row without a text. seen: (N, T, E)
    float16, NaN where an image is missing; E is 0 for encoders of text alone."""

    ids: tuple[str, ...]
    text: NDArray[np.float16]
    seen: NDArray[np.float16]

    def __post_init__(self) -> None:
        if len({len(self.ids), len(self.text), len(self.seen)}) > 1 or self.text.ndim != 2 or self.seen.ndim != 3:
            raise ShapeError(f"{len(self.ids)} ids, text of {self.text.shape}, seen of {self.seen.shape}")


def feature_id(table: str, row_id: str, row_key: str, encoder_key: str, num_steps: int) -> str:
    """32 hex digits."""
    content = "\0".join((table, row_id, row_key, encoder_key, str(num_steps)))
    return hashlib.sha256(content.encode()).hexdigest()[:32]


def read_features(
    db: Tables, table: str, rows: Mapping[str, str], encoder_key: str, num_steps: int, sizes: tuple[int, int]
) -> ClipFeatures:
    """The stored features of `rows` ({row id: its run_key or source_key}), in their order; rows without are left out.

    sizes: D and E. Raises StoreError if the table cannot be read.
    """
    wanted = {feature_id(table, row, key, encoder_key, num_steps): row for row, key in rows.items()}
    found: dict[str, list[NDArray[np.float16] | None]] = {}
    ids = list(wanted)
    for start in range(0, len(ids), IDS_PER_READ):
        part = db.read(TABLE, ["feature_id", "text", "seen"], in_list("feature_id", ids[start : start + IDS_PER_READ]))
        if part.num_columns:
            columns = (_arrays(part.column(name)) for name in ("text", "seen"))
            found |= {id_: pair for id_, *pair in zip(part.column("feature_id").to_pylist(), *columns, strict=True)}
    there = [id_ for id_ in wanted if id_ in found]
    text = np.full((len(there), sizes[0]), np.nan, np.float16)
    seen = np.full((len(there), num_steps, sizes[1]), np.nan, np.float16)
    for number, id_ in enumerate(there):
        words, images = found[id_]
        if words is not None:
            text[number] = words
        if images is not None:
            seen[number] = images.reshape(num_steps, sizes[1])
    return ClipFeatures(tuple(wanted[id_] for id_ in there), text, seen)


def write_features(db: Tables, table: str, rows: Mapping[str, str], encoder_key: str, features: ClipFeatures) -> None:
    """Add the features of rows that have none yet; existing ones stay as they are.

    rows: {row id: its run_key or source_key} of all rows in `features`. Raises StoreError if it cannot be written.
    """
    if not features.ids:
        return
    num_steps = features.seen.shape[1]
    keys = [rows[row] for row in features.ids]
    columns = {
        "feature_id": [feature_id(table, row, rows[row], encoder_key, num_steps) for row in features.ids],
        "table": [table] * len(keys),
        "row_id": list(features.ids),
        "row_key": keys,
        "encoder_key": [encoder_key] * len(keys),
        "num_steps": [num_steps] * len(keys),
        "text": _vectors(features.text),
        "seen": _vectors(features.seen.reshape(len(keys), -1)),
    }
    arrays = [pa.array(columns[field.name], field.type) for field in CLIP_FEATURES]
    lance_table = db.ensure_table(TABLE, CLIP_FEATURES)
    try:
        adding = lance_table.merge_insert("feature_id").when_not_matched_insert_all()
        adding.execute(pa.Table.from_arrays(arrays, schema=CLIP_FEATURES))
    except LANCE_ERRORS as error:
        raise store_error("write the features of clips", db.location.table_uri(TABLE), error) from error


def _arrays(column: pa.ChunkedArray) -> list[NDArray[np.float16] | None]:
    """The vectors of a column, as numpy arrays and not as lists of Python numbers."""
    return [one.values.to_numpy(zero_copy_only=False) if one.is_valid else None for one in column]


def _vectors(values: NDArray[np.float16]) -> Sequence[NDArray[np.float16] | None]:
    """The rows; None for a row that is empty or all NaN."""
    return [row if row.size and np.isfinite(row).any() else None for row in values]
