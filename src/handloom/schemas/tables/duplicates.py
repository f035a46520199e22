"""The column of `clips` that groups near-duplicates, and the key that says how it was made."""

from typing import Final

import pyarrow as pa

from handloom.schemas.tables.stage_columns import OWNER, key_column

STAGE: Final = "duplicates"
"""Stands where other columns have a stage: a command over the whole table writes this one."""
COLUMN: Final = "duplicate_group"
COMPARED: Final = ("look", "motion")
"""Names of the embeddings that are compared; the stages that write them have the same names."""

DUPLICATES: Final = pa.schema(
    [
        pa.field(COLUMN, pa.string(), metadata={OWNER: STAGE.encode()}),
        pa.field(key_column(STAGE), pa.string()),
    ]
)
