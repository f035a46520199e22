"""A skill on the robot arm: with MuJoCo and robosuite's Panda."""

import json
from dataclasses import replace

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from handloom.errors import ConfigError, HandloomError
from handloom.sim.tabletop.arm import Arm
from handloom.sim.tabletop.draw import draw_scene, goals_of, patterns_of, skill_scene
from handloom.sim.tabletop.episodes import FAILURES, run_episode
from handloom.sim.tabletop.film import CAMERA
from handloom.sim.tabletop.grips import Block, converted, from_above
from handloom.sim.tabletop.model import HOME_RAD, load, require_room
from handloom.sim.tabletop.plans import handlings_of, not_executed, replay_of, thing_path, warped
from handloom.sim.tabletop.reasoning import REMEDIES, ModelReasoner, Rules, Trouble
from handloom.sim.tabletop.scene import REACH, Goal, Scene, Thing, box_distance, read_scene
from handloom.sim.tabletop.simulation import Simulation
from handloom.skills.execution import GRASPING, MANIPULATION, Execution, Step
from handloom.skills.learn import learn
from handloom.skills.model_reader import NoAnswer
from handloom.skills.reader import RuleReader

BOX = np.array([-0.03, -0.03, -0.04, 0.03, 0.03, 0.04])
BOWL = np.array([-0.06, -0.06, -0.025, 0.06, 0.06, 0.025])
AWAY = np.array([-0.01, 0.10, 0.0])


def hand(place, along, back) -> np.ndarray:
    """(4, 4) thing_from_hand: the wrist's place, where the fingers point, and where the back of the hand shows."""
    y = np.array(along, float) / np.linalg.norm(along)
    z = np.array(back, float) - y * (y @ back)
    z /= np.linalg.norm(z)
    out = np.eye(4)
    out[:3, :3], out[:3, 3] = np.stack([np.cross(y, z), y, z], axis=1), place
    return out


BESIDE = hand([0.08, -0.05, 0.05], [-0.7, 0.7, -0.1], [0.6, 0.6, 0.5])
BEHIND = hand([0.05, -0.19, 0.03], [-0.3, 0.95, -0.05], [0.1, 0.1, 1.0])


def path(*places) -> np.ndarray:
    """(10, 6) keypoints through places, without turns."""
    at = np.linspace(0, len(places) - 1, 10)
    columns = np.array(places, float).T
    return np.stack([*(np.interp(at, range(len(places)), one) for one in columns), *np.zeros((3, 10))], axis=1)


def taken(thing, grasp, box) -> Step:
    return Step(GRASPING, "reach for", "main", thing, "hand", 0.0, 1.0, grasp=grasp, box=box)


def moved(thing, action, way, box, master="scene", master_box=None) -> Step:
    return Step(MANIPULATION, action, "main", master, thing, 1.0, 2.0, path=way, box=box, master_box=master_box)


PUSH = [taken("A", BEHIND, BOX), moved("A", "move", path([0, 0, 0], AWAY), BOX)]
ASIDE = [taken("A", BESIDE, BOX), moved("A", "move", path([0, 0, 0], [-0.06, 0, 0.08], [-0.14, 0.02, 0]), BOX)]
INTO = [
    taken("B", BESIDE, BOX),
    moved("B", "lift", path([0, 0, 0], [0, 0, 0.1]), BOX),
    moved("B", "lower", path([0.2, 0, 0.12], [0.05, 0, 0.12], [0, 0, 0.02]), BOX, "A", BOWL),
]
THING = Thing(name="A", kind="box", size_m=(0.06, 0.05, 0.08), place_m=(0.08, 0.10), yaw_deg=10)
BOWL_AT = Thing(name="A", kind="cup", size_m=(0.13, 0.13, 0.05), place_m=(-0.15, 0.16))


def test_what_is_not_executed_as_such_is_said():
    push, _ = skill_of(PUSH)
    wipe, _ = skill_of([PUSH[0], moved("A", "wipe with", path([0, 0, 0], AWAY), BOX)])
    assert [not_executed(push.for_task(task)) for task in ("", "push the box", "pourable openings")] == [""] * 3
    assert "'drawer', 'open' is not" in not_executed(push.for_task("C opens the drawers"))
    assert "'wipe with A', 'pour' is not" in not_executed(wipe.for_task("Pour"))


