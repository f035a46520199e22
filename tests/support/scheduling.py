"""Which of pytest-xdist's processes runs which test: `pytest -n 3`, as `make test` does.

A process runs whole files. Two processes have a Ray each, and share the files whose tests need one: such tests mostly
wait. The others run what needs none, and those two help once no file is left that needs one.
"""

from __future__ import annotations

import re
from collections import Counter
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from xdist.scheduler import LoadScopeScheduling

NUM_RAYS = 2
NEEDS_RAY = re.compile(r"^def test\w+\([^)]*\bray_address\b|usefixtures\(\"ray_address\"\)", re.MULTILINE)
LONG = (
    "pipelines/test_run.py",
    "pipelines/test_pools.py",
    "pipelines/test_faults.py",
    "pipelines/test_resume.py",
    "pipelines/test_train.py",
    "pipelines/test_remote.py",
    "pipelines/test_recompute.py",
    "pipelines/test_sharing.py",
    "test_cli.py",
    "pipelines/test_stages_page.py",
    "pipelines/test_changed.py",
    "sim/test_sim.py",
    "test_lint.py",
    "pipelines/test_nodes.py",
    "store/test_lance_faults.py",
    "workers/test_extract.py",
    "windows/test_windows_processes.py",
    "web/front/test_every_page.py",
)
"""Longer than ten seconds, longest first, as they were measured: begun last, they would keep the others waiting."""


@cache
def shares_ray(path: Path) -> bool:
    """Whether tests of the file share a Ray. `sort` puts those first."""
    return NEEDS_RAY.search(path.read_text()) is not None


def sort(items: list[pytest.Item]) -> None:
    """The Rays' files before all, long ones first; then those with many tests, so that small ones fill up the end."""
    num = Counter(item.path for item in items)
    tests = Path(__file__).parents[1]
    place_of_long = {tests / name: place for place, name in enumerate(LONG)}

    def place(item: pytest.Item) -> tuple[bool, int, int]:
        return not shares_ray(item.path), place_of_long.get(item.path, len(LONG)), -num[item.path]

    items.sort(key=place)


class ByFile(LoadScopeScheduling):
    """Gives each process one file after another, in the order of `sort`; those on Ray to `NUM_RAYS` processes alone."""

    def __init__(self, config: pytest.Config, log: Any) -> None:
        super().__init__(config, log)
        config.option.loadscopereorder = False
        self._root = config.rootpath

    def _split_scope(self, nodeid: str) -> str:
        return nodeid.partition("::")[0]

    def _assign_work_unit(self, node: Any) -> None:
        """Give the process its next file: as the base class does, which takes the first of `workqueue`.

        Until it has two tests: it runs one when it knows the next. A process that has died leaves files of which all,
        or all but one, are done.
        """
        for file in [file for file, tests in self.workqueue.items() if all(tests.values())]:
            del self.workqueue[file]
        have_ray = {one for one, files in self.assigned_work.items() if any(map(self._shares_ray, files))}
        may = node in have_ray or len(have_ray) < NUM_RAYS
        file = next((file for file in self.workqueue if may or not self._shares_ray(file)), None)
        if file is None:  # the two do the rest; should one die, its files go to the process that takes its place
            node.shutdown()
            return
        self.workqueue.move_to_end(file, last=False)
        super()._assign_work_unit(node)
        if self._pending_of(self.assigned_work[node]) < 2:
            self._assign_work_unit(node)

    def _shares_ray(self, file: str) -> bool:
        return shares_ray(self._root / file)
