"""`bench vlmimic`: each cell has its episodes, and what was not learned fails."""

import numpy as np
import pytest

from handloom.bench.vlmimic.controls import CHANGES, PLACE_M, TURN_DEG, disturbed, in_family, viewpoint_of
from handloom.bench.vlmimic.measure import FEWER, MODES, MOST, NOT_LEARNED, _cells, goals_of, results_of, taught
from handloom.bench.vlmimic.tasks import TASKS
from handloom.sim.tabletop.episodes import Episode
from handloom.sim.tabletop.model import require_room
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


def test_videos_are_disturbed_by_as_much_as_asked():
    still = np.tile(np.eye(4).ravel(), (9, 1)).tolist()
    cell = {"trajectory": still, "grasp_pose": np.eye(4).ravel().tolist(), "text": "move object 1"}
    rng = np.random.default_rng(0)
    assert disturbed([cell], 0.0, rng) == [cell]
    found = disturbed([cell] * 400, 2.0, rng)
    ends = np.array([np.array(one["trajectory"]).reshape(-1, 4, 4)[-1] for one in found])
    assert np.median(np.linalg.norm(ends[:, :3, 3], axis=1)) == pytest.approx(2 * PLACE_M, rel=0.15)
    turn_deg = np.degrees(np.arccos(np.clip((np.trace(ends[:, :3, :3], axis1=1, axis2=2) - 1) / 2, -1, 1)))
    assert np.median(turn_deg) == pytest.approx(2 * TURN_DEG, rel=0.15)
    path = np.array(found[0]["trajectory"]).reshape(-1, 4, 4)[:, :3, 3]
    assert np.abs(np.diff(path, 2, axis=0)).max() < 1e-9, "errors change evenly over a segment"
    np.testing.assert_allclose(np.reshape(found[0]["grasp_pose"], (4, 4))[:3, 3], path[0])
    nothing = disturbed([cell | {"trajectory": None, "grasp_pose": None}], 1.0, rng)
    assert (nothing[0]["trajectory"], nothing[0]["grasp_pose"]) == ([], None)


def test_cameras_and_scenes_change_as_named():
    rng = np.random.default_rng(1)
    turns = [viewpoint_of(CHANGES["cameras 45 to 135 degrees beside"], rng) for _ in range(50)]
    assert all(45 <= abs(one.turn_deg) <= 135 and not one.is_worn for one in turns)
    assert {np.sign(one.turn_deg) for one in turns} == {-1, 1}
    assert viewpoint_of(CHANGES["heads turned by up to 20 degrees"], rng).is_worn
    assert viewpoint_of(CHANGES["usual"], rng) is None
    for seed in range(3):
        scene = in_family(TASKS["put in"].scene("unseen", seed), "blocked")
        require_room(scene)
        assert {one.size_m[2] for one in scene.obstacles} <= {0.14}
