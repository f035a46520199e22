"""The exact nearest rows of many queries, read from the table once, and the recall of what a search found."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from handloom.api import Database
from handloom.bench.search.rows import COLUMN, PERSON

BATCH_ROWS = 8192


class Nearest:
    """The best `k` rows of each of Q queries, among all rows and among those of one person. Rows are numbers, in stored
    order."""

    def __init__(self, queries: NDArray[np.float32], k: int) -> None:
        self._queries, self._k = queries, k
        self._best = {name: (np.full((len(queries), 0), -np.inf), np.zeros((len(queries), 0), int)) for name in "af"}
        self._filtered: list[NDArray[np.int64]] = []

    def read(self, db: Database, did: Callable[[int], None] = lambda rows: None) -> None:
        """Compare every row of the table."""
        first = 0
        for batch in db.batches([COLUMN, "participant"], batch_size=BATCH_ROWS):
            stored = batch.column(COLUMN).flatten().to_numpy(zero_copy_only=False).reshape(batch.num_rows, -1)
            scores, rows = self._queries @ stored.T, np.arange(first, first + batch.num_rows)
            self._keep("a", scores, rows)
            kept = np.array(batch.column("participant").to_pylist()) == PERSON
            self._keep("f", scores[:, kept], rows[kept])
            self._filtered.append(rows[kept])
            first += batch.num_rows
            did(batch.num_rows)

    @property
    def filtered(self) -> NDArray[np.int64]:
        """Numbers of the rows of one person."""
        return np.concatenate(self._filtered)

    @property
    def of_all(self) -> NDArray[np.int64]:
        """(Q, k)."""
        return self._best["a"][1]

    @property
    def of_one_person(self) -> NDArray[np.int64]:
        """(Q, k)."""
        return self._best["f"][1]

    def _keep(self, name: str, scores: NDArray[np.float32], rows: NDArray[np.int64]) -> None:
        before, places = self._best[name]
        scores = np.concatenate([before, scores], axis=1)
        rows = np.concatenate([places, np.broadcast_to(rows, (len(self._queries), len(rows)))], axis=1)
        if scores.shape[1] > self._k:
            best = np.argpartition(-scores, self._k, axis=1)[:, : self._k]
            scores, rows = np.take_along_axis(scores, best, 1), np.take_along_axis(rows, best, 1)
        self._best[name] = scores, rows


def recall(found: Sequence[Sequence[int]], truth: NDArray[np.int64]) -> float:
    """Share of the true rows that were found, over all queries."""
    return float(
        np.mean([len(set(some) & set(true.tolist())) / len(true) for some, true in zip(found, truth, strict=True)])
    )
