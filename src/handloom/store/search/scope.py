"""What a search looks at: one version of `clips`, the rows that pass, and rankings of them by vectors and by words."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any
from weakref import WeakKeyDictionary

import lance
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from handloom.errors import ConfigError, StoreError
from handloom.schemas.tables.embeddings import embedding_columns, no_embedding
from handloom.schemas.tables.stage_columns import key_column, owner_of, readers_of
from handloom.store.clips.changed_labels import WORDS
from handloom.store.embodiment import narrowed
from handloom.store.filters import both, clause, filtered, forms_of, in_list
from handloom.store.search.copies import rows_at
from handloom.store.search.fusion import Ranking
from handloom.store.search.index import TEXT_COLUMNS, index_names, vector_index_name
from handloom.store.search.opened import open_clips
from handloom.store.search.ranking import approximate, best_clips, by_text, scan, scores_of
from handloom.store.stages.row_keys import (
    StageKeys,
    demanded,
    key_spread,
    none_has,
    note_mixed,
    stages_behind,
    with_demand,
)
from handloom.store.tables import Tables

MAX_COMPARED_IDS = 20_000
MAX_KEPT_FILTERS = 256
_usable: WeakKeyDictionary[lance.LanceDataset, set[str]] = WeakKeyDictionary()
"""Filters that were checked, of tables that are open."""


class NoEmbedding(StoreError):
    """A clip has no embedding of this name."""


class OtherWords(NoEmbedding):
    """A clip's embedding is of words that an ingest has replaced since."""


@dataclass(frozen=True)
class Scope:
    """The rows that a search compares. passing: the filter without the demanded keys. left_out: ids that are no
    hits."""

    db: Tables
    table: lance.LanceDataset
    where: str | None
    passing: str | None
    demand: dict[str, str]
    left_out: frozenset[str]

    @cached_property
    def schema(self) -> pa.Schema:
        """That of the table, which Lance makes anew at each call: 0.1 ms."""
        return self.table.schema

    def by_vectors(
        self, name: str, by: str, vectors: Sequence[NDArray[np.floating[Any]]], depth: int, weight: float = 1.0
    ) -> Ranking:
        """The `depth` clips nearest to the best of some vectors. Raises ConfigError for vectors of another width."""
        column = column_of(self.schema, by)
        queries = unit_queries(vectors, column, self.schema)
        num_with = num_without = None
        exact = vector_index_name(column) not in index_names(self.table)
        wanted = depth + len(self.left_out)
        where = self.where
        if (key := self._outdated(column)) is not None:
            where = both(where, f"`{key}` IS NOT NULL")
        if exact:
            scored, num_with, num_without = scan(self.table, column, queries, wanted, where)
        else:
            scored = approximate(self.table, column, queries, wanted, where)
        note_mixed(
            key_spread(self.table, stages_behind(self.schema, [column]), self.where),
            f"search by {by} in {self.db.uri}",
        )
        there = [found for found in scored if found.clip_id not in self.left_out]
        kept = best_clips(there, depth)
        complete = num_with is not None and len(scored) >= num_with and len(there) <= depth
        return Ranking(name, kept, weight, exact, complete, 1.0, num_with, num_without)

    def by_words(
        self, name: str, text: str, depth: int, weight: float = 1.0, columns: Sequence[str] = TEXT_COLUMNS
    ) -> Ranking:
        """Clips with these words in some columns, as one field, by BM25. Raises ConfigError for no words, StoreError
        without a text index."""
        if not text.strip():
            raise ConfigError("the text to search for is empty", "give one or more words")
        if not index_names(self.table) >= {f"{column}_text" for column in columns}:
            if self.table.version < self.table.latest_version:
                problem = f"version {self.table.version} of {self.table.uri} has no text index"
                raise StoreError(problem, f"search a later one; the newest is {self.table.latest_version}")
            raise StoreError(f"{self.table.uri} has no text index", "build it with `handloom index --db DB`")
        scored = by_text(self.table, text, depth + len(self.left_out), self.where, columns)
        kept = best_clips((found for found in scored if found.clip_id not in self.left_out), depth)
        best = kept[0].score if kept else 1.0
        return Ranking(name, kept, weight, True, len(kept) < depth, best if best > 0 else 1.0)

    def vector_scores(
        self, by: str, vectors: Sequence[NDArray[np.floating[Any]]], row_ids: Sequence[int]
    ) -> dict[str, float]:
        """Exact scores of some rows by clip id; rows without the embedding are left out."""
        column = column_of(self.schema, by)
        queries = unit_queries(vectors, column, self.schema)
        if (key := self._outdated(column)) is not None:
            row_ids = [row["_rowid"] for row in rows_at(self.table, row_ids, [key]) if row[key] is not None]
        return {found.clip_id: found.score for found in scores_of(self.table, column, queries, row_ids)}

    def _outdated(self, column: str) -> str | None:
        """The key column that is null where an embedding is of words that the row has no more; None: nowhere."""
        stage = _words_stage(self.schema, column)
        has_some = stage is not None and key_spread(self.table, [stage])[stage][None]
        return key_column(stage) if stage is not None and has_some else None

    def check_demand(self) -> None:
        """Raise ConfigError if no row has the demanded keys: why nothing was found."""
        if self.demand and not self.table.count_rows(clause(self.where)):
            raise none_has(self.demand, key_spread(self.table, self.demand, self.passing))


