"""A LeRobotDataset's `meta/` folder: info.json, tasks and the list of episodes, of v3.0, v2.1 and v2.0.

Format: huggingface/lerobot, `datasets/utils.py` and `datasets/v30/convert_dataset_v21_to_v30.py` (0.4.4). v2.1 differs
from v2.0 in where statistics lie, which are not read here.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from handloom.errors import ConfigError
from handloom.ingest.files import Options, list_files, read_bytes, read_json
from handloom.ingest.lerobot_parquet import UnreadableParquet, open_parquet

VERSIONS = ("v3.0", "v2.1", "v2.0")
_CONVERTERS = (
    "lerobot's own scripts convert older datasets, one version at a time: lerobot 0.1 "
    "`lerobot/common/datasets/v2/convert_dataset_v1_to_v2.py` for v1.6, lerobot 0.4 "
    "`python -m lerobot.datasets.v30.convert_dataset_v21_to_v30` for v2.1"
)
_PLACE = re.compile(r"\{(\w+)(?::0?(\d+)d)?\}")
_RANGE = re.compile(r"\s*(\d+)\s*:\s*(\d+)\s*")


@dataclass(frozen=True)
class Feature:
    """One entry of info.json's features. names: (D) or None where there are none, or not as many as values."""

    key: str
    dtype: str
    shape: tuple[int, ...]
    names: tuple[str, ...] | None
    is_depth: bool

    @property
    def width(self) -> int:
        """D: how many numbers a frame has."""
        return math.prod(self.shape)

    @property
    def is_number(self) -> bool:
        return bool(re.fullmatch(r"(float|int|uint)\d+|bool", self.dtype))


@dataclass(frozen=True)
class Info:
    """meta/info.json, checked."""

    version: str
    robot_type: str | None
    fps: float
    chunks_size: int
    data_path: str
    video_path: str | None
    features: dict[str, Feature]
    splits: dict[str, tuple[int, int]]
    total_episodes: int | None
    problems: tuple[str, ...]

    @property
    def is_v3(self) -> bool:
        return self.version.startswith("v3")

    def split_of(self, episode_index: int) -> str | None:
        """The first split whose range holds the episode."""
        return next((name for name, (a, b) in self.splits.items() if a <= episode_index < b), None)


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


def read_info(root: str, options: Options = None) -> Info:
    """meta/info.json.

    Raises ConfigError: it is not there, of a version that is not read, or lacks what is needed.
    """
    where = f"{root}/meta/info.json"
    raw = read_json(where, "LeRobot dataset description", options)
    if not isinstance(raw, dict):
        raise ConfigError(f"{where} holds {type(raw).__name__}, expected an object", "give the dataset's top folder")
    version = raw.get("codebase_version")
    if version not in VERSIONS:
        raise ConfigError(f"{where}: codebase_version {version!r}, expected one of {', '.join(VERSIONS)}", _CONVERTERS)
    fps, features = raw.get("fps"), raw.get("features")
    if not (isinstance(fps, int | float) and math.isfinite(fps) and fps > 0):
        raise ConfigError(f"{where}: fps {fps!r}, expected a number above 0")
    if not isinstance(features, dict) or not features:
        raise ConfigError(f"{where}: features {type(features).__name__}, expected an object with at least one")
    problems: list[str] = []
    found = {key: _feature(key, value, where, problems) for key, value in features.items()}
    splits = _splits(raw.get("splits") or {}, where, problems)
    v3 = version.startswith("v3")
    standard = (
        "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
        if v3
        else "data/chunk-{episode_chunk:03d}/episode_{episode_index:06d}.parquet"
    )
    chunks_size, total = raw.get("chunks_size"), raw.get("total_episodes")
    return Info(
        version=version,
        robot_type=raw.get("robot_type") if isinstance(raw.get("robot_type"), str) else None,
        fps=float(fps),
        chunks_size=chunks_size if isinstance(chunks_size, int) and chunks_size > 0 else 1000,
        data_path=_text(raw.get("data_path")) or standard,
        video_path=_text(raw.get("video_path")),
        features=found,
        splits=splits,
        total_episodes=total if isinstance(total, int) else None,
        problems=tuple(problems),
    )


