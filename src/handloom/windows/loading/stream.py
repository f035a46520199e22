"""Windows for other people's DataLoaders: an IterableDataset that shares itself out over ranks and workers."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch.utils.data import IterableDataset, get_worker_info

from handloom.windows.dataset import WindowDataset
from handloom.windows.loading.loader import WindowLoader
from handloom.windows.sample import Sample


class WindowStream(IterableDataset):
    """Samples in a shuffled order, each window once over all ranks and loader workers (but for what does not divide).

    Loader workers must be spawned (`multiprocessing_context="spawn"`): Lance does not survive a fork. The order depends
    on their number; for one that does not, and for resuming, use `Windows.loader`. Each worker has the windows' memory.
    """

    def __init__(
        self, windows: WindowDataset, *, shuffle: bool = True, seed: int = 0, rank: int = 0, world_size: int = 1
    ) -> None:
        self.windows = windows
        self._options = {"shuffle": shuffle, "seed": seed}
        self._rank = rank
        self._world_size = world_size
        self._epoch = torch.zeros((), dtype=torch.int64).share_memory_()  # workers that persist see it change

    def set_epoch(self, epoch: int) -> None:
        """The order of the next epoch: another one for each number."""
        self._epoch.fill_(epoch)

    def __iter__(self) -> Iterator[Sample]:
        info = get_worker_info()
        number, count = (0, 1) if info is None else (info.id, info.num_workers)
        share = {"rank": self._rank * count + number, "world_size": self._world_size * count}
        loader = WindowLoader(self.windows, 1, collate=_only, **self._options, **share)
        loader.set_epoch(int(self._epoch))
        yield from loader


def _only(samples: list[Sample]) -> Sample:
    return samples[0]
