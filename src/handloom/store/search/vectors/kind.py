"""Which index an embedding gets, by the number of rows that have it and its width."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

ROWS_PER_PARTITION = 1000
NUM_BITS = 5  # of each number: 100,000 rows of 512 numbers are 36 MB; the stored vectors decide the order


@dataclass(frozen=True)
class IndexKind:
    """kind: Lance's name. Every kind has partitions, of which a search reads the nearest."""

    kind: str
    num_partitions: int
    options: dict[str, Any] = field(default_factory=dict)


def kind_for(num_rows: int, dim: int) -> IndexKind:
    """The index for `num_rows` vectors of width `dim`.

    IVF_RQ keeps 5 bits of each number. Lance makes it of widths that 8 divides; others keep whole vectors.
    """
    num_partitions = max(1, num_rows // ROWS_PER_PARTITION)
    if dim % 8:
        return IndexKind("IVF_FLAT", num_partitions)
    return IndexKind("IVF_RQ", num_partitions, {"num_bits": NUM_BITS})
