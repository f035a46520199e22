"""One group of stages in one actor: a shard's clips come in, and go on to the next group; the last one writes them."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import ray

from handloom.errors import ClipError, ConfigError, StoreError
from handloom.schemas.clip import Clip
from handloom.schemas.tables.reject import RETRIABLE, Reject
from handloom.stages.pools.travel import Frames, Plan, UnderWay
from handloom.store.runs.runs import DECODE, READ, SHARD, WRITE
from handloom.workers.blame import clip_error, hung_here, stage_errors
from handloom.workers.bugs import BUG, NO_MEMORY, bugs_as_rejects, for_each
from handloom.workers.groups.models import Models
from handloom.workers.groups.passed import EMPTY, PassedShard, Stream, Tried
from handloom.workers.groups.storing import Storing
from handloom.workers.ledger import MAX_CRASHES, MAX_HANGS, ShardEntry
from handloom.workers.setup import WorkerSetup
from handloom.workers.shard import Shard, ShardResult
from handloom.workers.stage_report import Work
from handloom.workers.update_rows import NewColumns


class GroupProcessor:
    """Computes one group's stages for shards: retries, reports to the ledger, the fragment.

    A clip on which `MAX_CRASHES` workers have crashed is rejected without a try; one that may have failed for an
    outside reason is tried a second time at the end of the shard. A clip that crashes its worker, or hangs, at a stage
    of one's own goes on without that stage; so does a clip that has a row already, at any stage. At any other place it
    is the clip that is given up. Where workers have crashed between clips, or while writing, the clips are processed
    and written one by one, so that the ledger can identify the clip.

    A clip is computed while the next one is decoded, and becomes a row at once: values and frames of several clips are
    held only if a stage takes several clips, or for the next group.

    Args:
        number: which of the run's groups this worker computes. All are computed by one worker if there is one group.
    """

    def __init__(self, setup: WorkerSetup, ledger: ray.actor.ActorHandle, number: int = 0) -> None:
        groups = setup.groups
        self._setup, self._ledger, self._number = setup, ledger, number
        self._group, self._is_last = groups[number], number == len(groups) - 1
        self._later = frozenset(name for group in groups[number + 1 :] for name in group.stages)
        own = [name for name in self._group.stages if name in setup.own_stages]
        self._work = Work(ledger, setup.resources, number, self._group.stages if number else own)
        self._own = frozenset(own)
        self._storing = Storing(setup, ledger, number, self._work.place)
        self._models = Models(setup, ledger, self._work, number)
        self._is_alone = False  # a clip is not left before it is written

    def first(self, shard: Shard, stream: Stream | None = None) -> PassedShard:
        """A shard after the first group. stream: the clips' frames; they are decoded here by default."""
        names = tuple(self._models.extractor.graph.names) if self._models.are_loaded else ()
        plan = Plan(names, names, True)  # of a clip without a row
        clips = tuple(UnderWay(clip, plan) for clip in shard.clips)
        self._storing.begin(shard)
        (done,) = self._done([PassedShard(clips, replace(EMPTY, targets=shard.targets))], stream or self.stream)
        return done

    def process(self, shards: Sequence[PassedShard]) -> list[PassedShard]:
        """The shards after this group; after the last one without clips.

        Shards are computed together where stages take several clips at once, unless a worker has crashed on them.
        """
        passed = [shard for shard in shards if not shard.clips]  # refused, or given back, before
        shards = [shard for shard in shards if shard.clips]
        return passed + self._done(shards, self.stream) if shards else passed

    def stream(self, clips: Sequence[Clip]) -> Generator[Frames | ClipError, None, None]:
        """The clips' frames, decoded here."""
        return self._models.stream(clips)

    def close(self) -> None:
        """End the decoding processes."""
        self._models.close()

    def _done(self, shards: Sequence[PassedShard], stream: Stream) -> list[PassedShard]:
        if self._models.refused is not None:
            return [self._without_clips(shard, refused=self._models.refused) for shard in shards]
        self._models.stage_s.clear()
        clip_ids = [clip_id for shard in shards for clip_id in shard.clip_ids]
        try:
            with self._work.on(clip_ids, SHARD):
                return self._entered(shards, stream)
        except (ConfigError, StoreError) as error:  # of the node: its sandbox, its access to the store
            return [self._without_clips(shard, failure=(error.problem, error.hint)) for shard in shards]
        except KeyboardInterrupt:  # Ctrl-C, or a stage's class raises it: Ray would report a cancelled task
            return [self._without_clips(shard, interrupted=self._work.stage) for shard in shards]

    def _without_clips(self, shard: PassedShard, **why: Any) -> PassedShard:
        return PassedShard((), replace(EMPTY, targets=shard.result.targets, **why).at(self._work.place))

    def _entered(self, shards: Sequence[PassedShard], stream: Stream) -> list[PassedShard]:
        entries = [ray.get(self._ledger.enter.remote(shard.clip_ids, self._number)) for shard in shards]
        if any(entry.drained for entry in entries):
            given_back = self._number == 0  # a shard that the first group has finished is no untouched one
            return [PassedShard((), replace(shard.result, given_back=given_back)) for shard in shards]
        if self._models.not_loaded is not None:
            raise self._models.not_loaded
        careful = any(_is_suspect(entry) for entry in entries)
        sets = [[number] for number in range(len(shards))] if careful else [list(range(len(shards)))]
        done: list[PassedShard] = []
        for numbers in sets:
            sorted_out = [self._sort_out(shards[number], entries[number]) for number in numbers]
            done += self._computed(sorted_out, stream, careful, entries[numbers[0]].one_by_one)
        seconds = {stage: spent / len(shards) for stage, spent in self._models.stage_s.items()}
        return [replace(shard, result=_with_seconds(shard.result, seconds)) for shard in done]

    def _sort_out(self, shard: PassedShard, entry: ShardEntry) -> tuple[ShardResult, list[Tried]]:
        """The clips to be tried, and the result with the others: given up, or tried once more alone."""
        rejects, alone, moved, tried = [], [], [], []
        place = self._work.place
        for one in shard.clips:
            clip_id = one.clip.clip_id
            apart = self._group.stages if shard.result.targets else self._own
            error = clip_error(entry, clip_id, apart, place.node_id)
            skipped = stage_errors(entry, clip_id, apart, place.node_id)
            if error is None and (reason := hung_here(entry, clip_id, apart, place.node_id)) is not None:
                reject = Reject.from_error(reason, MAX_HANGS)
                moved.append(replace(reject, host=place.host, node_id=place.node_id))
            elif error is not None:
                rejects.append(Reject.from_error(error, MAX_CRASHES))
            elif clip_id in entry.hangs and not skipped and len(shard.clips) > 1:
                alone.append(clip_id)
            else:
                tried.append(Tried(replace(one, errors=one.errors | skipped), shard.result.targets))
        result = shard.result
        rejected = (*result.rejects, *self._storing.end(rejects))
        result = replace(result, rejects=rejected, alone=(*result.alone, *alone), moved=(*result.moved, *moved))
        return result, tried

    def _computed(
        self, shards: Sequence[tuple[ShardResult, list[Tried]]], stream: Stream, careful: bool, one_by_one: bool
    ) -> list[PassedShard]:
        """The shards after this group. one_by_one: of the only shard; a crash between clips is then blamed on one."""
        if not one_by_one:
            self._compute_all([one for _, tried in shards for one in tried], stream, careful)
            return [self._end(result, tried) for result, tried in shards]
        ((result, tried),) = shards
        passed = self._end(result, [])
        for one in tried:
            if self._begin(one.clip):
                with self._alone():
                    self._compute_all([one], stream, careful)
                    done = self._end(passed.result, [one])
                passed = replace(done, clips=(*passed.clips, *done.clips))
        return [passed]

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        self._is_alone = True
        try:
            yield
        finally:
            self._is_alone = False

    def _compute_all(self, tried: Sequence[Tried], stream: Stream, careful: bool) -> None:
        """Compute this group's stages of all clips; those that failed for an outside reason a second time."""
        if not self._number:
            self._plan_rows([one for one in tried if one.targets])
        live = [one for one in tried if one.goes_on]
        self._in_parts(live, stream, careful)
        again = [one for one in live if one.error is not None and one.error.reason in RETRIABLE]
        for one in again:
            one.try_again()
        self._in_parts(again, self.stream, careful=True)
        if not self._number:
            self._compute_without_frames([one for one in tried if one.targets])

    def _in_parts(self, tried: Sequence[Tried], stream: Stream, careful: bool) -> None:
        """Compute the clips; as many at once as the group's stages can take, or all if each is done with at once."""
        at_once = 1 if careful else self._group.batch_clips
        if len(self._group.steps) == 1:
            at_once = max(1, len(tried))
        for start in range(0, len(tried), at_once):
            self._compute(tried[start : start + at_once], stream, careful)

    def _plan_rows(self, tried: Sequence[Tried]) -> None:
        """Say what is missing of clips with rows. What is read for it is forgotten: rows are read again, one by one."""
        for one in tried:
            try:
                with bugs_as_rejects(one.clip.clip_id, lambda: READ):
                    plan = self._storing.updater(self._models.extractor, one.targets).plan(one.clip)
            except ClipError as error:
                one.fail(error)
                continue
            if plan is None:
                one.finish(NewColumns(one.clip.clip_id, None, (), 0))
                self._tell(one)
            else:
                one.given = replace(one.given, plan=plan)

    def _compute_without_frames(self, tried: Sequence[Tried]) -> None:
        """Compute what needs no frames of rows whose videos cannot be decoded."""
        for one in tried:
            if one.error is None or one.error.stage not in ("fetch", DECODE):
                continue
            try:
                with bugs_as_rejects(one.clip.clip_id, lambda: READ):
                    updater = self._storing.updater(self._models.extractor, one.targets)
                    plan, errors = updater.plan_without_frames(one.clip, one.error)
            except ClipError:
                continue
            one.error = None
            one.given = replace(one.given, plan=plan, errors=one.given.errors | errors)
            self._compute([one], self.stream, careful=True)

    def _compute(self, tried: Sequence[Tried], stream: Stream, careful: bool) -> None:
        for step in self._group.steps:
            batch_clips = 1 if careful else self._batch_of(step)
            if step == self._group.steps[0] and not self._number:  # it decodes
                self._decode([one for one in tried if one.given.plan.reads_frames], stream, step)
                self._step([one for one in tried if not one.given.plan.reads_frames], step)
            elif batch_clips > 1:
                self._together(tried, step, batch_clips)
            else:
                self._step(tried, step)

    def _batch_of(self, step: Sequence[str]) -> int:
        config = self._setup.settings.stages.get(step[0])
        return config.batch_clips if config is not None and step[0] in self._own and len(step) == 1 else 1

    def _decode(self, tried: Sequence[Tried], stream: Stream, step: Sequence[str]) -> None:
        """The first group's first step, on clips as they are decoded."""
        by_id = {one.clip.clip_id: one for one in tried}

        def compute(frames: Frames) -> None:
            one = by_id[frames.clip.clip_id]
            self._start(one)
            one.begun.clip, one.begun.source = frames.clip, frames  # with what is known of its file
            self._models.extractor.compute(one.begun, step)
            self._after(one, step)

        clips = [one.clip for one in tried]
        work = for_each(clips, stream, compute, begin=self._begin, stage=lambda: self._work.stage)
        left = dict(by_id)
        with contextlib.closing(work):
            for clip, found in work:
                one = left.pop(clip.clip_id)
                if isinstance(found, ClipError):
                    self._failed(one, found)
                self._tell(one)
        for one in left.values():
            one.stop()

    def _start(self, one: Tried) -> None:
        """Begin a clip. Of a row that exists this is where the first group reads what stages need."""
        if self._number or not one.targets:
            return one.begin()
        updater = self._storing.updater(self._models.extractor, one.targets)
        begun = updater.begin(one.clip, one.given.plan)
        begun.errors |= one.given.errors
        one.go_on_with(begun)

    def _after(self, one: Tried, step: Sequence[str]) -> None:
        """After a step of a clip: keep what is needed of it."""
        if step == self._group.steps[-1]:
            if self._is_last:
                one.finish(self._storing.made(self._models.extractor, one.begun, one.targets))
            else:
                one.go_on_with(self._reduced(one.begun, self._later))
        elif step == self._group.steps[0] and not self._number:
            one.go_on_with(self._reduced(one.begun, self._later | set(self._group.stages) - set(step)))

    def _reduced(self, one: UnderWay, later: frozenset[str]) -> UnderWay:
        limit = self._setup.resources.inline_frames_mb << 20
        return one.for_later(self._models.extractor.graph, later, limit)

    def _step(self, tried: Sequence[Tried], step: Sequence[str]) -> None:
        """Stages that take one clip at a time."""
        for one in tried:
            if not one.goes_on:
                continue
            if self._begin(one.clip):
                self._try(one, self._compute_one, step)
                self._tell(one)
            else:
                one.stop()

    def _try(self, one: Tried, work: Callable[[Tried, Sequence[str]], None], step: Sequence[str]) -> None:
        try:
            with bugs_as_rejects(one.clip.clip_id, lambda: self._work.stage):
                work(one, step)
        except ClipError as error:
            self._failed(one, error)

    def _compute_one(self, one: Tried, step: Sequence[str]) -> None:
        self._prepare(one, step)
        self._models.extractor.compute(one.begun, step)
        self._after(one, step)

    def _prepare(self, one: Tried, step: Sequence[str]) -> None:
        """Begin the clip, if it is not. Frames that were too many to be sent are decoded here."""
        if one.now is None:
            self._start(one)
        if one.begun.decodes_again and any(self._models.extractor.graph[name].reads_frames for name in step):
            self._decode_again(one)

    def _collect(self, one: Tried, step: Sequence[str]) -> None:
        """Prepare the clip, and read its frames if they came with it."""
        self._prepare(one, step)
        self._models.extractor.compute(one.begun, ())

    def _decode_again(self, one: Tried) -> None:
        (found,) = self.stream([one.clip])
        if isinstance(found, ClipError):
            raise found
        one.begun.source, one.begun.decodes_again = found, False

    def _together(self, tried: Sequence[Tried], step: Sequence[str], batch_clips: int) -> None:
        """A stage that takes several clips at once. If the worker ends in it, all of them are tried one by one."""
        live = [one for one in tried if one.goes_on]
        for at in range(0, len(live), batch_clips):
            some = live[at : at + batch_clips]
            begun = [self._ledger.begin.remote(one.clip.clip_id, os.getpid(), self._number) for one in some]
            self._work.clip(some[0].clip.clip_id, SHARD)
            if all(ray.get(begun)):
                for one in some:
                    self._try(one, self._collect, step)
                ready = [one for one in some if one.goes_on]
                self._models.extractor.compute_together([one.begun for one in ready], step[0], batch_clips)
                for one in ready:
                    self._try(one, self._after, step)
            else:
                for one in some:
                    one.stop()
            for one in some:
                self._tell(one)

    def _begin(self, clip: Clip) -> bool:
        """Waits for the ledger: a crash in the next instant must be counted for this clip. False: stop before it."""
        self._work.clip(clip.clip_id, SHARD if self._number else DECODE)
        return ray.get(self._ledger.begin.remote(clip.clip_id, os.getpid(), self._number))

    def _tell(self, one: Tried) -> None:
        """Tell the ledger how far a clip is, which this worker leaves for another."""
        clip_id = one.clip.clip_id
        if one.error is not None:
            self._ledger.leave.remote(clip_id, self._number)
        elif self._is_alone:
            return
        elif one.made is not None:
            self._ledger.end.remote(clip_id, os.getpid(), True, one.made.num_frames, self._number)
        else:
            self._ledger.pause.remote(clip_id, os.getpid(), self._number)

    def _failed(self, one: Tried, error: ClipError) -> None:
        one.fail(error)
        if error.reason in (BUG, NO_MEMORY):
            self._models.renew(error)

    def _end(self, result: ShardResult, tried: Sequence[Tried]) -> PassedShard:
        """The shard after this group: its clips for the next one, or, after the last, its rows and new columns."""
        place = self._work.place
        failed = [Reject.from_error(one.error, one.attempts) for one in tried if one.error is not None]
        rejects = (*result.rejects, *self._storing.end(failed))
        result = replace(result, rejects=rejects, host=place.host, node_id=place.node_id)
        if not self._is_last:
            return self._sent(result, [one.begun for one in tried if one.goes_on])
        made = [one.made for one in tried if one.made is not None]
        if made:
            clip_id = made[0].clip_id if self._is_alone else None
            self._work.clip(clip_id, WRITE, sum(one.num_frames for one in made))
            result = self._storing.store(self._models.extractor.schema, result, made)
        ended = {reject.clip_id for reject in result.rejects}
        for one in made if self._is_alone else ():
            if one.clip_id not in ended:
                self._ledger.end.remote(one.clip_id, os.getpid(), True, one.num_frames, self._number)
        return PassedShard((), result)

    def _sent(self, result: ShardResult, clips: Sequence[UnderWay]) -> PassedShard:
        for one in clips:
            self._ledger.leave.remote(one.clip.clip_id, self._number)
        return PassedShard(tuple(clips), replace(result, decoded_on=result.decoded_on or self._work.place.node_id))


def _is_suspect(entry: ShardEntry) -> bool:
    """Whether a worker has crashed or hung in the shard: its clips are then computed one at a time."""
    return bool(entry.one_by_one or any(entry.crashes.values()) or entry.hangs or entry.bugs)


def _with_seconds(result: ShardResult, seconds: Mapping[str, float]) -> ShardResult:
    names = result.stage_s.keys() | seconds.keys()
    return replace(result, stage_s={name: result.stage_s.get(name, 0.0) + seconds.get(name, 0.0) for name in names})
