"""The table `stage_rejects`: stages that failed on clips that have a row. The row keeps what it had.

A reject is of one stage key: with other settings the stage is another one, which is tried again. It is deleted when the
stage has succeeded, or the row was removed. A kill between the commit of columns and that of rejects leaves rejects
whose row has their key; they are deleted at the next start.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

import lance
import pyarrow as pa

from handloom.errors import ClipError
from handloom.schemas.tables.arrow import STAGE_REJECTS
from handloom.schemas.tables.reject import Reject
from handloom.schemas.tables.stage_columns import key_column
from handloom.store.filters import in_list
from handloom.store.location import lance_errors
from handloom.store.retry import retried
from handloom.store.tables import Tables

TABLE = "stage_rejects"
IDS_PER_DELETE = 500


@dataclass(frozen=True)
class StageReject:
    """A stage that failed on a clip with a row.

    stage_key: that the stage would have had. reason: a key of `schemas.tables.reject.REASONS`. attempts: in this run.
    host: the machine on which it failed last; None: unknown.
    """

    clip_id: str
    stage: str
    stage_key: str
    reason: str
    detail: str
    attempts: int = 1
    host: str | None = None

    @property
    def reject_id(self) -> str:
        return reject_id(self.clip_id, self.stage)

    @staticmethod
    def from_error(error: ClipError, stage: str, stage_key: str, attempts: int = 1) -> StageReject:
        """The reject of a clip's error; the stage within it may be a part of `stage`, and is told in the detail."""
        reject = Reject.from_error(error, attempts)
        detail = reject.detail if error.stage == stage else f"{error.stage}: {reject.detail}"
        return StageReject(error.clip_id, stage, stage_key, reject.reason, detail, attempts)


def reject_id(clip_id: str, stage: str) -> str:
    """The key of a row of `stage_rejects`."""
    return f"{clip_id}/{stage}"


class StageRejects:
    """Writes `stage_rejects` for one driver; makes the table if it is missing. Raises StoreError.

    attempts: {reject id: (stage key, number of attempts)} of the rows.
    """

    def __init__(self, db: Tables, run_key: str) -> None:
        self._db = db
        self._run_key = run_key
        self._uri = db.location.table_uri(TABLE)
        db.ensure_table(TABLE, STAGE_REJECTS)
        reconcile_rejects(db)
        rows = db.read(TABLE, ["reject_id", "stage_key", "attempts"]).to_pylist()
        self.attempts = {row["reject_id"]: (row["stage_key"], row["attempts"]) for row in rows}

    def write(self, rejects: Iterable[StageReject]) -> int:
        """Add or replace rejects; attempts with one stage key add up. Returns how many. Raises StoreError.

        Attempts are totals, so that a second try writes the same.
        """
        lost = {reject.reject_id: reject for reject in rejects}
        if not lost:
            return 0
        now = datetime.now(UTC)
        totals = {id_: (reject.stage_key, self._earlier(reject) + reject.attempts) for id_, reject in lost.items()}
        rows = [
            {**vars(reject), "reject_id": id_, "attempts": totals[id_][1], "run_key": self._run_key, "at": now}
            for id_, reject in lost.items()
        ]
        values = pa.Table.from_pylist(rows, schema=STAGE_REJECTS)
        retried("commit rejected stages", self._uri, lambda: self._merge(values))
        self.attempts.update(totals)
        return len(lost)

    def heal(self, clip_ids: Iterable[str], stages: Iterable[str]) -> int:
        """Delete rejects: these stages have succeeded on these clips. Returns how many. Raises StoreError."""
        if not self.attempts:
            return 0
        stages = list(stages)
        ids = [id_ for clip in clip_ids for stage in stages if (id_ := reject_id(clip, stage)) in self.attempts]
        _delete(self._db, ids)
        for id_ in ids:
            del self.attempts[id_]
        return len(ids)

    def _earlier(self, reject: StageReject) -> int:
        key, attempts = self.attempts.get(reject.reject_id, ("", 0))
        return attempts if key == reject.stage_key else 0

    def _merge(self, rows: pa.Table) -> None:
        table = lance.dataset(self._uri, storage_options=self._db.storage_options or None)
        table.merge_insert("reject_id").when_matched_update_all().when_not_matched_insert_all().execute(rows)


