"""A clip's row: from the outputs of the stages to Arrow, and back to arrays."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from handloom.errors import ShapeError
from handloom.schemas.clip import Clip
from handloom.schemas.tables.arrow import QUALITY_FIELDS, clips_schema
from handloom.schemas.tables.embeddings import embedding_columns
from handloom.schemas.tables.later_grids import GRID_INDEX, GRID_SHAPES, grid_columns
from handloom.schemas.tables.stage_columns import OWNER
from handloom.schemas.values import (
    NUM_HANDS,
    NUM_KEYPOINTS,
    Camera,
    CameraPath,
    ClipAnalysis,
    HandPoints,
    Hands,
    LiftedTracks,
    Tracks,
    VideoInfo,
)

# Shape of one frame's value in each per-frame column; -1 is N, the number of tracks.
FRAME_SHAPES: dict[str, tuple[int, ...]] = {
    "world_from_camera": (4, 4),
    "hand_visible": (NUM_HANDS,),
    "hand_infilled": (NUM_HANDS,),
    "hand_confidence": (NUM_HANDS,),
    "hand_keypoints_px": (NUM_HANDS, NUM_KEYPOINTS, 2),
    "hand_keypoints_cam_m": (NUM_HANDS, NUM_KEYPOINTS, 3),
    "hand_keypoints_world_m": (NUM_HANDS, NUM_KEYPOINTS, 3),
    "hand_sigma_m": (NUM_HANDS,),
    "hand_wearer_confidence": (NUM_HANDS,),
    "track_points_px": (-1, 2),
    "track_depth_m": (-1,),
    "track_visible": (-1,),
    "track_sigma_px": (-1,),
    "track_points_world_m": (-1, 3),
}
# Of `OtherHands`, one value for each detection: a column each.
OTHER_HAND_NUMBERS = ("frame", "number", "confidence", "right_probability", "wearer_confidence")
# Columns with one array per clip.
ARRAYS = (
    "frame_s",
    "frame_flags",
    "camera_matrix",
    "camera_distortion",
    "track_query_frame",
    "track_kind",
    *GRID_INDEX,
    *(f"other_hand_{name}" for name in OTHER_HAND_NUMBERS),
)
SHAPES = FRAME_SHAPES | GRID_SHAPES | {"other_hand_keypoints_px": (NUM_KEYPOINTS, 2)}


def frames_to_arrow(values: NDArray[Any], column_type: pa.DataType) -> pa.Array:
    """(T, ...) as an Arrow array of length 1. column_type: `list<fixed_size_list>` or `list<number>`."""
    if not pa.types.is_fixed_size_list(column_type.value_type):
        flat = pa.array(values, column_type.value_type)
        return pa.ListArray.from_arrays(pa.array([0, len(flat)], pa.int32()), flat).cast(column_type)
    width = column_type.value_type.list_size
    flat = np.ascontiguousarray(values).reshape(-1)
    if flat.size != len(values) * width:
        raise ShapeError(f"a value of shape {values.shape} does not fill {len(values)} frames of {width} numbers")
    inner = pa.FixedSizeListArray.from_arrays(pa.array(flat, column_type.value_type.value_type), width)
    inner = inner.cast(column_type.value_type)
    return pa.ListArray.from_arrays(pa.array([0, len(values)], pa.int32()), inner).cast(column_type)


def binaries_to_arrow(values: list[bytes] | None, column_type: pa.DataType) -> pa.Array:
    """A list of byte strings as an Arrow array of length 1. column_type: `list<binary>`.

    Arrow's own converter doubles its buffer when it is full: 700 MiB for the 320 MB of JPEGs of a ten-minute clip.
    """
    if values is None:
        return pa.nulls(1, column_type)
    offsets = np.zeros(len(values) + 1, np.int64)
    np.cumsum([len(value) for value in values], out=offsets[1:])
    if offsets[-1] > np.iinfo(np.int32).max:
        raise ShapeError(f"{len(values)} byte strings of {offsets[-1]} bytes do not fit one value (2 GiB)")
    buffers = [None, pa.py_buffer(offsets.astype(np.int32)), pa.py_buffer(b"".join(values))]
    inner = pa.Array.from_buffers(pa.binary(), len(values), buffers)
    return pa.ListArray.from_arrays(pa.array([0, len(values)], pa.int32()), inner).cast(column_type)


def frames_from_arrow(value: pa.ListScalar, shape: tuple[int, ...]) -> NDArray[Any] | None:
    """The (T, *shape) array of one cell of a per-frame column, or None for null."""
    if not value.is_valid:
        return None
    inner = value.values
    flat = inner if not shape else inner.flatten()
    flat = flat.to_numpy(zero_copy_only=False)
    return flat.reshape(len(inner), *shape) if len(inner) else np.empty((0, *(max(s, 0) for s in shape)), flat.dtype)


def build_row(
    clip: Clip,
    *,
    info: VideoInfo,
    decoder: str,
    frame_s: NDArray[np.float64],
    found: ClipAnalysis,
    embeddings: Mapping[str, NDArray[np.float32] | None],
    frame_jpeg: list[bytes] | None,
    thumbnail: bytes,
    run_key: str,
    host: str | None = None,
    num_grid: int | None = None,
) -> pa.RecordBatch:
    """The row of one clip, checked against the schema of `clips`. Columns that no stage computed are null.

    Args:
        found: the outputs of the stages. Without poses the columns in the world frame are null.
        embeddings: (D,) by name, None if there is none.
        frame_jpeg: T images; None if they are not kept.
        host: the machine that made the row; None: unknown.
        num_grid: G, points of a grid; None: as many as tracks.

    Raises:
        ShapeError: the outputs differ in T, or a name in `quality` is unknown.
    """
    camera, path, hands, tracks, lifted = found.camera, found.path, found.hands, found.tracks, found.lifted
    num_frames = len(frame_s)
    num_tracks = tracks.points_px.shape[1]
    for name, visible in (("hands", hands.visible), ("tracks", tracks.visible)):
        if len(visible) != num_frames:
            raise ShapeError(f"{name} has {len(visible)} frames, the clip {num_frames} (clip {clip.clip_id})")
    unknown = set(found.quality) - set(QUALITY_FIELDS)
    if unknown:
        raise ShapeError(f"unknown quality fields {sorted(unknown)} (clip {clip.clip_id})")
    num_grid = num_tracks if num_grid is None else num_grid
    schema = clips_schema(num_tracks, num_grid=num_grid)
    values: dict[str, Any] = {
        **clip.to_dict(),
        **probe_cells(clip, info, decoder, frame_s),
        **camera_cells(camera),
        **hands_2d_cells(hands),
        **hands_3d_cells(hands),
        **tracks_cells(tracks, num_grid),
        **world_cells(path, found.hands_world_m),
        **lift_cells(tracks, lifted, found.depth_source, num_grid),
        "frame_flags": None if found.flags is None else found.flags.tolist(),
        "quality": quality_cell(found.quality),
        "frame_jpeg": frame_jpeg,
        "thumbnail": thumbnail,
        "host": host,
        "run_key": run_key,
    }
    values |= {f"embedding_{name}": vector for name, vector in embeddings.items()}
    return one_row(schema, values)


def one_row(schema: pa.Schema, cells: Mapping[str, Any]) -> pa.RecordBatch:
    """A row of `schema` from values by column; columns without a value are null."""
    columns = [cell_to_arrow(cells.get(field.name), field) for field in schema]
    batch = pa.RecordBatch.from_arrays(columns, schema=schema)
    batch.validate()
    return batch


def cell_to_arrow(value: Any, field: pa.Field) -> pa.Array:
    """One value of a column as an Arrow array of length 1. Arrays of frames are (T, ...), embeddings (D,)."""
    kind = field.type
    if field.name == "frame_jpeg":
        return binaries_to_arrow(value, kind)
    if isinstance(value, np.ndarray):
        if field.name in GRID_INDEX or pa.types.is_fixed_size_list(kind):
            return pa.array([value.reshape(-1).tolist()], kind)
        if pa.types.is_list(kind):
            return frames_to_arrow(value, kind)
        return pa.array([value.tolist()], kind)
    return pa.array([value], kind)


def probe_cells(clip: Clip, info: VideoInfo, decoder: str, frame_s: NDArray[np.float64]) -> dict[str, Any]:
    """What the video file says of the clip, and the times of its sampled frames."""
    end_s = info.end_s if clip.end_s is None else clip.end_s
    return {
        "end_s": end_s,
        "duration_s": end_s - clip.start_s,
        "num_frames": len(frame_s),
        "width": info.width,
        "height": info.height,
        "fps": info.fps,
        "codec": info.codec,
        "decoder": decoder,
        "video_stream": info.stream,
        "pixel_aspect": info.pixel_aspect,
        "video_notes": list(info.notes),
        "frame_s": frame_s.tolist(),
    }


def camera_cells(camera: Camera) -> dict[str, Any]:
    """The lens."""
    return {
        "camera_matrix": camera.camera_matrix.astype(np.float32).reshape(-1).tolist(),
        "camera_source": camera.source,
        "camera_distortion": None if camera.distortion is None else np.ravel(camera.distortion).tolist(),
        "camera_model": camera.model,
        "camera_focal_sigma": camera.focal_sigma,
        "camera_preset": camera.preset,
    }


def hands_2d_cells(hands: Hands | HandPoints) -> dict[str, Any]:
    """Hands in the image."""
    return {
        "hand_left": bool(hands.visible[:, 0].any()),
        "hand_right": bool(hands.visible[:, 1].any()),
        "hand_view": hands.view,
        "hand_visible": hands.visible,
        "hand_infilled": hands.infilled,
        "hand_confidence": hands.confidence,
        "hand_keypoints_px": hands.keypoints_px,
    }


def other_hands_cells(hands: HandPoints) -> dict[str, Any]:
    """Whose hands they are. Null: not told apart."""
    sure, others = hands.wearer_confidence, hands.others
    values = {} if others is None else vars(others) | {"number": others.hand}
    return {
        "hand_wearer_confidence": None if sure is None else np.where(hands.visible, sure, np.float32(np.nan)),
        **{f"other_hand_{name}": values.get(name) for name in (*OTHER_HAND_NUMBERS, "keypoints_px")},
    }


def hands_3d_cells(hands: Hands) -> dict[str, Any]:
    """Hands in the camera frame."""
    return {"hand_keypoints_cam_m": hands.keypoints_cam_m, "hand_sigma_m": hands.sigma_m}


def tracks_cells(tracks: Tracks, num_grid: int) -> dict[str, Any]:
    """Tracks in the image, the later grids' included. num_grid: G."""
    grids = grid_columns(tracks.grids, None, num_grid)
    return {
        "track_query_frame": tracks.query_frame.tolist(),
        "track_kind": tracks.kind.tolist(),
        "track_points_px": tracks.points_px,
        "track_visible": tracks.visible,
        "track_sigma_px": None if tracks.sigma_px is None else tracks.sigma_px.astype(np.float16),
        **{name: value for name, value in grids.items() if name != "regrid_depth_m"},
    }


