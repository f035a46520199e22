"""Shared memory in which loader processes send their parts of batches, used again and again.

A tensor that is sent to another process in memory of its own costs a file, its mapping and a page fault for every page:
for a small window that is more than its bytes. Here each process keeps a few pieces of shared memory, and sends the
places of a part's tensors in them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

ALIGNMENT = 64
GROWTH = 1.25  # size of a piece over that of the largest part so far


@dataclass(frozen=True)
class Place:
    """Offset (bytes), shape and type of a tensor in its piece of memory."""

    offset: int
    shape: tuple[int, ...]
    dtype: torch.dtype

    def tensor(self, memory: torch.Tensor) -> torch.Tensor:
        """A view of the memory (uint8)."""
        num_bytes = self.dtype.itemsize * int(np.prod(self.shape, dtype=np.int64))
        return memory[self.offset : self.offset + num_bytes].view(self.dtype).view(self.shape)


@dataclass(frozen=True)
class SharedBatch:
    """A part as it is sent. memory: the piece itself, the first time and after it was made larger; else None."""

    slot: int
    values: Any
    memory: torch.Tensor | None


class Writer:
    """The pieces of one process, used in turn: a part stays valid until `num` more have been written."""

    def __init__(self, num: int) -> None:
        self._memories: list[torch.Tensor | None] = [None] * num
        self._is_known = [False] * num
        self._turn = -1
        self._used = self._most = 0

    def invalidate(self) -> None:
        """Send every piece again: the reader may have missed it."""
        self._is_known = [False] * len(self._memories)

    def begin(self) -> None:
        """Begin a part in the next piece, which is made larger if earlier parts needed more."""
        self._turn = (self._turn + 1) % len(self._memories)
        self._used = 0
        memory = self._memories[self._turn]
        if self._most and (memory is None or len(memory) < self._most):
            self._memories[self._turn] = torch.empty(int(GROWTH * self._most), dtype=torch.uint8).share_memory_()
            self._is_known[self._turn] = False

    def empty(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> NDArray[Any]:
        """Memory for an array: in the piece if it fits, else outside."""
        start, num_bytes = self._used, int(np.prod(shape, dtype=np.int64)) * np.dtype(dtype).itemsize
        self._used += -(-num_bytes // ALIGNMENT) * ALIGNMENT
        self._most = max(self._most, self._used)
        memory = self._memories[self._turn]
        if memory is None or start + num_bytes > len(memory):
            return np.empty(shape, dtype)
        found: NDArray[Any] = memory.numpy()[start : start + num_bytes]
        return found.view(dtype).reshape(shape)

    def written(self, values: Any) -> SharedBatch:
        """The collated part in the form in which it is sent."""
        memory = self._memories[self._turn]
        sent = memory if memory is not None and not self._is_known[self._turn] else None
        self._is_known[self._turn] = memory is not None
        return SharedBatch(self._turn, values if memory is None else _placed(values, memory), sent)


class SlotReader:
    """The pieces of one process, as the reading process sees them."""

    def __init__(self) -> None:
        self._memories: dict[int, torch.Tensor] = {}

    def values(self, part: SharedBatch) -> Any:
        """The part's tensors; the caller copies them before that process uses the piece again."""
        if part.memory is not None:
            self._memories[part.slot] = part.memory
        memory = self._memories.get(part.slot)
        return part.values if memory is None else _found(part.values, memory)


def _placed(value: Any, memory: torch.Tensor) -> Any:
    if isinstance(value, dict):
        return {key: _placed(item, memory) for key, item in value.items()}
    if not isinstance(value, torch.Tensor) or not value.is_contiguous():
        return value
    offset = value.data_ptr() - memory.data_ptr()
    return Place(offset, tuple(value.shape), value.dtype) if 0 <= offset < len(memory) and value.numel() else value


def _found(value: Any, memory: torch.Tensor) -> Any:
    if isinstance(value, dict):
        return {key: _found(item, memory) for key, item in value.items()}
    return value.tensor(memory) if isinstance(value, Place) else value
