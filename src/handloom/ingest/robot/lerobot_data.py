"""The frames of a LeRobotDataset: Parquet files, read an episode at a time and checked, and the images in them."""

from __future__ import annotations

import itertools
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from handloom.ingest.robot.lerobot_info import Feature, whole
from handloom.ingest.robot.lerobot_parquet import open_parquet, parquet_errors
from handloom.ingest.robot.source import Unusable
from handloom.io.remote import Options
from handloom.schemas.tables.robot import Signal

BATCH_FRAMES = 1024
PEEKED_ROWS = 16
ON_TIME_S = 1e-3  # LeRobot's own tolerance is 1e-4 s; float32 seconds are 6e-5 s off after a quarter of an hour
SUCCESS = "next.success"
COLUMNS = ("episode_index", "timestamp", "frame_index", "task_index", "index", SUCCESS)


@dataclass(frozen=True)
class FrameTimes:
    """frame_s: (T,) seconds from the first frame, which is 0. first_s: the dataset's time of it. note: may be empty."""

    frame_s: NDArray[np.float64]
    first_s: float
    note: str = ""


def read_runs(uri: str, wanted: Sequence[str], image_keys: Sequence[str], options: Options) -> Iterator[Any]:
    """`(episode_index, table)` for each run of rows of one episode, in the file's order.

    A whole file has one run per episode: see `count_runs`. Memory holds one run and one batch of frames.

    Raises UnreadableParquet.
    """
    file = open_parquet(uri, options)
    try:
        there = set(file.schema_arrow.names)
        columns = [name for name in (*COLUMNS, *wanted, *image_keys) if name in there]
        parts: list[pa.Table] = []
        index: int | None = None
        with parquet_errors(uri):
            for batch in _batches(file, columns, BATCH_FRAMES if not image_keys else 64):
                for number, part in _cut(batch):
                    if index is not None and number != index:
                        yield index, pa.concat_tables(parts)
                        parts = []
                    index = number
                    parts.append(part)
        if index is not None:
            yield index, pa.concat_tables(parts)
    finally:
        file.close()


def count_runs(uri: str, options: Options) -> Counter[int]:
    """`{episode_index: in how many places of the file}`; each 1 in a whole file.

    Raises UnreadableParquet; Unusable if the file does not tell the episodes of its frames.
    """
    file = open_parquet(uri, options)
    try:
        names = file.schema_arrow.names
        if "episode_index" not in names:
            raise Unusable("data_unreadable", f"it has no column episode_index, but {', '.join(names[:8])}")
        found: Counter[int] = Counter()
        last = None
        with parquet_errors(uri):
            for batch in _batches(file, ["episode_index"], 1 << 20):
                for index, _ in _cut(batch):
                    found[index] += index != last
                    last = index
        return found
    finally:
        file.close()


def _batches(file: pq.ParquetFile, columns: list[str], num_frames: int) -> Iterator[pa.Table]:
    for batch in file.iter_batches(batch_size=num_frames, columns=columns, use_threads=False):
        yield pa.Table.from_batches([batch])


def _cut(table: pa.Table) -> Iterator[tuple[int, pa.Table]]:
    """The batch in pieces of one episode each; frames without an episode are of episode -1."""
    column = table.column("episode_index")
    try:
        numbers = _numbers(column, "episode_index")
    except Unusable as error:
        raise Unusable("data_unreadable", error.detail) from error
    numbers = np.where(np.isfinite(numbers), numbers, -1)
    index = numbers.astype(np.int64)
    if len(index) != table.num_rows or (index != numbers).any():
        odd = numbers[index != numbers][:1].tolist()
        raise Unusable("data_unreadable", f"episode_index is of type {column.type}, with {odd}, expected whole numbers")
    bounds = [0, *(np.flatnonzero(np.diff(index)) + 1).tolist(), len(index)]
    for start, end in itertools.pairwise(bounds):
        if end > start:
            yield int(index[start]), table.slice(start, end - start)


