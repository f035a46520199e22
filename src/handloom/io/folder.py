"""A folder that handloom writes into: local or in an object store, with files that appear whole and errors in words."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
import warnings
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol
from uuid import uuid4

from pyarrow import fs

from handloom.errors import ConfigError, StoreError
from handloom.io.addresses import FETCHED, local_path

LOCAL_HINT = "check that the place exists, may be written and has space left"
STORE_HINT = "check the bucket, AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and AWS_ENDPOINT_URL, and who may write there"
WHERE_HINT = "give a folder, or a URI such as s3://bucket/folder"
S3_OPTIONS = {
    "access_key": "aws_access_key_id",
    "secret_key": "aws_secret_access_key",
    "session_token": "aws_session_token",
    "region": "aws_region",
}
"""pyarrow's names of Lance's options."""


class Digest(Protocol):
    """What `hashlib` gives, and `Crc32`."""

    def update(self, data: Any, /) -> None: ...

    def hexdigest(self) -> str: ...


class Crc32:
    """CRC-32 in the manner of `hashlib`: a third of SHA-256's time, for weights, whose writing a job waits for."""

    def __init__(self) -> None:
        self.value = 0

    def update(self, data: Any, /) -> None:
        self.value = zlib.crc32(data, self.value)

    def hexdigest(self) -> str:
        return f"{self.value:08x}"


class Sink:
    """A file being written that counts its bytes and digests them as they pass.

    pyarrow, tarfile and torch take it as a file; it cannot seek. What the storage raises comes out as StoreError. The
    file is not whole before `close`. `with` closes it; a writer that makes an error of its own of the storage's, as
    torch does ("unexpected pos 64 vs 0" on a full disk), is overruled.
    """

    def __init__(self, stream: Any, digest: Digest, errors: Callable[[], AbstractContextManager[None]]) -> None:
        self.digest = digest
        self.num_bytes = 0
        self._stream, self._errors = stream, errors
        self._failure: StoreError | None = None

    def write(self, data: Any) -> int:
        try:
            with self._errors():
                self._stream.write(data)
        except StoreError as error:
            self._failure = self._failure or error
            raise
        self.digest.update(data)
        num_bytes = memoryview(data).nbytes
        self.num_bytes += num_bytes
        return num_bytes

    def tell(self) -> int:
        return self.num_bytes

    def flush(self) -> None:
        with self._errors():
            self._stream.flush()

    def close(self) -> None:
        with self._errors():
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

    def __enter__(self) -> Sink:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            self.close()
            return
        with suppress(StoreError):  # the first error is the one to report
            self.close()
        if self._failure not in (None, error) and isinstance(error, Exception):
            raise self._failure


