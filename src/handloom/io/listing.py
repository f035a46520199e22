"""Finding files, on this machine or behind a URI (`s3://`, `http(s)://`, ...)."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote

from handloom.errors import ConfigError
from handloom.io.addresses import is_http, is_remote, is_utf8, normalise
from handloom.io.remote import Options, open_filesystem, remote_errors
from handloom.io.wrong_path import instead_of

VIDEO_EXTENSIONS = frozenset(
    ("mp4", "mkv", "mov", "avi", "webm", "m4v", "mpg", "mpeg", "ts", "mts", "m2ts", "3gp", "wmv", "flv", "ogv")
)
MAX_DEPTH = 32  # of folders: a listing served over http may loop

Descend = Callable[[tuple[str, ...]], bool]


@dataclass(frozen=True)
class FoundFile:
    """`path` is relative to the root, with `/`; `uri` is how to open it: an absolute path or a URI."""

    path: str
    uri: str

    @property
    def name(self) -> str:
        return self.path.rpartition("/")[2]

    @property
    def stem(self) -> str:
        return self.name.rpartition(".")[0] or self.name

    @property
    def is_video(self) -> bool:
        return self.name.rpartition(".")[2].lower() in VIDEO_EXTENSIONS and "." in self.name


@dataclass(frozen=True)
class Listing:
    """Files below a root, sorted by path.

    problems: folders that could not be listed. unusable: names that cannot be stored, pipes, devices.
    """

    files: list[FoundFile] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    unusable: list[str] = field(default_factory=list)
    num_hidden: int = 0


def list_files(root: str, what: str, descend: Descend | None = None, options: Options = None) -> Listing:
    """Every file below `root` whose folders `descend` lets through; hidden names (`.x`) are counted and left out.

    Links to folders are followed, each folder once.

    Args:
        what: what `root` is called in an error: "video folder".

    Raises:
        ConfigError: there is no such folder, or it cannot be listed.
    """
    root = normalise(root)
    if is_remote(root):
        return _list_remote(root, what, descend, options)
    if not os.path.isdir(root):
        found = "is a file" if os.path.exists(root) else "does not exist"
        raise ConfigError(f"{what} {root} {found}, expected a folder", instead_of(root, folder=True))
    try:
        os.scandir(root).close()
    except OSError as error:
        raise ConfigError(f"{what} {root} cannot be listed: {error.strerror}", "check its permissions") from error
    return _walk_local(root, descend)


def _walk_local(root: str, descend: Descend | None) -> Listing:
    files: list[FoundFile] = []
    problems: list[str] = []
    unusable: list[str] = []
    num_hidden = 0
    seen = {_identity(root)}
    folders: list[tuple[str, ...]] = [()]
    while folders:
        parts = folders.pop()
        folder = os.path.join(root, *parts)
        try:
            with os.scandir(folder) as entries:
                listed = sorted(entries, key=lambda e: e.name)
        except OSError as error:
            problems.append(f"folder {folder} cannot be listed: {error.strerror}")
            continue
        for entry in listed:
            path = (*parts, entry.name)
            if entry.name.startswith("."):
                num_hidden += 1
            elif not is_utf8(entry.name):
                unusable.append(f"{os.fsencode(entry.path)!r}: the name is not UTF-8 and cannot be stored; rename it")
            elif _is_folder(entry):
                if (descend is None or descend(path)) and (identity := _identity(entry.path)) not in seen:
                    seen.add(identity)
                    folders.append(path)
            elif not _is_regular(entry):
                unusable.append(f"{entry.path} is no regular file (a pipe, socket or device)")
            else:
                files.append(FoundFile("/".join(path), entry.path))
    return Listing(sorted(files, key=lambda f: f.path), problems, sorted(unusable), num_hidden)


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link that leads to itself
        return False


def _is_regular(entry: os.DirEntry[str]) -> bool:
    """True also for a link to nothing: it counts as a file, and processing reports that it is missing."""
    try:
        return stat.S_ISREG(entry.stat().st_mode)
    except OSError:
        return True


def _identity(path: str) -> tuple[int, int]:
    try:
        found = os.stat(path)
    except OSError:
        return (-1, hash(path))
    return found.st_dev, found.st_ino


def _list_remote(root: str, what: str, descend: Descend | None, options: Options) -> Listing:
    fs, base = open_filesystem(root, options)
    base = base.rstrip("/")
    try:
        flat = descend is None and not is_http(root)  # one listing: an object store has no folders to walk
        names = fs.find(base) if flat else list(_walk_remote(fs, base, descend))
    except remote_errors() as error:
        raise ConfigError(
            f"{what} {root} cannot be listed: {type(error).__name__}: {error}", "check the address and the credentials"
        ) from error
    files, num_hidden = [], 0
    for name in names:
        if not name.startswith(base + "/") or name.endswith("/"):
            continue  # an object store may hold empty objects in place of folders
        path = name[len(base) + 1 :]
        path = unquote(path) if is_http(root) else path
        if any(part.startswith(".") for part in path.split("/")):
            num_hidden += 1
        else:
            files.append(FoundFile(path, fs.unstrip_protocol(name)))
    if not files and not num_hidden and not _exists(fs, base):
        raise ConfigError(f"{what} {root} does not exist, expected a folder", "check the address and the credentials")
    return Listing(sorted(files, key=lambda f: f.path), [], [], num_hidden)


def _walk_remote(fs: Any, base: str, descend: Descend | None) -> Iterator[str]:
    folders: list[tuple[str, tuple[str, ...]]] = [(base, ())]
    seen = {base}
    while folders:
        folder, parts = folders.pop()
        for entry in sorted(fs.ls(folder + "/", detail=True), key=lambda e: e["name"]):
            name = entry["name"].rstrip("/")
            if name in seen or not name.startswith(base + "/") or "?" in name or "#" in name:
                continue  # an index page's links to its parent and to its own sorted views
            seen.add(name)
            path = (*parts, unquote(name.rpartition("/")[2]))
            if entry["type"] != "directory":
                yield name
            elif len(path) <= MAX_DEPTH and (descend is None or descend(path)):
                folders.append((name, path))


def _exists(fs: Any, path: str) -> bool:
    try:
        return bool(fs.exists(path))
    except remote_errors():
        return False
