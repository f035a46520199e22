"""A clip's row: stage outputs joined once into Arrow, and back into arrays."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from handloom.errors import ShapeError
from handloom.schemas.clip import Clip
from handloom.schemas.tables.arrow import QUALITY_FIELDS, clips_schema
from handloom.schemas.tables.later_grids import GRID_INDEX, GRID_SHAPES, grid_columns
from handloom.schemas.values import NUM_HANDS, NUM_KEYPOINTS, Camera, ClipAnalysis, VideoInfo

# Shape of one frame's value in each per-frame array column; -1 is N, the number of tracks.
FRAME_SHAPES: dict[str, tuple[int, ...]] = {
    "world_from_camera": (4, 4),
    "hand_visible": (NUM_HANDS,),
    "hand_infilled": (NUM_HANDS,),
    "hand_confidence": (NUM_HANDS,),
    "hand_keypoints_px": (NUM_HANDS, NUM_KEYPOINTS, 2),
    "hand_keypoints_cam_m": (NUM_HANDS, NUM_KEYPOINTS, 3),
    "hand_keypoints_world_m": (NUM_HANDS, NUM_KEYPOINTS, 3),
    "hand_sigma_m": (NUM_HANDS,),
    "track_points_px": (-1, 2),
    "track_depth_m": (-1,),
    "track_visible": (-1,),
    "track_sigma_px": (-1,),
    "track_points_world_m": (-1, 3),
}
# One value per clip that reads back as an array.
ARRAYS = (
    "frame_s",
    "frame_flags",
    "camera_matrix",
    "camera_distortion",
    "track_query_frame",
    "track_kind",
    *GRID_INDEX,
)
SHAPES = FRAME_SHAPES | GRID_SHAPES


def frames_to_arrow(values: NDArray[Any], column_type: pa.DataType) -> pa.Array:
    """(T, ...) as one value of the column type, `list<fixed_size_list>` or `list<number>`: a length-1 array."""
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
    """A list of byte strings as one value of the column type `list<binary>`: a length-1 array.

    Arrow's own converter grows its buffer by doubling: 700 MiB for the 320 MB of JPEGs of a ten-minute clip.
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
    """Join the stage outputs of one clip into its row, checked against the schema of `clips`.

    Columns that no stage computed are null, as are the world's columns without poses. Raises ShapeError if the outputs
    disagree in T.

    found: what the stages found. embeddings: (D,) by name, None where there is none. frame_jpeg: T pictures, None: not
    kept. host: the machine that made the row; None: unknown. num_grid: points of a grid; None: as many as tracks.
    """
    camera, path, hands, tracks, lifted = found.camera, found.path, found.hands, found.tracks, found.lifted
    num_frames = len(frame_s)
    num_tracks = tracks.points_px.shape[1]
    for name, array in (("hands", hands.visible), ("tracks", tracks.visible)):
        if len(array) != num_frames:
            raise ShapeError(f"{name} has {len(array)} frames, the clip {num_frames} (clip {clip.clip_id})")
    unknown = set(found.quality) - set(QUALITY_FIELDS)
    if unknown:
        raise ShapeError(f"unknown quality fields {sorted(unknown)} (clip {clip.clip_id})")
    num_grid = num_tracks if num_grid is None else num_grid
    schema = clips_schema(num_tracks, num_grid=num_grid)
    end_s = info.end_s if clip.end_s is None else clip.end_s
    scalars: dict[str, Any] = {
        **clip.to_dict(),
        "end_s": end_s,
        "duration_s": end_s - clip.start_s,
        "num_frames": num_frames,
        "width": info.width,
        "height": info.height,
        "fps": info.fps,
        "codec": info.codec,
        "decoder": decoder,
        "video_stream": info.stream,
        "pixel_aspect": info.pixel_aspect,
        "video_notes": list(info.notes),
        "frame_s": frame_s.tolist(),
        "camera_matrix": camera.camera_matrix.astype(np.float32).reshape(-1).tolist(),
        "camera_source": camera.source,
        "camera_distortion": None if camera.distortion is None else np.ravel(camera.distortion).tolist(),
        "camera_model": camera.model,
        "camera_focal_sigma": camera.focal_sigma,
        "camera_preset": camera.preset,
        "camera_path_source": path.source,
        "camera_path_reason": path.reason or None,
        "world_scale": path.scale if path.world_from_camera is not None else "none",
        "world_unit_m": path.unit_m,
        "hand_view": hands.view,
        "track_query_frame": tracks.query_frame.tolist(),
        "track_kind": tracks.kind.tolist(),
        "track_depth_source": found.depth_source,
        "frame_flags": None if found.flags is None else found.flags.tolist(),
        "hand_left": bool(hands.visible[:, 0].any()),
        "hand_right": bool(hands.visible[:, 1].any()),
        "quality": {name: found.quality.get(name) for name in QUALITY_FIELDS},
        "thumbnail": thumbnail,
        "host": host,
        "run_key": run_key,
    }
    arrays: dict[str, NDArray[Any] | None] = {
        "world_from_camera": None if path.world_from_camera is None else path.world_from_camera.astype(np.float32),
        "hand_visible": hands.visible,
        "hand_infilled": hands.infilled,
        "hand_confidence": hands.confidence,
        "hand_keypoints_px": hands.keypoints_px,
        "hand_keypoints_cam_m": hands.keypoints_cam_m,
        "hand_keypoints_world_m": found.hands_world_m,
        "hand_sigma_m": hands.sigma_m,
        "track_points_px": tracks.points_px,
        "track_visible": tracks.visible,
        "track_sigma_px": None if tracks.sigma_px is None else tracks.sigma_px.astype(np.float16),
        "track_depth_m": None if lifted is None else lifted.depth_m,
        "track_points_world_m": None if lifted is None else lifted.points_world_m,
        **grid_columns(tracks.grids, None if lifted is None else lifted.grids_depth_m, num_grid),
    }
    columns = []
    for field in schema:
        if field.name in GRID_INDEX:
            array = arrays[field.name]
            columns.append(pa.array([None if array is None else array.tolist()], field.type))
        elif arrays.get(field.name) is not None:
            columns.append(frames_to_arrow(arrays[field.name], field.type))
        elif field.name.startswith("embedding_"):
            vector = embeddings[field.name.removeprefix("embedding_")]
            columns.append(pa.array([None if vector is None else vector.tolist()], field.type))
        elif field.name == "frame_jpeg":
            columns.append(binaries_to_arrow(frame_jpeg, field.type))
        else:
            columns.append(pa.array([scalars.get(field.name)], field.type))
    batch = pa.RecordBatch.from_arrays(columns, schema=schema)
    batch.validate()
    return batch