def read_tasks(root: str, info: Info, options: Options = None) -> dict[int, str]:
    """`{task_index: text}`; empty where the file is not there or holds none (then a problem names it).

    v3 keeps the text as the table's index (`__index_level_0__`) or in a column of any name.
    """
    if not info.is_v3:
        rows = _json_lines(f"{root}/meta/tasks.jsonl", "list of tasks", options)
        return {row["task_index"]: row["task"] for row in rows if isinstance(row.get("task"), str)}
    file = open_parquet(f"{root}/meta/tasks.parquet", options)
    try:
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


def fill(template: str, **numbers: int | str) -> str:
    """`data/chunk-{chunk_index:03d}/...` with its places filled in.

    Raises ConfigError for a place that is not known, and for a path that leaves the dataset.
    """

    def put(match: re.Match[str]) -> str:
        name, width = match[1], match[2]
        if name not in numbers:
            raise ConfigError(f"path {template!r} in meta/info.json has the place {{{name}}}", _places(numbers))
        return f"{numbers[name]:0{width}d}" if width else str(numbers[name])

    path = _PLACE.sub(put, template)
    if "{" in path or path.startswith("/") or "://" in path or ".." in path.split("/"):
        raise ConfigError(f"path {template!r} in meta/info.json cannot be used", "expected a path inside the dataset")
    return path


def _places(numbers: Mapping[str, Any]) -> str:
    return f"expected only {', '.join(sorted(numbers))}"


def _feature(key: str, raw: Any, where: str, problems: list[str]) -> Feature:
    if not isinstance(raw, dict) or not isinstance(raw.get("dtype"), str):
        raise ConfigError(f"{where}: feature {key!r} is {str(raw)[:80]}, expected dtype, shape and names")
    shape = raw.get("shape") or (1,)
    if not all(isinstance(n, int) and n > 0 for n in shape):
        raise ConfigError(f"{where}: feature {key!r} has the shape {shape}, expected whole numbers above 0")
    facts = {**(raw.get("info") or {}), **(raw.get("video_info") or {})}
    depth = bool(facts.get("video.is_depth_map") or facts.get("is_depth_map"))
    names = _names(raw.get("names"))
    if raw["dtype"] not in ("video", "image") and names is not None and len(names) != math.prod(shape):
        problems.append(f"meta/info.json: feature {key} has {len(names)} names for {math.prod(shape)} values; not used")
        names = None
    return Feature(key, raw["dtype"], tuple(shape), names, depth)


def _names(raw: Any) -> tuple[str, ...] | None:
    """Names as they come: a list, nested lists, `{"motors": [...]}`, `{name: position}`; None where there are none."""
    if isinstance(raw, dict):
        if raw and all(isinstance(value, int) for value in raw.values()):
            return tuple(sorted(raw, key=lambda name: raw[name]))
        raw = list(raw.values())
    if not isinstance(raw, list):
        return None
    flat = [name for item in raw for name in (_names(item) or () if isinstance(item, list | dict) else (str(item),))]
    return tuple(flat) or None


def _splits(raw: Any, where: str, problems: list[str]) -> dict[str, tuple[int, int]]:
    """`{"train": "0:50"}` as half-open ranges of episode indices."""
    found: dict[str, tuple[int, int]] = {}
    for name, text in raw.items() if isinstance(raw, dict) else ():
        match = _RANGE.fullmatch(text) if isinstance(text, str) else None
        if match is None:
            problems.append(f"{where}: split {name!r} is {str(text)[:60]!r}, expected 'FIRST:END'; not used")
        else:
            found[name] = int(match[1]), int(match[2])
    return found


def _v3_entries(root: str, info: Info, options: Options, problems: list[str]) -> Iterator[Entry]:
    listing = list_files(f"{root}/meta/episodes", "list of episodes", options=options)
    for found in listing.files:
        if not found.name.endswith(".parquet"):
            continue
        try:
            file = open_parquet(found.uri, options)
        except UnreadableParquet as error:
            problems.append(f"meta/episodes/{found.path}: {error}; its episodes are not known")
            continue
        try:
            # The many stats/ columns are not needed: they are most of the file.
            names = [name for name in file.schema_arrow.names if not name.startswith("stats/")]
            for group in range(file.num_row_groups):
                for row in file.read_row_group(group, columns=names).to_pylist():
                    yield _v3_entry(row, info)
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
    tasks = [tasks] if isinstance(tasks, str) else tasks or []
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


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) and value else None
