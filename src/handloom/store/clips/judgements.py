"""The table `judgements`: verdicts of people on clips, written, taken back and read.

One row a clip: a later judgement takes the place of an earlier one, whoever made it. Several people, in several
processes, may judge at once: each judgement is one merge by the clip's id, which Lance repeats where two collide.
Every judgement is a commit and a small file, so now and then the files are merged.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from handloom.errors import ConfigError
from handloom.schemas.tables.arrow import JUDGEMENTS, VERDICTS
from handloom.store.clips.reconcile import IDS_PER_DELETE
from handloom.store.filters import forms_of, in_list
from handloom.store.lance_faults import LANCE_ERRORS, first_words
from handloom.store.retry import retried
from handloom.store.search.scope import row_of
from handloom.store.tables import Tables

log = logging.getLogger(__name__)

TABLE = "judgements"
MOST_REASON, MOST_NOTE, MOST_WHO = 200, 10_000, 200
"""Characters of the texts."""
MAX_FRAGMENTS = 64
KEPT = timedelta(days=30)
"""Versions of the table that are older go when its files are merged."""


@dataclass(frozen=True)
class Judgement:
    """What a person thinks of a clip.

    verdict: `good` or `bad`. reason, note: texts of one's own; None: none. who: a name; None: unknown. at: when; None:
    now. clips_version: the version of `clips` that was looked at; None: unknown.
    """

    clip_id: str
    verdict: str
    reason: str | None = None
    note: str | None = None
    who: str | None = None
    at: datetime | None = None
    clips_version: int | None = None


def judge(db: Tables, judgements: Sequence[Judgement]) -> list[Judgement]:
    """Write judgements, all in one commit, in place of earlier ones of the same clips. Returns them as written.

    Raises:
        ConfigError: a verdict that is none of `VERDICTS`, a text that is too long, a time before 1970, a version that
            cannot be, or two judgements of one clip.
        StoreError: a clip has no row; the table cannot be written.
    """
    checked = [_checked(judgement) for judgement in judgements]
    ids = _all_in_rows(db, [judgement.clip_id for judgement in checked])
    made = [replace(judgement, clip_id=id_) for judgement, id_ in zip(checked, ids, strict=True)]
    if twice := [id_ for id_, count in Counter(ids).items() if count > 1]:
        raise ConfigError(f"there are two judgements of clip {twice[0]}", "give one of each clip")
    if not made:
        return []
    rows = pa.Table.from_pylist([vars(judgement) for judgement in made], JUDGEMENTS)
    db.ensure_table(TABLE, JUDGEMENTS)

    def write() -> None:
        merge = db.existing_table(TABLE).merge_insert("clip_id").when_matched_update_all()
        merge.when_not_matched_insert_all().execute(rows)

    retried("write judgements", db.location.table_uri(TABLE), write)
    _merge_files(db)
    return made


def take_back(db: Tables, clip_ids: Sequence[str]) -> int:
    """Remove the judgements of these clips; returns how many there were. Raises StoreError."""
    removed = 0
    for start in range(0, len(clip_ids), IDS_PER_DELETE):
        condition = in_list("clip_id", clip_ids[start : start + IDS_PER_DELETE])
        if found := db.count(TABLE, condition):
            delete = lambda condition=condition: db.existing_table(TABLE).delete(condition)
            retried("take judgements back", db.location.table_uri(TABLE), delete)
            removed += found
    return removed


def read_judgements(db: Tables, where: str | None = None) -> pa.Table:
    """The judgements, newest first; where: SQL on their columns. Raises ConfigError and StoreError as `Tables.read`."""
    rows = db.read(TABLE, JUDGEMENTS.names, where)
    if not rows.num_columns:
        return JUDGEMENTS.empty_table()
    return rows.take(pc.sort_indices(rows, sort_keys=[("at", "descending"), ("clip_id", "ascending")]))


def judgement_of(db: Tables, clip_id: str) -> dict[str, Any] | None:
    """The row of one clip's judgement; None without one. Raises StoreError."""
    rows = db.read(TABLE, JUDGEMENTS.names, in_list("clip_id", [clip_id]))
    return rows.to_pylist()[0] if rows.num_rows else None


def _checked(judgement: Judgement) -> Judgement:
    """The judgement with its time, and empty texts as None. Raises ConfigError as `judge`."""
    if judgement.verdict not in VERDICTS:
        hint = f"expected {' or '.join(VERDICTS)}"
        raise ConfigError(f"verdict {judgement.verdict!r} of clip {judgement.clip_id}", hint)
    texts: dict[str, Any] = {}
    for name, most in (("reason", MOST_REASON), ("note", MOST_NOTE), ("who", MOST_WHO)):
        text = (getattr(judgement, name) or "").strip()
        if len(text) > most:
            problem = f"the {name} of clip {judgement.clip_id} has {len(text):,} characters"
            raise ConfigError(problem, f"at most {most:,}")
        texts[name] = text.encode(errors="replace").decode() or None  # half of a character is no UTF-8
    version = judgement.clips_version
    if version is not None and not 0 <= version < 1 << 63:
        raise ConfigError(f"clips_version {version} of clip {judgement.clip_id}", "expected the number of a version")
    at = judgement.at or datetime.now(UTC)
    if not 1970 <= at.year < 9999:
        raise ConfigError(f"the judgement of clip {judgement.clip_id} is of {at.isoformat()}", "expected 1970 or later")
    return replace(judgement, at=at, **texts)


def ids_in_rows(db: Tables, clip_ids: Sequence[str]) -> list[str | None]:
    """The ids in the form that their rows of `clips` have; None: no row. Raises StoreError."""
    there: set[str] = set()
    for start in range(0, len(clip_ids), IDS_PER_DELETE):
        forms = [form for id_ in clip_ids[start : start + IDS_PER_DELETE] for form in forms_of(id_)]
        rows = db.read("clips", ["clip_id"], in_list("clip_id", forms))
        there.update(rows.column("clip_id").to_pylist() if rows.num_columns else ())
    return [next((form for form in forms_of(id_) if form in there), None) for id_ in clip_ids]


def _all_in_rows(db: Tables, clip_ids: Sequence[str]) -> list[str]:
    """The same of clips that all have a row. Raises StoreError, with the nearest ids, for one without."""
    found = ids_in_rows(db, clip_ids)
    if None in found:
        row_of(db, clip_ids[found.index(None)], ["clip_id"])  # raises
    return [id_ for id_ in found if id_ is not None]


def _merge_files(db: Tables) -> None:
    """Merge the table's files where there are many; another writer's commit meanwhile leaves it to the next one."""
    table = db.existing_table(TABLE)
    if len(table.get_fragments()) <= MAX_FRAGMENTS:
        return
    try:
        table.optimize.compact_files(num_threads=1)
        table.cleanup_old_versions(KEPT, error_if_tagged_old_versions=False)
    except LANCE_ERRORS as error:
        log.info("the files of %s are merged later: %s", table.uri, first_words(error))
