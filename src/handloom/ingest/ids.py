"""Names of datasets and videos inside a clip id: never a path, and the same wherever the files lie."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Iterable
from urllib.parse import quote

from handloom.errors import ConfigError
from handloom.ingest.names import composed

MAX_VIDEO_ID = 400  # a clip id has at most 512 characters: dataset, video, two times
_UNSAFE = re.compile(r"[\s%:~/\\'\"*?<>|#&;$`\x00-\x1f\x7f]")
_DATASET = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")


def check_dataset(name: str) -> str:
    """The dataset's name, unchanged.

    Raises:
        ConfigError: it cannot be the first part of a clip id.
    """
    if not _DATASET.fullmatch(name):
        raise ConfigError(
            f"dataset name {name!r}, expected 1 to 64 letters, digits, '_', '.' or '-', the first a letter or digit",
            "give another --dataset",
        )
    return name


def video_id_of(relative_path: str) -> str:
    """`day 1/cut:a` as `day%201~cut%3Aa`: folders joined by `~`; characters that ids, shells or SQL use as %XX.

    Two paths never give the same id: `~` and `%` themselves are escaped. An id over 400 characters is a hash of the
    whole and the end of it.
    """
    parts = [
        _UNSAFE.sub(lambda m: quote(m.group(), safe="") if m.group() != "~" else "%7E", part)
        for part in relative_path.split("/")
    ]
    video_id = "~".join(parts)
    if len(video_id) > MAX_VIDEO_ID:
        digest = hashlib.sha256(video_id.encode()).hexdigest()[:16]
        video_id = f"{digest}~{video_id[-(MAX_VIDEO_ID - 17) :]}"
    return video_id


def unique_video_ids(relative_paths: Iterable[str]) -> dict[str, str]:
    """`{relative path: video id}`: the path without its extension, or with it where two files differ only there.

    `a.mp4` alone is `a`; beside `a.mkv` the two are `a.mp4` and `a.mkv`. Ids are in Unicode's composed form (NFC) on
    every machine; only two files that differ in nothing but that form keep their own.
    """
    paths = list(relative_paths)
    forms = Counter(map(composed, paths))
    own = {path: composed(path) if forms[composed(path)] == 1 else path for path in paths}
    names = {path: _stem(own[path]) for path in paths}
    while True:
        counts = Counter(names.values())
        clash = [path for path in paths if counts[names[path]] > 1 and names[path] != own[path]]
        if not clash:
            return {path: video_id_of(name) for path, name in names.items()}
        names.update((path, own[path]) for path in clash)


def _stem(path: str) -> str:
    folder, slash, name = path.rpartition("/")
    return folder + slash + (name.rpartition(".")[0] or name)
