"""Where a pre-trained model's files lie: a local folder or file, an s3:// URI (fetched once), or an id of the hub."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
from pathlib import Path
from uuid import uuid4

from handloom.errors import ConfigError

CACHE = "~/.cache/handloom/models"
S3_HINT = "check the URI, AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and AWS_ENDPOINT_URL, and who may read there"


def local_model(model: str, cache: str = CACHE) -> str:
    """A local path for a folder, a file or an s3:// URI; anything else is taken for a hub id and comes back as it is.

    What lies on S3 (a folder's files, subfolders left out, or one file) is fetched into `cache` whole or not at all,
    and again where the names, sizes or tags of the files there have changed. Credentials come from the AWS variables.

    Raises:
        ConfigError: `model` is empty, a path that is not there, or cannot be fetched.
    """
    if not model.strip():
        raise ConfigError(
            "no model is named for the encoder",
            "give a hub id (facebook/vit-mae-base), a local folder or an s3:// URI, or take the small encoder",
        )
    if model.startswith(("s3://", "s3a://")):
        return str(_fetched(model.rstrip("/"), Path(cache).expanduser()))
    path = Path(model.removeprefix("file://")).expanduser()
    if path.exists():
        return str(path)
    if model.startswith(("/", "~", ".", "file://")) or model.count("/") != 1 or path.suffix in (".pth", ".pt"):
        raise ConfigError(f"there is no model at {path}", "give a folder, a checkpoint file, an s3:// URI or a hub id")
    return model


def _fetched(uri: str, cache: Path) -> Path:
    from botocore.exceptions import BotoCoreError, ClientError
    from fsspec.core import url_to_fs

    try:
        filesystem, root = url_to_fs(uri, use_listings_cache=False)
        found = {Path(f["name"]).name: f for f in filesystem.ls(root, detail=True) if f["type"] == "file" and f["size"]}
        if not found:
            raise ConfigError(f"there are no files at {uri}", S3_HINT)
        listing = {name: [f["size"], str(f.get("ETag", ""))] for name, f in sorted(found.items())}
        key = hashlib.sha256(json.dumps([uri, listing]).encode()).hexdigest()[:32]
        is_file = len(found) == 1 and next(iter(found.values()))["name"] == root
        target = cache / key
        cache.mkdir(parents=True, exist_ok=True)
        with open(cache / f"{key}.lock", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # the workers of one node fetch a model once
            if not target.exists():
                _fetch(filesystem, found, target)
    except (OSError, BotoCoreError, ClientError) as error:
        raise ConfigError(f"the model {uri} cannot be fetched into {cache}: {error}", S3_HINT) from error
    return target / next(iter(found)) if is_file else target


def _fetch(filesystem, found: dict[str, dict], target: Path) -> None:
    part = target.with_name(f"{target.name}.{uuid4().hex[:8]}.part")
    part.mkdir()
    try:
        for name, file in found.items():
            with filesystem.open(file["name"], "rb") as remote, open(part / name, "wb") as local:
                shutil.copyfileobj(remote, local, 8 << 20)
            if (part / name).stat().st_size != file["size"]:
                raise OSError(f"{file['name']} gave {(part / name).stat().st_size} of {file['size']} bytes")
        os.replace(part, target)
    finally:
        shutil.rmtree(part, ignore_errors=True)
