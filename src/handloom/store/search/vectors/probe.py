"""One query by a vector index: candidates of the nearest partitions, for the caller to score by stored vectors."""

from __future__ import annotations

from functools import partial

import lance
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from handloom.store.filters import clause, filtered
from handloom.store.search.copies import copies_of, stored_rows
from handloom.store.search.vectors.effort import Effort

FEWEST_SPARE = 8  # for ties at the end; through Lance, in 74 fragments, a candidate costs 0.13 ms
MANY = 200  # rows that are asked for: 1000 of them lie in more partitions than ten
MANY_ROWS = 10_000
FILTERED = 2  # times as many partitions: the nearest rows that pass lie farther away


def near(
    table: lance.LanceDataset, column: str, query: NDArray[np.float64], k: int, where: str | None, effort: Effort
) -> pa.Table:
    """Candidates for the `k` nearest rows that pass the filter, with `clip_id`, their stored vectors and `_rowid`.

    Rows that the index lacks are compared one by one, and are among them. Fewer than `k` only if no more pass: other
    partitions are read, then. (With Lance's `nprobes` a filter that few rows pass found none of them.)
    """
    k = min(k, table.count_rows()) if k > MANY_ROWS else k  # Lance allocates memory for all
    nearest = {
        "column": column,
        "q": query.astype(np.float32),
        "k": num_candidates(k, effort),
        "metric": "cosine",
        "minimum_nprobes": effort.probes * (1 if where is None else FILTERED) * (1 + k // MANY),
    }
    with filtered(where, table):
        read = partial(
            table.scanner,
            nearest=nearest,
            filter=clause(where),
            prefilter=True,
            with_row_id=True,
            disable_scoring_autoprojection=True,
        )
        if copies_of(table) is None:
            return read(columns=["clip_id", column]).to_table()
        row_ids = read(columns=[]).to_table().column("_rowid").to_pylist()
    return stored_rows(table, row_ids, ["clip_id", column])


def num_candidates(k: int, effort: Effort) -> int:
    """How many rows are scored by their stored vectors: numbers of 5 bits mix up near rows.

    100,000 rows of 512 numbers: of the ten nearest 0.966 are among the first ten candidates, 0.999 among 16, all among
    20. Reading the vector of one costs as much as comparing two thousand by the index.
    """
    return k + effort.spare * max(FEWEST_SPARE, k // 2)


def exact_order(rows: pa.Table, column: str, query: NDArray[np.float64]) -> list[int]:
    """Row ids of candidates, the nearest first."""
    stored = rows.column(column).combine_chunks().flatten().to_numpy(zero_copy_only=False).reshape(rows.num_rows, -1)
    norms = np.linalg.norm(stored, axis=1)
    scores = (stored @ query.astype(np.float32)) / np.where(norms > 0, norms, np.inf)
    return rows.column("_rowid").to_numpy()[np.argsort(-scores)].tolist()
