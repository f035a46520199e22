"""What training workers reserve of a cluster, and what is said where it could never hold them."""

from __future__ import annotations

from handloom.errors import ConfigError
from handloom.pipelines.room import amounts_text, fill, look
from handloom.schemas.training import TrainResources


def settled(resources: TrainResources, is_own: bool) -> TrainResources:
    """With `cpus_per_worker` filled in. is_own: Ray was started for this job, which has the machine alone."""
    if resources.cpus_per_worker is not None:
        return resources
    cpus = int(look().total["CPU"]) // resources.workers if is_own else 1
    return resources.model_copy(update={"cpus_per_worker": float(max(cpus, 1))})


def bundles(resources: TrainResources) -> list[dict[str, float]]:
    """What every worker reserves on its node."""
    one = {"CPU": resources.cpus_per_worker or 1.0, "GPU": resources.gpus_per_worker}
    return [{name: amount for name, amount in one.items() if amount}] * resources.workers


def check_could_fit(resources: TrainResources) -> None:
    """Refuse at once what the cluster, if nobody else were on it, could not hold.

    A cluster that gets more nodes is asked all the same, and `wait_s` decides.

    Raises:
        ConfigError: with what is asked and what the cluster has.
    """
    room, asked = look(), bundles(resources)
    placed = fill(room.nodes, asked[0], len(asked))[1]
    if placed < len(asked) and not room.scales:
        raise ConfigError(
            f"the cluster has {amounts_text(room.total)}, but {len(asked)} workers of {amounts_text(asked[0])} "
            "were asked for",
            "lower --workers, resources.cpus_per_worker or resources.gpus_per_worker, or add nodes",
        )
