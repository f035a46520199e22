"""A clip of a person's hands as a LeRobot episode: hands are the state, the next step's state is the action."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from handloom.export.images import Fit, decode_jpeg, jpeg_size
from handloom.export.lerobot.dataset import Episode, Layout
from handloom.export.lerobot.grids import BEGUN, GRID_COLUMNS, grid_features, grid_values
from handloom.export.lerobot.meta import EPISODE_COLUMNS, Feature, video_feature
from handloom.export.rows import task_of
from handloom.export.steps import steps_at
from handloom.schemas.hand_topology import KEYPOINT_NAMES
from handloom.schemas.tables.robot import HUMAN_HANDS
from handloom.schemas.tables.stage_columns import OWNER
from handloom.schemas.values import NUM_HANDS, NUM_KEYPOINTS

CAMERA = "observation.images.ego"
STATE, ACTION = "observation.state", "action"
HAND_VISIBLE, NEXT_VISIBLE, PICTURE_VALID = "observation.hand_visible", "next.hand_visible", "picture_valid"

HANDS = ("left", "right")

# In a dataset if every clip has them in metres.
WORLD = ("hand_keypoints_world_m", "world_from_camera")
SOURCE = pa.schema(
    [
        pa.field("clip_id", pa.string()),
        pa.field("source_dataset", pa.string()),
        pa.field("video_id", pa.string()),
        pa.field("start_s", pa.float64()),
        pa.field("end_s", pa.float64()),
        pa.field("verb", pa.string()),
        pa.field("noun", pa.string()),
        pa.field("source_split", pa.string()),
        pa.field("licence", pa.string()),
        pa.field("world_scale", pa.string()),
        pa.field("camera_source", pa.string()),
        pa.field("camera_distortion", pa.list_(pa.float64())),
        pa.field("camera_model", pa.string()),
        pa.field("camera_focal_sigma", pa.float32()),
        pa.field("track_kind", pa.list_(pa.int8())),
    ]
)
COLUMNS = (
    "clip_id",
    "dataset",
    "video_id",
    "start_s",
    "end_s",
    "narration",
    "verb",
    "noun",
    "split",
    "licence",
    "width",
    "height",
    "frame_s",
    "camera_matrix",
    "camera_source",
    "camera_distortion",
    "camera_model",
    "camera_focal_sigma",
    "world_scale",
    "hand_visible",
    "hand_keypoints_cam_m",
    "frame_jpeg",
)
"""Columns of `clips` that every dataset needs, besides those of the world and of tracks."""
TRACK_COLUMNS = ("track_kind", "track_points_px", "track_depth_m", "track_visible")
SIGMA = "track_sigma_px"


def clip_layout(
    hz: float,
    size: tuple[int, int] | None,
    *,
    world: bool,
    num_tracks: int | None,
    sigma: bool = False,
    slots: int = 0,
    num_grid: int = 0,
    own: Sequence[pa.Field] = (),
) -> Layout:
    """The features of human clips.

    Args:
        size: (width, height) of every image; None: without images.
        world: with world keypoints and camera poses.
        num_tracks: N, or None: without tracks. sigma: with the standard deviation of their points.
        slots: how many later grids of `num_grid` points a step can hold; 0: none, or without tracks.
        own: columns that stages of one's own have written (`own_fields`): values of an episode.
    """
    hands = tuple(f"{hand}.{point}.{axis}" for hand in HANDS for point in KEYPOINT_NAMES for axis in "xyz")
    metres = ("m",) * len(hands)
    features: dict[str, Feature] = {}
    if size is not None:
        features[CAMERA] = video_feature(*size)
    features[STATE] = Feature("float32", (len(hands),), hands, metres)
    # A number: LeRobot makes every `observation.` a policy's input, and its normaliser fails on booleans.
    features[HAND_VISIBLE] = Feature("float32", (NUM_HANDS,), HANDS)
    features[ACTION] = Feature("float32", (len(hands),), hands, metres)
    features[NEXT_VISIBLE] = Feature("bool", (NUM_HANDS,), HANDS)
    features[PICTURE_VALID] = Feature("bool", (1,))
    features["frame_s"] = Feature("float64", (1,), None, ("s",))
    features["camera_matrix"] = Feature("float32", (9,), _matrix_names(3))
    if world:
        features[WORLD[0]] = Feature("float32", (len(hands),), hands, metres)
        features[WORLD[1]] = Feature("float32", (16,), _matrix_names(4))
    if num_tracks is not None:
        features["track_points_px"] = Feature("float32", (2 * num_tracks,))
        features["track_depth_m"] = Feature("float32", (num_tracks,))
        features["track_visible"] = Feature("bool", (num_tracks,))
        features |= {SIGMA: Feature("float32", (num_tracks,))} if sigma else {}
        features |= grid_features(slots, num_grid, sigma) if slots else {}
    return Layout(features, hz, pa.schema([*SOURCE, *own]), HUMAN_HANDS)


def own_fields(schema: pa.Schema) -> list[pa.Field]:
    """The columns of `clips` that stages of one's own have written, as the list of episodes holds them: numbers, text,
    and lists of numbers. Vectors of a fixed length become lists: pyarrow cannot read them where one is null."""
    found = [(field.name, _plain(field.type)) for field in schema if OWNER in (field.metadata or {})]
    return [pa.field(name, kind) for name, kind in found if kind is not None and name not in EPISODE_COLUMNS]


def _plain(kind: pa.DataType) -> pa.DataType | None:
    if pa.types.is_list(kind) or pa.types.is_fixed_size_list(kind):
        inner = _plain(kind.value_type)
        return None if inner is None else pa.list_(inner)
    is_known = pa.types.is_string(kind) or pa.types.is_boolean(kind) or pa.types.is_integer(kind)
    return kind if is_known or pa.types.is_float32(kind) or pa.types.is_float64(kind) else None


def clip_columns(layout: Layout) -> list[str]:
    """Columns of `clips` that the layout's episodes are made of."""
    tracks: tuple[str, ...] = TRACK_COLUMNS if "track_depth_m" in layout.features else ()
    tracks += (SIGMA,) if SIGMA in layout.features else ()
    tracks += GRID_COLUMNS if BEGUN in layout.features else ()
    world = WORLD if WORLD[0] in layout.features else ()
    images = CAMERA in layout.features
    own = tuple(name for name in layout.source.names if name not in SOURCE.names)
    return [name for name in (*COLUMNS, *world, *tracks, *own) if images or name != "frame_jpeg"]


