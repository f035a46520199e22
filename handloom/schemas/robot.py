"""The table `robot_episodes`: demonstrations of robots, one row per episode, as their datasets give them."""

from __future__ import annotations

import pyarrow as pa

ROBOT_EPISODES = pa.schema(
    [
        pa.field("episode_id", pa.string(), nullable=False),  # {dataset}:{episode_index}
        pa.field("dataset", pa.string(), nullable=False),
        pa.field("episode_index", pa.int64(), nullable=False),
        pa.field("robot_type", pa.string()),
        pa.field("task", pa.string()),  # what it was told to do
        pa.field("split", pa.string()),
        pa.field("licence", pa.string()),
        pa.field("fps", pa.float64(), nullable=False),
        pa.field("num_frames", pa.int32(), nullable=False),
        pa.field("frame_s", pa.list_(pa.float64()), nullable=False),  # (T) from the episode's start
        pa.field("state", pa.list_(pa.list_(pa.float32()))),  # (T, S), as given, NaN unknown
        pa.field("state_names", pa.list_(pa.string())),  # (S)
        pa.field("state_units", pa.list_(pa.string())),  # (S), null where the dataset does not say
        pa.field("action", pa.list_(pa.list_(pa.float32()))),  # (T, A)
        pa.field("action_names", pa.list_(pa.string())),
        pa.field("action_units", pa.list_(pa.string())),
        pa.field("cameras", pa.list_(pa.string()), nullable=False),  # (C), in the dataset's order
        pa.field("clip_ids", pa.list_(pa.string()), nullable=False),  # (C), its clip in `clip_list`: tracks, embeddings
        pa.field("frame_jpeg", pa.list_(pa.list_(pa.binary()))),  # (C, T), null where pictures are missing
        pa.field("source_uri", pa.string(), nullable=False),
        pa.field("source_version", pa.string(), nullable=False),  # "lerobot v3.0", "lerobot v2.1", "calvin"
    ],
    metadata={"handloom_schema": "1"},
)
