"""How a run of extraction shares its cluster: takes what is free, gives way to training, grows when there is room.

The pool of a run cannot change its size while it works. So the workers are told to stop after the clip in hand, what is
finished is committed, and the rest of the clips goes to a new pool. Every clip stays exactly one row or reject: what
was not finished has written nothing.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager

import ray
from ray.autoscaler.sdk import request_resources

from handloom.errors import StoreError
from handloom.pipelines.cluster import broker
from handloom.pipelines.cluster.broker import EXTRACTION, GRANTED, HOLDING, TRAINING, WAITING, JobDemand, Lease
from handloom.pipelines.cluster.capacity import (
    Amounts,
    ClusterSnapshot,
    Pools,
    actor_needs,
    amounts_text,
    could_hold,
    count_fitting,
    look,
    pools_now,
    size_pools,
)
from handloom.schemas.settings import Resources
from handloom.workers.shard import ShardResult

log = logging.getLogger(__name__)

POLL_S = 2.0
LOOK_S = 0.25
STEADY_S = 2.0
GRANT_S = 30.0
GROW_AFTER_S = 10.0
WAIT_S = 1.0
GROW_SHARE = 4  # grow by a quarter at least: a new pool costs seconds


class PoolScaler:
    """One run's share of the cluster, from pool to pool. Use as a context manager around the whole run."""

    def __init__(self, resources: Resources, db_uri: str, ledger: ray.actor.ActorHandle) -> None:
        self._resources, self._ledger = resources, ledger
        self._job = broker.named(f"extraction into {db_uri}")
        self._registered = Lease(JobDemand(self._job, EXTRACTION, (), HOLDING), create=False)
        self._in_vain: set[str] = set()  # requests that giving way did not help
        self._asked_for_nodes = False
        self._without: frozenset[str] = frozenset()

    def __enter__(self) -> PoolScaler:
        self._registered.__enter__()
        return self

    def __exit__(self, *trace: object) -> None:
        self._registered.__exit__(*trace)
        if self._asked_for_nodes:
            request_resources(bundles=[])

    def _ask_for_nodes(self, num_actors: int) -> None:
        """Where the cluster scales: let it grow to `num_actors`. The run begins with what is there, and grows too."""
        if look().scales:
            num_decode = self._resources.num_decode_actors or 1 if self._resources.mode == "split" else 0
            request_resources(bundles=[dict(needs) for needs in self._held(Pools(num_actors, num_decode, 0))])
            self._asked_for_nodes = True

    def fits(self, without: Collection[str]) -> bool:
        """Whether the run's workers fit onto the cluster without these nodes."""
        return could_hold(self._resources, look(without))

    def pools(
        self,
        num_shards: int,
        first: bool,
        without: frozenset[str] = frozenset(),
        untried: Callable[[], bool] = lambda: False,
    ) -> Pools:
        """The pools that fit now. Waits where nothing does: at the run's start, or where the nodes have gone, at most
        `wait_s`; later, while others hold the room, until they give it back.

        Args:
            without: nodes that get no worker.
            untried: whether nodes have come that are to be tried first: then there are no actors in the pools.

        Raises:
            ConfigError: at the start, the cluster can never hold them, or there is no room within `wait_s`.
            StoreError: later, there are no nodes that could hold them within `wait_s`.
        """
        self._without = without
        self._let_in((GRANTED,) if first else (WAITING, GRANTED))
        r, started, told = self._resources, time.monotonic(), -broker.REMIND_S
        self._ask_for_nodes(min(num_shards, r.num_actors or 1))
        size, lacking_since = (size_pools if first else pools_now), started
        while True:
            room = _steady(without)
            if untried():
                return Pools(0, 0, 0)
            found = size(r, num_shards, room)
            if found.num_actors:
                break
            now = time.monotonic()
            if not first and could_hold(r, room):
                lacking_since = now
            if now - lacking_since >= r.wait_s:
                raise broker.no_room(self._job, [actor_needs(r)], r.wait_s) if first else _no_nodes(r, room)
            if now - started - told >= broker.REMIND_S:
                told = now - started
                limit = "until there is some" if lacking_since == now else f"up to {r.wait_s:g} s"
                log.warning("extraction waits for room, %s: %s", limit, broker.holders_text(self._job))
            time.sleep(WAIT_S)
        self._say(found, room, num_shards)
        self._registered.change(HOLDING, self._held(found))
        return found

    def _say(self, found: Pools, room: ClusterSnapshot, num_shards: int) -> None:
        alone = pools_now(self._resources, num_shards, room.emptied())
        if found.num_actors < alone.num_actors:
            held = broker.holders_text(self._job)
            log.warning("extraction works with %d actors instead of %d: %s", found.num_actors, alone.num_actors, held)

    def _held(self, pools: Pools) -> list[Amounts]:
        r = self._resources
        each = {name: amount for name, amount in actor_needs(r).items() if amount}
        return [each] * pools.num_actors + [{"CPU": r.cpus_per_decode_actor}] * pools.num_decode

    def _let_in(self, states: tuple[str, ...]) -> None:
        """Before taking room: wait until training in these states has taken its own."""
        self._registered.change(HOLDING, ())
        until = time.monotonic() + GRANT_S
        while asking := [e for e in broker.others(self._job) if e.kind == TRAINING and e.state in states]:
            asking = [entry for entry in asking if entry.job not in self._in_vain]
            if not asking:
                return
            if time.monotonic() > until:
                self._in_vain |= {entry.job for entry in asking if entry.state == WAITING}
                return
            time.sleep(LOOK_S)

    @contextmanager
    def watched(self, pools: Pools, num_shards: int) -> Iterator[Watch]:
        """While the block lasts, a thread looks whether the pools should change; `drained` says that they are to."""
        watch = Watch(self, pools, num_shards)
        thread = threading.Thread(target=watch.run, daemon=True, name="balance")
        thread.start()
        try:
            yield watch
        finally:
            watch.end()
            thread.join()

    def drain(self) -> int:
        """Tell the workers to stop after the clip in hand. Returns how many shards they have taken up."""
        return ray.get(self._ledger.drain.remote())

    def resume(self) -> None:
        """The workers of the next pool take up clips again."""
        ray.get(self._ledger.resume.remote())

    def asked_of_us(self, pools: Pools) -> JobDemand | None:
        """A training job that waits for room, and that would have it if this run kept `min_actors` only."""
        r, room = self._resources, look()
        spare = pools.num_actors - min(r.min_actors, pools.num_actors)
        for entry in broker.others(self._job):
            if entry.kind != TRAINING or entry.state != WAITING or entry.job in self._in_vain:
                continue
            after = {name: room.free_of(name) + spare * amount for name, amount in actor_needs(r).items()}
            if spare and all(entry.needs(name) <= amount + 1e-6 for name, amount in after.items()):
                return entry
        return None

    def could_grow(self, pools: Pools) -> int:
        """How many more actors would fit."""
        r, room = self._resources, look(self._without)
        if any(entry.state in (WAITING, GRANTED) for entry in broker.others(self._job)):
            return 0
        more = count_fitting(room.free, actor_needs(r) | {"memory": r.actor_memory_mb << 20})
        own = self._held(pools)
        for name, kept in (("CPU", r.reserve_cpus), ("GPU", r.reserve_gpus)):
            each, mine = actor_needs(r).get(name, 0.0), sum(bundle.get(name, 0.0) for bundle in own)
            if each:
                more = min(more, int((room.total.get(name, 0.0) - kept - mine) / each + 1e-6))
        return min(more, r.num_actors - pools.num_actors) if r.num_actors else more


