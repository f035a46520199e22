"""Which rows of `clips` each index covers. Rows that an index lacks are found all the same: Lance reads them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import lance


@dataclass(frozen=True)
class Coverage:
    """One index. num_indexed: rows that it covers, of `num_rows`. part_rows: the same by part, the oldest first: an
    update adds a part. part_ids: Lance's uuids. num_bytes: on disk; None: not recorded."""

    name: str
    column: str
    kind: str
    num_rows: int
    num_indexed: int
    part_rows: tuple[int, ...]
    part_ids: tuple[str, ...]
    num_bytes: int | None

    @property
    def num_waiting(self) -> int:
        """Rows that it lacks."""
        return self.num_rows - self.num_indexed


def coverage(table: lance.LanceDataset) -> dict[str, Coverage]:
    """`{name: Coverage}` of all indexes of this version, by name. Reads no index file."""
    rows_of = {fragment.fragment_id: fragment.metadata.num_rows for fragment in table.get_fragments()}
    return {index.name: _of(index, rows_of) for index in sorted(table.describe_indices(), key=lambda one: one.name)}


def _of(index: Any, rows_of: Mapping[int, int]) -> Coverage:
    there = [[number for number in part.fragment_ids if number in rows_of] for part in index.segments]
    covered = {number for numbers in there for number in numbers}
    return Coverage(
        name=index.name,
        column=index.field_names[0],
        kind=index.index_type,
        num_rows=sum(rows_of.values()),
        num_indexed=sum(rows_of[number] for number in covered),
        part_rows=tuple(sum(rows_of[number] for number in numbers) for numbers in there),
        part_ids=tuple(str(part.uuid) for part in index.segments),
        num_bytes=index.total_size_bytes,
    )
