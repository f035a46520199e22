"""Indexes of `clips`: full text on the words, scalar ones for filters, cosine ones on embeddings of large tables.

None of them decides what is found: rows that an index lacks are read. An index is built beside the old one and takes
its place in one commit, so a killed build changes nothing; its files are deleted once they are a week old, when
versions are dropped.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import lance
import numpy as np
from lance.optimize import Compaction

from handloom.errors import StoreError
from handloom.schemas.tables.embeddings import embedding_columns
from handloom.schemas.tables.stage_columns import caption_columns
from handloom.store.clips.upkeep import MERGING
from handloom.store.lance_faults import LANCE_ERRORS, fault_of
from handloom.store.location import store_error
from handloom.store.retry import retried
from handloom.store.search.copies import HIT_COLUMNS, Copied, bring_copies, sweep_copies
from handloom.store.search.coverage import Coverage, coverage
from handloom.store.search.parts import add_new_rows
from handloom.store.search.vectors.build import VectorIndex, build_if_needed, described
from handloom.store.search.vectors.build import vector_index_name as vector_index_name  # searches ask here
from handloom.store.tables import Tables

log = logging.getLogger(__name__)

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
EVER = timedelta(days=36_500)


@dataclass(frozen=True)
class IndexReport:
    """The result of `build_indexes`. created: new indexes. names: all of them. num_rows: rows that they cover. version:
    of `clips`. vectors: the indexes of embeddings. seconds: what took time. copies: of rows'
    small columns for searches; None: of a small table, or in an object store."""

    num_rows: int
    created: tuple[str, ...]
    names: tuple[str, ...]
    exact: tuple[str, ...]  # embeddings that are searched without an index: few enough rows
    version: int
    vectors: tuple[VectorIndex, ...]
    seconds: dict[str, float]
    copies: Copied | None = None


def ensure_text_indexes(db: Tables) -> tuple[str, ...]:
    """Create the full-text indexes of `clips` that are missing, of words and captions; returns the names of new ones.

    The driver calls it before a run's first commit, so that text search works from the first clip on: the index fixes
    how words are split and stemmed, and Lance searches rows that are not in it yet by reading them.
    """
    columns = (*TEXT_COLUMNS, *caption_columns(_clips(db).schema))
    return tuple(name for column in columns if _ensure(db, name := f"{column}_text", column, "INVERTED", **_TEXT))


def ensure_clip_index(db: Tables) -> bool:
    """Create the index on `clip_id` of `clips` if it is missing, and return whether it was."""
    return _ensure(db, "clip_id_scalar", "clip_id", SCALAR_INDEXES["clip_id"])


def build_indexes(db: Tables, *, ann_threshold_rows: int = ANN_THRESHOLD_ROWS) -> IndexReport:
    """Create the indexes that are missing and add new rows to the others; a second call changes nothing.

    Embeddings get a cosine index (`vectors.kind`) from `ann_threshold_rows` rows or `MAX_SCANNED_FRAGMENTS` fragments
    on; below that a search reads all rows and is exact. Raises StoreError before the first run.
    """
    seconds: dict[str, float] = {}
    drop_unreadable(db)
    with _timed(seconds, "text"):
        created = list(ensure_text_indexes(db))
    table = _clips(db)
    num_rows = table.count_rows()
    with _timed(seconds, "scalar"):
        for column, kind in SCALAR_INDEXES.items() if num_rows else ():
            name = f"{column}_scalar"
            created += [name] if _ensure(db, name, column, kind) else []
    many = num_rows >= max(ann_threshold_rows, 1) or len(table.get_fragments()) > MAX_SCANNED_FRAGMENTS
    embeddings = list(embedding_columns(table.schema).values())
    before = index_names(table)
    with _timed(seconds, "copies"):
        copied = bring_copies(db, [*HIT_COLUMNS, *embeddings]) if many else None
    built = {column: build_if_needed(db, column) for column in embeddings if many}
    created += [name for column in built if (name := vector_index_name(column)) in index_names(_clips(db)) - before]
    seconds |= {column: round(took, 2) for column, took in built.items() if took is not None}
    with _timed(seconds, "new rows"):
        add_new_rows(db, index_names(_clips(db)))
    table = _clips(db)
    names = tuple(sorted(index_names(table)))
    exact = tuple(column for column in embeddings if vector_index_name(column) not in names)
    vectors = [described(db, column, built.get(column)) for column in embeddings]
    found = tuple(one for one in vectors if one)
    return IndexReport(num_rows, tuple(created), names, exact, table.version, found, seconds, copied)


def compact(db: Tables, *, drop_versions_older_than: timedelta | None = None) -> int:
    """Merge small fragments of `clips`, however few; the rows stay the same. Returns the new version.

    Without `drop_versions_older_than` every version stays readable, as training may have pinned one, and merged rows
    are on disk twice. Tagged versions are always kept. Data files that no version uses (of workers that crashed) are
    deleted once they are a week old.
    """
    uri = db.location.table_uri("clips")
    older_than = EVER if drop_versions_older_than is None else drop_versions_older_than

    def merge_fragments() -> None:
        options: Any = MERGING
        Compaction.execute(_clips(db), options)

    def drop_versions() -> None:
        table = _clips(db)
        table.cleanup_old_versions(older_than, error_if_tagged_old_versions=False)
        sweep_copies(table)

    retried("compact clips", uri, merge_fragments)
    retried("drop old versions of clips", uri, drop_versions)
    return _clips(db).version


def drop_unreadable(db: Tables) -> tuple[str, ...]:
    """Drop indexes whose files are damaged or gone, so that they are built again; their names.

    Raises StoreError for a cause that may pass: the network, access rights.
    """
    table = _clips(db)
    lost = [index.name for index in coverage(table).values() if not _opens(table, index)]
    for name in lost:
        log.warning("index %s of %s is damaged, so it is built again", name, table.uri)
        retried(f"drop index {name}", table.uri, partial(_drop, db, name))
    return tuple(lost)


def _drop(db: Tables, name: str) -> None:
    table = _clips(db)
    if name in index_names(table):
        table.drop_index(name)


def _opens(table: lance.LanceDataset, index: Coverage) -> bool:
    """Whether its files are whole, on a local disk, and can be opened. Statistics of a vector index would hold all its
    centres, and its model is that of one part: a search opens all parts."""
    if "://" not in table.uri and index.num_bytes is not None and _bytes_there(table, index) != index.num_bytes:
        return False
    try:
        if index.kind.startswith("IVF"):
            any_vector = np.ones(table.schema.field(index.column).type.list_size, np.float32)
            nearest = {"column": index.column, "q": any_vector, "k": 1, "metric": "cosine", "nprobes": 1}
            scan: Any = partial(table.scanner, columns=[], with_row_id=True, fast_search=True)
            scan(nearest=nearest, disable_scoring_autoprojection=True).to_table()
        else:
            table.stats.index_stats(index.name)
    except LANCE_ERRORS as error:
        if fault_of(error) is not None:
            raise store_error(f"open index {index.name}", table.uri, error) from error
        return False
    return True


def _bytes_there(table: lance.LanceDataset, index: Coverage) -> int:
    folders = [Path(table.uri) / "_indices" / part for part in index.part_ids]
    return sum(path.stat().st_size for folder in folders if folder.is_dir() for path in folder.iterdir())


def index_names(table: lance.LanceDataset) -> set[str]:
    """Names of the indexes that a version of the table has."""
    return {index.name for index in table.describe_indices()}


@contextmanager
def _timed(seconds: dict[str, float], what: str) -> Iterator[None]:
    began = time.perf_counter()
    yield
    seconds[what] = round(time.perf_counter() - began, 2)


def _ensure(db: Tables, name: str, column: str, kind: str, **options: Any) -> bool:
    """Create the index if it is missing, and return whether it was. Lance refuses one of two processes at once."""

    def attempt() -> bool:
        table = _clips(db)
        if name in index_names(table):
            return False
        create: Callable[..., Any] = table.create_scalar_index
        create(column, kind, name=name, **options)
        return True

    return retried(f"build index {name}", db.location.table_uri("clips"), attempt)


def _clips(db: Tables) -> lance.LanceDataset:
    table = db.table("clips")
    if table is None:
        raise StoreError(f"{db.uri} holds no processed clips yet", "process them with `handloom run --db DB`")
    return table
