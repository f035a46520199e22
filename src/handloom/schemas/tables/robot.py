"""The table `robot_episodes`: demonstrations of robots, one row per episode, as their datasets give them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from handloom.errors import ShapeError
from handloom.schemas.tables.arrow import LATER_IN_EPISODES, key_field

TABLE = "robot_episodes"
HUMAN_HAND, HUMAN_HANDS = PEOPLE = ("human_hand", "human_hands")
"""`robot_type` of people's episodes, as handloom exports them: an interaction of one hand, and a clip with both."""
ROBOT_EPISODES = pa.schema(
    [
        key_field("episode_id"),  # {dataset}:{episode_index}
        pa.field("dataset", pa.string(), nullable=False),
        pa.field("episode_index", pa.int64(), nullable=False),
        pa.field("robot_type", pa.string()),
        pa.field("task", pa.string()),  # the instruction
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
        pa.field("frame_jpeg", pa.list_(pa.list_(pa.binary()))),  # (C, T), null where images are missing
        pa.field("source_uri", pa.string(), nullable=False),
        pa.field("source_version", pa.string(), nullable=False),  # "lerobot v3.0", "lerobot v2.1", "calvin"
        pa.field("source_key", pa.string(), nullable=False),  # hash of what the row was made from, and how
        *LATER_IN_EPISODES,  # whether the task was done, as the dataset says; null where it does not
    ],
    metadata={"handloom_schema": "1"},
)


@dataclass(frozen=True)
class Signal:
    """A robot's states or actions over an episode, as the dataset gives them.

    values: (T, D) float32, NaN where unknown. names: (D), None if the dataset has no names. units: (D), None for a unit
    that the dataset does not give; None as a whole if it gives none. Raises ShapeError where D differs.
    """

    values: NDArray[np.float32]
    names: tuple[str, ...] | None = None
    units: tuple[str | None, ...] | None = None

    def __post_init__(self) -> None:
        width = self.values.shape[1] if self.values.ndim == 2 else -1
        if width < 0 or any(words is not None and len(words) != width for words in (self.names, self.units)):
            raise ShapeError(f"values of shape {self.values.shape} with names {self.names} and units {self.units}")


@dataclass(frozen=True)
class RobotEpisode:
    """One row of `robot_episodes`.

    frame_s: (T,) float64, seconds from the episode's first frame, which is 0. cameras: (C). clip_ids: (C), None for a
    camera without a clip. frame_jpeg: (C, T) JPEG bytes, None for a missing image; None as a whole if images were not
    asked for. success: whether the task was done; None where the dataset does not say. The image of step i is the frame
    at `start_s + frame_s[i]` of the camera's video.
    """

    dataset: str
    episode_index: int
    fps: float
    frame_s: NDArray[np.float64]
    state: Signal | None
    action: Signal | None
    cameras: tuple[str, ...]
    clip_ids: tuple[str | None, ...]
    frame_jpeg: Sequence[Sequence[bytes | None]] | None
    source_uri: str
    source_version: str
    source_key: str
    robot_type: str | None = None
    task: str | None = None
    split: str | None = None
    licence: str | None = None
    success: bool | None = None

    @property
    def episode_id(self) -> str:
        return make_episode_id(self.dataset, self.episode_index)


def make_episode_id(dataset: str, episode_index: int) -> str:
    """`{dataset}:{episode_index}`: the same episode keeps its id wherever its files lie."""
    return f"{dataset}:{episode_index}"


def episode_row(episode: RobotEpisode) -> pa.RecordBatch:
    """The episode as one row of `ROBOT_EPISODES`.

    Raises ShapeError where its parts differ in length.
    """
    num_frames = len(episode.frame_s)
    signals = {"state": episode.state, "action": episode.action}
    lengths = {name: len(signal.values) for name, signal in signals.items() if signal is not None}
    lengths |= {f"frame_jpeg[{c}]": len(jpegs) for c, jpegs in enumerate(episode.frame_jpeg or ())}
    wrong = {name: length for name, length in lengths.items() if length != num_frames}
    num_cameras = {len(episode.cameras), len(episode.clip_ids)} | {len(episode.frame_jpeg or episode.cameras)}
    if wrong or len(num_cameras) > 1:
        raise ShapeError(f"episode {episode.episode_id} of {num_frames} frames, cameras {episode.cameras}: {wrong}")
    values: dict[str, Any] = {name: getattr(episode, name, None) for name in ROBOT_EPISODES.names}
    values |= {"num_frames": num_frames, "frame_s": episode.frame_s.tolist()}
    values |= {"cameras": list(episode.cameras), "clip_ids": list(episode.clip_ids)}
    for name, signal in signals.items():
        values[f"{name}_names"] = None if signal is None or signal.names is None else list(signal.names)
        values[f"{name}_units"] = None if signal is None or signal.units is None else list(signal.units)
    columns = [
        _matrix(signals[field.name], field.type)
        if field.name in signals
        else _images(episode.frame_jpeg, field.type)
        if field.name == "frame_jpeg"
        else pa.array([values[field.name]], field.type)
        for field in ROBOT_EPISODES
    ]
    batch = pa.RecordBatch.from_arrays(columns, schema=ROBOT_EPISODES)
    batch.validate()
    return batch


def episode_arrays(row: pa.RecordBatch | pa.Table, index: int = 0) -> dict[str, Any]:
    """One row as Python values; `frame_s` (T,) float64, `state` and `action` (T, D) float32 arrays or None."""
    found: dict[str, Any] = {}
    for name in row.schema.names:
        cell = row.column(name)[index]
        if name == "frame_s":
            found[name] = cell.values.to_numpy(zero_copy_only=False)
        elif name in ("state", "action"):
            found[name] = None if cell.as_py() is None else np.array(cell.as_py(), np.float32)
        else:
            found[name] = cell.as_py()
    return found


def _matrix(signal: Signal | None, column_type: pa.DataType) -> pa.Array:
    if signal is None:
        return pa.nulls(1, column_type)
    num_frames, width = signal.values.shape
    offsets = pa.array(np.arange(num_frames + 1, dtype=np.int32) * np.int32(width))
    flat = pa.array(np.ascontiguousarray(signal.values, np.float32).reshape(-1))
    rows = pa.ListArray.from_arrays(offsets, flat)
    return pa.ListArray.from_arrays(pa.array([0, num_frames], pa.int32()), rows).cast(column_type)


def _images(jpegs: Sequence[Sequence[bytes | None]] | None, column_type: pa.DataType) -> pa.Array:
    """(C, T) byte strings as one value. The bytes are in memory twice, never more."""
    if jpegs is None:
        return pa.nulls(1, column_type)
    total = sum(len(jpeg or b"") for camera in jpegs for jpeg in camera)
    if total > np.iinfo(np.int32).max:
        raise ShapeError(f"images of {total} bytes do not fit one episode (2 GiB)")
    offsets = np.cumsum([0, *(len(camera) for camera in jpegs)], dtype=np.int32)
    flat = pa.array([jpeg for camera in jpegs for jpeg in camera], pa.binary())
    cameras = pa.ListArray.from_arrays(pa.array(offsets), flat)
    return pa.ListArray.from_arrays(pa.array([0, len(jpegs)], pa.int32()), cameras).cast(column_type)
