"""Whether a node can work for a run: checked on the node itself, before and while it works.

A Ray task that imports little, so that it returns within seconds.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from handloom.errors import ConfigError, StoreError
from handloom.io.addresses import is_remote
from handloom.io.presence import why_unreadable
from handloom.schemas.settings import Settings
from handloom.store.writable import check_writable
from handloom.video.fetch.cache import cache_folder
from handloom.workers.place import here

MIN_FREE_MB = 64  # in the temporary folder and the video cache; with less the first clips fail


@dataclass(frozen=True)
class Trial:
    """What a node is to check. cache_dir: `resources.fetch_cache_dir`. videos: a few URIs of the clip list. versions:
    the driver's `model_versions(settings)`.
    """

    db_uri: str
    storage_options: Mapping[str, str]  # Lance's
    source_options: Mapping[str, Any]  # fsspec's
    cache_dir: str
    videos: Sequence[str]
    settings: Settings
    versions: Mapping[str, str]


@dataclass(frozen=True)
class NodeReport:
    """A node's result.

    unreadable: `{URI of a video: why it cannot be read there}`. problem: why the node cannot work. other: how its
    versions differ from the driver's.
    """

    unreadable: Mapping[str, str]
    problem: str | None = None
    other: str | None = None


def try_node(trial: Trial) -> NodeReport:
    """Check on this node that the database is writable, disks have space, videos are there and versions agree."""
    problem = _problem(trial)
    unreadable = unreadable_videos(trial.videos, trial.source_options)
    return NodeReport(unreadable, problem, None if problem else _other(trial))


def unreadable_videos(videos: Sequence[str], source_options: Mapping[str, Any]) -> dict[str, str]:
    """`{URI: why it cannot be read here}` of those videos that cannot."""
    found = ((uri, why_unreadable(uri, dict(source_options))) for uri in videos)
    return {uri: why for uri, why in found if why is not None}


def _problem(trial: Trial) -> str | None:
    try:
        check_writable(trial.db_uri, trial.storage_options)
    except StoreError as error:
        return error.problem
    try:
        folders = {"temporary folder": tempfile.gettempdir()}
        if any(map(is_remote, trial.videos)):
            folders["video cache"] = _existing(cache_folder(trial.cache_dir))
        return next(filter(None, (_too_full(what, folder) for what, folder in folders.items())), None)
    except OSError as error:  # no temporary folder can be written
        return str(error)


def _other(trial: Trial) -> str | None:
    from handloom.stages.versions import (  # takes a second: OpenCV, and all models' modules
        check_same,
        model_versions,
    )

    try:
        check_same(trial.versions, model_versions(trial.settings), here().host)
    except ConfigError as error:
        return error.problem
    return None


def _too_full(what: str, folder: str) -> str | None:
    free_mb = shutil.disk_usage(folder).free >> 20
    return None if free_mb >= MIN_FREE_MB else f"{free_mb} MB are free in the {what} {folder}, needs {MIN_FREE_MB} MB"


def _existing(folder: str) -> str:
    return str(next(path for path in (Path(folder), *Path(folder).parents) if path.is_dir()))
