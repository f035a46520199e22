"""Which of pytest-xdist's processes runs which test: `pytest -n 3`, as `make test` does."""

from __future__ import annotations

import re
from collections import Counter
from functools import cache
from pathlib import Path

import pytest
from xdist.scheduler import LoadScopeScheduling

RAY, RAY_TRAIN = "those that share a Ray", "those that share a Ray for training"
NEEDS_RAY = re.compile(r"^def test\w+\([^)]*\bray_address\b|usefixtures\(\"ray_address\"\)", re.MULTILINE)
TRAINS = re.compile(r"\bhandloom\.(pipelines\.(train|cluster\.reservation)|workers\.training)\b")
# Few tests, but long ones: they extract the clips that `expected` is about, some with Rays of their own.
EXTRACTS = re.compile(r"^def test\w+\([^)]*\bclips, expected\b", re.MULTILINE)


def scope_of(path: Path) -> str:
    """What one process must run: a file, or the files that share a Ray. There are two Rays: such tests mostly wait."""
    text = _text(path)
    if not NEEDS_RAY.search(text):
        return str(path)
    return RAY_TRAIN if TRAINS.search(text) else RAY


def shares_ray(path: Path) -> bool:
    """Whether the tests of the file share a Ray. `sort` puts those first."""
    return scope_of(path) in (RAY, RAY_TRAIN)


@cache
def _text(path: Path) -> str:
    return path.read_text()


def sort(items: list[pytest.Item]) -> None:
    """Long scopes first, the Rays' before all; then those with many tests, so that small ones fill up the end."""
    num = Counter(scope_of(item.path) for item in items)

    def place(item: pytest.Item) -> tuple[bool, bool, int]:
        scope = scope_of(item.path)
        return not shares_ray(item.path), not EXTRACTS.search(_text(item.path)), -num[scope]

    items.sort(key=place)


class ByScope(LoadScopeScheduling):
    """Gives each process one scope after another, in the order of `sort`."""

    def __init__(self, config: pytest.Config, log) -> None:
        super().__init__(config, log)
        config.option.loadscopereorder = False
        self._root = config.rootpath

    def _split_scope(self, nodeid: str) -> str:
        return scope_of(self._root / nodeid.partition("::")[0])
