"""Who works on which clip: one small actor that outlives the workers, so that a clip that kills them is found out."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Any

import ray

from handloom.workers.place import on_this_node


@dataclass
class _Video:
    """The shards of one video that nobody has yet, in order of time. nodes: those that have fetched it."""

    left: deque[int]
    nodes: set[str] = field(default_factory=set)


class Handout:
    """Hands out shards, each once; a ticket that comes again (its worker has died) gets the same shard again.

    Args:
        videos: for each shard the video that most of it is of; shards of one video follow each other.
        num_nodes: of the cluster, about.
    """

    def __init__(self, videos: Sequence[str], num_nodes: int) -> None:
        self._num_nodes = max(1, num_nodes)
        self._given: dict[int, int] = {}
        self._videos: dict[str, _Video] = {}
        for shard, video in enumerate(videos):
            self._videos.setdefault(video, _Video(deque())).left.append(shard)
        self._fresh = deque(self._videos.values())  # nobody has begun them
        self._begun: list[_Video] = []
        self._last: dict[str, _Video] = {}

    def take(self, ticket: int, node: str, worker: str) -> int:
        """The shard for whoever holds the ticket: of the video in hand, of one that its node has, of a new one, or of
        the one with the most left.
        """
        if ticket not in self._given:
            video = self._video_for(node, worker)
            self._last[worker] = video
            video.nodes.add(node)
            self._given[ticket] = video.left.popleft()
        return self._given[ticket]

    def _video_for(self, node: str, worker: str) -> _Video:
        last = self._last.get(worker)
        if last is not None and last.left:
            return last
        self._begun = [video for video in self._begun if video.left]
        own = [video for video in self._begun if node in video.nodes]
        share = -(-(len(self._fresh) + len(self._begun)) // self._num_nodes)
        if self._fresh and len(own) < share:
            self._begun.append(self._fresh.popleft())
            return self._begun[-1]
        if own:
            return max(own, key=lambda video: len(video.left))
        if self._fresh:
            self._begun.append(self._fresh.popleft())
            return self._begun[-1]
        return max(self._begun, key=lambda video: len(video.left) / len(video.nodes))


MAX_DEATHS = 2
MAX_HANGS = 2


@dataclass(frozen=True)
class Progress:
    """Counts since the run began; `working` maps a worker's process id to the clip it is on.

    idle_s: seconds since any worker had something to do; 0 while one has.
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
class Doing:
    """What a worker has begun and not ended: one stage of one clip, or of what lies between clips.

    worker: the actor; its processes follow each other. clip_ids: its shard; empty while it loads its models. clip_id:
    None between clips. limit_s: after so many seconds it counts as hung.
    """

    worker: str
    pid: int
    host: str
    node_id: str
    clip_ids: tuple[str, ...]
    clip_id: str | None
    stage: str
    limit_s: float


@dataclass(frozen=True)
class Hang:
    """A stage that had not ended after `seconds`, when `limit_s` was the longest that it may take."""

    stage: str
    seconds: float
    limit_s: float
    host: str
    node_id: str


@dataclass(frozen=True)
class Overdue:
    """Work beyond its limit. number: which of all that was begun. handle: of the actor, to kill it."""

    doing: Doing
    number: int
    seconds: float
    handle: Any


@dataclass(frozen=True)
class ShardEntry:
    """What a worker learns when it takes up a shard.

    deaths: workers that have died on each clip. careful: workers have died in this shard, on no clip in particular.
    drained: the shard is to be given back as it is: the pool of workers is about to change. spoilt: stage and trace of
    clips whose bug a worker did not survive. hangs: of each clip that has hung.
    """

    deaths: dict[str, int]
    careful: bool
    drained: bool = False
    spoilt: dict[str, tuple[str, str]] = field(default_factory=dict)
    hangs: dict[str, tuple[Hang, ...]] = field(default_factory=dict)


