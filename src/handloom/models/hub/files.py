"""The files of a pre-trained model: a local folder or file, an s3:// URI (fetched once), or an id of the hub."""

from __future__ import annotations

import fcntl
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from handloom.errors import ConfigError
from handloom.io.addresses import is_s3, local_path
from handloom.io.atomic import atomic_folder
from handloom.io.folder import Folder
from handloom.io.remote import open_remote, remote_errors

CACHE = "~/.cache/handloom/models"
S3_HINT = "check the URI, AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and AWS_ENDPOINT_URL, and who may read there"


def local_model(model: str, cache: str = CACHE) -> str:
    """A local path for a folder, a file or an s3:// URI; anything else is a hub id and is returned unchanged.

    From S3, one file or a folder's files without subfolders are fetched into `cache`, all or none, and again when their
    names, sizes or tags change. Credentials come from the AWS variables.

    Raises:
        ConfigError: `model` is empty, a path that does not exist, or cannot be fetched.
    """
    if not model.strip():
        raise ConfigError(
            "no model is named for the encoder",
            "give a hub id (facebook/vit-mae-base), a local folder or an s3:// URI, or take the small encoder",
        )
    if is_s3(model):
        return str(_fetched(model.rstrip("/"), Path(cache).expanduser()))
    path = Path(local_path(model)).expanduser()
    if path.exists():
        return str(path)
    if model.startswith(("/", "~", ".", "file://")) or model.count("/") != 1 or path.suffix in (".pth", ".pt"):
        raise ConfigError(f"there is no model at {path}", "give a folder, a checkpoint file, an s3:// URI or a hub id")
    return model


def _fetched(uri: str, cache: Path) -> Path:
    try:
        filesystem, root = open_remote(uri, {"use_listings_cache": False})
        found = {Path(f["name"]).name: f for f in filesystem.ls(root, detail=True) if f["type"] == "file" and f["size"]}
        if not found:
            raise ConfigError(f"there are no files at {uri}", S3_HINT)
        listing = {name: [f["size"], str(f.get("ETag", ""))] for name, f in sorted(found.items())}
        key = hashlib.sha256(json.dumps([uri, listing]).encode()).hexdigest()[:32]
        is_file = len(found) == 1 and next(iter(found.values()))["name"] == root
        cache.mkdir(parents=True, exist_ok=True)
        with open(cache / f"{key}.lock", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # the workers of one node fetch a model once
            if not (cache / key).exists():
                _fetch(filesystem, found, Folder.parse(cache), key)
    except remote_errors(ImportError) as error:
        raise ConfigError(f"the model {uri} cannot be fetched into {cache}: {error}", S3_HINT) from error
    return cache / key / next(iter(found)) if is_file else cache / key


def _fetch(filesystem: Any, found: Mapping[str, Mapping[str, Any]], cache: Folder, key: str) -> None:
    with atomic_folder(cache, key) as folder:
        folder.create()
        for name, file in found.items():
            copy = Path(folder.path(name))
            filesystem.get_file(file["name"], str(copy))
            if copy.stat().st_size != file["size"]:
                raise OSError(f"{file['name']} gave {copy.stat().st_size} of {file['size']} bytes")
