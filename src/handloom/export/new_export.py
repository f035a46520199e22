"""An export of many files that is whole or says that it is not.

Files are written as `NAME.unfinished` and get their names when all are there; `index.json` comes last, and
`index.unfinished.json` names everything that an export under way may leave behind. An earlier export is replaced only
when the new one is complete. Exports of too many files to name each (`claim`) fill a folder of their own instead, which
is cleared first.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from handloom.errors import ConfigError, StoreError
from handloom.export.files import INDEX, UNFINISHED, ExportFolder, HashingSink, storage_errors

SUFFIX = ".unfinished"
INDEX_VERSION = 1
COPY_BYTES = 2**20
OURS = ("README.md", "data", "meta", "videos", "epic_tasks_final", "frames", "epic_clips.json")
"""What exports write at the top, beside `clips-*`."""


class NewExport:
    """One export under way; made by `new_export`. Names are relative, with `/`."""

    def __init__(self, folder: ExportFolder, old: list[str]) -> None:
        self.folder = folder
        self._old = old  # names of an earlier export's files, and of claimed folders with a `/` at the end
        self._drafts: dict[str, HashingSink] = {}
        self._claimed: list[str] = []
        self._mark()

    def open(self, name: str) -> HashingSink:
        """A file to write; close it. It is called `name` once the export is finished."""
        self._drafts[name] = sink = self._begin(name)
        return sink

    def write(self, name: str, data: bytes) -> None:
        """A whole file at once."""
        sink = self.open(name)
        with storage_errors(f"write {name} in", self.folder.out):
            sink.write(data)
            sink.close()

    def _begin(self, name: str) -> HashingSink:
        self._mark(name)
        return self.folder.open_shard(name + SUFFIX)

    @contextmanager
    def local_file(self, name: str) -> Iterator[Path]:
        """A local path to fill, for writers that must seek; its content is `name` once the export is finished.

        Removed inside the block, it is no part of the export.
        """
        with tempfile.TemporaryDirectory(prefix="handloom-export-") as place:
            path = Path(place) / os.path.basename(name)
            yield path
            if not path.exists():
                return
            with path.open("rb") as source, storage_errors(f"write {name} in", self.folder.out):
                sink = self.open(name)
                while block := source.read(COPY_BYTES):
                    sink.write(block)
                sink.close()

    def claim(self, folder: str) -> None:
        """Take a folder of the export for files that are not named one by one; what an earlier export left is removed.

        Files go there with `open_inside`, under their final names at once.
        """
        self._claimed.append(folder + "/")
        self._mark()
        self.folder.remove([INDEX])
        self.folder.remove_folder(folder)

    def open_inside(self, name: str) -> HashingSink:
        """A file in a claimed folder."""
        if not any(name.startswith(folder) for folder in self._claimed):
            raise ValueError(f"{name} is in none of the claimed folders {self._claimed}")
        return self.folder.open_shard(name)

    def files(self) -> list[dict[str, Any]]:
        """`path`, `num_bytes` and `sha256` of every file so far, sorted; not of those in claimed folders."""
        drafts = sorted(self._drafts.items())
        return [{"path": name, "num_bytes": sink.tell(), "sha256": sink.sha256()} for name, sink in drafts]

    def finish(self, index: dict[str, Any], last: Sequence[str] = ()) -> dict[str, Any]:
        """Give the files their names, those in `last` at the end and in that order, and write the index; returns it."""
        files = self.files()
        names = [*(f["path"] for f in files if f["path"] not in last), *last]
        index = {"handloom_export": INDEX_VERSION, **index, "written": files}
        index["files"] = [*sorted(names), *self._claimed]
        self.folder.remove([INDEX])
        remove_files(self.folder, [name for name in self._old if name not in self._claimed])
        for name in names:
            self.folder.move(name + SUFFIX, name)
        self.folder.write_json(INDEX, index)
        self.folder.remove([UNFINISHED])
        return index

    def abandon(self) -> None:
        """Remove what was begun. The mark of an earlier, killed export stays with its files."""
        remove_files(self.folder, [*(name + SUFFIX for name in self._drafts), *self._claimed])
        if self._old and self.folder.read_json(INDEX) is None:
            self._drafts, self._claimed = {}, []
            self._mark()
        else:
            self.folder.remove([UNFINISHED])

    def _mark(self, *more: str) -> None:
        names = {name for draft in (*self._drafts, *more) for name in (draft, draft + SUFFIX)}
        files = sorted({*self._old, *names, *self._claimed})
        self.folder.write_json(UNFINISHED, {"handloom_export": INDEX_VERSION, "files": files})


@contextmanager
def new_export(out: str, *, overwrite: bool = False) -> Iterator[NewExport]:
    """Begin an export in `out`; the block ends with `finish`. Whatever else ends it, what was begun is removed.

    Raises:
        ConfigError: `out` holds files and `overwrite` is false, or holds something that no export wrote.
        StoreError: it cannot be written to.
    """
    folder = ExportFolder(out)
    old = earlier_files(folder, overwrite)
    folder.create()
    stale = [name for name in old if name.endswith(SUFFIX)]
    remove_files(folder, stale)
    export = NewExport(folder, sorted(set(old) - set(stale)))
    try:
        yield export
    except BaseException:  # Ctrl-C too: no half export stays behind; raised again
        with suppress(StoreError):  # the first error is the one to tell
            export.abandon()
        raise


def earlier_files(folder: ExportFolder, overwrite: bool) -> list[str]:
    """Files (and claimed folders, with a `/` at the end) of an earlier export, finished or not, that may be removed.

    Raises ConfigError where the folder is not empty and `overwrite` is false, or an index names anything outside.
    """
    present = folder.names()
    if not present:
        return []
    if not overwrite:
        raise ConfigError(
            f"{folder.out!r} is not empty: it holds {len(present)} files, such as {present[0]!r}",
            "export into a new folder, or replace an earlier export with --overwrite",
        )
    found: list[str] = []
    for index in (INDEX, UNFINISHED):
        content = folder.read_json(index)
        if content is None:
            continue
        listed = content.get("files")
        if "handloom_export" not in content or not isinstance(listed, list) or not all(map(_is_ours, listed)):
            raise ConfigError(f"{index} in {folder.out!r} was not written by an export", "export into a new folder")
        found += listed
    return sorted(set(found))


def _is_ours(name: Any) -> bool:
    """Whether some export writes files of this name; nothing else is ever removed."""
    parts = name.split("/") if isinstance(name, str) else [".."]
    strange = ".." in parts or any(":" in part or "\\" in part for part in parts)
    return not strange and (parts[0].removesuffix(SUFFIX) in OURS or (len(parts) == 1 and name.startswith("clips-")))


def remove_files(folder: ExportFolder, names: Sequence[str]) -> None:
    """Remove files, claimed folders (a `/` at the end), and the folders that this leaves empty."""
    folder.remove([name for name in names if not name.endswith("/")])
    for name in names:
        if name.endswith("/"):
            folder.remove_folder(name.rstrip("/"))
    folder.remove_empty({name.rsplit("/", 1)[0] for name in names if "/" in name.rstrip("/")})
