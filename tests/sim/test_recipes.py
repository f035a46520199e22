"""Trained recipes as policies: they see what they were trained on, and go where they predict."""

from __future__ import annotations

import json
import shutil
import sys
import tomllib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("metaworld", reason="the simulator is not installed: pip install '.[sim]'")
pytest.importorskip("torch", reason="training is not installed: pip install '.[train]'")

import handloom.train.arm4r as package
import handloom.train.arvrm as arvrm
from handloom.api import Database
from handloom.bench.loop.people import interactions_in
from handloom.errors import ConfigError
from handloom.export.lerobot.dataset import export_lerobot
from handloom.export.lerobot.interactions import episodes_of
from handloom.export.lerobot.interactions import layout_of as people_layout
from handloom.io.folder import Folder
from handloom.pipelines.ingest.robots import lerobot
from handloom.pipelines.sim.evaluate import evaluate
from handloom.pipelines.sim.jobs import world_of
from handloom.pipelines.sim.record import record
from handloom.schemas.tables.robot import episode_arrays
from handloom.sim.demonstrations import STATE
from handloom.sim.policies import find_policy
from handloom.sim.recipes import Trained, action_to
from handloom.sim.rendering import Camera, Painter, backend, backends
from handloom.sim.replay import ENVIRONMENT
from handloom.sim.rollouts import roll_out
from handloom.sim.tasks import Use, find_task, scene_seed
from handloom.sim.world import STATE_NAMES
from handloom.store.episodes import read_episodes
from handloom.synth.script.demo import turn_specs
from handloom.synth.stage import build_stage
from handloom.train.arm4r.recipe import RECIPE
from handloom.train.arm4r.settings import Arm4rSettings
from handloom.train.arvrm.recipe import RECIPE as ARVRM
from handloom.train.arvrm.settings import ArvrmSettings
from handloom.train.loop import train

REACH = find_task("reach")
CAMERA = Camera("corner3", 48, 32)
SIZE = 32
SMALL = tomllib.loads((Path(package.__file__).parent / "small-control.toml").read_text())
TINY = SMALL | {"layers": 1, "head_hidden": 16, "max_steps": 1, "rate_hz": 20.0, "context": 6, "num_pred_steps": 2}
TOLD = {"things": "places", "hand_pose": False, "turned": True, "balanced_loss": True, "held_out_share": 0.0}
FINE = tomllib.loads((Path(arvrm.__file__).parent / "small-finetune.toml").read_text())
FINE |= {
    "dim": 32,
    "layers": 1,
    "heads": 2,
    "max_steps": 1,
    "stride": 1,
    "batch_size": 8,
    "retrieval": False,
    "image_encoder": "none",
}
FINE |= {"rate_hz": 10.0, "phases": 2, "steps": 6, "image_size": SIZE}


def fine(**values) -> ArvrmSettings:
    return ArvrmSettings(**(FINE | values))


def settings(**values) -> Arm4rSettings:
    return Arm4rSettings(**(TINY | values))


@pytest.fixture(scope="module")
def draws() -> bool:
    return not all(backends().values())


@pytest.fixture(scope="module")
def db(tmp_path_factory, draws) -> Database:
    """Three demonstrations of reaching, with pictures where they can be drawn."""
    folder = tmp_path_factory.mktemp("reach")
    record("reach", str(folder / "dataset"), 3, picture_hz=20 if draws else 0, camera=CAMERA, workers=1)
    found = Database.open(folder / "db", create=True)
    lerobot(found, str(folder / "dataset"), dataset="reach")
    return found


@pytest.fixture(scope="module")
def trained(db, tmp_path_factory) -> str:
    """A checkpoint of one step, without pictures."""
    out = tmp_path_factory.mktemp("trained")
    return train(RECIPE, db, settings(), Folder.parse(out)).checkpoint


@pytest.fixture(scope="module")
def finetuned(db, tmp_path_factory) -> str:
    """AR-VRM after one step, without pictures and retrieval."""
    return train(ARVRM, db, fine(), Folder.parse(tmp_path_factory.mktemp("finetuned"))).checkpoint


