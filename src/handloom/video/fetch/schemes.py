"""Which addresses videos and annotations may have. One list, for ingest and for fetching."""

from __future__ import annotations

import sys
from typing import Any

FETCHED = ("s3", "s3a", "gs", "gcs", "az", "abfs", "abfss", "http", "https")
"""Schemes of stores elsewhere. fsspec knows three dozen more: some read any file of this machine (`local`, `dir`), some
run others behind them (`reference`, `simplecache::`), and a clip list may come from somebody else."""
EXPECTED = "a path, file:// or one of " + ", ".join(f"{scheme}://" for scheme in FETCHED)

SILENT_S = 30.0
"""A web server that says nothing for so long is given up. aiohttp's own limit is 300 s for a whole answer: a silent
server outlasted the time that a clip has to be decoded, and long files of slow servers never came to their end."""


class SchemeRefused(ValueError):
    """An address that is not opened."""


def is_remote(uri: str) -> bool:
    return "://" in uri and not uri.startswith("file://")


def open_scheme(uri: str, options: dict[str, Any] | None = None) -> tuple[Any, str]:
    """The fsspec filesystem of a remote URI and its path there. Chains (`a::b`) have no meaning here.

    Args:
        options: fsspec's, of s3:// URIs.

    Raises:
        SchemeRefused: its scheme is not on the list. ImportError: the scheme's package is not installed.
    """
    scheme = uri.split("://", 1)[0]
    if scheme not in FETCHED:
        raise SchemeRefused(f"the scheme {scheme[:40]!r} is not opened, expected {EXPECTED}")
    import fsspec  # a local folder needs neither fsspec nor its backends

    kind = fsspec.get_filesystem_class(scheme)
    own = (options or {}) if scheme in ("s3", "s3a") else _web_options() if scheme in ("http", "https") else {}
    return kind(**{**kind._get_kwargs_from_urls(uri), **own}), kind._strip_protocol(uri)


def _web_options() -> dict[str, Any]:
    import aiohttp

    timeout = aiohttp.ClientTimeout(total=None, sock_connect=SILENT_S, sock_read=SILENT_S)
    return {"client_kwargs": {"timeout": timeout}}


# Errors of fsspec's backends that are no OSError.
HTTP_ERRORS = (("aiohttp", "ClientError"),)
S3_ERRORS = (("botocore.exceptions", "BotoCoreError"), ("botocore.exceptions", "ClientError"))


def backend_errors(named: tuple[tuple[str, str], ...] = HTTP_ERRORS + S3_ERRORS) -> tuple[type[Exception], ...]:
    """The classes of these (module, name); a backend that was never imported has raised none."""
    return tuple(getattr(sys.modules[module], name) for module, name in named if module in sys.modules)
