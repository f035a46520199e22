"""A LeRobotDataset's `meta/info.json`: version, rate, features, splits and paths of files, of v3.0, v2.1 and v2.0.

Format: huggingface/lerobot, `datasets/utils.py` and `datasets/v30/convert_dataset_v21_to_v30.py` (0.4.4). v2.1 differs
from v2.0 in the place of the statistics, which are not read here.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import BeforeValidator, Field

from handloom.errors import ConfigError
from handloom.ingest.robot.source import DEPTH_FORMAT
from handloom.io.addresses import is_remote
from handloom.io.reading import read_json
from handloom.io.remote import Options
from handloom.io.wrong_path import instead_of, names_in
from handloom.schemas.bounded_json import DESCRIPTION
from handloom.schemas.json_format import BadEntry, Entry, Expected, Form, OneOf, OrElse, Positive, place_of

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
    """One entry of info.json's features. names: (D), None if there are none, or not as many as values.

    units: (D), None for each that is not stated; all of it None without the key `units`. LeRobot has no such key,
    datasets that handloom exports have it.
    """

    key: str
    dtype: str
    shape: tuple[int, ...]
    names: tuple[str, ...] | None
    is_depth: bool
    units: tuple[str | None, ...] | None = None

    @property
    def width(self) -> int:
        """D, the number of values per frame."""
        return math.prod(self.shape)

    @property
    def is_number(self) -> bool:
        return bool(re.fullmatch(r"(float|int|uint)\d+|bool", self.dtype))


@dataclass(frozen=True)
class Info:
    """meta/info.json, checked. unusable: `{key: why}` of features that cannot be used: an error if one is requested."""

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
    unusable: dict[str, str]

    @property
    def is_v3(self) -> bool:
        return self.version.startswith("v3")

    def split_of(self, episode_index: int) -> str | None:
        """The first split whose range holds the episode."""
        return next((name for name, (a, b) in self.splits.items() if a <= episode_index < b), None)


def whole(value: Any) -> int | None:
    """A whole number that may be stored as float or text: tables with missing numbers store floats. Else None."""
    if isinstance(value, str) and re.fullmatch(r"[0-9]{1,18}", value):
        return int(value)
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _listed(value: Any) -> Any:
    """One number is a list of one."""
    return value if value is None or isinstance(value, list) else [value]


_Text = Annotated[str | None, OrElse(None)]
_Object = Annotated[dict[str, Any], OrElse({})]
_Count = Annotated[int, BeforeValidator(whole), Field(ge=0), Expected("a whole number, none below 0")]


class _Version(Entry):
    codebase_version: Annotated[str, OneOf(VERSIONS)]


class _Info(Entry):
    fps: Positive
    features: Annotated[dict[str, Any], Field(min_length=1), Expected("an object with at least one feature")]
    robot_type: _Text
    chunks_size: Annotated[int | None, BeforeValidator(whole), OrElse(None)]
    total_episodes: Annotated[int | None, BeforeValidator(whole), OrElse(None)]
    data_path: _Text
    video_path: _Text
    splits: _Object
    discarded_episode_indices: Any = None


class _Feature(Entry):
    """A width of 0 is allowed: optional vectors have it."""

    dtype: Annotated[str, Expected("the name of a type, such as float32")]
    shape: Annotated[list[_Count] | None, BeforeValidator(_listed)] = None
    names: Any = None
    units: Any = None
    info: _Object
    video_info: _Object


_VERSION, _INFO, _FEATURE = Form(_Version), Form(_Info), Form(_Feature)


def read_info(root: str, options: Options = None) -> Info:
    """meta/info.json.

    Raises ConfigError: it does not exist, is of a version that is not read, or lacks a needed key.
    """
    where = f"{root}/meta/info.json"
    if not is_remote(root) and not os.path.exists(where):
        raise _no_dataset(root)
    content = read_json(where, "LeRobot dataset description", options, DESCRIPTION)
    version = _VERSION.read_file(content, where, _CONVERTERS).codebase_version
    raw = _INFO.read_file(content, where, "give the dataset's top folder, as it was recorded or downloaded")
    problems: list[str] = []
    found: dict[str, Feature] = {}
    unusable: dict[str, str] = {}
    for key, value in raw.features.items():
        try:
            found[key] = _feature(key, value, problems)
        except BadEntry as error:
            unusable[key] = str(error)
            problems.append(f"meta/info.json: {error}; not used")
    if raw.discarded_episode_indices:
        listed = str(raw.discarded_episode_indices)[:80]
        problems.append(f"meta/info.json names discarded episodes, {listed}; taken where they are listed")
    v3 = version.startswith("v3")
    standard = (
        "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
        if v3
        else "data/chunk-{episode_chunk:03d}/episode_{episode_index:06d}.parquet"
    )
    return Info(
        version=version,
        robot_type=raw.robot_type,
        fps=raw.fps,
        chunks_size=raw.chunks_size if raw.chunks_size and raw.chunks_size > 0 else 1000,
        data_path=raw.data_path or standard,
        video_path=raw.video_path or None,
        features=found,
        splits=_splits(raw.splits, where, problems),
        total_episodes=raw.total_episodes,
        problems=tuple(problems),
        unusable=unusable,
    )


def _no_dataset(root: str) -> ConfigError:
    """The error for a local folder without meta/info.json, with a hint where the dataset may be."""
    if not os.path.isdir(root):
        found = "is a file" if os.path.exists(root) else "does not exist"
        return ConfigError(f"LeRobot dataset {root} {found}, expected a folder", instead_of(root, folder=True))
    near = [os.path.dirname(root), *(f"{root}/{name}" for name in names_in(root))]
    near = [folder for folder in near if os.path.exists(f"{folder}/meta/info.json")]
    hint = f"give {' or '.join(near[:3])}" if near else "give the folder that holds meta/, data/ and videos/"
    return ConfigError(f"{root} is no LeRobot dataset: it has no meta/info.json", hint)


def is_missing(value: Any) -> bool:
    """None or NaN: the value is missing, not unreadable."""
    return value is None or (isinstance(value, float) and math.isnan(value))


def fill(template: str, **numbers: int | str) -> str:
    """`data/chunk-{chunk_index:03d}/...` with its places filled in.

    Raises ConfigError for an unknown place, and for a path that leaves the dataset.
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


