"""Pairs of rows that look alike and move alike: exact, block by block, with memory of a block alone.

100,000 rows are 5 * 10^9 pairs. A product of matrices finds those that look alike; the few that remain are compared
again at full precision, one by one, so a pair has the same cosines in whichever block it comes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import lance
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from handloom.schemas.tables.duplicates import COMPARED
from handloom.schemas.tables.embeddings import PREFIX
from handloom.store.duplicates.groups import Pairs

BLOCK_ROWS = 16_384
BATCH_ROWS = 1024
CHUNK_PAIRS = 8192
FLOAT32_MARGIN = 1e-4
DIGITS = 9
"""Of a cosine: which of two rows comes first changes its last bits."""

Vectors = NDArray[np.float32]
Mirrors = Mapping[str, Callable[[Vectors], Vectors]]
"""By name of an embedding: vectors of clips to those of their mirror images. The better cosine of the two counts."""


@dataclass(frozen=True)
class Thresholds:
    """The smallest cosines of two clips that are near-duplicates; both must be reached."""

    look: float
    motion: float

    def least(self) -> tuple[float, ...]:
        """By the order of `COMPARED`."""
        return tuple(getattr(self, name) for name in COMPARED)


@dataclass(frozen=True)
class _Block:
    """Rows and their embeddings, by the order of `COMPARED`. Zeros: the row has none, and is like no other."""

    rows: NDArray[np.int64]
    vectors: tuple[Vectors, ...]


def alike_pairs(
    table: lance.LanceDataset,
    kinds: NDArray[np.int64],
    fresh: NDArray[np.bool_],
    thresholds: Thresholds,
    mirrors: Mirrors,
) -> Pairs:
    """Pairs of rows of one kind that reach the thresholds, at least one of them fresh; numbers in stored order.

    Args:
        kinds: (R,) embeddings of different kinds cannot be compared; below 0: the row has none.
        fresh: (R,) rows that were not compared before.
    """
    waiting = np.flatnonzero(fresh & (kinds >= 0))
    found = [np.empty((0, 2), np.int64)]
    for start in range(0, len(waiting), BLOCK_ROWS):
        numbers = waiting[start : start + BLOCK_ROWS]
        block = _Block(numbers, _vectors(table.take(numbers.tolist(), columns=_columns())))
        for other in _stored(table, (kinds >= 0) & (~fresh | (np.arange(len(fresh)) < numbers[-1]))):
            found += _alike(block, other, kinds, fresh, thresholds, mirrors)
    return np.concatenate(found)


def _stored(table: lance.LanceDataset, wanted: NDArray[np.bool_]) -> Iterator[_Block]:
    """The wanted rows, in stored order."""
    at = 0
    for batch in table.to_batches(columns=_columns(), batch_size=BATCH_ROWS):
        here = np.flatnonzero(wanted[at : at + batch.num_rows])
        if len(here):
            yield _Block(here + at, _vectors(pa.Table.from_batches([batch]).take(here)))
        at += batch.num_rows


def _alike(
    block: _Block,
    other: _Block,
    kinds: NDArray[np.int64],
    fresh: NDArray[np.bool_],
    thresholds: Thresholds,
    mirrors: Mirrors,
) -> Iterator[Pairs]:
    """Pairs between a block of fresh rows and others; of two fresh rows the later one counts as the block's."""
    rough = block.vectors[0] @ other.vectors[0].T
    left, right = np.nonzero(rough >= thresholds.look - FLOAT32_MARGIN)
    rows, others = block.rows[left], other.rows[right]
    kept = (kinds[rows] == kinds[others]) & (~fresh[others] | (others < rows))
    left, right = left[kept], right[kept]
    for start in range(0, len(left), CHUNK_PAIRS):
        some, those = left[start : start + CHUNK_PAIRS], right[start : start + CHUNK_PAIRS]
        close = np.ones(len(some), bool)
        for number, (name, least) in enumerate(zip(COMPARED, thresholds.least(), strict=True)):
            ours, theirs = block.vectors[number][some], other.vectors[number][those]
            cosine = _cosines(ours, theirs)
            if name in mirrors:
                cosine = np.maximum(cosine, _cosines(mirrors[name](ours), theirs))
            close &= cosine >= least
        yield np.stack([block.rows[some], other.rows[those]], axis=1)[close]


def _cosines(ours: Vectors, theirs: Vectors) -> NDArray[np.float64]:
    """Of unit vectors, row by row; equal in any block."""
    return np.round((ours.astype(np.float64) * theirs).sum(1), DIGITS)


def _vectors(rows: pa.Table) -> tuple[Vectors, ...]:
    return tuple(_filled(rows.column(name)) for name in _columns())


def _filled(column: pa.ChunkedArray) -> Vectors:
    """(n, D), zeros for null."""
    found = np.zeros((len(column), column.type.list_size), np.float32)
    there = column.is_valid().to_numpy()
    flat = column.drop_null().combine_chunks().flatten()
    found[there] = flat.to_numpy(zero_copy_only=False).reshape(-1, column.type.list_size)
    return found


def _columns() -> list[str]:
    return [f"{PREFIX}{name}" for name in COMPARED]
