"""A LeRobotDataset's `meta/info.json`: version, rate, features, splits and where files lie, of v3.0, v2.1 and v2.0.

Format: huggingface/lerobot, `datasets/utils.py` and `datasets/v30/convert_dataset_v21_to_v30.py` (0.4.4). v2.1 differs
from v2.0 in where statistics lie, which are not read here.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from handloom.errors import ConfigError
from handloom.ingest.files import Options, is_remote, read_json
from handloom.ingest.robot.source import DEPTH_FORMAT
from handloom.ingest.wrong_path import instead_of, names_in
from handloom.schemas.bounded_json import DESCRIPTION

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
    """meta/info.json, checked. unusable: `{key: why}` of features that cannot be used: an error if one is asked for."""

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


def read_info(root: str, options: Options = None) -> Info:
    """meta/info.json.

    Raises ConfigError: it is not there, of a version that is not read, or lacks what is needed.
    """
    where = f"{root}/meta/info.json"
    if not is_remote(root) and not os.path.exists(where):
        raise _no_dataset(root)
    raw = read_json(where, "LeRobot dataset description", options, DESCRIPTION)
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
    found: dict[str, Feature] = {}
    unusable: dict[str, str] = {}
    for key, value in features.items():
        try:
            found[key] = _feature(key, value, problems)
        except ValueError as error:
            unusable[key] = f"feature {key!r} {error}"
            problems.append(f"meta/info.json: {unusable[key]}; not used")
    splits = _splits(raw.get("splits") or {}, where, problems)
    if discarded := raw.get("discarded_episode_indices"):
        problems.append(f"meta/info.json names discarded episodes, {str(discarded)[:80]}; taken where they are listed")
    v3 = version.startswith("v3")
    standard = (
        "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
        if v3
        else "data/chunk-{episode_chunk:03d}/episode_{episode_index:06d}.parquet"
    )
    chunks_size, total = whole(raw.get("chunks_size")), whole(raw.get("total_episodes"))
    return Info(
        version=version,
        robot_type=raw.get("robot_type") if isinstance(raw.get("robot_type"), str) else None,
        fps=float(fps),
        chunks_size=chunks_size if chunks_size and chunks_size > 0 else 1000,
        data_path=_text(raw.get("data_path")) or standard,
        video_path=_text(raw.get("video_path")),
        features=found,
        splits=splits,
        total_episodes=total,
        problems=tuple(problems),
        unusable=unusable,
    )


def _no_dataset(root: str) -> ConfigError:
    """What is wrong with a local folder that lacks meta/info.json, and where the dataset may be."""
    if not os.path.isdir(root):
        found = "is a file" if os.path.exists(root) else "does not exist"
        return ConfigError(f"LeRobot dataset {root} {found}, expected a folder", instead_of(root, folder=True))
    near = [os.path.dirname(root), *(f"{root}/{name}" for name in names_in(root))]
    near = [folder for folder in near if os.path.exists(f"{folder}/meta/info.json")]
    hint = f"give {' or '.join(near[:3])}" if near else "give the folder that holds meta/, data/ and videos/"
    return ConfigError(f"{root} is no LeRobot dataset: it has no meta/info.json", hint)


def whole(value: Any) -> int | None:
    """A whole number, however it is stored: tables in which one is missing keep the others as floats, some as text."""
    if isinstance(value, str) and re.fullmatch(r"[0-9]{1,18}", value):
        return int(value)
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def is_missing(value: Any) -> bool:
    """None or NaN: nothing is said, as against something that cannot be read."""
    return value is None or (isinstance(value, float) and math.isnan(value))


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


def _feature(key: str, raw: Any, problems: list[str]) -> Feature:
    """A width of 0 is allowed: optional vectors have it. Raises ValueError saying what is wrong."""
    if not isinstance(raw, dict) or not isinstance(raw.get("dtype"), str):
        raise ValueError(f"is {str(raw)[:80]}, expected dtype, shape and names")
    given = raw.get("shape")
    shape = [whole(n) for n in given] if isinstance(given, list) else [1 if given is None else whole(given)]
    if not all(n is not None and n >= 0 for n in shape):
        raise ValueError(f"has the shape {str(given)[:80]}, expected whole numbers, none below 0")
    facts = {name: value for part in ("info", "video_info") for name, value in _object(raw.get(part)).items()}
    depth = bool(facts.get("video.is_depth_map") or facts.get("is_depth_map"))
    depth |= bool(DEPTH_FORMAT.match(str(facts.get("video.pix_fmt"))))
    names = _names(raw.get("names"))
    if raw["dtype"] not in ("video", "image") and names is not None and len(names) != math.prod(shape):
        problems.append(f"meta/info.json: feature {key} has {len(names)} names for {math.prod(shape)} values; not used")
        names = None
    return Feature(key, raw["dtype"], tuple(shape) or (1,), names, depth)


def _object(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


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


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) and value else None
