"""After the last group of stages: clips as rows of a fragment, or as new columns of the rows that they have."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace

import pyarrow as pa
import ray

from handloom.errors import ShapeError
from handloom.schemas.tables.reject import Reject
from handloom.stages.extract import Extractor
from handloom.stages.pools.travel import UnderWay
from handloom.store.stages.rejects import StageReject
from handloom.store.stages.rows import StoredRows
from handloom.workers.place import Place
from handloom.workers.setup import WorkerSetup
from handloom.workers.shard import Shard, ShardResult
from handloom.workers.update_rows import NewColumns, RowUpdater, stage_updates
from handloom.workers.writing import clip_id_of, num_frames_of, one_record, write_rows


@dataclass(frozen=True)
class NewRow:
    """Of one clip. rejects: of stages of one's own that failed on it."""

    row: pa.RecordBatch
    rejects: tuple[StageReject, ...]

    @property
    def clip_id(self) -> str:
        return clip_id_of(self.row)

    @property
    def num_frames(self) -> int:
        return num_frames_of(self.row)


class Storing:
    """Writes what was computed, and tells the ledger which clips have ended. group: number of the worker's group."""

    def __init__(self, setup: WorkerSetup, ledger: ray.actor.ActorHandle, group: int, place: Place) -> None:
        self._setup, self._ledger, self._group, self._place = setup, ledger, group, place
        self._rows: StoredRows | None = None
        self._fragments: dict[str, int | None] = {}

    def begin(self, shard: Shard) -> None:
        """Rows are read of the version that the table has at the first of this shard."""
        clip_ids = (clip.clip_id for clip in shard.clips)
        self._fragments, self._rows = dict(zip(clip_ids, shard.fragments, strict=False)), None

    def updater(self, extractor: Extractor, targets: Sequence[str]) -> RowUpdater:
        """Of clips that have a row; the first group reads it. Raises StoreError."""
        if self._rows is None and not self._group:
            self._rows = StoredRows(self._setup.db_uri, self._setup.storage_options)
        of_row: dict[str, str | None] = {"run_key": self._setup.run_key, "host": self._place.host}
        return RowUpdater(extractor, self._setup.stage_keys, targets, self._rows, self._fragments, of_row)

    def made(self, extractor: Extractor, one: UnderWay, targets: Sequence[str]) -> NewRow | NewColumns:
        """All that is stored of a clip after its last stage."""
        if targets:
            return self.updater(extractor, targets).end(one)
        row, errors = extractor.row_of(one)
        if not row.schema.equals(extractor.schema):
            raise ShapeError(f"the row has columns {row.schema}, the table {extractor.schema}")
        keys = self._setup.stage_keys
        rejects = (StageReject.from_error(error, stage, keys[stage]) for stage, error in errors.items())
        return NewRow(row, tuple(rejects))

    def store(self, schema: pa.Schema, result: ShardResult, made: Sequence[NewRow | NewColumns]) -> ShardResult:
        """The shard's result with these clips. Raises StoreError."""
        if not made:
            return result
        if result.targets:
            return self._staged(schema, result, [new for new in made if isinstance(new, NewColumns)])
        return self._written(schema, result, [new for new in made if isinstance(new, NewRow)])

    def end(self, rejects: Sequence[Reject]) -> tuple[Reject, ...]:
        """The rejects, with this node in them."""
        for reject in rejects:
            self._ledger.end.remote(reject.clip_id, os.getpid(), False, 0, self._group)
        return tuple(replace(reject, host=self._place.host, node_id=self._place.node_id) for reject in rejects)

    def _staged(self, schema: pa.Schema, result: ShardResult, found: Sequence[NewColumns]) -> ShardResult:
        setup = self._setup
        updates = stage_updates(found, schema, setup.db_uri, setup.run_id, setup.storage_options)
        return replace(
            result,
            num_frames=result.num_frames + sum(new.num_frames for new in found),
            updates=(*result.updates, *updates),
            updated=(*result.updated, *(new.clip_id for new in found)),
            stage_rejects=(*result.stage_rejects, *self._stage_rejects(found)),
        )

    def _written(self, schema: pa.Schema, result: ShardResult, found: Sequence[NewRow]) -> ShardResult:
        setup, rows = self._setup, [new.row for new in found]
        written, records, unwritten = write_rows(setup.db_uri, rows, schema, setup.storage_options)
        there = {clip_id_of(row) for row in written}
        of_stages = self._stage_rejects([new for new in found if new.clip_id in there])
        return replace(
            result,
            record=one_record([record for record in (result.record, *records) if record is not None]),
            rejects=(*result.rejects, *self.end(unwritten)),
            num_frames=result.num_frames + sum(map(num_frames_of, written)),
            stage_rejects=(*result.stage_rejects, *of_stages),
        )

    def _stage_rejects(self, found: Sequence[NewRow | NewColumns]) -> list[StageReject]:
        return [replace(reject, host=self._place.host) for new in found for reject in new.rejects]
