"""Workers that hang are killed from outside: a process that stands still or holds its interpreter cannot end itself."""

from __future__ import annotations

import logging
import time

import ray

from handloom.errors import HandloomError
from handloom.pipelines.cluster.nodes import Nodes
from handloom.workers.ledger import MAX_HANGS, Doing, Overdue

log = logging.getLogger(__name__)

LOOK_S = 1.0
ANSWER_S = 10.0


class Deadlines:
    """Looks for work beyond its limit. Ray starts a killed worker's process again, and gives it the shard again."""

    def __init__(self, ledger: ray.actor.ActorHandle, nodes: Nodes) -> None:
        self._ledger, self._nodes = ledger, nodes
        self._next = 0.0

    def look(self) -> bool:
        """Kill what hangs; at most once a second.

        A node on which models cannot be loaded in time, or that hangs twice in one shard through no clip's fault, is
        left where others can do the work: then the pool at work is to end, and this is True.

        Raises:
            HandloomError: there is no other node.
        """
        if time.monotonic() < self._next:
            return False
        self._next = time.monotonic() + LOOK_S
        try:
            overdue = ray.get(self._ledger.overdue.remote(), timeout=ANSWER_S)
        except ray.exceptions.GetTimeoutError:
            return False  # a machine that busy: the next look
        return any([self._kill(late) for late in overdue])

    def _kill(self, late: Overdue) -> bool:
        doing = late.doing
        times = ray.get(self._ledger.give_up.remote(late))
        if not times or late.handle is None:
            return False
        is_loading, said = not doing.clip_ids, _said(doing, late.seconds)
        log.warning("%s: it is killed", said)
        ray.kill(late.handle, no_restart=is_loading)
        if doing.clip_id is not None or (doing.clip_ids and times < MAX_HANGS):
            return False
        if self._nodes.spare([doing.node_id]):
            self._nodes.leave(doing.node_id, said)
            return True
        hint = "look at the node, its disk and its network; raise resources.load_s where that is slow"
        if not is_loading:
            hint = "finished clips are committed: look at the database's disk or store, then run again to go on"
        raise HandloomError(f"{said}: the run stops", hint)


def _said(doing: Doing, seconds: float) -> str:
    clips = f"clip {doing.clip_id}" if doing.clip_id else f"{len(doing.clip_ids)} clips" if doing.clip_ids else "models"
    where = f"worker {doing.pid} on {doing.host}"
    return f"{where} has been at stage {doing.stage} ({clips}) for {seconds:.0f} s, the limit is {doing.limit_s:.0f} s"
