"""The rows with the best scores: by embeddings, exactly or through an index, and by words.

Every function returns at least the best `k` rows that pass the filter and all rows that tie with the last of them, so
that `best_clips` gives the same order on every machine.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import partial
from operator import attrgetter
from typing import Any, NamedTuple

import lance
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from lance.query import CombinedFieldsQuery
from numpy.typing import NDArray

from handloom.errors import StoreError
from handloom.store.filters import clause, filtered
from handloom.store.lance_faults import LANCE_ERRORS, fault_of, first_words
from handloom.store.retry import past_lost_indexes
from handloom.store.search.copies import stored_rows
from handloom.store.search.index import TEXT_COLUMNS
from handloom.store.search.unspaced import score_pieces, split_query
from handloom.store.search.vectors.effort import kept_effort
from handloom.store.search.vectors.probe import near

SCORE_DIGITS = 6
FLOAT32_MARGIN = 1e-4
BATCH_ROWS = 8192


class Scored(NamedTuple):
    """A row with its score; higher is better."""

    score: float
    clip_id: str
    row_id: int


def best_clips(scored: Iterable[Scored], k: int) -> list[Scored]:
    """The best `k`, each clip once: by falling score, equal scores by clip_id."""
    best: dict[str, Scored] = {}
    for found in scored:
        kept = best.setdefault(found.clip_id, found)
        if kept is not found and found > kept:
            best[found.clip_id] = found
    ordered = sorted(best.values(), key=attrgetter("clip_id"))
    ordered.sort(key=attrgetter("score"), reverse=True)  # equal scores stay in the order that they had
    return ordered[:k]


def scan(
    table: lance.LanceDataset, column: str, queries: NDArray[np.float64], k: int, where: str | None
) -> tuple[list[Scored], int, int]:
    """Exact: every row that passes the filter is compared, one batch in memory. queries: (Q, D), unit norm.

    Also the number of rows that have the column, and of those that lack it.
    """

    def compare(use_indexes: bool) -> tuple[list[Scored], int, int]:
        best: list[Scored] = []
        num_with = num_without = 0
        with filtered(where, table):
            for batch in table.to_batches(
                columns=["clip_id", column],
                filter=clause(where),
                batch_size=BATCH_ROWS,
                with_row_id=True,
                use_scalar_index=use_indexes,
            ):
                num_without += batch.column(column).null_count
                num_with += batch.num_rows - batch.column(column).null_count
                best = best_clips([*best, *_score(batch, column, queries, k)], k)
        return best, num_with, num_without

    return past_lost_indexes(table.uri, compare)


def approximate(
    table: lance.LanceDataset, column: str, queries: NDArray[np.float64], k: int, where: str | None
) -> list[Scored]:
    """Rows of the nearest partitions of the index and rows that are not in it yet; their scores are exact.

    If the index cannot be read, all rows are compared, and that is logged.
    """
    effort = kept_effort(table, column)

    def compare(use_indexes: bool) -> list[Scored]:
        if not use_indexes:
            return scan(table, column, queries, k, where)[0]
        rows = (near(table, column, query, k, where, effort).combine_chunks() for query in queries)
        batches = (batch for some in rows for batch in some.to_batches())
        return [found for batch in batches for found in _score(batch, column, queries, k)]

    return past_lost_indexes(table.uri, compare)


def scores_of(
    table: lance.LanceDataset, column: str, queries: NDArray[np.float64], row_ids: Sequence[int]
) -> list[Scored]:
    """Exact scores of these rows, in any order; rows without the embedding are left out."""
    rows = stored_rows(table, row_ids, ["clip_id", column]).combine_chunks()
    return [found for batch in rows.to_batches() for found in _score(batch, column, queries, batch.num_rows)]


def by_text(
    table: lance.LanceDataset, text: str, k: int, where: str | None, columns: Sequence[str] = TEXT_COLUMNS
) -> list[Scored]:
    """BM25 over columns with a full-text index as one field: the best `k` clips, in any order.

    Parts of the text in scripts without spaces are scored by pieces (`unspaced`), and the scores are added.
    """
    words, pieces = split_query(text)
    by_row = score_pieces(table, columns, pieces, where) if pieces else {}
    if words or not pieces:
        row_ids, scores = _full_text(table, words, where, columns)
        if by_row:
            for row_id, score in zip(row_ids.tolist(), scores.tolist(), strict=True):
                by_row[row_id] = by_row.get(row_id, 0.0) + score
    if by_row:
        row_ids, scores = np.array(list(by_row)), np.array(list(by_row.values()))
    elif pieces and not words:
        return []
    scores = np.round(scores, SCORE_DIGITS)
    kept = _best_index(scores, k, margin=0)
    rows = stored_rows(table, row_ids[kept], ["clip_id"])
    order = np.argsort(row_ids[kept])
    scores = scores[kept][order[np.searchsorted(row_ids[kept], rows.column("_rowid").to_numpy(), sorter=order)]]
    rows = first_of_equal(rows.append_column("_score", pa.array(scores)), k)
    return list(map(Scored, *(rows.column(name).to_pylist() for name in ("_score", "clip_id", "_rowid"))))


def first_of_equal(rows: pa.Table, k: int) -> pa.Table:
    """The rows of the best `k` clips by `_score`, equal ones by `clip_id`. Of a common word a fifth of all clips have
    the same score, and only these columns are looked at; a clip with two rows counts once."""
    if rows.num_rows <= k:
        return rows
    scores = rows.column("_score").to_numpy()
    worst = scores.min()
    better, equal = rows.filter(pa.array(scores > worst)), rows.filter(pa.array(scores == worst))
    keys = [("clip_id", "ascending"), ("_rowid", "descending")]
    first = equal.take(pc.select_k_unstable(equal, k - better.num_rows, keys))
    found = pa.concat_tables([better, first])
    return found if pc.count_distinct(found.column("clip_id")).as_py() >= k else rows


def _full_text(
    table: lance.LanceDataset, words: str, where: str | None, columns: Sequence[str]
) -> tuple[NDArray[np.uint64], NDArray[np.float64]]:
    """Row ids and scores of all rows that the index finds. Raises StoreError if its files are damaged or gone."""
    query = CombinedFieldsQuery(words, list(columns))

    def find(use_indexes: bool) -> pa.Table:  # of the filter
        scan: Any = partial(table.to_table, columns=["_score"], full_text_query=query, filter=clause(where))
        with filtered(where, table):
            return scan(prefilter=True, with_row_id=True, use_scalar_index=use_indexes)

    try:
        rows = past_lost_indexes(table.uri, find)
    except LANCE_ERRORS as error:
        if fault_of(error) is not None:
            raise
        raise StoreError(
            f"an index of {table.uri} cannot be read: {first_words(error)}", "`handloom index` builds it again"
        ) from error
    return rows.column("_rowid").to_numpy(), rows.column("_score").to_numpy().astype(np.float64)


def _score(batch: pa.RecordBatch, column: str, queries: NDArray[np.float64], k: int) -> list[Scored]:
    """The best `k` of a batch and ties; rows without the embedding are left out.

    Candidates are chosen in float32 with a margin and scored in float64: equal vectors get equal scores in every batch.
    """
    batch = batch.filter(batch.column(column).is_valid())
    if not batch.num_rows:
        return []
    stored = batch.column(column).flatten().to_numpy(zero_copy_only=False).reshape(batch.num_rows, -1)
    norms = np.sqrt(np.einsum("nd,nd->n", stored, stored))
    rough = (stored @ queries.T.astype(np.float32)).max(axis=1) / np.where(norms > 0, norms, np.nan)
    index = _best_index(rough, k, FLOAT32_MARGIN)
    exact = stored[index].astype(np.float64)
    scores = (exact @ queries.T).max(axis=1) / np.linalg.norm(exact, axis=1)
    picked = batch.select(["clip_id", "_rowid"]).take(pa.array(index))
    ids, row_ids = (picked.column(name).to_pylist() for name in ("clip_id", "_rowid"))
    return list(map(Scored, np.round(scores, SCORE_DIGITS).tolist(), ids, row_ids))


def _best_index(scores: NDArray[np.floating[Any]], k: int, margin: float) -> NDArray[np.intp]:
    """Places of the best `k` finite scores and of those within `margin` of the last of them."""
    index = np.flatnonzero(np.isfinite(scores))
    if len(index) <= k:
        return index
    worst = np.partition(scores[index], len(index) - k)[len(index) - k]
    return index[scores[index] >= worst - margin]