def clip_episode(row: Mapping[str, Any], layout: Layout) -> Episode:
    """The episode of one row of `clips` (`handloom.schemas.tables.row.row_arrays`).

    A step takes the nearest frame within half a step. Without one everything is unknown (NaN, false), the last image
    is repeated, and `picture_valid` is false. The action is the next step's state, absolute; it is unknown on the last
    step and where the hand is unknown there.

    Raises:
        StoreError: a stored image cannot be decoded.
    """
    index = steps_at(row["frame_s"], layout.hz)
    found = index >= 0
    known, state = _hands(row, index)
    action, next_known = np.full_like(state, np.nan), np.zeros_like(known)
    action[:-1], next_known[:-1] = state[1:], known[1:]
    size = _size(layout)
    fit = _fit(row, size)
    given = row["camera_matrix"]
    matrix = np.full((3, 3), np.nan, np.float32) if given is None else fit.camera_matrix(given).astype(np.float32)
    values: dict[str, NDArray[Any]] = {
        STATE: state,
        HAND_VISIBLE: known,
        ACTION: action,
        NEXT_VISIBLE: next_known,
        PICTURE_VALID: found,
        "frame_s": np.where(found, row["frame_s"][index], np.nan),
        "camera_matrix": np.tile(matrix.reshape(1, 9), (len(index), 1)),
    }
    for name in WORLD:
        if name in layout.features:
            values[name] = _at(row[name], index, layout.features[name].shape[0])
    if "track_depth_m" in layout.features:
        num_tracks = layout.features["track_depth_m"].shape[0]
        values["track_points_px"] = fit.points(
            _at(row["track_points_px"], index, 2 * num_tracks).reshape(len(index), -1, 2)
        )
        values["track_depth_m"] = _at(row["track_depth_m"], index, num_tracks)
        values["track_visible"] = _true_at(row["track_visible"], index, num_tracks)
        if SIGMA in layout.features:
            values[SIGMA] = _at(row.get(SIGMA), index, num_tracks) * np.float32(np.mean(fit.scale))
        if BEGUN in layout.features:
            values |= grid_values(row, index, layout.features, fit)
    source = {name: _listed(row.get(_RENAMED.get(name, name))) for name in layout.source.names}
    images = {} if size is None else {CAMERA: lambda: _images(row, index, size)}
    return Episode(task_of(row), len(index), values, images, source)


