"""Loader processes: each cuts the windows of its own clips in every batch; the batch is merged here."""

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
from numpy.typing import NDArray
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from handloom.errors import HandloomError, StoreError
from handloom.windows.loading.batch_reader import Cutter
from handloom.windows.loading.collate import collate, merge
from handloom.windows.loading.slots import SharedBatch, SlotReader, Writer
from handloom.windows.order import Order
from handloom.windows.rows.reader import TableRow

if TYPE_CHECKING:
    from handloom.windows.dataset import WindowDataset

PARTS_AHEAD = 2  # batches, per process
EXIT_S = 2.0  # a process is seen to end a little later than its shared memory
BY_MEMORY = "usually for lack of memory: lower memory.block_mb or num_workers, or make /dev/shm larger"
BY_SCRIPT = (
    "usually a script without a guard: every process imports it, so put the code that reads batches below "
    '`if __name__ == "__main__":`; if it has one, read the error that the process wrote to stderr'
)
UNREACHABLE = (ConnectionError, EOFError, FileNotFoundError)  # tensors of a process that ended too early
START = "forkserver" if sys.platform == "linux" else "spawn"  # never fork: Lance does not survive it


class Processes:
    """`num` processes that stay for all epochs. They end with this object, and with this process however it ends."""

    def __init__(self, windows: WindowDataset, num: int, facts: Mapping[str, Any], *, collated: bool) -> None:
        """facts: arguments of `Order` without the epoch and the blocks. collated: parts are tensors, else samples."""
        self._num = num
        self._collated = collated
        self.are_whole = True
        self._has_replied = False
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
        """The whole batches of an epoch from `start` on; lists of samples if they are not collated.

        Raises the error of a process's reading or transform; StoreError if a process crashed: then the others cannot be
        used any more either, and `are_whole` is False.
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
        """The parts that the processes send; the first call starts them."""
        before = set(multiprocessing.active_children())
        with _as_many_as_asked():
            parts = iter(self._loader)
        self._started |= set(multiprocessing.active_children()) - before
        return parts

    def _next(self, parts: Iterator[Any]) -> Any:
        try:
            part = next(parts)
            self._has_replied = True
            return part
        except (RuntimeError, *UNREACHABLE) as error:
            # torch raises a transform's errors as the same classes: only after a crash has a process ended.
            if not multiprocessing.connection.wait([process.sentinel for process in self._started], EXIT_S):
                raise
            self.are_whole = False
            problem = f"a loader process crashed: {error or type(error).__name__}"
            raise StoreError(problem, BY_SCRIPT if self._never_began() else BY_MEMORY) from error

    def _never_began(self) -> bool:
        """Whether processes exited before any sent a part; not by a signal (a negative code), as for lack of memory."""
        codes = {process.exitcode for process in self._started if process.exitcode}
        return not self._has_replied and bool(codes) and min(codes) > 0

    def _whole(self, parts: list[tuple[NDArray[np.int64], Any]]) -> Any:
        if self._collated:
            return merge(parts)
        samples: list[Any] = [None] * sum(len(places) for places, _ in parts)
        for places, part in parts:
            for place, sample in zip(places.tolist(), part, strict=True):
                samples[place] = sample
        return samples


class _Parts(IterableDataset[Any]):
    """In process w of n: (places, samples) of the windows of clips c with c % n = w, for every batch."""

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
        number, count = (0, 1) if info is None else (info.id, info.num_workers)
        epoch, start, block_steps = self._position.tolist()
        windows = self._windows
        if not self._has_share:
            windows.keep_images((windows.memory.pictures_mb << 20) // count)
            self._has_share = True
        order = Order(windows.plan, epoch=epoch, block_steps=block_steps, **self._facts)
        self._slots = self._slots or Writer(PARTS_AHEAD + 1)
        self._slots.invalidate()
        try:
            with Cutter(
                windows, order, copy=not self._collated, share=number, num_shares=count, kept=self._kept
            ) as cutter:
                for numbers, of in order.batches(start):
                    places, samples = cutter.samples(numbers, of)
                    yield places, _collated(samples, self._slots) if self._collated else samples
        except HandloomError as error:  # sent as a value: torch would raise an error with its text only
            yield error


def _collated(samples: list[Any], slots: Writer) -> SharedBatch:
    slots.begin()
    return slots.written(collate(samples, slots.empty) if samples else None)


def _as_it_is(part: Any) -> Any:
    return part


def _generator(seed: int, rank: int) -> torch.Generator:
    """The generator that seeds transforms, so that the caller's own random numbers do not change."""
    return torch.Generator().manual_seed(int(np.random.SeedSequence([seed, rank]).generate_state(1)[0]))


def _begin(_worker: int) -> None:
    """End this process when the process that started it ends or is killed; ignore Ctrl-C, which that one handles.

    torch watches the system's parent process. Here it is the fork server, which stays as long as any process that it
    forked.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()

    def wait(started_by: multiprocessing.process.BaseProcess) -> None:
        started_by.join()
        os._exit(1)

    if parent is not None:
        threading.Thread(target=wait, args=(parent,), name="parent", daemon=True).start()


@contextmanager
def _as_many_as_asked() -> Iterator[None]:
    """Suppress torch's warning about more processes than cores: the caller chose their number."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "This DataLoader will create")
        yield
