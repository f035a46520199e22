"""Pairs of rows that look alike and move alike: exact, though nearly all pairs are compared by short vectors alone.

100,000 rows are 5 * 10^9 pairs. A vector's part in a few directions, and the length of the rest, bound its cosine with
another one from above (Cauchy-Schwarz): x.y <= Px.Py + |x - Px| |y - Py|. Only pairs that may reach the thresholds by
that are read and compared whole, one by one at full precision, so a pair has the same cosines in whichever block it
comes, and the directions change no result. They are the principal ones of some of the rows.
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

SHORT = 64
"""Numbers of a short vector beside the length of the rest."""
SAMPLE_ROWS = 4096
TILE_ROWS = 1024  # products of a tile stay in the processor's cache
BATCH_ROWS = 1024
CHUNK_PAIRS = 8192
WAITING_PAIRS = 1 << 20
FLOAT32_MARGIN = 1e-4
REST_ERROR = 1e-6  # of the square of the rest's length, in float32
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


def alike_pairs(
    table: lance.LanceDataset,
    kinds: NDArray[np.int64],
    fresh: NDArray[np.bool_],
    thresholds: Thresholds,
    mirrors: Mirrors,
) -> Pairs:
    """Pairs of rows of one kind that reach the thresholds, at least one of them fresh; numbers in stored order.

    Reads every vector once and those of likely pairs again; keeps 0.8 kB of a row in memory.

    Args:
        kinds: (R,) embeddings of different kinds cannot be compared; below 0: the row has none.
        fresh: (R,) rows that were not compared before.
    """
    waiting = np.flatnonzero(fresh & (kinds >= 0))
    found = [np.empty((0, 2), np.int64)]
    if len(waiting):
        short = _ShortRows(table, kinds >= 0, mirrors)
        for pairs in _gathered(short.likely(waiting, kinds, fresh, thresholds)):
            found += _compared(table, pairs, thresholds, mirrors)
    return np.concatenate(found)


class _ShortRows:
    """Short vectors of all rows that are wanted, of each embedding and of its mirror image."""

    def __init__(self, table: lance.LanceDataset, wanted: NDArray[np.bool_], mirrors: Mirrors) -> None:
        rows = np.flatnonzero(wanted)
        sample = np.sort(np.random.default_rng(0).permutation(rows)[:SAMPLE_ROWS])
        directions = [_directions(vectors) for vectors in _vectors(table.take(sample.tolist(), columns=_columns()))]
        self._short = [np.zeros((len(wanted), basis.shape[1] + 1), np.float32) for basis in directions]
        self._mirrored = {
            number: np.zeros_like(self._short[number]) for number, name in enumerate(COMPARED) if name in mirrors
        }
        at = 0
        for batch in table.to_batches(columns=_columns(), batch_size=BATCH_ROWS):
            here = np.flatnonzero(wanted[at : at + batch.num_rows])
            if len(here):
                vectors = _vectors(pa.Table.from_batches([batch]).take(here))
                for number, basis in enumerate(directions):
                    self._short[number][here + at] = _shortened(vectors[number], basis)
                for number, short in self._mirrored.items():
                    short[here + at] = _shortened(mirrors[COMPARED[number]](vectors[number]), directions[number])
            at += batch.num_rows

    def likely(
        self, waiting: NDArray[np.int64], kinds: NDArray[np.int64], fresh: NDArray[np.bool_], thresholds: Thresholds
    ) -> Iterator[Pairs]:
        """Pairs that may reach the thresholds, tile by tile; of two fresh rows the later one is the first."""
        least = [value - FLOAT32_MARGIN for value in thresholds.least()]
        for start in range(0, len(waiting), TILE_ROWS):
            rows = waiting[start : start + TILE_ROWS]
            before = np.flatnonzero((kinds >= 0) & (~fresh | (np.arange(len(fresh)) < rows[-1])))
            for first in range(0, len(before), TILE_ROWS):
                others = before[first : first + TILE_ROWS]
                products = self._short[0][rows] @ self._short[0][others].T
                left, right = np.divmod(np.flatnonzero(products >= least[0]), len(others))  # `nonzero`: 6 times as long
                ours, theirs = rows[left], others[right]
                kept = (kinds[ours] == kinds[theirs]) & (~fresh[theirs] | (theirs < ours))
                yield self._moving_alike(np.stack([ours[kept], theirs[kept]], axis=1), least)

    def _moving_alike(self, pairs: Pairs, least: list[float]) -> Pairs:
        """Those of the pairs that may reach the thresholds of the other embeddings."""
        for number in range(1, len(least)):
            close = np.zeros(len(pairs), bool)
            for start in range(0, len(pairs), CHUNK_PAIRS):
                ours, theirs = pairs[start : start + CHUNK_PAIRS].T
                bound = _products(self._short[number][ours], self._short[number][theirs])
                if number in self._mirrored:
                    bound = np.maximum(bound, _products(self._mirrored[number][ours], self._short[number][theirs]))
                close[start : start + CHUNK_PAIRS] = bound >= least[number]
            pairs = pairs[close]
        return pairs


def _gathered(parts: Iterator[Pairs]) -> Iterator[Pairs]:
    """The same pairs in few large parts, sorted: neighbours share rows."""
    waiting: list[Pairs] = []
    for part in parts:
        waiting.append(part)
        if sum(map(len, waiting)) >= WAITING_PAIRS:
            yield _sorted(np.concatenate(waiting))
            waiting = []
    if waiting:
        yield _sorted(np.concatenate(waiting))


def _sorted(pairs: Pairs) -> Pairs:
    return pairs[np.lexsort((pairs[:, 1], pairs[:, 0]))]


def _compared(table: lance.LanceDataset, pairs: Pairs, thresholds: Thresholds, mirrors: Mirrors) -> Iterator[Pairs]:
    """Those of the pairs whose cosines reach the thresholds."""
    for start in range(0, len(pairs), CHUNK_PAIRS):
        some = pairs[start : start + CHUNK_PAIRS]
        rows, places = np.unique(some, return_inverse=True)
        left, right = places.reshape(some.shape).T
        close = np.ones(len(some), bool)
        of_rows = _vectors(table.take(rows.tolist(), columns=_columns()))
        for name, least, vectors in zip(COMPARED, thresholds.least(), of_rows, strict=True):
            ours, theirs = vectors[left], vectors[right]
            cosine = _cosines(ours, theirs)
            if name in mirrors:
                cosine = np.maximum(cosine, _cosines(mirrors[name](ours), theirs))
            close &= cosine >= least
        yield some[close]


def _directions(sample: Vectors) -> Vectors:
    """(D, d) orthonormal: the principal directions of some vectors; every direction of narrow ones."""
    dim = sample.shape[1]
    if dim <= SHORT:
        return np.eye(dim, dtype=np.float32)
    _, directions = np.linalg.eigh(sample.T.astype(np.float64) @ sample)
    return directions[:, : -SHORT - 1 : -1].astype(np.float32)


def _shortened(vectors: Vectors, directions: Vectors) -> Vectors:
    """(n, d + 1): the part of unit vectors in the directions, and the length of the rest."""
    part = vectors @ directions
    rest = (vectors.astype(np.float64) ** 2).sum(1) - (part.astype(np.float64) ** 2).sum(1)
    length = np.sqrt(np.maximum(rest, 0) + REST_ERROR)  # at least the true one: the products of two are a bound
    return np.concatenate([part, length[:, None].astype(np.float32)], axis=1)


def _products(ours: Vectors, theirs: Vectors) -> NDArray[np.float32]:
    return np.einsum("nd,nd->n", ours, theirs)


def _cosines(ours: Vectors, theirs: Vectors) -> NDArray[np.float64]:
    """Of unit vectors, row by row; equal in any block."""
    return np.round((ours.astype(np.float64) * theirs).sum(1), DIGITS)


def _vectors(rows: pa.Table) -> tuple[Vectors, ...]:
    """By the order of `COMPARED`. Zeros: the row has none, and is like no other."""
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
