"""Finished shards on their way into the database: how much is committed at once, how often, and when to give up."""

from __future__ import annotations

import logging
import time
from collections import Counter, defaultdict
from dataclasses import dataclass, field

from handloom.errors import HandloomError, StoreError
from handloom.pipelines.run.interrupts import Interrupts
from handloom.schemas.settings import Resources
from handloom.store.clips.commit import Committer
from handloom.workers.bugs import BUG, place_of
from handloom.workers.shard import ShardResult

log = logging.getLogger(__name__)


@dataclass
class CommitTally:
    """What has been committed so far."""

    num_clips: int = 0
    num_rejects: int = 0
    num_frames: int = 0
    reasons: Counter[str] = field(default_factory=Counter)
    bugs: Counter[str] = field(default_factory=Counter)  # by place
    traces: dict[str, str] = field(default_factory=dict)  # of each place, the first
    stage_s: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    left_nodes: dict[str, str] = field(default_factory=dict)  # host, and why it got no work any more


class Pending:
    """Finished shards that wait for the next commit."""

    def __init__(self, committer: Committer, resources: Resources, tally: CommitTally, interrupts: Interrupts) -> None:
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
            if self._num_finished() >= r.min_clips_before_stop:
                self._check_bugs("the run stops")
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
        for reject in rejects:
            if reject.reason == BUG:
                place = place_of(reject.detail)
                tally.bugs[place] += 1
                tally.traces.setdefault(place, reject.detail.rpartition("\nhint: ")[0])
        for result in results:
            for stage, seconds in result.stage_s.items():
                tally.stage_s[stage] += seconds
        self._last_commit = time.monotonic()
        log.info("committed clips=%d rejects=%d version=%d", done.num_clips, done.num_rejects, done.version)

    def check_end(self) -> None:
        """The run has ended. Raises HandloomError where too large a share of its clips met bugs, however few it had."""
        self._check_bugs("the run failed")

    def _num_finished(self) -> int:
        """Without missing videos: they say nothing of the rest."""
        return self._tally.num_clips + self._tally.num_rejects - self._tally.reasons["video_missing"]

    def _check_share(self) -> None:
        """Stop a run that only rejects: something is wrong with more than its clips."""
        tally, finished = self._tally, self._num_finished()
        rejected = finished - tally.num_clips
        if rejected > self._resources.max_reject_share * finished:
            reason, count = tally.reasons.most_common(1)[0]
            raise StoreError(
                f"{rejected} of {finished} clips were rejected, {count} of them because of {reason}: the run stops",
                "look at `handloom status`; raise resources.max_reject_share to go on all the same",
            )

    def _check_bugs(self, then: str) -> None:
        tally, num, finished = self._tally, self._tally.bugs.total(), self._num_finished()
        if num <= self._resources.max_bug_share * finished:
            return
        place, count = tally.bugs.most_common(1)[0]
        raise HandloomError(
            f"{num} of {finished} clips met an exception that nobody expected: {then}. The commonest, on {count} of "
            f"them:\n{tally.traces[place]}",
            "finished clips are committed, these are rejects: report the trace; once it is mended, run with "
            "--retry-rejects --reason bug; raise resources.max_bug_share to go on all the same",
        )
