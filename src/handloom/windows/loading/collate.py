"""Makes a batch of torch tensors from samples."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from handloom.errors import ConfigError
from handloom.windows.sample import Sample

NUMBERS = (((bool, np.bool_), np.bool_), ((int, np.integer), np.int64), ((float, np.floating), np.float64))
Empty = Callable[[tuple[int, ...], np.dtype[Any]], NDArray[Any]]


def collate(samples: list[Sample], empty: Empty = np.empty) -> dict[str, Any]:
    """`{key: (B, ...) tensor}` for arrays and numbers; lists of B values for strings, None and other types.

    `neighbours` (a list of k samples each) becomes a dict of (B, k, ...) tensors. Raises ConfigError if the arrays of
    one key differ in shape, or only some samples have one.

    Args:
        empty: returns memory for an array of a shape and type; it is written once.
    """
    return {key: _column(key, [sample[key] for sample in samples], empty) for key in samples[0]}


def _column(key: str, values: list[Any], empty: Empty) -> Any:
    first = values[0]
    if key == "neighbours":
        return _neighbours(values, empty)
    if isinstance(first, np.ndarray) or any(isinstance(value, np.ndarray) for value in values):
        return torch.from_numpy(_array(key, values, empty))
    if isinstance(first, torch.Tensor):
        return torch.stack(values)
    for kinds, dtype in NUMBERS:
        if isinstance(first, kinds) and all(isinstance(value, kinds) for value in values):
            numbers = empty((len(values),), np.dtype(dtype))
            numbers[:] = values
            return torch.from_numpy(numbers)
    return values


def _neighbours(values: list[list[Sample]], empty: Empty) -> dict[str, Any]:
    counts = {len(value) for value in values}
    if len(counts) > 1:
        raise ConfigError(f"windows of one batch have {sorted(counts)} neighbours", "give all the same number")
    k = counts.pop()
    flat = collate([sample for value in values for sample in value], empty)
    return {key: _grouped(value, k) for key, value in flat.items()}


def _grouped(value: Any, k: int) -> Any:
    if isinstance(value, torch.Tensor):
        return value.unflatten(0, (-1, k))
    return [value[start : start + k] for start in range(0, len(value), k)]


def _array(key: str, values: list[Any], empty: Empty) -> NDArray[Any]:
    shapes = {getattr(value, "shape", None) for value in values}
    if len(shapes) > 1:
        raise _several(key, shapes)
    return np.stack(values, out=empty((len(values), *values[0].shape), values[0].dtype))


def merge(parts: list[tuple[NDArray[np.int64], dict[str, Any]]]) -> dict[str, Any]:
    """One batch from parts, (places in the batch, collated samples): equal to `collate` of all samples in order.

    The result is a copy. Raises ConfigError as `collate` does.
    """
    total = sum(len(places) for places, _ in parts)
    return {key: _merged(key, [(places, part[key]) for places, part in parts], total) for key in parts[0][1]}


def _merged(key: str, parts: list[tuple[NDArray[np.int64], Any]], total: int) -> Any:
    values = [value for _, value in parts]
    if all(isinstance(value, dict) for value in values):
        return merge(parts)
    tensors = [value for value in values if isinstance(value, torch.Tensor)]
    if any(value.ndim > 1 for value in tensors):
        shapes = {tuple(value.shape[1:]) if isinstance(value, torch.Tensor) else None for value in values}
        if len(shapes) > 1:
            raise _several(key, shapes)
    if len(tensors) == len(parts) and len({value.dtype for value in tensors}) == 1:
        if any(value.dtype == torch.bfloat16 for value in tensors):
            return torch.cat(tensors)[torch.from_numpy(np.argsort(np.concatenate([places for places, _ in parts])))]
        arrays = [value.numpy() for value in tensors]
        batch = np.empty((total, *arrays[0].shape[1:]), arrays[0].dtype)  # in huge pages; torch's memory is not
        for (places, _), array in zip(parts, arrays, strict=True):
            batch[places] = array
        return torch.from_numpy(batch)
    items: list[Any] = [None] * total
    for places, value in parts:
        listed = value.tolist() if isinstance(value, torch.Tensor) else value
        for place, item in zip(places.tolist(), listed, strict=True):
            items[place] = item
    return items


def _several(key: str, shapes: set[tuple[int, ...] | None]) -> ConfigError:
    listed = ", ".join(sorted("none" if shape is None else str(shape) for shape in shapes))
    hint = "give image_size" if key.startswith("images") else "filter the rows, or give a transform that pads"
    return ConfigError(f"{key} has several shapes in one batch: {listed}", hint)
