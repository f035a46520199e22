"""Pairs of rows that show one recording: exact, though nearly all pairs are compared by short vectors alone.

100,000 rows are 5 * 10^9 pairs. A vector's part in a few directions, and the length of the rest, bound its cosine with
another one from above (Cauchy-Schwarz): x.y <= Px.Py + |x - Px| |y - Py|. Only pairs whose `look` may reach the
threshold by that are read and compared whole, one by one at full precision; then by the course of their pictures, and
last by the pictures themselves (`video.fingerprint`). So the directions change no result, nor does the order of the
rows. They are the principal ones of some of the rows.
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import lance
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from threadpoolctl import ThreadpoolController

from handloom.errors import ShapeError
from handloom.schemas.tables.duplicates import COMPARED, COURSE, PICTURES
from handloom.store.duplicates.groups import Pairs
from handloom.video.fingerprint.compare import agreement
from handloom.video.fingerprint.course import Courses
from handloom.video.fingerprint.pictures import Fingerprint

log = logging.getLogger(__name__)

SHORT = 64
"""Numbers of a short vector beside the length of the rest."""
SAMPLE_ROWS = 4096
TILE_ROWS = 1024  # products of a tile stay in the processor's cache
BATCH_ROWS = 1024
CHUNK_PAIRS = 2048
WAITING_PAIRS = 1 << 20
FLOAT32_MARGIN = 1e-4
REST_ERROR = 1e-6  # of the square of the rest's length, in float32
TOLD_PAIRS = 256
KEPT_FINGERPRINTS = 512
DIGITS = 9
"""Of a cosine: which of two rows comes first changes its last bits."""
(LOOK,) = COMPARED["look"]

Vectors = NDArray[np.float32]


@dataclass(frozen=True)
class Thresholds:
    """Of two clips that are near-duplicates. look: the smallest cosine of their `embedding_look`; of others the
    pictures are not compared. agreement: of their pictures, where they agree least."""

    look: float
    agreement: float


def alike_pairs(
    table: lance.LanceDataset,
    kinds: NDArray[np.int64],
    fresh: NDArray[np.bool_],
    order: NDArray[np.int64],
    thresholds: Thresholds,
) -> Pairs:
    """Pairs of rows of one kind that show one recording, at least one of them fresh; numbers in stored order.

    Reads every `look` once and those of likely pairs again; keeps 0.3 kB of a row in memory.

    Args:
        kinds: (R,) rows of different kinds cannot be compared; below 0: a stage was not computed.
        fresh: (R,) rows that were not compared before.
        order: (R,) of a pair, the row of the lower number is the first: by clip, whatever the order of the rows.
    """
    waiting = np.flatnonzero(fresh & (kinds >= 0))
    found = [np.empty((0, 2), np.int64)]
    if len(waiting):
        short = _ShortRows(table, kinds >= 0)
        pictures = _Pictures(table)
        for pairs in _gathered(short.likely(waiting, kinds, fresh, thresholds.look)):
            for some in _compared(table, pairs, thresholds.look):
                turned = order[some[:, 0]] > order[some[:, 1]]
                some[turned] = some[turned, ::-1]
                found.append(some[pictures.agreements(some) >= thresholds.agreement])
    return np.concatenate(found)


class _ShortRows:
    """Short vectors of `look` of all rows that are wanted."""

    def __init__(self, table: lance.LanceDataset, wanted: NDArray[np.bool_]) -> None:
        rows = np.flatnonzero(wanted)
        sample = np.sort(np.random.default_rng(0).permutation(rows)[:SAMPLE_ROWS])
        directions = _directions(_filled(table.take(sample.tolist(), columns=[LOOK]).column(LOOK)))
        self._short = np.zeros((len(wanted), directions.shape[1] + 1), np.float32)
        at = 0
        for batch in table.to_batches(columns=[LOOK], batch_size=BATCH_ROWS):
            here = np.flatnonzero(wanted[at : at + batch.num_rows])
            if len(here):
                vectors = _filled(pa.Table.from_batches([batch]).take(here).column(LOOK))
                self._short[here + at] = _shortened(vectors, directions)
            at += batch.num_rows

    def likely(
        self, waiting: NDArray[np.int64], kinds: NDArray[np.int64], fresh: NDArray[np.bool_], look: float
    ) -> Iterator[Pairs]:
        """Pairs that may reach the threshold, tile by tile; of two fresh rows the later one is the first."""
        for start in range(0, len(waiting), TILE_ROWS):
            rows = waiting[start : start + TILE_ROWS]
            before = np.flatnonzero((kinds >= 0) & (~fresh | (np.arange(len(fresh)) < rows[-1])))
            for first in range(0, len(before), TILE_ROWS):
                others = before[first : first + TILE_ROWS]
                products = self._short[rows] @ self._short[others].T
                close = np.flatnonzero(products >= look - FLOAT32_MARGIN)  # `nonzero`: 6 times as long
                left, right = np.divmod(close, len(others))
                ours, theirs = rows[left], others[right]
                kept = (kinds[ours] == kinds[theirs]) & (~fresh[theirs] | (theirs < ours))
                yield np.stack([ours[kept], theirs[kept]], axis=1)


class _Pictures:
    """Compares fingerprints; keeps those that it used last."""

    def __init__(self, table: lance.LanceDataset) -> None:
        self._table = table
        self._kept: OrderedDict[int, Fingerprint | None] = OrderedDict()
        self._threads = ThreadpoolController()

    def agreements(self, pairs: Pairs) -> NDArray[np.float64]:
        """(P,) NaN where it cannot be told, or the courses are unlike."""
        told = np.full(len(pairs), np.nan)
        likely = np.flatnonzero(self._likely(pairs))
        with self._threads.limit(limits=1, user_api="blas"):  # small products: more threads wait for each other
            for start in range(0, len(likely), TOLD_PAIRS):
                some = likely[start : start + TOLD_PAIRS]
                self._read(np.unique(pairs[some]).tolist())
                for number in some.tolist():
                    one, other = (self._kept[row] for row in pairs[number].tolist())
                    if one is not None and other is not None:
                        told[number] = agreement(one, other)
        return told

    def _likely(self, pairs: Pairs) -> NDArray[np.bool_]:
        """(P,) whether the courses are alike."""
        if not len(pairs):
            return np.zeros(0, bool)
        rows, places = np.unique(pairs, return_inverse=True)
        ours, theirs = places.reshape(pairs.shape).T
        courses = Courses(_filled(self._table.take(rows.tolist(), columns=[COURSE]).column(COURSE), np.int8))
        return courses.likely(ours, theirs)

    def _read(self, rows: list[int]) -> None:
        """Keep the fingerprints of these rows, and as many others as there is room for."""
        if new := [row for row in rows if row not in self._kept]:
            there = self._table.take(new, columns=["clip_id", PICTURES]).to_pylist()
            self._kept |= {row: _fingerprint(one) for row, one in zip(new, there, strict=True)}
        for row in rows:
            self._kept.move_to_end(row)
        while len(self._kept) > max(KEPT_FINGERPRINTS, len(rows)):
            self._kept.popitem(last=False)


def _fingerprint(row: dict[str, Any]) -> Fingerprint | None:
    """Of a row; None where it has none, or a damaged one: it is like no other."""
    if row[PICTURES] is None:
        return None
    try:
        return Fingerprint(row[PICTURES])
    except ShapeError as error:
        told = f"{row['clip_id']} is compared with no other clip: its {PICTURES} is damaged ({error})"
        log.warning("%s; `handloom remove --rows-only` and a run make its row anew", told)
        return None


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


def _compared(table: lance.LanceDataset, pairs: Pairs, look: float) -> Iterator[Pairs]:
    """Those of the pairs whose cosines reach the threshold."""
    for start in range(0, len(pairs), CHUNK_PAIRS):
        some = pairs[start : start + CHUNK_PAIRS]
        rows, places = np.unique(some, return_inverse=True)
        left, right = places.reshape(some.shape).T
        vectors = _filled(table.take(rows.tolist(), columns=[LOOK]).column(LOOK))
        yield some[_cosines(vectors[left], vectors[right]) >= look]


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


def _cosines(ours: Vectors, theirs: Vectors) -> NDArray[np.float64]:
    """Of unit vectors, row by row; equal in any block."""
    return np.round((ours.astype(np.float64) * theirs).sum(1), DIGITS)


def _filled(column: pa.ChunkedArray, kind: type = np.float32) -> NDArray[Any]:
    """(n, D), zeros for null: the row has none, and is like no other."""
    found: NDArray[Any] = np.zeros((len(column), column.type.list_size), kind)
    there = column.is_valid().to_numpy()
    flat = column.drop_null().combine_chunks().flatten()
    found[there] = flat.to_numpy(zero_copy_only=False).reshape(-1, column.type.list_size)
    return found
