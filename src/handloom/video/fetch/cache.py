"""The folder of fetched videos: one for each user and node, of limited size, which never fills the disk."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import stat
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

WAIT_S = 0.2
IN_USE_S = 120.0  # a video used so recently is not evicted: a decoder may be about to open it
KEPT_FREE_BYTES, KEPT_FREE_SHARE = 1 << 30, 0.05  # of the disk, the smaller of the two: for others who write there
BOOKKEEPING = (".lock", ".part", ".map")


def cache_folder(setting: str = "") -> str:
    """Where this user's fetched videos are kept on this node.

    setting: `resources.fetch_cache_dir`; empty: the node's own temporary folder.
    """
    return str(Path(setting or tempfile.gettempdir()).expanduser() / f"handloom-videos-{os.getuid()}")


class NoSpaceError(OSError):
    """The disk of the cache is too full."""


class FetchCache:
    """Files by name, each fetched under a lock; beyond `limit_bytes` the longest unused are removed first."""

    def __init__(self, folder: str, limit_bytes: int, disk_usage: Callable[[Path], Any] = shutil.disk_usage) -> None:
        self.folder = Path(folder)
        self._limit_bytes, self._disk_usage = limit_bytes, disk_usage

    @contextmanager
    def locked(self, name: str, alive: Callable[[], None]) -> Iterator[Path]:
        """The path of this name, with a file or without, while no other actor of the node fetches it. Raises OSError.

        alive: called now and then while this actor waits for another one.
        """
        self._own_folder()
        with open(self.folder / f"{name}.lock", "w") as lock:
            while not _is_locked(lock):
                alive()
                time.sleep(WAIT_S)
            yield self.folder / name

    def free_space(self, num_bytes: int, keep: Path) -> None:
        """Remove the longest unused files until `num_bytes` more are within the limit and fit on the disk.

        A removed file stays readable through open handles. Raises NoSpaceError if the disk stays too full.
        """
        used = sorted(_uses(f for f in self.folder.iterdir() if f.suffix not in BOOKKEEPING and f != keep))
        total = sum(size for _, size, _ in used)
        for used_at, size, path in used:
            fits = total + num_bytes <= self._limit_bytes and self.spare_bytes() >= num_bytes
            if fits or used_at > time.time() - IN_USE_S:
                break
            for file in (path, path.with_name(f"{path.name}.map")):
                file.unlink(missing_ok=True)
            total -= size
        self.check_space(num_bytes)

    def check_space(self, num_bytes: int) -> None:
        """Raise NoSpaceError unless the disk has `num_bytes` and, beyond these, the space that is left to others."""
        spare = self.spare_bytes()
        if num_bytes > spare:
            raise NoSpaceError(
                f"{num_bytes} bytes are needed, {max(spare, 0)} can be used: {self._disk().free} are free on the disk, "
                f"{self._kept_free()} of these are left to others"
            )

    def spare_bytes(self) -> int:
        """Bytes that may still be written to the disk; below 0 where others have filled it."""
        return self._disk().free - self._kept_free()

    def _kept_free(self) -> int:
        return min(KEPT_FREE_BYTES, int(KEPT_FREE_SHARE * self._disk().total))

    def _disk(self) -> Any:
        return self._disk_usage(self.folder)

    def _own_folder(self) -> None:
        """Make the folder. Raises OSError where it is another user's, who could put other videos there."""
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = self.folder.lstat()
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid():
            kind = "a link" if stat.S_ISLNK(found.st_mode) else f"of user {found.st_uid}"
            raise PermissionError(
                f"it is {kind}, expected a folder of user {os.geteuid()}: remove it, or set resources.fetch_cache_dir"
            )


def _is_locked(lock: TextIO) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _uses(files: Iterable[Path]) -> Iterator[tuple[float, int, Path]]:
    """(time of last use, bytes on the disk by this name, path); without files that another actor removes meanwhile."""
    for file in files:
        with contextlib.suppress(FileNotFoundError):
            found = file.stat()
            yield found.st_mtime, min(found.st_size, found.st_blocks * 512) // max(found.st_nlink, 1), file
