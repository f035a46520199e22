"""Where in the cluster a process runs, as rows and rejects name it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import ray


@dataclass(frozen=True)
class Place:
    """A node. node_id: Ray's. host: the name that a person knows it by."""

    node_id: str
    host: str


def host_of(node: Mapping[str, Any]) -> str:
    """The name of a node of `ray.nodes()`: what `ray start --node-name` gave it, else its host name.

    Ray calls a node by its address where it was given no name.
    """
    named = node["NodeName"] and node["NodeName"] != node["NodeManagerAddress"]
    return node["NodeName"] if named else node["NodeManagerHostname"]


def here() -> Place:
    """The node of this process. Ray is initialised here."""
    node_id = ray.get_runtime_context().get_node_id()
    return Place(node_id, next(host_of(node) for node in ray.nodes() if node["NodeID"] == node_id))
