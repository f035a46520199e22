"""Columns of stages that handloom does not bring: which ones a table can have, and values as cells of them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from handloom.schemas.tables.arrow import clips_schema
from handloom.schemas.tables.row import cell_to_arrow
from handloom.schemas.tables.stage_columns import KEY_PREFIX, STATE_PREFIX, is_per_frame

STORABLE = (
    "numbers, bool, text, bytes, times, lists and structs can; lists of a fixed size hold numbers, bool, times or such "
    "lists, at least one; a struct's members have a name each"
)
COLUMN = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,99}")
_BASE = {field.name for field in clips_schema(1)}
_OF_ONE_WIDTH = (
    *(pa.types.is_boolean, pa.types.is_integer, pa.types.is_floating),
    *(pa.types.is_date, pa.types.is_time, pa.types.is_timestamp, pa.types.is_duration),
)
_STORABLE = (
    *_OF_ONE_WIDTH,
    *(pa.types.is_string, pa.types.is_large_string, pa.types.is_binary, pa.types.is_large_binary),
)


def wrong_field(field: pa.Field) -> tuple[str, str] | None:
    """What is wrong with a column that a stage of one's own declares, and what to do; None: nothing."""
    if not COLUMN.fullmatch(field.name):
        return "has no name of letters, digits and _, at most 100", "give it another name"
    if field.name in _BASE or field.name.startswith((KEY_PREFIX, STATE_PREFIX)):
        return "is one that handloom writes: the name is taken", "give it another name"
    if not field.nullable or _has_strict_member(field.type):
        return "is not nullable", "null says that a value is unknown: leave nullable=False out"
    if not _is_storable(field.type):
        return f"is {field.type}, which cannot be stored", STORABLE
    if is_per_frame(field) and not pa.types.is_list(field.type):
        return f"is {field.type} with a value for each frame", "make it with handloom.stages.frame_field"
    is_embedding = (field.metadata or {}).get(b"encoder") is not None
    if field.name.startswith("embedding_") != is_embedding:
        return "is an embedding by its name or its metadata alone", "make it with handloom.stages.embedding_field"
    return None


def _has_strict_member(kind: pa.DataType) -> bool:
    """Whether a struct in it has a member that is not nullable: in a null struct it is null, and Parquet refuses it."""
    if _is_list(kind):
        return _has_strict_member(kind.value_type)
    return pa.types.is_struct(kind) and any(not part.nullable or _has_strict_member(part.type) for part in kind)


def _is_storable(kind: pa.DataType) -> bool:
    """Whether Lance writes it and reads the same (pylance 14.0.2: lists of a fixed size with text make it panic)."""
    if pa.types.is_fixed_size_list(kind):
        inner = kind.value_type
        is_fixed = pa.types.is_fixed_size_list(inner) or any(is_kind(inner) for is_kind in _OF_ONE_WIDTH)
        return kind.list_size > 0 and is_fixed and _is_storable(inner)
    if _is_list(kind):
        return _is_storable(kind.value_type)
    if pa.types.is_struct(kind):
        names = [part.name for part in kind]
        return 0 < len(names) == len(set(names)) and all(_is_storable(part.type) for part in kind)
    return any(is_kind(kind) for is_kind in _STORABLE)


def own_cell(value: Any, field: pa.Field) -> pa.Array:
    """A value of one's own column as an Arrow array of length 1; strict about lengths and kinds. Raises ValueError and
    Arrow's errors."""
    kind = field.type
    if value is None:
        return pa.nulls(1, kind)
    if isinstance(value, np.ndarray):
        _check_kind(value, kind)
        value = _nested(value, kind)
    value = value.item() if isinstance(value, np.generic) else value
    _check_whole(value, kind)
    cell = cell_to_arrow(value, field) if not isinstance(value, np.ndarray) else pa.array([value.tolist()], kind)
    if (field.metadata or {}).get(b"encoder") is not None:
        norm = float(np.linalg.norm(cell.flatten().to_numpy(zero_copy_only=False).astype(np.float64)))
        if not abs(norm - 1) < 1e-3:
            raise ValueError(f"an embedding has unit norm, this one {norm:.6g}")
    return cell


def _check_whole(value: Any, kind: pa.DataType) -> None:
    """Arrow cuts the fraction off numbers of Python."""
    if isinstance(value, (list, tuple)) and hasattr(kind, "value_type"):
        for item in value:
            _check_whole(item, kind.value_type)
    elif isinstance(value, Mapping) and pa.types.is_struct(kind):
        for part in kind:
            _check_whole(value.get(part.name), part.type)
    elif isinstance(value, (float, np.floating)) and pa.types.is_integer(kind):
        raise ValueError(f"{value} is no whole number by its type")


def _check_kind(value: NDArray[Any], kind: pa.DataType) -> None:
    depth, inner = 0, kind
    while pa.types.is_list(inner) or pa.types.is_fixed_size_list(inner):
        depth, inner = depth + 1, inner.value_type
    if pa.types.is_integer(inner) and value.dtype.kind == "f":
        raise ValueError(f"an array of {value.dtype} has no whole numbers")
    if pa.types.is_floating(inner) and value.dtype.kind == "f" and value.dtype.itemsize * 8 > inner.bit_width:
        largest = float(np.finfo(f"f{inner.bit_width // 8}").max)
        if np.any(np.isfinite(value) & (np.abs(value) > largest)):
            raise ValueError(f"numbers above {largest:.3g} do not fit")
    if value.ndim < depth:
        raise ValueError(f"an array of {value.ndim} dimensions, expected {depth} or more")


def _nested(value: NDArray[Any], kind: pa.DataType) -> NDArray[Any]:
    """(T, ...) flattened to the depth of the lists: (T, 2, 21) of `list<fixed_size_list[42]>` is (T, 42)."""
    depth, innermost = 0, kind
    while _is_list(kind):
        depth, innermost, kind = depth + 1, kind, kind.value_type
    if value.ndim <= depth or not pa.types.is_fixed_size_list(innermost):
        return value
    return value.reshape(*value.shape[: depth - 1], -1 if value.size else innermost.list_size)


def _is_list(kind: pa.DataType) -> bool:
    return pa.types.is_list(kind) or pa.types.is_fixed_size_list(kind) or pa.types.is_large_list(kind)
