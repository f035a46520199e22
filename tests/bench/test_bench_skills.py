"""`bench skills` counts what skills accept; its scenes give steps."""

import pytest
from support.skill_segments import PLACE, POUR, taking

from handloom.bench.skills.corrupted import CORRUPTIONS
from handloom.bench.skills.extracted import CLIPS, extracted_results, extracted_specs
from handloom.bench.skills.measure import execution_of, goals_of, results_of
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
    assert [one["met"] for one in goals] == [True, True, True, None, None, None]
    assert [one["met"] for one in goals_of({})] == [None] * 6


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


def test_answers_about_extracted_clips_are_counted_apart():
    """A clip in which nothing was found is neither accepted nor rejected, and teaches nothing."""
    kinds = {"place": PLACE, "push": [("move", (0.0, 0.12, 0.0), (0, 0, 0))], "wipe": POUR}
    clips = {
        f"{verb}:{number:02d}": read_execution(f"{verb}:{number:02d}", taking(number, moves), verb)
        for verb, moves in kinds.items()
        for number in range(7 - 4 * (verb == "wipe"))
    }
    for name in (blank := ("place:03", "place:04", "push:06")):
        clips[name] = read_execution(name, [], name.split(":")[0])
    told = extracted_results(clips, (1, 5))
    assert (told["num_clips"]["place"], told["with_steps"]["place"]) == (7, 5)
    five, one = told["clips"]["5"], told["clips"]["1"]
    assert five["held_out_with_steps"]["accepted"] == 1.0
    assert five["held_out"]["accepted"] + five["held_out"]["cannot_tell"] == pytest.approx(1.0, abs=1e-3)
    assert 0.0 < five["held_out"]["cannot_tell"] < 0.5
    assert five["others"]["accepted"] == five["corrupted"]["accepted"] == 0.0
    assert 0.7 < five["taught"] < 1.0
    assert one["skills"] + one["refused"] == 2 * told["draws"]
    assert one["refused"] > 0
    for name, seen in told["seen"].items():
        wrong = "executed" if name in blank or name.startswith("wipe") else "cannot tell"
        assert seen["of_five"][wrong] == seen["of_five"]["not executed"] == 0


def test_the_extracted_scenes_are_those_that_are_counted():
    specs = extracted_specs()
    assert {verb: sum(spec.verb == verb for spec in specs.values()) for verb in CLIPS} == CLIPS
