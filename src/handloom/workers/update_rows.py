"""New columns of clips that have a row: the row is read, what is missing computed, the result staged for the driver."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from handloom.errors import ClipError, StoreError
from handloom.schemas.clip import Clip
from handloom.schemas.tables.row import row_arrays
from handloom.schemas.tables.stage_columns import COLUMNS_OF, key_column
from handloom.stages.extract import Extractor
from handloom.stages.pools.travel import Plan, UnderWay, Update
from handloom.store.clips.changed_labels import WORDS
from handloom.store.stages.rejects import StageReject
from handloom.store.stages.rows import StoredRows
from handloom.store.stages.staged import ColumnUpdate, write_update

INPUTS = ("view", "camera", "hand")  # of the clip list: a row keeps the ones that it was made from
OF_A_ROW = "camera_digest"


@dataclass(frozen=True)
class NewColumns:
    """Of one clip. cells: arrays of length 1 by column, `clip_id` among them; None: there are none."""

    clip_id: str
    cells: dict[str, pa.Array] | None
    rejects: tuple[StageReject, ...]
    num_frames: int


class RowUpdater:
    """Computes the target stages of one shard's clips."""

    def __init__(
        self,
        extractor: Extractor,
        keys: dict[str, str],
        targets: Sequence[str],
        rows: StoredRows | None,
        fragments: Mapping[str, int | None],
        of_row: dict[str, str | None],
    ) -> None:
        """rows: None where only `end` is called. fragments: of clips, where their rows probably are. of_row: `run_key`
        and `host`, for rows of which a stage that handloom brings is computed."""
        self._extractor, self._keys, self._targets = extractor, keys, tuple(targets)
        self._rows, self._fragments, self._of_row = rows, fragments, of_row
        columns = ("clip_id", *extractor.columns_for(targets), *_inputs(extractor))
        self._columns = list(dict.fromkeys(columns))  # a stage of one's own may read camera, too

    def plan(self, clip: Clip) -> Plan | None:
        """What must be computed of the clip; None if its row is gone: nothing is left to do."""
        row = self._read(clip)
        return None if row is None else self._extractor.plan(row, self._targets)

    def plan_without_frames(self, clip: Clip, error: ClipError) -> tuple[Plan, dict[str, ClipError]]:
        """The stages that need no frames, where the video cannot be decoded, and `error` for each of the others.

        Raises `error` if no stage is left.
        """
        row = self._read(clip)
        if row is None:
            raise error
        able = [name for name in self._targets if not self._extractor.plan(row, [name]).reads_frames]
        plan = self._extractor.plan(row, able)
        if not able or plan.reads_frames:
            raise error
        return plan, {name: error for name in self._targets if name not in able}

    def begin(self, clip: Clip, plan: Plan) -> UnderWay:
        """The clip before its first stage, with what the planned ones read of its row."""
        row = self._read(clip)
        if row is None:
            raise StoreError(f"the row of {clip.clip_id} was there when its stages were planned", "run again")
        return self._extractor.begin(clip, row, plan, None)

    def end(self, one: UnderWay) -> NewColumns:
        """The new columns of a clip after its last stage."""
        update = self._extractor.end(one)
        return self._result(one.clip, one.row or {}, Update(update.cells, update.done, one.errors), one.num_frames)

    def _read(self, clip: Clip) -> dict[str, Any] | None:
        if self._rows is None:
            raise ValueError("only the first group reads rows")
        row = self._rows.row(clip.clip_id, self._columns, self._fragments.get(clip.clip_id))
        return None if row is None else row_arrays(row)

    def _result(self, clip: Clip, row: Mapping[str, Any], update: Update, num_frames: int) -> NewColumns:
        failed = [name for name in self._targets if name not in update.done]
        first = next(iter(update.errors.values()), None)
        rejects = []
        for name in failed:
            error = update.errors.get(name, first)
            if error is None:
                raise StoreError(f"the stage {name} of {clip.clip_id} has neither columns nor an error", "report it")
            rejects.append(StageReject.from_error(error, name, self._keys[name]))
        if not update.done:
            return NewColumns(clip.clip_id, None, tuple(rejects), num_frames)
        cells = {"clip_id": pa.array([clip.clip_id], pa.string())} | update.cells
        read = {field for name in update.done for field in self._extractor.graph[name].clip_fields}
        # Words always: where an ingest brings other ones into the row before this is committed, the end of the run
        # finds that they differ from the list, and that the stage is needed again (`store.clips.changed_labels`).
        for name in (*INPUTS, *WORDS):
            is_other = row.get(name) != getattr(clip, name) and self._has_none_of_old(name, row, update.done)
            if name in read and (name in WORDS or is_other):
                cells[name] = pa.array([getattr(clip, name)], pa.string())
                if name == "camera":
                    cells[OF_A_ROW] = pa.array([getattr(clip, OF_A_ROW)], pa.string())
        if any(name in COLUMNS_OF for name in update.done):
            cells |= {name: pa.array([value], pa.string()) for name, value in self._of_row.items()}
        return NewColumns(clip.clip_id, cells, tuple(rejects), num_frames)

    def _has_none_of_old(self, field: str, row: Mapping[str, Any], done: Sequence[str]) -> bool:
        """Whether every stage that reads this field of the clip list is made again, or has no columns in the row.

        Else the row keeps the old value: a stage that was not asked for, or has failed, is outdated, and must be found.
        """
        readers = (node.name for node in self._extractor.graph.nodes if field in node.clip_fields)
        return all(name in done or row.get(key_column(name)) is None for name in readers)


def _inputs(extractor: Extractor) -> list[str]:
    return [name for name in (*INPUTS, OF_A_ROW) if name in extractor.schema.names]


def stage_updates(
    found: Sequence[NewColumns], schema: pa.Schema, uri: str, run_id: str, options: dict[str, str]
) -> tuple[ColumnUpdate, ...]:
    """Write the new columns, one file for each set of columns. Raises StoreError."""
    groups: dict[tuple[str, ...], list[dict[str, pa.Array]]] = {}
    for one in found:
        if one.cells is not None:
            groups.setdefault(tuple(one.cells), []).append(one.cells)
    updates = []
    for names, rows in groups.items():
        fields = pa.schema([schema.field(name).remove_metadata() for name in names])
        columns = [pa.chunked_array([row[name] for row in rows], type=fields.field(name).type) for name in names]
        updates.append(write_update(uri, pa.Table.from_arrays(columns, schema=fields), run_id, options))
    return tuple(updates)
