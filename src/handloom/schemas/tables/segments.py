"""The column `segments` of `clips`, and the table of the same name with one row a segment."""

from __future__ import annotations

import pyarrow as pa

from handloom.schemas.tables.arrow import key_field

_POSE = pa.list_(pa.float32(), 16)

SEGMENT = pa.struct(
    [
        pa.field("start_s", pa.float64()),
        pa.field("end_s", pa.float64()),
        pa.field("start_frame", pa.int32()),
        pa.field("end_frame", pa.int32()),
        pa.field("hand", pa.string()),
        pa.field("phase", pa.string()),
        pa.field("master", pa.string()),
        pa.field("slave", pa.string()),
        pa.field("contact_start_s", pa.float64()),
        pa.field("contact_end_s", pa.float64()),
        pa.field("keyframes", pa.list_(pa.int32())),
        pa.field("object_tracks", pa.list_(pa.int32())),
        pa.field("object_box_m", pa.list_(pa.float32(), 6)),
        pa.field("grasp_pose", _POSE),
        pa.field("trajectory", pa.list_(_POSE)),
        pa.field("trajectory_keypoints", pa.list_(pa.float32(), 30)),
        pa.field("confidence", pa.float32()),
        pa.field("text", pa.string()),
    ]
)
"""One atomic action of a clip (docs/segments.md)."""

TABLE = "segments"
COLUMN = "segments"
"""Of `clips`: what the stage writes. The table follows from it."""
OF_CLIP = ("dataset", "video_id", "narration", "verb", "noun", "participant", "split")
"""Columns of `clips` that stand beside each segment."""

SEGMENTS = pa.schema(
    [
        key_field("segment_id"),  # CLIP_ID#N
        pa.field("clip_id", pa.string(), nullable=False),
        pa.field("stage_key", pa.string(), nullable=False),
        *(pa.field(name, pa.string()) for name in OF_CLIP),
        *SEGMENT,
    ],
    metadata={"handloom_schema": "1"},
)
"""One row a segment, with the stage's key and the words of its clip."""
