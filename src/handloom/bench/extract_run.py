"""One `run` of the whole job, timed."""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import ray

from handloom.bench.cpu import busy_s
from handloom.bench.plain import Failed, Spent
from handloom.bench.watch import Watch
from handloom.pipelines.cluster import joined
from handloom.pipelines.run import run
from handloom.schemas.clip import Clip
from handloom.schemas.settings import RunConfig
from handloom.store.clip_list import add_clips
from handloom.store.database import Database
from handloom.workers.ledger import Finished

POLL_S, FIRST_POLL_S = 0.5, 0.02


@dataclass(frozen=True)
class EndToEnd(Spent):
    """with_start_s: the whole command, Ray's start and end and loading the models included. finished: clips in order of
    their end. failed: clips that were rejected."""

    with_start_s: float
    finished: list[Finished]
    failed: list[Failed]


def end_to_end(clips: list[Clip], path: Path, watch: Watch, did: Callable[[int], None]) -> EndToEnd:
    """One `run` into a new database: from the first clip's beginning to the last commit, and every clip's times.

    Raises KeyboardInterrupt where the run was interrupted: `run` takes the signal, and ends well.
    """
    db = Database.open(path, create=True)
    try:
        add_clips(db, clips)
        meter = _Meter(did)
        began = time.perf_counter()
        with joined(None):  # here, and not in `run`: the meter must have ended when Ray does
            watch.take_signals()
            try:
                summary = run(db, RunConfig(), quiet=True, watch=meter)
            finally:
                meter.end()
        with_start_s = time.perf_counter() - began
        if summary.exit == "interrupted":
            raise KeyboardInterrupt
        rejects = db.read("rejects", ["clip_id", "reason", "detail"]).to_pylist() if summary.num_rejects else []
    finally:
        shutil.rmtree(path)
    failed = [Failed(r["clip_id"], f"{r['reason']}: {r['detail'].splitlines()[0]}") for r in rejects]
    return EndToEnd(summary.num_frames, meter.wall_s, meter.cpu_s, with_start_s, meter.finished, failed)


class _Meter:
    """Watches a run: the time and the CPU time from its first clip's beginning to its last commit."""

    def __init__(self, did: Callable[[int], None]) -> None:
        self._did = did
        self._thread: threading.Thread | None = None
        self._ended = threading.Event()
        self._cpu_at_start = 0.0

    def __call__(self, ledger: ray.actor.ActorHandle) -> None:
        if self._thread is None:
            self._thread = threading.Thread(target=self._follow, args=(ledger,), daemon=True)
            self._thread.start()
            return
        busy = busy_s()
        self.end()
        self.cpu_s = busy - self._cpu_at_start
        self.finished = list(ray.get(ledger.finished.remote()).values())
        self.wall_s = time.time() - min(clip.began for clip in self.finished)

    def end(self) -> None:
        """No more questions to Ray: a driver that asks while Ray ends is ended by it, without a word."""
        self._ended.set()
        if self._thread is not None:
            self._thread.join()

    def _follow(self, ledger: ray.actor.ActorHandle) -> None:
        """The CPU time when the first clip begins; how many have ended, until the run has."""
        try:
            while not ray.get(ledger.progress.remote()).working and not self._ended.is_set():
                time.sleep(FIRST_POLL_S)
            self._cpu_at_start = busy_s()
            while not self._ended.wait(POLL_S):
                progress = ray.get(ledger.progress.remote())
                self._did(progress.num_rows + progress.num_rejects)
        except (ray.exceptions.RayError, RuntimeError, OSError):
            return  # Ray is going down: the run's own end says why
