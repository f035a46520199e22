"""Addresses of files: paths of this machine, and URIs."""

from __future__ import annotations

import os

FETCHED = ("s3", "s3a", "gs", "gcs", "az", "abfs", "abfss", "http", "https")
"""Schemes of stores elsewhere. fsspec knows three dozen more: some read any file of this machine (`local`, `dir`), some
run others behind them (`reference`, `simplecache::`), and a clip list may come from somebody else."""
EXPECTED = "a path, file:// or one of " + ", ".join(f"{scheme}://" for scheme in FETCHED)


def is_utf8(text: str) -> bool:
    """Whether a path, or another text, can be stored. Bytes of names and of command lines that are no UTF-8 become half
    characters in Python, which can not."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def is_remote(uri: str) -> bool:
    return "://" in uri and not uri.startswith("file://")


def is_http(uri: str) -> bool:
    return uri.startswith(("http://", "https://"))


def is_s3(uri: str) -> bool:
    return uri.startswith(("s3://", "s3a://"))


def local_path(uri: str) -> str:
    """The path of a file of this machine, which may be written `file://PATH`. Nothing in it is decoded."""
    return uri.removeprefix("file://")


def normalise(path: str) -> str:
    """An absolute local path, or the URI without its last slash."""
    if is_remote(path):
        return path.rstrip("/")
    return os.path.abspath(os.path.expanduser(local_path(path)))


def join(root: str, path: str) -> str:
    return f"{root.rstrip('/')}/{path}"
