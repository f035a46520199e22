"""`bench sim` reports experts, chance and replay, and says of what was not measured that it was not."""

from __future__ import annotations

import pytest

from handloom.bench.sim.measure import GOAL, TASKS, goals_of


def test_goals_are_those_of_the_experts():
    found = {"expert": {name: {"success_rate": GOAL - 0.01 * number} for number, name in enumerate(TASKS)}}
    assert [one["met"] for one in goals_of(found)] == [True, *[False] * (len(TASKS) - 1)]
    assert [one["met"] for one in goals_of({})] == [None] * len(TASKS)


@pytest.mark.slow
def test_a_quick_measurement(monkeypatch):
    pytest.importorskip("metaworld", reason="the simulator is not installed: pip install '.[sim]'")
    from handloom.bench.sim.measure import bench_sim
    from handloom.bench.watch import Watch

    report = bench_sim(Watch(lambda line: None, quick=True))
    results = report["results"]
    assert report["interrupted"] is False
    assert results["expert"]["reach"]["success_rate"] == 1.0
    assert results["random"]["push"]["successes"] < 4
    assert set(results["replay"]) == {"1", "5"}
    assert results["replay"]["5"]["reach"]["episodes"] == 4
    assert [one["met"] for one in report["goals"]] == [True, True, None, None, None, None]