def skill_of(steps, num=5):
    """A skill of `num` executions that differ by a few millimetres."""
    rng = np.random.default_rng(3)

    def near(step):
        way = None if step.path is None else step.path + np.linspace(0, 1, 10)[:, None] * rng.normal(0, 0.004, 6)
        grasp = step.grasp
        if grasp is not None:
            grasp = grasp.copy()
            grasp[:3, 3] += rng.normal(0, 0.004, 3)
        return replace(step, path=way, grasp=grasp)

    executions = [Execution(f"clip-{number}", tuple(near(step) for step in steps)) for number in range(num)]
    return learn("it", "do it", executions, RuleReader()).skills[0], executions


def test_a_thing_is_pushed_to_its_goal_and_the_same_seed_does_the_same():
    skill, _ = skill_of(PUSH)
    (handling,) = handlings_of(skill, "hierarchical")
    assert handling.pushes
    scene = Scene(things=(THING,), goals=(Goal(thing="A", place_m=tuple(AWAY), tolerance_m=0.03),))
    first, again = (run_episode(skill, scene, 4) for _ in range(2))
    assert (first.success, first.constraints_met, first.failure) == (True, True, "")
    assert first.error_m == again.error_m
    np.testing.assert_array_equal(first.states, again.states)
    elsewhere = scene.model_copy(update={"goals": (Goal(thing="A", place_m=(0.2, 0.0, 0.0), tolerance_m=0.03),)})
    missed = run_episode(skill, elsewhere, 4)
    assert (missed.success, missed.constraints_met, missed.failure) == (False, True, "off_goal")


def test_a_thing_is_carried_by_friction_and_put_down():
    skill, executions = skill_of(ASIDE)
    (handling,) = handlings_of(skill, "hierarchical")
    assert not handling.pushes
    scene = Scene(things=(THING,), goals=(Goal(thing="A", place_m=(-0.14, 0.02, 0.0), tolerance_m=0.02),))
    assert run_episode(skill, scene, 1).success
    replayed = run_episode(replay_of(skill, executions, scene), scene, 1, "replay", rounds=0)
    assert len(replayed.attempts) == 1
    assert replayed.error_m < 0.05


def test_what_is_known_of_a_master_leads_to_it_wherever_it_stands():
    """Geometry alone knows where B went from where it stood: not where the bowl is now."""
    skill, _ = skill_of(INTO)
    thing = THING.model_copy(update={"name": "B"})
    scene = Scene(things=(BOWL_AT, thing), goals=(Goal(thing="B", beside="A", tolerance_m=0.03, upright=False),))
    assert run_episode(skill, scene, 0).success
    geometric = run_episode(skill, scene, 0, "geometric", rounds=0)
    assert not geometric.success
    assert geometric.error_m > 0.02
    with pytest.raises(ConfigError, match=r"moves things relative to A .* the scene has no thing A"):
        run_episode(skill, Scene(things=(thing,)), 0)


def test_a_grasp_that_cannot_be_done_is_counted():
    skill, _ = skill_of(ASIDE)
    wide = THING.model_copy(update={"size_m": (0.2, 0.2, 0.05)})
    found = run_episode(skill, Scene(things=(wide,), goals=(Goal(thing="A", place_m=(-0.14, 0, 0)),)), 0, rounds=1)
    assert (found.success, found.failure) == (False, "unreachable_grasp")
    assert [one.reason for one in found.attempts] == ["unreachable_grasp"] * 2
    assert "too wide" in found.detail
    assert {one.reason for one in found.attempts} <= FAILURES.keys()


def test_what_cannot_be_held_is_pushed():
    """Smooth and heavy: it slips, is held lower, slips again, and is pushed along the table."""
    skill, _ = skill_of(ASIDE)
    smooth = THING.model_copy(update={"grip_friction": 0.1, "density": 3500.0})
    scene = Scene(things=(smooth,), goals=(Goal(thing="A", place_m=(-0.14, 0.02, 0.0), tolerance_m=0.05),))
    alone, found = (run_episode(skill, scene, 1, rounds=rounds) for rounds in (0, 2))
    assert (alone.success, alone.failure) == (False, "slipped")
    assert [one.remedies for one in found.attempts] == [("hold_lower",), ("push",), ()]
    assert found.success


