"""Whole files, on this machine or behind a URI, and why one cannot be read."""

from __future__ import annotations

import json
from typing import IO, Any

from handloom.errors import ConfigError
from handloom.io.addresses import is_remote, normalise
from handloom.io.remote import Options, open_filesystem, remote_errors
from handloom.io.wrong_path import instead_of
from handloom.schemas.bounded_json import ANNOTATIONS, Bounds, parse


def read_bytes(path: str, what: str, options: Options = None, max_bytes: int | None = None) -> bytes:
    """The whole file. One that is larger than `max_bytes` is cut after one byte more than these.

    Raises:
        ConfigError: it is not there or cannot be read.
    """
    path = normalise(path)
    try:
        if is_remote(path):
            fs, name = open_filesystem(path, options)
            if max_bytes is None:
                return fs.cat_file(name)
            with fs.open(name, "rb") as file:
                return _read_up_to(file, max_bytes + 1)
        with open(path, "rb") as file:
            return file.read() if max_bytes is None else _read_up_to(file, max_bytes + 1)
    except remote_errors() as error:
        reason = getattr(error, "strerror", None) or f"{type(error).__name__}: {error}"
        hint = "check the address and the credentials" if is_remote(path) else instead_of(path, folder=False)
        raise ConfigError(f"{what} {path} cannot be read: {reason}", hint) from error


def _read_up_to(file: IO[bytes], num_bytes: int) -> bytes:
    parts = []
    while num_bytes > 0 and (part := file.read(min(num_bytes, 8 << 20))):  # over http a read gives what has arrived
        parts.append(part)
        num_bytes -= len(part)
    return b"".join(parts)


def read_json(path: str, what: str, options: Options = None, bounds: Bounds = ANNOTATIONS) -> Any:
    """A JSON file's content.

    Raises:
        ConfigError: it cannot be read, is larger than `bounds`, or is no JSON; line and column are named.
    """
    data = read_bytes(path, what, options, bounds.max_bytes)
    try:
        return parse(data, bounds)
    except UnicodeDecodeError as error:
        problem = f"{what} {path} is not UTF-8: byte {error.start} cannot be decoded"
        raise ConfigError(problem, "expected JSON") from error
    except json.JSONDecodeError as error:
        if not data.strip():
            raise ConfigError(f"{what} {path} is empty, expected JSON", "download it again") from error
        where = f"line {error.lineno}, column {error.colno}"
        problem = f"{what} {path} is no valid JSON: {error.msg} at {where}"
        raise ConfigError(problem, "give a JSON file; download it again if it was cut short") from error
    except ValueError as error:
        raise ConfigError(f"{what} {path} cannot be used: {error}", f"expected a {what}") from error
