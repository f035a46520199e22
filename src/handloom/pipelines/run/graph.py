"""The Ray Data graph of a run.

    fused:  shards -> FusedWorker (decode + models + fragment) -> results
    split:  shards -> DecodeWorker -> frames in the object store -> ModelWorker (models + fragment) -> results

Where videos are remote, the shards of the input are tickets: see `workers.handout`.

Workers write fragments; the driver, which reads the results, commits them.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterator, Sequence
from typing import Any

import ray

from handloom.kernels import for_workers
from handloom.pipelines.cluster.capacity import Pools
from handloom.pipelines.cluster.ray_private import stop_dataset
from handloom.video.fetch.schemes import is_remote
from handloom.workers.actors import DecodeWorker, FusedWorker, ModelWorker
from handloom.workers.process import WorkerSetup
from handloom.workers.shard import Shard, ShardResult

MAX_LOADS, START_S = 3, 120.0  # models that one actor loads at most, and its process before that
JOIN_S = 30.0


class Graph:
    """The graph of a run. Iterate it once, for results in the order in which they are finished; `close` ends it.

    without: nodes (Ray's ids) that get no worker, also none that is started again after a death.
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
        data = ray.data.from_items([{"shard": text} for text in texts], override_num_blocks=len(shards))
        # Pools have a fixed size and are waited for: Ray would otherwise feed the first actor alone at first.
        # The variables are set before the actor's process imports anything.
        pinned: dict[str, Any] = {"runtime_env": {"env_vars": for_workers()}}
        if without:
            pinned["label_selector"] = {"ray.io/node-id": f"!in({','.join(sorted(without))})"}
        models = {
            "batch_size": 1,
            "num_cpus": resources.cpus_per_actor,
            "num_gpus": resources.gpus_per_actor or None,
            "memory": pools.memory_bytes,
            "compute": _pool(pools.num_actors),
            "fn_constructor_args": (setup, ledger),
            **pinned,
        }
        if resources.mode == "fused":
            data = data.map_batches(FusedWorker, **models)
        else:
            decode = {"num_cpus": resources.cpus_per_decode_actor, "memory": pools.memory_bytes}
            decode |= {"compute": _pool(pools.num_decode), **pinned}
            data = data.map_batches(DecodeWorker, batch_size=1, fn_constructor_args=(setup, ledger), **decode)
            data = data.map_batches(ModelWorker, **models)
        self._data = data

    def __iter__(self) -> Iterator[ShardResult]:
        for batch in self._data.iter_batches(batch_size=1, prefetch_batches=0, batch_format="numpy"):
            for text in batch["result"]:
                yield ShardResult.from_json(text)

    def close(self) -> None:
        """Stop the actors, from whatever thread."""
        stop_dataset(self._data, JOIN_S)


def _pool(size: int) -> ray.data.ActorPoolStrategy:
    return ray.data.ActorPoolStrategy(size=size, max_tasks_in_flight_per_actor=2)


def _quiet(warm_s: float) -> None:
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    context.wait_for_min_actors_s = warm_s
    context.execution_options.preserve_order = False
    logging.getLogger("ray.data").setLevel(logging.CRITICAL)  # what ends the run is raised, and said once
