"""LeRobotDataset v3.0: episodes of one rate, in Parquet and MP4 files that episodes share.

Format: huggingface/lerobot 0.4.4 (`datasets/lerobot_dataset.py`, `utils.py`, `compute_stats.py`). `meta/info.json` is
written last, when every Parquet file has its footer: a folder without it is no dataset.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from handloom.errors import ConfigError, ShapeError
from handloom.export.lerobot import meta
from handloom.export.lerobot.files import DATA_FILE_MB, MB, VIDEO_FILE_MB, RollingParquet, RollingVideo
from handloom.export.lerobot.meta import BOOKKEEPING, Feature
from handloom.export.lerobot.stats import RunningImageStats, RunningStats
from handloom.export.new_export import CARD, new_export

UNKNOWN = ("nan", "zero")
Images = Iterator[NDArray[np.uint8]]
Progress = Callable[[int, int], None]  # episodes written so far, frames written so far


@dataclass(frozen=True)
class Layout:
    """What every episode of a dataset has.

    features: by key, without LeRobot's own bookkeeping. hz: frames per second. source: columns on the origin of an
    episode, added to the list of episodes. robot_type: LeRobot's; None where there is no robot.
    """

    features: Mapping[str, Feature]
    hz: float
    source: pa.Schema
    robot_type: str | None = None
    unknown: str = "nan"


@dataclass(frozen=True)
class Episode:
    """One episode on the dataset's grid: S steps, `1 / hz` apart.

    values: (S, D) by key, NaN where unknown. images: by key, a function that returns an iterator over S images,
    (h, w, 3) uint8 RGB of the feature's size. source: one value for each of the layout's source columns.
    """

    task: str
    num_steps: int
    values: Mapping[str, NDArray[Any]]
    images: Mapping[str, Callable[[], Images]]
    source: Mapping[str, Any]


@dataclass(frozen=True)
class LeRobotSummary:
    """What `export_lerobot` wrote."""

    num_episodes: int
    num_frames: int
    num_tasks: int
    num_bytes: int
    hz: float
    files: tuple[str, ...]


def export_lerobot(
    episodes: Iterable[Episode],
    out: str,
    layout: Layout,
    *,
    card: Callable[[dict[str, Any]], str],
    metadata: dict[str, Any] | None = None,
    overwrite: bool = False,
    max_data_bytes: int = DATA_FILE_MB * MB,
    max_video_bytes: int = VIDEO_FILE_MB * MB,
    progress: Progress | None = None,
) -> LeRobotSummary:
    """Write a dataset into `out`, a folder or URI. Memory holds one episode and one row group.

    Args:
        episodes: read once. Those without a step are left out.
        card: given info.json, the text of README.md; called when all episodes are written.
        metadata: kept in `index.json` under `source`. JSON values.
        max_data_bytes, max_video_bytes: a file is closed with the episode that brings it to this size.

    Raises:
        ConfigError: no episode, or `out` holds files and `overwrite` is false.
        ShapeError: an episode does not fit the layout.
        StoreError: writing failed. What was written is removed as far as that is possible.
    """
    with new_export(out, overwrite=overwrite) as export:
        writer = _Writer(export, layout, max_data_bytes, max_video_bytes)
        try:
            for episode in episodes:
                writer.add(episode)
                if progress is not None:
                    progress(writer.num_episodes, writer.num_frames)
            if not writer.num_episodes:
                raise ConfigError("there is no episode to export", "loosen --where, or process clips first")
            info = writer.finish()
        except BaseException:  # videos under way are closed; raised again
            writer.discard()
            raise
        export.write(CARD, card(info).encode())
        export.write(meta.INFO_PATH, _json(info))
        index = export.finish(
            {
                "format": "lerobot",
                "version": meta.VERSION,
                "source": metadata or {},
                "num_rows": writer.num_episodes,
                "num_frames": writer.num_frames,
                "written": export.files(),
            },
            last=[meta.INFO_PATH],
        )
    num_bytes = sum(file["num_bytes"] for file in index["written"])
    names = tuple(index["files"])
    return LeRobotSummary(writer.num_episodes, writer.num_frames, len(writer.tasks), num_bytes, layout.hz, names)


class _Writer:
    def __init__(self, export, layout: Layout, max_data_bytes: int, max_video_bytes: int) -> None:
        self._export, self._layout = export, layout
        self.features = {**layout.features, **BOOKKEEPING}
        self._schema = meta.data_schema(self.features)
        self._episodes_schema = meta.episodes_schema(self.features, layout.source)
        self._data = RollingParquet(export, meta.DATA_PATH, self._schema, max_data_bytes)
        self._episodes = RollingParquet(export, meta.EPISODES_PATH, self._episodes_schema, max_data_bytes)
        self._videos: dict[str, RollingVideo] = {}
        self._image_stats: dict[str, RunningImageStats] = {}
        self._stats: dict[str, RunningStats] = {}
        for key, feature in self.features.items():
            if feature.is_video:
                template = meta.VIDEO_PATH.replace("{video_key}", key)
                size = feature.shape[1], feature.shape[0]
                self._videos[key] = RollingVideo(export, template, size, layout.hz, max_video_bytes)
                self._image_stats[key] = RunningImageStats()
            else:
                self._stats[key] = RunningStats()
        self.num_episodes = self.num_frames = 0
        self.tasks: dict[str, int] = {}

    def add(self, episode: Episode) -> None:
        if not episode.num_steps:
            return
        place: dict[str, Any] = {}
        for key, video in self._videos.items():
            place |= self._add_video(key, video, episode)
        values = self._columns(episode)
        stats = {key: self._stats[key].add(array) for key, array in values.items()}
        stats |= {key: self._image_stats[key].end_episode() for key in self._videos}
        chunk, file = self._data.place()
        self._data.add(_table(self._filled(values), self._schema))
        row = {
            "episode_index": self.num_episodes,
            "tasks": [episode.task],
            "length": episode.num_steps,
            "data/chunk_index": chunk,
            "data/file_index": file,
            "dataset_from_index": self.num_frames,
            "dataset_to_index": self.num_frames + episode.num_steps,
            **place,
            **{f"stats/{key}/{name}": value for key, found in stats.items() for name, value in found.items()},
            **episode.source,
        }
        chunk, file = self._episodes.place()
        row |= {"meta/episodes/chunk_index": chunk, "meta/episodes/file_index": file}
        self._episodes.add(pa.Table.from_pylist([row], self._episodes_schema))
        self.num_episodes += 1
        self.num_frames += episode.num_steps

    def _add_video(self, key: str, video: RollingVideo, episode: Episode) -> dict[str, Any]:
        chunk, file, from_s = video.begin_episode()
        count = 0
        for image in episode.images[key]():
            video.append(image)
            self._image_stats[key].add(image)
            count += 1
        if count != episode.num_steps:
            raise ShapeError(f"{count} images of {key} for {episode.num_steps} steps ({dict(episode.source)})")
        names = ("chunk_index", "file_index", "from_timestamp", "to_timestamp")
        return {f"videos/{key}/{n}": v for n, v in zip(names, (chunk, file, from_s, video.end_s), strict=True)}

    def _columns(self, episode: Episode) -> dict[str, NDArray[Any]]:
        """(S, D) of every column, bookkeeping included."""
        steps = np.arange(episode.num_steps)
        task = self.tasks.setdefault(episode.task, len(self.tasks))
        own = {
            "timestamp": steps / self._layout.hz,
            "frame_index": steps,
            "episode_index": np.full(len(steps), self.num_episodes),
            "index": self.num_frames + steps,
            "task_index": np.full(len(steps), task),
        }
        columns = {}
        for key in self._schema.names:
            feature = self.features[key]
            values = np.asarray(own[key] if key in own else episode.values[key]).reshape(len(steps), -1)
            if values.shape[1:] != feature.shape:
                raise ShapeError(f"{key} is {values.shape}, expected (S, {feature.shape}) ({dict(episode.source)})")
            columns[key] = values.astype(feature.dtype)
        return columns

    def _filled(self, columns: dict[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        if self._layout.unknown == "nan":
            return columns
        return {key: np.nan_to_num(v, nan=0.0) if v.dtype.kind == "f" else v for key, v in columns.items()}

    def finish(self) -> dict[str, Any]:
        parts: list[RollingVideo | RollingParquet] = [*self._videos.values(), self._data, self._episodes]
        for part in parts:
            part.close()
        stats = self._stats | self._image_stats
        tasks = io.BytesIO()
        pq.write_table(meta.tasks_table(list(self.tasks)), tasks)
        self._export.write(meta.TASKS_PATH, tasks.getvalue())
        self._export.write(meta.STATS_PATH, _json({key: stats[key].result() for key in self.features}))
        layout = self._layout
        counts = (self.num_episodes, self.num_frames, len(self.tasks))
        return meta.info(self.features, layout.hz, layout.robot_type, *counts)

    def discard(self) -> None:
        for video in self._videos.values():
            with suppress(ConfigError):  # the first error is the one to report
                video.discard()


def _table(columns: Mapping[str, NDArray[Any]], schema: pa.Schema) -> pa.Table:
    arrays = []
    for field in schema:
        values = columns[field.name]
        flat = pa.array(values.reshape(-1))
        if pa.types.is_list(field.type):
            offsets = pa.array(np.arange(len(values) + 1, dtype=np.int32) * np.int32(values.shape[1]))
            flat = pa.ListArray.from_arrays(offsets, flat, type=field.type)
        arrays.append(flat)
    return pa.Table.from_arrays(arrays, schema=schema)


def _json(content: dict[str, Any]) -> bytes:
    """Indented JSON; an unknown value is NaN, as LeRobot's own writer has it."""
    return json.dumps(content, indent=4, ensure_ascii=False).encode() + b"\n"
