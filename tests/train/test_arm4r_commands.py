"""ARM4R that is told its task by clips of people: latents of whole clips, and the network that gets them."""

from __future__ import annotations

import json

import lance
import numpy as np
import pytest
import torch
from pydantic import ValidationError
from support.hand_tables import INTENT_DIM, with_intents
from support.track_tables import robot_db
from support.training import kept
from test_arm4r_train import POSE, SMALL

from handloom.errors import ConfigError
from handloom.io.folder import Folder
from handloom.pipelines.train import train as pipeline
from handloom.pipelines.train.settings import TrainConfig
from handloom.schemas.tables.row import row_arrays
from handloom.schemas.training import TrainResources
from handloom.train.arm4r.acting import Arm4rPredictor
from handloom.train.arm4r.data.commands import HELD_OUT, TRAIN, Commands, commands_of
from handloom.train.arm4r.recipe import RECIPE
from handloom.train.arm4r.reporting import notes_of
from handloom.train.arm4r.settings import Arm4rSettings
from handloom.train.robomirror.commands import CommandMaker
from handloom.train.robomirror.data.motion import MOTION_DIM
from handloom.train.robomirror.data.windows import motion_windows
from handloom.train.robomirror.latents import UnderstoodLatents, VaeLatents
from handloom.train.robomirror.network.motion_vae import MotionVae
from handloom.train.robomirror.network.understanding import Reconstruction
from handloom.train.robomirror.settings import RobomirrorSettings
from handloom.windows.loading.collate import collate

SIZES = {"vae_width": 16, "latent": 8, "steps": 12, "dim": 16, "heads": 2, "layers": 1, "intent_steps": 3}
SIZES |= {"held_out_share": 0.4, "seed": 1}
PLAIN = {"motion_mean": [0.1] * MOTION_DIM, "motion_scale": [0.5] * MOTION_DIM, "motion_components": []}
SEEN = {"intent_dim": INTENT_DIM, "intent_mean": [0.0] * INTENT_DIM, "intent_components": np.eye(INTENT_DIM).tolist()}
STACK, POUR = "stack the cubes", "pour"
CLIPS = {STACK: "narration IN ('stack the cubes', 'open the jar')", POUR: "narration IS NULL OR narration = 'pour'"}


