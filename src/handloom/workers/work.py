"""What a worker is doing, and how long it may take: the work itself tells the ledger, so that a hang is noticed."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

import ray

from handloom.schemas.settings import Resources
from handloom.workers.ledger import Doing
from handloom.workers.place import here

EVERY_S = 0.1
WORDS_PER_S = 2000  # that all workers of a cluster say to the ledger at most; it can take over 5000
LOAD, DECODE, WAIT, WRITE = "load", "decode", "decode_wait", "write"
DECODE_TRIES = 2  # a decoder that is silent for its own limit is followed by another


class Work:
    """The stage that this process is in. It speaks when a stage begins, at most ten times a second: what is said late
    says since when it is true. A process that hangs says nothing, nor does one whose interpreter is held.

    Where a stage holds the interpreter from its very beginning, behind a stage that was as short, that one is named.
    """

    def __init__(self, ledger: ray.actor.ActorHandle, resources: Resources) -> None:
        self._ledger, self._resources = ledger, resources
        self.place = here()
        worker = ray.get_runtime_context().get_actor_id()
        self._doing = Doing(worker or str(os.getpid()), os.getpid(), *self._here(), (), None, LOAD, 0.0)
        self._handle = [] if worker is None else [ray.get_runtime_context().current_actor]
        self._lock = threading.Lock()
        self._every_s = max(EVERY_S, ray.cluster_resources().get("CPU", 1.0) / WORDS_PER_S)
        self._began, self._said, self._is_told = 0.0, 0.0, True
        self._late = threading.Event()
        threading.Thread(target=self._catch_up, daemon=True, name="work").start()

    def _here(self) -> tuple[str, str]:
        return self.place.host, self.place.node_id

    @property
    def stage(self) -> str:
        return self._doing.stage

    @contextmanager
    def on(self, clip_ids: Sequence[str], stage: str) -> Iterator[None]:
        """Something to do as long as the block lasts: a shard, or no clips at all while models are loaded."""
        with self._lock:
            self._begin(replace(self._doing, clip_ids=tuple(clip_ids), clip_id=None), stage, 0)
            self._say(self._handle)
        try:
            yield
        finally:
            with self._lock:
                self._is_told = True  # nothing is left to say
                self._ledger.rest.remote(self._doing.worker)

    def clip(self, clip_id: str | None, stage: str, num_frames: int = 0) -> None:
        """Another clip, or none, begins with this stage. Said at once: whose fault a hang is, is never in doubt."""
        with self._lock:
            self._begin(replace(self._doing, clip_id=clip_id), stage, num_frames)
            self._say()

    def begin(self, stage: str, num_frames: int = 0) -> None:
        """The clip's next stage, on so many frames."""
        with self._lock:
            self._begin_soon(stage, num_frames)

    def video_comes(self) -> None:
        """A video that is fetched is still coming: may be called from another thread, and ahead of its clip."""
        with self._lock:
            if self.stage in (DECODE, WAIT):
                self._begin_soon(self.stage, 0)

    def _begin_soon(self, stage: str, num_frames: int) -> None:
        self._begin(self._doing, stage, num_frames)
        if time.monotonic() - self._said >= self._every_s:
            self._say()
        else:
            self._late.set()

    def _begin(self, doing: Doing, stage: str, num_frames: int) -> None:
        self._doing = replace(doing, stage=stage, limit_s=self._limit_s(stage, num_frames))
        self._began, self._is_told = time.monotonic(), False

    def _limit_s(self, stage: str, num_frames: int) -> float:
        r = self._resources
        if stage.startswith(LOAD):
            return r.load_s
        if stage in (DECODE, WAIT):
            return r.stage_s + DECODE_TRIES * r.decode_timeout_s
        return r.stage_s + r.stage_frame_s * num_frames

    def _say(self, handle: Sequence[ray.actor.ActorHandle] = ()) -> None:
        now = time.monotonic()
        self._ledger.at.remote(self._doing, now - self._began, handle)
        self._said, self._is_told = now, True

    def _catch_up(self) -> None:
        """What was held back is said a little later, if it is still true."""
        while True:
            self._late.wait()
            time.sleep(self._every_s)
            self._late.clear()
            with self._lock:
                if not self._is_told:
                    self._say()
