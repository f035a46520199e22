"""Stores and web servers behind URIs, through fsspec: the file system of a URI, and the errors of its library."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

from handloom.errors import ConfigError
from handloom.io.addresses import EXPECTED, FETCHED, is_http, is_s3

Options = dict[str, Any] | None
"""fsspec's, for s3:// URIs: `{"endpoint_url": ...}`."""

SILENT_S = 30.0
"""aiohttp's own limit is 300 s for a whole file: a silent server outlasted the time that a clip has to be decoded, and
long files of slow servers were never complete."""

INSTALL_HINT = "install that package on this machine and on every node that reads the files"

HTTP_ERRORS = (("aiohttp", "ClientError"),)
S3_ERRORS = (("botocore.exceptions", "BotoCoreError"), ("botocore.exceptions", "ClientError"))


class SchemeRefused(ValueError):
    """An address that is not opened."""


def open_remote(uri: str, options: Options = None, silent_s: float = SILENT_S) -> tuple[Any, str]:
    """The fsspec file system of a remote URI and its path there. Chains (`a::b`) have no meaning here.

    silent_s: a web server that sends nothing for so long is given up.

    Raises:
        SchemeRefused: its scheme is none of `FETCHED`. ImportError: the scheme's package is not installed.
    """
    scheme = uri.split("://", 1)[0]
    if scheme not in FETCHED:
        raise SchemeRefused(f"the scheme {scheme[:40]!r} is not opened, expected {EXPECTED}")
    import fsspec  # a local folder needs neither fsspec nor its backends

    kind = fsspec.get_filesystem_class(scheme)
    own = (options or {}) if is_s3(uri) else _web_options(silent_s) if is_http(uri) else {}
    return kind(**{**kind._get_kwargs_from_urls(uri), **own}), kind._strip_protocol(uri)


def open_filesystem(uri: str, options: Options = None) -> tuple[Any, str]:
    """As `open_remote`, for an address that the user gave. Raises ConfigError where it cannot be opened."""
    try:
        return open_remote(uri, options)
    except SchemeRefused as error:
        hint = "fetch the files yourself and give their folder, or give an s3:// or http:// address"
        raise ConfigError(f"{uri} cannot be opened: {error}", hint) from error
    except ValueError as error:
        raise ConfigError(f"{uri} cannot be opened: {error}", f"give {EXPECTED}") from error
    except ImportError as error:
        raise ConfigError(f"{uri} cannot be opened: {error}", INSTALL_HINT) from error


def backend_errors(named: tuple[tuple[str, str], ...] = HTTP_ERRORS + S3_ERRORS) -> tuple[type[Exception], ...]:
    """Errors of fsspec's backends that are no OSError, of those that are imported: the others have raised none."""
    return tuple(getattr(sys.modules[module], name) for module, name in named if module in sys.modules)


def remote_errors(*others: type[Exception]) -> tuple[type[Exception], ...]:
    """What reading and writing behind a URI raises, and `others`: for `except`, which asks when an error is there."""
    return (OSError, *others, *backend_errors())


def source_options_from(env: Mapping[str, str]) -> dict[str, Any]:
    """s3fs's options from the usual AWS variables. Called once, by the CLI; workers on other nodes get the result."""
    options: dict[str, Any] = {}
    names = {"key": "AWS_ACCESS_KEY_ID", "secret": "AWS_SECRET_ACCESS_KEY", "token": "AWS_SESSION_TOKEN"}
    for option, name in names.items():
        if env.get(name):
            options[option] = env[name]
    endpoint = env.get("AWS_ENDPOINT_URL_S3") or env.get("AWS_ENDPOINT_URL")
    if endpoint:
        options["endpoint_url"] = endpoint
    return options


def _web_options(silent_s: float) -> dict[str, Any]:
    import aiohttp

    timeout = aiohttp.ClientTimeout(total=None, sock_connect=silent_s, sock_read=silent_s)
    return {"client_kwargs": {"timeout": timeout}}
