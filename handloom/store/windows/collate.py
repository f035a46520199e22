"""Samples into a batch of torch tensors."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from handloom.errors import ConfigError
from handloom.store.windows.sample import Sample


def collate(samples: list[Sample]) -> dict[str, Any]:
    """`{key: (B, ...) tensor}` of arrays and numbers; lists of B for strings, None and whatever else there is.

    `neighbours` (a list of k samples each) becomes a dict of (B, k, ...) tensors. Raises ConfigError where arrays of
    one key differ in shape, or only some samples have one.
    """
    return {key: _column(key, [sample[key] for sample in samples]) for key in samples[0]}


def _column(key: str, values: list[Any]) -> Any:
    first = values[0]
    if key == "neighbours":
        rows = [collate(value) for value in values]
        return {name: _stacked(name, [row[name] for row in rows]) for name in rows[0]}
    if isinstance(first, np.ndarray) or any(isinstance(value, np.ndarray) for value in values):
        return torch.from_numpy(_array(key, values))
    if isinstance(first, torch.Tensor):
        return torch.stack(values)
    if isinstance(first, bool | np.bool_) and all(isinstance(value, bool | np.bool_) for value in values):
        return torch.tensor([bool(value) for value in values])
    if isinstance(first, int | np.integer) and all(isinstance(value, int | np.integer) for value in values):
        return torch.tensor([int(value) for value in values])
    if isinstance(first, float | np.floating) and all(isinstance(value, float | np.floating) for value in values):
        return torch.tensor([float(value) for value in values], dtype=torch.float64)
    return values


def _stacked(key: str, values: list[Any]) -> Any:
    return torch.stack(values) if isinstance(values[0], torch.Tensor) else values


def _array(key: str, values: list[Any]) -> np.ndarray:
    shapes = {getattr(value, "shape", None) for value in values}
    if len(shapes) > 1:
        raise _several(key, shapes)
    batch = np.empty((len(values), *values[0].shape), values[0].dtype)
    return np.stack(values, out=batch)


def merge(parts: list[tuple[np.ndarray, dict[str, Any]]]) -> dict[str, Any]:
    """One batch of (places in it, collated samples), equal to what `collate` makes of all samples in order.

    Raises ConfigError as `collate` does.
    """
    if len(parts) == 1:
        return parts[0][1]
    total = sum(len(places) for places, _ in parts)
    return {key: _merged(key, [(places, part[key]) for places, part in parts], total) for key in parts[0][1]}


def _merged(key: str, parts: list[tuple[np.ndarray, Any]], total: int) -> Any:
    values = [value for _, value in parts]
    if all(isinstance(value, dict) for value in values):
        return merge(parts)
    tensors = [value for value in values if isinstance(value, torch.Tensor)]
    if any(value.ndim > 1 for value in tensors):
        shapes = {tuple(value.shape[1:]) if isinstance(value, torch.Tensor) else None for value in values}
        if len(shapes) > 1:
            raise _several(key, shapes)
    if len(tensors) == len(parts) and len({value.dtype for value in tensors}) == 1:
        batch = torch.empty((total, *tensors[0].shape[1:]), dtype=tensors[0].dtype)
        for places, value in parts:
            batch[torch.from_numpy(places)] = value
        return batch
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
