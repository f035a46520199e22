"""`bench skills` counts what skills accept; its scenes give steps."""

import pytest
from support.skill_segments import PLACE, POUR, taking

from handloom.bench.skills.measure import CORRUPTIONS, execution_of, goals_of, results_of
from handloom.skills.execution import read_execution

SETS = {"place": PLACE, "pour": POUR}


def found(num=6):
    return {
        name: [read_execution(f"{name}:{seed}", taking(seed, moves)) for seed in range(num)]
        for name, moves in SETS.items()
    }


def test_rates_of_clean_executions():
    told = results_of(found(), (1, 3))
    rates = told["clips"]["3"]["hierarchical"]
    assert rates["held_out"] == 1.0
    assert rates["others"] == 0.0
    assert rates["corrupted"] == 0.0
    assert rates["num"]["held_out"] == 6
    assert told["clips"]["3"]["semantic"]["corrupted_path"] == 1.0  # the order alone does not see it
    assert told["clips"]["1"]["refused"] == []
    assert told["clips"]["3"]["by_turn"]["place"]["adapted"]["clips"] == 3
    assert told["without_steps"] == {"place": 0, "pour": 0}
    goals = goals_of({"clips": {"5": told["clips"]["3"]}})
    assert [one["met"] for one in goals] == [True, True, True]
    assert [one["met"] for one in goals_of({})] == [None, None, None]


def test_skills_that_cannot_be_learned_are_named():
    sets = found() | {"none": [read_execution("none:0", [])] * 6}
    told = results_of(sets, (3,))
    assert [one["turn"] for one in told["clips"]["3"]["refused"]] == ["none"]
    assert told["without_steps"]["none"] == 3


def test_every_corruption_changes_an_execution():
    one = found(1)["place"][0]
    assert CORRUPTIONS["missing"](one).words == "reach for A, lower A"
    assert CORRUPTIONS["order"](one).words == "lower A, lift A, reach for A"
    path, grasp = CORRUPTIONS["path"](one).steps[-1].path, CORRUPTIONS["grasp"](one).steps[0].grasp
    assert abs(path - one.steps[-1].path).max() == pytest.approx(0.10)
    assert abs(grasp - one.steps[0].grasp).max() > 0.1


def test_a_scripted_scene_gives_steps():
    assert execution_of("move", 0).words == "reach for A, move A"
