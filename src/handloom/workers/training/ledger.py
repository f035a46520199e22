"""The actor between the workers of a training job and its driver. It imports no torch: that would take it 2.5 s."""

from __future__ import annotations

from typing import Any

import ray

from handloom.workers.place import on_this_node


class TrainingLedger:
    """An actor between the workers and the driver: lines of progress one way, the request to stop the other."""

    def __init__(self) -> None:
        self._lines: list[tuple[str, dict[str, Any]]] = []
        self._stop = False
        self._pids: dict[int, int] = {}
        self._actors: dict[int, ray.actor.ActorHandle] = {}

    def report(self, variant: str, line: dict[str, Any]) -> None:
        """A line of progress, for the driver to `take`."""
        self._lines.append((variant, line))

    def take(self) -> list[tuple[str, dict[str, Any]]]:
        """The lines since the last call: (variant, line)."""
        lines, self._lines = self._lines, []
        return lines

    def stop(self) -> None:
        """Request that every job writes a checkpoint and ends."""
        self._stop = True

    def is_stopped(self) -> bool:
        return self._stop

    def enter(self, rank: int, pid: int, actor: ray.actor.ActorHandle) -> None:
        """A worker has started."""
        self._pids[rank] = pid
        self._actors[rank] = actor

    def actors(self) -> dict[int, ray.actor.ActorHandle]:
        """The workers by rank, since the last start."""
        return dict(self._actors)

    def pids(self) -> dict[int, int]:
        """Process ids of the workers by rank, since the last start."""
        return dict(self._pids)


def start_training_ledger() -> ray.actor.ActorHandle:
    """The job's ledger, on the driver's node: it must survive the loss of a worker's node."""
    return ray.remote(TrainingLedger).options(max_concurrency=1, **on_this_node()).remote()
