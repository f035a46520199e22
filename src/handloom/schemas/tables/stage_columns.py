"""The stages that handloom computes for every clip, the columns of `clips` that each writes, and two columns a stage:
its key, and for some stages its state."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import pyarrow as pa

KEY_PREFIX: Final = "stage_key_"
"""Column with the key of the stage that made this row's columns of it (string); null: not computed."""
STATE_PREFIX: Final = "stage_state_"
"""Column with what later stages read of a stage at full precision (binary); private, may change with a version."""
OWNER: Final = b"handloom_stage"
"""Metadata of a column: the name of the stage that writes it. Columns in `COLUMNS_OF` have none."""

READS: Final = b"handloom_reads"
"""Metadata beside `OWNER`: the columns of the clip list that the stage reads, with commas."""
PER_FRAME: Final = b"handloom_per_frame"
"""Metadata of a list column of a stage of one's own: it holds a value for each of the clip's T sampled frames."""

COLUMNS_OF: Final[dict[str, tuple[str, ...]]] = {
    "probe": (
        "end_s",  # of a clip that ends with its video
        "duration_s",
        "num_frames",
        "width",
        "height",
        "fps",
        "codec",
        "decoder",
        "video_stream",
        "pixel_aspect",
        "video_notes",
        "frame_s",
    ),
    "frames": ("frame_jpeg", "thumbnail", "faces_blurred"),
    "images": (),
    "hands_2d": (
        "hand_left",
        "hand_right",
        "hand_view",
        "hand_visible",
        "hand_infilled",
        "hand_confidence",
        "hand_keypoints_px",
        "hand_wearer_confidence",
        "other_hand_frame",
        "other_hand_number",
        "other_hand_confidence",
        "other_hand_right_probability",
        "other_hand_wearer_confidence",
        "other_hand_keypoints_px",
    ),
    "lens": (),
    "depth": (),
    "camera": (
        "camera_matrix",
        "camera_source",
        "camera_distortion",
        "camera_model",
        "camera_focal_sigma",
        "camera_preset",
    ),
    "hands_3d": ("hand_keypoints_cam_m", "hand_sigma_m"),
    "tracks": (
        "track_query_frame",
        "track_kind",
        "track_points_px",
        "track_visible",
        "track_sigma_px",
        "regrid_query_frame",
        "regrid_frame",
        "regrid_visible",
        "regrid_points_px",
        "regrid_sigma_px",
    ),
    "world": (
        "camera_path_source",
        "camera_path_reason",
        "world_from_camera",
        "world_scale",
        "world_unit_m",
        "hand_keypoints_world_m",
    ),
    "lift": ("track_depth_m", "track_points_world_m", "track_depth_source", "regrid_depth_m"),
    "quality": ("quality", "frame_flags"),
    "motion": ("embedding_motion",),
    "appearance": ("embedding_appearance",),
}
"""Stages in the order in which they are computed; every column of `clips` that extraction adds has one owner."""

WITH_STATE: Final = ("probe", "images", "hands_2d", "lens", "camera", "hands_3d", "world")


def caption_columns(schema: pa.Schema) -> tuple[str, ...]:
    """The columns that hold captions in words: `caption`, and `PREFIXcaption` of further stages. They name the prompt
    that asked for them."""
    texts = (field for field in schema if field.name.endswith("caption") and pa.types.is_string(field.type))
    return tuple(field.name for field in texts if b"prompt" in (field.metadata or {}))


def key_column(stage: str) -> str:
    return KEY_PREFIX + stage


def state_column(stage: str) -> str:
    return STATE_PREFIX + stage


def stage_fields(stages: Iterable[str]) -> list[pa.Field]:
    """The key columns of these stages, then the state columns of those that have one."""
    stages = list(stages)
    keys = [pa.field(key_column(name), pa.string()) for name in stages]
    return keys + [pa.field(state_column(name), pa.binary()) for name in stages if name in WITH_STATE]


def owner_of(field: pa.Field) -> str | None:
    """The stage that writes a column of `clips`; None for columns of the clip list, of the run and of users."""
    written = (field.metadata or {}).get(OWNER)
    if written is not None:
        return written.decode()
    for prefix in (KEY_PREFIX, STATE_PREFIX):
        if field.name.startswith(prefix):
            return field.name.removeprefix(prefix)
    return _OWNERS.get(field.name)


def readers_of(schema: pa.Schema) -> dict[str, frozenset[str]]:
    """`{column of the clip list: stages that read it}`, of the stages that handloom does not bring."""
    found: dict[str, set[str]] = {}
    for field in schema:
        told = (field.metadata or {}).get(READS, b"").decode()
        stage = owner_of(field)
        if stage is not None and told:
            for name in told.split(","):
                found.setdefault(name, set()).add(stage)
    return {name: frozenset(stages) for name, stages in found.items()}


def is_per_frame(field: pa.Field) -> bool:
    """Whether a column of a stage of one's own holds a value for each sampled frame."""
    return (field.metadata or {}).get(PER_FRAME) == b"true"


def is_private(column: str) -> bool:
    """Whether only the stages that handloom brings read a column: windows and exports leave it out."""
    return column.startswith(STATE_PREFIX)


_OWNERS = {column: stage for stage, columns in COLUMNS_OF.items() for column in columns if column != "end_s"}
