"""Windows as a Ray Data dataset, for Ray Train's `datasets=` or another consumer on the cluster."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import ray
from numpy.typing import NDArray

from handloom.windows.api import Windows
from handloom.windows.loading.loader import block_steps
from handloom.windows.order import Order

ROWS_PER_BATCH = 64


def window_dataset(windows: Windows, *, shuffle: bool = True, seed: int = 0, epoch: int = 0) -> ray.data.Dataset:
    """Every window once, one row per window with the keys of a sample; None where a sample has None.

    There is one read task per block of clips (`Windows.loader` has the same blocks): each row of the table is read by
    one task. `seed` and `epoch` set the order of blocks and within them. Ray Data returns blocks as they get ready: set
    `ray.data.DataContext.execution_options.preserve_order` where the order matters.
    """
    order = Order(windows.plan, 1, block_steps(windows), shuffle, seed, epoch)
    blocks = [{"windows": block.windows(order)} for block in order.blocks()]
    made = ray.data.from_items(blocks, override_num_blocks=len(blocks))
    return made.map_batches(_Read(windows), batch_size=1, zero_copy_batch=True)


class _Read:
    """Reads a block's windows; opens the table only when it runs in a worker."""

    def __init__(self, windows: Windows) -> None:
        self._windows = windows

    def __call__(self, batch: dict[str, NDArray[Any]]) -> Iterator[dict[str, NDArray[Any]]]:
        (numbers,) = batch["windows"]
        numbers = np.asarray(numbers, np.int64)
        windows = self._windows
        clips, which = windows.plan.locate(numbers)
        used = np.unique(clips)
        rows = dict(zip(used.tolist(), windows.read_rows(used.tolist()), strict=True))
        for start in range(0, len(numbers), ROWS_PER_BATCH):
            part = slice(start, start + ROWS_PER_BATCH)
            samples = [windows.sample(rows[int(c)], int(n)) for c, n in zip(clips[part], which[part], strict=True)]
            yield {key: _column([sample[key] for sample in samples]) for key in samples[0]}


def _column(values: list[Any]) -> NDArray[Any]:
    if isinstance(values[0], np.ndarray) and len({value.shape for value in values}) == 1:
        return np.stack(values)
    if isinstance(values[0], bool | int | float | str) and all(type(value) is type(values[0]) for value in values):
        return np.array(values)
    column = np.empty(len(values), object)
    column[:] = values
    return column
