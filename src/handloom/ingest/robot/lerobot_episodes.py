"""A LeRobotDataset's tasks and list of episodes: `meta/tasks.*` and `meta/episodes*`, of v3.0, v2.1 and v2.0."""

from __future__ import annotations

import json
import math
from codecs import BOM_UTF8
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from handloom.errors import ConfigError
from handloom.ingest.names import composed
from handloom.ingest.robot.lerobot_info import Info, fill, is_missing, whole
from handloom.ingest.robot.lerobot_parquet import UnreadableParquet, open_parquet, parquet_errors
from handloom.io.addresses import is_http
from handloom.io.listing import list_files
from handloom.io.reading import read_bytes
from handloom.io.remote import Options


@dataclass(frozen=True)
class EpisodeEntry:
    """One episode of the list. videos: `{key: (path, from_s, to_s)}`; to_s is None where the format gives none.

    problem: why it cannot be used, else None. no_video: `{key: why}` of cameras without a video of it. first: the place
    of its first frame among all frames of the dataset; None if the list lacks it.
    """

    index: int
    length: int
    tasks: tuple[str, ...]
    data_path: str
    videos: dict[str, tuple[str, float, float | None]] = field(default_factory=dict)
    problem: str | None = None
    no_video: dict[str, str] = field(default_factory=dict)
    first: int | None = None


def read_tasks(root: str, info: Info, options: Options = None) -> dict[int, str]:
    """`{task_index: text}`; empty if the file holds none.

    v3 keeps the text as the table's index (`__index_level_0__`) or in a column of any name. Raises UnreadableParquet,
    for v2 ConfigError.
    """
    if not info.is_v3:
        rows = _json_lines(f"{root}/meta/tasks.jsonl", "list of tasks", options)
        pairs = [(whole(row.get("task_index")), row.get("task")) for row in rows]
        return {index: composed(text) for index, text in pairs if index is not None and isinstance(text, str)}
    uri = f"{root}/meta/tasks.parquet"
    file = open_parquet(uri, options)
    try:
        with parquet_errors(uri):
            table = file.read()
    finally:
        file.close()
    if "task_index" not in table.column_names:
        return {}
    texts = [name for name in table.column_names if _is_text(table.schema.field(name).type)]
    if not texts:
        return {}
    name = "task" if "task" in texts else texts[0]
    numbered = zip(map(whole, table.column("task_index").to_pylist()), table.column(name).to_pylist(), strict=True)
    return {index: composed(text) for index, text in numbered if index is not None and text}


def _is_text(kind: pa.DataType) -> bool:
    """Also large strings, and those of a pandas category."""
    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    return pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)


def read_entries(root: str, info: Info, options: Options = None) -> tuple[list[EpisodeEntry], list[str], list[str]]:
    """The list of episodes as it is written, repeated ones included; problems with it; its unreadable files.

    Raises ConfigError: there is none, none of it can be read, or it is empty.
    """
    problems: list[str] = []
    unread: list[str] = []
    if info.is_v3:
        entries = list(_v3_entries(root, info, options, unread))
    else:
        rows = _json_lines(f"{root}/meta/episodes.jsonl", "list of episodes", options)
        entries = [_v2_entry(row, info) for row in rows]
    if not entries:
        why = f"; {unread[0]}" if unread else ""
        raise ConfigError(f"LeRobot dataset {root} lists no episode{why}", "record or download it again")
    if info.total_episodes is not None and info.total_episodes != len(entries):
        problems.append(f"meta/info.json announces {info.total_episodes} episodes, the list holds {len(entries)}")
    return entries, problems, unread


def _v3_entries(root: str, info: Info, options: Options, unread: list[str]) -> Iterator[EpisodeEntry]:
    try:
        listing = list_files(f"{root}/meta/episodes", "list of episodes", options=options)
    except ConfigError as error:
        hint = "a recording whose writer was not closed has none (LeRobot: dataset.finalize()): record it again"
        if is_http(root):
            hint = "the server does not list its files: download the dataset first (`hf download --repo-type dataset`)"
        raise ConfigError(error.problem, hint) from error
    for found in listing.files:
        if not found.name.endswith(".parquet"):
            continue
        try:
            file = open_parquet(found.uri, options)
        except UnreadableParquet as error:
            unread.append(f"meta/episodes/{found.path}: {error}; its episodes are unknown")
            continue
        # The stats/ columns are not needed, and are most of the file.
        names = [name for name in file.schema_arrow.names if not name.startswith("stats/")]
        try:
            for group in range(file.num_row_groups):
                with parquet_errors(found.uri):
                    rows = file.read_row_group(group, columns=names).to_pylist()
                yield from (_v3_entry(row, info) for row in rows)
        except UnreadableParquet as error:
            unread.append(f"meta/episodes/{found.path}: {error}; some of its episodes are unknown")
        finally:
            file.close()


