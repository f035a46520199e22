"""Indexes: full text on the words, scalar indexes on what filters name, cosine indexes on large embeddings."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import lance

from handloom.errors import StoreError
from handloom.schemas.tables.embeddings import EMBEDDINGS
from handloom.store.retry import retried
from handloom.store.tables import Tables

TEXT_COLUMNS = ("narration", "verb", "noun")
SCALAR_INDEXES = {  # BTREE for many values, BITMAP for few
    "clip_id": "BTREE",
    "video_id": "BTREE",
    "duration_s": "BTREE",
    "dataset": "BITMAP",
    "participant": "BITMAP",
    "split": "BITMAP",
    "verb": "BITMAP",
    "noun": "BITMAP",
    "hand_left": "BITMAP",
    "hand_right": "BITMAP",
}
_TEXT = {"with_position": False}
ANN_THRESHOLD_ROWS = 50_000  # measured at 100 000 rows, 2 busy cores: 0.3 to 1.3 s a scan, 0.3 to 0.45 s with an index
MAX_SCANNED_FRAGMENTS = 256  # 24 000 rows in 1500 fragments: 1.6 s a scan, 0.1 s with an index, 2 cores
ROWS_PER_PARTITION = 1024
EVER = timedelta(days=36_500)


@dataclass(frozen=True)
class IndexReport:
    """What `build_indexes` left: `created` now, all `names`, rows covered and the version of `clips`."""

    num_rows: int
    created: tuple[str, ...]
    names: tuple[str, ...]
    exact: tuple[str, ...]  # embeddings that are searched without an index: few enough rows
    version: int


def ensure_text_indexes(db: Tables) -> tuple[str, ...]:
    """Create the full-text indexes of `clips` where they are missing; returns the names of new ones.

    The driver does this while the table is empty: the index then only fixes how words are split and stemmed, and Lance
    searches rows that are not in it yet by reading them, so that text search works from the first committed clip on.
    """
    return tuple(name for column in TEXT_COLUMNS if _ensure(db, name := f"{column}_text", column, "INVERTED", **_TEXT))


def build_indexes(db: Tables, *, ann_threshold_rows: int = ANN_THRESHOLD_ROWS) -> IndexReport:
    """Create the indexes that are missing and bring the others up to date; a second call only adds new rows.

    Embeddings get a cosine index (IVF_FLAT: exact distances inside the nearest partitions) from `ann_threshold_rows`
    rows or `MAX_SCANNED_FRAGMENTS` fragments on; below that a search reads all of them and is exact. An index of up to
    40 partitions (40 000 rows) is searched whole, and exact as well. Raises StoreError before the first run.
    """
    created = list(ensure_text_indexes(db))
    table = _clips(db)
    num_rows = table.count_rows()
    for column, kind in SCALAR_INDEXES.items() if num_rows else ():
        name = f"{column}_scalar"
        created += [name] if _ensure(db, name, column, kind) else []
    many = num_rows >= max(ann_threshold_rows, 1) or len(table.get_fragments()) > MAX_SCANNED_FRAGMENTS
    partitions = {"metric": "cosine", "num_partitions": max(1, num_rows // ROWS_PER_PARTITION)}
    for column in [spec.column for spec in EMBEDDINGS.values()] if many else []:
        name = vector_index_name(column)
        created += [name] if _ensure(db, name, column, "IVF_FLAT", **partitions) else []
    uri = db.location.table_uri("clips")
    retried("update the indexes", uri, lambda: _clips(db).optimize.optimize_indices())
    table = _clips(db)
    names = tuple(sorted(index_names(table)))
    exact = tuple(s.column for s in EMBEDDINGS.values() if vector_index_name(s.column) not in names)
    return IndexReport(num_rows, tuple(created), names, exact, table.version)


def compact(db: Tables, *, rows_per_fragment: int = 1024, drop_versions_older_than: timedelta | None = None) -> int:
    """Merge small fragments of `clips`; the rows stay the same. Returns the new version.

    Every version stays readable unless `drop_versions_older_than` is given: somebody may have pinned one for training
    (tagged versions are kept in any case). Merged rows are therefore on disk twice. Data files that no version uses
    (of workers that died) go once they are a week old.
    """
    uri = db.location.table_uri("clips")
    compacted = {"target_rows_per_fragment": rows_per_fragment}
    retried("compact clips", uri, lambda: _clips(db).optimize.compact_files(**compacted))
    older_than = EVER if drop_versions_older_than is None else drop_versions_older_than
    dropped = {"older_than": older_than, "error_if_tagged_old_versions": False}
    retried("drop old versions of clips", uri, lambda: _clips(db).cleanup_old_versions(**dropped))
    return _clips(db).version


def vector_index_name(column: str) -> str:
    return f"{column}_cosine"


def index_names(table: lance.LanceDataset) -> set[str]:
    """Names of the indexes that a version of the table has."""
    return {index.name for index in table.describe_indices()}


def _ensure(db: Tables, name: str, column: str, kind: str, **options: Any) -> bool:
    """Create the index unless it is there; whether it was created. Of two processes at once one is refused by Lance."""

    def attempt() -> bool:
        table = _clips(db)
        if name in index_names(table):
            return False
        create = table.create_index if kind.startswith("IVF") else table.create_scalar_index
        create(column, kind, name=name, **options)
        return True

    return retried(f"build index {name}", db.location.table_uri("clips"), attempt)


def _clips(db: Tables) -> lance.LanceDataset:
    table = db.table("clips")
    if table is None:
        raise StoreError(f"{db.uri} holds no processed clips yet", "process them with `handloom run --db DB`")
    return table
