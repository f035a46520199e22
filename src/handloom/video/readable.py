"""Whether a video can be read from this machine, without reading it."""

from __future__ import annotations

import os
from typing import Any

from handloom.video.schemes import SchemeRefused, backend_errors, is_remote, open_scheme


def why_unreadable(uri: str, storage_options: dict[str, Any] | None = None) -> str | None:
    """Why a video cannot be read here; None where it can. Of a remote one only its size is asked for.

    Args:
        storage_options: fsspec's, of s3:// URIs.
    """
    if is_remote(uri):
        return _why_not_stored(uri, storage_options)
    path = uri.removeprefix("file://")
    try:
        if os.path.exists(path) and not os.path.isfile(path):
            return f"{path} is not a file"
        with open(path, "rb") as file:
            file.read(1)
    except (OSError, ValueError) as error:  # ValueError: a name with a zero byte
        return f"{path}: {getattr(error, 'strerror', None) or error}"
    return None


def _why_not_stored(uri: str, storage_options: dict[str, Any] | None) -> str | None:
    try:
        filesystem, name = open_scheme(uri, storage_options)
        filesystem.info(name)
    except (OSError, SchemeRefused, ValueError, ImportError, *backend_errors()) as error:
        return f"{uri}: {type(error).__name__}: {error}"
    return None
