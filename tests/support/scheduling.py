"""Which of pytest-xdist's processes runs which test: `pytest -n 2`, as `make test` does."""

from __future__ import annotations

import re
from collections import Counter
from functools import cache
from pathlib import Path

import pytest
from xdist.scheduler import LoadScopeScheduling

CLUSTER = "those that share a Ray"
NEEDS_CLUSTER = re.compile(
    r"^def test\w+\([^)]*\b(ray_address|clips, expected)\b|usefixtures\(\"ray_address\"\)", re.MULTILINE
)


def scope_of(path: Path) -> str:
    """What has to stay in one process: a file, or all files that need the one Ray, which has the machine's CPUs."""
    return CLUSTER if _needs_cluster(path) else str(path)


@cache
def _needs_cluster(path: Path) -> bool:
    return NEEDS_CLUSTER.search(path.read_text()) is not None


def sort(items: list[pytest.Item]) -> None:
    """Scopes with many tests first, so that small ones fill up the end; before all others Ray's, which takes long."""
    sizes = Counter(scope_of(item.path) for item in items)
    sizes[CLUSTER] = len(items)
    items.sort(key=lambda item: -sizes[scope_of(item.path)])


class ByScope(LoadScopeScheduling):
    """Gives each process one scope after another, in the order of `sort`."""

    def __init__(self, config: pytest.Config, log) -> None:
        super().__init__(config, log)
        config.option.loadscopereorder = False
        self._root = config.rootpath

    def _split_scope(self, nodeid: str) -> str:
        return scope_of(self._root / nodeid.partition("::")[0])
