"""Whether this machine can write to a database, before any work is done for it."""

from __future__ import annotations

import os
import tempfile
import uuid
from collections.abc import Mapping
from pathlib import Path

import lance
import pyarrow as pa

from handloom.errors import StoreError
from handloom.store.fragments import check_there
from handloom.store.lance_faults import LANCE_ERRORS
from handloom.store.location import Location, lance_errors, store_error

TRIAL_BYTES = 4096


def check_writable(uri: str, storage_options: Mapping[str, str] | None = None) -> None:
    """Write a small file where workers write their rows, and remove it.

    Raises StoreError if that fails, or if the folder holds no table `clips`: a node that has not mounted the database's
    file system would write into an empty folder of its own.
    """
    location = Location.parse(uri, storage_options)
    if location.is_local:
        check_there(location)
        _try_folder(Path(location.table_uri("clips")))
    else:
        _try_store(location)


def _try_folder(table: Path) -> None:
    folder = table / "data" if (table / "data").is_dir() else table
    try:
        with tempfile.NamedTemporaryFile(prefix=".trial-", dir=folder) as file:
            file.write(bytes(TRIAL_BYTES))
            file.flush()
            os.fsync(file.fileno())  # a full quota is reported here
    except OSError as error:
        raise StoreError(f"{folder} cannot be written: {error.strerror}", "check who may write there") from error


def _try_store(location: Location) -> None:
    uri = f"{location.uri}/.trial-{uuid.uuid4().hex[:12]}.lance"
    options = dict(location.storage_options) or None
    try:
        lance.write_dataset(pa.table({"trial": [1]}), uri, storage_options=options)
    except LANCE_ERRORS as error:
        raise store_error("write", location.uri, error) from error
    with lance_errors("remove the trial table", uri):
        lance.LanceDataset.drop(uri, storage_options=options)