def frame_times(table: pa.Table, fps: float) -> FrameTimes:
    """The episode's timestamps; if it has none, frame number over rate.

    Times within a millisecond of the rate's grid are moved onto it (they are float32 in the file). Other times are kept
    with a note: the table has a time for every frame.

    Raises Unusable: times that are missing, not finite, or do not rise.
    """
    if "timestamp" not in table.column_names:
        return FrameTimes(np.arange(table.num_rows) / fps, 0.0, "no timestamps in the data; frames counted")
    times = _numbers(table.column("timestamp"), "timestamp").reshape(-1).astype(np.float64)
    if len(times) != table.num_rows or not np.isfinite(times).all():
        raise Unusable("bad_timestamps", f"{int((~np.isfinite(times)).sum())} of {table.num_rows} are missing")
    steps = np.diff(times)
    if (steps <= 0).any():
        at = int(np.argmax(steps <= 0))
        raise Unusable("bad_timestamps", f"frame {at + 1} at {times[at + 1]:.4f} s follows {times[at]:.4f} s")
    frame_s = times - times[0]
    grid = np.arange(len(times)) / fps
    off = np.abs(frame_s - grid)
    if off.max() <= ON_TIME_S:
        return FrameTimes(grid, float(times[0]))
    at = int(np.argmax(off > ON_TIME_S))
    note = f"frame {at} is at {frame_s[at]:.4f} s, expected {grid[at]:.4f} s at {fps:g} Hz; times kept as given"
    return FrameTimes(frame_s, float(times[0]), note)


def signal_of(table: pa.Table, features: Sequence[Feature]) -> tuple[Signal | None, int]:
    """The features side by side as one (T, D) signal, and how many of its values are unknown (NaN).

    Raises Unusable: a column is missing, or not as wide as announced.
    """
    if not features:
        return None, 0
    parts = []
    for feature in features:
        if feature.key not in table.column_names:
            raise Unusable("bad_values", f"the data has no column {feature.key!r}")
        values = _numbers(table.column(feature.key), feature.key)
        if values.size != table.num_rows * feature.width:
            found = values.size / max(table.num_rows, 1)
            raise Unusable(
                "bad_values", f"{feature.key} has {found:g} values a frame, the announced shape is {feature.shape}"
            )
        parts.append(values.reshape(table.num_rows, feature.width).astype(np.float32))
    values = np.concatenate(parts, axis=1)
    unknown = ~np.isfinite(values)
    values[unknown] = np.nan
    names = None
    if any(feature.names for feature in features):
        names = tuple(name for feature in features for name in _names(feature, len(features) > 1))
    units = tuple(unit for feature in features for unit in _units(feature))
    return Signal(values, names, units), int(unknown.sum())


def _units(feature: Feature) -> tuple[str | None, ...]:
    """(D) what the dataset states, else what its names say."""
    if feature.units is not None:
        return feature.units
    return tuple(unit_of(name) for name in feature.names) if feature.names else (None,) * feature.width


def unit_of(name: str) -> str | None:
    """The unit at the end of a name, as in `left_arm_joint_1_rad`, or None. `_m` alone is ambiguous."""
    return next((unit for unit in ("rad", "deg", "mm") if re.search(rf"[_.]{unit}$", name)), None)


def _names(feature: Feature, prefix: bool) -> tuple[str, ...]:
    names = feature.names or tuple(f"{feature.key}.{n}" for n in range(feature.width))
    return tuple(f"{feature.key}.{name}" for name in names) if prefix and feature.names else names


def _numbers(column: pa.ChunkedArray, key: str) -> NDArray[Any]:
    """All numbers of a column in order, also of nested lists; null is NaN. Raises Unusable."""
    array = column.combine_chunks()
    if isinstance(array, pa.ChunkedArray):
        array = pa.concat_arrays(array.chunks) if array.num_chunks else pa.array([], column.type.value_type)
    if isinstance(array, pa.ExtensionArray):
        array = array.storage
    while pa.types.is_list(array.type) or pa.types.is_large_list(array.type) or pa.types.is_fixed_size_list(array.type):
        if array.null_count:
            raise Unusable("bad_values", f"{key} is null in {array.null_count} of {len(array)} frames")
        lengths = array.value_lengths().unique() if not pa.types.is_fixed_size_list(array.type) else pa.array([0])
        if len(lengths) > 1:
            raise Unusable("bad_values", f"{key} changes its width inside the episode: {lengths.to_pylist()[:5]}")
        array = array.flatten()
    if not (pa.types.is_floating(array.type) or pa.types.is_integer(array.type) or pa.types.is_boolean(array.type)):
        raise Unusable("bad_values", f"{key} is of type {column.type}, expected numbers")
    return array.cast(pa.float64()).to_numpy(zero_copy_only=False)


