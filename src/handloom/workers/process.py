"""A shard's clips to its result: what both scheduling modes share."""

from __future__ import annotations

import contextlib
import logging
import os
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import pyarrow as pa
import ray

from handloom.errors import ClipError, ConfigError, ShapeError, StoreError
from handloom.schemas.clip import Clip
from handloom.schemas.settings import Resources, Settings
from handloom.schemas.tables.arrow import clips_schema
from handloom.schemas.tables.reject import RETRIABLE, Reject
from handloom.store.fragments import FragmentRecord, write_fragment
from handloom.video.decode.decoder import DecodeLimits, Decoder
from handloom.video.fetch.cache import cache_folder
from handloom.video.fetch.source import VideoSource
from handloom.workers.bugs import BUG, HINT, NO_MEMORY, bugs_as_rejects, for_each
from handloom.workers.extraction.extract import Extractor, Frames
from handloom.workers.extraction.versions import check_same, model_versions
from handloom.workers.ledger import MAX_DEATHS, MAX_HANGS, Hang
from handloom.workers.shard import ShardResult
from handloom.workers.work import DECODE, LOAD, WRITE, Work

log = logging.getLogger(__name__)

SHARD = "shard"  # between a shard's clips
Stream = Callable[[Sequence[Clip]], Iterable[Frames | ClipError]]


@dataclass(frozen=True)
class WorkerSetup:
    """Everything a worker needs to know; the same for all workers of a run."""

    settings: Settings
    resources: Resources
    versions: dict[str, str]  # the driver's: a worker that has others makes no rows
    db_uri: str
    storage_options: dict[str, str]  # Lance's, for the database
    source_options: dict[str, Any]  # fsspec's, for s3:// videos

    @property
    def run_key(self) -> str:
        return self.settings.run_key(self.versions)

    def check_versions(self, host: str) -> None:
        """Raise ConfigError where this process, on `host`, would make other rows than the driver's node."""
        check_same(self.versions, model_versions(self.settings), host)

    def decoder(self, alive: Callable[[], None] = lambda: None) -> Decoder:
        """alive: called now and then while a video is fetched."""
        r = self.resources
        cache_dir = cache_folder(r.fetch_cache_dir)  # the folder of the node that this runs on
        source = VideoSource(cache_dir, r.fetch_cache_mb, r.fetch_attempts, self.source_options, alive)
        limits = DecodeLimits(r.decode_timeout_s, r.decode_memory_mb, r.decode_ahead_mb, r.decode_sandbox)
        return Decoder(self.settings.video.sample_hz, self.settings.video.short_side_px, limits, source)


