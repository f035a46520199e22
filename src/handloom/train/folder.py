"""The folder that a training job writes into, `--out`: local or S3, files that appear whole, refusals said at once."""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any
from uuid import uuid4

from pyarrow import fs

from handloom.errors import ConfigError, StoreError

WRITE_HINT = "check that the place exists, may be written and has space left"
S3_HINT = "check the bucket, AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and AWS_ENDPOINT_URL, and who may write there"


@dataclass(frozen=True)
class RunFolder:
    """A folder by path or URI. It is handed to workers as it is: connections are opened where they are used.

    uri: an absolute path, or a URI that pyarrow knows (`s3://bucket/prefix`). storage_options: as Lance takes them
    (`handloom.store.location.storage_options_from`), for s3 only.
    """

    uri: str
    storage_options: dict[str, str] = field(default_factory=dict, hash=False, repr=False)  # may hold keys: not printed

    @staticmethod
    def parse(out: str | Path, storage_options: Mapping[str, str] | None = None) -> RunFolder:
        """Raises ConfigError where `out` is empty."""
        text = str(out).strip().removeprefix("file://")
        if not text:
            raise ConfigError("--out is empty", "give a folder or an s3:// URI")
        uri = text.rstrip("/") if "://" in text else str(Path(text).expanduser().absolute())
        return RunFolder(uri, dict(storage_options or {}))

    @property
    def is_local(self) -> bool:
        return "://" not in self.uri

    def sub(self, name: str) -> RunFolder:
        """The folder `name` below this one."""
        return RunFolder(f"{self.uri}/{name}", self.storage_options)

    @cached_property
    def _opened(self) -> tuple[fs.FileSystem, str]:
        return open_filesystem(self.uri, self.storage_options)

    @property
    def filesystem(self) -> fs.FileSystem:
        """pyarrow's file system that holds the folder."""
        return self._opened[0]

    def path(self, name: str = "") -> str:
        """The path of `name` in `filesystem`."""
        return f"{self._opened[1]}/{name}" if name else self._opened[1]

    def check_writable(self) -> None:
        """Write a small file and remove it.

        Raises ConfigError where there is a file instead of a folder, StoreError with the storage's reason where it
        refuses.
        """
        if self.is_local and Path(self.uri).is_file():
            raise ConfigError(f"--out {self.uri} is a file, expected a folder", "name a folder, new or empty")
        name = f".probe-{uuid4().hex[:8]}"
        self.write(name, b"handloom")
        self.remove(name)

    def names(self, name: str = "") -> list[str]:
        """Names of the files and folders in `name`, sorted; none where it is not there."""
        with self._errors("list"):
            found = self.filesystem.get_file_info(fs.FileSelector(self.path(name), allow_not_found=True))
        return sorted(info.base_name for info in found if info.base_name)

    def sizes(self, name: str) -> dict[str, int]:
        """Bytes of every file in the folder `name`."""
        with self._errors("list"):
            found = self.filesystem.get_file_info(fs.FileSelector(self.path(name), allow_not_found=True))
        return {info.base_name: info.size for info in found if info.type == fs.FileType.File}

    def read(self, name: str) -> bytes | None:
        """A file's bytes; None where there is none."""
        with self._errors(f"read {name} in"):
            if self.filesystem.get_file_info(self.path(name)).type != fs.FileType.File:
                return None
            with self.filesystem.open_input_stream(self.path(name)) as stream:
                return stream.read()

    def write(self, name: str, data: bytes) -> None:
        """Write a file that is there whole or not at all; folders on its way are made."""
        with self._errors(f"write {name} in"):
            if not self.is_local:
                with self.filesystem.open_output_stream(self.path(name)) as stream:
                    stream.write(data)
                return
            path = Path(self.path(name))
            path.parent.mkdir(parents=True, exist_ok=True)
            unfinished = path.with_name(f".{path.name}.{os.getpid()}.tmp")
            unfinished.write_bytes(data)
            unfinished.replace(path)

    def read_json(self, name: str) -> Any:
        """A JSON file's content; None where there is none, or where it is no JSON."""
        data = self.read(name)
        try:
            return None if data is None else json.loads(data)
        except ValueError:
            return None

    def write_json(self, name: str, content: Any) -> None:
        self.write(name, json.dumps(content, indent=2, ensure_ascii=False).encode() + b"\n")

    @contextmanager
    def stream(self, name: str) -> Iterator[CountingSink]:
        """A file to write piece by piece; on a disk it is not whole until the block ends."""
        with self._errors(f"write {name} in"):
            if self.is_local:
                Path(self.path(name)).parent.mkdir(parents=True, exist_ok=True)
            with self.filesystem.open_output_stream(self.path(name)) as stream:
                yield CountingSink(stream)

    def move(self, name: str, new_name: str) -> None:
        """Rename a file or folder of a local folder; what was there is replaced."""
        self.remove(new_name)
        with self._errors(f"rename {name} in"):
            self.filesystem.move(self.path(name), self.path(new_name))

    def remove(self, name: str) -> None:
        """Remove a file or a folder with all that is in it; nothing to remove is fine."""
        with self._errors(f"remove {name} in"):
            kind = self.filesystem.get_file_info(self.path(name)).type
            if kind == fs.FileType.Directory:
                self.filesystem.delete_dir(self.path(name))
            elif kind == fs.FileType.File:
                self.filesystem.delete_file(self.path(name))

    @contextmanager
    def _errors(self, action: str) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            hint = WRITE_HINT if self.is_local else S3_HINT
            raise StoreError(f"cannot {action} {self.uri}: {_reason(error)}", hint) from error


class CountingSink:
    """A writable file that knows its bytes and their CRC-32. `torch.save` takes it as a file."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream
        self.num_bytes = 0
        self.crc = 0

    def write(self, data: Any) -> int:
        self._stream.write(data)
        self.crc = zlib.crc32(data, self.crc)
        self.num_bytes += memoryview(data).nbytes
        return memoryview(data).nbytes

    def flush(self) -> None:
        self._stream.flush()


def open_filesystem(uri: str, storage_options: Mapping[str, str]) -> tuple[fs.FileSystem, str]:
    """pyarrow's file system of a path or URI, and the path in it. Raises ConfigError where it knows no such URI."""
    if "://" not in uri:
        return fs.LocalFileSystem(), uri
    if not uri.startswith("s3://"):
        try:
            return fs.FileSystem.from_uri(uri)
        except (ValueError, OSError) as error:
            raise ConfigError(
                f"cannot use {uri!r}: {error}", "give a folder, or a URI such as s3://bucket/dir"
            ) from error
    named = {
        "access_key": "aws_access_key_id",
        "secret_key": "aws_secret_access_key",
        "session_token": "aws_session_token",
        "region": "aws_region",
    }
    options = {ours: storage_options[lances] for ours, lances in named.items() if lances in storage_options}
    if endpoint := storage_options.get("aws_endpoint"):
        scheme, _, address = endpoint.rpartition("://")
        options |= {"endpoint_override": address.rstrip("/"), "scheme": scheme or "https"}
    return fs.S3FileSystem(**options), uri.removeprefix("s3://")


def _reason(error: OSError) -> str:
    return error.strerror or str(error)
