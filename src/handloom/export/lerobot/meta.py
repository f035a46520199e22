"""LeRobot v3.0's `meta/`: features, info.json, tasks and the list of episodes.

Format: huggingface/lerobot 0.4.4, `datasets/utils.py`, `datasets/lerobot_dataset.py`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from handloom.export.lerobot.files import DATA_FILE_MB, FILES_PER_CHUNK, VIDEO_FILE_MB
from handloom.export.lerobot.stats import NAMES

VERSION = "v3.0"
PLACE = "chunk-{chunk_index:03d}/file-{file_index:03d}"
DATA_PATH = f"data/{PLACE}.parquet"
VIDEO_PATH = f"videos/{{video_key}}/{PLACE}.mp4"
EPISODES_PATH = f"meta/episodes/{PLACE}.parquet"
TASKS_PATH = "meta/tasks.parquet"
STATS_PATH = "meta/stats.json"
INFO_PATH = "meta/info.json"

EPISODE_COLUMNS = ("episode_index", "tasks", "length", "dataset_from_index", "dataset_to_index")
"""LeRobot's own columns of the list of episodes whose names hold no slash."""
_ARROW = {"float32": pa.float32(), "float64": pa.float64(), "int64": pa.int64(), "bool": pa.bool_()}
_TASK_INDEX_NAME = "__index_level_0__"  # what pandas calls an index without a name


@dataclass(frozen=True)
class Feature:
    """One entry of info.json's features.

    dtype: numpy's name, or `video`. shape: of one frame; a video's is (height, width, 3). names: of the elements.
    units: of the elements, None where unknown; kept beside the names: LeRobot has no field for them.
    """

    dtype: str
    shape: tuple[int, ...]
    names: tuple[str, ...] | None = None
    units: tuple[str | None, ...] | None = None

    @property
    def is_video(self) -> bool:
        return self.dtype == "video"

    def arrow_type(self) -> pa.DataType:
        """A number for one element, else a list; LeRobot's reader takes its length from `shape`."""
        kind = _ARROW[self.dtype]
        return kind if self.shape == (1,) else pa.list_(pa.field("element", kind))


def video_feature(width: int, height: int) -> Feature:
    return Feature("video", (height, width, 3), ("height", "width", "channels"))


BOOKKEEPING: dict[str, Feature] = {
    "timestamp": Feature("float32", (1,)),
    "frame_index": Feature("int64", (1,)),
    "episode_index": Feature("int64", (1,)),
    "index": Feature("int64", (1,)),
    "task_index": Feature("int64", (1,)),
}


def data_schema(features: Mapping[str, Feature]) -> pa.Schema:
    """Columns of the data files: every feature but the videos."""
    return pa.schema([pa.field(key, f.arrow_type()) for key, f in features.items() if not f.is_video])


def episodes_schema(features: Mapping[str, Feature], sources: pa.Schema) -> pa.Schema:
    """Columns of the list of episodes: LeRobot's, then `sources`, the origin of an episode."""
    integer, seconds = pa.int64(), pa.float64()
    fields = [("episode_index", integer), ("tasks", pa.list_(pa.string())), ("length", integer)]
    fields += [(f"data/{name}", integer) for name in ("chunk_index", "file_index")]
    fields += [("dataset_from_index", integer), ("dataset_to_index", integer)]
    for key, feature in features.items():
        if feature.is_video:
            fields += [(f"videos/{key}/{name}", integer) for name in ("chunk_index", "file_index")]
            fields += [(f"videos/{key}/{name}", seconds) for name in ("from_timestamp", "to_timestamp")]
    for key, feature in features.items():
        kind = pa.list_(pa.list_(pa.list_(seconds))) if feature.is_video else pa.list_(seconds)
        fields += [(f"stats/{key}/{name}", pa.list_(integer) if name == "count" else kind) for name in NAMES]
    fields += [(f"meta/episodes/{name}", integer) for name in ("chunk_index", "file_index")]
    return pa.schema([*(pa.field(*field) for field in fields), *sources])


def tasks_table(tasks: Sequence[str]) -> pa.Table:
    """The tasks' texts as the index of a pandas data frame, where LeRobot looks for them."""
    columns = [
        _pandas_column("task_index", "int64", "int64"),
        _pandas_column(None, "unicode", "object", _TASK_INDEX_NAME),
    ]
    frame = {
        "index_columns": [_TASK_INDEX_NAME],
        "column_indexes": [{**_pandas_column(None, "unicode", "object"), "metadata": {"encoding": "UTF-8"}}],
        "columns": columns,
        "pandas_version": "2.2.0",
    }
    schema = pa.schema([("task_index", pa.int64()), (_TASK_INDEX_NAME, pa.string())], {"pandas": json.dumps(frame)})
    return pa.table([pa.array(range(len(tasks)), pa.int64()), pa.array(tasks, pa.string())], schema=schema)


def _pandas_column(name: str | None, kind: str, numpy_kind: str, field: str | None = None) -> dict[str, Any]:
    named = {"name": name, "field_name": field or name, "pandas_type": kind, "numpy_type": numpy_kind}
    return {**named, "metadata": None}


def info(
    features: Mapping[str, Feature], hz: float, robot_type: str | None, num_episodes: int, num_frames: int, tasks: int
) -> dict[str, Any]:
    """info.json: written last, because a folder without it is no dataset."""
    rate = int(hz) if float(hz).is_integer() else float(hz)
    return {
        "codebase_version": VERSION,
        "robot_type": robot_type,
        "total_episodes": num_episodes,
        "total_frames": num_frames,
        "total_tasks": tasks,
        "chunks_size": FILES_PER_CHUNK,
        "data_files_size_in_mb": DATA_FILE_MB,
        "video_files_size_in_mb": VIDEO_FILE_MB,
        "fps": rate,
        "splits": {"train": f"0:{num_episodes}"},
        "data_path": DATA_PATH,
        "video_path": VIDEO_PATH if any(f.is_video for f in features.values()) else None,
        "features": {key: _entry(feature, rate) for key, feature in features.items()},
    }


def _entry(feature: Feature, rate: float) -> dict[str, Any]:
    entry: dict[str, Any] = {
        "dtype": feature.dtype,
        "shape": list(feature.shape),
        "names": None if feature.names is None else list(feature.names),
    }
    if feature.units is not None and any(feature.units):
        entry["units"] = list(feature.units)
    if feature.is_video:
        height, width, channels = feature.shape
        entry["info"] = {
            "video.height": height,
            "video.width": width,
            "video.codec": "h264",
            "video.pix_fmt": "yuv420p",
            "video.is_depth_map": False,
            "video.fps": rate,
            "video.channels": channels,
            "has_audio": False,
        }
    return entry
