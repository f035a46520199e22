"""Which videos are there, without opening one; and whether one can be read from this machine."""

from __future__ import annotations

import os
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from handloom.video.fetch.schemes import SchemeRefused, backend_errors, is_remote, open_scheme


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


NUM_QUESTIONS = 16  # at once: a disk across the network answers each after a millisecond, a store after 20 to 100


def presence(uris: Iterable[str], storage_options: dict[str, Any] | None = None) -> dict[str, bool | None]:
    """`{uri: whether there is a file}`; None where that cannot be told (no permission, no network, a scheme refused).

    Args:
        storage_options: fsspec's, of s3:// URIs.
    """
    wanted = list(dict.fromkeys(uris))
    if len(wanted) < NUM_QUESTIONS:
        return {uri: _is_there(uri, storage_options) for uri in wanted}
    # each thread takes every n-th: a task of its own for each file would cost more than the question
    parts = [wanted[start::NUM_QUESTIONS] for start in range(NUM_QUESTIONS)]
    with ThreadPoolExecutor(NUM_QUESTIONS) as pool:
        answers = pool.map(lambda part: [(uri, _is_there(uri, storage_options)) for uri in part], parts)
        found = dict(pair for part in answers for pair in part)
    return {uri: found[uri] for uri in wanted}


def local_presence(uris: Iterable[str]) -> dict[str, bool]:
    """The same of this machine's files alone, which costs microseconds: any other URI counts as there."""
    wanted = dict.fromkeys(uris)
    found = presence(uri for uri in wanted if not is_remote(uri))
    return {uri: found.get(uri) is not False for uri in wanted}


def _is_there(uri: str, storage_options: dict[str, Any] | None) -> bool | None:
    if is_remote(uri):
        return _is_remote_there(uri, storage_options)
    try:
        os.stat(uri.removeprefix("file://"))
    except (FileNotFoundError, NotADirectoryError):
        return False
    except (OSError, ValueError):  # ValueError: a name with a zero byte
        return None
    return True


def _is_remote_there(uri: str, storage_options: dict[str, Any] | None) -> bool | None:
    try:
        filesystem, name = open_scheme(uri, storage_options)
        filesystem.info(name)
    except FileNotFoundError as error:
        # fsspec says this of any failure over HTTP, also of a server that is down: its status tells them apart
        over_http = uri.startswith(("http://", "https://"))
        return False if not over_http or getattr(error.__cause__, "status", None) in (404, 410) else None
    except (OSError, ValueError, ImportError, *backend_errors()):
        return None
    return True
