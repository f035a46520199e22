"""`WindowStream`: windows as an IterableDataset for torch's DataLoader, divided over ranks and workers."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch.utils.data import IterableDataset, get_worker_info

from handloom.windows.dataset import WindowDataset
from handloom.windows.loading.loader import WindowLoader
from handloom.windows.sample import Sample


class WindowStream(IterableDataset[Sample]):
    """Samples in shuffled order, each window once over all ranks and workers, without a remainder that does not divide.

    Loader workers must be spawned (`multiprocessing_context="spawn"`): Lance does not survive a fork. The order depends
    on their number; `Windows.loader` has an order that does not, and can be resumed. `Memory` applies to each worker.
    """

    def __init__(
        self, windows: WindowDataset, *, shuffle: bool = True, seed: int = 0, rank: int = 0, world_size: int = 1
    ) -> None:
        self.windows = windows
        self._shuffle = shuffle
        self._seed = seed
        self._rank = rank
        self._world_size = world_size
        self._epoch = torch.zeros((), dtype=torch.int64).share_memory_()  # workers that persist see it change

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch of the next `iter`; each has another order."""
        self._epoch.fill_(epoch)

    def __iter__(self) -> Iterator[Sample]:
        info = get_worker_info()
        number, count = (0, 1) if info is None else (info.id, info.num_workers)
        loader = WindowLoader(
            self.windows,
            1,
            shuffle=self._shuffle,
            seed=self._seed,
            rank=self._rank * count + number,
            world_size=self._world_size * count,
            collate=_only,
        )
        loader.set_epoch(int(self._epoch))
        yield from loader


def _only(samples: list[Sample]) -> Sample:
    return samples[0]