class Watch:
    """Looks every few seconds whether a run should give way or grow, and tells its workers to stop if so."""

    def __init__(self, balance: PoolScaler, pools: Pools, num_shards: int) -> None:
        self._balance, self._pools, self._num_left = balance, pools, num_shards
        self._ended, self._all_up = threading.Event(), False
        self._num_back = 0  # shards that were worked on
        self._num_taken: int | None = None  # those that workers had taken up when they were told to stop
        self._roomy_since: float | None = None
        self.drained = False

    def arrived(self, result: ShardResult) -> bool:
        """A shard has come back: all actors are up. True where only untouched ones are to come: many take minutes.

        What a worker had taken up and died on may be given back instead: then this stays False, and the graph ends by
        itself.
        """
        self._all_up, self._num_left = True, self._num_left - 1
        self._num_back += not result.given_back
        return self._num_taken is not None and self._num_back >= self._num_taken

    def told(self, num_taken: int) -> None:
        """The workers know that they are to stop, `num_taken` shards had been taken up until then."""
        self._num_taken = num_taken

    def stop(self, why: str) -> None:
        """Tell the workers to stop after the clip in hand, if nobody has yet."""
        if not self.drained:
            self.drained = True
            self.told(self._balance.drain())
            log.warning("extraction %s; the clips in hand are finished first", why)

    def end(self) -> None:
        self._ended.set()

    def run(self) -> None:
        while not self._ended.wait(POLL_S):
            try:
                why = self._why()
                if why and not self._ended.is_set():
                    self.stop(why)
                    return
            except (ray.exceptions.RayError, RuntimeError, OSError) as error:
                log.info("the cluster did not answer: %s", error)  # the run's own end says why

    def _why(self) -> str:
        entry = self._balance.asked_of_us(self._pools)
        if entry is not None:
            return f"gives way to {entry.text()}"
        num = self._pools.num_actors
        more = self._balance.could_grow(self._pools) if self._all_up and self._num_left > 2 * num else 0
        if more < max(1, num // GROW_SHARE):
            self._roomy_since = None
            return ""
        self._roomy_since = self._roomy_since or time.monotonic()
        steady = time.monotonic() - self._roomy_since >= GROW_AFTER_S
        return f"takes up to {more} actors more, there is room" if steady else ""


def _no_nodes(resources: Resources, room: ClusterSnapshot) -> StoreError:
    has, needs = amounts_text(room.total), amounts_text(actor_needs(resources))
    waited = f"no node that can work has come within {resources.wait_s:g} s"
    return StoreError(
        f"{waited}: the nodes left have {has}, an actor needs {needs}",
        "finished clips are committed: run again when there are nodes, or raise resources.wait_s",
    )


def _steady(without: Collection[str]) -> ClusterSnapshot:
    """What is free, once it has stopped changing: what somebody has given back is told a second late."""
    room, since = look(without), time.monotonic()
    while any(room.used(name) > 1e-3 for name in ("CPU", "GPU")) and time.monotonic() - since < STEADY_S:
        time.sleep(LOOK_S)
        now = look(without)
        if now != room:
            room, since = now, time.monotonic()
    return room
