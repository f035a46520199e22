"""`bench vlmimic`: each cell has its episodes, and what was not learned fails."""

import numpy as np

from handloom.bench.vlmimic.measure import FEWER, MODES, MOST, NOT_LEARNED, _cells, goals_of, results_of, taught
from handloom.bench.vlmimic.tasks import TASKS
from handloom.sim.tabletop.episodes import Episode
from handloom.skills.execution import Execution


def episode(success: bool) -> Episode:
    failure = "" if success else "missed"
    return Episode(success, success, failure, "", (), 0.01, 5.0, np.empty((0, 0)))


def test_scores_are_those_of_the_cells():
    found = {cell: [episode(cell[2] == "hierarchical"), None, episode(True)] for cell in _cells(["push", "move"])}
    results = results_of(found)
    assert set(results) == {"1", "3", "5"}
    assert set(results["1"]["seen"]) == set(FEWER)
    assert set(results[str(MOST)]["unseen"]) == set(MODES)
    whole = results["5"]["seen"]["hierarchical"]["all"]
    assert (whole["episodes"], whole["successes"], whole["failures"]) == (6, 4, {NOT_LEARNED: 2})
    assert results["5"]["seen"]["geometric"]["by_task"]["push"]["failures"] == {NOT_LEARNED: 1, "missed": 1}
    goals = {one["name"]: one for one in goals_of({"videos": results})}
    assert goals["seen_success"]["met"] is False
    assert goals["above_semantic"]["value"] == 0.3333
    assert all(one["met"] is None for one in goals_of({}))


def test_demonstrations_of_a_master_name_it_and_nothing_teaches_nothing():
    for name in ("put in", "put on"):
        shown = TASKS[name].execution(3, 1)
        assert shown.words.startswith("reach for A, move A")
        assert " B to A" in shown.words
        scene = TASKS[name].scene("unseen", 2)
        assert [one.name for one in scene.things] == ["A", "B"]
        assert scene.goals[0].beside == "A"
    assert [skill for skill, _ in taught("push", [Execution("none", ())] * 25, 1)] == [None] * 5