@dataclass(frozen=True)
class DecodeEntry:
    """What a decode worker learns: how many have died on the shard, and which of its clips have hung."""

    num_deaths: int
    hung: frozenset[str]


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
        self._hangs: dict[str, list[Hang]] = {}
        self._hung_between: dict[tuple[str, ...], int] = {}
        self._doing: dict[str, tuple[Doing, int, float]] = {}  # by worker; number, and when it began
        self._handles: dict[str, Any] = {}  # only while it does something: an actor lives as long as its handles
        self._num_begun = 0
        self._finished: dict[str, Finished] = {}
        self._counts = [0, 0, 0]  # rows, rejects, frames of rows
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
        self._doing.clear()  # of workers that have gone with their pool
        self._handles.clear()
        self._last_word = time.monotonic()

    def cut_off(self, gone: Collection[str]) -> None:
        """The pool was ended amid its work. Its workers did not die of their clips, but perhaps those on nodes that are
        gone.
        """
        for doing, _, _ in self._doing.values():
            at_it = self._working.get(doing.pid, ("", 0.0))[0] == doing.clip_id
            if at_it and doing.node_id not in gone:
                self._begun.get(doing.clip_id, set()).discard(doing.pid)

    def hand_out(self, shards: Sequence[str], videos: Sequence[str], num_nodes: int) -> None:
        """The workers' shards are tickets from now on: see `Handout`. shards: what they are exchanged for."""
        self._shards, self._handout = shards, Handout(videos, num_nodes)

    def take(self, ticket: int, node: str, worker: str) -> str:
        """The shard that a worker on this node gets for its ticket."""
        return self._shards[self._handout.take(ticket, node, worker)]

    def enter(self, clip_ids: Sequence[str]) -> ShardEntry:
        """A worker takes up a shard, again if an earlier worker died in it."""
        shard = tuple(clip_ids)
        if self._drained:
            return ShardEntry({}, careful=False, drained=True)
        self._shard_of.update(dict.fromkeys(shard, shard))
        unexplained = shard in self._entered and self._on_clip[shard] is None
        self._entered[shard] = self._entered.get(shard, 0) + unexplained
        self._on_clip[shard] = None
        self._working = {pid: work for pid, work in self._working.items() if work[0] not in shard}  # who died here
        self._last_word = time.monotonic()
        deaths = {clip_id: len(self._begun.get(clip_id, ())) for clip_id in shard}
        spoilt = {clip_id: self._spoilt[clip_id] for clip_id in shard if clip_id in self._spoilt}
        hangs = {clip_id: tuple(self._hangs[clip_id]) for clip_id in shard if clip_id in self._hangs}
        return ShardEntry(deaths, careful=self._entered[shard] >= MAX_DEATHS, spoilt=spoilt, hangs=hangs)

    def decode(self, clip_ids: Sequence[str]) -> DecodeEntry | None:
        """Split mode: a decode worker takes up a shard. None: drained."""
        shard = tuple(clip_ids)
        if self._drained:
            return None
        self._decoded[shard] = self._decoded.get(shard, -1) + 1
        self._last_word = time.monotonic()
        return DecodeEntry(self._decoded[shard], frozenset(shard) & self._hangs.keys())

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
        self._count(self._finished.get(clip_id), -1)
        self._finished[clip_id] = Finished(has_row, num_frames, began, now)
        self._count(self._finished[clip_id], 1)

    def _count(self, clip: Finished | None, times: int) -> None:
        if clip is not None:
            for place, number in enumerate((clip.has_row, not clip.has_row, clip.num_frames * clip.has_row)):
                self._counts[place] += times * number

    def at(self, doing: Doing, spent_s: float, handle: Sequence[Any] = ()) -> None:
        """What a worker is doing, since `spent_s` seconds. handle: its own, where it begins with something."""
        self._last_word = time.monotonic()
        self._num_begun += 1
        self._doing[doing.worker] = (doing, self._num_begun, self._last_word - spent_s)
        if handle:
            self._handles[doing.worker] = handle[0]

    def rest(self, worker: str) -> None:
        """The worker has nothing to do."""
        self._last_word = time.monotonic()
        self._doing.pop(worker, None)
        self._handles.pop(worker, None)

    def overdue(self) -> list[Overdue]:
        """All work that has taken longer than its limit."""
        now = time.monotonic()
        return [
            Overdue(doing, number, now - began, self._handles.get(doing.worker))
            for doing, number, began in self._doing.values()
            if now - began > doing.limit_s
        ]

    def give_up(self, late: Overdue) -> int:
        """The worker is going to be killed for it. Its clip has hung once more, and has not died.

        Returns how often its clip has hung, or its shard between clips; 0 where the worker has gone on meanwhile.
        """
        doing = late.doing
        if self._doing.get(doing.worker, (None, 0))[1] != late.number:
            return 0
        self.rest(doing.worker)
        self._working.pop(doing.pid, None)
        if doing.clip_id is None:
            self._hung_between[doing.clip_ids] = self._hung_between.get(doing.clip_ids, 0) + 1
            return self._hung_between[doing.clip_ids]
        self._begun.get(doing.clip_id, set()).discard(doing.pid)
        hangs = self._hangs.setdefault(doing.clip_id, [])
        hangs.append(Hang(doing.stage, late.seconds, doing.limit_s, doing.host, doing.node_id))
        return len(hangs)

    def finished(self) -> dict[str, Finished]:
        """Every clip that ended, in order of its end."""
        return self._finished

    def progress(self) -> Progress:
        working = {pid: clip_id for pid, (clip_id, _) in self._working.items()}
        idle_s = 0.0 if self._doing else time.monotonic() - self._last_word
        return Progress(*self._counts, working, idle_s)


def start_ledger(name: str | None = None) -> ray.actor.ActorHandle:
    """The run's ledger. It must not die with a worker node: it runs where the driver runs."""
    return ray.remote(Ledger).options(max_concurrency=1, name=name, **on_this_node()).remote()