def world_cells(path: CameraPath, hands_world_m: NDArray[Any] | None) -> dict[str, Any]:
    """The camera's path, and hands in its world. Without poses the columns in the world frame are null."""
    poses = path.world_from_camera
    return {
        "camera_path_source": path.source,
        "camera_path_reason": path.reason or None,
        "world_from_camera": None if poses is None else poses.astype(np.float32),
        "world_scale": path.scale if poses is not None else "none",
        "world_unit_m": path.unit_m,
        "hand_keypoints_world_m": hands_world_m,
    }


def lift_cells(tracks: Tracks, lifted: LiftedTracks | None, source: str | None, num_grid: int) -> dict[str, Any]:
    """Depth and places of the tracks. num_grid: G."""
    depths = None if lifted is None else lifted.grids_depth_m
    return {
        "track_depth_m": None if lifted is None else lifted.depth_m,
        "track_points_world_m": None if lifted is None else lifted.points_world_m,
        "track_depth_source": source,
        "regrid_depth_m": grid_columns(tracks.grids, depths, num_grid)["regrid_depth_m"],
    }


def quality_cell(quality: Mapping[str, float | None]) -> dict[str, float | None]:
    """Every field of `quality`; None where it is unknown."""
    return {name: quality.get(name) for name in QUALITY_FIELDS}


