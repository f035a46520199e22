"""The Arrow schemas of the database's tables. Every row is checked against one of them before it is written."""

from __future__ import annotations

import pyarrow as pa

from handloom.schemas.tables.embeddings import EMBEDDINGS, EmbeddingSpec
from handloom.schemas.tables.later_grids import grid_fields

SCHEMA_VERSION = "3"
"""Part of the run key, which says whether rows are alike: it stays, so that run keys stay."""
TABLE_SCHEMA = 4
"""The number of the columns of `clips`, `handloom_schema` in its metadata: `store.stages.schema_steps` has what each
number added, and brings older tables to this one."""

KEY_MARK = "lance-schema:unenforced-primary-key"


def key_field(name: str) -> pa.Field:
    """The key of a table that several processes merge rows into.

    Without the mark, writers that call `merge_insert` at once each add the same new key, and no error is raised
    (lance#8949, pylance 14.0.2: 4 writers, 20 keys, 80 rows; with the mark 20).
    """
    return pa.field(name, pa.string(), nullable=False, metadata={KEY_MARK: "true"})


CLIP_LIST = pa.schema(
    [
        key_field("clip_id"),
        pa.field("dataset", pa.string(), nullable=False),
        pa.field("video_id", pa.string(), nullable=False),
        pa.field("video_uri", pa.string(), nullable=False),
        pa.field("start_s", pa.float64(), nullable=False),
        pa.field("end_s", pa.float64()),
        pa.field("narration", pa.string()),
        pa.field("verb", pa.string()),
        pa.field("noun", pa.string()),
        pa.field("participant", pa.string()),
        pa.field("split", pa.string()),
        pa.field("licence", pa.string()),
        pa.field("view", pa.string()),
        pa.field("camera", pa.string()),
        pa.field("hand", pa.string()),
        pa.field("video_bytes", pa.int64()),
        pa.field("video_version", pa.string()),
        pa.field("video_digest", pa.string()),
        pa.field("camera_digest", pa.string()),  # null in rows before 0.4: not computed yet
    ]
)

QUALITY_FIELDS: dict[str, str] = {
    "hand_coverage": "share of frames with at least one visible hand",
    "hand_coverage_left": "share of frames with the left hand visible",
    "hand_coverage_right": "share of frames with the right hand visible",
    "hand_confidence": "mean confidence of the visible hands; null without one",
    "hand_jitter_px": "median second difference of visible keypoints over three consecutive frames, source pixels",
    "hand_reprojection_px": "mean distance between 2D keypoints and lifted 3D keypoints projected back, source pixels",
    "hand_jitter_mm": "median second difference of 3D keypoints over three consecutive frames, in the world where "
    "poses are metric, else in the camera frame",
    "hand_bone_cv": "variation of a hand's bone lengths over the clip: standard deviation over mean",
    "hand_sigma_mm": "median standard deviation of a hand's distance from the camera",
    "hand_max_speed_m_s": "largest speed of a palm between consecutive frames, in the world where poses are metric",
    "hand_track_residual_px": "median difference between the motion of points on a hand and that of its keypoints "
    "from frame to frame, source pixels",
    "hand_view_log_odds": "natural logarithm of the odds, from the places of the hands, that the camera is on the "
    "person's own head and not outside; below 0 in a clip given as `ego`: the images contradict it",
    "hand_scale_sigma": "relative standard deviation of the factor that the distances of all hands of the clip share, "
    "from lens, hand size and lasting errors of the fit",
    "hand_length_found_m": "length of the hands, wrist to tip of the middle finger, estimated from a given metric "
    "path or given depth maps alone, with `keypoint_scale` taken as exact; null: no estimate",
    "hand_length_found_sigma": "its relative standard deviation",
    "metric_trust": "probability that the distances of hands lie within 20 % of the truth; without hands that of "
    "lengths of an estimated path; null if nothing is in metres",
    "focal_found": "focal length over the image's longer side, estimated from the scene's motion alone, without the "
    "assumed value; null: no estimate, or the lens was given",
    "focal_found_sigma": "its relative standard deviation",
    "camera_error_px": "reprojection error of corners under an estimated path, median, px at a width of 640",
    "camera_explained": "share of the observations of long-lived corners that an estimated path explains",
    "camera_parallax_px": "median parallax of the two views an estimated path began with, px at a width of 640",
    "camera_scale_sigma": "relative standard deviation of the scale found for an estimated path",
    "camera_residual_px": "median distance between tracked points at rest and where the path puts them, source pixels",
    "camera_coverage": "share of frames with a pose; null without a path",
    "track_survival": "share of query points still visible on the last frame",
    "track_mean_visible": "share of visible points, over all frames",
    "track_motion_px": "median displacement of visible points between consecutive frames, source pixels",
    "track_lost_step": "largest share of the visible grid that is lost in one step, neither at a cut nor out of the "
    "image nor behind a hand",
    "blur": "median over frames of the variance of the Laplacian of the grey frame at working size; low is blurred",
    "brightness": "mean grey level, 0 to 1",
    "share_flagged": "share of frames with a frame flag other than NO_HANDS and NO_POSE",
    "num_cuts": "cuts: where another shot begins within the clip",
    "duplicate_share": "share of frames equal to the frame before (some cameras repeat frames in low light)",
}

