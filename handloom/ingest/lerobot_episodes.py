"""A LeRobotDataset's tasks and list of episodes: `meta/tasks.*` and `meta/episodes*`, of v3.0, v2.1 and v2.0."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from handloom.errors import ConfigError
from handloom.ingest.files import Options, is_http, list_files, read_bytes
from handloom.ingest.lerobot_info import Info, fill
from handloom.ingest.lerobot_parquet import UnreadableParquet, open_parquet, parquet_errors


@dataclass(frozen=True)
class Entry:
    """One episode of the list. videos: `{key: (path, from_s, to_s)}`; to_s is None where the format gives none.

    problem: why it cannot be used; None where it can.
    """

    index: int
    length: int
    tasks: tuple[str, ...]
    data_path: str
    videos: dict[str, tuple[str, float, float | None]] = field(default_factory=dict)
    problem: str | None = None


def read_tasks(root: str, info: Info, options: Options = None) -> dict[int, str]:
    """`{task_index: text}`; empty where the file holds none.

    v3 keeps the text as the table's index (`__index_level_0__`) or in a column of any name. Raises UnreadableParquet,
    for v2 ConfigError.
    """
    if not info.is_v3:
        rows = _json_lines(f"{root}/meta/tasks.jsonl", "list of tasks", options)
        pairs = [(row.get("task_index"), row.get("task")) for row in rows]
        return {index: text for index, text in pairs if isinstance(index, int) and isinstance(text, str)}
    uri = f"{root}/meta/tasks.parquet"
    file = open_parquet(uri, options)
    try:
        with parquet_errors(uri):
            table = file.read()
    finally:
        file.close()
    if "task_index" not in table.column_names:
        return {}
    texts = [name for name in table.column_names if pa.types.is_string(table.schema.field(name).type)]
    texts += [name for name in table.column_names if pa.types.is_large_string(table.schema.field(name).type)]
    if not texts:
        return {}
    name = "task" if "task" in texts else texts[0]
    pairs = zip(table.column("task_index").to_pylist(), table.column(name).to_pylist(), strict=True)
    return {index: text for index, text in pairs if isinstance(index, int) and text}


def read_entries(root: str, info: Info, options: Options = None) -> tuple[list[Entry], list[str]]:
    """The list of episodes as it is written, repeated ones included, and what was wrong with it.

    Raises ConfigError: there is none, none of it can be read, or it is empty.
    """
    problems: list[str] = []
    if info.is_v3:
        entries = list(_v3_entries(root, info, options, problems))
    else:
        rows = _json_lines(f"{root}/meta/episodes.jsonl", "list of episodes", options)
        entries = [_v2_entry(row, info) for row in rows]
    if not entries:
        why = f"; {problems[0]}" if problems else ""
        raise ConfigError(f"LeRobot dataset {root} lists no episode{why}", "record or download it again")
    if info.total_episodes is not None and info.total_episodes != len(entries):
        problems.append(f"meta/info.json announces {info.total_episodes} episodes, the list holds {len(entries)}")
    return entries, problems


def _v3_entries(root: str, info: Info, options: Options, problems: list[str]) -> Iterator[Entry]:
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
            problems.append(f"meta/episodes/{found.path}: {error}; its episodes are not known")
            continue
        # The many stats/ columns are not needed: they are most of the file.
        names = [name for name in file.schema_arrow.names if not name.startswith("stats/")]
        try:
            for group in range(file.num_row_groups):
                with parquet_errors(found.uri):
                    rows = file.read_row_group(group, columns=names).to_pylist()
                yield from (_v3_entry(row, info) for row in rows)
        except UnreadableParquet as error:
            problems.append(f"meta/episodes/{found.path}: {error}; some of its episodes are not known")
        finally:
            file.close()


def _v3_entry(row: Mapping[str, Any], info: Info) -> Entry:
    index, length, tasks = _head(row)
    chunk, number = row.get("data/chunk_index"), row.get("data/file_index")
    missing = [n for n in ("data/chunk_index", "data/file_index") if not isinstance(row.get(n), int)]
    videos = {}
    for key in (f.key for f in info.features.values() if f.dtype == "video"):
        at = {n: row.get(f"videos/{key}/{n}") for n in ("chunk_index", "file_index", "from_timestamp", "to_timestamp")}
        if not all(isinstance(at[n], int) for n in ("chunk_index", "file_index")) or not _finite(at["from_timestamp"]):
            continue  # a camera this episode was not filmed with
        path = fill(_video_path(info), video_key=key, chunk_index=at["chunk_index"], file_index=at["file_index"])
        videos[key] = (path, float(at["from_timestamp"]), at["to_timestamp"] if _finite(at["to_timestamp"]) else None)
    path = "" if missing else fill(info.data_path, chunk_index=chunk, file_index=number)
    return _entry(index, length, tasks, path, videos, missing)


def _v2_entry(row: Mapping[str, Any], info: Info) -> Entry:
    index, length, tasks = _head(row)
    places = {"episode_chunk": max(index, 0) // info.chunks_size, "episode_index": max(index, 0)}
    keys = [f.key for f in info.features.values() if f.dtype == "video"]
    videos = {key: (fill(_video_path(info), video_key=key, **places), 0.0, None) for key in keys}
    return _entry(index, length, tasks, fill(info.data_path, **places), videos, [])


def _entry(index: int, length: int, tasks: tuple[str, ...], path: str, videos: Any, missing: list[str]) -> Entry:
    missing = [*(["episode_index"] if index < 0 else []), *(["length"] if length < 0 else []), *missing]
    problem = f"the list of episodes has no {', '.join(missing)} for it" if missing else None
    return Entry(index, length, tasks, path, videos, problem)


def _head(row: Mapping[str, Any]) -> tuple[int, int, tuple[str, ...]]:
    index, length, tasks = row.get("episode_index"), row.get("length"), row.get("tasks")
    tasks = [tasks] if isinstance(tasks, str) else tasks if isinstance(tasks, list) else []
    texts = tuple(dict.fromkeys(task for task in tasks if isinstance(task, str) and task))
    return index if isinstance(index, int) else -1, length if isinstance(length, int) else -1, texts


def _video_path(info: Info) -> str:
    if info.video_path:
        return info.video_path
    return (
        "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4"
        if info.is_v3
        else "videos/chunk-{episode_chunk:03d}/{video_key}/episode_{episode_index:06d}.mp4"
    )


def _json_lines(uri: str, what: str, options: Options) -> Iterable[dict[str, Any]]:
    text = read_bytes(uri, what, options).decode("utf-8-sig", errors="replace")
    rows = []
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise ConfigError(f"{what} {uri}, line {number} is no JSON: {error.msg}", "download it again") from error
        if not isinstance(row, dict):
            raise ConfigError(f"{what} {uri}, line {number}: {type(row).__name__}, expected an object")
        rows.append(row)
    return rows


def _finite(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)
