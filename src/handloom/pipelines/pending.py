"""Finished shards on their way into the database: how much is committed at once, how often, and when to give up."""

from __future__ import annotations

import logging
import time
from collections import Counter, defaultdict
from dataclasses import dataclass, field

from handloom.errors import StoreError
from handloom.pipelines.interrupts import Interrupts
from handloom.schemas.settings import Resources
from handloom.store.commit import Committer
from handloom.workers.shard import ShardResult

log = logging.getLogger(__name__)


@dataclass
class Tally:
    """What has been committed so far."""

    num_clips: int = 0
    num_rejects: int = 0
    num_frames: int = 0
    reasons: Counter[str] = field(default_factory=Counter)
    stage_s: dict[str, float] = field(default_factory=lambda: defaultdict(float))


class Pending:
    """Finished shards that wait for the next commit."""

    def __init__(self, committer: Committer, resources: Resources, tally: Tally, interrupts: Interrupts) -> None:
        self._interrupts = interrupts
        self._committer = committer
        self._resources = resources
        self._tally = tally
        self._results: list[ShardResult] = []
        self._last_commit = time.monotonic()

    def keep(self, result: ShardResult) -> None:
        """Keep a result for the next commit. Raises StoreError where the worker could not write."""
        result.check()
        self._results.append(result)

    def add(self, result: ShardResult) -> None:
        """Keep a result, and commit if it is time."""
        self.keep(result)
        self.tick()

    def tick(self) -> None:
        """Commit if it is time. Called whether or not results come in: a worker may take long over the next."""
        waiting = sum(len(r.clip_ids()) for r in self._results)
        r = self._resources
        if waiting >= r.commit_clips or (waiting and time.monotonic() - self._last_commit >= r.commit_s):
            self.flush()
            self._check_share()

    def flush(self) -> None:
        """Commit what has come in. A signal waits until it is done."""
        if self._results:
            with self._interrupts.held():
                self._commit()

    def _commit(self) -> None:
        results, self._results = self._results, []
        rejects = [reject for result in results for reject in result.rejects]
        done = self._committer.commit([r.record for r in results if r.record is not None], rejects)
        tally = self._tally
        tally.num_clips += done.num_clips
        tally.num_rejects += done.num_rejects
        tally.num_frames += sum(result.num_frames for result in results)
        tally.reasons.update(reject.reason for reject in rejects)
        for result in results:
            for stage, seconds in result.stage_s.items():
                tally.stage_s[stage] += seconds
        self._last_commit = time.monotonic()
        log.info("committed clips=%d rejects=%d version=%d", done.num_clips, done.num_rejects, done.version)

    def _check_share(self) -> None:
        """Stop a run that only rejects: something is wrong with more than its clips."""
        tally, r = self._tally, self._resources
        rejected = tally.num_rejects - tally.reasons["video_missing"]
        finished = tally.num_clips + rejected
        if finished >= r.min_clips_before_stop and rejected > r.max_reject_share * finished:
            reason, count = tally.reasons.most_common(1)[0]
            raise StoreError(
                f"{rejected} of {finished} clips were rejected, {count} of them because of {reason}: the run stops",
                "look at `handloom status`; raise resources.max_reject_share to go on all the same",
            )
