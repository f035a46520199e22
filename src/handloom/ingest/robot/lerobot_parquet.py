"""Parquet files, local or behind a URI, and why one cannot be read."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import pyarrow as pa
import pyarrow.parquet as pq

from handloom.io.addresses import is_remote, normalise
from handloom.io.remote import Options, open_filesystem, remote_errors


class UnreadableParquet(Exception):
    """`missing`: whether the file does not exist. The text says what is wrong."""

    def __init__(self, problem: str, missing: bool = False) -> None:
        super().__init__(problem, missing)
        self.missing = missing

    def __str__(self) -> str:
        return self.args[0]


def open_parquet(uri: str, options: Options = None) -> pq.ParquetFile:
    """The open file; close it. Raises UnreadableParquet."""
    path = normalise(uri)
    with parquet_errors(path, options):
        if is_remote(path):
            fs, name = open_filesystem(path, options)
            file = pq.ParquetFile(fs.open(name, "rb"))
        else:
            file = pq.ParquetFile(path, memory_map=True)
        if not file.schema_arrow.names:  # names are decoded here
            raise UnreadableParquet("it has no columns")
        return file


@contextmanager
def parquet_errors(uri: str, options: Options = None) -> Iterator[None]:
    """Wraps reading: errors of pyarrow and of the filesystem become UnreadableParquet."""
    try:
        yield
    except FileNotFoundError as error:
        raise UnreadableParquet(f"there is no file {uri}", missing=True) from error
    except pa.ArrowException as error:
        if "footer" in str(error) or "magic bytes" in str(error) or "file size" in str(error).lower():
            raise UnreadableParquet(
                "it has no Parquet footer: it was cut short, or its writer was not closed "
                f"(LeRobot: dataset.finalize() at the end of recording) ({_size(uri)})"
            ) from error
        raise UnreadableParquet(f"it cannot be read: {str(error).splitlines()[0][:200]}") from error
    except UnicodeDecodeError as error:
        raise UnreadableParquet(f"it is damaged: a column's name is no text ({error.reason})") from error
    except remote_errors() as error:
        raise UnreadableParquet(f"it cannot be read: {type(error).__name__}: {error}") from error


def _size(uri: str) -> str:
    return uri if is_remote(uri) or not os.path.exists(uri) else f"{os.path.getsize(uri)} bytes"
