"""handloom turns hours of human video into training data for robots."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from handloom.moved import install

if TYPE_CHECKING:
    from handloom.api import Database

install()

__version__ = "0.4.0.dev0"
__all__ = ["__version__", "open"]


def open(uri: str | Path, storage_options: Mapping[str, str] | None = None) -> Database:
    """Open a database for reading and search: a folder or an `s3://` URI.

    For S3, Lance reads the usual AWS variables; `storage_options` overrides them. Raises StoreError if there is no
    database.
    """
    from handloom.api import Database

    return Database.open(uri, storage_options)
