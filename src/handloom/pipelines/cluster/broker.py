"""One cluster for extraction and training: jobs tell each other, through a small actor, what they ask for and hold.

A training job asks for resources (`handloom.pipelines.cluster.reservation`). A run of extraction that sees it scales
down (`handloom.pipelines.cluster.scaling`): it finishes the clips in flight, commits, starts again with fewer actors,
and takes the resources back when they are free.
"""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

import ray

from handloom.errors import ConfigError
from handloom.pipelines.cluster.capacity import Amounts, amounts_text, look
from handloom.workers.place import on_this_node

ACTOR, NAMESPACE = "handloom-shares", "handloom"
RENEW_S = 2.0
LAPSE_S = 15.0
REMIND_S = 60.0
CALL_TIMEOUT_S = 10.0
WAITING, GRANTED, HOLDING = "waiting", "granted", "holding"
EXTRACTION, TRAINING = "extraction", "training"
TOLD = (ray.exceptions.RayError, ray.exceptions.GetTimeoutError)


@dataclass(frozen=True)
class JobDemand:
    """What one job asks for or holds. job: unique, and what messages call it. kind: `extraction` or `training`.

    bundles: each is reserved on one node, `{"CPU": 1.0, "GPU": 0.5}`. state: `waiting` for room; `granted`: there is
    room, and it is about to be taken, for the first time or after workers have died; `holding`.
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
    """Everybody's entries. Each is renewed every few seconds; those of jobs that died lapse.

    It belongs to the job that started it, and ends with it. The others then start it again: every renewal carries the
    whole entry, so nothing is lost.
    """

    def __init__(self) -> None:
        self._entries: dict[str, tuple[JobDemand, float]] = {}

    def put(self, entry: JobDemand) -> None:
        self._entries[entry.job] = (entry, time.monotonic())

    def drop(self, job: str) -> None:
        self._entries.pop(job, None)

    def entries(self) -> list[JobDemand]:
        """Those that have not lapsed, in order of their coming."""
        now = time.monotonic()
        self._entries = {job: (entry, at) for job, (entry, at) in self._entries.items() if now - at < LAPSE_S}
        return [entry for entry, _ in self._entries.values()]


def named(what: str) -> str:
    """`training arm4r [node1:4711]`: what the job of this process is called."""
    return f"{what} [{socket.gethostname()}:{os.getpid()}]"


def others(job: str) -> list[JobDemand]:
    """The entries of all other jobs; none where nobody has ever asked."""
    actor = _actor(create=False)
    if actor is None:
        return []
    try:
        return [e for e in ray.get(actor.entries.remote(), timeout=CALL_TIMEOUT_S) if e.job != job]
    except TOLD:
        return []  # it went down with its owner: those who still are there start it again


class Lease:
    """This job's entry, renewed by a thread until the block ends.

    create: start the actor where there is none. A run does not: alone on a cluster it needs nobody to talk to.
    """

    def __init__(self, entry: JobDemand, create: bool) -> None:
        self._entry, self._create = entry, create
        self._changed, self._ended = threading.Event(), False
        self._actor = None  # Ray ends an actor when the handle of who started it is gone
        self._thread = threading.Thread(target=self._renew, daemon=True, name="shares")

    def __enter__(self) -> Lease:
        self._put()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended = True
        self._changed.set()
        self._thread.join()
        if self._actor is not None:
            _told(self._actor.drop.remote(self._entry.job))
        self._actor = None

    def change(self, state: str, bundles: Sequence[Amounts] | None = None) -> None:
        """Say something else from now on."""
        self._entry = replace(
            self._entry, state=state, bundles=self._entry.bundles if bundles is None else tuple(bundles)
        )
        self._changed.set()

    def _renew(self) -> None:
        while not self._ended:
            self._changed.wait(RENEW_S)
            self._changed.clear()
            if not self._ended:
                self._put()

    def _put(self) -> None:
        self._actor = self._actor or _actor(self._create)
        if self._actor is not None and not _told(self._actor.put.remote(self._entry)):
            self._actor = None  # it went down with its owner


def no_room(job: str, asked: Sequence[Amounts], wait_s: float) -> ConfigError:
    """The error of a cluster that stayed full for `wait_s`."""
    return ConfigError(
        f"no room for {asked_text(asked)} within {wait_s:g} s: {holders_text(job)}",
        "wait for the others to end, ask for less, add nodes, or raise resources.wait_s; extraction started with a "
        "lower resources.num_actors, or with resources.reserve_cpus, leaves more",
    )


def asked_text(bundles: Sequence[Amounts]) -> str:
    """`2 x 4 CPUs and 1 GPUs`"""
    texts = [amounts_text(bundle) for bundle in bundles]
    return " + ".join(f"{texts.count(text)} x {text}" for text in dict.fromkeys(texts))


def holders_text(job: str) -> str:
    """Who holds what of the cluster, seen by `job`."""
    room, known = look(), [entry for entry in others(job) if entry.state != WAITING]
    parts = [f"{entry.text()}" for entry in known]
    rest = {name: room.used(name) - sum(entry.needs(name) for entry in known) for name in ("CPU", "GPU")}
    if any(amount > 0.01 for amount in rest.values()):
        parts.append(f"jobs that have not told handloom ({amounts_text({k: max(0.0, v) for k, v in rest.items()})})")
    free = {name: room.free_of(name) for name in ("CPU", "GPU")}
    held = f"held by {', '.join(parts)}" if parts else "nobody holds anything"
    return f"of {amounts_text(room.total)} {amounts_text(free)} are free; {held}"


def _actor(create: bool):
    """The cluster's; None where there is none."""
    if not ray.is_initialized():
        return None
    try:
        if not create:
            return ray.get_actor(ACTOR, namespace=NAMESPACE)
        options = {"max_concurrency": 1, "get_if_exists": True, **on_this_node()}
        return ray.remote(ResourceBroker).options(name=ACTOR, namespace=NAMESPACE, **options).remote()
    except (ValueError, *TOLD):
        return None


def _told(answer) -> bool:
    try:
        ray.get(answer, timeout=CALL_TIMEOUT_S)
    except TOLD:
        return False
    return True
