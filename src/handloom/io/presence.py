"""Which files are there, without opening one; and whether one can be read from this machine."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from handloom.io.addresses import is_http, is_remote, local_path
from handloom.io.remote import Options, open_filesystem, open_remote, remote_errors

T = TypeVar("T")

NUM_REQUESTS = 16  # at once: a network disk replies after a millisecond, a store after 20 to 100


def ask_all(uris: Iterable[str], ask: Callable[[str], T]) -> dict[str, T]:
    """`{uri: ask(uri)}`, several at a time where there are many."""
    wanted = list(dict.fromkeys(uris))
    if len(wanted) < NUM_REQUESTS:
        return {uri: ask(uri) for uri in wanted}
    # each thread takes every n-th: a task for each file would cost more than the request
    parts = [wanted[start::NUM_REQUESTS] for start in range(NUM_REQUESTS)]
    with ThreadPoolExecutor(NUM_REQUESTS) as pool:
        answers = pool.map(lambda part: [(uri, ask(uri)) for uri in part], parts)
        found = dict(pair for part in answers for pair in part)
    return {uri: found[uri] for uri in wanted}


def presence(uris: Iterable[str], options: Options = None) -> dict[str, bool | None]:
    """`{uri: whether there is a file}`; None where that is not known (no permission, no network, a scheme refused)."""
    return ask_all(uris, lambda uri: _is_remote_there(uri, options) if is_remote(uri) else _is_local_there(uri))


def local_presence(uris: Iterable[str]) -> dict[str, bool]:
    """The same for files of this machine alone, which costs microseconds: any other URI counts as there."""
    wanted = dict.fromkeys(uris)
    found = presence(uri for uri in wanted if not is_remote(uri))
    return {uri: found.get(uri) is not False for uri in wanted}


def existing(uris: Iterable[str], options: Options = None) -> set[str]:
    """Those that are there, each asked for: for servers that do not list their files.

    uris: of one store. Raises ConfigError where it cannot be opened at all.
    """
    uris = list(uris)
    if uris and is_remote(uris[0]):
        open_filesystem(uris[0], options)
    return {uri for uri, is_there in presence(uris, options).items() if is_there}


def why_unreadable(uri: str, options: Options = None) -> str | None:
    """Why a file cannot be read here; None where it can. Of a remote one only its size is asked for."""
    if is_remote(uri):
        return _why_not_stored(uri, options)
    path = local_path(uri)
    try:
        if os.path.exists(path) and not os.path.isfile(path):
            return f"{path} is not a file"
        with open(path, "rb") as file:
            file.read(1)
    except (OSError, ValueError) as error:  # ValueError: a name with a zero byte
        return f"{path}: {getattr(error, 'strerror', None) or error}"
    return None


def _why_not_stored(uri: str, options: Options) -> str | None:
    try:
        filesystem, name = open_remote(uri, options)
        filesystem.info(name)
    except remote_errors(ValueError, ImportError) as error:
        return f"{uri}: {type(error).__name__}: {error}"
    return None


def _is_local_there(uri: str) -> bool | None:
    try:
        os.stat(local_path(uri))
    except (FileNotFoundError, NotADirectoryError):
        return False
    except (OSError, ValueError):  # ValueError: a name with a zero byte
        return None
    return True


def _is_remote_there(uri: str, options: Options) -> bool | None:
    try:
        filesystem, name = open_remote(uri, options)
        filesystem.info(name)
    except FileNotFoundError as error:
        # fsspec raises this for any failure over http, also when the server is down: the status shows which
        return False if not is_http(uri) or getattr(error.__cause__, "status", None) in (404, 410) else None
    except remote_errors(ValueError, ImportError):
        return None
    return True
