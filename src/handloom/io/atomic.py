"""Files and folders that appear under their names only when they are whole, whatever is killed meanwhile.

On a disk they are written under another name and renamed. An object store shows an object only when all of it has
come, and cannot rename a folder: there the file that is written last says that the folder is whole.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import uuid4

from handloom.errors import StoreError
from handloom.io.addresses import is_remote, local_path
from handloom.io.remote import Options, open_filesystem

if TYPE_CHECKING:  # it opens pyarrow's file systems, which a worker does without
    from handloom.io.folder import Folder

UNFINISHED = ".unfinished"
"""How names of unfinished folders end; they begin with a dot."""


@contextmanager
def draft_of(path: Path) -> Iterator[Path]:
    """A path to write to, with the same suffix, that becomes `path` when the block ends well, and vanishes otherwise.

    Two processes may write the same file: the later one's stays. Raises OSError.
    """
    draft = path.with_name(f".{path.stem}.{uuid4().hex[:8]}{path.suffix}")
    try:
        yield draft
        os.replace(draft, path)
    finally:
        with suppress(OSError):
            draft.unlink(missing_ok=True)


@contextmanager
def atomic_file(path: str | Path) -> Iterator[Path]:
    """`draft_of` a file; folders on its way are made. Raises StoreError."""
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with draft_of(path) as draft:
            yield draft
    except OSError as error:
        hint = "check the folder, its permissions and its space"
        raise StoreError(f"cannot write {str(path)!r}: {error}", hint) from error


@contextmanager
def atomic_file_at(uri: str, options: Options = None) -> Iterator[Path]:
    """A local path to fill that becomes the file at a path or URI when the block ends well; folders are made.

    Raises:
        ConfigError: the URI's store cannot be opened. What disk and store raise (`remote_errors`) comes as it is.
    """
    if not is_remote(uri):
        path = Path(local_path(uri))
        path.parent.mkdir(parents=True, exist_ok=True)
        with draft_of(path) as draft:
            yield draft
        return
    with tempfile.TemporaryDirectory(prefix="handloom-") as place:
        draft = Path(place) / uri.rpartition("/")[2]
        yield draft
        filesystem, name = open_filesystem(uri, options)
        filesystem.put_file(str(draft), name)


@contextmanager
def atomic_folder(folder: Folder, name: str) -> Iterator[Folder]:
    """A folder to fill that is `name` in `folder` when the block ends well; an earlier one is replaced.

    In an object store it has its name from the first file on: write the file that says it is whole last.

    Raises:
        StoreError: the storage refuses.
    """
    draft = f".{name}.{uuid4().hex[:8]}{UNFINISHED}" if folder.is_local else name
    if draft == name:
        folder.remove(name)
    try:
        yield folder.sub(draft)
        if draft != name:
            folder.move(draft, name)
    except BaseException:  # Ctrl-C too: what was begun goes; raised again
        with suppress(StoreError):  # the first error is the one to report
            folder.remove(draft)
        raise