@pytest.fixture(scope="module")
def told(tmp_path_factory) -> tuple[Database, str]:
    """Demonstrations in which the network is told where things are, and its checkpoint of one step."""
    folder = tmp_path_factory.mktemp("told")
    record("reach", str(folder / "dataset"), 2, workers=1)
    found = Database.open(folder / "db", create=True)
    lerobot(found, str(folder / "dataset"), dataset="reach", state=(STATE, ENVIRONMENT))
    made = train(RECIPE, found, settings(**TOLD), Folder.parse(folder / "run"))
    return found, made.checkpoint


def demonstration(db: Database) -> tuple[int, np.ndarray]:
    """Scene and actions of an episode that is trained on."""
    table = read_episodes(db)
    rows = {row["episode_id"]: row for row in (episode_arrays(table, n) for n in range(3))}
    name = RECIPE.data(db, settings()).train[0]["clip_id"]
    return scene_seed(REACH, Use.record, 0, rows[name]["episode_index"]), rows[name]["action"]


def shown(policy: Trained, scene: int, actions, num_steps: int):
    """What the policy sees and predicts at the recipe's steps, while the recorded actions are done."""
    world = world_of(REACH)
    observation, seen, predicted = world.reset(scene), [], []
    painter = None if policy.camera is None else Painter(world, policy.camera, backend())
    policy.reset(REACH.text, 0)
    real = policy.predictor.predict
    policy.predictor.predict = lambda *given: predicted.append(real(*given)) or predicted[-1]
    for action in actions[: 4 * num_steps]:
        if painter is not None and policy.looks(observation.step):
            observation = replace(observation, picture=painter.picture())
        policy.act(observation)
        if policy.looks(observation.step):
            seen.append(policy.predictor.sample(*policy.seen(), REACH.text))
        observation = world.step(action).after
    policy.predictor.predict = real
    if painter is not None:
        painter.close()
    return seen, predicted


def test_the_policy_sees_what_it_was_trained_on(db, trained):
    """States and past actions of the windows, and so the network's own predictions of them."""
    import torch

    data = RECIPE.data(db, settings())
    network = Trained("arm4r", trained, REACH).predictor.network
    scene, actions = demonstration(db)
    seen, predicted = shown(Trained("arm4r", trained, REACH), scene, actions, 9)
    assert [window["clip_id"] for window in (data.train[n] for n in range(4))] == [data.train[0]["clip_id"]] * 4
    for step, (sample, states) in enumerate(zip(seen, predicted, strict=True)):
        first = max(0, step - 5)
        window, last = data.train[first], step - first
        assert window["text"] == sample["text"]
        np.testing.assert_allclose(sample["state"][: last + 1], window["state"][: last + 1], atol=1e-5)
        np.testing.assert_allclose(sample["target"][:last, 0], window["target"][:last, 0], atol=1e-5)
        assert np.isnan(sample["target"][last]).all(), "what comes later is not known"
        batch = {name: torch.from_numpy(window[name])[None] for name in ("state", "target")} | {
            "text": [window["text"]]
        }
        with torch.no_grad():
            delta = network(batch)["prediction"][0, last].numpy()
        np.testing.assert_allclose(states, window["state"][last] + delta, atol=1e-5)


def test_a_policy_that_is_told_of_things_gets_them_as_it_was_trained(told):
    db, checkpoint = told
    windows = RECIPE.data(db, settings(**TOLD)).train
    row = episode_arrays(read_episodes(db), 0)
    first = next(n for n in range(len(windows)) if windows[n]["clip_id"] == row["episode_id"])
    policy = Trained("arm4r", checkpoint, REACH)
    seen, _ = shown(policy, scene_seed(REACH, Use.record, 0, row["episode_index"]), row["action"], 6)
    wanted = windows[first]["state"]
    assert wanted.shape[1] == 10 + 6, "the places of the puck and of the goal, without the puck's orientation"
    assert policy.predictor.things == world_of(REACH).environment_names
    np.testing.assert_allclose(seen[-1]["state"], wanted, atol=1e-5)
    assert evaluate("reach", f"arm4r:{checkpoint}", 1, 1, max_steps=5, workers=1).error == ""


