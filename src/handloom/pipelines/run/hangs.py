"""Kills workers that hang: a process that is stopped, or holds its interpreter's lock, cannot end itself."""

from __future__ import annotations

import logging
import time
from typing import Any

import ray

from handloom.errors import HandloomError
from handloom.pipelines.cluster.nodes import Nodes
from handloom.workers.ledger import MAX_HANGS, Doing, Overdue

log = logging.getLogger(__name__)

LOOK_S = 1.0
REPLY_S = 10.0


class Deadlines:
    """Looks for work that is over its time limit. Ray starts a killed worker again, and gives it the shard again."""

    def __init__(self, ledger: ray.actor.ActorHandle, nodes: Nodes) -> None:
        self._ledger, self._nodes = ledger, nodes
        self._next = 0.0

    def look(self) -> bool:
        """Kill workers that hang; at most once a second.

        Returns:
            Whether the pool at work must end, because it has lost a node: models did not load there in time, or a
            worker hung twice in one shard and outside of any clip.

        Raises:
            HandloomError: that happened, and no other node can do the work.
        """
        if time.monotonic() < self._next:
            return False
        self._next = time.monotonic() + LOOK_S
        try:
            overdue: list[Overdue] = ray.get(self._ledger.overdue.remote(), timeout=REPLY_S)
        except ray.exceptions.GetTimeoutError:
            return False  # the machine is too busy: try again at the next look
        return any([self._kill(late) for late in overdue])

    def _kill(self, late: Overdue) -> bool:
        doing = late.doing
        times: Any = ray.get(self._ledger.give_up.remote(late))
        if not times or late.handle is None:
            return False
        is_loading, problem = not doing.clip_ids, _problem(doing, late.seconds)
        log.warning("%s: it is killed", problem)
        ray.kill(late.handle, no_restart=is_loading)
        if doing.clip_id is not None or (doing.clip_ids and times < MAX_HANGS):
            return False
        if self._nodes.spare([doing.node_id]):
            self._nodes.leave(doing.node_id, problem)
            return True
        hint = "look at the node, its disk and its network; raise resources.load_s if loading is slow there"
        if not is_loading:
            hint = "finished clips are committed: look at the database's disk or store, then run again to go on"
        raise HandloomError(f"{problem}: the run stops", hint)


def _problem(doing: Doing, seconds: float) -> str:
    clips = f"clip {doing.clip_id}" if doing.clip_id else f"{len(doing.clip_ids)} clips" if doing.clip_ids else "models"
    where = f"worker {doing.pid} on {doing.host}"
    return f"{where} has been at stage {doing.stage} ({clips}) for {seconds:.0f} s, the limit is {doing.limit_s:.0f} s"
