"""Whether a training rank failed because another one crashed: Ray is asked; texts of errors are not parsed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import ray

from handloom.errors import HandloomError

REPLY_S = 60.0  # Ray takes up to half a minute to declare a node dead that does not reply


class RankLost(HandloomError):
    """Another rank crashed, or the connection to it broke. This rank is sound, and the job can be restarted."""


@contextmanager
def detect_lost_ranks(ledger: ray.actor.ActorHandle) -> Iterator[None]:
    """Raise `RankLost` for errors that a collective raises when another rank is gone; errors of this rank unchanged.

    torch has types for errors of NCCL and of its store (`ranks.BROKEN`). Gloo raises a bare RuntimeError, as a wrong
    shape does: then the other ranks are checked.
    """
    from handloom.train import ranks

    try:
        yield
    except ranks.BROKEN as error:
        raise RankLost(f"rank {ranks.rank()} lost the others: {_first_line(error)}") from error
    except RuntimeError as error:
        lost = _lost(ledger, ranks.rank()) if ranks.is_parallel() else None
        if lost is None:
            raise
        raise RankLost(f"rank {lost} died, and rank {ranks.rank()} lost it: {_first_line(error)}") from error


def _lost(ledger: ray.actor.ActorHandle, own: int) -> int | None:
    """A rank whose actor is dead or does not reply; None: all reply."""
    actors = ray.get(ledger.actors.remote())
    pings = {rank: actor.__ray_ready__.remote() for rank, actor in actors.items() if rank != own}
    for rank, ping in pings.items():
        try:
            ray.get(ping, timeout=REPLY_S)
        except ray.exceptions.RayError:  # dead, unreachable, or GetTimeoutError
            return rank
    return None


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0][:300]
