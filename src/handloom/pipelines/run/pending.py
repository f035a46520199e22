"""Finished shards that wait for a commit: how many are committed at once, how often, and when the run must stop."""

from __future__ import annotations

import logging
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from handloom.errors import HandloomError, StoreError
from handloom.pipelines.run.interrupts import Interrupts
from handloom.schemas.settings import Resources
from handloom.stages.own import BAD_OUTPUT
from handloom.stages.traces import place_of
from handloom.store.clips.commit import CommitResult, Committer
from handloom.store.stages.rejects import StageReject
from handloom.store.stages.update import ColumnCommitter
from handloom.store.stages.waiting import WaitingUpdates
from handloom.workers.bugs import BUG
from handloom.workers.shard import ShardResult

log = logging.getLogger(__name__)

MAX_COMMIT_SHARE = 0.05  # of the driver's time
MAX_PAUSE_S = 300.0


@dataclass
class CommitTally:
    """What has been committed so far."""

    num_clips: int = 0
    num_rejects: int = 0
    num_frames: int = 0
    num_updates: int = 0  # clips whose new columns are committed
    num_stage_rejects: int = 0
    num_updated: int = 0  # clips with a row that were processed ...
    num_not_updated: int = 0  # ... and that could not be
    reasons: Counter[str] = field(default_factory=Counter)
    bugs: Counter[str] = field(default_factory=Counter)  # by place in the source
    traces: dict[str, str] = field(default_factory=dict)  # the first of each place
    stage_s: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    stage_clips: Counter[str] = field(default_factory=Counter)  # clips for which each stage was computed
    stage_bugs: Counter[str] = field(default_factory=Counter)  # clips on which a stage met a bug, or gave bad output
    stage_details: dict[str, str] = field(default_factory=dict)  # the first of each stage
    stage_counts: dict[str, dict[str, float]] | None = None  # what stages have counted themselves; None: unknown
    left_nodes: dict[str, str] = field(default_factory=dict)  # host, and why it gets no more work


