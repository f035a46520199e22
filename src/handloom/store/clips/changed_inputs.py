"""Rows that were made with another view, camera or hand size than the clip list has now.

Those values change other columns, so such a row is outdated: what depends on them must be computed again.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable

import lance
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from handloom.schemas.hand_size import text_of_today
from handloom.store.clips.copied_values import DIGEST, differing, matched, num_without_digest, read_copies
from handloom.store.stages.counts import field_sizes
from handloom.store.tables import Tables

COLUMNS = {"view": "view", "camera": DIGEST, "hand": "hand"}
"""What a row is made of, and the column that tells whether it has changed."""
SHOWN = {"hand": "hand size"}
"""What people read in place of a field's name."""
_MAX_BYTES = 1 << 28  # of cameras without a digest: 100,000 with poses take minutes to read from S3


def changed_inputs(
    db: Tables, clip_ids: Collection[str] | None = None, listed: pa.Table | None = None
) -> dict[str, frozenset[str]]:
    """The fields `view`, `camera` and `hand` of each row that differ from the clip list; rows without any are left out.
    In the order of the list.

    Reads four small columns of both tables; cameras only where there is no digest of them (`store_digests`).

    Args:
        clip_ids: only these clips; None: all.
        listed: `clip_id` and the columns of `COLUMNS` in place of the clip list.

    Raises StoreError.
    """
    columns = list(COLUMNS.values())
    listed = read_copies(db, "clip_list", columns) if listed is None else listed.select(["clip_id", *columns])
    made, now = matched(read_copies(db, "clips", columns), listed)
    wanted = None if clip_ids is None else set(clip_ids)
    ids = made.column("clip_id")
    found: dict[str, set[str]] = {}
    for field, column in COLUMNS.items():
        differs = differing(made, now, column)
        if field == "hand":
            differs = _without_renamed(made, now, differs)
        for clip_id in ids.filter(pa.array(differs)).to_pylist():
            if wanted is None or clip_id in wanted:
                found.setdefault(clip_id, set()).add(field)
    ordered = (clip_id for clip_id in listed.column("clip_id").to_pylist() if clip_id in found) if found else ()
    return {clip_id: frozenset(found[clip_id]) for clip_id in ordered}


def outdated_rows(db: Tables) -> dict[str, frozenset[str]] | None:
    """As `changed_inputs`; None if that is too much to read: many cameras of older tables. Raises StoreError."""
    for name in ("clips", "clip_list"):
        table = db.table(name)
        if table is not None and num_without_digest(table) and _num_bytes(db, name, table, "camera") > _MAX_BYTES:
            return None
    return changed_inputs(db)


def fields_text(fields: Iterable[str]) -> str:
    """The fields as words: `camera and hand size`."""
    return " and ".join(SHOWN.get(name, name) for name in fields)


def _without_renamed(made: pa.Table, now: pa.Table, differs: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """`differs` without hand sizes whose keys alone have other names: in 0.4 one was renamed."""
    where = np.flatnonzero(differs)
    texts = (table.column("hand").take(pa.array(where)).to_pylist() for table in (made, now))
    same = [text_of_today(one) == text_of_today(other) for one, other in zip(*texts, strict=True)]
    differs = differs.copy()
    differs[where[np.array(same, bool)]] = False
    return differs


def _num_bytes(db: Tables, name: str, table: lance.LanceDataset, column: str) -> float:
    fields = {field.id(): column for field in table.lance_schema.fields() if field.name() == column}
    return field_sizes(db, name, table, fields).get(column, 0.0)
