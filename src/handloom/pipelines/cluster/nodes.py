"""Which nodes of the cluster a run works on, and why it leaves others.

Every node that can hold workers is tried before it gets work: it writes to the database and looks for some videos of
the list. A fault of one node alone (no mount, a read-only one, a full disk) must not cost a clip.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from handloom.errors import ConfigError, StoreError
from handloom.workers.place import host_of
from handloom.workers.probe import NodeReport, Trial, try_node, unreadable_videos

log = logging.getLogger(__name__)

NUM_VIDEOS = 8  # of the list, that every node looks for
REPLY_S = 60.0  # longest wait for a node's reply: it may have to load Python from a shared disk first
LATER_S, LATER_TIMES = 10.0, 4  # once half have replied: the others have so long, or so many times as long as those
LOOK_FOR_S = 20.0
NOTICED_S, LOOK_S = 45.0, 0.5
GONE_S = 5.0  # between two looks whether any node is left
OTHER_HINT = "install the same packages and put the same model files on all nodes (one image), the driver's too"
T = TypeVar("T")


@dataclass(frozen=True)
class Left:
    """A node on which the run no longer works."""

    host: str
    why: str


class NodeView:
    """The cluster's nodes as Ray reports them, and calls on them."""

    def hosts(self) -> dict[str, str]:
        """`{node id: host}` of the nodes that are alive and can hold workers."""
        return {n["NodeID"]: host_of(n) for n in ray.nodes() if n["Alive"] and n["Resources"].get("CPU", 0.0)}

    def own_id(self) -> str:
        """The driver's node."""
        return ray.get_runtime_context().get_node_id()

    def call(
        self, function: Callable[[Any], T], values: Mapping[str, Any], limit_s: float = REPLY_S
    ) -> dict[str, T | str]:
        """`{node id: function(values[node id])}`, on all nodes at once; a text says why a node did not reply.

        A call without a reply is left alone, it ends with the driver at the latest. `ray.cancel` of a task that
        completes at that moment would end the driver's process without a message (Ray 2.60: "Tried to complete task
        that was not pending").
        """
        remote, started = ray.remote(function), time.monotonic()
        refs = {remote.options(**_on(node_id)).remote(value): node_id for node_id, value in values.items()}
        replies: dict[str, T | str] = {}
        waiting = list(refs)
        while waiting and (left_s := limit_s - (time.monotonic() - started)) > 0:
            done, waiting = ray.wait(waiting, num_returns=1, timeout=left_s)
            replies |= {refs[ref]: _reply(ref) for ref in done}
            if len(replies) * 2 >= len(refs):
                limit_s = min(limit_s, max(LATER_S, LATER_TIMES * (time.monotonic() - started)))
        for ref in waiting:
            replies[refs[ref]] = f"it has not answered within {limit_s:.0f} s"
        return replies


