"""Rows keep up with the clip list: their words are written anew, their numbers are not.

A row holds the list's columns as they were when it was made. Words that come later, `clips.csv` written after the first
run, shall be found by search and seen in training; nothing else of the row depends on them. A camera or a view does
decide numbers: such a row is outdated, and somebody has to say that it shall be made again.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import lance
import pyarrow as pa

from handloom.schemas.clip import Clip
from handloom.schemas.tables.arrow import CLIP_LIST
from handloom.store.clips.removal import remove_features
from handloom.store.location import lance_errors
from handloom.store.retry import retried
from handloom.store.sql import in_list
from handloom.store.tables import Tables

WORDS = ("narration", "verb", "noun", "participant", "split", "licence")
DECIDING = ("view", "camera", "hand")
_BATCH_CLIPS = 10_000
_MAX_BYTES = 1 << 28  # of cameras: with poses a clip's has 30 KB, and 100,000 of them take minutes to read from S3


@dataclass(frozen=True)
class Behind:
    """Rows that hold other values than these clips.

    words: clips whose words the row lacks. outdated: ids of clips whose row was made with another view, camera or hand
    size.
    """

    words: list[Clip]
    outdated: list[str]


def rows_behind(db: Tables, clips: Sequence[Clip]) -> Behind:
    """Compare clips, as the list has them now, with their rows. Raises StoreError where these cannot be read."""
    given = {clip.clip_id: clip for clip in clips}
    words: list[Clip] = []
    outdated: list[str] = []
    for clip_id, values in _rows(db, sorted({clip.dataset for clip in clips})):
        clip = given.get(clip_id)
        if clip is None:
            continue
        if any(getattr(clip, name) != values[name] for name in WORDS):
            words.append(clip)
        if any(getattr(clip, name) != values[name] for name in DECIDING):
            outdated.append(clip_id)
    return Behind(words, outdated)


def outdated_rows(db: Tables) -> list[str] | None:
    """Ids of the rows that were made with another view, camera or hand size than the clip list has now; None where that
    is too much to read. Raises StoreError.
    """
    table, listed = db.table("clips"), db.table("clip_list")
    if table is None or listed is None:
        return []
    if _num_bytes(table, "camera") > _MAX_BYTES:
        return None
    made = {clip_id: hash(deciding) for clip_id, deciding in _deciding(db, "clips", table.schema.names)}
    now = _deciding(db, "clip_list", listed.schema.names)
    return [clip_id for clip_id, deciding in now if made.get(clip_id, hash(deciding)) != hash(deciding)]


def _deciding(db: Tables, name: str, there: Sequence[str]) -> Iterator[tuple[str, tuple[str | None, ...]]]:
    """Ids and `DECIDING` of all rows of a table."""
    columns = [column for column in DECIDING if column in there]
    for batch in db.batches(["clip_id", *columns], batch_size=8192, name=name):
        for row in batch.to_pylist():
            yield row["clip_id"], tuple(row.get(column) for column in DECIDING)


def _num_bytes(table: lance.LanceDataset, column: str) -> int:
    ids = {field.id() for field in table.lance_schema.fields() if field.name() == column}
    with lance_errors("read the sizes of", table.uri):
        return sum(field.bytes_on_disk for field in table.stats.data_stats().fields if field.id in ids)


def write_words(db: Tables, clips: Sequence[Clip]) -> None:
    """Put the words of these clips into their rows: a commit that adds files of these columns alone.

    Measured with pylance 14.0.2: rows keep their order and place, and full text search finds the new words without
    another index build; a run may commit rows meanwhile (120 commits beside 48 of words: nothing lost). What was
    computed from words (`clip_features`) goes.

    Raises StoreError.
    """
    uri = db.location.table_uri("clips")
    schema = pa.schema([CLIP_LIST.field(name) for name in ("clip_id", *WORDS)])
    remove_features(db, [clip.clip_id for clip in clips])
    for start in range(0, len(clips), _BATCH_CLIPS):
        part = clips[start : start + _BATCH_CLIPS]
        columns = [pa.array([getattr(clip, field.name) for clip in part], field.type) for field in schema]
        rows = pa.Table.from_arrays(columns, schema=schema)
        retried("write the words of rows", uri, lambda rows=rows: _merge(db, uri, rows))


def _merge(db: Tables, uri: str, rows: pa.Table) -> None:
    table = lance.dataset(uri, storage_options=db.storage_options or None)
    table.merge_insert("clip_id").when_matched_update_all().execute(rows)


def _rows(db: Tables, datasets: list[str]) -> Iterator[tuple[str, dict[str, str | None]]]:
    table = db.table("clips")
    there = () if table is None else table.schema.names  # rows before 0.4 have no `hand`
    columns = [name for name in ("clip_id", *WORDS, *DECIDING) if name in there]
    for batch in db.batches(columns, in_list("dataset", datasets), batch_size=1024):
        for row in batch.to_pylist():
            yield row["clip_id"], dict.fromkeys(DECIDING) | row
