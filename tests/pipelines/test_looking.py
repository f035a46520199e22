"""What a run does when nodes come while it works, and when all have gone; on clusters made by hand."""

from __future__ import annotations

import itertools

import pytest

from handloom.errors import ConfigError, StoreError
from handloom.pipelines.cluster.broker import TRAINING, WAITING, ClusterView, JobDemand
from handloom.pipelines.cluster.capacity import ClusterSnapshot, Pools
from handloom.pipelines.cluster.nodes import Nodes, NodeView
from handloom.pipelines.cluster.scaling import PoolScaler, ScalingTimes
from handloom.schemas.settings import Resources
from handloom.workers.probe import NodeReport, Trial

GOOD, OLD = NodeReport({}), NodeReport({}, other="handloom is 0.2.0, expected 0.4.0")


class Machines(NodeView):
    """`{node id: its report}`; every node can hold workers."""

    def __init__(self, **reports: NodeReport) -> None:
        self.reports, self.tried = reports, []

    def hosts(self):
        return {node_id: f"host {node_id}" for node_id in self.reports}

    def own_id(self):
        return "driver"

    def call(self, function, values, limit_s=0.0):
        self.tried += values
        return {node_id: self.reports[node_id] for node_id in values}


def nodes_of(machines: Machines) -> Nodes:
    return Nodes(Trial("db", {}, {}, "", (), None, {}), lambda _: True, machines, gone_s=0.0)


def test_nodes_of_another_version_that_come_later_are_left():
    machines = Machines(a=GOOD)
    nodes = nodes_of(machines)
    nodes.look()
    machines.reports |= {"b": OLD, "c": OLD}
    nodes.look()
    assert (nodes.used, nodes.without) == ({"a": "host a"}, {"b", "c"})
    assert nodes.left_nodes() == dict.fromkeys(("host b", "host c"), OLD.other)


def test_a_cluster_of_another_version_is_reported_at_once():
    with pytest.raises(ConfigError, match=r"handloom is 0\.2\.0"):
        nodes_of(Machines(a=GOOD, b=OLD, c=OLD)).look()


def test_a_run_whose_nodes_have_all_gone_waits_for_others():
    machines = Machines(a=GOOD)
    nodes = nodes_of(machines)
    nodes.look()
    assert not nodes.all_gone()
    machines.reports = {"too late": GOOD}  # it must be tried first
    assert nodes.all_gone()
    machines.reports = {}
    nodes.look()
    assert (nodes.used, nodes.has_new()) == ({}, False)
    machines.reports["b"] = NodeReport({}, "read-only")
    assert nodes.has_new()
    nodes.look()
    assert (nodes.used, nodes.has_new()) == ({}, False)
    machines.reports["c"] = GOOD
    nodes.look()
    assert (nodes.used, machines.tried) == ({"c": "host c"}, ["a", "b", "c"])
    assert nodes.left_nodes() == {"host a": "it has gone from the cluster", "host b": "read-only"}


def test_nodes_that_never_worked_end_the_run_at_once():
    with pytest.raises(StoreError, match="host a: read-only; host b: full"):
        nodes_of(Machines(a=NodeReport({}, "read-only"), b=NodeReport({}, "full"))).look()


class Shown(ClusterView):
    """A cluster that is as `snapshots` say whenever a run waits for resources; demands: of other jobs of handloom."""

    def __init__(self, snapshots, demands=()) -> None:
        self._snapshots, self._now, self._demands = iter(snapshots), EMPTY, list(demands)

    def next(self) -> None:
        self._now = next(self._snapshots)

    def look(self, without=()):
        return self._now

    def others(self, job):
        return self._demands


def pools_on(snapshots, has_new_nodes=lambda: False):
    """What a run that goes on with another pool gets; the cluster changes from try to try."""
    view, times = Shown(snapshots), ScalingTimes(steady_s=0.0, retry_s=0.01, remind_s=0.05)
    scaler = PoolScaler(Resources(wait_s=0.2, num_actors=4), "db", None, view, times)
    return scaler.pools(8, first=False, has_new_nodes=lambda: view.next() or has_new_nodes())


NODE = {"CPU": 2.0, "GPU": 0.0, "memory": 8e9}
EMPTY, FULL, FREE = (
    ClusterSnapshot((), ()),
    ClusterSnapshot((NODE,), (NODE | {"CPU": 0.0},)),
    ClusterSnapshot((NODE,), (NODE,)),
)


def test_the_wait_for_nodes_has_a_limit_and_is_logged(caplog):
    with pytest.raises(StoreError, match=r"within 0\.2 s: the nodes left have 0 CPUs, an actor needs 1") as raised:
        pools_on(itertools.repeat(EMPTY))
    assert "finished clips are committed" in raised.value.hint
    assert caplog.text.count("waits for free resources, up to 0.2 s: of 0 CPUs 0 CPUs are free") > 1


def test_a_run_waits_for_what_others_hold_until_they_give_it_back(caplog):
    """Longer than `wait_s`; and a node that went took its actors with it: two of four fit."""
    assert pools_on([FULL] * 40 + [FREE] * 2).num_actors == 2
    assert "waits for free resources, until there are some: of 2 CPUs 0 CPUs are free; held by jobs" in caplog.text


def test_nodes_that_come_meanwhile_are_tried_first():
    come = iter([False, False, True])
    assert pools_on([EMPTY, EMPTY, FREE], lambda: next(come)).num_actors == 0


def test_a_job_that_does_not_take_what_was_freed_for_it_is_not_served_again():
    view = Shown([FREE], [JobDemand("training", TRAINING, ({"CPU": 2.0},), WAITING)])
    view.next()
    times = ScalingTimes(steady_s=0.0, look_s=0.01, grant_s=0.05)
    scaler = PoolScaler(Resources(min_actors=0), "db", None, view, times)
    rule = scaler.rule(Pools(2, 0, 0))
    assert scaler.why_change(rule, may_grow=True) == "scales down for training (2 CPUs)"
    assert scaler.pools(8, first=False).num_actors == 2
    assert scaler.why_change(rule, may_grow=True) == ""