class Nodes:
    """The cluster's nodes with CPUs.

    used: `{node id: host}` of those that get work. left: those that no longer get work.

    Args:
        trial: what each node must try.
        fits: whether the run's workers fit onto the cluster without these nodes (Ray's ids).
        gone_s: between two looks of `all_gone`.
        noticed_s: how long `lost_one` waits.
    """

    def __init__(
        self,
        trial: Trial,
        fits: Callable[[Collection[str]], bool],
        view: NodeView | None = None,
        gone_s: float = GONE_S,
        noticed_s: float = NOTICED_S,
    ) -> None:
        self._trial, self._fits, self._view = trial, fits, view or NodeView()
        self._gone_s, self._noticed_s = gone_s, noticed_s
        self._reports: dict[str, NodeReport] = {}
        self._first = True  # no work has been given yet
        self._next = 0.0
        self.used: dict[str, str] = {}
        self.left: dict[str, Left] = {}

    @property
    def without(self) -> frozenset[str]:
        """The nodes that get no work."""
        return frozenset(self.left)

    def left_nodes(self) -> dict[str, str]:
        """`{host: why it was left}`; where several hosts have one name, Ray's ids follow it."""
        hosts = [left.host for left in self.left.values()]
        return {
            left.host if hosts.count(left.host) == 1 else f"{left.host} ({node_id[:8]})": left.why
            for node_id, left in self.left.items()
        }

    def look(self) -> None:
        """Try nodes that have come, and use those that can work; drop those that have gone.

        If the driver's own node is the only one it is not tried: no other could do the work. `used` is empty while
        there is no node, and, after the first look, while no node can work: others may come.

        Raises:
            StoreError: at the first look, no node can write to the database.
            ConfigError: at the first look, most nodes have other versions than the driver. Later, such nodes are left.
        """
        hosts = self.drop_gone()
        new = {node_id: host for node_id, host in hosts.items() if node_id not in self.used | self.left}
        if not new:
            return
        first, self._first = self._first, False
        self.used |= new
        if hosts.keys() == {self._view.own_id()}:
            return
        started = time.monotonic()
        replies = self._view.call(try_node, dict.fromkeys(new, self._trial))
        for node_id, reply in replies.items():
            report = reply if isinstance(reply, NodeReport) else NodeReport({}, reply)
            self._reports[node_id] = report
            if report.problem is not None:
                self._drop(node_id, report.problem)
        self._leave_other_versions(first)
        log.info("tried nodes=%d dur_s=%.2f", len(new), time.monotonic() - started)
        if first and not self.used:
            raise _none_left(self.left)
        self._compare()

    def has_new(self) -> bool:
        """Whether nodes have come since the last look."""
        return bool(self._view.hosts().keys() - self.used.keys() - self.left.keys())

    def all_gone(self) -> bool:
        """Whether all nodes that get work have gone; looks every few seconds. A pool would wait for ever."""
        if time.monotonic() < self._next:
            return False
        self._next = time.monotonic() + self._gone_s
        if self.used.keys() & self._view.hosts().keys():
            return False
        self.drop_gone()
        return True

    def lost_one(self) -> bool:
        """Whether a node has gone: asked after an error that this would explain. Ray notices after half a minute."""
        num_left, until = len(self.left), time.monotonic() + self._noticed_s
        while len(self.left) == num_left and time.monotonic() < until:
            time.sleep(LOOK_S)
            self.drop_gone()
        return len(self.left) > num_left

    def drop_gone(self) -> dict[str, str]:
        """Leave nodes that have gone. Returns `{node id: host}` of those that are there."""
        hosts = self._view.hosts()
        for node_id in self.used.keys() - hosts.keys():
            self.left[node_id] = Left(self.used.pop(node_id), "it has gone from the cluster")
        return hosts

    def see(self, videos: Mapping[str, Sequence[str]]) -> dict[str, dict[str, str]]:
        """`{node: {URI: why it cannot be read there}}` of each node's `videos`; without nodes that do not reply."""
        trials = {node_id: replace(self._trial, videos=tuple(uris)) for node_id, uris in videos.items()}
        replies = self._view.call(_look_for, trials, LOOK_FOR_S)
        return {node_id: reply for node_id, reply in replies.items() if not isinstance(reply, str)}

    def spare(self, node_ids: Collection[str]) -> bool:
        """Whether the run can go on without these nodes."""
        return bool(self.used.keys() - set(node_ids)) and self._fits(self.without | set(node_ids))

    def leave(self, node_id: str, why: str) -> None:
        """Give the node no more work. The pool at work must be drained; the next one does without the node."""
        if node_id in self.used:
            self._drop(node_id, why)

    def _drop(self, node_id: str, why: str) -> None:
        self.left[node_id] = Left(self.used.pop(node_id), why)
        log.warning("node %s gets no work: %s", self.left[node_id].host, why)

    def _leave_other_versions(self, first: bool) -> None:
        """Leave nodes that would make other rows. If most would at the first look, it is the driver that differs."""
        reports = {i: self._reports[i] for i in self.used if i in self._reports}
        other = {i: report.other for i, report in reports.items() if report.other}
        if first and len(other) * 2 > len(self.used):
            raise ConfigError("; ".join(other.values()), OTHER_HINT)
        for node_id, how in other.items():
            self._drop(node_id, how)

    def _compare(self) -> None:
        """Leave nodes that read fewer than half of the videos that another node reads."""
        unreadable = {node_id: self._reports[node_id].unreadable for node_id in self.used if node_id in self._reports}
        num_read = {node_id: len(self._trial.videos) - len(found) for node_id, found in unreadable.items()}
        if not num_read:
            return
        best = max(num_read, key=lambda node_id: num_read[node_id])
        for node_id, num in num_read.items():
            if num * 2 < num_read[best] and self.spare([node_id]):
                why = next(why for uri, why in unreadable[node_id].items() if uri not in unreadable[best])
                counts = f"reads {num} of {len(self._trial.videos)} videos, {self.used[best]} {num_read[best]}"
                self._drop(node_id, f"{counts} ({why})")


def trial_videos(uris: Sequence[str]) -> tuple[str, ...]:
    """A few videos, spread over the list."""
    distinct = list(dict.fromkeys(uris))
    return tuple(distinct[:: max(1, len(distinct) // NUM_VIDEOS)][:NUM_VIDEOS])


def _look_for(trial: Trial) -> dict[str, str]:
    return unreadable_videos(trial.videos, trial.source_options)


def _on(node_id: str) -> dict[str, Any]:
    """Ray's options of a task that reserves nothing, on this node or not at all."""
    there = NodeAffinitySchedulingStrategy(node_id, soft=False)
    return {"num_cpus": 0, "max_retries": 0, "scheduling_strategy": there}


def _reply(ref: ray.ObjectRef) -> Any:
    try:
        return ray.get(ref)
    except ray.exceptions.RayTaskError as error:  # handloom is missing there, or is another version
        cause = error.cause if isinstance(error.cause, BaseException) else error
        return f"{type(cause).__name__}: {str(cause).strip().splitlines()[-1]}"
    except ray.exceptions.RayError as error:
        return f"{type(error).__name__}: {str(error).strip().splitlines()[0]}"


def _none_left(left: Mapping[str, Left]) -> StoreError:
    said = "; ".join(f"{node.host}: {node.why}" for node in left.values())
    return StoreError(f"no node of the cluster can work for this run: {said}", "correct that, then run again")
