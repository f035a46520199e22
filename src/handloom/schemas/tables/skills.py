"""The table `skills`: the knowledge bank, one row a skill."""

from __future__ import annotations

import pyarrow as pa

from handloom.schemas.tables.arrow import key_field

TABLE = "skills"

SKILLS = pa.schema(
    [
        key_field("name"),
        pa.field("task", pa.string(), nullable=False),
        pa.field("steps", pa.string(), nullable=False),
        pa.field("num_clips", pa.int32(), nullable=False),
        pa.field("clip_ids", pa.list_(pa.string()), nullable=False),
        pa.field("clips_version", pa.int64(), nullable=False),
        pa.field("stage_keys", pa.list_(pa.string()), nullable=False),
        pa.field("reader", pa.string(), nullable=False),
        pa.field("constraints", pa.string(), nullable=False),
        pa.field("text", pa.list_(pa.float32())),
        pa.field("text_version", pa.string()),
        pa.field("look", pa.list_(pa.float32())),
        pa.field("look_version", pa.string()),
        pa.field("learned_at", pa.timestamp("us", "UTC"), nullable=False),
    ],
    metadata={"handloom_schema": "1"},
)
"""docs/skills.md says what each column means. Vectors are unit norm means of those of the clips."""
