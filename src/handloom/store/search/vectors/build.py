"""Building the vector index of one embedding, and measuring what a search through it finds."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass, replace

import lance
import numpy as np
from numpy.typing import NDArray

from handloom.store.retry import retried
from handloom.store.search.coverage import Coverage, coverage
from handloom.store.search.parts import outgrown
from handloom.store.search.vectors.effort import FEWEST_PROBES, KEY, Effort, effort_of
from handloom.store.search.vectors.kind import IndexKind, kind_for
from handloom.store.search.vectors.probe import exact_order, near
from handloom.store.search.vectors.recall import K, Sample
from handloom.store.tables import Tables

log = logging.getLogger(__name__)

GOOD_RECALL = 0.98
SPARES = (1, 4)


@dataclass(frozen=True)
class VectorIndex:
    """The index of one embedding. num_rows: of the table. num_waiting: rows that it lacks; they are searched, too.

    recall: share of the 10 nearest rows that a search finds, when the index was built; None: not measured. built_s:
    seconds that building it took now; None: it was there.
    """

    column: str
    kind: str
    num_rows: int
    num_waiting: int
    parts: int
    num_bytes: int | None
    partitions: int
    probes: int
    recall: float | None
    built_s: float | None = None


def vector_index_name(column: str) -> str:
    """The index of an embedding."""
    return f"{column}_cosine"


def build_if_needed(db: Tables, column: str) -> float | None:
    """Build the index of an embedding that has none, or one that half the table has outgrown; the seconds it took.

    None: there is a good one, or no row has the embedding. The old index stays in use until the new one is committed.
    Raises StoreError if that fails: nothing has changed then.
    """
    table = db.existing_table("clips")
    index = coverage(table).get(vector_index_name(column))
    measured = index is not None and effort_of(table, index) is not None
    dim = table.schema.field(column).type.list_size
    if index is not None and not outgrown(index) and (measured or index.kind == kind_for(0, dim).kind):
        if not measured:  # it was killed in between
            _record_effort(db, column)
        return None
    num_rows = table.count_rows(f"`{column}` IS NOT NULL")
    if not num_rows:
        return None
    began = time.perf_counter()
    _build(db, column, kind_for(num_rows, dim))
    _record_effort(db, column)
    return time.perf_counter() - began


def described(db: Tables, column: str, built_s: float | None = None) -> VectorIndex | None:
    """The index of an embedding; None if it has none."""
    table = db.existing_table("clips")
    index = coverage(table).get(vector_index_name(column))
    return None if index is None else described_of(table, index, built_s)


def described_of(table: lance.LanceDataset, index: Coverage, built_s: float | None = None) -> VectorIndex:
    """An index with the recall that was measured when it was built."""
    effort = effort_of(table, index)
    return VectorIndex(
        column=index.column,
        kind=index.kind,
        num_rows=index.num_rows,
        num_waiting=index.num_waiting,
        parts=len(index.part_rows),
        num_bytes=index.num_bytes,
        partitions=effort.partitions if effort else 0,
        probes=effort.probes if effort else 0,
        recall=effort.recall if effort else None,
        built_s=None if built_s is None else round(built_s, 2),
    )


def _build(db: Tables, column: str, kind: IndexKind) -> None:
    name = vector_index_name(column)

    def attempt() -> None:
        db.existing_table("clips").create_index(
            column,
            kind.kind,
            name=name,
            metric="cosine",
            num_partitions=kind.num_partitions,
            replace=True,
            **kind.options,
        )

    retried(f"build index {name}", db.location.table_uri("clips"), attempt)


def _record_effort(db: Tables, column: str) -> None:
    """Find the least effort that finds enough, and write it into the table's settings."""
    table, name = db.existing_table("clips"), vector_index_name(column)
    (part, *_) = coverage(table)[name].part_ids
    num_partitions = len(table.get_ivf_model(name).centroids)
    sample = Sample(table, column)
    best = Effort(part, num_partitions, num_partitions)
    for probes, spare in _efforts(num_partitions) if len(sample.own) else ():
        effort = Effort(part, num_partitions, probes, spare)
        found = [_nearest(table, column, *one, effort) for one in zip(sample.queries, sample.own.tolist(), strict=True)]
        best = replace(effort, recall=round(sample.recall(found), 4), queries=len(found))
        if sample.recall(found) >= GOOD_RECALL:
            break
    log.info("index is measured column=%s %s", column, best.to_json())
    retried(
        "record the index",
        db.location.table_uri("clips"),
        lambda: db.existing_table("clips").update_config({KEY + column: best.to_json()}),
    )


def _efforts(num_partitions: int) -> list[tuple[int, int]]:
    """Partitions to read and times the candidates, from little to much."""
    probes = dict.fromkeys(min(times * FEWEST_PROBES, num_partitions) for times in (1, 2, 4, 8, 16))
    return [(number, spare) for number in probes for spare in SPARES]


def _nearest(table: lance.LanceDataset, column: str, query: NDArray[np.float64], own: int, effort: Effort) -> list[int]:
    """Row ids of the nearest rows, the query's own row left out."""
    ordered = exact_order(near(table, column, query, K + 1, None, effort), column, query)
    return [row_id for row_id in ordered if row_id != own][:K]