class ShardProcessor:
    """Models, retries, the fragment, and the word with the ledger."""

    def __init__(self, setup: WorkerSetup, ledger: ray.actor.ActorHandle) -> None:
        self._setup = setup
        self._ledger = ledger
        self._work = Work(ledger, setup.resources)
        self._schema = clips_schema(setup.settings.num_tracks(), num_grid=setup.settings.num_grid())
        self._stage_s: dict[str, float] = defaultdict(float)
        self._decoder: Decoder | None = None
        self._refused: tuple[str, str] | None = None
        self._not_loaded: ConfigError | None = None
        with self._work.on((), LOAD):
            try:
                setup.check_versions(self._work.place.host)
            except ConfigError as error:  # told with the first shard: Ray would start the actor again and again
                self._refused = refusal(error, self._work.place.host)
                return
            try:
                self._load()
            except ConfigError as error:  # of this node's, perhaps: each shard is answered with it
                self._not_loaded = error

    def _load(self) -> None:
        self._extractor = Extractor(self._setup.settings, self._setup.run_key, self._work.place.host, self._work.begin)
        self._extractor.stage_s = self._stage_s

    def close(self) -> None:
        """End the decoding processes."""
        if self._decoder is not None:
            self._decoder.close()
        self._decoder = None

    def stream(self, clips: Sequence[Clip]) -> Iterator[Frames | ClipError]:
        """The clips' frames, decoded here."""
        self._decoder = self._decoder or self._setup.decoder(self._work.video_comes)
        return self._decoder.stream(clips)

    def process(self, clips: Sequence[Clip], stream: Stream | None = None) -> ShardResult:
        """Every clip of the shard as a row of a fragment or as a reject; neither from where the ledger says to stop.

        A clip on which workers have died `MAX_DEATHS` times is rejected unseen; one whose failure may lie outside it is
        tried a second time at the end. Where workers have died between clips, or writing, each clip is taken alone up
        to its fragment, so that the ledger learns which one it is.

        stream: the clips' frames; `self.stream` by default.
        """
        if self._refused is not None:
            return ShardResult(None, (), 0, refused=self._refused).at(self._work.place)
        self._stage_s.clear()
        stream = stream or self.stream
        try:
            with self._work.on([clip.clip_id for clip in clips], SHARD):
                result = self._process(clips, stream)
        except (ConfigError, StoreError) as error:  # of this node's: its sandbox, its access to the store
            result = ShardResult(None, (), 0, failure=(error.problem, error.hint))
        return result.at(self._work.place)

    def _process(self, clips: Sequence[Clip], stream: Stream) -> ShardResult:
        entry = ray.get(self._ledger.enter.remote([clip.clip_id for clip in clips]))
        if entry.drained:
            return ShardResult(None, (), 0, given_back=True)
        if self._not_loaded is not None:
            raise self._not_loaded
        ended = [*(_worker_died(clip) for clip in clips if entry.deaths[clip.clip_id] >= MAX_DEATHS)]
        ended += [_bug(clip, *entry.spoilt[clip.clip_id]) for clip in clips if clip.clip_id in entry.spoilt]
        hung = {clip.clip_id: entry.hangs[clip.clip_id] for clip in clips if clip.clip_id in entry.hangs}
        ended += [_hung(clip_id, hangs) for clip_id, hangs in hung.items() if self._is_given_up(hangs)]
        ended = {error.clip_id: Reject.from_error(error, MAX_DEATHS) for error in ended}
        for clip_id in ended:
            self._ledger.end.remote(clip_id, os.getpid(), False, 0)
        alone = tuple(clip_id for clip_id in hung if clip_id not in ended and len(clips) > 1)
        rest = [clip for clip in clips if clip.clip_id not in ended and clip.clip_id not in alone]
        groups = [[clip] for clip in rest] if entry.careful else [rest]
        parts = [self._group(group, stream, entry.careful) for group in groups]
        records = [part.record for part in parts if part.record is not None]
        rejects = (*ended.values(), *(reject for part in parts for reject in part.rejects))
        num_frames = sum(part.num_frames for part in parts)
        return ShardResult(_one_record(records), rejects, num_frames, dict(self._stage_s), alone=alone)

    def _is_given_up(self, hangs: Sequence[Hang]) -> bool:
        """Hung twice, and on this node too: the driver sends it on where another node may do better."""
        return len(hangs) >= MAX_HANGS and any(hang.node_id == self._work.place.node_id for hang in hangs)

    def _group(self, clips: Sequence[Clip], stream: Stream, careful: bool) -> ShardResult:
        """Clips to one fragment. Careful: one clip, to blame for a death around it too."""
        if careful and not self._begin(clips[0]):
            return ShardResult(None, (), 0)
        rows, errors = self._rows(clips, stream, settle=not careful)
        rejects = [Reject.from_error(error) for _, error in errors if error.reason not in RETRIABLE]
        again = [clip for clip, error in errors if error.reason in RETRIABLE]
        if again:
            late_rows, late_errors = self._rows(again, self.stream, settle=not careful)
            rows += late_rows
            rejects += [Reject.from_error(error, attempts=2) for _, error in late_errors]
        self._work.clip(clips[0].clip_id if careful else None, WRITE, sum(_num_frames(row) for row in rows))
        rows, records, unwritten = self._write(rows)
        rejects += unwritten
        for reject in rejects:
            self._ledger.end.remote(reject.clip_id, os.getpid(), False, 0)
        for row in rows if careful else ():
            self._end(row)
        return ShardResult(_one_record(records), tuple(rejects), sum(_num_frames(row) for row in rows))

    def _write(self, rows: list[pa.RecordBatch]) -> tuple[list[pa.RecordBatch], list[FragmentRecord], list[Reject]]:
        """The rows that were written, as one fragment; those that cannot be are rejects, found one by one."""
        if not rows:
            return [], [], []
        try:
            with bugs_as_rejects(_clip_id(rows[0]), lambda: WRITE):
                record = write_fragment(self._setup.db_uri, rows, self._schema, self._setup.storage_options)
                return rows, [record], []
        except ClipError as bug:
            if len(rows) == 1:
                return [], [], [Reject.from_error(bug)]
        written, records, rejects = zip(*(self._write([row]) for row in rows), strict=True)
        return [*chain(*written)], [*chain(*records)], [*chain(*rejects)]

    def _rows(
        self, clips: Sequence[Clip], stream: Stream, settle: bool
    ) -> tuple[list[pa.RecordBatch], list[tuple[Clip, ClipError]]]:
        rows, errors = [], []
        work = for_each(clips, stream, self._row, begin=self._begin, stage=lambda: self._work.stage)
        with contextlib.closing(work):
            for clip, found in work:
                if isinstance(found, ClipError):
                    errors.append((clip, found))
                    if found.reason in (BUG, NO_MEMORY):
                        self._renew(found)
                    self._ledger.leave.remote(clip.clip_id)
                    continue
                rows.append(found)
                if settle:
                    self._end(found)
        return rows, errors

    def _begin(self, clip: Clip) -> bool:
        """Waited for: what the ledger has not heard, a death in the next instant would not be counted against."""
        self._work.clip(clip.clip_id, DECODE)
        return ray.get(self._ledger.begin.remote(clip.clip_id, os.getpid()))

    def _row(self, frames: Frames) -> pa.RecordBatch:
        row = self._extractor.row(frames)
        if not row.schema.equals(self._schema):
            raise ShapeError(f"the row has columns {row.schema}, the table {self._schema}")
        return row

    def _renew(self, bug: ClipError) -> None:
        """Models and decoder anew: a bug may have left them in any state.

        Where they cannot be had any more (an error on a GPU spoils it for the whole process), this process ends; the
        ledger keeps the bug for the next one.
        """
        self.close()
        del self._extractor  # before others take its memory
        try:
            with bugs_as_rejects(bug.clip_id, lambda: LOAD):
                self._load()
        except (ClipError, ConfigError) as error:
            log.warning("the models cannot be loaded again after a bug, the worker ends: %s", error.problem)
            ray.get(self._ledger.spoil.remote(bug.clip_id, bug.stage, bug.problem))
            os._exit(1)  # nothing of this process can be trusted; Ray starts another

    def _end(self, row: pa.RecordBatch) -> None:
        self._ledger.end.remote(_clip_id(row), os.getpid(), True, _num_frames(row))