@dataclass(frozen=True)
class Folder:
    """A folder by path or URI. It is handed to workers as it is: connections are opened where they are used.

    uri: an absolute path, or a URI that pyarrow knows (`s3://bucket/prefix`, `gs://...`). storage_options: as Lance
    takes them (`handloom.store.location.storage_options_from`), for s3:// only; none: as pyarrow finds them in the
    environment. opened: the file system to use instead of the one that `uri` names.
    """

    uri: str
    storage_options: dict[str, str] = field(default_factory=dict, hash=False, repr=False)  # may hold keys: not printed
    opened: fs.FileSystem | None = field(default=None, compare=False, repr=False)

    @staticmethod
    def parse(out: str | Path, storage_options: Mapping[str, str] | None = None) -> Folder:
        """Raises ConfigError where `out` is empty, or a scheme alone."""
        text = local_path(str(out).strip())
        if not text:
            raise ConfigError("--out is empty", "give a folder or an s3:// URI")
        _, mark, rest = text.partition("://")
        if mark and not rest.strip("/"):
            raise ConfigError(f"--out {text} names no bucket", WHERE_HINT)
        uri = text.rstrip("/") if mark else str(Path(os.path.expanduser(text)).absolute())
        return Folder(uri, dict(storage_options or {}))

    @property
    def is_local(self) -> bool:
        return "://" not in self.uri

    def sub(self, name: str) -> Folder:
        """The folder `name` below this one."""
        return Folder(f"{self.uri.rstrip('/')}/{name}", self.storage_options, self.opened)

    @cached_property
    def _opened(self) -> tuple[fs.FileSystem, str]:
        if self.opened is not None:
            return self.opened, self.uri
        return _filesystem(self.uri, self.storage_options)

    @property
    def filesystem(self) -> fs.FileSystem:
        """pyarrow's file system that holds the folder. Raises ConfigError where it knows no such URI."""
        return self._opened[0]

    def path(self, name: str = "") -> str:
        """The path of `name` in `filesystem`."""
        root = self._opened[1]
        return f"{root.rstrip('/')}/{name}" if name else root

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

    def create(self) -> None:
        """Make the folder where it is not there."""
        with self.errors("create"):
            self.filesystem.create_dir(self.path(), recursive=True)

    def names(self, name: str = "") -> list[str]:
        """Names of the files and folders in it, or in its folder `name`, sorted; none where it is not there."""
        with self.errors("list"):
            found = self.filesystem.get_file_info(fs.FileSelector(self.path(name), allow_not_found=True))
        return sorted(info.base_name for info in found if info.base_name)

    def read(self, name: str) -> bytes | None:
        """A file's bytes; None where there is none."""
        with self.errors(f"read {name} in"):
            if self._kind(name) != fs.FileType.File:
                return None
            with self.filesystem.open_input_stream(self.path(name)) as stream:
                return stream.read()

    def read_json(self, name: str) -> Any:
        """A JSON file's content; None where there is none, or where it is no JSON."""
        data = self.read(name)
        try:
            return None if data is None else json.loads(data)
        except ValueError:
            return None

    def write(self, name: str, data: bytes) -> None:
        """Write a file that is there whole or not at all; folders on its way are made. One writer at a time.

        An object store shows an object when all of it has come. On a disk the file is renamed when it is written; what
        a kill leaves has a fixed name, and the next write of the same file takes its place.
        """
        draft = f"{self._above(name)}.{name.rpartition('/')[2]}.tmp" if self.is_local else name
        try:
            with self.open(draft) as sink:
                sink.write(data)
            if draft != name:
                self.move(draft, name)
        except StoreError:
            with suppress(StoreError):  # the first error is the one to report
                self.remove_files([draft] if draft != name else [])
            raise

    def write_json(self, name: str, content: Any) -> None:
        self.write(name, json.dumps(content, indent=2, ensure_ascii=False).encode() + b"\n")

    def open(self, name: str, digest: Digest | None = None) -> Sink:
        """A file to write piece by piece; folders on its way are made. digest: SHA-256 where none is given."""
        writing = partial(self.errors, f"write {name} in")
        with writing():
            if self.is_local:
                self.filesystem.create_dir(self.path(self._above(name)).rstrip("/") or "/", recursive=True)
            return Sink(self.filesystem.open_output_stream(self.path(name)), digest or hashlib.sha256(), writing)

    def move(self, name: str, new_name: str) -> None:
        """Rename a file, or a folder of a disk; what was there is replaced."""
        with self.errors(f"rename {name} in"):
            if self.is_local and self._kind(new_name) == fs.FileType.Directory:
                self.filesystem.delete_dir(self.path(new_name))
            self.filesystem.move(self.path(name), self.path(new_name))

    def remove(self, name: str) -> None:
        """Remove a file or a folder with all that is in it; nothing to remove is fine."""
        with self.errors(f"remove {name} in"):
            kind = self._kind(name)
            if kind == fs.FileType.Directory:
                self.filesystem.delete_dir(self.path(name))
            elif kind == fs.FileType.File:
                self.filesystem.delete_file(self.path(name))

    def remove_folder(self, name: str) -> None:
        """Remove a folder and all that is in it; a file of this name, and nothing, are passed over."""
        with self.errors(f"clear {name} in"):
            if self._kind(name) == fs.FileType.Directory:
                self.filesystem.delete_dir(self.path(name))

    def remove_files(self, names: Iterable[str]) -> None:
        """Remove these files; folders of these names, and files that are not there, are passed over."""
        with self.errors("clear"):
            for name in names:
                if self._kind(name) == fs.FileType.File:
                    self.filesystem.delete_file(self.path(name))

    def remove_empty(self, names: set[str]) -> None:
        """Remove those of the folders, and of the folders they are in, that hold nothing. A bucket has none."""
        if not self.is_local:
            return
        above = {"/".join(name.split("/")[:depth]) for name in names for depth in range(1, name.count("/") + 2)}
        with self.errors("clear"):
            for name in sorted(above, key=len, reverse=True):
                if self._kind(name) == fs.FileType.Directory and not self.names(name):
                    self.filesystem.delete_dir(self.path(name))

    @contextmanager
    def errors(self, action: str) -> Iterator[None]:
        """What the storage raises in the block as StoreError: `cannot {action} {uri}: ...`."""
        try:
            yield
        except OSError as error:
            if self.is_local and Path(self.uri).is_file():
                problem = f"cannot {action} {self.uri!r}: it is a file, expected a folder"
                raise StoreError(problem, "name a folder") from error
            hint = LOCAL_HINT if self.is_local else STORE_HINT
            raise StoreError(f"cannot {action} {self.uri!r}: {error.strerror or error}", hint) from error

    def _kind(self, name: str) -> fs.FileType:
        return self.filesystem.get_file_info(self.path(name)).type

    @staticmethod
    def _above(name: str) -> str:
        """`a/b/` of `a/b/c`, empty for `c`."""
        return name[: name.rfind("/") + 1]


def local_folder(place: Path, option: str) -> None:
    """Make a folder of this machine where it is not there, and see that it can be written, before anything is computed.

    Raises ConfigError, which names the option: it is a URI, there is a file, or it cannot be made or written.
    """
    scheme, mark, _ = str(place).partition(":/")  # `Path` made one slash of two
    if mark and scheme in (*FETCHED, "file"):
        raise ConfigError(
            f"{option} {scheme}://...: this command writes into a folder of this machine", "give its path"
        )
    try:
        place.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=place):
            pass
    except OSError as error:
        problem = f"{option} {place} is no folder that can be written: {error.strerror}"
        raise ConfigError(problem, "name another one") from error


def _filesystem(uri: str, storage_options: Mapping[str, str]) -> tuple[fs.FileSystem, str]:
    """pyarrow's file system of a path or URI, and the path in it."""
    if "://" not in uri:
        return fs.LocalFileSystem(), uri
    if not uri.startswith("s3://") or not storage_options:
        try:
            return fs.FileSystem.from_uri(uri)
        except (ValueError, OSError) as error:
            raise ConfigError(f"cannot use {uri!r}: {error}", WHERE_HINT) from error
    options = {name: storage_options[lances] for name, lances in S3_OPTIONS.items() if lances in storage_options}
    if endpoint := storage_options.get("aws_endpoint"):
        scheme, _, address = endpoint.rpartition("://")
        options |= {"endpoint_override": address.rstrip("/"), "scheme": scheme or "https"}
    return fs.S3FileSystem(**options), uri.removeprefix("s3://")


def __getattr__(name: str) -> Any:
    if name != "RunFolder":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    warnings.warn(f"RunFolder is {__name__}.Folder since handloom 0.4", FutureWarning, stacklevel=2)
    return Folder
