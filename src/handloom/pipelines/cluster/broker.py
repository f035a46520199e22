"""One cluster for extraction and training: jobs publish, through a small actor, what they ask for and hold.

A training job asks for resources (`handloom.pipelines.cluster.reservation`). A run of extraction that sees it scales
down (`handloom.pipelines.cluster.scaling`): it finishes the clips in flight, commits, starts again with fewer actors,
and takes the resources back when they are free.
"""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

import ray

from handloom.errors import ConfigError
from handloom.pipelines.cluster.capacity import Amounts, ClusterSnapshot, amounts_text, look
from handloom.workers.place import on_this_node

ACTOR, NAMESPACE = "handloom-shares", "handloom"
RENEW_S = 2.0
LAPSE_S = 15.0
REMIND_S = 60.0  # between two log lines of a job that waits
CALL_TIMEOUT_S = 10.0
WAITING, GRANTED, HOLDING = "waiting", "granted", "holding"
EXTRACTION, TRAINING = "extraction", "training"
NO_REPLY = (ray.exceptions.RayError, ray.exceptions.GetTimeoutError)


@dataclass(frozen=True)
class JobDemand:
    """What one job asks for or holds.

    Args:
        job: unique; the job's name in messages.
        kind: `extraction` or `training`.
        bundles: each is reserved on one node, `{"CPU": 1.0, "GPU": 0.5}`.
        state: `waiting` for free resources; `granted`: they are free, and the job is about to take them, for the first
            time or after its workers have died; `holding`.
    """

    job: str
    kind: str
    bundles: tuple[Amounts, ...]
    state: str

    def needs(self, name: str) -> float:
        return sum(bundle.get(name, 0.0) for bundle in self.bundles)

    def text(self) -> str:
        """`training arm4r (4 CPUs and 1 GPUs)`"""
        return f"{self.job} ({amounts_text({name: self.needs(name) for name in ('CPU', 'GPU')})})"


class ResourceBroker:
    """The demands of all jobs. Each is renewed every few seconds; that of a job that has died lapses.

    The actor belongs to the job that started it, and ends with it. The other jobs then start it again: every renewal
    carries the whole demand, so nothing is lost.
    """

    def __init__(self) -> None:
        self._demands: dict[str, tuple[JobDemand, float]] = {}

    def put(self, demand: JobDemand) -> None:
        self._demands[demand.job] = (demand, time.monotonic())

    def drop(self, job: str) -> None:
        self._demands.pop(job, None)

    def entries(self) -> list[JobDemand]:
        """Those that have not lapsed, the oldest first."""
        now = time.monotonic()
        self._demands = {job: (demand, at) for job, (demand, at) in self._demands.items() if now - at < LAPSE_S}
        return [demand for demand, _ in self._demands.values()]


class ClusterView:
    """What a job sees of its cluster: the resources, from Ray, and the demands of other jobs, from the broker."""

    def look(self, without: Collection[str] = ()) -> ClusterSnapshot:
        """The resources now; without these nodes (Ray's ids)."""
        return look(without)

    def others(self, job: str) -> list[JobDemand]:
        """The demands of all jobs but `job`."""
        return others(job)

    def holders_text(self, job: str) -> str:
        """Who holds what of the cluster, besides `job`."""
        return holders_text(self.look(), self.others(job))


def named(what: str) -> str:
    """`training arm4r [node1:4711]`: the name of this process's job."""
    return f"{what} [{socket.gethostname()}:{os.getpid()}]"


def others(job: str) -> list[JobDemand]:
    """The demands of all other jobs; empty where no job has ever started the broker."""
    actor = _actor(create=False)
    if actor is None:
        return []
    try:
        return [demand for demand in ray.get(actor.entries.remote(), timeout=CALL_TIMEOUT_S) if demand.job != job]
    except NO_REPLY:
        return []  # it ended with the job that owned it; the jobs that are left start it again


class Lease:
    """This job's demand, renewed by a thread until the block ends.

    create: start the actor if there is none. A run does not: alone on a cluster it has no job to coordinate with.
    """

    def __init__(self, demand: JobDemand, create: bool) -> None:
        self._demand, self._create = demand, create
        self._changed, self._ended = threading.Event(), False
        self._actor = None  # Ray ends an actor once the handle of its owner is gone
        self._thread = threading.Thread(target=self._renew, daemon=True, name="demand")

    def __enter__(self) -> Lease:
        self._put()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended = True
        self._changed.set()
        self._thread.join()
        if self._actor is not None:
            _is_done(self._actor.drop.remote(self._demand.job))
        self._actor = None

    def change(self, state: str, bundles: Sequence[Amounts] | None = None) -> None:
        """Publish another state, and other bundles where they are given."""
        bundles = self._demand.bundles if bundles is None else tuple(bundles)
        self._demand = replace(self._demand, state=state, bundles=bundles)
        self._changed.set()

    def _renew(self) -> None:
        while not self._ended:
            self._changed.wait(RENEW_S)
            self._changed.clear()
            if not self._ended:
                self._put()

    def _put(self) -> None:
        self._actor = self._actor or _actor(self._create)
        if self._actor is not None and not _is_done(self._actor.put.remote(self._demand)):
            self._actor = None  # it ended with the job that owned it


def not_free(asked: Sequence[Amounts], wait_s: float, holders: str) -> ConfigError:
    """The error of a cluster that stayed full for `wait_s`. holders: see `holders_text`."""
    return ConfigError(
        f"{asked_text(asked)} did not become free within {wait_s:g} s: {holders}",
        "wait for the other jobs to end, ask for less, add nodes, or raise resources.wait_s; extraction started with a "
        "lower resources.num_actors, or with resources.reserve_cpus, leaves more free",
    )


def asked_text(bundles: Sequence[Amounts]) -> str:
    """`2 x 4 CPUs and 1 GPUs`"""
    texts = [amounts_text(bundle) for bundle in bundles]
    return " + ".join(f"{texts.count(text)} x {text}" for text in dict.fromkeys(texts))


def holders_text(cluster: ClusterSnapshot, demands: Sequence[JobDemand]) -> str:
    """`of 8 CPUs 6 CPUs are free; held by training arm4r (2 CPUs)`; what no job of handloom holds is added up."""
    known = [demand for demand in demands if demand.state != WAITING]
    parts = [demand.text() for demand in known]
    rest = {name: cluster.used(name) - sum(demand.needs(name) for demand in known) for name in ("CPU", "GPU")}
    if any(amount > 0.01 for amount in rest.values()):
        parts.append(f"jobs outside of handloom ({amounts_text({k: max(0.0, v) for k, v in rest.items()})})")
    free = {name: cluster.free_of(name) for name in ("CPU", "GPU")}
    held = f"held by {', '.join(parts)}" if parts else "no job holds any"
    return f"of {amounts_text(cluster.total)} {amounts_text(free)} are free; {held}"


def _actor(create: bool):
    """The cluster's broker; None if there is none."""
    if not ray.is_initialized():
        return None
    try:
        if not create:
            return ray.get_actor(ACTOR, namespace=NAMESPACE)
        options = {"max_concurrency": 1, "get_if_exists": True, **on_this_node()}
        return ray.remote(ResourceBroker).options(name=ACTOR, namespace=NAMESPACE, **options).remote()
    except (ValueError, *NO_REPLY):
        return None


def _is_done(call: ray.ObjectRef) -> bool:
    try:
        ray.get(call, timeout=CALL_TIMEOUT_S)
    except NO_REPLY:
        return False
    return True
