"""Loader processes: each cuts its own clips' windows of every batch, and the batch is put together here."""

from __future__ import annotations

import multiprocessing
import multiprocessing.connection
import os
import signal
import sys
import threading
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from handloom.errors import HandloomError, StoreError
from handloom.windows.loading.collate import collate, merge
from handloom.windows.loading.cutter import Cutter
from handloom.windows.loading.slots import SharedBatch, SlotReader, Writer
from handloom.windows.order import Order
from handloom.windows.rows.reader import TableRow

if TYPE_CHECKING:
    from handloom.windows.dataset import WindowDataset

PARTS_AHEAD = 2  # batches, per process
DEATH_S = 2.0  # the end of a process shows a little later than the end of what it shared
BY_MEMORY = "most often memory: lower memory.block_mb or num_workers, or give /dev/shm more room"
BY_SCRIPT = (
    "most often a script without a guard: every process imports it, so put the code that reads batches below "
    '`if __name__ == "__main__":`; else the error that the process wrote to stderr says why'
)
UNREACHABLE = (ConnectionError, EOFError, FileNotFoundError)  # tensors of a process that died before they were taken
START = "forkserver" if sys.platform == "linux" else "spawn"  # never fork: Lance does not survive it


class Processes:
    """`num` processes that stay for all epochs; they end with this object, and with this process however it ends."""

    def __init__(self, windows: WindowDataset, num: int, facts: Mapping[str, Any], *, collated: bool) -> None:
        """facts: of `Order`, but for the epoch and the blocks. collated: parts come as tensors, else as samples."""
        self._num = num
        self._collated = collated
        self.are_whole = True
        self._has_given = False
        self._started: set[multiprocessing.process.BaseProcess] = set()
        self._readers = [SlotReader() for _ in range(num)]
        self._position = torch.zeros(3, dtype=torch.int64).share_memory_()  # epoch, first batch, steps per block
        context = torch.multiprocessing.get_context(START)
        if START == "forkserver":
            context.set_forkserver_preload(["torch"])  # not Lance, whose threads would not survive the fork
        with _as_many_as_asked():
            self._loader = DataLoader(
                _Parts(windows, dict(facts), self._position, collated),
                batch_size=None,
                collate_fn=_as_it_is,
                num_workers=num,
                worker_init_fn=_begin,
                multiprocessing_context=context,
                prefetch_factor=PARTS_AHEAD,
                persistent_workers=True,
                generator=_generator(facts["seed"], facts["rank"]),
            )

    def batches(self, order: Order, start: int) -> Iterator[Any]:
        """The batches of an epoch from `start` on, whole; samples in a list where they are not collated.

        Raises what reading or a transform raised in a process; StoreError where one died: then the others are of no
        more use, either, and `are_whole` is False.
        """
        self._position.copy_(torch.tensor([order.epoch, start, order.block_steps]))
        parts = self._parts()
        for _ in range(start, order.num_batches):
            found = [self._next(parts) for _ in range(self._num)]
            error = next((part for part in found if isinstance(part, HandloomError)), None)
            if error is not None:
                raise error
            if self._collated:
                found = [(p, reader.values(part)) for (p, part), reader in zip(found, self._readers, strict=True)]
            yield self._whole([part for part in found if len(part[0])])

    def _parts(self) -> Iterator[Any]:
        """What the processes send; they are started the first time."""
        before = set(multiprocessing.active_children())
        with _as_many_as_asked():
            parts = iter(self._loader)
        self._started |= set(multiprocessing.active_children()) - before
        return parts

    def _next(self, parts: Iterator[Any]) -> Any:
        try:
            part = next(parts)
            self._has_given = True
            return part
        except (RuntimeError, *UNREACHABLE) as error:
            # torch raises what a transform raised there under the same classes: only a death leaves a process missing.
            if not multiprocessing.connection.wait([process.sentinel for process in self._started], DEATH_S):
                raise
            self.are_whole = False
            problem = f"a loader process died: {error or type(error).__name__}"
            raise StoreError(problem, BY_SCRIPT if self._never_began() else BY_MEMORY) from error

    def _never_began(self) -> bool:
        """Whether processes ended themselves before any gave a part: memory ends them by a signal, a negative code."""
        codes = {process.exitcode for process in self._started} - {None, 0}
        return not self._has_given and bool(codes) and min(codes) > 0

    def _whole(self, parts: list[tuple[np.ndarray, Any]]) -> Any:
        if self._collated:
            return merge(parts)
        samples: list[Any] = [None] * sum(len(places) for places, _ in parts)
        for places, part in parts:
            for place, sample in zip(places.tolist(), part, strict=True):
                samples[place] = sample
        return samples


class _Parts(IterableDataset):
    """In process w of n: of every batch, the windows of the clips c with c % n = w; (places, samples)."""

    def __init__(self, windows: WindowDataset, facts: dict[str, Any], position: torch.Tensor, collated: bool) -> None:
        self._windows = windows
        self._facts = facts
        self._position = position
        self._collated = collated
        self._has_share = False
        self._slots: Writer | None = None
        self._kept: dict[int, TableRow] = {}

    def __iter__(self) -> Iterator[Any]:
        info = get_worker_info()
        epoch, start, block_steps = self._position.tolist()
        windows = self._windows
        if not self._has_share:
            windows.keep_pictures((windows.memory.pictures_mb << 20) // info.num_workers)
            self._has_share = True
        order = Order(windows.plan, epoch=epoch, block_steps=block_steps, **self._facts)
        share = {"share": info.id, "num_shares": info.num_workers, "kept": self._kept}
        if self._slots is None:
            self._slots = Writer(PARTS_AHEAD + 1)
        self._slots.invalidate()
        try:
            with Cutter(windows, order, copy=not self._collated, **share) as cutter:
                for numbers, of in order.batches(start):
                    places, samples = cutter.samples(numbers, of)
                    yield places, self._collate(samples) if self._collated else samples
        except HandloomError as error:  # as it is: torch would make a text of it
            yield error

    def _collate(self, samples: list[Any]) -> SharedBatch:
        self._slots.begin()
        return self._slots.written(collate(samples, self._slots.empty) if samples else None)


def _as_it_is(part: Any) -> Any:
    return part


def _generator(seed: int, rank: int) -> torch.Generator:
    """What a transform's random numbers begin with: not the caller's, whose own numbers stay what they are."""
    return torch.Generator().manual_seed(int(np.random.SeedSequence([seed, rank]).generate_state(1)[0]))


def _begin(_worker: int) -> None:
    """End this process when the one that started it is gone, even killed, and leave Ctrl-C to that one.

    torch watches the parent in the system's sense, which is the fork server here; and that one stays as long as any
    process that it forked.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()

    def wait() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=wait, name="parent", daemon=True).start()


@contextmanager
def _as_many_as_asked() -> Iterator[None]:
    """Without torch's warning of more processes than cores: the caller's choice."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "This DataLoader will create")
        yield
