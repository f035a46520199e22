"""Trained recipes in CALVIN: they see what they were trained on, and their actions lead to what they predict."""

from __future__ import annotations

import tomllib
from pathlib import Path

import numpy as np
import pytest
from support.calvin_data import make_calvin

pytest.importorskip("torch", reason="training is not installed: pip install '.[train]'")

import handloom.train.arm4r as arm4r
import handloom.train.arvrm as arvrm
from handloom.api import Database
from handloom.errors import ConfigError
from handloom.ingest.robot.calvin import STATE_NAMES, continued
from handloom.io.folder import Folder
from handloom.pipelines.ingest.robots import calvin
from handloom.schemas.tables.robot import episode_arrays
from handloom.sim.calvin.installation import CalvinObservation
from handloom.sim.calvin.policies import find_policy
from handloom.sim.calvin.recipes import CalvinTrained, action_to, goal_of
from handloom.sim.policies import actions_of
from handloom.sim.recipes import check_robot
from handloom.store.episodes import read_episodes
from handloom.train.arm4r.recipe import RECIPE
from handloom.train.arm4r.settings import Arm4rSettings
from handloom.train.arvrm.recipe import RECIPE as ARVRM
from handloom.train.arvrm.settings import ArvrmSettings
from handloom.train.loop import train
from handloom.train.parts.robot_state import form_of

WINDOWS = (((100, 112), "open the drawer", "open_drawer"), ((104, 116), "push the block", "push_red_block"))


ALIKE = {"layers": 1, "max_steps": 1, "batch_size": 4, "rate_hz": 30.0, "held_out_share": 0.0}


def tiny(package, name: str) -> dict:
    return tomllib.loads((Path(package.__file__).parent / name).read_text()) | ALIKE


ARM4R = tiny(arm4r, "small-control.toml") | {"head_hidden": 16, "context": 4, "num_pred_steps": 2}
FINE = tiny(arvrm, "small-finetune.toml") | {"dim": 32, "heads": 2, "stride": 1, "retrieval": False}
SETTINGS = {
    "arm4r": Arm4rSettings(**ARM4R | {"image_encoder": "small", "image_size": 32}),
    "arvrm": ArvrmSettings(**FINE | {"steps": 5, "phases": 1, "image_encoder": "none"}),
}
RECIPES = {"arm4r": RECIPE, "arvrm": ARVRM}


@pytest.fixture(scope="module")
def db(tmp_path_factory) -> Database:
    """Two episodes of twelve frames in CALVIN's layout."""
    folder = tmp_path_factory.mktemp("calvin")
    found = Database.open(folder / "db", create=True)
    calvin(found, str(make_calvin(folder / "data", windows=WINDOWS)), dataset="calvin")
    return found


def observed(row: dict, step: int) -> CalvinObservation:
    """The step of an episode as CALVIN's side would send it; the picture is black."""
    state, scene = row["state"][step].astype(float), np.zeros(24)
    pictures = {"rgb_static": np.full((96, 128, 3), 9 * step, np.uint8)}
    return CalvinObservation(row["task"], step, state, scene, np.append(state, scene), pictures["rgb_static"], pictures)


@pytest.mark.parametrize("recipe", ["arm4r", "arvrm"])
def test_the_policy_sees_what_it_was_trained_on(db, tmp_path, recipe):
    source, settings = RECIPES[recipe], SETTINGS[recipe]
    checkpoint = train(source, db, settings, Folder.parse(tmp_path)).checkpoint
    policy = find_policy(f"{recipe}:{checkpoint}")
    assert isinstance(policy, CalvinTrained)
    window = source.data(db, settings).train[0]
    rows = [episode_arrays(read_episodes(db), n) for n in range(2)]
    name = window.get("clip_id", window.get("episode_id"))
    row = next(row for row in rows if row["episode_id"] == name)
    policy.reset(row["task"], 0)
    for step in range(4):
        actions = actions_of(policy, observed(row, step), 7)
        assert actions.shape == (1, 7)
        assert np.isfinite(actions).all()
        sample = policy.predictor.sample(*policy.seen(), row["task"])
        np.testing.assert_allclose(sample["state"][: step + 1], window["state"][: step + 1], atol=1e-4)
    if recipe == "arm4r":
        seen = sample["images"][:4, 0].astype(int)
        assert np.abs(seen.mean(axis=(1, 2, 3)) - 9 * np.arange(4)).max() < 2, "the camera's pictures, one a step"


