"""What a run does with nodes that come while it works. Ray's answers are given by hand."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from handloom.errors import ConfigError
from handloom.pipelines import nodes as nodes_module
from handloom.pipelines.nodes import Nodes
from handloom.workers.probe import NodeReport, Trial

GOOD, OLD = NodeReport({}), NodeReport({}, other="handloom is 0.2.0, expected 0.4.0")


class Cluster:
    """`{node id: what it answers}`; a node can hold workers."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, **answers: NodeReport) -> None:
        self.answers, self.tried = answers, []
        monkeypatch.setattr(nodes_module.ray, "nodes", self._nodes)
        context = SimpleNamespace(get_node_id=lambda: "driver")
        monkeypatch.setattr(nodes_module.ray, "get_runtime_context", lambda: context)
        monkeypatch.setattr(Nodes, "ask", lambda _, __, asked: {i: self._answer(i) for i in asked})

    def _nodes(self) -> list[dict]:
        named = ((f"host {name}", name) for name in self.answers)
        rest = {"Alive": True, "Resources": {"CPU": 2.0}, "NodeManagerAddress": "", "NodeManagerHostname": ""}
        return [{"NodeID": node_id, "NodeName": host} | rest for host, node_id in named]

    def _answer(self, node_id: str) -> NodeReport:
        self.tried.append(node_id)
        return self.answers[node_id]


def new_nodes() -> Nodes:
    return Nodes(Trial("db", {}, {}, "", (), None, {}), lambda _: True)


def test_nodes_of_another_version_that_come_later_are_left(monkeypatch):
    cluster, nodes = Cluster(monkeypatch, a=GOOD), new_nodes()
    nodes.look()
    cluster.answers |= {"b": OLD, "c": OLD}
    nodes.look()
    assert (nodes.used, nodes.without) == ({"a": "host a"}, {"b", "c"})
    assert nodes.left_nodes() == dict.fromkeys(("host b", "host c"), OLD.other)


def test_a_cluster_of_another_version_is_told_at_once(monkeypatch):
    Cluster(monkeypatch, a=GOOD, b=OLD, c=OLD)
    with pytest.raises(ConfigError, match=r"handloom is 0\.2\.0"):
        new_nodes().look()