@pytest.fixture(scope="module")
def people(tmp_path_factory):
    """Twelve clips with intents; in one of them no hand is known to have been seen."""
    return with_intents(tmp_path_factory.mktemp("people"), ["look"] * 12)


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> dict[str, str]:
    """Checkpoints: an auto-encoder, understanding that makes its latents, another auto-encoder."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("runs")
    motion, understand = RobomirrorSettings(**SIZES), RobomirrorSettings(**SIZES, stage="understand")
    vae, other = MotionVae(motion, PLAIN), MotionVae(motion, PLAIN)
    for network in (vae, other):
        torch.nn.init.normal_(network.to_latent, std=0.1)
    network = Reconstruction(understand, {**PLAIN, **SEEN})
    network.vae.load_state_dict(vae.state_dict())
    torch.nn.init.normal_(network.denoiser.last.weight)
    return {
        "motion": kept(folder / "motion", vae, motion, PLAIN, "robomirror"),
        "understand": kept(folder / "understand", network, understand, {**PLAIN, **SEEN}, "robomirror"),
        "other": kept(folder / "other", other, motion, PLAIN, "robomirror"),
    }


@pytest.fixture(scope="module")
def robots(tmp_path_factory):
    """Eight episodes of two tasks."""
    path = tmp_path_factory.mktemp("robots")
    db = robot_db(path, POSE)
    lance.dataset(db.location.table_uri("robot_episodes")).update({"task": f"'{POUR}'"}, where="episode_index >= 4")
    return db


@pytest.fixture(scope="module")
def make(people, runs):
    def settings(command: str = "motion", **values) -> Arm4rSettings:
        told = {"command": command, "context": 4, "num_pred_steps": 2, "layers": 1, "batch_size": 8}
        if command in ("motion", "both"):
            told |= {"command_clips": CLIPS, "command_motion": runs["motion"], "command_db": str(people.uri)}
        return Arm4rSettings(**(SMALL | {"stage": "control", "skip": "none", "max_steps": 1} | told | values))

    return settings


def test_a_command_holds_the_mean_latents_of_the_parts_of_a_whole_clip(people, runs):
    maker = CommandMaker(runs["motion"], 3)
    sides = {split: maker.of_clips(people, CLIPS[STACK], split) for split in (TRAIN, HELD_OUT, None)}
    assert {**sides[TRAIN], **sides[HELD_OUT]}.keys() == sides[None].keys()
    for split in (TRAIN, HELD_OUT):
        asked = maker.settings.model_copy(update={"where": CLIPS[STACK]})
        assert sides[split].keys() == set(motion_windows(people, asked, None, split).clip_ids), "as in its own training"
    latents, rows = VaeLatents(runs["motion"]), people.read("clips")
    for row in (row_arrays(rows, number) for number in range(len(rows))):
        if row["clip_id"] in sides[None]:
            every = latents.encode(row["hand_keypoints_cam_m"], np.full((24, 4, 4), np.nan))
            wanted = np.concatenate([part.mean(0) for part in np.array_split(every, 3)])
            np.testing.assert_allclose(sides[None][row["clip_id"]], wanted, atol=1e-4)
    with pytest.raises(ConfigError, match=r"has 24 steps at 15 Hz, too few for 25 parts"):
        CommandMaker(runs["motion"], 25).of_clips(people, "", None)


def test_what_is_understood_reads_no_hands_and_means_the_same(people, runs):
    maker = CommandMaker(runs["understand"], 3)
    assert maker.key == CommandMaker(runs["motion"], 3).key != CommandMaker(runs["other"], 3).key
    found = maker.of_clips(people, "narration = 'pour'", None)
    alone = UnderstoodLatents(runs["understand"], None)
    for row in people.read("clips", ["clip_id", "intent", "intent_s", "start_s"], "narration = 'pour'").to_pylist():
        times = np.array(row["intent_s"]) - row["start_s"]
        every = alone.encode(row["clip_id"], np.array(row["intent"], np.float32), times, 24)
        wanted = np.concatenate([part.mean(0) for part in np.array_split(every, 3)])
        np.testing.assert_allclose(found[row["clip_id"]], wanted, atol=1e-4)


def test_a_network_that_clips_tell_hears_no_words(robots, make):
    """And one that words tell no clips, one that nothing tells neither."""
    hears = {}
    for command in ("words", "motion", "both", "none"):
        data = RECIPE.data(robots, make(command))
        torch.manual_seed(0)
        network = RECIPE.network(make(command), data.facts).eval()
        torch.nn.init.normal_(network.action_decoder.mlp.outer.weight)
        batch = collate([data.train[0], data.train[1]]) | {"text": [STACK, POUR], "command": torch.ones(2, 32)}
        changed = {"text": [STACK, STACK], "command": 2 * torch.ones(2, 32)}
        with torch.no_grad():
            plain = network(batch)["prediction"]
            hears[command] = {
                name: not torch.allclose(plain, network(batch | {name: value})["prediction"])
                for name, value in changed.items()
            }
    wanted = {"words": (True, False), "motion": (False, True), "both": (True, True), "none": (False, False)}
    assert {name: (one["text"], one["command"]) for name, one in hears.items()} == wanted


def test_the_report_says_what_tells_the_task(robots, make):
    notes = {name: notes_of(make(name), RECIPE.data(robots, make(name)).facts) for name in ("words", "motion", "none")}
    assert not [one for one in notes["words"] if "task" in one]
    assert "Ours: nothing tells the network its task." in notes["none"]
    (told,) = (one for one in notes["motion"] if "clips of people" in one)
    assert "not words: RoboMirror's latents of their hands" in told


def test_training_is_told_by_clips_that_the_evaluation_never_sees(robots, make):
    data = RECIPE.data(robots, make())
    network = RECIPE.network(make(), json.loads(json.dumps(data.facts)))
    batch = collate([data.train[index] for index in range(8)]) | {"text": [STACK, POUR] * 4}
    own = {split: commands_of(data.facts["command"], split).by_task for split in (TRAIN, HELD_OUT)}
    for split, mode in ((TRAIN, True), (HELD_OUT, False)):
        network.train(mode)
        told = torch.cat([network.command._latents(batch) for _ in range(20)])
        for at, task in enumerate((STACK, POUR)):
            found = {tuple(row) for row in told[at::2].numpy().round(4).tolist()}
            known = {tuple(np.round(one, 4).tolist()) for one in own[split][task].values()}
            assert found <= known
            assert mode is False or found == known, "each of them, sooner or later"
    last = {name: value[5:6] for name, value in batch.items()}
    assert torch.equal(network.command._latents(last)[0], network.command._latents(batch)[5]), "whatever the batch"
    del batch["clip_id"]
    with pytest.raises(ConfigError, match="by the motion in a clip of a person, and no clip was given"):
        network(batch)


def untrained(db, settings: Arm4rSettings, folder) -> str:
    facts = RECIPE.data(db, settings).facts
    return kept(folder, RECIPE.network(settings, facts), settings, facts, "arm4r")


def test_a_checkpoint_is_told_by_clips_of_its_latents(robots, people, make, runs, tmp_path):
    told = {
        name: untrained(robots, make(name, control_target="next_state"), tmp_path / name)
        for name in ("motion", "words")
    }
    predictor = Arm4rPredictor(told["motion"], tuple(POSE))
    clips, state = predictor.clips, np.zeros((1, len(POSE)), np.float32)
    with pytest.raises(ConfigError, match="no clip was given"):
        predictor.predict(state, None, STACK)
    predictor.tell(clips, POUR, 3)
    found = predictor.predict(state, None, STACK)
    np.testing.assert_array_equal(found, predictor.predict(state, None, "dance"))
    assert clips.drawn(POUR, 3)[0] == clips.drawn(POUR, 3)[0] in clips.by_task[POUR]
    assert len({clips.drawn(STACK, seed)[0] for seed in range(20)}) == len(clips.by_task[STACK])
    understood = CommandMaker(runs["understand"], 4)
    predictor.tell(Commands(understood.key, {POUR: understood.of_clips(people, CLIPS[POUR], None)}), POUR, 3)
    other = CommandMaker(runs["other"], 4)
    with pytest.raises(ConfigError, match="latents are of another auto-encoder than those of"):
        predictor.tell(Commands(other.key, {POUR: other.of_clips(people, CLIPS[POUR], None)}), POUR, 3)
    with pytest.raises(ConfigError, match=r"no clip tells the task 'dance'; there are clips for 'pour', 'stack"):
        predictor.tell(clips, "dance", 0)
    with pytest.raises(ConfigError, match="is told its task by words, not by a clip"):
        Arm4rPredictor(told["words"], tuple(POSE)).tell(clips, POUR, 0)


def test_a_network_can_be_gone_on_with_that_was_told_otherwise(robots, make):
    """All but what reads the latents; both ways."""
    one, other = (RECIPE.network(make(name), RECIPE.data(robots, make(name)).facts) for name in ("words", "motion"))
    fresh = RECIPE.load_init(other, one.state_dict(), make())
    assert fresh
    assert {name.split(".")[0] for name in fresh} == {"command"}
    assert RECIPE.load_init(one, other.state_dict(), make("words")) == []
    assert RECIPE.load_init(other, other.state_dict(), make()) == []


@pytest.mark.parametrize(
    ("values", "problem"),
    [
        ({"command_clips": {STACK: CLIPS[STACK]}}, "has no clips for the task 'pour'; it has 'stack the cubes'"),
        (
            {"command_clips": CLIPS | {POUR: "narration = 'dance'"}},
            r"clips of 'pour' \(narration = 'dance'\) .* trained on",
        ),
    ],
)
def test_tasks_without_clips_are_refused(robots, make, values, problem):
    for asked in (RECIPE.check, RECIPE.data):
        with pytest.raises(ConfigError, match=problem):
            asked(robots, make(**values))


def test_a_job_is_refused_before_a_cluster_is_joined(robots, make, tmp_path, monkeypatch):
    """And leaves nothing; one that can be trained is not refused."""

    def join(_):
        raise ConnectionError("joins a cluster")

    monkeypatch.setattr(pipeline, "joined", join)
    with_thing = robot_db(tmp_path / "things", [*POSE, "object0.x", "object0.y", "object0.z"])
    out = Folder.parse(tmp_path / "out")
    for db, settings, problem in (
        (with_thing, make("words", things="places", things_hidden=("nosuch",)), "things_hidden names nosuch"),
        (robots, make(command_clips={STACK: CLIPS[STACK]}), "has no clips for the task 'pour'"),
    ):
        with pytest.raises(ConfigError, match=problem):
            pipeline.train(db, RECIPE, "arm4r", TrainConfig(settings, TrainResources()), out, quiet=True)
        assert out.names() == []
    with pytest.raises(ConnectionError, match="joins a cluster"):
        pipeline.train(robots, RECIPE, "arm4r", TrainConfig(make(), TrainResources()), out, quiet=True)


def test_settings_that_contradict_are_refused(make):
    with pytest.raises(ValidationError, match="command is 'motion', and command_clips or command_motion is not given"):
        make(command_clips={})
    with pytest.raises(ValidationError, match="command is 'none', expected 'words' for stage 'human'"):
        make("none", stage="human", num_pred_steps=1)
    assert make().pinned({"command": {"version": 3}}).command_version == 3
