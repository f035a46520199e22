"""`sim evaluate` with a policy that clips of people tell its task."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from pathlib import Path

import lance
import numpy as np
import pytest

pytest.importorskip("metaworld", reason="the simulator is not installed: pip install '.[sim]'")
pytest.importorskip("torch", reason="training is not installed: pip install '.[train]'")

import torch
from support.hand_tables import with_intents
from support.track_tables import robot_db
from support.training import kept

import handloom.train.arm4r as package
from handloom.api import Database
from handloom.errors import ConfigError
from handloom.pipelines.sim.commands import FromClips, told_clips
from handloom.pipelines.sim.evaluate import evaluate, run_episodes
from handloom.pipelines.sim.jobs import Where
from handloom.sim.calvin.recipes import ROBOT_TYPE as CALVIN_ROBOT
from handloom.sim.calvin.recipes import STATE_NAMES as CALVIN_NAMES
from handloom.sim.calvin.recipes import CalvinTrained
from handloom.sim.tasks import find_task
from handloom.sim.world import ROBOT_TYPE, STATE_NAMES
from handloom.train.arm4r.recipe import RECIPE
from handloom.train.arm4r.settings import Arm4rSettings
from handloom.train.robomirror.data.motion import MOTION_DIM
from handloom.train.robomirror.network.motion_vae import MotionVae
from handloom.train.robomirror.settings import RobomirrorSettings

REACH = find_task("reach")
SMALL = tomllib.loads((Path(package.__file__).parent / "small-control.toml").read_text())
TINY = SMALL | {"layers": 1, "head_hidden": 16, "context": 4, "num_pred_steps": 2, "rate_hz": 15.0}
PLAIN = {"motion_mean": [0.1] * MOTION_DIM, "motion_scale": [0.5] * MOTION_DIM, "motion_components": []}


def untrained(folder: Path, names, robot_type: str, told: Mapping[str, str]) -> str:
    """A network of these robots' states that nothing was taught."""
    db = robot_db(folder, list(names), 3, actions=["a"] * len(names))
    new = {"task": f"'{REACH.text}'", "robot_type": f"'{robot_type}'"}
    lance.dataset(db.location.table_uri("robot_episodes")).update(new)
    asked = Arm4rSettings(**TINY, **told)
    facts = RECIPE.data(db, asked).facts
    network = RECIPE.network(asked, facts)
    torch.nn.init.normal_(network.action_decoder.mlp.outer.weight, std=0.1)
    return kept(folder / "run", network, asked, facts, "arm4r")


@pytest.fixture(scope="module")
def policies(tmp_path_factory) -> dict[str, str]:
    """Policies that clips and words tell, one of CALVIN's robot, and another auto-encoder."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("policies")
    people = with_intents(tmp_path_factory.mktemp("people"), ["look"] * 8)
    sizes = RobomirrorSettings(vae_width=16, latent=8, steps=12, held_out_share=0.4)
    vaes = [MotionVae(sizes, PLAIN) for _ in range(2)]
    for vae in vaes:
        torch.nn.init.normal_(vae.to_latent, std=0.5)
    motion, other = (kept(folder / name, vae, sizes, PLAIN) for name, vae in zip(("vae", "other"), vaes, strict=True))
    told = {"command": "motion", "command_clips": {REACH.text: "true"}, "command_motion": motion}
    told |= {"command_db": str(people.uri)}
    found = {"other": other, "people": str(people.uri)}
    for name, asked in (("motion", told), ("words", {})):
        found[name] = f"arm4r:{untrained(tmp_path_factory.mktemp(name), STATE_NAMES, ROBOT_TYPE, asked)}"
    calvin = tmp_path_factory.mktemp("calvin")
    return found | {"calvin": untrained(calvin, CALVIN_NAMES, CALVIN_ROBOT, told | {"euler": "xyz"})}


def actions(policy: str, asked: FromClips | None) -> list[np.ndarray]:
    clips = None if asked is None else told_clips(policy, [REACH], asked)
    return [outcome.actions for _, _, outcome in run_episodes([(REACH, policy)], 3, 1, 8, Where(1), clips)]


def test_a_clip_tells_the_policy_what_to_do(policies):
    policy = policies["motion"]
    held_out, again = actions(policy, None), actions(policy, FromClips(db=policies["people"]))
    np.testing.assert_allclose(held_out, again, atol=2e-3, err_msg="the same held-out clips, of the table again")
    first, second = Database.open(policies["people"]).read("clips", ["clip_id"]).column(0).to_pylist()[:2]
    one, other, same = (actions(policy, FromClips(clip=name)) for name in (first, second, first))
    np.testing.assert_array_equal(one, same)
    assert not np.allclose(one, other, atol=1e-3)
    np.testing.assert_array_equal(actions(policy, None), held_out, err_msg="no clip of before is left")
    found = evaluate("reach", policy, 2, 1, max_steps=4, workers=1, from_clips=FromClips(clip=first))
    assert (found.clips, found.error) == ({"reach": [first]}, "")
    assert evaluate("reach", policy, 1, 1, max_steps=4, workers=1).clips == {}


def test_clips_that_cannot_tell_the_policy_are_refused(policies):
    def refused(policy: str, problem: str, task: str = "reach", **asked: str) -> None:
        with pytest.raises(ConfigError, match=problem):
            evaluate(task, policy, 1, 1, max_steps=4, workers=1, from_clips=FromClips(**asked) if asked else None)

    refused("expert", "--policy expert is not told its task by clips", clip="x")
    refused(policies["words"], "is not told its task by clips", clip="x")
    refused(policies["motion"], "has no clip x of a person, or it shows no hand", clip="x")
    refused(policies["motion"], "makes latents of another auto-encoder than", motion=policies["other"])
    refused(
        policies["motion"],
        r"no clip of 'push the puck to the goal' \(false\) in .* is held out",
        "push",
        db=policies["people"],
    )
    refused(policies["motion"], "no clip tells the task 'push the puck to the goal'", "push")


def test_calvin_tells_in_words_alone(policies):
    with pytest.raises(ConfigError, match="is told its task by clips of people, and CALVIN tells it in words"):
        CalvinTrained("arm4r", policies["calvin"])