QUALITY = pa.struct([pa.field(name, pa.float32()) for name in QUALITY_FIELDS])


def clips_schema(
    num_tracks: int, embeddings: dict[str, EmbeddingSpec] | None = None, num_grid: int | None = None
) -> pa.Schema:
    """Schema of `clips`: the columns of `clip_list` and what extraction adds.

    Args:
        num_tracks: N, the number of query points.
        embeddings: the embedding columns; all known ones by default.
        num_grid: G, how many of them lie on the first frame's grid; by default all.
    """
    embeddings = EMBEDDINGS if embeddings is None else embeddings

    def per_frame(kind: pa.DataType, width: int) -> pa.DataType:
        return pa.list_(pa.list_(kind, width))

    fields = [
        *(field.remove_metadata() for field in CLIP_LIST),  # rows of `clips` are appended, never merged
        pa.field("duration_s", pa.float64()),
        pa.field("num_frames", pa.int32(), nullable=False),
        pa.field("width", pa.int32(), nullable=False),
        pa.field("height", pa.int32(), nullable=False),
        pa.field("fps", pa.float64(), nullable=False),
        pa.field("codec", pa.string(), nullable=False),
        pa.field("decoder", pa.string(), nullable=False),
        pa.field("video_stream", pa.int32()),
        pa.field("pixel_aspect", pa.float64()),
        pa.field("video_notes", pa.list_(pa.string())),
        pa.field("frame_s", pa.list_(pa.float64()), nullable=False),
        pa.field("camera_matrix", pa.list_(pa.float32(), 9)),
        pa.field("camera_source", pa.string()),
        pa.field("camera_distortion", pa.list_(pa.float64())),
        pa.field("camera_model", pa.string()),
        pa.field("camera_focal_sigma", pa.float32()),
        pa.field("camera_preset", pa.string()),
        pa.field("camera_path_source", pa.string()),
        pa.field("camera_path_reason", pa.string()),
        pa.field("world_from_camera", per_frame(pa.float32(), 16)),
        pa.field("world_scale", pa.string()),
        pa.field("world_unit_m", pa.float64()),
        pa.field("hand_left", pa.bool_(), nullable=False),
        pa.field("hand_right", pa.bool_(), nullable=False),
        pa.field("hand_view", pa.string()),
        pa.field("hand_visible", per_frame(pa.bool_(), 2)),
        pa.field("hand_infilled", per_frame(pa.bool_(), 2)),
        pa.field("hand_confidence", per_frame(pa.float32(), 2)),
        pa.field("hand_keypoints_px", per_frame(pa.float32(), 84)),
        pa.field("hand_keypoints_cam_m", per_frame(pa.float32(), 126)),
        pa.field("hand_keypoints_world_m", per_frame(pa.float32(), 126)),
        pa.field("hand_sigma_m", per_frame(pa.float32(), 2)),
        pa.field("hand_wearer_confidence", per_frame(pa.float32(), 2)),
        pa.field("other_hand_frame", pa.list_(pa.int32())),
        pa.field("other_hand_number", pa.list_(pa.int32())),
        pa.field("other_hand_confidence", pa.list_(pa.float32())),
        pa.field("other_hand_right_probability", pa.list_(pa.float32())),
        pa.field("other_hand_wearer_confidence", pa.list_(pa.float32())),
        pa.field("other_hand_keypoints_px", per_frame(pa.float32(), 42)),
        pa.field("track_query_frame", pa.list_(pa.int32(), num_tracks)),
        pa.field("track_kind", pa.list_(pa.int8(), num_tracks)),
        pa.field("track_points_px", per_frame(pa.float32(), 2 * num_tracks)),
        pa.field("track_depth_m", per_frame(pa.float32(), num_tracks)),
        pa.field("track_visible", per_frame(pa.bool_(), num_tracks)),
        pa.field("track_sigma_px", per_frame(pa.float16(), num_tracks)),
        pa.field("track_points_world_m", per_frame(pa.float32(), 3 * num_tracks)),
        pa.field("track_depth_source", pa.string()),
        *grid_fields(num_tracks if num_grid is None else num_grid),
        *(pa.field(e.column, pa.list_(pa.float32(), e.dim), metadata=e.metadata()) for e in embeddings.values()),
        pa.field("quality", QUALITY),
        pa.field("frame_flags", pa.list_(pa.int32())),
        pa.field("frame_jpeg", pa.list_(pa.binary())),
        pa.field("thumbnail", pa.binary()),
        pa.field("faces_blurred", pa.list_(pa.int32())),
        pa.field("host", pa.string()),
        pa.field("run_key", pa.string(), nullable=False),
    ]
    return pa.schema(fields, metadata={"handloom_schema": str(TABLE_SCHEMA)})


