"""`bench loop`: cells one seed after the other, what variants add in the same scenes, and cells that are kept."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from support.in_process import HERE
from support.track_tables import robot_db

pytest.importorskip("metaworld", reason="the simulator is not installed: pip install '.[sim]'")
pytest.importorskip("torch", reason="training is not installed: pip install '.[train]'")

from handloom.bench.kept import TRIAL
from handloom.bench.loop import stages
from handloom.bench.loop.compare import ALL, curves_of, difference, differences_of
from handloom.bench.loop.measure import (
    BESIDE,
    CELLS,
    PEOPLE_QUARTER,
    QUARTERS,
    SCRATCH,
    SCRATCH_QUARTER,
    VARIANTS,
    Cell,
    Size,
    bench_loop,
    cells_of,
    compared,
    goals_of,
    settings_of,
)
from handloom.bench.loop.people import ENVIRONMENT, PEOPLE, SCRIPTED, STATE, episodes_of, interactions_in, shuffled
from handloom.bench.watch import Watch
from handloom.errors import ConfigError, StoreError
from handloom.sim.rendering import backends
from handloom.sim.scores import wilson
from handloom.synth.script.demo import turn_specs
from handloom.synth.stage import build_stage

SIZE = Size({"reach": 2, "push": 2}, numbers=(5, 1), more={})


def finished(variants):
    """Cells in which people help on `push` alone, in every scene that scratch does not do."""
    rng = np.random.default_rng(3)
    out = []
    for one in cells_of(SIZE, variants):
        scenes = rng.random(30) < 0.3
        scenes |= one.variant == PEOPLE and one.task == "push"
        words = {"task": one.task, "number": one.number, "seed": one.seed, "variant": one.variant}
        letters = "".join("1" if done else "0" for done in scenes)
        out.append(words | {"episodes": 30, "successes": int(scenes.sum()), "by_scene": letters})
    return out


def test_a_seed_is_finished_before_the_next_and_variants_stand_side_by_side():
    cells = list(cells_of(SIZE, (SCRATCH, PEOPLE)))
    assert len({cell.name for cell in cells}) == len(cells) == 16
    assert [cell.seed for cell in cells] == [0] * 8 + [1] * 8
    for one, other in zip(cells[::2], cells[1::2], strict=True):
        assert (one.variant, other.variant) == (SCRATCH, PEOPLE)
        assert (one.task, one.number, one.seed) == (other.task, other.number, other.seed)
    without = cells_of(replace(SIZE, numbers=(0,)), (SCRATCH, PEOPLE))
    assert {cell.variant for cell in without} == {PEOPLE}, "without demonstrations and people there is no network"
    uneven = list(cells_of(replace(SIZE, seeds={"reach": 5, "push": 1}, more={"reach": (25,)}), VARIANTS))
    assert {cell.seed for cell in uneven if cell.task == "push"} == {0}
    assert {cell.task for cell in uneven if cell.number == 25} == {"reach"}
    beside = [cell for cell in uneven if cell.variant in BESIDE]
    assert {(cell.task, cell.number) for cell in beside} == {("reach", 1)}
    assert Counter(cell.variant for cell in beside) == BESIDE
    quarters = [cell for cell in uneven if cell.variant in QUARTERS]
    assert {(cell.task, cell.number) for cell in quarters} == {("reach", 1)}, "push is not among them"
    assert len(quarters) == 10


def test_a_quarter_is_compared_with_a_quarter_alone():
    size = Size({"reach": 2, "drawer-open": 2})
    scenes = {SCRATCH_QUARTER: "1000", PEOPLE_QUARTER: "1110", SCRATCH: "1111", PEOPLE: "1111"}
    cells = [vars(cell) | {"episodes": 4, "by_scene": scenes[cell.variant]} for cell in cells_of(size, tuple(scenes))]
    found = compared(cells)
    assert found[SCRATCH].keys() == {PEOPLE}
    assert found[SCRATCH_QUARTER].keys() == {PEOPLE_QUARTER}
    assert found[SCRATCH_QUARTER][PEOPLE_QUARTER][ALL]["1"]["added"] == 0.5
    assert found[SCRATCH_QUARTER][PEOPLE_QUARTER]["reach"]["1"]["share"] == pytest.approx(1 - 0.05 / 2)


def test_settings_of_variants_differ_in_what_they_say():
    whole, quarter = (settings_of(Cell("reach", 1, 0, name), Size(), "") for name in (SCRATCH, SCRATCH_QUARTER))
    assert (whole.max_steps, quarter.max_steps) == (400, 100)
    assert whole.token_length == quarter.token_length == stages.LONG
    steps = {"max_steps": 100, "epochs": 100, "checkpoint_epochs": 100}
    assert whole.model_copy(update=steps) == quarter
    lengths = {
        name: stages.stage_3_of(Cell("reach", 1, 0, name), stages.Size(), "").token_length for name in stages.VARIANTS
    }
    assert {name for name, length in lengths.items() if length == 0} == {
        SCRATCH,
        stages.HUMAN,
        stages.ROBOT,
        stages.BOTH,
    }, "as they were measured"
    assert set(lengths.values()) == {0, stages.LONG}


def test_curves_are_over_all_seeds_and_differences_in_the_same_scenes():
    cells = finished((SCRATCH, PEOPLE))
    of_push = [one for one in cells if (one["task"], one["number"], one["variant"]) == ("push", 5, SCRATCH)]
    curve = curves_of(cells)["push"][SCRATCH]["5"]
    successes = sum(one["successes"] for one in of_push)
    assert (curve["episodes"], curve["successes"]) == (60, successes)
    assert curve["interval"] == list(wilson(successes, 60))
    found = differences_of(cells, SCRATCH)[PEOPLE]
    assert found["push"]["5"]["added"] == pytest.approx(1 - successes / 60)
    assert found["push"]["5"]["interval"][0] > 0.4
    assert found["reach"]["5"]["interval"][0] < 0 < found["reach"]["5"]["interval"][1]
    both = [found[task]["1"]["added"] for task in ("push", "reach")]
    assert found[ALL]["1"]["added"] == pytest.approx(np.mean(both))
    assert (found[ALL]["1"]["tasks"], found[ALL]["1"]["seeds"]) == (2, 2)
    assert differences_of(cells[1:2], SCRATCH) == {}, "without the cell beside it nothing is said"
    assert [one["met"] for one in goals_of(compared(finished((SCRATCH,))), 1)] == [None]


def test_the_goal_is_the_mean_over_tasks_and_single_tasks_have_wider_intervals():
    cells = finished((SCRATCH, PEOPLE))
    plain, widened = differences_of(cells, SCRATCH)[PEOPLE], compared(cells)[SCRATCH][PEOPLE]
    (only,) = goals_of(compared(cells), 1)
    assert only["met"]
    assert only["value"] == round(plain[ALL]["1"]["interval"][0], 4)
    for number in ("1", "5"):
        assert widened[ALL][number] == plain[ALL][number]
        for task in ("reach", "push"):
            (low, high), (lower, higher) = (one[task][number]["interval"] for one in (plain, widened))
            assert lower < low < high < higher or low == high, "four of them are looked at"
            assert widened[task][number]["share"] == pytest.approx(1 - 0.05 / 4)
            assert widened[task][number]["added"] == plain[task][number]["added"]


def test_an_interval_knows_of_seeds_that_differ():
    alike = np.tile(np.repeat([0.0, 1.0], 15), (3, 1))
    differing = np.stack([np.zeros(30), np.ones(30), np.repeat([0.0, 1.0], 15)])
    narrow, wide = (difference([one])["interval"] for one in (alike, differing))
    assert alike.mean() == differing.mean()
    assert wide[1] - wide[0] > narrow[1] - narrow[0]


def test_shuffled_episodes_keep_their_motions_and_change_where_they_go():
    found = [
        one
        for spec in turn_specs("lift-place", 2, 5)
        for interaction in interactions_in(build_stage(spec).truth, "")
        for one in episodes_of(interaction, 20.0)
    ]
    mixed = shuffled(found)
    goals = [[one.values[ENVIRONMENT][0, 3:] - one.values[STATE][0, :3] for one in some] for some in (found, mixed)]
    for number, (one, other) in enumerate(zip(found, mixed, strict=True)):
        np.testing.assert_array_equal(one.values[STATE], other.values[STATE])
        assert other.num_steps == len(other.values[ENVIRONMENT])
        partner = (number + 2) % 4
        assert found[partner].source["kind"] == one.source["kind"]
        np.testing.assert_allclose(goals[1][number], goals[0][partner], atol=1e-6)


def test_variants_without_their_clips_are_refused(tmp_path):
    watch = Watch(lambda line: None, quick=True)
    with pytest.raises(ConfigError, match="the variant people needs clips of people"):
        bench_loop(None, tmp_path, watch, [PEOPLE])
    with pytest.raises(ConfigError, match="there is no variant 'dogs'"):
        bench_loop(None, tmp_path, watch, ["dogs"])
    robots = robot_db(tmp_path / "robots", ["x", "y", "z", "yaw", "gripper"], 1)
    with pytest.raises(ConfigError, match="robots has no clips of people"):
        bench_loop(robots.uri, tmp_path, watch)
    with pytest.raises(StoreError, match="no database"):
        bench_loop(str(tmp_path / "nothing"), tmp_path, watch)


def test_of_arm4rs_stages_one_comparison_is_the_goal(tmp_path):
    size = stages.Size({"reach": 2, "drawer-open": 1}, numbers=(5, 1))
    cells = list(stages.cells_of(size, stages.VARIANTS))
    assert len({cell.name for cell in cells}) == len(cells) == 48
    assert {(cell.task, cell.seed) for cell in cells} == {("reach", 0), ("reach", 1), ("drawer-open", 0)}
    assert [cell.number for cell in cells if cell.seed] == [5] * 8 + [1] * 8
    found = [
        vars(cell) | {"episodes": 4, "by_scene": "1111" if (cell.variant, cell.number) == (stages.BOTH, 1) else "1100"}
        for cell in cells
    ]
    for base, met in ((SCRATCH, True), (stages.HUMAN, None)):
        some = [one for one in found if one["variant"] in (base, stages.BOTH)]
        (only,) = stages.goals_of({SCRATCH: differences_of(some, SCRATCH)}, size.few)
        assert only["met"] is met, "without a training from scratch nothing is said"
    assert only["value"] is None
    watch = Watch(lambda line: None, quick=True)
    for variant in stages.NEED_CLIPS:
        with pytest.raises(ConfigError, match=f"the variant {variant} needs clips of people"):
            stages.bench_arm4r(None, tmp_path, watch, [variant])
    with pytest.raises(ConfigError, match="there is no variant 'points'"):
        stages.bench_arm4r(None, tmp_path, watch, ["points"])


@pytest.mark.slow
def test_a_robot_begins_with_its_own_videos(tmp_path):
    """Videos of an expert are recorded, ingested and extracted; stage 2 learns from them, and stage 3 takes it up."""
    if all(backends().values()):
        pytest.skip("this machine draws no pictures")
    db = stages.robots_of(stages.QUICK, tmp_path / TRIAL, HERE)
    report = stages.bench_arm4r(None, tmp_path, Watch(lambda line: None, quick=True), [stages.ROBOT])
    (cell,) = report["results"]["cells"]
    (told,) = report["results"][stages.PRETRAINING][stages.ROBOT].values()
    assert (cell["steps"], told["steps"]) == (stages.QUICK.steps, stages.QUICK.robot_steps)
    assert told["windows"] > 0
    assert 0 < told["constant_velocity"] < told["zero_motion"]
    assert db.count("clips") == stages.QUICK.videos
    assert not db.count("clips", "track_depth_source IS NOT NULL"), "what is known of it must be trained on"


@pytest.mark.slow
def test_finished_cells_are_kept(tmp_path):
    watch = Watch(lambda line: None, quick=True)
    report = bench_loop(None, tmp_path, watch, [SCRATCH, SCRIPTED])
    assert [(one["number"], one["variant"], one["steps"]) for one in report["results"]["cells"]] == [
        (1, SCRATCH, 20),
        (1, SCRIPTED, 20),
    ]
    kept = {place: place.stat().st_mtime_ns for place in (tmp_path / TRIAL / CELLS).iterdir()}
    assert len(kept) == 2
    again = bench_loop(None, tmp_path, Watch(lambda line: None, quick=True), [SCRATCH, SCRIPTED])
    assert again["results"]["cells"] == report["results"]["cells"]
    assert {place: place.stat().st_mtime_ns for place in (tmp_path / TRIAL / CELLS).iterdir()} == kept
