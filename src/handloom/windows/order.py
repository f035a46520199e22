"""The order of windows in an epoch: shuffled, divided evenly over ranks, the same for any number of processes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from handloom.windows.plan import Plan


@dataclass(frozen=True)
class Order:
    """The windows of one rank in one epoch.

    Clips are shuffled; consecutive ones with up to `block_steps` steps together make a block; windows are shuffled
    within their block. So a row is read once an epoch, and a batch holds windows of many clips. Each rank takes a
    consecutive share of the shuffled clips' windows. No window comes twice. With `drop_last` windows that do not fill a
    batch on every rank are left out of this epoch; without it shares differ by at most one window, and the numbers of
    batches may differ.
    """

    plan: Plan
    batch_size: int
    block_steps: int
    shuffle: bool
    seed: int
    epoch: int
    rank: int = 0
    world_size: int = 1
    drop_last: bool = True

    @property
    def share(self) -> tuple[int, int]:
        """This rank's part of the epoch's windows, before they are shuffled within blocks: first, end."""
        total = self.plan.num_windows
        if self.drop_last:
            num = total // self.world_size
            return self.rank * num, (self.rank + 1) * num
        return total * self.rank // self.world_size, total * (self.rank + 1) // self.world_size

    @property
    def num_windows(self) -> int:
        """Of this rank, including those that `drop_last` leaves out."""
        begin, end = self.share
        return end - begin

    @property
    def num_batches(self) -> int:
        num = self.num_windows
        return num // self.batch_size if self.drop_last else -(-num // self.batch_size)

    def batches(self, start: int = 0) -> Iterator[tuple[NDArray[np.int64], list[Block]]]:
        """From batch `start` on: the window numbers of each batch, and the blocks of their clips."""
        left = start * self.batch_size
        held: NDArray[np.int64] = np.empty(0, np.int64)
        blocks: list[Block] = []
        ahead = self.num_batches - start
        for block in self.blocks():
            if left >= block.size:
                left -= block.size
                continue
            fresh = block.windows(self)[left:]
            left = 0
            blocks = [*blocks, block] if len(held) else [block]
            held = np.concatenate([held, fresh])
            while len(held) >= self.batch_size and ahead > 0:
                yield held[: self.batch_size], list(blocks)
                held, ahead = held[self.batch_size :], ahead - 1
                if len(held) <= len(fresh):
                    blocks = [block]
        if len(held) and ahead > 0:
            yield held, list(blocks)

    def clips(self) -> NDArray[np.int64]:
        """(R,) the plan's clips in this epoch's order."""
        num = len(self.plan.rows)
        return self.random(0).permutation(num) if self.shuffle else np.arange(num)

    def random(self, *what: int) -> np.random.Generator:
        """The generator for the order of the clips (0), or for a block of a rank (1, rank, block)."""
        return np.random.default_rng([self.seed, self.epoch, *what])

    def blocks(self) -> Iterator[Block]:
        """The blocks of this rank's share."""
        order = self.clips()
        upto = np.concatenate([[0], np.cumsum((self.plan.starts[1:] - self.plan.starts[:-1])[order])])
        steps = np.cumsum(self.plan.steps[order], dtype=np.int64)
        at, last = self.share
        number = 0
        while at < last:
            clip = int(np.searchsorted(upto, at, side="right")) - 1
            before = int(steps[clip - 1]) if clip else 0
            beyond = max(int(np.searchsorted(steps, before + self.block_steps, side="right")), clip + 1)
            stop = min(last, int(upto[beyond]))
            beyond = int(np.searchsorted(upto, stop - 1, side="right"))
            yield Block(number, at, stop, order[clip:beyond], upto[clip : beyond + 1])
            at, number = stop, number + 1


@dataclass(frozen=True, eq=False)
class Block:
    """Windows `begin` to `end` of the epoch, before they are shuffled within blocks. clips: (B,) numbers of clips in
    the plan. upto: (B + 1,) number of the first window of each, and of the end."""

    number: int
    begin: int
    end: int
    clips: NDArray[np.int64]
    upto: NDArray[np.int64]

    @property
    def size(self) -> int:
        return self.end - self.begin

    def windows(self, order: Order) -> NDArray[np.int64]:
        """(size,) window numbers of the plan, shuffled as the order says."""
        places = np.arange(self.begin, self.end)
        if order.shuffle:
            places = order.random(1, order.rank, self.number).permutation(places)
        clip = np.searchsorted(self.upto, places, side="right") - 1
        return order.plan.starts[self.clips[clip]] + places - self.upto[clip]
