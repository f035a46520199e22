"""Skills read by a model: what it is shown and asked, and that its answers decide, within bounds."""

import numpy as np
import pytest
from jsonschema import validate
from scipy.spatial.transform import Rotation
from support.skill_segments import PLACE, pose, taking

from handloom.skills.adapt import ROUNDS, adapt
from handloom.skills.bounds import apart_se3, group_grasps, in_groups
from handloom.skills.execution import read_execution
from handloom.skills.learn import learn
from handloom.skills.model_reader import FRAMES_A_STEP, MOST_CLIPS, ModelReader
from handloom.skills.reader import RuleReader

FRAME = np.zeros((8, 8, 3), np.uint8)
PICTURE = np.ones((4, 4, 3), np.uint8)


class Model:
    """Answers as it is told. asked: (text, images) of each question. boxes: of each picture that was drawn."""

    def __init__(self, **answers):
        self.answers, self.asked, self.drawn = answers, [], []
        self.reader = ModelReader("a-model", self.ask, self.draw, lambda clip, times: [FRAME] * len(times))

    def ask(self, text, images, schema, check=None):
        self.asked.append((text, list(images)))
        told = next(self.answers[name] for name in self.answers if name in schema["properties"])
        found = told(len(self.asked)) if callable(told) else told
        validate(found, schema)
        problem = check(found) if check else None
        if problem is not None:
            raise ValueError(problem)
        return found

    def draw(self, lines, box):
        assert lines.ndim == 3
        assert lines.shape[2] == 3
        self.drawn.append((lines, box))
        return PICTURE


def executions(num, first=0, **values):
    return [read_execution(f"d:v{seed}:0-9", taking(seed, PLACE, **values)) for seed in range(first, first + num)]


def model(num_regions=1, succeeds=True, move_cm=(0, 0, 0)):
    return Model(
        constraint={"constraint": "hold the cup by its side"},
        num_regions={"num_regions": num_regions, "reason": "they are alike"},
        succeeds={"succeeds": succeeds, "move_cm": list(move_cm), "reason": "the palm is inside the thing"},
    )


def test_a_skill_says_what_the_model_said_of_frames_and_interactions():
    told = model()
    skill = learn("place", "put the cup aside", executions(5), told.reader).skills[0]
    assert {one.text for one in skill.constraints} == {"hold the cup by its side"}
    assert skill.reader == "a-model (vlmimic/skill-1)"
    described = [(text, images) for text, images in told.asked if "constraint" in text]
    assert [len(images) for _, images in described] == [MOST_CLIPS * FRAMES_A_STEP + 1] * 3
    assert "the main hand takes A" in described[0][0]
    assert all(images[-1] is PICTURE for _, images in described)
    grasps, paths = told.drawn[0][0], told.drawn[2][0]
    assert (grasps.shape, paths.shape) == ((5, 2, 3), (5, 10, 3))
    assert np.allclose(np.linalg.norm(grasps[:, 1] - grasps[:, 0], axis=1), 0.09)


def test_nothing_is_asked_of_a_step_that_cannot_be_shown():
    cells = taking(1, PLACE)
    for one in cells:
        one |= {"grasp_pose": None, "object_box_m": None, "trajectory": [[float("nan")] * 16] * 12}
    told = model()
    reader = ModelReader("a-model", told.ask, told.draw, lambda clip, times: [])
    skill = learn("place", "", [read_execution("d:v:0-9", cells)], reader).skills[0]
    assert told.asked == []
    assert skill.constraints[0].text == "the main hand takes A (1.0 s)"


def test_the_model_says_into_how_many_regions_grasps_fall():
    turned = pose((0.0, -0.14, 0.0))
    turned[:3, :3] = Rotation.from_euler("y", 180, degrees=True).as_matrix()
    others = [
        read_execution(f"d:t{seed}:0-9", [dict(one, grasp_pose=turned.ravel().tolist()) for one in taking(seed, PLACE)])
        for seed in range(200, 203)
    ]
    for num, expected in ((1, [8]), (2, [5, 3])):
        skill = learn("place", "", [*executions(5), *others], model(num).reader).skills[0]
        assert [region.num for region in skill.constraints[0].regions] == expected
    with pytest.raises(ValueError, match="num_regions is 9, there are 8 grasps"):
        learn("place", "", [*executions(5), *others], model(9).reader)


def test_groups_of_a_number_are_those_that_distance_gives_where_it_is_the_same():
    rng = np.random.default_rng(3)
    grasps = np.stack([pose(rng.normal([0.2 * (i % 3), 0, 0], 0.005), rng.normal(0, 3, 3)) for i in range(9)])
    apart = apart_se3(grasps)
    assert np.allclose(apart, apart.T)
    assert np.allclose(np.diag(apart), 0)
    assert group_grasps(grasps).tolist() == in_groups(apart, 3).tolist() == [0, 1, 2] * 3
    assert in_groups(apart, 1).tolist() == [0] * 9
    assert sorted(in_groups(apart, 9).tolist()) == list(range(9))


def test_bounds_follow_the_model_until_it_is_content_or_the_rounds_are_over():
    skill = learn("place", "", executions(5), RuleReader()).skills[0]
    other = executions(1, first=90, half_m=(0.2, 0.16, 0.2), grasp=(0.0, -0.26, 0.0))[0]
    held = skill.constraints[0].regions[0].middle[:3, 3]
    for wanted in (2, ROUNDS + 9):
        told = model()
        told.answers["succeeds"] = lambda number, wanted=wanted: {
            "succeeds": number > wanted, "move_cm": [0, -2.5, 0], "reason": "further out"
        }  # fmt: skip
        found = adapt(skill, other, told.reader)
        rounds = min(wanted, ROUNDS)
        assert [(one.round, one.reason) for one in found.changes] == [(n + 1, "further out") for n in range(rounds)]
        moved = found.skill.constraints[0].regions[0].middle[:3, 3] - held
        assert np.allclose(moved, [0, -0.025 * rounds, 0])
        (_, learned_box), (_, now_box) = told.drawn[:2]
        assert now_box[4] > 3 * learned_box[4]
        assert len(told.asked[0][1]) == 2


def test_a_move_that_no_hand_would_make_is_no_answer():
    skill = learn("place", "", executions(5), RuleReader()).skills[0]
    with pytest.raises(ValueError, match="move_cm is 500 cm long, expected at most 30"):
        adapt(skill, executions(1, first=90)[0], model(succeeds=False, move_cm=(0, 0, 500)).reader)
    content = model(succeeds=False)
    assert adapt(skill, executions(1, first=90)[0], content.reader).changes == ()
    assert content.asked, "it was asked, and moved nothing"
