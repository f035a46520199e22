"""What a search by an index reads: chosen when the index was built, and kept in the table's settings."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass

import lance

from handloom.store.search.coverage import Coverage

KEY = "handloom.search."
FEWEST_PROBES = 20


@dataclass(frozen=True)
class Effort:
    """What a search by one index costs and finds.

    part: Lance's uuid of the index's first part, of which this was measured. partitions: of the index; probes: read for
    a query. spare: times the usual number of candidates beyond those that are asked for. recall: share of the 10
    nearest rows that is found, over `queries` stored vectors; None: unknown.
    """

    part: str
    partitions: int
    probes: int
    spare: int = 1
    recall: float | None = None
    queries: int = 0

    def to_json(self) -> str:
        """For the table's settings."""
        return json.dumps(asdict(self))


UNKNOWN = Effort(part="", partitions=0, probes=40)
"""Of an index that another version of handloom, or a user, has built: partitions of about 1000 rows."""


def kept_effort(table: lance.LanceDataset, column: str) -> Effort:
    """The effort that was recorded for the index of a column; `UNKNOWN` if there is none.

    Cheap: it is in the table's manifest. If another index has taken the place of the one that was measured, the number
    of partitions is still the best guess.
    """
    kept = table.config().get(KEY + column)
    return UNKNOWN if kept is None else Effort(**json.loads(kept))


def effort_of(table: lance.LanceDataset, index: Coverage) -> Effort | None:
    """The effort that was measured of this very index."""
    kept = kept_effort(table, index.column)
    return kept if index.part_ids and kept.part == index.part_ids[0] else None