def test_arvrm_is_told_of_things_as_it_was_trained(told, tmp_path):
    wanted = fine(things=True, held_out_share=0.0, pad=True, goal_s=1.0)
    db, checkpoint = told[0], train(ARVRM, told[0], wanted, Folder.parse(tmp_path)).checkpoint
    windows, row = ARVRM.data(db, wanted).train, episode_arrays(read_episodes(db), 0)
    first = next(n for n in range(len(windows)) if windows[n]["episode_id"] == row["episode_id"])
    policy = Trained("arvrm", checkpoint, REACH)
    assert policy.predictor.things == world_of(REACH).environment_names
    seen, predicted = shown(policy, scene_seed(REACH, Use.record, 0, row["episode_index"]), row["action"], 9)
    for name in ("state", "things"):
        np.testing.assert_allclose(seen[-1][name][:5], windows[first][name][:5], atol=1e-5)
    assert seen[-1]["state"].shape[1] == predicted[-1].shape[1] == len(STATE_NAMES), "things are not predicted"
    with pytest.raises(ConfigError, match=r"was told of object0.x, .*; stick-push has"):
        find_policy(f"arvrm:{checkpoint}", find_task("stick-push"))


def test_things_of_another_task_and_states_without_things_are_refused(told, db):
    with pytest.raises(ConfigError, match=r"was told of object0.x, .*; stick-push has") as error:
        find_policy(f"arm4r:{told[1]}", find_task("stick-push"))
    assert "of stick-push alone" in error.value.hint
    with pytest.raises(ConfigError, match=r"things are asked for, and the states .* have none beside a pose"):
        RECIPE.data(db, settings(things=True))
    with pytest.raises(ConfigError, match=r"things are asked for, and the states .* have none beside a pose"):
        ARVRM.data(db, fine(things=True))


def test_who_was_trained_on_people_acts_without_a_demonstration(tmp_path):
    """It is told of the places that it knows by name, as seen from the fingertips, and not of what it has not learned
    of."""
    spec = turn_specs("lift-place", 1, 5)[0]
    episodes = [episode for one in interactions_in(build_stage(spec).truth, "") for episode in episodes_of(one, 20.0)]
    export_lerobot(episodes, str(tmp_path / "people"), people_layout(20.0), card=lambda info: "")
    db = Database.open(tmp_path / "db", create=True)
    lerobot(db, str(tmp_path / "people"), dataset="people", state=(STATE, ENVIRONMENT))
    values = TOLD | {"turned": "all", "scaled": 3.0, "things_hidden": ("object0",)}
    policy = Trained("arm4r", train(RECIPE, db, settings(**values), Folder.parse(tmp_path / "run")).checkpoint, REACH)
    world = world_of(REACH)
    observation = world.reset(3)
    policy.reset(REACH.text, 0)
    action = policy.act(observation)
    told = policy.predictor.sample(*policy.seen(), REACH.text)["state"][0]
    place = observation.fingers
    assert 0.03 < observation.state[2] - place[2] < 0.06
    environment = dict(zip(world.environment_names, observation.environment, strict=True))
    for at, name in enumerate(("object0.x", "object0.y", "object0.z", "goal.x", "goal.y", "goal.z")):
        np.testing.assert_allclose(told[10 + at], environment[name] - place[at % 3], atol=1e-6)
    policy.reset(REACH.text, 0)
    moved = observation.environment + 0.2 * np.array([name.startswith("object0") for name in environment])
    np.testing.assert_array_equal(policy.act(replace(observation, environment=moved)), action)
    with pytest.raises(ConfigError, match=r"things_hidden names object7; the states have object0.x"):
        RECIPE.data(db, settings(**values | {"things_hidden": ("object7",)}))


def test_arvrm_sees_what_it_was_trained_on(db, finetuned):
    """Every other step of what it saw, in windows that begin at both phases; and so the network's own predictions."""
    import torch

    windows, policy = ARVRM.data(db, fine()).train, Trained("arvrm", finetuned, REACH)
    scene, actions = demonstration(db)
    seen, predicted = shown(policy, scene, actions, 13)
    assert len({windows[n]["episode_id"] for n in range(5)}) == 1
    for step, (sample, states) in enumerate(zip(seen, predicted, strict=True)):
        first = step % 2 if step < 8 else step - 8
        window, num = windows[first], (step - first) // 2 + 1
        assert len(sample["state"]) == num + 1
        np.testing.assert_allclose(sample["state"][:num], window["state"][:num], atol=1e-5)
        assert np.isnan(sample["state"][num]).all(), "what comes later is not known"
        batch = {"state": torch.from_numpy(window["state"])[None], "text": [window["text"]]}
        with torch.no_grad():
            whole = policy.predictor.network(batch)["prediction"][0, num - 1].numpy()
        np.testing.assert_allclose(states[0], whole, atol=1e-5)