def open_scope(
    db: Tables,
    *,
    where: str | None,
    embodiment: str,
    columns: Sequence[str],
    exclude: Iterable[str],
    version: int | None,
    stage_keys: StageKeys,
    compared: Sequence[str],
) -> Scope:
    """The rows that pass. compared: names of the embeddings that are compared, whose stages `current` stands for.

    Raises:
        ConfigError: an unknown column or embedding; the SQL cannot be used.
        StoreError: nothing is processed yet.
    """
    table = open_clips(db, version)
    if table is None:
        raise StoreError(f"{db.uri} holds no processed clips yet", "process them with `handloom run --db DB`")
    schema = table.schema
    unknown = [name for name in columns if name not in schema.names]
    if unknown:
        raise ConfigError(f"there is no column {', '.join(unknown)}", f"columns: {', '.join(schema.names)}")
    where = db.expanded(where)
    _check_filter(table, where)
    passing = narrowed(db, where, embodiment)
    demand = demanded(db, schema, stage_keys, [*columns, *(column_of(schema, by) for by in compared)])
    left_out = frozenset(form for clip_id in exclude for form in forms_of(clip_id))
    return Scope(db, table, with_demand(passing, demand), passing, demand, left_out)


def _check_filter(table: lance.LanceDataset, where: str | None) -> None:
    """Raise ConfigError for a filter that Lance cannot use, before a query's video is extracted. Planning takes
    0.6 ms, so one table is asked once."""
    usable = _usable.setdefault(table, set())
    if where is not None and where not in usable:
        with filtered(where, table):
            table.scanner(columns=["clip_id"], filter=clause(where), use_scalar_index=False).explain_plan()
        if len(usable) < MAX_KEPT_FILTERS:
            usable.add(where)


def column_of(schema: pa.Schema, by: str) -> str:
    """The column of an embedding. Raises ConfigError, with the nearest names, if the table has none of this name."""
    known = embedding_columns(schema)
    if by not in known:
        raise ConfigError(no_embedding(by, schema))
    return known[by]


