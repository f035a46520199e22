"""The pool of a run in this process, for tests about what a run computes and commits, not about Ray's processes."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Collection, Iterator, Sequence
from typing import Any

from handloom.pipelines.run.driver import RunParts
from handloom.workers.groups.processor import GroupProcessor
from handloom.workers.setup import WorkerSetup
from handloom.workers.shard import Shard, ShardResult


class InProcess:
    """Stands in for `pipelines.run.graph.Graph`: one worker of each group of stages, in this process.

    The ledger, the nodes and all else of the run are real. Saved is what an actor takes: 4 s of CPU time, for imports
    and models. Not for videos that are remote, nor for faults that end a process.
    """

    def __init__(
        self, shards: Sequence[Shard], setup: WorkerSetup, pools: object, ledger: Any, without: Collection[str] = ()
    ) -> None:
        self._shards, self._setup, self._ledger = shards, setup, ledger
        self._closed = threading.Event()

    def __iter__(self) -> Iterator[ShardResult]:
        with contextlib.ExitStack() as workers:
            groups = range(len(self._setup.groups))
            first, *others = (GroupProcessor(self._setup, self._ledger, number) for number in groups)
            for worker in (first, *others):
                workers.callback(worker.close)
            for shard in self._shards:
                if self._closed.is_set():
                    return
                passed = first.first(shard)
                for worker in others:
                    (passed,) = worker.process([passed])
                yield ShardResult.from_json(passed.result.to_json())

    def close(self) -> None:
        """Begin no other shard."""
        self._closed.set()


HERE = RunParts(graph=InProcess)
"""`run(..., parts=HERE)`: computed in this process."""