def test_the_policys_pictures_are_those_of_training(db, draws, tmp_path):
    """Within the error of coding the dataset's video and the table's images."""
    if not draws:
        pytest.skip(f"pictures cannot be drawn here: {backends()}")
    with_pictures = settings(image_encoder="small", image_size=SIZE)
    policy = Trained("arm4r", train(RECIPE, db, with_pictures, Folder.parse(tmp_path)).checkpoint, REACH)
    assert policy.camera == CAMERA
    scene, actions = demonstration(db)
    seen, _ = shown(policy, scene, actions, 8)
    windows = RECIPE.data(db, with_pictures).train
    stored = np.stack([windows[step]["images"][0, 0] for step in range(10)]).astype(int)
    for step, sample in enumerate(seen):
        first = max(0, step - 5)
        for at, picture in enumerate(sample["images"][: step - first + 1, 0]):
            wrong = np.abs(stored - picture).mean(axis=(1, 2, 3))
            assert wrong[first + at] < 6
            # The video's first picture is coded better than the second, which differs little from it.
            assert wrong[2:].argmin() == max(0, first + at - 2), "the picture of this moment, no other"


def test_arvrms_pictures_are_those_of_training(db, draws, tmp_path):
    if not draws:
        pytest.skip(f"pictures cannot be drawn here: {backends()}")
    with_pictures = fine(image_encoder="small")
    policy = Trained("arvrm", train(ARVRM, db, with_pictures, Folder.parse(tmp_path)).checkpoint, REACH)
    assert policy.camera == CAMERA
    scene, actions = demonstration(db)
    seen, _ = shown(policy, scene, actions, 9)
    windows = ARVRM.data(db, with_pictures).train
    window = windows[0]
    for step in (0, 4, 8):
        sample = seen[step]
        num = step // 2 + 1
        assert (sample["images_valid"] == [True] * num + [False]).all()
        wrong = np.abs(sample["images"][:num].astype(int) - window["images"][:num]).mean(axis=(1, 2, 3))
        assert (wrong < 6).all()
    assert window["images_valid"].all()


def test_states_that_are_predicted_are_reached(db, trained):
    """With a network that foresees what the expert did, the task is done."""
    scene, actions = demonstration(db)
    world = world_of(REACH)
    states, observation = [], world.reset(scene)
    for action in actions:
        states.append(observation.state)
        observation = world.step(action).after
    policy = Trained("arm4r", trained, REACH)
    asked: list[int] = []

    def foresee(seen, pictures, text):
        asked.append(len(seen))
        return np.stack([states[min(4 * (len(asked) + k), len(states) - 1)] for k in range(2)])

    policy.predictor.predict = foresee
    outcome = roll_out(world, policy, scene, 0, 150)
    assert outcome.success
    assert asked[:8] == [1, 2, 3, 4, 5, 6, 6, 6]
    assert len(asked) == (outcome.num_steps + 3) // 4, "asked at the recipe's rate"


def test_an_action_goes_half_of_the_way_and_closes_where_it_shall():
    state = np.array([0.1, 0.6, 0.2, 0, 0, 0, 1, 0.95])
    target = np.array([0.11, 0.6, 0.19, 1, 0, 0, 0, 1, 0, 0.96])
    np.testing.assert_allclose(action_to(target, state), [0.5, 0, -0.5, -1])
    for gripper, close in ((0.8, 1), (0.93, 1), (0.945, -1)):
        assert action_to(np.append(target[:9], gripper), state)[3] == close
    assert np.isnan(action_to(np.full(10, np.nan), state)).all()


def test_a_checkpoint_is_a_policy_by_its_name(trained, finetuned):
    """By its folder, and by a file in it; the numbers are those of any number of processes."""
    for name, folder in (("arm4r", trained), ("arvrm", finetuned)):
        found = evaluate("reach", f"{name}:{folder}", 2, 1, max_steps=12, workers=1)
        assert found.tasks["reach"]["episodes"] == 2
        assert found.error == ""
        assert find_policy(f"{name}:{folder}/network.pt", REACH).seen