_RENAMED = {"source_dataset": "dataset", "source_split": "split"}


def _listed(value: Any) -> Any:
    return value.tolist() if isinstance(value, np.ndarray) else value


def _hands(row: Mapping[str, Any], index: NDArray[np.intp]) -> tuple[NDArray[np.bool_], NDArray[np.float32]]:
    """(S, 2) whether all 21 keypoints of a hand are known; (S, 126) the keypoints, NaN where they are not."""
    points = _at(row["hand_keypoints_cam_m"], index, NUM_HANDS * NUM_KEYPOINTS * 3).reshape(len(index), NUM_HANDS, -1)
    known = _true_at(row["hand_visible"], index, NUM_HANDS) & np.isfinite(points).all(axis=-1)
    state = np.where(known[..., None], points, np.float32(np.nan))
    return known, state.reshape(len(index), -1).astype(np.float32)


def _at(values: NDArray[np.floating] | None, index: NDArray[np.intp], width: int) -> NDArray[np.float32]:
    """(S, width) of (T, ...), NaN where a step has no frame; all NaN if the column was not computed."""
    if values is None:
        return np.full((len(index), width), np.nan, np.float32)
    flat = values.reshape(len(values), -1)[index].astype(np.float32)
    flat[index < 0] = np.nan
    return flat


def _true_at(values: NDArray[np.bool_] | None, index: NDArray[np.intp], width: int) -> NDArray[np.bool_]:
    """(S, width) of (T, width), false where a step has no frame, and if the column was not computed."""
    return np.zeros((len(index), width), bool) if values is None else values[index] & (index >= 0)[:, None]


def _images(row: Mapping[str, Any], index: NDArray[np.intp], size: tuple[int, int]) -> Iterator[NDArray[np.uint8]]:
    last, image = -1, None
    for at in index.tolist():
        if image is None or (at >= 0 and at != last):
            image = decode_jpeg(row["frame_jpeg"][at], f"stored frame {at} of clip {row['clip_id']}")
            image = Fit.into(size, image.shape[1], image.shape[0]).image(image)
            last = at
        yield image


def _fit(row: Mapping[str, Any], size: tuple[int, int] | None) -> Fit:
    """From pixels of the source to pixels of the exported image; without images they stay the source's."""
    source = row["width"], row["height"]
    if size is None:
        return Fit.into(source, *source)
    stored = jpeg_size(row["frame_jpeg"][0], f"stored frame 0 of clip {row['clip_id']}")
    return Fit.into(size, *stored).seen_from(stored, *source)


def _size(layout: Layout) -> tuple[int, int] | None:
    feature = layout.features.get(CAMERA)
    return None if feature is None else (feature.shape[1], feature.shape[0])


def _matrix_names(side: int) -> tuple[str, ...]:
    return tuple(f"m{row}{column}" for row in range(side) for column in range(side))