def _v3_entry(row: Mapping[str, Any], info: Info) -> EpisodeEntry:
    index, length, tasks, faults = _head(row)
    places = ("data/chunk_index", "data/file_index")
    chunk, number = (whole(row.get(name)) for name in places)
    faults += [_fault(name, row.get(name)) for name in places if whole(row.get(name)) is None]
    videos: dict[str, tuple[str, float, float | None]] = {}
    no_video: dict[str, str] = {}
    for key in (f.key for f in info.features.values() if f.dtype == "video"):
        names = ("chunk_index", "file_index", "from_timestamp", "to_timestamp")
        at: dict[str, Any] = {n: row.get(f"videos/{key}/{n}") for n in names}
        needed = {n: at[n] for n in ("chunk_index", "file_index", "from_timestamp")}
        lost = [name for name, value in needed.items() if is_missing(value)]
        if lost:  # no video of this camera
            part = f" ({', '.join(lost)} missing)" if len(lost) < len(needed) else ""
            no_video[key] = f"the list of episodes gives no video of {key}{part}"
            continue
        wrong = [f"videos/{key}/{n}" for n in ("chunk_index", "file_index") if whole(at[n]) is None]
        wrong += [f"videos/{key}/from_timestamp"] * (not _finite(at["from_timestamp"]))
        if wrong:
            faults += [_fault(name, row.get(name)) for name in wrong]
            continue
        numbers: dict[str, Any] = {n: whole(at[n]) for n in ("chunk_index", "file_index")}
        to_s = float(at["to_timestamp"]) if _finite(at["to_timestamp"]) else None
        videos[key] = (fill(_video_path(info), video_key=key, **numbers), float(at["from_timestamp"]), to_s)
    path = "" if chunk is None or number is None else fill(info.data_path, chunk_index=chunk, file_index=number)
    first = whole(row.get("dataset_from_index"))
    return EpisodeEntry(index, length, tasks, path, videos, _problem(faults), no_video, first)


def _v2_entry(row: Mapping[str, Any], info: Info) -> EpisodeEntry:
    index, length, tasks, faults = _head(row)
    places = {"episode_chunk": max(index, 0) // info.chunks_size, "episode_index": max(index, 0)}
    keys = [f.key for f in info.features.values() if f.dtype == "video"]
    videos: dict[str, tuple[str, float, float | None]] = {
        key: (fill(_video_path(info), video_key=key, **places), 0.0, None) for key in keys
    }
    return EpisodeEntry(index, length, tasks, fill(info.data_path, **places), videos, _problem(faults))


def _head(row: Mapping[str, Any]) -> tuple[int, int, tuple[str, ...], list[str]]:
    """Index and length (-1 if unusable), tasks, and what is wrong with them."""
    given = (whole(row.get(name)) for name in ("episode_index", "length"))
    index, length = (-1 if number is None or number < 0 else number for number in given)
    tasks = row.get("tasks")
    tasks = [tasks] if isinstance(tasks, str) else tasks if isinstance(tasks, list) else []
    texts = tuple(dict.fromkeys(composed(task) for task in tasks if isinstance(task, str) and task))
    bad = [name for name, number in (("episode_index", index), ("length", length)) if number < 0]
    return index, length, texts, [_fault(name, row.get(name)) for name in bad]


def _fault(name: str, value: Any) -> str:
    return f"no {name}" if is_missing(value) else f"{name} {str(value)[:40]}, expected a whole number"


def _problem(faults: list[str]) -> str | None:
    return f"in the list of episodes: {'; '.join(faults)}" if faults else None


def _video_path(info: Info) -> str:
    if info.video_path:
        return info.video_path
    return (
        "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4"
        if info.is_v3
        else "videos/chunk-{episode_chunk:03d}/{video_key}/episode_{episode_index:06d}.mp4"
    )


def _json_lines(uri: str, what: str, options: Options) -> Iterable[dict[str, Any]]:
    rows = []
    # bytes: a text may hold other line ends than JSON Lines', such as U+2028
    for number, line in enumerate(read_bytes(uri, what, options).removeprefix(BOM_UTF8).split(b"\n"), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line.decode())
        except (ValueError, RecursionError) as error:  # no JSON, no UTF-8, a number of thousands of digits
            raise ConfigError(f"{what} {uri}, line {number} is no JSON: {error}", "download it again") from error
        if not isinstance(row, dict):
            raise ConfigError(f"{what} {uri}, line {number}: {type(row).__name__}, expected an object")
        rows.append(row)
    return rows


def _finite(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
