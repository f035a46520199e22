"""What runs simulated episodes inside Ray: an actor on one core, which keeps what it has opened."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import ray


class EpisodeWorker:
    """Calls what it is given. Its process imports handloom on the node where it is."""

    def node_id(self) -> str:
        """Ray's id of the node, as soon as the actor has started."""
        return str(ray.get_runtime_context().get_node_id())

    def call(self, run: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
        """`run(*arguments)`, and what it raises."""
        return run(*arguments)
