"""What a run does with nodes that come while it works, and where all have gone. Ray's answers are given by hand."""

from __future__ import annotations

import itertools
from types import SimpleNamespace

import pytest

from handloom.errors import ConfigError, StoreError
from handloom.pipelines.cluster import nodes as nodes_module
from handloom.pipelines.cluster import scaling
from handloom.pipelines.cluster.capacity import ClusterSnapshot
from handloom.pipelines.cluster.nodes import Nodes
from handloom.schemas.settings import Resources
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


def test_a_run_whose_nodes_have_all_gone_waits_for_others(monkeypatch):
    cluster, nodes = Cluster(monkeypatch, a=GOOD), new_nodes()
    nodes.look()
    assert not nodes.all_gone()
    cluster.answers = {"too late": GOOD}  # it takes no part before it was tried
    monkeypatch.setattr(nodes_module, "GONE_S", 0.0)
    nodes._next = 0.0
    assert nodes.all_gone()
    cluster.answers = {}
    nodes.look()
    assert (nodes.used, nodes.untried()) == ({}, False)
    cluster.answers["b"] = NodeReport({}, "read-only")
    assert nodes.untried()
    nodes.look()
    assert (nodes.used, nodes.untried()) == ({}, False)
    cluster.answers["c"] = GOOD
    nodes.look()
    assert (nodes.used, cluster.tried) == ({"c": "host c"}, ["a", "b", "c"])
    assert nodes.left_nodes() == {"host a": "it has gone from the cluster", "host b": "read-only"}


def test_nodes_that_never_worked_end_the_run_at_once(monkeypatch):
    Cluster(monkeypatch, a=NodeReport({}, "read-only"), b=NodeReport({}, "full"))
    with pytest.raises(StoreError, match="host a: read-only; host b: full"):
        new_nodes().look()


@pytest.fixture
def waiting(monkeypatch, caplog):
    """`waiting(rooms)`: the balance of a run on a cluster that is as `rooms` say, look by look."""

    def balance_on(rooms) -> scaling.PoolScaler:
        shown = iter(rooms)
        monkeypatch.setattr(scaling, "_steady", lambda _: next(shown))
        monkeypatch.setattr(scaling, "WAIT_S", 0.01)
        monkeypatch.setattr(scaling.broker, "others", lambda _: [])
        monkeypatch.setattr(scaling.broker, "holders_text", lambda _: "nobody holds anything")
        monkeypatch.setattr(scaling.broker, "REMIND_S", 0.05)
        monkeypatch.setattr(scaling, "look", lambda: EMPTY)
        return scaling.PoolScaler(Resources(wait_s=0.2, num_actors=4), "db", None)

    return balance_on


NODE = {"CPU": 2.0, "GPU": 0.0, "memory": 8e9}
EMPTY, FULL, FREE = (
    ClusterSnapshot((), ()),
    ClusterSnapshot((NODE,), (NODE | {"CPU": 0.0},)),
    ClusterSnapshot((NODE,), (NODE,)),
)


def test_the_wait_for_nodes_has_a_limit_and_is_told(waiting, caplog):
    with pytest.raises(StoreError, match=r"within 0\.2 s: the nodes left have 0 CPUs, an actor needs 1") as told:
        waiting(itertools.repeat(EMPTY)).pools(8, first=False)
    assert "finished clips are committed" in told.value.hint
    assert caplog.text.count("waits for room, up to 0.2 s") > 1


def test_what_others_hold_is_waited_for_until_they_give_it_back(waiting, caplog):
    """Longer than `wait_s`; and a node that went took its actors with it: two of four fit."""
    assert waiting([FULL] * 40 + [FREE]).pools(8, first=False).num_actors == 2
    assert "waits for room, until there is some" in caplog.text


def test_nodes_that_come_meanwhile_are_tried_first(waiting):
    come = iter([False, False, True])
    pools = waiting([EMPTY, EMPTY, FREE]).pools(8, first=False, untried=lambda: next(come))
    assert pools.num_actors == 0
