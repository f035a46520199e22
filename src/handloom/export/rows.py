"""Rows on their way into an export: grouped by their bytes alone, however they arrive; and the text of a clip."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from handloom.errors import ShapeError


def row_groups(batches: Iterable[pa.RecordBatch], schema: pa.Schema, *, max_bytes: int) -> Iterator[pa.Table]:
    """Tables of consecutive rows, each closed by the row with which it reaches `max_bytes`.

    Holds one group and one batch. A group depends on its rows only, never on where the batches were cut.
    Raises ShapeError where a batch does not have the schema's columns and types.
    """
    pending: list[pa.RecordBatch] = []
    num_bytes = 0
    for batch in batches:
        batch = with_schema(batch, schema)
        start = 0
        for index, row_bytes in enumerate(bytes_per_row(batch).tolist()):
            num_bytes += row_bytes
            if num_bytes >= max_bytes:
                yield pa.Table.from_batches([*pending, batch.slice(start, index + 1 - start)], schema)
                pending, num_bytes, start = [], 0, index + 1
        if start < batch.num_rows:
            pending.append(batch.slice(start))
    if pending:
        yield pa.Table.from_batches(pending, schema)


def bytes_per_row(batch: pa.RecordBatch) -> NDArray[np.int64]:
    """(num_rows,) bytes of each row's values. Not `nbytes`, which depends on how a batch is laid out in memory."""
    return sum((_value_bytes(column) for column in batch.columns), start=np.zeros(batch.num_rows, np.int64))


def with_schema(batch: pa.RecordBatch, schema: pa.Schema) -> pa.RecordBatch:
    """`batch` under exactly `schema`, metadata included; columns are cast where a store has renamed an inner field."""
    if batch.schema.names != schema.names:
        missing = sorted(set(schema.names) - set(batch.schema.names))
        extra = sorted(set(batch.schema.names) - set(schema.names))
        raise ShapeError(f"the rows do not have the schema's columns in order: missing {missing}, unexpected {extra}")
    columns = []
    for column, field in zip(batch.columns, schema, strict=True):
        try:
            columns.append(column if column.type.equals(field.type) else column.cast(field.type))
        except (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError) as error:
            raise ShapeError(f"column {field.name} is {column.type}, expected {field.type}: {error}") from error
    return pa.RecordBatch.from_arrays(columns, schema=schema)


def task_of(row: Mapping[str, Any]) -> str:
    """What is done in a clip: its narration, else verb and noun; empty without either."""
    words = [row.get(name) for name in ("verb", "noun")]
    return row.get("narration") or " ".join(word for word in words if word)


def _value_bytes(array: pa.Array[Any]) -> NDArray[np.int64]:
    """(len(array),) bytes of each value; 0 for null."""
    kind = array.type
    if isinstance(kind, pa.BaseExtensionType):
        return _value_bytes(array.storage)
    fixed = _fixed_bytes(kind)
    if fixed is not None:
        return _is_valid(array) * fixed
    if pa.types.is_struct(kind):
        return sum((_value_bytes(child) for child in array.flatten()), start=np.zeros(len(array), np.int64))
    if pa.types.is_map(kind):  # the list that it is in memory
        array = array.cast(pa.list_(pa.struct([("key", kind.key_type), ("value", kind.item_type)])))
    if not pa.types.is_nested(kind):
        return pc.fill_null(pc.binary_length(array), 0).to_numpy(zero_copy_only=False).astype(np.int64)
    if pa.types.is_fixed_size_list(kind):
        counts = _is_valid(array) * kind.list_size
    else:
        counts = pc.fill_null(pc.list_value_length(array), 0).to_numpy(zero_copy_only=False).astype(np.int64)
    inner = _fixed_bytes(array.type.value_type)
    if inner is not None:
        return counts * inner
    up_to = np.concatenate([[0], np.cumsum(_value_bytes(array.flatten()))])
    ends = np.cumsum(counts)
    return up_to[ends] - up_to[ends - counts]


def _is_valid(array: pa.Array[Any]) -> NDArray[np.int64]:
    return array.is_valid().to_numpy(zero_copy_only=False).astype(np.int64)


def _fixed_bytes(kind: pa.DataType) -> int | None:
    """Bytes of a value of this type, at least 1; None where they vary."""
    if pa.types.is_fixed_size_list(kind):
        inner = _fixed_bytes(kind.value_type)
        return None if inner is None else inner * kind.list_size
    if isinstance(kind, pa.BaseExtensionType) or pa.types.is_nested(kind) or _is_text(kind):
        return None
    return 1 if pa.types.is_null(kind) else max(1, kind.bit_width // 8)


def _is_text(kind: pa.DataType) -> bool:
    """Text or bytes, of the small or the large kind, which pandas and polars write."""
    is_text = pa.types.is_string(kind) or pa.types.is_large_string(kind)
    return is_text or pa.types.is_binary(kind) or pa.types.is_large_binary(kind)
