"""The column of `clips` that groups near-duplicates, its key, and the columns that it is made of."""

from typing import Final

import pyarrow as pa

from handloom.schemas.tables.stage_columns import OWNER, key_column

STAGE: Final = "duplicates"
"""Stands where other columns have a stage: a command over the whole table writes this one."""
COLUMN: Final = "duplicate_group"
PICTURES: Final = "fingerprint"
"""Column of the stage of the same name: small pictures of a clip's frames, as PNG (`video.fingerprint`)."""
COURSE: Final = "fingerprint_course"
"""The same in few numbers."""
COMPARED: Final = {"look": ("embedding_look",), "fingerprint": (PICTURES, COURSE)}
"""The stages whose columns are compared, and these columns."""

DUPLICATES: Final = pa.schema(
    [
        pa.field(COLUMN, pa.string(), metadata={OWNER: STAGE.encode()}),
        pa.field(key_column(STAGE), pa.string()),
    ]
)
