"""Exports of many files: complete, or marked as unfinished.

Files are written as `NAME.unfinished` and get their names when all are there; `index.json` comes last, and
`index.unfinished.json` names everything that an export under way may leave behind. An earlier export is replaced only
when the new one is complete. Where there are too many files to name each one (`claim`), they fill a folder of their
own, which is cleared first.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from handloom.errors import ConfigError, StoreError
from handloom.io.folder import Folder, Sink

INDEX = "index.json"
MARK = "index.unfinished.json"
CARD = "README.md"
SUFFIX = ".unfinished"
INDEX_VERSION = 1
COPY_BYTES = 2**20
OURS = (CARD, "data", "meta", "videos", "epic_tasks_final", "frames", "epic_clips.json")
"""What exports write into their folder, beside `clips-*`."""


class NewExport:
    """An export under way, made by `new_export`. Names of files are relative, with `/`."""

    def __init__(self, folder: Folder, old: list[str]) -> None:
        self.folder = folder
        self._old = old  # names of an earlier export's files, and of claimed folders with a `/` at the end
        self._drafts: dict[str, Sink] = {}
        self._final: dict[str, str] = {}  # the name of each draft in the finished export, as far as it is known
        self._claimed: list[str] = []
        self._placed: list[str] = []  # files that have their final names
        self._mark()

    def open(self, name: str) -> Sink:
        """A file to write and close. It is called `name` once the export is finished."""
        self._final[name] = name
        return self.open_draft(name)

    def open_draft(self, name: str) -> Sink:
        """A file to write and close whose final name is not known yet: `rename` gives it."""
        self._mark(name)
        self._drafts[name] = sink = self.folder.open(name + SUFFIX)
        return sink

    def rename(self, final: dict[str, str]) -> None:
        """Give drafts their names in the finished export: `{name of open_draft: final name}`."""
        self._final |= final
        self._mark()

    def write(self, name: str, data: bytes) -> None:
        """A whole file at once."""
        with self.open(name) as sink:
            sink.write(data)

    @contextmanager
    def local_file(self, name: str) -> Iterator[Path]:
        """A local path to fill, for writers that must seek; its content is `name` once the export is finished.

        If the block removes the file, it is not part of the export.
        """
        with tempfile.TemporaryDirectory(prefix="handloom-export-") as place:
            path = Path(place) / os.path.basename(name)
            yield path
            if not path.exists():
                return
            with path.open("rb") as source, self.open(name) as sink:
                while block := source.read(COPY_BYTES):
                    sink.write(block)

    def claim(self, folder: str) -> None:
        """Take a folder of the export for files that are not named one by one. An earlier export's folder is removed.

        Files go there with `open_inside`, under their final names at once.
        """
        self._claimed.append(folder + "/")
        self._mark()
        self.folder.remove_files([INDEX])
        self.folder.remove_folder(folder)

    def open_inside(self, name: str) -> Sink:
        """A file in a claimed folder."""
        if not any(name.startswith(folder) for folder in self._claimed):
            raise ValueError(f"{name} is in none of the claimed folders {self._claimed}")
        return self.folder.open(name)

    def files(self) -> list[dict[str, Any]]:
        """`path`, `num_bytes` and `sha256` of every file so far, sorted, without those in claimed folders."""
        drafts = sorted(self._drafts.items())
        return [{"path": n, "num_bytes": s.num_bytes, "sha256": s.digest.hexdigest()} for n, s in drafts]

    def finish(self, index: dict[str, Any], last: Sequence[str] = ()) -> dict[str, Any]:
        """Give the files their names, those in `last` at the end and in that order, and write the index; returns it."""
        draft_of = {final: draft for draft, final in self._final.items()}
        names = [*sorted(name for name in draft_of if name not in last), *last]
        index = {"handloom_export": INDEX_VERSION, **index, "files": [*sorted(names), *self._claimed]}
        self.folder.remove_files([INDEX])
        remove_files(self.folder, [name for name in self._old if name not in self._claimed])
        for name in names:
            self.folder.move(draft_of[name] + SUFFIX, name)
            self._placed.append(name)
        self.folder.write_json(INDEX, index)
        self._drafts, self._placed, self._claimed = {}, [], []  # the export is whole: there is nothing to abandon
        self.folder.remove_files([MARK])
        return index

    def abandon(self) -> None:
        """Remove what was begun. The mark of an earlier, killed export stays with its files."""
        remove_files(self.folder, [*(name + SUFFIX for name in self._drafts), *self._placed, *self._claimed])
        if self._old and read_record(self.folder, INDEX) is None:
            self._drafts, self._final, self._placed, self._claimed = {}, {}, [], []
            self._mark()
        else:
            self.folder.remove_files([MARK])

    def _mark(self, *more: str) -> None:
        drafts = [name + SUFFIX for name in (*self._drafts, *more)]
        files = sorted({*self._old, *drafts, *self._final.values(), *self._claimed})
        self.folder.write_json(MARK, {"handloom_export": INDEX_VERSION, "files": files})


@contextmanager
def new_export(out: str | Folder, *, overwrite: bool = False) -> Iterator[NewExport]:
    """Begin an export in `out`. The block ends with `finish`; if anything else ends it, what was begun is removed.

    Raises:
        ConfigError: `out` holds files and `overwrite` is false, or an index that no export wrote.
        StoreError: it cannot be written to.
    """
    folder = out if isinstance(out, Folder) else Folder.parse(out)
    old = earlier_files(folder, overwrite)
    folder.create()
    stale = [name for name in old if name.endswith(SUFFIX)]
    remove_files(folder, stale)
    export = NewExport(folder, sorted(set(old) - set(stale)))
    try:
        yield export
    except BaseException:  # Ctrl-C too: no half export stays behind; raised again
        with suppress(StoreError):  # the first error is the one to report
            export.abandon()
        raise


def earlier_files(folder: Folder, overwrite: bool) -> list[str]:
    """Files (and claimed folders, with a `/` at the end) of an earlier export, finished or not, that may be removed.

    Raises ConfigError where the folder is not empty and `overwrite` is false, or an index names anything outside.
    """
    present = folder.names()
    if not present:
        return []
    if not overwrite:
        raise ConfigError(
            f"{folder.uri!r} is not empty: it holds {len(present)} files, such as {present[0]!r}",
            "export into a new folder, or replace an earlier export with --overwrite",
        )
    found: list[str] = []
    for index in (INDEX, MARK):
        content = read_record(folder, index)
        if content is None:
            continue
        listed = content.get("files")
        if "handloom_export" not in content or not isinstance(listed, list) or not all(map(_is_ours, listed)):
            raise ConfigError(f"{index} in {folder.uri!r} was not written by an export", "export into a new folder")
        found += listed
    return sorted(set(found))


def _is_ours(name: Any) -> bool:
    """Whether exports write files of this name; no others are ever removed."""
    parts = name.split("/") if isinstance(name, str) else [".."]
    strange = ".." in parts or any(":" in part or "\\" in part for part in parts)
    return not strange and (parts[0].removesuffix(SUFFIX) in OURS or (len(parts) == 1 and name.startswith("clips-")))


def remove_files(folder: Folder, names: Sequence[str]) -> None:
    """Remove files, claimed folders (a `/` at the end), and the folders that this leaves empty."""
    folder.remove_files(name for name in names if not name.endswith("/"))
    for name in names:
        if name.endswith("/"):
            folder.remove_folder(name.rstrip("/"))
    folder.remove_empty({name.rsplit("/", 1)[0] for name in names if "/" in name.rstrip("/")})


def read_record(folder: Folder, name: str) -> dict[str, Any] | None:
    """The content of an index or a mark, None where there is none. Raises ConfigError if it is no JSON object."""
    data = folder.read(name)
    if data is None:
        return None
    hint = "it was not written by an export"
    try:
        content = json.loads(data)
    except ValueError as error:
        raise ConfigError(f"{name} in {folder.uri!r} is no JSON: {error}", hint) from error
    if not isinstance(content, dict):
        raise ConfigError(f"{name} in {folder.uri!r} is no JSON object", hint)
    return content
