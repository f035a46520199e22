"""This machine's file system, which fails at a chosen change: the process is killed, or the disk refuses."""

from __future__ import annotations

from typing import Any

from pyarrow import fs

CHANGES = ("create_dir", "delete_dir", "delete_file", "move", "open_output_stream", "write")


class Killed(BaseException):
    """Stands for SIGKILL: no change after it reaches the disk."""


class DyingFilesystem:
    """pyarrow's local file system (or a stream of it) that raises `Killed` for change number `end` and all after it.

    once: OSError for that change alone, in place of a kill.
    """

    def __init__(
        self, end: int, once: bool = False, wrapped: Any = None, parent: DyingFilesystem | None = None
    ) -> None:
        self.num_changes = 0
        self._end, self._once, self._wrapped, self._parent = end, once, wrapped or fs.LocalFileSystem(), parent

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._wrapped, name)
        if name not in CHANGES:
            return found

        def change(*args: Any, **kwargs: Any) -> Any:
            (self._parent or self).count()
            done = found(*args, **kwargs)
            return DyingFilesystem(0, wrapped=done, parent=self) if name == "open_output_stream" else done

        return change

    def count(self) -> None:
        number, self.num_changes = self.num_changes, self.num_changes + 1
        if self._once and number == self._end:
            raise OSError("the disk refuses")
        if not self._once and number >= self._end:
            raise Killed
