"""Sums, gathers and broadcasts over the ranks of a data-parallel job; they also work in a job of one process."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist

BROKEN = (dist.DistError,) if dist.is_available() else ()
"""Types that torch raises when the connection between ranks breaks: NCCL's and the store's; Gloo has no type."""


def is_parallel() -> bool:
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


def rank() -> int:
    return dist.get_rank() if is_parallel() else 0


def world_size() -> int:
    return dist.get_world_size() if is_parallel() else 1


def all_sum(values: list[float], device: torch.device) -> list[float]:
    """Sums over all ranks, in float64, the same bits on every rank."""
    if not is_parallel():
        return values
    sums = torch.tensor(values, dtype=torch.float64, device=device)
    dist.all_reduce(sums)
    return sums.tolist()


def gathered(value: Any) -> list[Any]:
    """Every rank's `value` (picklable), by rank, on every rank."""
    if not is_parallel():
        return [value]
    values: list[Any] = [None] * world_size()
    dist.all_gather_object(values, value)
    return values


def broadcast(value: Any) -> Any:
    """Rank 0's `value` (picklable) on every rank."""
    if not is_parallel():
        return value
    box = [value]
    dist.broadcast_object_list(box, src=0)
    return box[0]