def unit_queries(
    vectors: Sequence[NDArray[np.floating[Any]]] | None, column: str, schema: pa.Schema
) -> NDArray[np.float64]:
    """Query vectors as (Q, D) of unit norm."""
    dim = schema.field(column).type.list_size
    try:
        queries = [np.asarray(v, np.float64).reshape(-1) for v in vectors or ()]
    except (TypeError, ValueError) as error:
        raise ConfigError(f"a query vector holds no numbers: {error}", f"{dim} numbers for {column}") from error
    if not queries or any(len(q) != dim for q in queries):
        raise ConfigError(
            f"the query vectors have {[len(q) for q in queries]} numbers, {column} has {dim}",
            "another encoder of the same name made them: search with the one that the table's column is of "
            "(`handloom stages` shows its settings), or compute the column again",
        )
    norms = [float(np.linalg.norm(q)) for q in queries]
    if not all(np.isfinite(n) and n > 0 for n in norms):
        raise ConfigError("a query vector is zero or not finite", "was anything seen in the query's video?")
    return np.stack([q / n for q, n in zip(queries, norms, strict=True)])


def embedding_of(db: Tables, clip_id: str, by: str, version: int | None = None) -> NDArray[np.float32]:
    """The stored embedding `by` of a clip: (D,). Raises StoreError if the clip or its embedding is not there, and
    OtherWords if it is not of the clip's words of today."""
    schema = db.existing_table("clips", version).schema
    column = column_of(schema, by)
    stage = _words_stage(schema, column)
    row = row_of(db, clip_id, [column, *([] if stage is None else [key_column(stage)])], version)
    if not row.column(0)[0].is_valid:
        raise NoEmbedding(f"clip {clip_id} has no {by} embedding", "search by another embedding, or by text")
    if stage is not None and not row.column(1)[0].is_valid:
        problem = f"clip {clip_id} has other words now than those of its {by} embedding"
        raise OtherWords(problem, f"`handloom run --db {db.uri}` computes it again")
    return row.column(0)[0].values.to_numpy(zero_copy_only=False)


def _words_stage(schema: pa.Schema, column: str) -> str | None:
    """The stage of an embedding that is made from a clip's words; None of others. An ingest that gives a row other
    words removes this stage's key."""
    owner = owner_of(schema.field(column))
    readers = readers_of(schema)
    of_words = any(owner in readers.get(word, ()) for word in WORDS)
    return owner if owner is not None and of_words and key_column(owner) in schema.names else None


def row_of(db: Tables, clip_id: str, columns: Sequence[str] | None = None, version: int | None = None) -> pa.Table:
    """The one row of a clip. Raises StoreError, with the nearest ids, if the clip has no row."""
    for form in forms_of(clip_id):
        rows = db.read("clips", columns, in_list("clip_id", [form]), version, few=True)
        if rows.num_rows:
            return rows
    raise _unknown_clip(db, clip_id, version)


def _unknown_clip(db: Tables, clip_id: str, version: int | None) -> StoreError:
    """The error for a clip without a row: in another version, rejected, not processed yet, or unknown (with the nearest
    ids)."""
    only = in_list("clip_id", forms_of(clip_id))
    if version is not None and db.count("clips", only):
        return StoreError(f"clip {clip_id} has no row in version {version} of clips", f"version {db.version} has one")
    rejected = db.read("rejects", where=only)
    if rejected.num_rows:
        reject = rejected.to_pylist()[0]
        return StoreError(f"clip {clip_id} was rejected at {reject['stage']} ({reject['reason']}): {reject['detail']}")
    if db.count("clip_list", only):
        return StoreError(f"clip {clip_id} is not processed yet", "process it with `handloom run --db DB`")
    known = db.clips(["clip_id"])
    ids = known.column("clip_id").to_pylist() if known.num_rows else []
    close = [i for i in ids if clip_id in i][:3] or difflib.get_close_matches(clip_id, ids[:MAX_COMPARED_IDS], 3, 0.5)
    hint = f"did you mean {', '.join(close)}?" if close else f"`handloom status --db {db.uri} --clips` lists all"
    return StoreError(f"there is no clip {clip_id!r} in {db.uri}", hint)
