"""New rows enter an index as a part of its own, beside the parts that are there: nothing is written twice.

Lance's own update may write a whole index again (lancedb#1502). Each search reads every part, so their number is
limited: a fifth small part is merged with the other four, and once small parts hold as many rows as the first, all
become one. A row is therefore written a few times while its table grows to a million rows, not at each update.
"""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Iterable

from handloom.store.retry import retried
from handloom.store.search.coverage import Coverage, coverage
from handloom.store.tables import Tables

log = logging.getLogger(__name__)

MAX_SMALL_PARTS = 4


def add_new_rows(db: Tables, names: Iterable[str]) -> None:
    """Bring these indexes up to date with the newest version of `clips`; a commit for those that need one.

    Raises StoreError if they cannot be written: what was indexed before stays.
    """
    known = coverage(db.existing_table("clips"))
    by_merge = defaultdict(list)
    for name in names:
        if (index := known[name]).num_waiting:
            by_merge[num_merged(index)].append(name)
    uri = db.location.table_uri("clips")
    for num, some in sorted(by_merge.items()):
        log.info("new rows are indexed indexes=%s merged_parts=%d", ",".join(some), num)

        def update(num: int = num, some: list[str] = some) -> None:
            table = db.existing_table("clips")
            table.optimize.optimize_indices(index_names=some, num_indices_to_merge=num)

        retried("update the indexes", uri, update)


def num_merged(index: Coverage) -> int:
    """How many of its newest parts the waiting rows are merged with."""
    if outgrown(index):
        return len(index.part_rows)
    num_small = len(index.part_rows) - 1
    return num_small if num_small >= MAX_SMALL_PARTS else 0


def outgrown(index: Coverage) -> bool:
    """Whether there are as many rows outside of its first part as inside."""
    return index.num_rows >= 2 * index.part_rows[0]
