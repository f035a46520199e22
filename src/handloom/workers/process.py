"""A shard's clips to its result: what both scheduling modes share."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import pyarrow as pa
import ray

from handloom.errors import ClipError, ConfigError, StoreError
from handloom.schemas.clip import Clip
from handloom.schemas.reasons import RETRIABLE
from handloom.schemas.reject import Reject
from handloom.schemas.settings import Resources, Settings
from handloom.schemas.tables import clips_schema
from handloom.store.fragments import FragmentRecord, write_fragment
from handloom.video.decoder import DecodeLimits, Decoder
from handloom.video.source import VideoSource
from handloom.workers.extract import Extractor, Frames
from handloom.workers.ledger import MAX_DEATHS, pulse
from handloom.workers.place import here
from handloom.workers.shard import ShardResult

Stream = Callable[[Sequence[Clip]], Iterable[Frames | ClipError]]


@dataclass(frozen=True)
class WorkerSetup:
    """Everything a worker needs to know; the same for all workers of a run."""

    settings: Settings
    resources: Resources
    run_key: str
    db_uri: str
    storage_options: dict[str, str]  # Lance's, for the database
    source_options: dict[str, Any]  # fsspec's, for s3:// videos
    cache_dir: str

    def decoder(self) -> Decoder:
        r = self.resources
        source = VideoSource(self.cache_dir, r.fetch_cache_mb, r.fetch_attempts, self.source_options)
        limits = DecodeLimits(r.decode_timeout_s, r.decode_memory_mb, r.decode_ahead_mb, r.decode_sandbox)
        return Decoder(self.settings.video.sample_hz, self.settings.video.short_side_px, limits, source)


class ShardProcessor:
    """Models, retries, the fragment, and the word with the ledger."""

    def __init__(self, setup: WorkerSetup, ledger: ray.actor.ActorHandle) -> None:
        self._setup = setup
        self._ledger = ledger
        self._place = here()
        self._extractor = Extractor(setup.settings, setup.run_key, self._place.host)
        self._schema = clips_schema(setup.settings.num_tracks())

    @cached_property
    def decoder(self) -> Decoder:
        return self._setup.decoder()

    def process(self, clips: Sequence[Clip], stream: Stream) -> ShardResult:
        """Every clip of the shard as a row of a fragment or as a reject; neither from where the ledger says to stop.

        A clip on which workers have died `MAX_DEATHS` times is rejected unseen; one whose failure may lie outside it is
        tried a second time at the end. Where workers have died between clips, or writing, each clip is taken alone up
        to its fragment, so that the ledger learns which one it is.
        """
        self._extractor.stage_s.clear()
        try:
            with pulse(self._ledger):
                result = self._process(clips, stream)
        except (ConfigError, StoreError) as error:  # of this node's: its sandbox, its access to the store
            result = ShardResult(None, (), 0, failure=(error.problem, error.hint))
        return result.at(self._place)

    def _process(self, clips: Sequence[Clip], stream: Stream) -> ShardResult:
        entry = ray.get(self._ledger.enter.remote([clip.clip_id for clip in clips]))
        if entry.drained:
            return ShardResult(None, (), 0, given_back=True)
        killers = [clip for clip in clips if entry.deaths[clip.clip_id] >= MAX_DEATHS]
        for clip in killers:
            self._ledger.end.remote(clip.clip_id, os.getpid(), False, 0)
        died = tuple(Reject.from_error(_worker_died(clip), MAX_DEATHS) for clip in killers)
        rest = [clip for clip in clips if clip not in killers]
        groups = [[clip] for clip in rest] if entry.careful else [rest]
        parts = [self._group(group, stream, entry.careful) for group in groups]
        records = [part.record for part in parts if part.record is not None]
        rejects = died + tuple(reject for part in parts for reject in part.rejects)
        num_frames = sum(part.num_frames for part in parts)
        return ShardResult(_one_record(records), rejects, num_frames, dict(self._extractor.stage_s))

    def _group(self, clips: Sequence[Clip], stream: Stream, careful: bool) -> ShardResult:
        """Clips to one fragment. Careful: one clip, to blame for a death around it too."""
        if careful and not ray.get(self._ledger.begin.remote(clips[0].clip_id, os.getpid())):
            return ShardResult(None, (), 0)
        rows, errors = self._rows(clips, stream, settle=not careful)
        rejects = [Reject.from_error(error) for _, error in errors if error.reason not in RETRIABLE]
        again = [clip for clip, error in errors if error.reason in RETRIABLE]
        if again:
            late_rows, late_errors = self._rows(again, self.decoder.stream, settle=not careful)
            rows += late_rows
            rejects += [Reject.from_error(error, attempts=2) for _, error in late_errors]
        record = write_fragment(self._setup.db_uri, rows, self._schema, self._setup.storage_options) if rows else None
        for reject in rejects:
            self._ledger.end.remote(reject.clip_id, os.getpid(), False, 0)
        for row in rows if careful else ():
            self._end(row)
        return ShardResult(record, tuple(rejects), sum(_num_frames(row) for row in rows))

    def _rows(
        self, clips: Sequence[Clip], stream: Stream, settle: bool
    ) -> tuple[list[pa.RecordBatch], list[tuple[Clip, ClipError]]]:
        rows, errors = [], []
        with contextlib.closing(iter(stream(clips))) as items:
            for clip, item in zip(clips, items, strict=True):
                # Waited for: what the ledger has not heard, a death in the next instant would not be counted against.
                if not ray.get(self._ledger.begin.remote(clip.clip_id, os.getpid())):
                    break
                try:
                    if isinstance(item, ClipError):
                        raise item
                    row = self._extractor.row(item)
                except ClipError as error:
                    errors.append((clip, error))
                    self._ledger.leave.remote(clip.clip_id)
                    continue
                rows.append(row)
                if settle:
                    self._end(row)
        return rows, errors

    def _end(self, row: pa.RecordBatch) -> None:
        self._ledger.end.remote(row.column("clip_id")[0].as_py(), os.getpid(), True, _num_frames(row))


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