def changed(trained: str, folder: Path, **values) -> str:
    """A copy of a checkpoint that says something else of itself."""
    shutil.copytree(trained, folder)
    path = folder / "checkpoint.json"
    content = json.loads(path.read_text())
    for name, value in values.items():
        content[name] = content[name] | value if isinstance(value, dict) else value
    path.write_text(json.dumps(content))
    return str(folder)


@pytest.mark.parametrize(
    ("values", "problem"),
    [
        ({"recipe": "arvrm"}, "of the recipe arvrm, not of arm4r"),
        ({"settings": {"stage": "human", "num_pred_steps": 1}}, "of the stage human, which predicts no states"),
        ({"settings": {"stage": "robot_points", "num_pred_steps": 1}}, "of the stage robot_points"),
        ({"facts": {"proprio_dim": 7, "has_pose": False}}, "a robot with 7 numbers in a state"),
        ({"facts": {"action_dim": 7}}, "and 7 in a prediction"),
        ({"facts": {"robot_types": ["panda"]}}, "of the robot panda, not of metaworld_sawyer"),
        ({"facts": {"target": "action"}}, "recorded actions, not the states"),
        ({"facts": {"cameras": ["wrist"]}}, "sees the cameras wrist"),
        ({"facts": {"cameras": ["corner", "topview"]}}, "sees the cameras corner, topview"),
    ],
)
def test_checkpoints_that_cannot_act_here_are_refused(trained, tmp_path, values, problem):
    with pytest.raises(ConfigError, match=problem) as told:
        find_policy(f"arm4r:{changed(trained, tmp_path / 'other', **values)}", REACH)
    assert told.value.hint


@pytest.mark.parametrize(
    ("values", "problem"),
    [
        ({"recipe": "arm4r"}, "of the recipe arm4r, not of arvrm"),
        ({"settings": {"stage": "pretrain"}}, "of the stage pretrain, which predicts no states"),
        ({"facts": {"state_names": ["a", "gripper"]}}, r"a robot with 2 numbers in a state \(a, gripper\); here"),
        ({"facts": {"robot_types": ["panda"]}}, "of the robot panda, not of metaworld_sawyer"),
        ({"settings": {"image_encoder": "small"}}, "does not say which camera it saw"),
        (
            {"settings": {"image_encoder": "small"}, "facts": {"camera": "corner", "picture_share": 0.25}},
            "a picture at 25% of its steps",
        ),
    ],
)
def test_checkpoints_of_arvrm_that_cannot_act_here_are_refused(finetuned, tmp_path, values, problem):
    with pytest.raises(ConfigError, match=problem) as told:
        find_policy(f"arvrm:{changed(finetuned, tmp_path / 'other', **values)}", REACH)
    assert told.value.hint


def test_a_folder_without_a_checkpoint_is_refused(tmp_path):
    for place in (tmp_path, tmp_path / "none"):
        with pytest.raises(ConfigError, match="no complete checkpoint at"):
            find_policy(f"arm4r:{place}", REACH)


def test_pictures_that_cannot_be_drawn_are_said_before_an_episode(trained, tmp_path, monkeypatch):
    place = changed(trained, tmp_path / "sees", facts={"cameras": ["corner3"], "picture_size": [48, 32]})
    monkeypatch.setattr("handloom.sim.rendering.backends", lambda: {"egl": "no driver", "osmesa": "no library"})
    with pytest.raises(ConfigError, match=r"sees pictures of corner3, and .*cannot draw.*no driver") as told:
        evaluate("reach", f"arm4r:{place}", 1, 1, workers=1)
    assert "libosmesa6" in told.value.hint


def test_without_torch_it_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    acting = [f"handloom.train.{part}.acting" for part in ("arm4r", "arvrm", "parts")]
    for name in ("handloom.sim.recipes", *acting):
        monkeypatch.delitem(sys.modules, name)
    with pytest.raises(ModuleNotFoundError) as told:
        find_policy("arm4r:somewhere", REACH)
    assert told.value.name == "torch"
