"""Executions as the pipeline sees them: cut elsewhere, seen in part, with things whose places are wrong."""

from dataclasses import replace

import numpy as np
import pytest
from support.skill_segments import NONE, PLACE, POUR, taking

from handloom.skills.bounds import SIGHT, path_bounds, path_for
from handloom.skills.carrying import along_the_way, carryings, joined
from handloom.skills.execution import Execution, Step, place_error_m, read_execution
from handloom.skills.learn import learn
from handloom.skills.match import judge
from handloom.skills.reader import RuleReader
from handloom.skills.skill import Skill

READER = RuleReader()


def one_piece(cells):
    """The same contact, not cut where the thing is highest."""
    reach, up, down, rest = cells
    path = [*up["trajectory"], *down["trajectory"]]
    whole = up | {"text": "move object 1", "trajectory": path, "end_s": down["end_s"], "end_frame": down["end_frame"]}
    return [reach, whole, rest]


def without_reach(cells):
    return [{**one, "contact_start_s": 1.5} for one in cells[1:]]


def read(cells, name="d:v:0-9") -> Execution:
    return read_execution(name, cells)


@pytest.fixture(scope="module")
def skill() -> Skill:
    """Of five clips, two of which are cut otherwise."""
    cells = [one_piece(taking(seed, PLACE)) if seed % 2 else taking(seed, PLACE) for seed in range(5)]
    return learn("place", "", [read(one, f"d:v{seed}:0-9") for seed, one in enumerate(cells)], READER).skills[0]


def test_the_whole_path_does_not_depend_on_where_it_is_cut():
    for seed in range(3):
        cells = taking(seed, PLACE)
        cut, whole = (carryings(read(one).steps)[0].whole.path for one in (cells, one_piece(cells)))
        assert np.allclose(cut, whole, atol=0.02)  # ten keypoints of each step round its corner off
        assert np.allclose(cut[-1], whole[-1], atol=1e-6)


def test_keypoints_along_the_way_do_not_depend_on_pauses():
    path = np.zeros((20, 6))
    path[:, 0] = np.linspace(0.0, 0.2, 20)
    paused = np.concatenate([path[:7], np.repeat(path[6:7], 30, axis=0), path[7:]])
    assert np.allclose(along_the_way(path), along_the_way(paused))
    assert np.allclose(along_the_way(np.zeros((5, 6))), 0.0)


def test_a_skill_of_clips_that_are_cut_differently_accepts_each_cut(skill):
    skill = Skill.from_json(skill.to_json())
    for seed in range(20, 24):
        for cells in (taking(seed, PLACE), one_piece(taking(seed, PLACE))):
            assert judge(skill, read(cells)).accepted, judge(skill, read(cells))


@pytest.mark.parametrize(
    "moves",
    [
        PLACE[::-1],
        PLACE[:1],
        PLACE[1:],
        POUR,
        [PLACE[0], ("lower", (-0.12, 0.0, -0.10), (0, 0, 0))],
        [PLACE[0], ("lower", (0.22, 0.0, -0.10), (0, 0, 0))],
        [PLACE[0], ("lower", (0.12, 0.0, -0.10), (0, 0, 90))],
        [("turn", *PLACE[0][1:]), PLACE[1]],
    ],
    ids=["order", "first alone", "second alone", "pour", "other way", "farther", "turned", "other words"],
)
def test_what_is_done_otherwise_is_rejected_however_it_is_cut(skill, moves):
    assert judge(skill, read(taking(50, moves))).answer == "not executed"


def test_clips_that_are_all_cut_alike_ask_for_that_order():
    steps = learn("place", "", [read(taking(seed, PLACE), f"d:v{seed}:0-9") for seed in range(5)], READER).skills[0]
    assert steps.carried == ()
    assert judge(steps, read(one_piece(taking(20, PLACE)))).answer == "not executed"


def test_a_clip_in_which_a_second_thing_was_taken_for_moved_does_not_undo_the_others():
    cells = [one_piece(taking(seed, PLACE)) if seed % 2 else taking(seed, PLACE) for seed in range(5)]
    reach, up, _, rest = cells[4]
    cells[4] = [reach, up, rest | {"hand": "right" if rest["hand"] == "left" else "left", "slave": "object_2"}]
    found = learn("place", "", [read(one, f"d:v{seed}:0-9") for seed, one in enumerate(cells)], READER).skills[0]
    assert len(found.carried) == 1
    for seed in range(20, 24):
        for whole in (taking(seed, PLACE), one_piece(taking(seed, PLACE))):
            assert judge(found, read(whole)).accepted
    assert judge(found, read(taking(50, PLACE[::-1]))).answer == "not executed"


def test_a_thing_that_moves_in_a_hand_was_taken(skill):
    """Whether or not the hand was seen as it came; where it holds it is known from the contact."""
    found = read(without_reach(taking(20, PLACE)))
    assert found.words == "reach for A, lift A, lower A"
    assert found.steps[0].start_s == found.steps[0].end_s == 1.5
    assert judge(skill, found).accepted
    elsewhere = read(without_reach(taking(20, PLACE, grasp=(0.10, -0.14, 0.05))))
    assert any("'reach for A'" in reason for reason in judge(skill, elsewhere).reasons)


def test_what_was_not_seen_is_no_evidence(skill):
    cells = taking(20, PLACE)
    cells[2] |= {"text": None, "trajectory": [NONE] * 12}
    verdict = judge(skill, read(cells))
    assert verdict.answer == "cannot tell"
    assert "unknown" in verdict.doubts[0]


