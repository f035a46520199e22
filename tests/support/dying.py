"""A database whose process is killed before it opens a table."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from handloom.api import Database


class Killed(BaseException):
    """Stands for a SIGKILL: handloom does not catch it."""


@dataclass(frozen=True)
class Dying(Database):
    """`opens`: ends where the process is killed, `iter(range(n))` before it opens a table for the n-th time."""

    opens: Iterator[int]

    def table(self, name, version=None):
        if next(self.opens, None) is None:
            raise Killed
        return super().table(name, version)
