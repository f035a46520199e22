"""Which worker is on which clip: an actor that outlives the workers, so that a clip that crashes them is identified."""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Any

import ray

from handloom.workers.place import on_this_node


@dataclass
class _Video:
    """left: the shards of one video that are not handed out, in order of time. nodes: those that have fetched it."""

    left: deque[int]
    nodes: set[str] = field(default_factory=set)


class Handout:
    """Hands out shards, each once; a ticket that comes again (its worker has crashed) gets the same shard again.

    Args:
        videos: for each shard the video of most of its clips; shards of one video are consecutive.
        num_nodes: about how many nodes the cluster has.
    """

    def __init__(self, videos: Sequence[str], num_nodes: int) -> None:
        self._num_nodes = max(1, num_nodes)
        self._given: dict[int, int] = {}
        self._videos: dict[str, _Video] = {}
        for shard, video in enumerate(videos):
            self._videos.setdefault(video, _Video(deque())).left.append(shard)
        self._fresh = deque(self._videos.values())  # no shard of them is handed out
        self._begun: list[_Video] = []
        self._last: dict[str, _Video] = {}

    def take(self, ticket: int, node: str, worker: str) -> int:
        """The shard for a ticket: of the worker's last video; else of one that its node has fetched, or of a new one;
        else of the one with the most shards left per node.
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


MAX_CRASHES = 2
MAX_HANGS = 2


@dataclass(frozen=True)
class Progress:
    """Counts since the run began; `working` maps a worker's process id to its current clip.

    idle_s: seconds since any worker was busy; 0 while one is. stages: {stage: (workers that compute it now, seconds
    since the first of them began it)}.
    """

    num_rows: int
    num_rejects: int
    num_frames: int
    working: dict[int, str]
    idle_s: float = 0.0
    stages: dict[str, tuple[int, float]] = field(default_factory=dict)


@dataclass(frozen=True)
class Finished:
    """One clip that ended. began, ended: seconds since the epoch, when the message arrived at the ledger."""

    has_row: bool
    num_frames: int
    began: float
    ended: float


@dataclass(frozen=True)
class Doing:
    """A worker's current stage, of one clip or between clips.

    worker: the actor's id, which stays when its process is restarted. clip_ids: its shard; empty while it loads its
    models. clip_id: None between clips. limit_s: after so many seconds it counts as hung. group: of the stages that the
    worker computes (`stages.pools`), counted from 0.
    """

    worker: str
    pid: int
    host: str
    node_id: str
    clip_ids: tuple[str, ...]
    clip_id: str | None
    stage: str
    limit_s: float
    group: int = 0


@dataclass(frozen=True)
class Hang:
    """A stage that had not ended after `seconds`; `limit_s` is the most that it may take."""

    stage: str
    seconds: float
    limit_s: float
    host: str
    node_id: str


@dataclass(frozen=True)
class Overdue:
    """A stage beyond its limit. number: of the report that it began. handle: of the actor, to kill it."""

    doing: Doing
    number: int
    seconds: float
    handle: Any


@dataclass(frozen=True)
class ShardEntry:
    """The ledger's reply to a worker that begins a shard.

    crashes: how many workers have crashed on each clip. one_by_one: workers have crashed in this shard between clips;
    process and write the clips one by one. drained: give the shard back unprocessed, because the pool of workers is
    about to change. bugs: stage and trace of clips after whose bug a worker had to end. hangs: of each clip that hung.
    at: `{clip: {stage: crashes}}`, the stages at which workers have crashed; "" for an unknown one. elsewhere: of the
    clips in `hangs`, those that have not hung on every node of the run.
    """

    crashes: dict[str, int]
    one_by_one: bool
    drained: bool = False
    bugs: dict[str, tuple[str, str]] = field(default_factory=dict)
    hangs: dict[str, tuple[Hang, ...]] = field(default_factory=dict)
    at: dict[str, dict[str, int]] = field(default_factory=dict)
    elsewhere: frozenset[str] = frozenset()


@dataclass(frozen=True)
class DecodeEntry:
    """The reply to a decode worker: how many have crashed on the shard, and which of its clips have hung."""

    num_crashes: int
    hung: frozenset[str]


InGroup = tuple[int, str]
"""A clip in a group of stages: each group counts the crashes and hangs of its own workers."""


class Ledger:
    """Attempts per clip, and progress. Workers report what they begin and end; the reply says what to leave out.

    group: of the stages that a worker computes, see `Doing`.
    """

    def __init__(self) -> None:
        self._begun: dict[InGroup, dict[int, str]] = {}  # process ids, and the stage that each has reported last
        self._decoded: dict[tuple[str, ...], int] = {}
        self._entered: dict[tuple[int, tuple[str, ...]], int] = {}
        self._on_clip: dict[tuple[int, tuple[str, ...]], str | None] = {}
        self._shard_of: dict[InGroup, tuple[str, ...]] = {}
        self._working: dict[int, tuple[str, float]] = {}
        self._bugs: dict[InGroup, tuple[str, str]] = {}
        self._hangs: dict[InGroup, list[Hang]] = {}
        self._hung_between: dict[tuple[str, ...], int] = {}
        self._doing: dict[str, tuple[Doing, int, float]] = {}  # by worker; number, and when it began
        self._handles: dict[str, Any] = {}  # only of busy workers: an actor lives as long as its handles
        self._num_begun = 0
        self._finished: dict[str, Finished] = {}
        self._stage_counts: dict[str, Counter[str]] = {}
        self._counts = [0, 0, 0]  # rows, rejects, frames of rows
        self._last_word = time.monotonic()
        self._drained = False
        self._nodes: frozenset[str] = frozenset()
        self._shards: Sequence[str] = ()
        self._handout = Handout((), 1)

    def use(self, node_ids: Collection[str]) -> None:
        """The nodes (ids) that get work from now on."""
        self._nodes = frozenset(node_ids)

    def drain(self) -> int:
        """Workers stop after their current clip, and give shards back. Returns how many shards were begun."""
        self._drained = True
        return sum(group == 0 for group, _ in self._entered)

    def resume(self) -> None:
        """New workers begin shards. Shards that come again count as no crashes; clips keep theirs."""
        self._drained = False
        for shards in (self._entered, self._on_clip, self._decoded):
            shards.clear()
        self._doing.clear()  # of workers of the last pool
        self._handles.clear()
        self._last_word = time.monotonic()

    def cut_off(self, gone: Collection[str]) -> None:
        """The pool was ended while it worked. Its workers did not crash on their clips, except perhaps those on `gone`.

        gone: ids of nodes that have left the cluster.
        """
        for doing, _, _ in self._doing.values():
            at_it = self._working.get(doing.pid, ("", 0.0))[0] == doing.clip_id
            if at_it and doing.clip_id is not None and doing.node_id not in gone:
                self._begun.get((doing.group, doing.clip_id), {}).pop(doing.pid, None)

    def hand_out(self, shards: Sequence[str], videos: Sequence[str], num_nodes: int) -> None:
        """From now on workers get numbers of tickets instead of shards (see `Handout`). shards: as JSON."""
        self._shards, self._handout = shards, Handout(videos, num_nodes)

    def take(self, ticket: int, node: str, worker: str) -> str:
        """The shard, as JSON, for the ticket of a worker on this node."""
        return self._shards[self._handout.take(ticket, node, worker)]

    def enter(self, clip_ids: Sequence[str], group: int = 0) -> ShardEntry:
        """A worker begins a shard, perhaps one in which another worker has crashed."""
        clips = tuple(clip_ids)
        if self._drained:
            return ShardEntry({}, one_by_one=False, drained=True)
        shard, keys = (group, clips), {clip_id: (group, clip_id) for clip_id in clips}
        self._shard_of.update(dict.fromkeys(keys.values(), clips))
        unexplained = shard in self._entered and self._on_clip[shard] is None
        self._entered[shard] = self._entered.get(shard, 0) + unexplained
        self._on_clip[shard] = None
        self._working = {pid: work for pid, work in self._working.items() if work[0] not in clips}  # of crashed workers
        self._last_word = time.monotonic()
        at = {clip_id: dict(Counter(self._begun.get(key, {}).values())) for clip_id, key in keys.items()}
        crashes = {clip_id: sum(stages.values()) for clip_id, stages in at.items()}
        bugs = {clip_id: self._bugs[key] for clip_id, key in keys.items() if key in self._bugs}
        hangs = {clip_id: tuple(self._hangs[key]) for clip_id, key in keys.items() if key in self._hangs}
        one_by_one = self._entered[shard] >= MAX_CRASHES
        elsewhere = frozenset(one for one, some in hangs.items() if self._nodes - {hang.node_id for hang in some})
        return ShardEntry(crashes, one_by_one, bugs=bugs, hangs=hangs, at=at, elsewhere=elsewhere)

    def decode(self, clip_ids: Sequence[str]) -> DecodeEntry | None:
        """Split mode: a decode worker begins a shard. None: drained."""
        shard = tuple(clip_ids)
        if self._drained:
            return None
        self._decoded[shard] = self._decoded.get(shard, -1) + 1
        self._last_word = time.monotonic()
        return DecodeEntry(self._decoded[shard], frozenset(c for c in shard if (0, c) in self._hangs))

    def begin(self, clip_id: str, pid: int, group: int = 0) -> bool:
        """A worker begins a clip; if it never ends it, it has crashed on it. A second call changes nothing.

        Returns False where the worker must not begin: drained.
        """
        if self._drained:
            return False
        self._begun.setdefault((group, clip_id), {})[pid] = ""
        self._on_clip[self._shard(clip_id, group)] = clip_id
        self._working[pid] = (clip_id, time.time())
        self._last_word = time.monotonic()
        return True

    def pause(self, clip_id: str, pid: int, group: int = 0) -> None:
        """The worker goes on with another clip, and comes back: crashes of others on this one still count."""
        self._begun.get((group, clip_id), {}).pop(pid, None)
        self._on_clip[self._shard(clip_id, group)] = None

    def leave(self, clip_id: str, group: int = 0) -> None:
        """The worker has finished the clip without a crash; it has no row so far."""
        self._begun.pop((group, clip_id), None)
        self._on_clip[self._shard(clip_id, group)] = None
        self._last_word = time.monotonic()

    def _shard(self, clip_id: str, group: int) -> tuple[int, tuple[str, ...]]:
        return group, self._shard_of.get((group, clip_id), ())

    def keep_bug(self, clip_id: str, stage: str, trace: str, group: int = 0) -> None:
        """A worker has met a bug on the clip, and ends because it cannot load its models again."""
        self._bugs[group, clip_id] = (stage, trace)

    def end(self, clip_id: str, pid: int, has_row: bool, num_frames: int, group: int = 0) -> None:
        """The clip has a row of `num_frames` frames, or is a reject."""
        self.leave(clip_id, group)
        now = time.time()
        _, began = self._working.pop(pid, (clip_id, now))
        self._count(self._finished.get(clip_id), -1)
        self._finished[clip_id] = Finished(has_row, num_frames, began, now)
        self._count(self._finished[clip_id], 1)

    def _count(self, clip: Finished | None, times: int) -> None:
        if clip is not None:
            for place, number in enumerate((clip.has_row, not clip.has_row, clip.num_frames * clip.has_row)):
                self._counts[place] += times * number

    def count(self, stage: str, name: str, amount: float, most: float | None) -> bool:
        """A stage counts in the run (`stages.stage.Stage.count`). It outlives the worker: a crash loses no count."""
        sums = self._stage_counts.setdefault(stage, Counter())
        if most is not None and sums[name] + amount > most:
            return False
        sums[name] += amount  # type: ignore[assignment]
        return True

    def stage_counts(self) -> dict[str, dict[str, float]]:
        """`{stage: {name: sum}}`."""
        return {stage: dict(sums) for stage, sums in self._stage_counts.items() if sums}

    def report(self, doing: Doing, spent_s: float, handle: Sequence[Any] = ()) -> None:
        """A worker's current stage, begun `spent_s` seconds ago. handle: the worker's own, once per shard."""
        self._last_word = time.monotonic()
        self._num_begun += 1
        self._doing[doing.worker] = (doing, self._num_begun, self._last_word - spent_s)
        begun = self._begun.get((doing.group, doing.clip_id or ""), {})
        if doing.pid in begun:
            begun[doing.pid] = doing.stage
        if handle:
            self._handles[doing.worker] = handle[0]

    def idle(self, worker: str) -> None:
        """The worker waits for its next shard."""
        self._last_word = time.monotonic()
        self._doing.pop(worker, None)
        self._handles.pop(worker, None)

    def overdue(self) -> list[Overdue]:
        """All current stages that have taken longer than their limits."""
        now = time.monotonic()
        return [
            Overdue(doing, number, now - began, self._handles.get(doing.worker))
            for doing, number, began in self._doing.values()
            if now - began > doing.limit_s
        ]

    def give_up(self, late: Overdue) -> int:
        """Count a hang: the worker is about to be killed. It counts for the clip, and not as a crash.

        Returns how often the clip has hung, or the shard between clips; 0 where the stage has ended meanwhile.
        """
        doing = late.doing
        if self._doing.get(doing.worker, (None, 0))[1] != late.number:
            return 0
        self.idle(doing.worker)
        self._working.pop(doing.pid, None)
        if doing.clip_id is None:
            self._hung_between[doing.clip_ids] = self._hung_between.get(doing.clip_ids, 0) + 1
            return self._hung_between[doing.clip_ids]
        self._begun.get((doing.group, doing.clip_id), {}).pop(doing.pid, None)
        hangs = self._hangs.setdefault((doing.group, doing.clip_id), [])
        hangs.append(Hang(doing.stage, late.seconds, doing.limit_s, doing.host, doing.node_id))
        return len(hangs)

    def finished(self) -> dict[str, Finished]:
        """Every clip that ended, by clip_id, in order of its end."""
        return self._finished

    def progress(self) -> Progress:
        working = {pid: clip_id for pid, (clip_id, _) in self._working.items()}
        now = time.monotonic()
        idle_s = 0.0 if self._doing else now - self._last_word
        stages: dict[str, tuple[int, float]] = {}
        for doing, _, began in self._doing.values():
            workers, longest_s = stages.get(doing.stage, (0, 0.0))
            stages[doing.stage] = (workers + 1, max(longest_s, now - began))
        rows, rejects, frames = self._counts
        return Progress(rows, rejects, frames, working, idle_s, stages)


def start_ledger(name: str | None = None) -> ray.actor.ActorHandle:
    """The run's ledger, on the driver's node: it must survive the loss of any other node."""
    return ray.remote(Ledger).options(max_concurrency=1, name=name, **on_this_node()).remote()
