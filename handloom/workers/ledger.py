"""Who works on which clip: one small actor that outlives the workers, so that a clip that kills them is found out."""

from __future__ import annotations

import time
from dataclasses import dataclass

import ray

MAX_DEATHS = 2


@dataclass(frozen=True)
class Progress:
    """Counts since the run began; `working` maps a worker's process id to the clip it is on."""

    num_rows: int
    num_rejects: int
    num_frames: int
    working: dict[int, str]


@dataclass(frozen=True)
class Finished:
    """One clip that ended. began, ended: seconds since the epoch, as the ledger heard of them."""

    has_row: bool
    num_frames: int
    began: float
    ended: float


class Ledger:
    """Attempts per clip, and progress. A worker asks before it begins a clip and tells when it has finished it."""

    def __init__(self) -> None:
        self._begun: dict[str, int] = {}
        self._working: dict[int, tuple[str, float]] = {}
        self._finished: dict[str, Finished] = {}

    def deaths(self, clip_ids: list[str]) -> dict[str, int]:
        """How many workers have died on each clip: begun, and never ended."""
        return {clip_id: self._begun.get(clip_id, 0) for clip_id in clip_ids}

    def begin(self, clip_id: str, pid: int) -> None:
        self._begun[clip_id] = self._begun.get(clip_id, 0) + 1
        self._working[pid] = (clip_id, time.time())

    def end(self, clip_id: str, pid: int, has_row: bool, num_frames: int) -> None:
        self._begun.pop(clip_id, None)
        now = time.time()
        _, began = self._working.pop(pid, (clip_id, now))
        self._finished[clip_id] = Finished(has_row, num_frames, began, now)

    def finished(self) -> dict[str, Finished]:
        """Every clip that ended, in order of its end."""
        return self._finished

    def progress(self) -> Progress:
        frames = [clip.num_frames for clip in self._finished.values() if clip.has_row]
        working = {pid: clip_id for pid, (clip_id, _) in self._working.items()}
        return Progress(len(frames), len(self._finished) - len(frames), sum(frames), working)


def start_ledger(name: str | None = None) -> ray.actor.ActorHandle:
    """The run's ledger. It must not die with a worker node: it runs where the driver runs."""
    here = ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=True)
    return ray.remote(Ledger).options(num_cpus=0, max_concurrency=1, name=name, scheduling_strategy=here).remote()
