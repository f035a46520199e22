"""Rows of `clips` with keys of stages, and columns that stages of one's own have written."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import lance
import pyarrow as pa

from handloom.api import Database
from handloom.schemas.tables.stage_columns import KEY_PREFIX, OWNER, key_column


def without_keys(rows: pa.Table) -> pa.Table:
    """The rows as handloom before 0.4 wrote them."""
    return rows.select([name for name in rows.schema.names if not name.startswith(KEY_PREFIX)])


def with_keys(rows: pa.Table, keys: Mapping[str, Sequence[str | None]]) -> pa.Table:
    """The rows with these keys, `{stage: one key a row}`, and no others."""
    rows = without_keys(rows)
    for stage, values in keys.items():
        rows = rows.append_column(key_column(stage), pa.array(values, pa.string()))
    return rows


def with_own_column(rows: pa.Table, stage: str, name: str, values: pa.Array, **metadata: str) -> pa.Table:
    """The rows with a column that the stage has written."""
    return rows.append_column(pa.field(name, values.type, metadata={OWNER: stage, **metadata}), values)


def recompute_hands(db: Database, value: float, key: str) -> None:
    """Hands of all clips with this value, and their key, fragment by fragment, each in one commit."""
    for number in range(len(db.table("clips").get_fragments())):
        table = db.table("clips")
        fragment = table.get_fragments()[number]
        there = fragment.to_table(columns=["clip_id", "hand_keypoints_px", "num_frames"])
        new = [[[value] * 84] * num for num in there.column("num_frames").to_pylist()]
        columns = {
            "clip_id": there.column("clip_id"),
            "hand_keypoints_px": pa.array(new, there.schema.field("hand_keypoints_px").type),
            key_column("hands_2d"): pa.array([key] * len(new), pa.string()),
        }
        changed, fields = fragment.update_columns(pa.table(columns), left_on="clip_id", right_on="clip_id")
        operation = lance.LanceOperation.Update(updated_fragments=[changed], fields_modified=fields)
        lance.LanceDataset.commit(table.uri, operation, read_version=table.version)