REJECTS = pa.schema(
    [
        key_field("clip_id"),
        pa.field("stage", pa.string(), nullable=False),
        pa.field("reason", pa.string(), nullable=False),
        pa.field("detail", pa.string(), nullable=False),
        pa.field("attempts", pa.int32(), nullable=False),
        pa.field("run_key", pa.string(), nullable=False),
        pa.field("at", pa.timestamp("us", tz="UTC"), nullable=False),
        pa.field("host", pa.string()),
    ]
)

STAGE_REJECTS = pa.schema(
    [
        key_field("reject_id"),  # CLIP_ID/STAGE
        pa.field("clip_id", pa.string(), nullable=False),
        pa.field("stage", pa.string(), nullable=False),
        pa.field("stage_key", pa.string(), nullable=False),
        pa.field("reason", pa.string(), nullable=False),
        pa.field("detail", pa.string(), nullable=False),
        pa.field("attempts", pa.int32(), nullable=False),
        pa.field("run_key", pa.string(), nullable=False),
        pa.field("at", pa.timestamp("us", tz="UTC"), nullable=False),
        pa.field("host", pa.string()),
    ]
)

RUNS = pa.schema(
    [
        key_field("run_id"),
        pa.field("run_key", pa.string(), nullable=False),
        pa.field("started_at", pa.timestamp("us", tz="UTC"), nullable=False),
        pa.field("ended_at", pa.timestamp("us", tz="UTC")),
        pa.field("exit", pa.string()),  # done, rejects, interrupted, failed, killed; null while it runs
        pa.field("settings", pa.string(), nullable=False),
        pa.field("resources", pa.string(), nullable=False),
        pa.field("versions", pa.string(), nullable=False),
        pa.field("num_clips", pa.int64()),
        pa.field("num_rejects", pa.int64()),
        pa.field("num_frames", pa.int64()),
        pa.field("wall_s", pa.float64()),
        pa.field("stage_s", pa.string()),  # JSON: seconds per stage, summed over actors
        pa.field("stage_clips", pa.string()),  # JSON: clips for which each stage was computed; null: before 0.4
        pa.field("holder", pa.string()),  # JSON: host, pid, user, ... of the process that holds the lease
        pa.field("heartbeat_at", pa.timestamp("us", tz="UTC")),
        pa.field("left_nodes", pa.string()),  # JSON: nodes that were given no more work, and why; null: unknown
        pa.field("stage_keys", pa.string()),  # JSON: {stage: key} of all stages of the run; null: of before 0.4
        pa.field("number", pa.int64()),  # of the run in this database, from 1; null: of before 0.4
        pa.field("stage_counts", pa.string()),  # JSON: {stage: {name: sum}}, what stages have counted
        pa.field("progress", pa.string()),  # JSON of store.runs.runs.RunProgress, with each heartbeat; null: has ended
    ]
)

IMAGE_FORMATS = ("JPEG", "PNG", "WEBP")
"""Formats, by Pillow's names, of images in rows. Pillow guesses others from the bytes, and runs a program for EPS."""
VERDICTS = ("good", "bad")
JUDGEMENTS = pa.schema(
    [
        key_field("clip_id"),
        pa.field("verdict", pa.string(), nullable=False),
        pa.field("reason", pa.string()),
        pa.field("note", pa.string()),
        pa.field("who", pa.string()),
        pa.field("at", pa.timestamp("us", tz="UTC"), nullable=False),
        pa.field("clips_version", pa.int64()),
    ]
)
"""What people think of clips, one row a clip."""

LATER_IN_CLIPS = pa.schema([CLIP_LIST.field("camera_digest")])
LATER_IN_EPISODES = pa.schema([pa.field("success", pa.bool_())])
GROWING = {
    "clip_list": CLIP_LIST,
    "clips": LATER_IN_CLIPS,
    "rejects": REJECTS,
    "stage_rejects": STAGE_REJECTS,
    "runs": RUNS,
    "judgements": JUDGEMENTS,
    "robot_episodes": LATER_IN_EPISODES,
}
"""Tables made by older versions may lack columns of these schemas: they are read as null, and added as null before the
next write."""
