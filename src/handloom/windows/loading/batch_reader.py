"""Cuts the samples of batches from rows, which are read once, block by block."""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from handloom.windows.order import Block, Order
from handloom.windows.rows.reader import TableRow
from handloom.windows.sample import Sample

if TYPE_CHECKING:
    from handloom.windows.dataset import WindowDataset

BATCHES_AHEAD = 2
BLOCKS_HELD = 3  # the one in use, the one before it (a batch may straddle both), the one that is being read


class Cutter:
    """Cuts the windows of one of `num_shares` equal shares of the clips, while a thread reads the next block.

    copy: as in `WindowDataset.cut`. kept: rows by clip, kept for the next epoch if all of them fit one block.
    """

    def __init__(
        self, windows: WindowDataset, order: Order, *, share: int = 0, num_shares: int = 1, copy: bool = True,
        kept: dict[int, TableRow] | None = None,
    ) -> None:  # fmt: skip
        self._windows = windows
        self._share = share
        self._num_shares = num_shares
        self._copy = copy
        self._kept = {} if kept is None else kept
        self._num_windows = order.num_windows
        self._every: Iterator[Block] = order.blocks()
        self._last = -1
        self._held: OrderedDict[int, Future[dict[int, TableRow]]] = OrderedDict()
        self._reading = ThreadPoolExecutor(1, "blocks")

    def __enter__(self) -> Cutter:
        return self

    def __exit__(self, *_: object) -> None:
        self._reading.shutdown(cancel_futures=True)

    def samples(self, numbers: NDArray[np.int64], blocks: list[Block]) -> tuple[NDArray[np.int64], list[Sample]]:
        """(places in the batch, samples) of the windows in `numbers` that are in this share. blocks: of their clips."""
        places, cut = self.cut(numbers, blocks)
        return places, [self._windows.finish(sample) for sample in cut]

    def ahead(
        self, batches: Iterator[tuple[NDArray[np.int64], list[Block]]], collate: Callable[[list[Sample]], Any]
    ) -> Iterator[Any]:
        """All batches. While one is used, a thread cuts the next ones and decodes their images."""
        cutting = ThreadPoolExecutor(1, "windows")
        begun = (cutting.submit(self.cut, *batch) for batch in batches)
        waiting = deque(islice(begun, BATCHES_AHEAD))
        try:
            while waiting:
                batch = collate([self._windows.finish(sample) for sample in waiting.popleft().result()[1]])
                waiting.extend(islice(begun, 1))  # not earlier: two threads of Python take turns
                yield batch
        finally:
            cutting.shutdown(cancel_futures=True)

    def cut(self, numbers: NDArray[np.int64], blocks: list[Block]) -> tuple[NDArray[np.int64], list[Sample]]:
        """`samples` without neighbours and transform; always from the same thread."""
        held = {clip: row for future in self._rows(blocks) for clip, row in future.result().items()}
        clips, which = self._windows.plan.locate(numbers)
        mine = np.flatnonzero(clips % self._num_shares == self._share)
        cut = self._windows.cut
        return mine, [cut(held[int(c)], int(n), self._copy) for c, n in zip(clips[mine], which[mine], strict=True)]

    def _rows(self, blocks: list[Block]) -> list[Future[dict[int, TableRow]]]:
        for block in blocks:
            self._begin(block)
        if blocks[-1].number > self._last:
            self._last = blocks[-1].number
            following = next((block for block in self._every if block.number > self._last), None)
            if following is not None:
                self._begin(following)
        while len(self._held) > max(BLOCKS_HELD, len(blocks) + 1):
            self._held.popitem(last=False)
        return [self._held[block.number] for block in blocks]

    def _begin(self, block: Block) -> None:
        if block.number not in self._held:
            self._held[block.number] = self._reading.submit(self._read, block)

    def _read(self, block: Block) -> dict[int, TableRow]:
        clips = np.unique(block.clips)
        clips = clips[clips % self._num_shares == self._share].tolist()
        known = {clip: self._kept[clip] for clip in clips if clip in self._kept}
        lacking = [clip for clip in clips if clip not in known]
        rows = known | (dict(zip(lacking, self._windows.read_rows(lacking), strict=True)) if lacking else {})
        self._kept.clear()
        if block.size == self._num_windows:
            self._kept.update(rows)
        return rows
