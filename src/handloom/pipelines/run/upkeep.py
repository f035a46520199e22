"""Merges small fragments of `clips`, and drops old versions, while a run is at work."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from datetime import timedelta
from types import TracebackType
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from handloom.errors import StoreError
from handloom.pipelines.run.interrupts import Interrupts
from handloom.schemas.settings import Resources
from handloom.store.clips.upkeep import plan, put_in_place, rewrite, tidy
from handloom.store.tables import Tables

log = logging.getLogger(__name__)

NUM_TASKS = {True: 1, False: 4}
"""Of them at once, by whether the database is a folder. One copies 240 rows of a megabyte in a second: what 500 cores
make."""
AGAIN_S = 60.0  # after another writer has changed fragments that were merged
TIDY_EVERY_S = 6 * 3600.0  # reads the manifests of all versions: 5 s for 1000 of them
END_S = 60.0
MAX_FAILURES = 3


class Upkeep:
    """Ray tasks copy the rows, the driver commits them. Leaving the context ends it: normally after the tasks at work,
    after an exception or Ctrl-C at once (copied files that no version uses are deleted after a week).

    Nothing here can fail a run: after `MAX_FAILURES` failures it leaves the table as it is.

    allowed: raises if this driver may not write any more.
    """

    def __init__(
        self, db: Tables, resources: Resources, interrupts: Interrupts, allowed: Callable[[], None] = lambda: None
    ) -> None:
        self._db, self._resources, self._interrupts, self._allowed = db, resources, interrupts, allowed
        self._planned: list[str] = []
        self._planned_at: int | None = None  # version
        self._copying: list[ray.ObjectRef] = []
        self._tidying: list[ray.ObjectRef] = []  # one at most
        self._plan_after = self._tidy_after = 0.0
        self._num_failures = 0

    def __enter__(self) -> Upkeep:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None):
        self._planned = []
        if kind is None and self._copying:
            ray.wait(self._copying, num_returns=len(self._copying), timeout=END_S)
            self._collect()
        self._copying, self._tidying = [], []  # they go on to their end, or to the driver's: see `NodeView.call`

    def tick(self, version: int | None) -> None:
        """Commit what is copied, and start what is due; takes milliseconds. The one place where fragments are merged.

        Call it between commits, and only while no column update is under way: updates refer to fragments by number.

        Args:
            version: of `clips`, the newest that the driver knows. Nothing new is planned until it changes.

        Raises StoreError if `allowed` does.
        """
        self._collect()
        if self._num_failures >= MAX_FAILURES:
            self._planned = []
        elif self._is_due(version):
            self._planned, self._planned_at = self._plan(), version
        while self._planned and len(self._copying) < NUM_TASKS[self._db.location.is_local]:
            self._copying.append(self._start(rewrite, self._db.uri, self._planned.pop(0), self._db.storage_options))

    def _is_due(self, version: int | None) -> bool:
        idle = not self._planned and not self._copying
        return idle and version != self._planned_at and time.monotonic() >= self._plan_after

    def _collect(self) -> None:
        ready, self._copying = _ready(self._copying)
        if copied := [text for ref in ready if (text := self._result(ref)) is not None]:
            self._put(copied)
        ready, self._tidying = _ready(self._tidying)
        for ref in ready:
            log.info("dropped old versions of clips num=%s", self._result(ref))

    def _plan(self) -> list[str]:
        try:
            return plan(self._db, self._resources.max_small_fragments)
        except StoreError as error:
            self._failed(error)
            return []

    def _put(self, copied: list[str]) -> None:
        self._allowed()
        try:
            with self._interrupts.held():
                version = put_in_place(self._db, copied)
        except StoreError as error:
            self._failed(error)
            return
        if version is None:
            self._planned, self._plan_after = [], time.monotonic() + AGAIN_S
            return
        log.info("merged small fragments tasks=%d version=%d", len(copied), version)
        if not self._tidying and time.monotonic() >= self._tidy_after:
            self._tidy_after = time.monotonic() + TIDY_EVERY_S
            self._tidying = [self._start(tidy, self._db, timedelta(days=self._resources.keep_versions_days))]

    def _start(self, function: Callable[..., Any], *args: Any) -> ray.ObjectRef:
        """A task that reserves nothing: on this node if the database is a folder, as others may not have it."""
        where: Any = "SPREAD"
        if self._db.location.is_local:
            where = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        options = {"num_cpus": 0, "max_retries": 0, "scheduling_strategy": where}
        return ray.remote(function).options(**options).remote(*args)

    def _result(self, ref: ray.ObjectRef) -> Any:
        try:
            return ray.get(ref)
        except ray.exceptions.RayError as error:
            self._failed(error)
            return None

    def _failed(self, error: Exception) -> None:
        self._num_failures += 1
        text = str(error).strip().splitlines()[-1]
        log.warning("small fragments are not merged num_failures=%d error=%s", self._num_failures, text)


def _ready(refs: list[ray.ObjectRef]) -> tuple[list[ray.ObjectRef], list[ray.ObjectRef]]:
    """Those that have a result, and the others."""
    return ray.wait(refs, num_returns=len(refs), timeout=0) if refs else ([], [])