class Pending:
    """Finished shards that wait for the next commit, which takes all of them.

    A commit is due after `commit_clips` clips, or `commit_s` seconds after the last one. It writes one entry for every
    fragment of the table, so it takes longer as the table grows: a commit that took two seconds is followed by a pause
    of 40 (`MAX_COMMIT_SHARE`), by `MAX_PAUSE_S` at most. A killed driver loses what was finished in that time.
    """

    def __init__(
        self,
        committer: Committer,
        resources: Resources,
        tally: CommitTally,
        interrupts: Interrupts,
        clock: Callable[[], float] = time.monotonic,
        columns: ColumnCommitter | None = None,
        stage_keys: Mapping[str, str] | None = None,
        targets: Mapping[str, Sequence[str]] | None = None,
    ) -> None:
        """columns: commits new columns of rows, and rejects of stages, whose keys are `stage_keys`. targets: {clip id:
        stages} of all rows that get new columns."""
        self._interrupts = interrupts
        self._committer = committer
        self._resources = resources
        self._tally = tally
        self._clock = clock
        self._results: list[ShardResult] = []
        self._waiting = 0
        self._last_commit = clock()
        self._pause_s = 0.0
        self._columns, self._stage_keys = columns, stage_keys or {}
        self._updates = None
        if columns is not None:
            self._updates = WaitingUpdates(columns.fragment_of, targets or {}, now=clock())

    @property
    def version(self) -> int:
        """Version of `clips` after the last commit."""
        return self._committer.version

    def keep(self, result: ShardResult) -> None:
        """Keep a result for the next commit. Raises StoreError if the worker could not write."""
        result.check()
        self._results.append(result)
        self._waiting += len(result.clip_ids())

    def add(self, result: ShardResult) -> None:
        """Keep a result, and commit if it is time."""
        self.keep(result)
        self.tick()

    def tick(self) -> None:
        """Commit if it is time. Must be called without results, too: the next may take long."""
        r, since_s = self._resources, self._clock() - self._last_commit
        due = self._waiting >= r.commit_clips or (self._waiting and since_s >= r.commit_s)
        if due and since_s >= self._pause_s:
            with self._interrupts.held():
                self._commit()
            if self._num_finished() >= r.min_clips_before_stop:
                self._check_bugs("the run stops")
                self._check_share()
            self._check_stages()

    def flush(self) -> None:
        """Commit all that has come in. A signal waits until it is done."""
        if self._results or self._updates:
            with self._interrupts.held():
                self._commit(everything=True)

    def _commit(self, everything: bool = False) -> None:
        """everything: also new columns of fragments of which more will come."""
        results, self._results, self._waiting = self._results, [], 0
        started = self._clock()
        rejects = [reject for result in results for reject in result.rejects]
        lost = [reject for result in results if not result.targets for reject in result.rejects]
        records = [r.record for r in results if r.record is not None]
        if records or lost:
            done = self._committer.commit(records, lost)
        else:
            done = CommitResult(0, 0, 0, self._committer.version)
        tally = self._tally
        self._commit_columns(results, everything)
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
            new = 0 if result.record is None else len(result.record.clip_ids)
            tally.stage_clips.update(dict.fromkeys(self._stage_keys, new) if new else {})
            tally.stage_clips.update({stage: len(result.updated) for stage in result.targets if result.updated})
            tally.num_updated += len(result.updated)
            tally.num_not_updated += len(result.rejects) if result.targets else 0
            for stage, seconds in result.stage_s.items():
                tally.stage_s[stage] += seconds
        self._last_commit = self._clock()
        commit_s = self._last_commit - started
        self._pause_s = min(commit_s / MAX_COMMIT_SHARE, MAX_PAUSE_S)
        counts = (done.num_clips, done.num_rejects, done.version, commit_s)
        log.info("committed clips=%d rejects=%d version=%d dur_s=%.2f", *counts)

    def _commit_columns(self, results: Sequence[ShardResult], everything: bool) -> None:
        """New columns, a fragment at a time, and rejects of stages: of rows that are there by now."""
        if self._columns is None or self._updates is None:
            return
        failed = [reject for result in results for reject in _stage_rejects(result, self._stage_keys)]
        for reject in failed:
            if reject.reason in (BUG, BAD_OUTPUT):
                self._tally.stage_bugs[reject.stage] += 1
                self._tally.stage_details.setdefault(reject.stage, reject.detail.rpartition("\nhint: ")[0])
        for result in results:
            for update in result.updates:
                self._updates.add(update)
            self._updates.end([*result.updated, *(reject.clip_id for reject in result.rejects)])
        started = self._clock()
        updates = self._updates.due(started, everything=everything)
        if not updates and not failed:
            return
        done = self._columns.commit(updates, failed)
        if updates:
            self._updates.committed(self._clock(), self._clock() - started)
        self._tally.num_updates += done.num_clips
        self._tally.num_stage_rejects += done.num_rejects
        log.info("committed columns clips=%d fragments=%d bytes=%d", done.num_clips, done.fragments, done.num_bytes)

    def check_end(self) -> None:
        """Call it at the end. Raises HandloomError if too large a share of the run's clips met bugs, however few."""
        self._check_bugs("the run failed")

    def _num_finished(self) -> int:
        """Finished clips, without those whose video is missing: they say nothing of the others."""
        tally = self._tally
        processed = tally.num_clips + tally.num_updated
        return processed + tally.num_rejects + tally.num_not_updated - tally.reasons["video_missing"]

    def _check_share(self) -> None:
        """Stop a run that rejects nearly everything: the cause is not in the clips."""
        tally, finished = self._tally, self._num_finished()
        rejected = finished - tally.num_clips - tally.num_updated
        if rejected > self._resources.max_reject_share * finished:
            reason, count = tally.reasons.most_common(1)[0]
            raise StoreError(
                f"{rejected} of {finished} clips were rejected, {count} of them because of {reason}: the run stops",
                "look at `handloom status`; raise resources.max_reject_share to go on all the same",
            )

    def _check_stages(self) -> None:
        """Stop a run in which a stage fails on most clips: the others would be computed in vain."""
        tally, resources = self._tally, self._resources
        for stage, num in tally.stage_bugs.items():
            tried = tally.stage_clips[stage]
            if tried >= resources.min_clips_before_stop and num > resources.max_bug_share * tried:
                raise HandloomError(
                    f"the stage {stage} failed on {num} of {tried} clips: the run stops. The first one:\n"
                    f"{tally.stage_details[stage]}",
                    "what is finished is committed: mend the stage, change its version, and run again; or take it out "
                    f"(--set stages.{stage}=null); raise resources.max_bug_share to go on all the same",
                )

    def _check_bugs(self, then: str) -> None:
        tally, num, finished = self._tally, self._tally.bugs.total(), self._num_finished()
        if num <= self._resources.max_bug_share * finished:
            return
        place, count = tally.bugs.most_common(1)[0]
        raise HandloomError(
            f"{num} of {finished} clips met an unexpected exception: {then}. The commonest, on {count} of "
            f"them:\n{tally.traces[place]}",
            "finished clips are committed, these are rejects: report the trace; once it is fixed, run with "
            "--retry-rejects --reason bug; raise resources.max_bug_share to go on all the same",
        )


def _stage_rejects(result: ShardResult, keys: Mapping[str, str]) -> Iterator[StageReject]:
    """Those of the result; a clip that has a row and could not be processed is one of each of its target stages."""
    yield from result.stage_rejects
    for reject in result.rejects if result.targets else ():
        for stage in result.targets:
            detail = f"{reject.stage}: {reject.detail}"
            values = (stage, keys[stage], reject.reason, detail, reject.attempts, reject.host)
            yield StageReject(reject.clip_id, *values)
