"""The Ray Data graph of a run.

    fused:  shards -> GroupWorker (decode + models + fragment) -> results
    split:  shards -> DecodeWorker -> frames in the object store -> GroupWorker (models + fragment) -> results
    pools:  shards -> [DecodeWorker ->] GroupWorker 0 -> clips in the object store -> GroupWorker 1 -> ... -> results

If a video is remote, the input holds tickets instead of shards: see `Handout` in `workers.ledger`.

Workers write fragments; the driver, which reads the results, commits them.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterator, Sequence
from typing import Any

import ray

from handloom.io.addresses import is_remote
from handloom.kernels import for_workers
from handloom.pipelines.cluster.capacity import Pools
from handloom.pipelines.cluster.environments import environment_of
from handloom.pipelines.cluster.ray_private import stop_dataset
from handloom.pipelines.cluster.stage_pools import StagePool
from handloom.stages.pools.groups import Group
from handloom.workers.actors import DecodeWorker, GroupWorker
from handloom.workers.setup import WorkerSetup
from handloom.workers.shard import Shard, ShardResult

MAX_LOADS, START_S = 3, 120.0  # models that one actor loads at most, and its process before that
JOIN_S = 30.0


class Graph:
    """The graph of one pool. Iterate it once, for results in the order in which they are finished; `close` ends it.

    without: nodes (Ray's ids) that get no worker, not even one that is started again after a crash.
    """

    def __init__(
        self,
        shards: Sequence[Shard],
        setup: WorkerSetup,
        pools: Pools,
        ledger: ray.actor.ActorHandle,
        without: Collection[str] = (),
    ) -> None:
        resources = setup.resources
        _quiet(MAX_LOADS * resources.load_s + START_S)
        texts = [shard.to_json() for shard in shards]
        if any(is_remote(shard.video_uri) for shard in shards):
            ray.get(ledger.hand_out.remote(texts, [shard.video_uri for shard in shards], len(ray.nodes())))
            texts = [str(ticket) for ticket in range(len(shards))]
        data: ray.data.Dataset = ray.data.from_items(
            [{"shard": text} for text in texts], override_num_blocks=len(shards)
        )
        # Pools have a fixed size, and all actors start before the first gets work: else Ray gives it the first shards.
        # The variables are set before the actor's process imports anything.
        pinned: dict[str, Any] = {"runtime_env": {"env_vars": for_workers()}}
        pinned |= _not_on(without)
        models: dict[str, Any] = {
            "batch_size": 1,
            "num_cpus": resources.cpus_per_actor,
            "num_gpus": resources.gpus_per_actor or None,
            "memory": pools.memory_bytes,
            "compute": _pool(pools.num_actors),
            "fn_constructor_args": (setup, ledger),
            **pinned,
        }
        if resources.mode == "split":
            decode: dict[str, Any] = {"num_cpus": resources.cpus_per_decode_actor, "memory": pools.memory_bytes}
            decode |= {"compute": _pool(pools.num_decode), **pinned}
            data = data.map_batches(DecodeWorker, batch_size=1, fn_constructor_args=(setup, ledger), **decode)
        if pools.stages:
            for number, (group, pool) in enumerate(zip(setup.groups, pools.stages, strict=True)):
                options = _group_options(setup, ledger, number, group, pool, pinned)
                if pool.apart:
                    options |= _not_on({*without, *_nodes_with_gpus()})
                data = data.map_batches(GroupWorker, **options)
        else:
            data = data.map_batches(GroupWorker, **models)
        self._data = data

    def __iter__(self) -> Iterator[ShardResult]:
        for batch in self._data.iter_batches(batch_size=1, prefetch_batches=0, batch_format="numpy"):
            for text in batch["result"]:
                yield ShardResult.from_json(text)

    def close(self) -> None:
        """Stop the actors, from whatever thread."""
        stop_dataset(self._data, JOIN_S)


def _not_on(node_ids: Collection[str]) -> dict[str, Any]:
    """Ray's options that keep actors off these nodes."""
    return {"label_selector": {"ray.io/node-id": f"!in({','.join(sorted(node_ids))})"}} if node_ids else {}


def _nodes_with_gpus() -> list[str]:
    return [node["NodeID"] for node in ray.nodes() if node["Alive"] and node["Resources"].get("GPU", 0.0)]


def _group_options(
    setup: WorkerSetup, ledger: ray.actor.ActorHandle, number: int, group: Group, pool: StagePool, pinned
) -> dict[str, Any]:
    """Ray Data's options of a group's pool. A group that takes many clips at once gets several shards at once."""
    return {
        **pinned,
        "batch_size": max(1, -(-group.batch_clips // setup.resources.shard_clips)) if number else 1,
        "num_cpus": pool.cpus,
        "num_gpus": pool.gpus or None,
        "memory": pool.memory_bytes,
        "compute": _pool(pool.num_actors),
        "fn_constructor_args": (setup, ledger, number),
        "runtime_env": environment_of(group),
    }


def _pool(size: int) -> ray.data.ActorPoolStrategy:
    return ray.data.ActorPoolStrategy(size=size, max_tasks_in_flight_per_actor=2)


def _quiet(warm_s: float) -> None:
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    context.wait_for_min_actors_s = round(warm_s)
    context.execution_options.preserve_order = False
    logging.getLogger("ray.data").setLevel(logging.CRITICAL)  # what ends the run is raised: one message is enough