def _feature(key: str, value: Any, problems: list[str]) -> Feature:
    """Raises BadEntry."""
    raw = _FEATURE.read(value, place_of("features", key))
    shape = (1,) if raw.shape is None else tuple(raw.shape)
    facts = raw.info | raw.video_info
    depth = bool(facts.get("video.is_depth_map") or facts.get("is_depth_map"))
    depth |= bool(DEPTH_FORMAT.match(str(facts.get("video.pix_fmt"))))
    names = _names(raw.names)
    if raw.dtype not in ("video", "image") and names is not None and len(names) != math.prod(shape):
        problems.append(f"meta/info.json: feature {key} has {len(names)} names for {math.prod(shape)} values; not used")
        names = None
    return Feature(key, raw.dtype, shape or (1,), names, depth, _units(raw.units, key, math.prod(shape), problems))


def _units(raw: Any, key: str, width: int, problems: list[str]) -> tuple[str | None, ...] | None:
    """One text or null for each value; anything else is told, and not used."""
    if raw is None:
        return None
    if isinstance(raw, list) and len(raw) == width and all(one is None or isinstance(one, str) for one in raw):
        return tuple(one or None for one in raw)
    problems.append(
        f"meta/info.json: feature {key}: units is {str(raw)[:80]}, expected {width} texts or nulls; not used"
    )
    return None


def _names(raw: Any) -> tuple[str, ...] | None:
    """Names in any form: a list, nested lists, `{"motors": [...]}`, `{name: position}`; None if there are none."""
    if isinstance(raw, dict):
        if raw and all(isinstance(value, int) for value in raw.values()):
            return tuple(sorted(raw, key=lambda name: raw[name]))
        raw = list(raw.values())
    if not isinstance(raw, list):
        return None
    flat = [name for item in raw for name in (_names(item) or () if isinstance(item, list | dict) else (str(item),))]
    return tuple(flat) or None


def _splits(raw: dict[str, Any], where: str, problems: list[str]) -> dict[str, tuple[int, int]]:
    """`{"train": "0:50"}` as half-open ranges of episode indices."""
    found: dict[str, tuple[int, int]] = {}
    for name, text in raw.items():
        match = _RANGE.fullmatch(text) if isinstance(text, str) else None
        if match is None:
            problems.append(f"{where}: split {name!r} is {str(text)[:60]!r}, expected 'FIRST:END'; not used")
        else:
            found[name] = int(match[1]), int(match[2])
    return found
