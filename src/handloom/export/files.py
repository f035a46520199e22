"""A folder of an export, local or remote: what it holds, files that appear whole, and errors in plain words."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from pyarrow import fs

from handloom.errors import ConfigError, StoreError

INDEX = "index.json"
UNFINISHED = "index.unfinished.json"
CARD = "README.md"


class ExportFolder:
    """The folder at `out`: a path or a URI that pyarrow knows (`s3://bucket/prefix`, `gs://...`, `file://...`)."""

    def __init__(self, out: str) -> None:
        self.out = str(out)
        try:
            if "://" in self.out:
                self._fs, self._root = fs.FileSystem.from_uri(self.out)
            else:
                self._fs, self._root = fs.LocalFileSystem(), fs.LocalFileSystem().normalize_path(self.out)
        except (ValueError, OSError) as error:
            raise ConfigError(
                f"cannot export to {self.out!r}: {error}", "give a folder, or a URI such as s3://bucket/folder"
            ) from error
        self._root = self._root.rstrip("/") or "/"

    def path(self, name: str) -> str:
        return f"{self._root}/{name}"

    def local_root(self) -> str:
        """The folder's absolute path. Raises ConfigError where it is not on this machine."""
        if not isinstance(self._fs, fs.LocalFileSystem):
            raise ConfigError(
                f"{self.out!r} is no folder of this machine", "say where its readers find it: --image-root"
            )
        return os.path.abspath(self._root)

    def names(self) -> list[str]:
        """Names of the files and folders in it, sorted; none where it is not there."""
        with self._errors("list"):
            selector = fs.FileSelector(self._root, allow_not_found=True)
            return sorted(info.base_name for info in self._fs.get_file_info(selector) if info.base_name)

    def create(self) -> None:
        with self._errors("create"):
            self._fs.create_dir(self._root, recursive=True)

    def read_json(self, name: str) -> dict[str, Any] | None:
        """A JSON file's content, or None where there is none. Raises ConfigError if it is no JSON object."""
        with self._errors(f"read {name} in"):
            if self._fs.get_file_info(self.path(name)).type != fs.FileType.File:
                return None
            with self._fs.open_input_stream(self.path(name)) as stream:
                text = stream.read()
        try:
            content = json.loads(text)
        except ValueError as error:
            raise ConfigError(f"{self.path(name)} is no JSON: {error}", "it was not written by an export") from error
        if not isinstance(content, dict):
            raise ConfigError(f"{self.path(name)} is no JSON object", "it was not written by an export")
        return content

    def write_json(self, name: str, content: dict[str, Any]) -> None:
        """Write a JSON file that is there whole or not at all."""
        self.write_text(name, json.dumps(content, indent=2, ensure_ascii=False) + "\n")

    def write_text(self, name: str, text: str) -> None:
        """Write a text file that is there whole or not at all."""
        with self._errors(f"write {name} in"):
            with self._fs.open_output_stream(self.path(f"{name}.tmp")) as stream:
                stream.write(text.encode())
            self._fs.move(self.path(f"{name}.tmp"), self.path(name))

    def move(self, name: str, new_name: str) -> None:
        with self._errors(f"rename {name} in"):
            self._fs.move(self.path(name), self.path(new_name))

    def remove(self, names: list[str]) -> None:
        """Remove these files; those that are not there are passed over."""
        with self._errors("clear"):
            for name in names:
                if self._fs.get_file_info(self.path(name)).type == fs.FileType.File:
                    self._fs.delete_file(self.path(name))

    def remove_folder(self, name: str) -> None:
        """Remove a folder and all that is in it; one that is not there is passed over."""
        with self._errors(f"clear {name} in"):
            if self._fs.get_file_info(self.path(name)).type == fs.FileType.Directory:
                self._fs.delete_dir(self.path(name))

    def remove_empty(self, names: set[str]) -> None:
        """Remove those of the folders, and of the folders they are in, that hold nothing. A bucket has none."""
        if not isinstance(self._fs, fs.LocalFileSystem):
            return
        above = {"/".join(name.split("/")[:depth]) for name in names for depth in range(1, name.count("/") + 2)}
        with self._errors("clear"):
            for name in sorted(above, key=len, reverse=True):
                selector = fs.FileSelector(self.path(name), allow_not_found=True)
                is_there = self._fs.get_file_info(self.path(name)).type == fs.FileType.Directory
                if is_there and not self._fs.get_file_info(selector):
                    self._fs.delete_dir(self.path(name))

    def open_shard(self, name: str) -> HashingSink:
        """A file to write, in a folder that is made if it is not there."""
        with self._errors(f"write {name} in"):
            if "/" in name and isinstance(self._fs, fs.LocalFileSystem):
                self._fs.create_dir(self.path(name).rsplit("/", 1)[0], recursive=True)
            return HashingSink(self._fs.open_output_stream(self.path(name)))

    @contextmanager
    def _errors(self, action: str) -> Iterator[None]:
        with storage_errors(action, self.out):
            yield


@contextmanager
def storage_errors(action: str, out: str) -> Iterator[None]:
    """Storage errors of the block as StoreError: `cannot {action} {out}: ...`."""
    try:
        yield
    except OSError as error:
        hint = "check that the place exists, may be written and has space left"
        if os.path.isfile(out):
            raise StoreError(f"cannot {action} {out!r}: it is a file, expected a folder", "name a folder") from error
        raise StoreError(f"cannot {action} {out!r}: {error}", hint) from error


class HashingSink:
    """A writable file that counts its bytes and their SHA-256 as they pass. pyarrow takes it as a file."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream
        self._hash = hashlib.sha256()
        self._num_bytes = 0

    def write(self, data: Any) -> int:
        self._stream.write(data)
        self._hash.update(data)
        self._num_bytes += len(data)
        return len(data)

    def tell(self) -> int:
        return self._num_bytes

    def flush(self) -> None:
        self._stream.flush()

    def close(self) -> None:
        self._stream.close()

    @property
    def closed(self) -> bool:
        return bool(self._stream.closed)

    def readable(self) -> bool:
        return False

    def writable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return False

    def sha256(self) -> str:
        return self._hash.hexdigest()