def test_things_are_seen_elsewhere_by_as_much_as_asked():
    sim = Simulation(Scene(things=(THING, BOWL_AT.model_copy(update={"name": "B"}))), error_m=0.02, seed=3)
    np.testing.assert_array_equal(sim.seen("A"), sim.pose("A"))
    off = []
    for _ in range(300):
        sim.look()
        off.append([sim.seen(name)[:3, 3] - sim.pose(name)[:3, 3] for name in "AB"])
        np.testing.assert_array_equal(sim.seen("A")[:3, :3], sim.pose("A")[:3, :3])
    assert np.median(np.linalg.norm(off, axis=2)) == pytest.approx(0.02, rel=0.15)
    assert not np.any(np.array(off)[..., 2])
    assert abs(np.corrcoef(np.array(off)[:, 0, 0], np.array(off)[:, 1, 0])[0, 1]) < 0.3
    moved = sim.seen_qpos() - sim.data.qpos
    assert np.count_nonzero(moved) == 4


def trouble(reason: str, tried=(), slides=False, stays_low=True) -> Trouble:
    return Trouble("move A", THING, 1, reason, FAILURES[reason], "so", slides, stays_low, tuple(tried),
                   lambda: np.zeros((4, 4, 3), np.uint8))  # fmt: skip


@pytest.mark.parametrize(
    ("given", "remedies"),
    [
        (trouble("unreachable_grasp", slides=True), ("push",)),
        (trouble("unreachable_grasp"), ("from_higher",)),
        (trouble("unreachable_grasp", ["from_higher"]), ("from_higher", "from_above")),
        (trouble("slipped"), ("hold_lower",)),
        (trouble("slipped", ["hold_lower"]), ("push",)),
        (trouble("slipped", ["hold_lower"], stays_low=False), ("hold_lower",)),
        (trouble("missed"), ("again",)),
    ],
)
def test_rules_choose_remedies_that_are_known(given, remedies):
    assert Rules().advise(given) == remedies
    assert {*remedies} <= REMEDIES.keys()


def test_a_model_chooses_remedies_and_a_wrong_answer_is_counted():
    asked = []

    def ask(text, images, schema, check=None):
        asked.append(text)
        for answer in ({"remedies": ["again", "push"], "reason": "x"}, {"remedies": ["hold_lower"], "reason": "x"}):
            if check is None or check(answer) is None:
                return answer
        raise HandloomError("no remedy: none fits")

    model = ModelReasoner("m", ask)
    assert model.advise(trouble("slipped", ["hold_lower"])) == ("hold_lower",)
    assert "Attempt 2 has failed: the thing moved in the hand" in asked[0]
    assert "box of 6 x 5 x 8 cm" in asked[0]
    assert "Changed before: hold_lower." in asked[0]
    assert all(f"{name}: {words}" in asked[0] for name, words in REMEDIES.items())
    silent = ModelReasoner("m", lambda *question: ask(*question[:3], lambda answer: "wrong"))
    assert silent.advise(trouble("collision")) == ("carry_higher",)
    assert (model.counts["refused"], silent.counts["asked"], silent.counts["refused"]) == (0, 1, 1)


def test_a_model_that_has_never_answered_is_an_error():
    """Rules stand in only for one that has answered something."""
    replies = iter([NoAnswer("down"), {"remedies": ["push"]}, NoAnswer("down")])

    def ask(*question):
        reply = next(replies)
        if isinstance(reply, NoAnswer):
            raise reply
        return reply

    model = ModelReasoner("m", ask)
    with pytest.raises(NoAnswer, match="down"):
        model.advise(trouble("slipped"))
    assert model.advise(trouble("slipped")) == ("push",)
    assert model.advise(trouble("slipped")) == ("hold_lower",)


def test_a_skill_that_moves_nothing_is_refused():
    skill, _ = skill_of(ASIDE)
    with pytest.raises(ConfigError, match="no step that moves a thing: reach for A"):
        handlings_of(replace(skill, constraints=skill.constraints[:1]), "hierarchical")


def test_modes_know_what_they_should():
    skill, _ = skill_of(INTO)
    whole, geometric, semantic = (handlings_of(skill, mode)[0] for mode in ("hierarchical", "geometric", "semantic"))
    assert [leg.master for leg in whole.legs] == [leg.master for leg in semantic.legs] == ["scene", "A"]
    assert [leg.master for leg in geometric.legs] == ["scene", "scene"]
    assert all(leg.action == "" and leg.bounds is not None for leg in geometric.legs)
    assert semantic.regions == ()
    assert all(leg.action and leg.bounds is None for leg in semantic.legs)


