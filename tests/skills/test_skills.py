"""Constraints of skills: learned from a few clips, matched with executions of them and of others, and adapted."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation
from support.skill_segments import NONE, PLACE, POUR, cell, pose, taking

from handloom.errors import ConfigError
from handloom.skills.adapt import ROUNDS, adapt, grasp_grid, path_samples
from handloom.skills.bounds import gap_m, group_grasps, path_bounds, path_for
from handloom.skills.execution import Step, read_execution
from handloom.skills.learn import learn
from handloom.skills.match import judge
from handloom.skills.order import align, apart
from handloom.skills.reader import RuleReader
from handloom.skills.skill import Constraint, Skill, without_geometry

READER = RuleReader()


def executions(num, moves=PLACE, first=0, **values):
    return [read_execution(f"d:v{seed}:0-9", taking(seed, moves, **values)) for seed in range(first, first + num)]


def learned(num=5, moves=PLACE, **values) -> Skill:
    return learn("place", "put the cup aside", executions(num, moves, **values), READER).skills[0]


@pytest.fixture(scope="module")
def skill() -> Skill:
    return learned()


def test_steps_are_named_by_roles_and_free_movements_left_out():
    found = executions(1)[0]
    assert found.words == "reach for A, lift A, lower A"
    assert [(step.hand, step.master, step.slave) for step in found.steps] == [
        ("main", "A", "hand"), ("main", "scene", "A"), ("main", "scene", "A")
    ]  # fmt: skip
    path = found.steps[1].path
    assert path.shape == (10, 6)
    assert np.allclose(path[0], 0.0)
    assert np.allclose(path[-1, :3], [0.0, 0.0, 0.10], atol=0.02)  # though the world's axes are at random


def test_a_left_hand_shows_the_same_skill(skill):
    """Its mirror image is compared."""
    for one in executions(3, first=20, hand="left"):
        assert judge(skill, one).accepted, judge(skill, one)


def test_turns_are_kept_along_the_things_axes():
    path = executions(1, POUR)[0].steps[2].path
    assert np.allclose(np.degrees(path[-1, 3:]), [80.0, 0.0, 0.0], atol=2.0)


def test_neighbours_of_one_action_are_one_step():
    halves = [("lift", (0, 0, 0.05), (0, 0, 0)), ("lift", (0, 0, 0.05), (0, 0, 0)), PLACE[1]]
    found = executions(1, halves)[0]
    assert found.words == "reach for A, lift A, lower A"
    assert found.steps[1].path[-1, 2] == pytest.approx(0.10, abs=0.02)


def test_held_out_executions_are_accepted_and_others_rejected(skill):
    assert all(judge(skill, one).accepted for one in executions(6, first=30))
    assert not any(judge(skill, one).accepted for one in executions(4, POUR, first=30))


@pytest.mark.parametrize(
    ("moves", "values", "reason"),
    [
        (PLACE[::-1], {}, "other steps"),
        (PLACE[:1], {}, "other steps"),
        ([PLACE[0], ("lower", (-0.12, 0.0, -0.10), (0, 0, 0))], {}, "'lower A'"),
        ([PLACE[0], ("lower", (0.12, 0.0, -0.10), (0, 0, 90))], {}, "'lower A'"),
        (PLACE, {"grasp": (0.10, -0.14, 0.05)}, "'reach for A'"),
    ],
    ids=["other order", "step missing", "other way", "turned", "held elsewhere"],
)
def test_corrupted_executions_are_rejected_with_the_reason(skill, moves, values, reason):
    verdict = judge(skill, executions(1, moves, first=50, **values)[0])
    assert not verdict.accepted
    assert any(reason in told for told in verdict.reasons), verdict.reasons


def test_both_levels_are_needed(skill):
    """The order alone does not see another way; the geometry alone does not see other words."""
    other_way = executions(1, [PLACE[0], ("lower", (-0.12, 0.0, -0.10), (0, 0, 0))], first=60)[0]
    assert judge(skill, other_way, "semantic").accepted
    assert not judge(skill, other_way).accepted
    other_words = executions(1, [("turn", PLACE[0][1], (0, 0, 0)), PLACE[1]], first=60)[0]
    assert judge(skill, other_words, "geometric").accepted
    assert not judge(skill, other_words).accepted


def test_unknown_geometry_is_not_counted_as_seen(skill):
    cells = taking(70, PLACE)
    for one in cells:
        one |= {"grasp_pose": None, "object_box_m": None, "trajectory": [[float("nan")] * 16] * 12}
    verdict = judge(skill, read_execution("d:v:0-9", cells))
    assert verdict.accepted
    assert verdict.num_checked == 0
    assert verdict.score == 0.5


def test_a_step_of_which_nothing_is_known_is_no_evidence(skill):
    cells = taking(70, PLACE)
    cells[2] |= {"text": None, "trajectory": [[float("nan")] * 16] * 12}
    verdict = judge(skill, read_execution("d:v:0-9", cells))
    assert not verdict.accepted
    assert verdict.answer == "cannot tell"
    assert verdict.doubts == ("'lower A': unknown what is done and how",)
    assert judge(skill, executions(1, PLACE[::-1])[0]).answer == "not executed"


def test_a_skill_that_knows_nothing_cannot_tell(skill):
    """As one that an older version kept: `learn` refuses such clips."""
    steps = [replace(without_geometry(step), action="") for step in skill.steps]
    blank = replace(skill, constraints=tuple(Constraint(step, "", 1.0) for step in steps))
    for moves in (PLACE, POUR, PLACE[:1]):
        verdict = judge(blank, executions(1, moves)[0])
        assert (verdict.answer, len(verdict.doubts)) == ("cannot tell", 1)


@given(data=st.data())
@settings(max_examples=60, deadline=None)
def test_a_clip_executes_the_skill_that_it_taught_alone(data):
    """Or it teaches none, whatever is unknown of it."""
    moves = data.draw(st.lists(st.sampled_from([*PLACE, *POUR]), max_size=4))
    cells = taking(data.draw(st.integers(0, 99)), moves, hand=data.draw(st.sampled_from(["left", "right"])))
    for one in cells:
        for name, value in (("text", None), ("grasp_pose", None), ("object_box_m", None)):
            one[name] = data.draw(st.sampled_from([one[name], value]), name)
        lost = data.draw(st.sampled_from([0, 6, len(one["trajectory"])]), "frames without a pose")
        one["trajectory"] = [NONE] * lost + one["trajectory"][lost:]
    clip = read_execution("d:v:0-9", cells)
    moved = [step for step in clip.steps if step.phase == "manipulation"]
    if any(step.action or step.path is not None for step in moved) or clip.steps[0].grasp is not None:
        taught = learn("alone", "", [clip], READER).skills[0]
        assert judge(Skill.from_json(taught.to_json()), clip).answer == "executed"
    else:
        with pytest.raises(ConfigError, match="nothing can be recognised"):
            learn("alone", "", [clip], READER)


def test_verbs_decide_where_it_is_unknown_what_is_done():
    """Clips with other verbs are of one task if they are seen to do the same."""
    told = [replace(one, verb=verb) for one, verb in zip(executions(2), ("put", "place"), strict=True)]
    assert len(learn("place", "", told, READER).skills[0].clip_ids) == 2
    blank = [replace(one, steps=tuple(replace(step, action="", path=None) for step in one.steps)) for one in told]
    with pytest.raises(ConfigError, match=r"different tasks: d:v0:0-9 \(put: .*d:v1:0-9 \(place: "):
        learn("place", "", blank, READER)
    assert len(learn("place", "", [replace(one, verb="put") for one in blank], READER).skills) == 1
    assert [one.name for one in learn("place", "", blank, READER, split=True).skills] == ["place", "place-2"]


def test_bounds_are_wider_the_fewer_clips_there_are():
    one, five = learned(1), learned(5)
    for a, b in zip(one.constraints[1:], five.constraints[1:], strict=True):
        assert (a.path.high - a.path.low).mean() > (b.path.high - b.path.low).mean()
    assert one.most_apart > five.most_apart


def test_one_clip_is_called_weak():
    notes = learn("place", "", executions(1), READER).notes
    assert any("weak, learned from one clip" in note for note in notes)
    assert not learn("place", "", executions(5), READER).notes


def test_clips_that_have_little_in_common_are_weak():
    ways = [(0.3, 0.0, -0.1), (-0.3, 0.0, -0.1), (0.0, 0.3, -0.1)]
    clips = [executions(1, [PLACE[0], ("lower", way, (0, 0, 0))], first=seed)[0] for seed, way in enumerate(ways)]
    notes = learn("place", "", clips, READER).notes
    assert any("the paths of 'lower A' have little in common: their ends are bounded by" in note for note in notes)
    held = [(0.0, -0.14, 0.0), (0.1, -0.14, 0.0), (-0.1, -0.14, 0.0)]
    clips = [executions(1, first=seed, grasp=grasp)[0] for seed, grasp in enumerate(held)]
    notes = learn("place", "", clips, READER).notes
    assert any("the grasps of 'reach for A' have nothing in common" in note for note in notes)


def test_clips_of_different_tasks_beside_one_of_an_unknown_action_are_noted():
    """It is like both: what is learned is like neither."""
    known = [executions(1, [(words, *PLACE[0][1:])], first=seed)[0] for seed, words in enumerate(("lift", "turn"))]
    cells = taking(7, PLACE[:1])
    cells[1] |= {"text": None}
    notes = learn("odd", "", [*known, read_execution("d:unknown:0-9", cells)], READER).notes
    assert any("differ in what is done in one step (lift 1, turn 1)" in note for note in notes)
    assert not any("differ in what" in note for note in learn("place", "", executions(5), READER).notes)


def test_clips_of_different_tasks_are_refused_or_split():
    clips = [*executions(3), *executions(3, POUR, first=40)]
    with pytest.raises(ConfigError, match=r"different tasks: d:v0:0-9, .*lower A.*; d:v40:0-9, .*turn A"):
        learn("place", "", clips, READER)
    split = learn("place", "", clips, READER, split=True)
    assert [(one.name, one.words) for one in split.skills] == [
        ("place", "reach for A, lift A, lower A"), ("place-2", "reach for A, lift A, turn A")
    ]  # fmt: skip


def test_one_other_clip_beside_those_that_agree_is_left_out_and_named():
    other = executions(1, [("turn", (0, 0, 0), (80, 0, 0))], first=40)
    found = learn("place", "", [*executions(2), *other], READER)
    assert len(found.skills[0].clip_ids) == 2, "even of three"
    with pytest.raises(ConfigError, match="different tasks"):
        learn("place", "", [*executions(1), *other], READER)
    found = learn("place", "", [*executions(5), *other], READER)
    assert len(found.skills[0].clip_ids) == 5
    assert any("d:v40:0-9" in note and "left out" in note for note in found.notes)


def test_clips_without_a_thing_are_named_and_refused_if_there_is_no_other():
    empty = read_execution("d:none:0-9", [cell(0.0, "left", None, None, master="scene", slave="hand_left")])
    assert "d:none:0-9" in learn("place", "", [*executions(5), empty], READER).notes[0]
    with pytest.raises(ConfigError, match=r"no segment with a thing in d:none:0-9"):
        learn("place", "", [empty], READER)
    verdict = judge(learned(), empty)
    assert (verdict.answer, verdict.score) == ("cannot tell", 0.0)  # contacts are missed, too
    assert "nothing was taken, or it was not seen" in verdict.doubts[0]


def test_grasps_are_grouped_by_place_and_turn():
    grasps = np.stack([pose((0, 0, 0)), pose((0.01, 0, 0)), pose((0, 0.1, 0)), pose((0, 0, 0), (0, 0, 90))])
    assert group_grasps(grasps).tolist() == [0, 0, 1, 2]


def test_a_path_that_ends_by_the_box_is_learned_as_such():
    """Things of any height are put on the table from the same height above it: their middle ends higher."""
    steps = []
    for height in (0.02, 0.05, 0.09, 0.04):
        path = np.linspace(0, 1, 10)[:, None] * np.array([0.1, 0, height, 0, 0, 0])
        box = np.array([-0.03, -0.03, -height, 0.03, 0.03, height])
        steps.append(Step("manipulation", "move", "main", "scene", "A", 0.0, 1.0, None, path, box))
    found = path_bounds(steps)
    assert found.by_box.tolist() == [0, 0, 1]
    low, high = path_for(found, np.array([-0.03, -0.03, -0.2, 0.03, 0.03, 0.2]), None)
    assert 0.5 * (low + high)[-1, 2] == pytest.approx(0.2, abs=1e-6)


def test_order_of_steps():
    a, b = (executions(1, moves)[0].steps for moves in (PLACE, PLACE[:1]))
    assert apart(a, a) == 0.0
    assert apart(a, b) == pytest.approx(0.7 / 3)
    assert align(a, b)[1] == [(0, 0), (1, 1)]


def test_a_skill_is_the_same_after_json(skill):
    again = Skill.from_json(skill.to_json())
    assert again.to_json() == skill.to_json()
    one = executions(1, first=80)[0]
    assert judge(again, one) == judge(skill, one)
    with pytest.raises(ValueError, match="format 99"):
        Skill.from_json('{"format": 99}')


def test_adapted_grasps_reach_a_larger_thing(skill):
    """The palm of a grasp learned on a cup would be inside of a thing four times as wide."""
    wide = read_execution("d:wide:0-9", taking(90, PLACE, half_m=(0.2, 0.16, 0.2), grasp=(0.0, -0.26, 0.0)))
    before = gap_m(_palms(skill), wide.steps[0].box)
    found = adapt(skill, wide, READER)
    after = gap_m(_palms(found.skill), wide.steps[0].box)
    low, high = skill.constraints[0].gap_m
    assert np.median(before) < low - 0.03
    assert low - 0.02 <= np.median(after) <= high + 0.02
    assert {change.round for change in found.changes} <= set(range(1, ROUNDS + 1))
    assert found.after.score >= found.before.score
    assert found.things["A"][4] == pytest.approx(0.16, rel=0.06)


def _palms(skill: Skill) -> np.ndarray:
    grid = grasp_grid(skill.constraints[0].regions[0])
    assert grid.shape == (25, 4, 4)
    assert np.allclose(np.linalg.det(grid[:, :3, :3]), 1.0)
    return grid[:, :3, 3] + 0.09 * grid[:, :3, 1]


def test_samples_of_a_path_are_inside_its_bounds(skill):
    path = skill.constraints[1].path
    samples = path_samples(path, None, None)
    assert samples.shape == (4, 10, 6)
    assert ((samples >= path.low) & (samples <= path.high)).all()


def test_adapting_to_a_clip_without_things_says_so(skill):
    with pytest.raises(ConfigError, match="shows no thing whose size is known"):
        adapt(skill, read_execution("d:none:0-9", []), READER)


@pytest.mark.parametrize("box", [[0.1] * 6, [0.1, 0, 0, 0, 0.1, 0.1], [np.nan] * 6])
def test_a_thing_of_no_size_has_an_unknown_one(skill, box):
    segments = [dict(one) | {"object_box_m": box} for one in taking(9, PLACE)]
    with pytest.raises(ConfigError, match="shows no thing whose size is known"):
        adapt(skill, read_execution("point", segments), RuleReader())
    flat = [dict(one) | {"object_box_m": [0, 0, 0, 0.1, 0.1, 0]} for one in segments]
    assert adapt(skill, read_execution("flat", flat), RuleReader()).things["A"] == (0, 0, 0, 0.1, 0.1, 0)


def test_a_grasp_that_is_not_finite_is_unknown():
    segments = [dict(one) | {"grasp_pose": [np.nan] * 16} for one in taking(9, PLACE)]
    assert all(step.grasp is None for step in read_execution("nan", segments).steps)


def test_a_hand_turned_in_the_grasp_is_another_region():
    turned = pose((0.0, -0.14, 0.0))
    turned[:3, :3] = Rotation.from_euler("y", 180, degrees=True).as_matrix()
    clips = executions(5)
    others = [
        read_execution(f"d:t{seed}:0-9", [dict(one, grasp_pose=turned.ravel().tolist()) for one in taking(seed, PLACE)])
        for seed in range(200, 203)
    ]
    regions = learn("place", "", [*clips, *others], READER).skills[0].constraints[0].regions
    assert [region.num for region in regions] == [5, 3]
