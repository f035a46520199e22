"""`bench vlmimic`: each cell has its episodes, and what was not learned fails."""

import json
from dataclasses import replace

import numpy as np
import pytest
from support.skill_segments import PLACE, taking

from handloom.bench.vlmimic.controls import CHANGES, PLACE_M, TURN_DEG, disturbed, in_family, viewpoint_of
from handloom.bench.vlmimic.extracted import VERBS, specs_of, taught_by_draws
from handloom.bench.vlmimic.finished import Ran, can_run, kept_segments, run_kept
from handloom.bench.vlmimic.measure import FEWER, MODES, MOST, NOT_LEARNED, cells_of, goals_of, results_of, taught
from handloom.bench.vlmimic.tasks import TASKS
from handloom.bench.watch import Watch
from handloom.pipelines.skills.episodes import Job, shown_ones
from handloom.sim.tabletop.episodes import Episode
from handloom.sim.tabletop.model import require_room
from handloom.skills.execution import Execution, read_execution
from handloom.skills.learn import learn
from handloom.skills.reader import RuleReader


def episode(success: bool) -> Episode:
    failure = "" if success else "missed"
    return Episode(success, success, failure, "", (), 0.01, 5.0, np.empty((0, 0)))


def test_scores_are_those_of_the_cells():
    found = {cell: [episode(cell[2] == "hierarchical"), None, episode(True)] for cell in cells_of(["push", "move"])}
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


def test_only_whole_cells_are_reported():
    """Of an interrupted benchmark; an episode that cannot be run is no missing one."""
    cells = {"whole": ["a", "b"], "broken off": ["c", "d"], "impossible": ["e"]}
    done, other = episode(True), episode(False)
    ran = Ran(dict.fromkeys("abcd"), {"a": done, "b": other, "c": done})
    assert ran.finished(cells) == {"whole": [done, other], "impossible": [None]}
    assert Ran().finished(cells) == {}, "interrupted before it is known what can be run"


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


def test_what_has_ended_is_not_run_again_if_it_is_of_the_same_skill(tmp_path):
    clips = [TASKS["push"].execution(5, number) for number in (0, 1)]
    jobs = {}
    for name, some in (("a", clips), ("b", clips[:1])):
        skill = learn(name, "", some, RuleReader()).skills[0]
        jobs[name, 0] = Job(skill, TASKS["push"].scene("seen", 0), 0, "hierarchical", 0, False)
        assert can_run(jobs[name, 0])
        assert not can_run(
            replace(jobs[name, 0], scene=TASKS["push"].scene("seen", 0).model_copy(update={"things": ()}))
        )
    watch = Watch(lambda line: None)
    first, again, other = {}, {}, {}
    for key, job in jobs.items():
        run_kept(tmp_path, {key: job}, first, watch)
    log = tmp_path / "episodes.jsonl"
    lines = log.read_text().splitlines()
    marked = [json.loads(line) for line in lines[1:]]
    for one in marked:
        one["episode"]["seconds"] = 123.0
    log.write_text("\n".join([lines[0], *map(json.dumps, marked)]) + "\n")
    run_kept(tmp_path, jobs, again, watch)
    assert {key: one.seconds for key, one in again.items()} == {("a", 0): 123.0, ("b", 0): 123.0}
    run_kept(tmp_path, {("a", 0): jobs["b", 0]}, other, watch)
    assert other["a", 0].seconds == first["b", 0].seconds, "another skill of the same cell"
    log.write_text("\n".join([lines[0].replace("mujoco", "another"), *lines[1:]]) + "\n")
    run_kept(tmp_path, {("a", 0): jobs["a", 0]}, other, watch)
    assert other["a", 0].seconds == first["a", 0].seconds
    assert len(log.read_text().splitlines()) == 2, "begun anew"


def test_segments_of_a_demonstration_are_found_once(tmp_path):
    calls = []

    def found():
        calls.append(1)
        return TASKS["push"].segments(5, 0)

    first, second = (kept_segments(tmp_path, "push-000", {"seed": 5}, found) for _ in range(2))
    assert len(calls) == 1
    assert read_execution("a", first).words == read_execution("a", second).words == "reach for A, move A"
    np.testing.assert_array_equal(*(read_execution("a", one).steps[1].path for one in (first, second)))
    kept_segments(tmp_path, "push-000", {"seed": 6}, found)
    assert len(calls) == 2


def test_two_episodes_are_shown_by_what_they_are():
    good, worse, bad = (replace(episode(ok), error_m=far) for ok, far in ((True, 0.01), (True, 0.03), (False, 0.02)))
    lost = replace(bad, error_m=float("nan"))
    assert shown_ones([worse, bad, good, lost]) == {"best": 2, "worst": 3}
    assert shown_ones([worse, good]) == {"best": 1, "farthest": 0}
    assert shown_ones([lost, bad]) == {"nearest": 1, "worst": 0}
    assert (shown_ones([good]), shown_ones([bad])) == ({"best": 0}, {"worst": 0})


def test_clips_are_drawn_of_each_verb():
    specs = specs_of(["place", "push"], 3)
    assert list(specs) == sorted(specs, key=lambda name: list(specs).index(name))
    assert {verb: sum(name.startswith(verb) for name in specs) for verb in VERBS} == {"place": 3, "push": 3}
    assert all(spec.verb == name[:-3] for name, spec in specs.items())
    some = [read_execution(str(number), taking(number, PLACE)) for number in range(6)]
    drawn = taught_by_draws("place", some, 4)
    assert len({one.clip_ids for one in drawn}) > 1
    assert all(len(one.clip_ids) == 5 for one in drawn)


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
