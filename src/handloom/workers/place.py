"""The node on which a process runs, as rows and rejects name it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import ray


@dataclass(frozen=True)
class Place:
    """A node. node_id: Ray's. host: the name that people use."""

    node_id: str
    host: str


def host_of(node: Mapping[str, Any]) -> str:
    """The name of a node of `ray.nodes()`: what `ray start --node-name` gave it, else its host name.

    Ray calls a node by its address where it was given no name.
    """
    named = node["NodeName"] and node["NodeName"] != node["NodeManagerAddress"]
    return node["NodeName"] if named else node["NodeManagerHostname"]


def here() -> Place:
    """The node of this process; Ray must be initialised."""
    node_id = ray.get_runtime_context().get_node_id()
    return Place(node_id, next(host_of(node) for node in ray.nodes() if node["NodeID"] == node_id))


def on_this_node() -> dict[str, Any]:
    """Ray options of an actor that must survive the loss of other nodes: it runs on the node of this process.

    By label, not by soft affinity: Ray lets any node place an actor that needs no resources, and a node that has just
    joined does not know the others yet and keeps it (seen: that node was killed, and the run ended).
    """
    return {"num_cpus": 0, "label_selector": {"ray.io/node-id": ray.get_runtime_context().get_node_id()}}