def _clip_id(row: pa.RecordBatch) -> str:
    return row.column("clip_id")[0].as_py()


def refusal(error: ConfigError, host: str) -> tuple[str, str]:
    """A ConfigError of this node as `ShardResult.refused`: the node is named."""
    return (error.problem if host in error.problem else f"on {host}: {error.problem}"), error.hint


def _num_frames(row: pa.RecordBatch) -> int:
    return row.column("num_frames")[0].as_py()


def _one_record(records: Sequence[FragmentRecord]) -> FragmentRecord | None:
    if not records:
        return None
    return FragmentRecord(tuple(f for r in records for f in r.fragments), tuple(i for r in records for i in r.clip_ids))


def _worker_died(clip: Clip) -> ClipError:
    problem = f"the worker process died {MAX_DEATHS} times while it was working on the clip"
    hint = "look for out-of-memory kills on the node; run with --retry-rejects once the cause is gone"
    return ClipError(clip.clip_id, "worker", "worker_died", problem, hint)


def _bug(clip: Clip, stage: str, problem: str) -> ClipError:
    return ClipError(clip.clip_id, stage, BUG, problem, HINT)


def _hung(clip_id: str, hangs: Sequence[Hang]) -> ClipError:
    each = "; ".join(f"{h.seconds:.0f} s on {h.host}, stage {h.stage} (limit {h.limit_s:.0f} s)" for h in hangs)
    problem = f"the worker made no progress on the clip and was killed, {len(hangs)} times: {each}"
    hint = (
        "on a slow machine raise resources.stage_s, stage_frame_s, then run with --retry-rejects --reason hung; "
        "otherwise report it with the clip"
    )
    return ClipError(clip_id, hangs[-1].stage, "hung", problem, hint)
