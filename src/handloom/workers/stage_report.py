"""A worker's current stage and its time limit, reported to the ledger, so that a hang is noticed."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

import ray

from handloom.schemas.settings import Resources
from handloom.store.runs.runs import DECODE, LOAD, WAIT
from handloom.workers.ledger import Doing
from handloom.workers.place import here

MIN_INTERVAL_S = 0.1
MESSAGES_PER_S = 2000  # of all workers of a cluster to the ledger; it can take over 5000
DECODE_TRIES = 2  # a decoder that exceeds its own limit is followed by another


class Work:
    """The stage of this process. It reports each stage that begins, at most ten times a second; a late report has the
    time of the beginning. A process that hangs, or whose interpreter lock is held, reports nothing.

    Where a stage holds the lock from its beginning, and follows a stage of under 0.1 s, the latter is reported to hang.
    Stages in `sure` are known to the ledger before they begin (1 ms): what kills the worker there is known for certain.

    Args:
        group: of the stages that this worker computes.
    """

    def __init__(
        self, ledger: ray.actor.ActorHandle, resources: Resources, group: int = 0, sure: Collection[str] = ()
    ) -> None:
        self._ledger, self._resources, self._sure = ledger, resources, frozenset(sure)
        self.place = here()
        worker = ray.get_runtime_context().get_actor_id()
        self._doing = Doing(worker or str(os.getpid()), os.getpid(), *self._here(), (), None, LOAD, 0.0, group)
        self._handle = [] if worker is None else [ray.get_runtime_context().current_actor]
        self._lock = threading.Lock()
        self._interval_s = max(MIN_INTERVAL_S, ray.cluster_resources().get("CPU", 1.0) / MESSAGES_PER_S)
        self._began, self._sent, self._is_sent = 0.0, 0.0, True
        self._held_back = threading.Event()
        threading.Thread(target=self._send_held_back, daemon=True, name="work").start()

    def _here(self) -> tuple[str, str]:
        return self.place.host, self.place.node_id

    @property
    def stage(self) -> str:
        return self._doing.stage

    @contextmanager
    def on(self, clip_ids: Sequence[str], stage: str) -> Iterator[None]:
        """The worker is busy while the block runs: with a shard, or without clips while it loads its models."""
        with self._lock:
            self._begin(replace(self._doing, clip_ids=tuple(clip_ids), clip_id=None), stage, 0)
            self._send(self._handle)
        try:
            yield
        finally:
            with self._lock:
                self._is_sent = True  # nothing is left to report
                self._ledger.idle.remote(self._doing.worker)

    def clip(self, clip_id: str | None, stage: str, num_frames: int = 0) -> None:
        """Another clip, or none, begins with this stage. Reported at once: a hang must be blamed on the right clip."""
        with self._lock:
            self._begin(replace(self._doing, clip_id=clip_id), stage, num_frames)
            self._send()

    def begin(self, stage: str, num_frames: int = 0) -> None:
        """The clip's next stage, on `num_frames` frames: its limit is in proportion."""
        with self._lock:
            if stage in self._sure:
                self._begin(self._doing, stage, num_frames)
                ray.get(self._send())
            else:
                self._begin_soon(stage, num_frames)

    def still_fetching(self) -> None:
        """Bytes of a video have arrived. May be called from another thread, and ahead of the video's clip."""
        with self._lock:
            if self.stage in (DECODE, WAIT):
                self._begin_soon(self.stage, 0)

    def _begin_soon(self, stage: str, num_frames: int) -> None:
        self._begin(self._doing, stage, num_frames)
        if time.monotonic() - self._sent >= self._interval_s:
            self._send()
        else:
            self._held_back.set()

    def _begin(self, doing: Doing, stage: str, num_frames: int) -> None:
        self._doing = replace(doing, stage=stage, limit_s=self._limit_s(stage, num_frames))
        self._began, self._is_sent = time.monotonic(), False

    def _limit_s(self, stage: str, num_frames: int) -> float:
        r = self._resources
        if stage.startswith(LOAD):
            return r.load_s
        if stage in (DECODE, WAIT):
            return r.stage_s + DECODE_TRIES * r.decode_timeout_s
        return r.stage_s + r.stage_frame_s * num_frames

    def _send(self, handle: Sequence[ray.actor.ActorHandle] = ()) -> ray.ObjectRef:
        now = time.monotonic()
        self._sent, self._is_sent = now, True
        return self._ledger.report.remote(self._doing, now - self._began, handle)

    def _send_held_back(self) -> None:
        """A thread that sends, a little later, the report of a stage that was held back and still runs."""
        while True:
            self._held_back.wait()
            time.sleep(self._interval_s)
            self._held_back.clear()
            with self._lock:
                if not self._is_sent:
                    self._send()