def test_paths_begin_where_the_thing_is_and_end_beside_the_master():
    skill, _ = skill_of(INTO)
    (handling,) = handlings_of(skill, "hierarchical")
    poses = {"A": BOWL_AT.pose, "B": THING.pose}
    tops = {"A": 0.025, "B": 0.04}
    found = thing_path(handling, 0, poses, poses, tops, np.random.default_rng(0))
    np.testing.assert_allclose(found[0], THING.pose)
    np.testing.assert_allclose(found[-1, :2, 3], BOWL_AT.place_m, atol=0.01)
    assert (found[1:, 2, 3] >= 0.04 - 1e-9).all()
    now = THING.pose.copy()
    now[:3, 3] += [0.05, -0.02, 0.0]
    again = warped(found, now)
    np.testing.assert_allclose(again[0, :3, 3], now[:3, 3])
    np.testing.assert_allclose(again[-1, :3, 3], found[-1, :3, 3])


@pytest.mark.parametrize("kind", ["box", "cylinder"])
def test_a_grip_comes_as_the_hand_came_and_closes_across_the_thing(kind):
    block = Block(THING.pose, np.array([0.03, 0.025 if kind == "box" else 0.03, 0.04]), kind)
    in_scene = BESIDE.copy()
    in_scene[:3, 3] += block.pose[:3, 3]
    grip = converted(in_scene, block)
    assert grip.pose[0, 2] < -0.5  # from the right, as the palm
    turn = grip.pose[:3, :3]
    np.testing.assert_allclose(turn.T @ turn, np.eye(3), atol=1e-9)
    assert np.linalg.det(turn) == pytest.approx(1.0)
    middle = np.linalg.inv(block.pose) @ grip.pose[:, 3]
    assert (np.abs(middle[:3]) <= block.half_m).all()
    assert abs((grip.pose[:3, 3] - block.pose[:3, 3]) @ turn[:, 0]) < 1e-9  # in its middle between the fingers
    assert grip.width_m == pytest.approx(block.width(turn[:, 0]))
    if kind == "box":  # square to its sides
        assert np.abs(block.pose[:3, :3].T @ turn[:, 0]).max() > 0.99
    steep = converted(in_scene, block, np.pi / 2)
    np.testing.assert_allclose(steep.pose[:3, 2], [0, 0, -1], atol=1e-6)
    np.testing.assert_allclose(from_above(block, 0.4).pose[:3, 2], [0, 0, -1])


def test_the_arm_reaches_what_it_can_and_knows_what_it_hits():
    scene = Scene(things=(THING,))
    arm = Arm(load(scene), scene)
    rng = np.random.default_rng(0)
    home = np.array(HOME_RAD)
    for _ in range(5):
        pose = arm.grip(home + rng.uniform(-0.3, 0.3, 7))
        found = arm.reach(pose, home)
        assert found is not None
        np.testing.assert_allclose(arm.grip(found)[:3, 3], pose[:3, 3], atol=0.003)
        turn = Rotation.from_matrix(arm.grip(found)[:3, :3].T @ pose[:3, :3]).magnitude()
        assert turn < 0.03
    far = arm.grip(home)
    far[:3, 3] = [0.0, 1.5, 0.3]
    assert arm.reach(far, home) is None
    assert arm.hits(home) is None
    down = arm.grip(home)
    down[:3, 3] = THING.pose[:3, 3]
    inside = arm.reach(down, home)
    assert "A" in arm.hits(inside)
    assert arm.hits(inside, ("A",)) is None or "table" in arm.hits(inside, ("A",))
    way = arm.connect(home, inside, rng, ("A",))
    assert way is not None
    assert all(arm.hits(q, ("A",)) is None for q in way)


@pytest.mark.parametrize("how", ["seen", "unseen"])
def test_scenes_have_room_and_depend_on_the_seed_alone(how):
    skill, _ = skill_of(INTO)
    (left, right), (near, far) = REACH
    for seed in range(8):
        scene = skill_scene(skill, how, seed)
        every = (*scene.things, *scene.obstacles)
        assert scene == skill_scene(skill, how, seed)
        assert len(scene.obstacles) == (0 if how == "seen" else 2)
        assert all(box_distance(a, b) > 0 for i, a in enumerate(every) for b in every[:i])
        assert all(left - 0.03 <= one.place_m[0] <= right + 0.03 for one in every)
        assert all(near - 0.03 <= one.place_m[1] <= far + 0.03 for one in every)
        assert [one.name for one in scene.things] == ["A", "B"]
        assert scene.thing("A").kind == "cup"  # B ends inside it
        assert scene.goals[0].beside == "A"
    assert scene != skill_scene(skill, how, 99)
    assert draw_scene(patterns_of(skill), lambda one: goals_of(skill, one), how, 3) == skill_scene(skill, how, 3)