def row_camera(row: Mapping[str, Any]) -> Camera:
    """The camera of a row (`row_arrays`), or of a window with the camera's columns.

    Rows without `camera_model` are older than that column: their distortion is OpenCV's polynomial.
    """
    distortion = row.get("camera_distortion")
    return Camera(
        np.asarray(row["camera_matrix"], np.float64).reshape(3, 3),
        row.get("camera_source") or "given",
        None if distortion is None else np.asarray(distortion, np.float64),
        row.get("camera_model") or "opencv",
        row.get("camera_focal_sigma"),
        row.get("camera_preset"),
    )


def row_arrays(row: pa.RecordBatch | pa.Table, index: int = 0) -> dict[str, Any]:
    """One row as Python values and numpy arrays.

    Per-frame columns are (T, *shape) with the shapes of `FRAME_SHAPES`, later grids have those of `GRID_SHAPES`,
    embeddings are (D,), `camera_matrix` is (3, 3), `frame_s` (T,). Lists of numbers that a stage of one's own has
    written are (n,) or (n, width). Null is None. Other columns are as pyarrow's `as_py` gives them.
    """
    values: dict[str, Any] = {}
    vectors = embedding_columns(row.schema).values()
    for name in row.schema.names:
        cell = row.column(name)[index]
        if name in SHAPES:
            shape = SHAPES[name]
            if -1 in shape:
                width = row.schema.field(name).type.value_type.list_size
                rest = int(np.prod([s for s in shape if s != -1], dtype=int))
                shape = tuple(width // rest if s == -1 else s for s in shape)
            values[name] = frames_from_arrow(cell, shape)
        elif OWNER in (row.schema.field(name).metadata or {}):
            values[name] = _own_value(cell)
        elif name in ARRAYS or name in vectors:
            if not cell.is_valid:
                values[name] = None
                continue
            array = cell.values.to_numpy(zero_copy_only=False)
            values[name] = array.reshape(3, 3) if name == "camera_matrix" else array
        else:
            values[name] = cell.as_py()
    return values


def _own_value(cell: pa.Scalar) -> Any:
    """The value of a column that handloom does not know: lists of numbers as arrays, other values as `as_py` gives."""
    if not cell.is_valid or not _is_list(cell.type):
        return cell.as_py()
    inner = cell.values
    if pa.types.is_fixed_size_list(inner.type) and _is_number(inner.type.value_type) and not inner.null_count:
        return inner.flatten().to_numpy(zero_copy_only=False).reshape(len(inner), inner.type.list_size)
    return inner.to_numpy(zero_copy_only=False) if _is_number(inner.type) and not inner.null_count else cell.as_py()


def _is_list(kind: pa.DataType) -> bool:
    return pa.types.is_list(kind) or pa.types.is_fixed_size_list(kind) or pa.types.is_large_list(kind)


def _is_number(kind: pa.DataType) -> bool:
    return pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind)
