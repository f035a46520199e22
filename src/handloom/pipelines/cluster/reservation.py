"""How a training job gets its resources on a cluster that others fill, and keeps them until it ends."""

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
    NO_REPLY,
    REMIND_S,
    TRAINING,
    WAITING,
    ClusterView,
    JobDemand,
    Lease,
    asked_text,
    named,
    not_free,
)
from handloom.pipelines.cluster.capacity import Amounts

log = logging.getLogger(__name__)

SETTLE_S, SETTLE_LOOK_S = 20.0, 1.0
FIRST_LOOK_S = 1.0


@contextmanager
def reserve_resources(
    bundles: Sequence[Mapping[str, float]],
    name: str,
    wait_s: float,
    strategy: str = "PACK",
    settle_s: float = SETTLE_S,
) -> Iterator[None]:
    """Wait until `bundles` are free on the cluster; runs of extraction scale down for them. Use around the job.

    A placement group of `bundles` waits in Ray's own queue, so that an autoscaler sees it too. Once it is ready it is
    removed, and the block, Ray Train with the same bundles say, creates its own. Until that one is ready runs leave the
    resources alone. If it is not ready within `settle_s`, another job was faster, and runs are asked again to scale
    down. Until the block ends, messages say that `name` holds the resources.

    Args:
        name: the job's name in messages, `training arm4r`.
        strategy: Ray's, `PACK` or another.

    Raises:
        ConfigError: they are not free within `wait_s`; says who holds what.
    """
    job = named(name)
    asked = tuple({key: float(value) for key, value in bundle.items() if value} for bundle in bundles)
    group = ray.util.placement_group([dict(bundle) for bundle in asked], strategy=strategy)
    try:
        ready = group.wait(FIRST_LOOK_S)
        with Lease(JobDemand(job, TRAINING, asked, GRANTED if ready else WAITING), create=True) as lease:
            if not ready:
                _wait(group, job, asked, wait_s)
                lease.change(GRANTED)
            before = set(ray.util.placement_group_table())
            ray.util.remove_placement_group(group)
            ended = threading.Event()
            args = (lease, asked, before, settle_s, ended)
            thread = threading.Thread(target=_keep_state, args=args, daemon=True, name="reservation")
            thread.start()
            try:
                yield
            finally:
                ended.set()
                thread.join()
    finally:
        ray.util.remove_placement_group(group)


def _keep_state(
    lease: Lease, asked: Sequence[Amounts], before: set[str], settle_s: float, ended: threading.Event
) -> None:
    """Publish the job's state until it ends: Ray Train removes its placement group when a worker dies."""
    published, taken_at = GRANTED, time.monotonic()
    while not ended.wait(SETTLE_LOOK_S):
        taken = _is_taken(asked, before)
        taken_at = time.monotonic() if taken else taken_at
        missing_s = time.monotonic() - taken_at
        state = HOLDING if taken else GRANTED if missing_s < settle_s else WAITING
        if state != published:
            lease.change(state)
            published = state


def _is_taken(asked: Sequence[Amounts], before: set[str]) -> bool:
    """Whether a placement group that is not in `before` is ready, and as large as the one asked for."""
    try:
        groups = ray.util.placement_group_table()
    except NO_REPLY:
        return False
    new = [group for key, group in groups.items() if key not in before and group["state"] == "CREATED"]
    names = ("CPU", "GPU")
    needs = [sum(bundle.get(name, 0.0) for bundle in asked) for name in names]
    sums = [[sum(bundle.get(name, 0.0) for bundle in group["bundles"].values()) for name in names] for group in new]
    return any(all(have >= need for have, need in zip(found, needs, strict=True)) for found in sums)


def _wait(group, job: str, asked: Sequence[Amounts], wait_s: float) -> None:
    started, reminded, view = time.monotonic(), -REMIND_S, ClusterView()
    while not group.wait(1.0):
        waited = time.monotonic() - started
        if waited >= wait_s:
            raise not_free(asked, wait_s, view.holders_text(job))
        if waited - reminded >= REMIND_S:
            reminded = waited
            holders = view.holders_text(job)
            log.warning("%s waits for free resources, up to %g s: %s", asked_text(asked), wait_s, holders)
