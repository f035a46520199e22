"""`WindowLoader`: batches of windows as torch tensors, in an order that can be resumed exactly."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from handloom.errors import ConfigError
from handloom.windows.loading.batch_reader import Cutter
from handloom.windows.loading.collate import collate as collate_samples
from handloom.windows.loading.processes import Processes
from handloom.windows.order import Order
from handloom.windows.rows.reader import TableRow
from handloom.windows.sample import Sample

if TYPE_CHECKING:
    from handloom.windows.dataset import WindowDataset

SAMPLED_ROWS = 4


class WindowLoader:
    """Batches of this rank's windows; `iter` gives one epoch, and the next `iter` the next one.

    The order is a function of (windows, version, seed, epoch, rank, world_size, batch_size, memory) alone: `Order`.
    Rows are read block by block; a thread reads the next block while one is in use.

    Args:
        windows: the windows.
        batch_size: windows per batch.
        shuffle: False goes clip by clip, in stored order.
        seed: of the shuffling.
        rank, world_size: this process's share; no window comes twice.
        num_workers: processes that read, decode, cut and transform ahead. 0: threads of this process read and decode
            ahead, and the transform runs when a batch is asked for. The processes divide every block by clip, so that
            no row is read twice; the batches are the same for any number of them. They are spawned: a script that makes
            a loader with workers needs `if __name__ == "__main__":`.
        drop_last: leave out windows that do not fill a batch on every rank, so that all ranks have the same number of
            batches. False: every window, a smaller last batch, and ranks may differ by one batch.
        collate: list of samples -> batch, in this process; by default `handloom.windows.loading.collate.collate`.

    Raises ConfigError for a rank or size out of range.
    """

    def __init__(
        self,
        windows: WindowDataset,
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
                "a batch of 1 or more, 0 or more workers, and ranks from 0 to world_size - 1",
            )
        self.windows = windows
        self.batch_size = batch_size
        self.epoch = 0
        self._batches = 0  # of this epoch, so far
        self._resumed = False
        self._options: dict[str, Any] = {
            "shuffle": shuffle,
            "seed": seed,
            "world_size": world_size,
            "drop_last": drop_last,
        }
        self._rank = rank
        self._num_workers = num_workers
        self._collate = collate or collate_samples
        self._block_steps = block_steps(windows) if len(windows) else 1
        self._processes: Processes | None = None
        self._kept: dict[int, TableRow] = {}

    def __len__(self) -> int:
        return self._order().num_batches

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch of the next `iter`. If it is that of a loaded state, `iter` goes on after its last batch."""
        if epoch != self.epoch:
            self.epoch, self._batches, self._resumed = epoch, 0, False

    def state_dict(self) -> dict[str, Any]:
        """The position in the epoch, in batches; JSON values, the same on every rank."""
        return self._facts() | {"epoch": self.epoch, "batches": self._batches, "block_steps": self._block_steps}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on after the last batch of a state: the next `iter` gives the rest of its epoch.

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
        self._block_steps = int(state["block_steps"])
        self._resumed = True
        if self._batches >= len(self):
            self.epoch, self._batches = self.epoch + 1, 0

    def __iter__(self) -> Iterator[Any]:
        self._batches = self._batches if self._resumed else 0
        self._resumed = False
        order, last = self._order(), len(self)
        if not last and self._options["drop_last"] and len(self.windows):
            raise ConfigError(
                f"no batch: {order.num_windows} windows on each of {order.world_size} ranks, a batch takes "
                f"{self.batch_size}",
                "a smaller batch_size, fewer ranks, or drop_last=False",
            )
        for batch in self._read(order, self._batches):
            self._batches += 1
            if self._batches == last:
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
            self._block_steps,
            epoch=self.epoch,
            rank=self._rank,
            **self._options,
        )

    def _read(self, order: Order, start: int) -> Iterator[Any]:
        copy = self._collate is not collate_samples  # collate_samples copies anyway
        if not self._num_workers:
            with Cutter(self.windows, order, copy=copy, kept=self._kept) as cutter:
                batches = order.batches(start)
                if self.windows.spec.cameras:
                    yield from cutter.ahead(batches, self._collate)
                else:
                    yield from (self._collate(cutter.samples(*batch)[1]) for batch in batches)
            return
        if self._processes is None or not self._processes.are_whole:
            facts = {"batch_size": self.batch_size, "rank": self._rank} | self._options
            self._processes = Processes(self.windows, self._num_workers, facts, collated=not copy)
        whole = self._processes.batches(order, start)
        yield from whole if not copy else map(self._collate, whole)


def block_steps(windows: WindowDataset) -> int:
    """Steps of the clips of one block, from the sizes of up to four rows: so many that their columns fit
    `memory.block_mb` and their images `memory.pictures_mb`. The same for the same version."""
    plan, memory = windows.plan, windows.memory
    picked = np.unique(np.linspace(0, len(plan.rows) - 1, SAMPLED_ROWS).astype(int))
    rows = windows.read_rows(picked.tolist())
    num_steps = int(plan.steps[picked].sum())
    num = (memory.block_mb << 20) * num_steps // max(sum(row.num_bytes for row in rows), 1)
    images = sum(len(jpegs) for row in rows for jpegs in row.jpegs.values() if jpegs is not None)
    if images:
        height, width = windows.spec.image_size or (256, 456)
        num = min(num, (memory.pictures_mb << 20) * num_steps // (images * height * width * 3))
    return max(int(num), 1)
