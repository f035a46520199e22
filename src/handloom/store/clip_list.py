"""The clip list: what should be processed, and what of it still is to be."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import lance
import pyarrow as pa

from handloom.schemas.clip import Clip
from handloom.schemas.tables import CLIP_LIST
from handloom.store.database import Database
from handloom.store.location import lance_errors
from handloom.store.repeated import drop_repeated

_VIDEO_ID = CLIP_LIST.names.index("video_id")


@dataclass(frozen=True)
class AddResult:
    """What `add_clips` did with the clips it was given.

    added: new. changed: already there with other values, which were replaced. already_there: nothing to do.
    repeated: given more than once in this call.
    """

    added: int
    changed: int
    already_there: int
    repeated: int

    @property
    def total(self) -> int:
        return self.added + self.changed + self.already_there


def add_clips(db: Database, clips: Iterable[Clip], *, batch_clips: int = 50_000) -> AddResult:
    """Add clips to the clip list; a clip that is already there is not added twice.

    A known `clip_id` with other values (the video moved, a narration was corrected) takes the new values, so that
    ingesting again is how a moved video gets its new URI. The last of several clips with one id wins. Rows of `clips`
    keep the values they were processed with. An id that is there in another Unicode form (lists before 0.4 keep names
    as their machine wrote them) is the same clip, and stays as it is. Several processes may add clips at once: of the
    values that they give to one clip the last committed ones stay. Raises StoreError if the list cannot be written.
    """
    table = db.ensure_table("clip_list", CLIP_LIST)
    uri = db.location.table_uri("clip_list")
    known: dict[str, int] = {}
    other_forms: dict[str, tuple[str, str]] = {}
    with lance_errors("read the clip list", uri):
        for row in (row for batch in table.to_batches() for row in _rows(batch)):
            known[row[0]] = _digest(row)
            if not row[0].isascii() and not unicodedata.is_normalized("NFC", row[0]):
                other_forms[unicodedata.normalize("NFC", row[0])] = row[0], row[_VIDEO_ID]
        num_rows = table.count_rows()
    if num_rows > len(known):  # two ingests at once, one of them killed before it looked
        drop_repeated(db, "clip_list", keep_last=True)
    given: dict[str, Clip] = {}
    repeated = 0
    for clip in clips:
        if clip.clip_id in other_forms and clip.clip_id not in known:
            clip_id, video_id = other_forms[clip.clip_id]
            clip = replace(clip, clip_id=clip_id, video_id=video_id)
        repeated += clip.clip_id in given
        given[clip.clip_id] = clip
    new = [c for c in given.values() if c.clip_id not in known]
    changed = [c for c in given.values() if c.clip_id in known and _digest(_values(c)) != known[c.clip_id]]
    with lance_errors("write the clip list", uri):
        before = table.version
        for start in range(0, len(new), batch_clips):  # appended: `merge_insert` would not keep their order
            rows = _to_table(new[start : start + batch_clips])
            after = lance.write_dataset(rows, uri, mode="append", storage_options=db.storage_options or None)
            others, before = after.version != before + 1, after.version
            if others:
                drop_repeated(db, "clip_list", keep_last=True)
        for start in range(0, len(changed), batch_clips):
            rows = _to_table(changed[start : start + batch_clips])
            table = lance.dataset(uri, storage_options=db.storage_options or None)
            table.merge_insert("clip_id").when_matched_update_all().execute(rows)
    return AddResult(len(new), len(changed), len(given) - len(new) - len(changed), repeated)


def read_clips(db: Database, ids: Sequence[str] | None = None, where: str | None = None) -> list[Clip]:
    """The clip list in stored order, each id once; only `ids`, only what passes the SQL filter `where`."""
    table = db.read("clip_list", CLIP_LIST.names, where)
    if not table.num_rows:
        return []
    wanted = None if ids is None else set(ids)
    clips: dict[str, Clip] = {}
    for batch in table.to_batches():
        for row in _rows(batch):
            if row[0] not in clips and (wanted is None or row[0] in wanted):
                clips[row[0]] = Clip(*row)
    return list(clips.values())


def pending_clips(db: Database, *, retry_reasons: Iterable[str] = (), where: str | None = None) -> list[Clip]:
    """The clips of the list that have neither a row nor a reject, in the order of the list.

    A reject whose reason is in `retry_reasons` does not count: its clip is pending again.
    """
    retry = set(retry_reasons)
    finished = set(db.clips(["clip_id"]).column("clip_id").to_pylist()) if db.table("clips") is not None else set()
    rejects = db.read("rejects", ["clip_id", "reason"])
    if rejects.num_rows:
        rows = zip(rejects.column("clip_id").to_pylist(), rejects.column("reason").to_pylist(), strict=True)
        finished.update(clip_id for clip_id, reason in rows if reason not in retry)
    return [clip for clip in read_clips(db, where=where) if clip.clip_id not in finished]


def _values(clip: Clip) -> tuple[object, ...]:
    return tuple(getattr(clip, name) for name in CLIP_LIST.names)


def _digest(values: tuple[object, ...]) -> int:
    return hash(repr(values))  # repr: a start that is NaN must equal itself


def _rows(batch: pa.RecordBatch) -> Iterable[tuple[object, ...]]:
    return zip(*(batch.column(name).to_pylist() for name in CLIP_LIST.names), strict=True)


def _to_table(clips: Sequence[Clip]) -> pa.Table:
    columns = zip(*(_values(clip) for clip in clips), strict=True)
    arrays = [pa.array(values, field.type) for values, field in zip(columns, CLIP_LIST, strict=True)]
    return pa.Table.from_arrays(arrays, schema=CLIP_LIST)