def rejected_clips(db: Tables, keys: Mapping[str, str], but: Collection[str] = ()) -> dict[str, set[str]]:
    """{stage: clips on which it failed} with the stage keys `keys` ({stage: key}): a run leaves them out.

    but: reasons that do not count.

    Raises StoreError if the table cannot be read.
    """
    found: dict[str, set[str]] = {stage: set() for stage in keys}
    for row in _rows(db, ["clip_id", "stage", "stage_key", "reason"]):
        if keys.get(row["stage"]) == row["stage_key"] and row["reason"] not in but:
            found[row["stage"]].add(row["clip_id"])
    return found


def count_rejects(db: Tables, keys: Mapping[str, str] | None = None) -> dict[tuple[str, str], int]:
    """{(stage, reason): number of clips}, the most frequent first. Raises StoreError if the table cannot be read.

    keys: `{stage: key}`, others do not count: rejects of a stage that was taken out, or had other settings. None: all.
    """
    counts = Counter((row["stage"], row["reason"]) for row in _of_keys(db, ["reason"], keys))
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))


def example_rejects(
    db: Tables, most: int, keys: Mapping[str, str] | None = None
) -> dict[tuple[str, str], list[dict[str, str]]]:
    """{(stage, reason): at most `most` rejects, with `clip_id` and `detail`}. keys: as in `count_rejects`. Raises
    StoreError likewise."""
    shown: dict[tuple[str, str], list[dict[str, str]]] = {}
    for row in _of_keys(db, ["clip_id", "reason", "detail"], keys):
        if len(examples := shown.setdefault((row["stage"], row["reason"]), [])) < most:
            examples.append({"clip_id": row["clip_id"], "detail": row["detail"]})
    return shown


def forget_rejects(db: Tables, clips: Mapping[str, Collection[str]]) -> int:
    """Delete the rejects of some stages: `{clip id: stages}`. Returns how many. Raises StoreError."""
    found = [row["reject_id"] for row in _rows(db, ["reject_id", "clip_id", "stage"]) if _is_of(row, clips)]
    _delete(db, found)
    return len(found)


def _is_of(row: Mapping[str, str], clips: Mapping[str, Collection[str]]) -> bool:
    return row["stage"] in clips.get(row["clip_id"], ())


def reconcile_rejects(db: Tables) -> int:
    """Delete rejects whose row has their stage key, or whose row is gone. Returns how many. Raises StoreError."""
    rejects = _rows(db, ["reject_id", "clip_id", "stage", "stage_key"])
    if not rejects:
        return 0
    clips = db.table("clips")
    names = [] if clips is None else clips.schema.names
    columns = sorted({key_column(row["stage"]) for row in rejects} & set(names))
    wanted = {row["clip_id"] for row in rejects}
    rows = {
        clip_id: row
        for batch in db.batches(["clip_id", *columns], batch_size=8192)
        for clip_id, row in zip(batch.column("clip_id").to_pylist(), batch.to_pylist(), strict=True)
        if clip_id in wanted
    }
    stale = [
        row["reject_id"]
        for row in rejects
        if row["clip_id"] not in rows or rows[row["clip_id"]].get(key_column(row["stage"])) == row["stage_key"]
    ]
    _delete(db, stale)
    return len(stale)


def _of_keys(db: Tables, columns: list[str], keys: Mapping[str, str] | None) -> list[dict[str, str]]:
    rows = _rows(db, [*columns, "stage", "stage_key"])
    return [row for row in rows if keys is None or keys.get(row["stage"]) == row["stage_key"]]


def _rows(db: Tables, columns: list[str]) -> list[dict[str, str]]:
    return db.read(TABLE, columns).to_pylist()


def _delete(db: Tables, ids: list[str]) -> None:
    for start in range(0, len(ids), IDS_PER_DELETE):
        condition = in_list("reject_id", sorted(ids)[start : start + IDS_PER_DELETE])
        with lance_errors("remove rejects of stages that succeeded", db.location.table_uri(TABLE)):
            db.existing_table(TABLE).delete(condition)  # Lance's retries are safe: the condition is the same later
