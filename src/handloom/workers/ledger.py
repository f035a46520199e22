"""Who works on which clip: one small actor that outlives the workers, so that a clip that kills them is found out."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import ray

from handloom.workers.handout import Handout

MAX_DEATHS = 2
PULSE_S = 5.0


@dataclass(frozen=True)
class Progress:
    """Counts since the run began; `working` maps a worker's process id to the clip it is on.

    idle_s: seconds since a worker with something to do was last heard of.
    """

    num_rows: int
    num_rejects: int
    num_frames: int
    working: dict[int, str]
    idle_s: float = 0.0


@dataclass(frozen=True)
class Finished:
    """One clip that ended. began, ended: seconds since the epoch, as the ledger heard of them."""

    has_row: bool
    num_frames: int
    began: float
    ended: float


@dataclass(frozen=True)
class Entry:
    """What a worker learns when it takes up a shard.

    deaths: workers that have died on each clip. careful: workers have died in this shard, on no clip in particular.
    drained: the shard is to be given back as it is: the pool of workers is about to change. spoilt: stage and trace of
    clips whose bug a worker did not survive.
    """

    deaths: dict[str, int]
    careful: bool
    drained: bool = False
    spoilt: dict[str, tuple[str, str]] = field(default_factory=dict)


class Ledger:
    """Attempts per clip, and progress. A worker asks before it begins a shard and tells when it has finished a clip."""

    def __init__(self) -> None:
        self._begun: dict[str, set[int]] = {}  # process ids
        self._decoded: dict[tuple[str, ...], int] = {}
        self._entered: dict[tuple[str, ...], int] = {}
        self._on_clip: dict[tuple[str, ...], str | None] = {}
        self._shard_of: dict[str, tuple[str, ...]] = {}
        self._working: dict[int, tuple[str, float]] = {}
        self._spoilt: dict[str, tuple[str, str]] = {}
        self._finished: dict[str, Finished] = {}
        self._last_word = time.monotonic()
        self._drained = False
        self._shards: Sequence[str] = ()
        self._handout = Handout((), 1)

    def drain(self) -> int:
        """From now on workers end after the clip in hand, and give shards back. Returns how many had been taken up."""
        self._drained = True
        return len(self._entered)

    def resume(self) -> None:
        """New workers take up shards. Shards that were left and come again are no deaths; clips keep theirs."""
        self._drained = False
        for shards in (self._entered, self._on_clip, self._decoded):
            shards.clear()
        self._last_word = time.monotonic()

    def hand_out(self, shards: Sequence[str], videos: Sequence[str], num_nodes: int) -> None:
        """The workers' shards are tickets from now on: see `Handout`. shards: what they are exchanged for."""
        self._shards, self._handout = shards, Handout(videos, num_nodes)

    def take(self, ticket: int, node: str, worker: str) -> str:
        """The shard that a worker on this node gets for its ticket."""
        return self._shards[self._handout.take(ticket, node, worker)]

    def enter(self, clip_ids: Sequence[str]) -> Entry:
        """A worker takes up a shard, again if an earlier worker died in it."""
        shard = tuple(clip_ids)
        if self._drained:
            return Entry({}, careful=False, drained=True)
        self._shard_of.update(dict.fromkeys(shard, shard))
        unexplained = shard in self._entered and self._on_clip[shard] is None
        self._entered[shard] = self._entered.get(shard, 0) + unexplained
        self._on_clip[shard] = None
        self._working = {pid: work for pid, work in self._working.items() if work[0] not in shard}  # who died here
        self._last_word = time.monotonic()
        deaths = {clip_id: len(self._begun.get(clip_id, ())) for clip_id in shard}
        spoilt = {clip_id: self._spoilt[clip_id] for clip_id in shard if clip_id in self._spoilt}
        return Entry(deaths, careful=self._entered[shard] >= MAX_DEATHS, spoilt=spoilt)

    def decode(self, clip_ids: Sequence[str]) -> int | None:
        """Split mode: a decode worker takes up a shard. Returns how many have died on it; None: drained."""
        shard = tuple(clip_ids)
        if self._drained:
            return None
        self._decoded[shard] = self._decoded.get(shard, -1) + 1
        self._last_word = time.monotonic()
        return self._decoded[shard]

    def begin(self, clip_id: str, pid: int) -> bool:
        """A worker begins a clip; if it never ends it, it has died on it. Saying it twice changes nothing.

        False: drained, the worker is not to begin it.
        """
        if self._drained:
            return False
        self._begun.setdefault(clip_id, set()).add(pid)
        self._on_clip[self._shard_of.get(clip_id, ())] = clip_id
        self._working[pid] = (clip_id, time.time())
        self._last_word = time.monotonic()
        return True

    def leave(self, clip_id: str) -> None:
        """The worker has survived the clip, which has no row so far."""
        self._begun.pop(clip_id, None)
        self._on_clip[self._shard_of.get(clip_id, ())] = None
        self._last_word = time.monotonic()

    def spoil(self, clip_id: str, stage: str, trace: str) -> None:
        """A worker has met a bug on the clip and is going to end, because it cannot work any more."""
        self._spoilt[clip_id] = (stage, trace)

    def end(self, clip_id: str, pid: int, has_row: bool, num_frames: int) -> None:
        self.leave(clip_id)
        now = time.time()
        _, began = self._working.pop(pid, (clip_id, now))
        self._finished[clip_id] = Finished(has_row, num_frames, began, now)

    def pulse(self) -> None:
        """A worker that has something to do is alive."""
        self._last_word = time.monotonic()

    def finished(self) -> dict[str, Finished]:
        """Every clip that ended, in order of its end."""
        return self._finished

    def progress(self) -> Progress:
        frames = [clip.num_frames for clip in self._finished.values() if clip.has_row]
        working = {pid: clip_id for pid, (clip_id, _) in self._working.items()}
        idle_s = time.monotonic() - self._last_word
        return Progress(len(frames), len(self._finished) - len(frames), sum(frames), working, idle_s)


def start_ledger(name: str | None = None) -> ray.actor.ActorHandle:
    """The run's ledger. It must not die with a worker node: it runs where the driver runs."""
    node_id = ray.get_runtime_context().get_node_id()
    here = ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy(node_id, soft=True)
    return ray.remote(Ledger).options(num_cpus=0, max_concurrency=1, name=name, scheduling_strategy=here).remote()


@contextmanager
def pulse(ledger: ray.actor.ActorHandle, every_s: float = PULSE_S) -> Iterator[None]:
    """Tell the ledger from a thread, as long as the block lasts, that this process lives."""
    ended = threading.Event()

    def beat() -> None:
        while not ended.wait(every_s):
            ledger.pulse.remote()

    threading.Thread(target=beat, daemon=True, name="pulse").start()
    try:
        yield
    finally:
        ended.set()
