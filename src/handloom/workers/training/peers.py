"""Whether a training rank failed because another one has died: asked of Ray, not read from an error's words."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import ray

from handloom.errors import HandloomError

ANSWER_S = 60.0  # Ray takes up to half a minute to call a node dead that does not answer


class RankLost(HandloomError):
    """Another rank died, or the connection to it broke: nothing is wrong with this one, and the job can go on."""


@contextmanager
def losses_told(ledger: ray.actor.ActorHandle) -> Iterator[None]:
    """Turn what a collective raises when another rank is gone into `RankLost`; what is wrong here passes as it is.

    torch has types for NCCL's errors and its store's (`ranks.BROKEN`). Gloo raises a bare RuntimeError, as a wrong
    shape does: then the other ranks are looked for.
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
    """A rank whose actor is dead or does not answer."""
    actors = ray.get(ledger.actors.remote())
    asked = {rank: actor.__ray_ready__.remote() for rank, actor in actors.items() if rank != own}
    for rank, answer in asked.items():
        try:
            ray.get(answer, timeout=ANSWER_S)
        except ray.exceptions.RayError:  # dead, unreachable, or GetTimeoutError
            return rank
    return None


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0][:300]
