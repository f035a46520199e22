"""`WindowLoader`: batches of windows as torch tensors, in an order that can be resumed exactly."""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from handloom.errors import ConfigError
from handloom.store.windows.collate import collate as collate_samples
from handloom.store.windows.order import Block, Order
from handloom.store.windows.rows import Row
from handloom.store.windows.sample import Sample

if TYPE_CHECKING:
    from handloom.store.windows.dataset import Windows

BLOCKS_HELD = 3  # the one that is served, the one before where a batch straddles, the one that is being read
BATCHES_AHEAD = 2  # per thread


class WindowLoader:
    """Batches of this rank's windows; `iter` gives one epoch, and the next `iter` the next one.

    The order is a function of (windows, version, seed, epoch, rank, world_size, batch_size) alone: `Order`. Reading
    goes block by block, the next block while this one is served; `num_workers` threads cut, decode and collate batches
    ahead of their use (reading, JPEG decoding and copying leave Python's lock), in the same order for any number.

    Args:
        windows: what to hand out.
        batch_size: windows per batch.
        shuffle: False goes clip by clip, in stored order.
        seed: of the shuffling.
        rank, world_size: this process's share; every rank has equally many batches, no window comes twice.
        num_workers: threads; 0 reads when asked.
        drop_last: leave out what fills no batch on every rank; False hands out a smaller last batch, and with several
            ranks repeats up to world_size - 1 windows so that shares stay equal.
        collate: list of samples -> batch; by default `handloom.store.windows.collate.collate`.

    Raises ConfigError for a rank or size out of range.
    """

    def __init__(
        self,
        windows: Windows,
        batch_size: int,
        *,
        shuffle: bool = True,
        seed: int = 0,
        rank: int = 0,
        world_size: int = 1,
        num_workers: int = 0,
        drop_last: bool = True,
        collate: Callable[[list[Sample]], Any] | None = None,
    ) -> None:
        if batch_size < 1 or num_workers < 0 or not 0 <= rank < world_size:
            raise ConfigError(
                f"batch_size={batch_size}, num_workers={num_workers}, rank={rank} of {world_size}",
                "a batch of 1 or more, 0 or more threads, and ranks from 0 to world_size - 1",
            )
        self.windows = windows
        self.batch_size = batch_size
        self.epoch = 0
        self._batches = 0  # of this epoch, handed out
        self._resumed = False
        self._options = {"shuffle": shuffle, "seed": seed, "world_size": world_size, "drop_last": drop_last}
        self._rank = rank
        self._num_workers = num_workers
        self._collate = collate or collate_samples
        self._block_clips = block_clips(windows)

    def __len__(self) -> int:
        return self._order().num_batches

    def set_epoch(self, epoch: int) -> None:
        """The epoch that the next `iter` gives; the one that a loaded state is in goes on where it was."""
        if epoch != self.epoch:
            self.epoch, self._batches, self._resumed = epoch, 0, False

    def state_dict(self) -> dict[str, Any]:
        """Where the loader is, counted in batches handed out; JSON values, the same on every rank."""
        return self._facts() | {"epoch": self.epoch, "batches": self._batches, "block_clips": self._block_clips}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on after the last batch that was handed out: the next `iter` gives the rest of that epoch.

        Raises ConfigError for the state of other windows, another version, batch size, seed or number of ranks.
        """
        mine = self._facts()
        other = {name: state.get(name) for name in mine if state.get(name) != mine[name]}
        if other:
            listed = ", ".join(f"{name} {value!r}, here {mine[name]!r}" for name, value in other.items())
            raise ConfigError(
                f"the loader's state is of another job: {listed}", "resume with the same windows and settings"
            )
        self.epoch, self._batches = int(state["epoch"]), int(state["batches"])
        self._block_clips = int(state["block_clips"])
        self._resumed = True
        if self._batches >= len(self):
            self.epoch, self._batches = self.epoch + 1, 0

    def __iter__(self) -> Iterator[Any]:
        self._batches = self._batches if self._resumed else 0
        self._resumed = False
        for batch in self._read(self._order(), self._batches):
            self._batches += 1
            if self._batches == len(self):
                self.epoch, self._batches = self.epoch + 1, 0
                yield batch
                return
            yield batch

    def _facts(self) -> dict[str, Any]:
        facts = {"key": self.windows.key, "version": self.windows.version, "windows": len(self.windows)}
        return facts | {"batch_size": self.batch_size} | self._options

    def _order(self) -> Order:
        return Order(
            self.windows.plan,
            self.batch_size,
            self._block_clips,
            epoch=self.epoch,
            rank=self._rank,
            **self._options,
        )

    def _read(self, order: Order, start: int) -> Iterator[Any]:
        """Batches in order; reading and cutting run ahead in threads."""
        num = max(self._num_workers, 1)
        with ThreadPoolExecutor(1, "blocks") as reading, ThreadPoolExecutor(num, "cut") as cutting:
            blocks = _Blocks(self.windows, reading, order.blocks())
            if not self._num_workers:
                for numbers, of in order.batches(start):
                    yield self._cut(numbers, blocks.rows(of))
                return
            ahead: deque[Future[Any]] = deque()
            try:
                for numbers, of in order.batches(start):
                    ahead.append(cutting.submit(self._cut, numbers, blocks.rows(of)))
                    if len(ahead) > BATCHES_AHEAD * self._num_workers:
                        yield ahead.popleft().result()
                while ahead:
                    yield ahead.popleft().result()
            finally:  # a consumer that stops early leaves no work behind
                for future in ahead:
                    future.cancel()

    def _cut(self, numbers: NDArray[np.int64], rows: list[Future[dict[int, Row]]]) -> Any:
        held = {clip: row for future in rows for clip, row in future.result().items()}
        clips, which = self.windows.plan.locate(numbers)
        copy = self._collate is not collate_samples  # which copies what it is given
        samples = [self.windows.sample(held[int(c)], int(n), copy) for c, n in zip(clips, which, strict=True)]
        return self._collate(samples)


class _Blocks:
    """Rows of the blocks in use, each read once, in one request, by the reading thread; the next one ahead of its use.

    every: all blocks of the epoch, in order.
    """

    def __init__(self, windows: Windows, reading: ThreadPoolExecutor, every: Iterator[Block]) -> None:
        self._windows = windows
        self._reading = reading
        self._every = every
        self._last = -1
        self._held: OrderedDict[int, Future[dict[int, Row]]] = OrderedDict()

    def rows(self, blocks: list[Block]) -> list[Future[dict[int, Row]]]:
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

    def _read(self, block: Block) -> dict[int, Row]:
        clips = np.unique(block.clips)
        return dict(zip(clips.tolist(), self._windows.read_rows(clips), strict=True))


def block_clips(windows: Windows) -> int:
    """Clips per block, from the size of the first row: a block's rows fit `memory.block_mb`, its pictures
    `memory.pictures_mb`. Found anew from the same version it is the same."""
    plan, memory = windows.plan, windows.memory
    row = windows.read_rows([0])[0]
    num = (memory.block_mb << 20) // max(row.num_bytes, 1)
    pictures = sum(len(jpegs) for jpegs in row.jpegs.values() if jpegs is not None)
    if pictures:
        height, width = windows.spec.image_size or (256, 456)
        num = min(num, (memory.pictures_mb << 20) // (pictures * height * width * 3))
    return int(min(max(num, 1), len(plan.rows)))
