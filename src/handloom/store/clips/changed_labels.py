"""Updates the words of rows (narration, verb, noun, ...) when the clip list has changed.

A row holds the columns of the clip list as they were when it was made. Words that are added later, for example by a
`clips.csv` written after the first run, must be found by search and used in training. Ingest writes the list first and
the rows after it: the next ingest, and every run, finish what a kill in between leaves. Of the stages that handloom
brings none reads words; one of a user's may (an embedding of the narration): its key is removed from the row together
with the old words, so the next run computes it again. The camera, the view and the hand size change columns of
handloom's own stages: see `changed_inputs`.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from handloom.errors import StoreError
from handloom.schemas.tables.stage_columns import key_column, readers_of
from handloom.store.clips.copied_values import differing, matched, read_copies, write_copies
from handloom.store.clips.removal import remove_features
from handloom.store.stages.rejects import forget_rejects
from handloom.store.tables import Tables

WORDS = ("narration", "verb", "noun", "participant", "split", "licence")
_BATCH_CLIPS = 10_000
_MAX_ROUNDS = 10

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class WordsBehind:
    """Rows that have other words than the clip list. words: `clip_id` and `WORDS`, as they should be. stages: of each
    row, the stages that read the words that change."""

    words: pa.Table
    stages: tuple[frozenset[str], ...] = ()

    @property
    def clip_ids(self) -> list[str]:
        return self.words.column("clip_id").to_pylist()


@dataclass(frozen=True)
class WordsBrought:
    """What `bring_words` did. stages_again: of each stage that reads words, the number of rows that need it again."""

    num_rows: int
    stages_again: dict[str, int]


def count_stages(stages: Iterable[frozenset[str]]) -> dict[str, int]:
    """How often each stage is named, the most frequent first."""
    return dict(Counter(name for names in stages for name in sorted(names)).most_common())


def words_behind(db: Tables, clip_ids: Collection[str] | None = None, listed: pa.Table | None = None) -> WordsBehind:
    """Compare the words of rows with those of the clip list.

    Args:
        clip_ids: only these clips; None: all.
        listed: `clip_id` and `WORDS` in place of the clip list.

    Raises StoreError.
    """
    listed = read_copies(db, "clip_list", WORDS) if listed is None else listed.select(["clip_id", *WORDS])
    made, now = matched(read_copies(db, "clips", WORDS), listed)
    changed = {name: differing(made, now, name) for name in WORDS}
    behind = np.logical_or.reduce(list(changed.values()))
    if clip_ids is not None and behind.any():
        behind &= pc.is_in(made.column("clip_id"), value_set=pa.array(list(clip_ids), pa.string())).to_numpy()
    where = np.flatnonzero(behind)
    table = db.table("clips")
    readers = {} if table is None else _readers(table.schema)
    stages = [
        frozenset[str]().union(*(readers[name] for name in readers if changed[name][row]))
        for row in (where if readers else ())
    ]
    return WordsBehind(now.take(pa.array(where)), tuple(stages or [frozenset[str]()] * len(where)))


def bring_words(db: Tables, clip_ids: Collection[str] | None = None) -> WordsBrought:
    """Write the words of the clip list into the rows that have others.

    It looks again after it has written: another ingest may have changed the list meanwhile, and whoever looks last
    finds both equal. Features that were computed from the words (`clip_features`), and keys of stages that read them,
    are removed; so are rejects of these stages, which may succeed with the new words. A run may commit rows meanwhile.

    Raises StoreError.
    """
    brought: dict[str, frozenset[str]] = {}
    for _ in range(_MAX_ROUNDS):
        behind = words_behind(db, clip_ids)
        ids = behind.clip_ids
        if not ids:
            if brought:
                log.info("words of rows are those of the clip list now rows=%d", len(brought))
            return WordsBrought(len(brought), count_stages(brought.values()))
        for clip_id, stages in zip(ids, behind.stages, strict=True):
            brought[clip_id] = brought.get(clip_id, frozenset()) | stages
        remove_features(db, ids)
        forget_rejects(db, dict(zip(ids, behind.stages, strict=True)))
        for rows in _parts(behind):
            write_copies(db, "clips", rows)
    raise StoreError(
        f"the words of rows in {db.uri} still differ from the clip list after {_MAX_ROUNDS} tries, for example of "
        f"{ids[0]}: another process changes them all the time",
        "let one ingest at a time write to a database, then ingest again",
    )


def _readers(schema: pa.Schema) -> dict[str, frozenset[str]]:
    """`{word: stages that read it}`, of the stages that have a key in the table."""
    found = {name: stages for name, stages in readers_of(schema).items() if name in WORDS}
    return {name: frozenset(s for s in stages if key_column(s) in schema.names) for name, stages in found.items()}


def _parts(behind: WordsBehind) -> Iterator[pa.Table]:
    """What is written at once: rows that need the same stages again, with null as their keys."""
    groups: dict[frozenset[str], list[int]] = {}
    for row, stages in enumerate(behind.stages):
        groups.setdefault(stages, []).append(row)
    for stages, rows in groups.items():
        for start in range(0, len(rows), _BATCH_CLIPS):
            part = behind.words.take(pa.array(rows[start : start + _BATCH_CLIPS]))
            for stage in sorted(stages):
                part = part.append_column(key_column(stage), pa.nulls(part.num_rows, pa.string()))
            yield part