def test_films_show_all_places_where_things_may_stand():
    camera = load(Scene(things=(THING,))).camera("corner")
    turn = Rotation.from_quat(np.roll(camera.quat, -1)).as_matrix()
    (left, right), (near, far) = REACH
    corners = [(x, y, z) for x in (left - 0.04, right + 0.04) for y in (near - 0.04, far + 0.06) for z in (0, 0.14)]
    x, y, z = ((np.array(corners) - camera.pos) @ turn).T
    high = np.tan(np.radians(camera.fovy[0]) / 2)
    assert np.abs(y / -z / high).max() < 1
    assert np.abs(x / -z / (high * CAMERA.width / CAMERA.height)).max() < 1


def test_a_thing_that_stays_misses_its_goal():
    skill, _ = skill_of([taken("A", BEHIND, BOX), moved("A", "move", path([0, 0, 0], [0, 0.045, 0]), BOX)])
    (goal,) = skill_scene(skill, "seen", 0).goals
    assert goal.tolerance_m < np.linalg.norm(goal.place_m)


def test_a_thing_can_be_welded_to_the_hand():
    """Then it does not move in it, however it is held."""
    skill, _ = skill_of(ASIDE)
    scene = Scene(things=(THING,), goals=(Goal(thing="A", place_m=(-0.14, 0.02, 0.0), tolerance_m=0.02),))
    found = run_episode(skill, scene, 2, weld=True)
    assert found.success
    assert "slipped" not in {one.reason for one in found.attempts}


def test_a_scene_is_read_from_json(tmp_path):
    file = tmp_path / "scene.json"
    scene = Scene(things=(THING, BOWL_AT.model_copy(update={"name": "B"})), goals=(Goal(thing="A", beside="B"),))
    file.write_text(scene.to_json())
    assert read_scene(file) == scene
    told = json.loads(scene.to_json())
    told["things"][1]["name"] = "A"
    file.write_text(json.dumps(told))
    with pytest.raises(ConfigError, match="two things have one name: A, A"):
        read_scene(file)
    file.write_text('{"things": []}')
    with pytest.raises(ConfigError, match="things"):
        read_scene(file)
    with pytest.raises(ConfigError, match="cannot be read"):
        read_scene(tmp_path / "none.json")
    for thing, goal, problem in (
        ({"place_m": [0.0, 0.9]}, {}, "beside the table"),
        ({"name": "start"}, {}, "no thing can have the name 'start'"),
        ({"size_m": ["x", 0.1, 0.1]}, {}, "not 'x'"),
        (
            {"mass_kg": 0.2},
            {},
            r"things\.1\.mass_kg is not known\nhint: one of name, kind, .*, density; docs/vlmimic.md",
        ),
        ({}, {"height_m": 0.2}, r"goals\.0\.height_m is not known\nhint: one of thing, beside"),
        ({}, {"place_m": ["NaN", 0, 0]}, "the goal of 'A' is at"),
    ):
        told = json.loads(scene.to_json())
        told["things"][1] |= thing
        told["goals"][0] |= goal
        file.write_text(json.dumps(told).replace('"NaN"', "NaN"))
        with pytest.raises(ConfigError, match=problem):
            read_scene(file)


def test_a_scene_that_cannot_be_is_refused():
    require_room(Scene(things=(THING, BOWL_AT.model_copy(update={"name": "B"}))))
    inside = THING.model_copy(update={"name": "B", "yaw_deg": 30.0})
    with pytest.raises(ConfigError, match=r"A and B of the scene are in the same place, .* mm deep"):
        require_room(Scene(things=(THING, inside)))
    with pytest.raises(ConfigError, match="A and the arm of the scene are in the same place"):
        require_room(Scene(things=(THING.model_copy(update={"place_m": (0.0, -0.35)}),)))
    with pytest.raises(ConfigError, match=r"MuJoCo refuses the scene of link0: .*repeated name 'link0'"):
        load(Scene(things=(THING.model_copy(update={"name": "link0"}),)))