def success_of(table: pa.Table) -> bool | None:
    """Whether the task was done: in any step (`next.success`, of LeRobot's simulated environments). None where the data
    does not say, or says it in another way."""
    if SUCCESS not in table.column_names:
        return None
    try:
        done = _numbers(table.column(SUCCESS), SUCCESS)
    except Unusable:
        return None
    known = np.isfinite(done)
    return bool((done[known] > 0).any()) if known.any() else None


def tasks_of(table: pa.Table, tasks: dict[int, str]) -> tuple[str, ...]:
    """The texts of the episode's task numbers, in order of appearance."""
    if "task_index" not in table.column_names:
        return ()
    numbers = dict.fromkeys(map(whole, table.column("task_index").to_pylist()))
    return tuple(dict.fromkeys(tasks[n] for n in numbers if n in tasks))


def first_index(table: pa.Table) -> int | None:
    """The place of the first frame among all frames of the dataset; None if the data lack it."""
    return whole(table.column("index")[0].as_py()) if "index" in table.column_names and table.num_rows else None


def image_bytes(table: pa.Table, key: str) -> list[bytes | None]:
    """(T) encoded images of an image feature; None where the file holds no image."""
    if key not in table.column_names:
        raise Unusable("bad_pictures", f"the data has no column {key!r}")
    cells = table.column(key).to_pylist()
    cells = [cell.get("bytes") if isinstance(cell, dict) else cell for cell in cells]
    return [cell if isinstance(cell, bytes) else None for cell in cells]


def decode_image(data: bytes | None) -> NDArray[np.uint8]:
    """(h, w, 3) RGB of an encoded image of 8 bits. Raises Unusable if it is none."""
    image = _decode(data, cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH) if data else None
    if image is None or data is None:
        raise Unusable("bad_pictures", f"an image of {len(data or b'')} bytes is no PNG or JPEG")
    if image.dtype != np.uint8:  # cv2 would keep the upper byte: 900 mm of depth become 3 of 255
        raise Unusable("bad_pictures", f"{_what(data)}, expected 8 bits")
    return np.asarray(cv2.cvtColor(image, cv2.COLOR_BGR2RGB), np.uint8)


def depth_in(uri: str, key: str, options: Options = None) -> str | None:
    """A description of the first image of an image feature if it is depth (one channel, more than 8 bits), else None.

    Raises UnreadableParquet.
    """
    file = open_parquet(uri, options)
    try:
        if key not in file.schema_arrow.names:
            return None
        with parquet_errors(uri):
            for batch in file.iter_batches(batch_size=PEEKED_ROWS, columns=[key], use_threads=False):
                data = next(filter(None, image_bytes(pa.Table.from_batches([batch]), key)), None)
                if data is not None:
                    image = _decode(data, cv2.IMREAD_UNCHANGED)
                    is_depth = image is not None and image.ndim == 2 and image.dtype != np.uint8
                    return _what(data) if is_depth else None
        return None
    finally:
        file.close()


def _what(data: bytes) -> str:
    image = _decode(data, cv2.IMREAD_UNCHANGED)
    if image is None:
        return f"an image of {len(data)} bytes that cannot be decoded"
    channels = 1 if image.ndim == 2 else image.shape[2]
    return f"an image of {image.dtype} and {channels} channel{'s' * (channels > 1)}"


def _decode(data: bytes, flags: int) -> np.ndarray | None:
    """None if it cannot be decoded; cv2 raises for images that claim to be larger than its limit."""
    try:
        return cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    except cv2.error:
        return None