def row_camera(row: Mapping[str, Any]) -> Camera:
    """The camera of a row as `row_arrays` gives it, or of a window that has its columns; tables that were made before
    there was `camera_model` hold OpenCV's polynomial."""
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

    Per-frame columns become arrays of the shapes in `FRAME_SHAPES` ((T, 2, 21, 2) and so on), those of later grids of
    the shapes in `GRID_SHAPES`, embeddings (D,),
    `camera_matrix` (3, 3), `frame_s` (T,); null columns None; everything else as pyarrow's `as_py`.
    """
    values: dict[str, Any] = {}
    for name in row.schema.names:
        cell = row.column(name)[index]
        if name in SHAPES:
            shape = SHAPES[name]
            if -1 in shape:
                width = row.schema.field(name).type.value_type.list_size
                rest = int(np.prod([s for s in shape if s != -1], dtype=int))
                shape = tuple(width // rest if s == -1 else s for s in shape)
            values[name] = frames_from_arrow(cell, shape)
        elif name in ARRAYS or name.startswith("embedding_"):
            if not cell.is_valid:
                values[name] = None
                continue
            array = cell.values.to_numpy(zero_copy_only=False)
            values[name] = array.reshape(3, 3) if name == "camera_matrix" else array
        else:
            values[name] = cell.as_py()
    return values
