"""How a training job gets its room on a cluster that others fill, and keeps it until it ends."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import ray

from handloom.pipelines.cluster.broker import (
    GRANTED,
    HOLDING,
    REMIND_S,
    TOLD,
    TRAINING,
    WAITING,
    JobDemand,
    Lease,
    asked_text,
    holders_text,
    named,
    no_room,
)
from handloom.pipelines.cluster.capacity import Amounts

log = logging.getLogger(__name__)

SETTLE_S, SETTLE_LOOK_S = 20.0, 1.0
FIRST_LOOK_S = 1.0


@contextmanager
def reserve_resources(
    bundles: Sequence[Mapping[str, float]], name: str, wait_s: float, strategy: str = "PACK"
) -> Iterator[None]:
    """Wait until the cluster has room for `bundles`; runs of extraction give way. Use around the job that takes it.

    A placement group of `bundles` waits in Ray's own queue, so that an autoscaler hears of it too. Once it stands it is
    removed, and the block, Ray Train with the same bundles say, takes its place with one of its own. Until that stands
    runs leave the room alone; where it does not within `SETTLE_S`, somebody was faster, and runs are asked to give way
    again. Until the block ends the room is known to be held by `name`.

    Args:
        name: what messages call the job, `training arm4r`.
        strategy: Ray's, `PACK` or another.

    Raises:
        ConfigError: there is no room within `wait_s`; says who holds what.
    """
    job = named(name)
    asked = tuple({key: float(value) for key, value in bundle.items() if value} for bundle in bundles)
    group = ray.util.placement_group([dict(bundle) for bundle in asked], strategy=strategy)
    try:
        ready = group.wait(FIRST_LOOK_S)
        with Lease(JobDemand(job, TRAINING, asked, GRANTED if ready else WAITING), create=True) as entry:
            if not ready:
                _wait(group, job, asked, wait_s)
                entry.change(GRANTED)
            before = set(ray.util.placement_group_table())
            ray.util.remove_placement_group(group)
            ended = threading.Event()
            args = (entry, asked, before, ended)
            thread = threading.Thread(target=_tell_whether_taken, args=args, daemon=True, name="taken")
            thread.start()
            try:
                yield
            finally:
                ended.set()
                thread.join()
    finally:
        ray.util.remove_placement_group(group)


def _tell_whether_taken(entry: Lease, asked: Sequence[Amounts], before: set[str], ended: threading.Event) -> None:
    """The job's state, looked after until it ends: Ray Train gives its placement group up when a worker dies."""
    told, stood = GRANTED, time.monotonic()
    while not ended.wait(SETTLE_LOOK_S):
        taken = _taken(asked, before)
        stood = time.monotonic() if taken else stood
        missing_s = time.monotonic() - stood
        state = HOLDING if taken else GRANTED if missing_s < SETTLE_S else WAITING
        if state != told:
            entry.change(state)
            told = state


def _taken(asked: Sequence[Amounts], before: set[str]) -> bool:
    """Whether a placement group as large as the one asked for stands, none of `before`."""
    try:
        groups = ray.util.placement_group_table()
    except TOLD:
        return False
    new = [group for key, group in groups.items() if key not in before and group["state"] == "CREATED"]
    names = ("CPU", "GPU")
    needs = [sum(bundle.get(name, 0.0) for bundle in asked) for name in names]
    sums = [[sum(bundle.get(name, 0.0) for bundle in group["bundles"].values()) for name in names] for group in new]
    return any(all(have >= need for have, need in zip(found, needs, strict=True)) for found in sums)


def _wait(group, job: str, asked: Sequence[Amounts], wait_s: float) -> None:
    started, told = time.monotonic(), -REMIND_S
    while not group.wait(1.0):
        waited = time.monotonic() - started
        if waited >= wait_s:
            raise no_room(job, asked, wait_s)
        if waited - told >= REMIND_S:
            told = waited
            log.warning("%s waits for room, up to %g s: %s", asked_text(asked), wait_s, holders_text(job))