def test_angles_go_on_over_half_a_turn():
    """The same orientations without a jump, in an episode and step by step."""
    turn = np.linspace(0, 9, 80)[:, None]
    smooth = np.array([3.1, 0.0, 1.5]) + 0.3 * np.sin(turn + np.arange(3))
    raw = (smooth + np.pi) % (2 * np.pi) - np.pi
    assert np.abs(np.diff(raw[:, 0])).max() > 6
    np.testing.assert_allclose(continued(raw), smooth, atol=1e-9)
    later = continued(raw[40:])
    np.testing.assert_allclose(np.cos(later), np.cos(smooth[40:]), atol=1e-9)
    assert 0 <= later[0, 0] < 2 * np.pi
    one, before = [], None
    for row in raw:
        before = continued(row[None], before)[0]
        one.append(before)
    np.testing.assert_allclose(one, smooth, atol=1e-9)
    raw[10] = np.nan
    gap = continued(raw)
    assert np.isnan(gap[10]).all()
    np.testing.assert_allclose(np.delete(gap, 10, 0), np.delete(smooth, 10, 0), atol=1e-9)


def test_actions_lead_to_the_goal():
    """With CALVIN's units; round the angle of half a turn the short way."""
    rng = np.random.default_rng(0)
    state, wanted = rng.uniform(-0.2, 0.2, (2, 15))
    state[3], wanted[3] = 3.1, -3.1
    goal = goal_of(wanted, state)
    for _ in range(30):
        action = action_to(goal, state)
        state[:6] += np.repeat([0.02, 0.05], 3) * np.clip(action[:6], -1, 1)
    apart = state[:6] - wanted[:6]
    assert np.abs(np.r_[apart[:3], np.sin(apart[3:])]).max() < 1e-4
    half = goal_of(wanted, state * 0, share=0.5)
    np.testing.assert_allclose(half[:3], wanted[:3] / 2)


def test_both_forms_of_a_predicted_state_mean_the_same():
    """CALVIN's own fifteen numbers, and ARM4R's ten of them."""
    rng = np.random.default_rng(1)
    form = form_of(STATE_NAMES, "xyz")
    assert form is not None
    for width, grip in ((0.08, 1.0), (0.03, -1.0)):
        state = np.concatenate([rng.uniform(-1, 1, 6), [width], rng.uniform(-1, 1, 7), [grip]])
        now = state + np.concatenate([rng.uniform(-0.1, 0.1, 6), np.zeros(9)])
        np.testing.assert_allclose(goal_of(form.convert(state), now), goal_of(state, now), atol=1e-9)
    closing = form.convert(np.array([0.0] * 6 + [0.072] + [0.0] * 8))
    assert goal_of(closing, np.array([0.0] * 6 + [0.08] + [0.0] * 8))[6] == -1, "narrower than it is"
    assert np.isnan(goal_of(np.full(10, np.nan), now)).all()
    assert np.isnan(goal_of(np.full(15, np.nan), now)).all()


def test_checkpoints_that_do_not_fit_are_refused(db, tmp_path):
    checkpoint = train(ARVRM, db, SETTINGS["arvrm"], Folder.parse(tmp_path)).checkpoint
    with pytest.raises(ConfigError, match="not of arm4r"):
        find_policy(f"arm4r:{checkpoint}")
    policy = find_policy(f"arvrm:{checkpoint}")
    with pytest.raises(ConfigError, match="is of the robot franka_panda, not of sawyer"):
        check_robot(policy.predictor, "arvrm:x", "sawyer")