def test_steps_begin_where_the_last_one_left_the_thing():
    """What moves between two segments of one contact is no part of either, but of the whole."""
    cells = taking(20, PLACE)
    up = np.array(cells[1]["trajectory"]).reshape(-1, 4, 4)
    cells[1]["trajectory"] = up[:6].reshape(6, 16).tolist()
    steps = read(cells).steps
    assert steps[2].gap[2] == pytest.approx(0.055, abs=0.01)
    assert joined(steps[1:])[-1, :3] == pytest.approx([0.12, 0.0, 0.0], abs=0.02)
    assert joined([replace(steps[1], path=None), steps[2]]) is None


def test_places_may_be_wrong_along_the_line_of_sight_where_points_are_smeared(skill):
    """As far as a thing's points lie apart, and in no other direction."""
    cells = one_piece(taking(20, PLACE))
    for one in cells[:2]:
        one |= {"object_box_m": [-0.04, -0.2, -0.05, 0.04, 0.2, 0.05], "object_tracks": list(range(6))}
    error = place_error_m(cells[1])
    assert error == pytest.approx(0.6 * 0.25 / np.sqrt(6))
    found = read(cells)
    whole = found.steps[1]

    def moved(way) -> Execution:
        shift = np.zeros((10, 6))
        shift[:, :3] = np.linspace(0, 1, 10)[:, None] * np.asarray(way)
        return replace(found, steps=(found.steps[0], replace(whole, path=whole.path + shift)))

    assert judge(skill, moved((0, 0, 0))).accepted
    assert judge(skill, moved(error * SIGHT)).accepted
    assert not judge(skill, moved(3 * error * SIGHT)).accepted
    assert not judge(skill, moved((error, 0, 0))).accepted
    sure = replace(found, steps=tuple(replace(step, error_m=0.0) for step in found.steps))
    assert judge(skill, sure).accepted
    exact = replace(whole, error_m=0.0, path=moved(error * SIGHT).steps[1].path)
    assert not judge(skill, replace(sure, steps=(sure.steps[0], exact))).accepted


def test_a_path_of_which_the_end_was_lost_does_not_widen_the_bounds():
    steps = [read(taking(seed, PLACE)).steps[2] for seed in range(5)]
    lost = replace(steps[0], path=steps[0].path * np.array([0.1, 1, 1, 1, 1, 1]))
    kept, with_lost = path_bounds(steps), path_bounds([*steps, lost])
    assert with_lost.low[-1, 0] == pytest.approx(kept.low[-1, 0], abs=0.01)


def cut_short(cells, share):
    """The same placing, of which the thing was lost when it was let down by this share."""
    down = cells[2]
    kept = [*down["trajectory"][: max(int(share * len(down["trajectory"])), 4)]]
    return [*cells[:2], down | {"trajectory": kept}, *cells[3:]]


def end_of(skill):
    """(3) where the middle of the bounds ends, for the things of the demonstrations."""
    (whole,) = skill.carried
    return 0.5 * sum(path_for(whole.path, whole.box, None))[-1, :3]


@pytest.mark.parametrize("num_whole", [2, 3, 4])
def test_things_end_where_clips_show_it_that_follow_them_to_their_end(num_whole):
    """A thing that others put down on the table again, and that is in the air at the end, was lost on the way."""
    placed = [taking(seed, PLACE) for seed in range(5)]
    seen = [one if seed < num_whole else cut_short(one, 0.4) for seed, one in enumerate(placed)]
    seen[0] = one_piece(seen[0])
    skill = learn("place", "", [read(one, f"d:v{seed}:0-9") for seed, one in enumerate(seen)], READER).skills[0]
    assert end_of(skill) == pytest.approx([0.12, 0.0, 0.0], abs=0.012)


def test_what_is_put_higher_is_put_higher_by_all_clips():
    onto = [PLACE[0], ("lower", (0.12, 0.0, -0.05), (0, 0, 0))]
    cells = [one_piece(taking(seed, onto)) if seed % 2 else taking(seed, onto) for seed in range(4)]
    cells.append(taking(4, PLACE))
    skill = learn("place", "", [read(one, f"d:v{seed}:0-9") for seed, one in enumerate(cells)], READER).skills[0]
    assert end_of(skill)[2] > 0.02


def test_clips_of_which_nothing_is_known_do_not_teach():
    cells = taking(9, PLACE)
    for one in cells[1:3]:
        one |= {"text": None, "trajectory": [NONE] * 12, "grasp_pose": None, "object_box_m": None}
    blind = read(cells[1:], "d:blind:0-9")
    assert isinstance(blind.steps[0], Step)
    found = learn("place", "", [*[read(taking(s, PLACE), f"d:v{s}:0-9") for s in range(3)], blind], READER)
    assert "d:blind:0-9" not in found.skills[0].clip_ids
    assert any("unknown what is done" in note and "d:blind:0-9" in note for note in found.notes)


def test_what_comes_back_may_be_called_differently():
    """Wiping, as its strokes are seen, and as it was turned by mistake."""
    words = ("wipe with", "move to and fro", "turn and back", "wipe with")
    clips = [
        read(taking(seed, [(word, (0.0, 0.05, 0.0), (0, 0, 0))]), f"d:v{seed}:0-9") for seed, word in enumerate(words)
    ]
    skill = learn("wipe", "", clips, READER).skills[0]
    assert (skill.words, len(skill.clip_ids)) == ("reach for A, wipe with A", 4)
    assert judge(skill, clips[2]).accepted
