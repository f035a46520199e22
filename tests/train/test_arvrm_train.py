"""AR-VRM from two tables to a report, both stages, and the tables it refuses."""

from __future__ import annotations

import json
import pickle
import tomllib
from pathlib import Path

import lance
import numpy as np
import pytest
import torch
from support.hand_tables import hand_db, hand_row
from support.track_tables import HZ, robot_db

import handloom.train.arvrm as package
from handloom.errors import ConfigError, StoreError
from handloom.io.folder import Folder
from handloom.schemas.training import TrainSettings
from handloom.store.clip_features import TABLE as FEATURES
from handloom.train.arvrm.data.hands import plain_spread
from handloom.train.arvrm.data.robot import state_spread
from handloom.train.arvrm.recipe import RECIPE
from handloom.train.arvrm.settings import ArvrmSettings
from handloom.train.loop import train
from handloom.train.parts.baselines import past_of

FOLDER = Path(package.__file__).parent
SMALL = tomllib.loads((FOLDER / "small.toml").read_text())
FINE = tomllib.loads((FOLDER / "small-finetune.toml").read_text())
SIZES = {"dim": 32, "heads": 2, "layers": 1, "image_size": 16, "image_width": 16, "resampler_head_dim": 16, "steps": 6}
SIZES |= {"topk": 3, "batch_size": 8, "warmup_epochs": 0.2, "num_examples": 2, "dropout": 0.0}
NAMES = ["x", "y", "z", "yaw", "gripper"]


@pytest.fixture(scope="module")
def db(tmp_path_factory):
    """Sixteen clips, of which one is too short for a window, one shows no hands, and one is a robot's video."""
    rows = [hand_row(n) for n in range(14)]
    rows += [hand_row(14, num_frames=12), hand_row(15, hands=False)]
    made = hand_db(tmp_path_factory.mktemp("hands"), rows, NAMES)
    table = lance.dataset(made.location.table_uri("robot_episodes"))
    table.update({"clip_ids": f"make_array('{clip_id(0)}')"}, where="episode_id = 'r:0'")
    return made


def clip_id(number: int) -> str:
    return hand_row(number, 4).column("clip_id")[0].as_py()


def pretrain(**values) -> ArvrmSettings:
    return ArvrmSettings(**(SMALL | SIZES | values))


def finetune(**values) -> ArvrmSettings:
    return ArvrmSettings(**(FINE | SIZES | values))


@pytest.fixture(scope="module")
def first(db, tmp_path_factory):
    """Stage 1, trained."""
    return train(RECIPE, db, pretrain(epochs=8, lr=3e-3), Folder.parse(tmp_path_factory.mktemp("pretrain")))


def numbers(outcome) -> dict:
    return [line for line in outcome.history if line["kind"] == "held_out"][-1]["numbers"]


def test_stage_one_learns_counts_left_out_clips_and_draws_examples(first):
    found, data = numbers(first), first.data
    assert found["error"] < min(found["zero_motion"], found["constant_velocity"])
    assert 0.2 < found["missing_hands"] < 0.5
    counts = data.facts["counts"]
    assert (counts["rows"], counts["without_hands"]) == (16, 1)
    assert counts["without_text"] == 4  # clips 2, 6, 10 and 14
    assert counts["train"]["too_short"] == 1
    assert not set(data.train.clip_ids) & set(data.held_out.clip_ids)
    assert clip_id(15) not in set(data.train.clip_ids) | set(data.held_out.clip_ids)
    report = RECIPE.report(first.network, data, pretrain())
    assert len(report["examples"]) == 2
    for example in report["examples"]:
        assert example.frame.shape == (16, 24, 3)
        assert example.true_px.shape == example.predicted_px.shape == (6, 42, 2)
        assert np.isnan(example.predicted_px[:2]).all()
        assert np.isnan(example.true_px[:2]).all()
        seen = np.isfinite(example.true_px[2])
        np.testing.assert_allclose(example.predicted_px[2][seen], example.true_px[2][seen], rtol=1e-5)
        assert -24 < np.nanmin(example.true_px) < np.nanmax(example.true_px) < 48
        assert "After 3 predicted steps" in example.title
    assert any("1 clips without hands were left out; 4 clips have no text" in note for note in report["notes"])


def test_scales_are_of_the_training_windows_alone(db):
    data = RECIPE.data(db, pretrain())
    points = np.stack([data.train[index]["keypoints"] for index in range(len(data.train))])
    np.testing.assert_allclose(data.facts["keypoint_mean"], np.nanmean(points, axis=(0, 1, 2, 3)), rtol=0.05, atol=1e-3)
    np.testing.assert_allclose(data.facts["keypoint_std"], np.nanstd(points, axis=(0, 1, 2, 3)), rtol=0.05)
    robot = RECIPE.data(db, finetune(retrieval=False, init="x"))
    states = np.stack([robot.train[index]["state"] for index in range(len(robot.train))])
    np.testing.assert_allclose(robot.facts["state_mean"], states.mean((0, 1)), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(robot.facts["state_std"], states.std((0, 1)), rtol=1e-4)


def test_stage_two_starts_from_stage_one_and_keeps_frozen_weights(db, first, tmp_path):
    settings = finetune(init=first.checkpoint, epochs=3, lr=3e-3)
    variants = RECIPE.variants(settings)
    assert list(variants) == ["retrieval", "random clips", "without retrieval", "scratch"]
    assert list(RECIPE.variants(variants["random clips"])) == [
        "random clips",
        "retrieval",
        "without retrieval",
        "scratch",
    ]
    outcome = train(RECIPE, db, settings, Folder.parse(tmp_path / "with"))
    weights, before = outcome.network.state_dict(), first.network.state_dict()
    frozen = [name for name in before if name.startswith(("keypoint_encoder.", "keypoint_head."))]
    assert len(frozen) > 20
    assert all(torch.equal(weights[name], before[name]) for name in frozen)
    assert not torch.equal(weights["backbone.gpt.blocks.0.qkv.weight"], before["backbone.gpt.blocks.0.qkv.weight"])
    assert (weights["map.m"] - 1 / 42).abs().max() > 1e-3
    found = numbers(outcome)
    assert found["error"] < found["zero_motion"]
    assert {"state", "analogy", "loss", "constant_velocity_l1"} <= found.keys()

    report = RECIPE.report(outcome.network, outcome.data, settings)
    values, rows, columns = report["figures"]["map"]
    np.testing.assert_array_equal(values.reshape(2, 42), weights["map.m"])
    assert (len(rows), len(columns)) == (4, 21)
    notes = " ".join(report["notes"])
    assert "3 of 14 human clips per episode" in notes
    assert "Largest weights of the map" in notes
    assert "1 clips with hands are the robots' own" in notes
    assert "frozen, as in the paper" in notes
    assert report["numbers"]["mean similarity of retrieved clips"] > 0
    told = report["data"]
    assert (told["chosen"], told["version of clips"]) == ("by AR-VRM's sum of cosines, version 1", db.version)
    assert (told["human clips"], told["clips per episode"], len(told["encoders' key"])) == (14, 3, 16)

    plain = RECIPE.variants(settings)["without retrieval"]
    without = train(RECIPE, db, plain, Folder.parse(tmp_path / "without"))
    assert without.network.map is None
    assert "analogy" not in numbers(without)
    assert not RECIPE.report(without.network, without.data, plain)["figures"]
    own = train(RECIPE, db, finetune(init=outcome.checkpoint, max_steps=1, lr=1e-9), Folder.parse(tmp_path / "own"))
    assert torch.allclose(own.network.state_dict()["map.m"], weights["map.m"])
    scratch = RECIPE.variants(settings)["scratch"]
    assert scratch.init == ""
    assert "Without `init` nothing is pre-trained" in " ".join(
        RECIPE.report(RECIPE.network(scratch, outcome.data.facts), outcome.data, scratch)["notes"]
    )


def test_the_loss_is_states_and_beta_times_analogy_and_replay(db):
    settings = finetune(beta=0.5, replay=0.25)
    data = RECIPE.data(db, settings)
    batch = next(iter(data.train.loader(4, seed=1)))
    torch.manual_seed(0)
    net = RECIPE.network(settings, data.facts)
    out = net.train()(batch)  # without dropout
    std = torch.tensor(data.facts["state_std"])
    state = batch["state"]
    state_loss = ((out["prediction"] - state[:, 1:]) / std).square().mean()
    own = net._own(batch, state[:, :-1], past_of(state[:, :-1]))[:, -1]
    at = (batch["progress"].float() * 5).round().long()
    analogy = 0
    for j in range(3):
        human = batch["retrieved"][:, j]
        past = past_of(human)
        features = torch.cat([net.keypoint_encoder(human, past)[0][i : i + 1, at[i]] for i in range(4)])
        # the features of a step depend on this step only: those of the whole clip are the same
        mixed = 0.5 * net.map.lift(net.map.m @ features) + 0.5 * own
        found = torch.cat([net.map.out[0](mixed[:, 0]), net.map.out[1](mixed[:, 1])], dim=-1)
        true = ((state[:, -1] - torch.tensor(data.facts["state_mean"])) / std)[:, [0, 1, 2, 3, 4]]
        analogy = analogy + (found - true).square().mean()
    expected = state_loss + 0.5 * analogy + 0.25 * net._replay_loss(batch)
    torch.testing.assert_close(out["loss"], expected, rtol=1e-4, atol=1e-5)
    assert net._replay_loss(batch) > 0
    torch.testing.assert_close(net.eval()(batch)["loss"], state_loss + 0.5 * analogy, rtol=1e-4, atol=1e-5)


def test_stage_one_and_replay_are_told_where_hands_go(db):
    """The same windows, but that they end earlier in a clip; the goal of each is what a later one begins with."""
    told, plain = pretrain(goal_s=0.4, stride=1), RECIPE.data(db, pretrain(stride=1)).train
    windows = RECIPE.data(db, told).train
    sample, later = windows[0], 6  # frames
    assert sample["goals"].shape == (6, 2, 3)
    np.testing.assert_array_equal(sample["keypoints"], plain[0]["keypoints"])
    end = plain[later]["keypoints"][-1, :, 0] - sample["keypoints"][0, :, 0]
    np.testing.assert_allclose(sample["goals"][0, :, 0], end[:, 0], atol=1e-6)
    np.testing.assert_allclose(sample["goals"][0, :, 2], -end[:, 1], atol=1e-6)
    data = RECIPE.data(db, finetune(goal_s=0.4))
    batch = next(iter(data.train.loader(4)))
    assert batch["replay_goals"].shape == (4, 6, 2, 3)
    assert torch.isfinite(RECIPE.network(finetune(goal_s=0.4), data.facts)(batch)["loss"])


def test_states_are_predicted_from_what_was_before(db):
    data = RECIPE.data(db, finetune())
    net = RECIPE.network(finetune(), data.facts).eval()
    batch = next(iter(data.train.loader(4, seed=1)))
    other = {name: value.clone() if torch.is_tensor(value) else value for name, value in batch.items()}
    for name in ("state", "images"):
        other[name][:, 3:] = 0
    other["retrieved"][:], other["progress"][:] = 0.3, 0.1  # predictions do not use the map
    with torch.no_grad():
        one, two = net(batch)["prediction"], net(other)["prediction"]
    torch.testing.assert_close(one[:, :3], two[:, :3])
    assert (one[:, 3:] - two[:, 3:]).abs().amax(-1).min() > 1e-5


def test_a_sample_has_the_retrieved_clips_and_the_progress_of_the_episode(db):
    data = RECIPE.data(db, finetune())
    assert data.facts["gripper"] == [4]
    sample = data.train[len(data.train) - 1]
    last_s = sample["now_s"] + 5 / 3.75
    assert sample["progress"] == pytest.approx(last_s / (39 / HZ), abs=0.03)
    assert sample["retrieved"].shape == (3, 6, 2, 21, 3)
    assert sample["replay_keypoints"].shape == (6, 2, 21, 3)
    again = RECIPE.data(db, finetune()).train[len(data.train) - 1]
    np.testing.assert_array_equal(again["retrieved"], sample["retrieved"])
    np.testing.assert_array_equal(again["replay_keypoints"], sample["replay_keypoints"])
    retrieved = data.train.transform.retrieved
    assert clip_id(0) not in retrieved.ids  # a robot's own video
    assert len(pickle.dumps(data.train)) < 2 * retrieved.keypoints.nbytes + 400_000  # pickled for a loader
    num_rows = db.count(FEATURES)
    RECIPE.data(db, finetune())
    assert db.count(FEATURES) == num_rows
    loaded = next(iter(data.train.loader(4, seed=1, num_workers=1)))
    alone = next(iter(data.train.loader(4, seed=1)))
    assert torch.equal(loaded["retrieved"].nan_to_num(), alone["retrieved"].nan_to_num())


def test_clips_at_random_are_others_but_the_same_ones_each_time(db):
    near = RECIPE.data(db, finetune())
    far, again, other = (RECIPE.data(db, finetune(retrieve="random", seed=seed)) for seed in (0, 0, 1))
    places = [one.train.transform.retrieved.places for one in (far, again, other)]
    ids = [one.train.transform.retrieved.ids for one in (far, again, other)]
    chosen = [{e: [ids[n][i] for i in where] for e, where in places[n].items()} for n in range(3)]
    assert chosen[0] == chosen[1] != chosen[2]
    assert all(len(set(some)) == 3 for some in chosen[0].values())
    assert clip_id(0) not in {clip for some in chosen[0].values() for clip in some}
    assert near.facts["counts"]["mean_similarity"] > far.facts["counts"]["mean_similarity"]
    text = RECIPE.report(RECIPE.network(finetune(), far.facts), far, finetune(retrieve="random"))["data"]["chosen"]
    assert text == "at random, seed 0"


def test_a_job_goes_on_with_the_clips_that_it_began_with(tmp_path):
    """Clips come while it trains: neither a start that resumes it nor the next variant retrieves them."""
    db = hand_db(tmp_path / "db", [hand_row(n) for n in range(8)], NAMES)
    settings = finetune(epochs=2)
    begun = train(RECIPE, db, settings, Folder.parse(tmp_path / "job"), should_stop=lambda: True)
    assert begun.stopped
    version = db.version
    db.table("clips").delete(f"clip_id = '{clip_id(3)}'")
    gone = RECIPE.data(db, settings).facts["counts"]
    assert (gone["human_clips"], gone["human_version"]) == (7, version + 1)
    resumed = train(RECIPE, db, settings, Folder.parse(tmp_path / "job"), should_stop=lambda: True)
    beside = train(
        RECIPE, db, finetune(retrieve="random"), Folder.parse(tmp_path / "other"), should_stop=lambda: True,
        beside=resumed.data,
    )  # fmt: skip
    for outcome in (resumed, beside):
        counts = outcome.data.facts["counts"]
        assert (counts["human_clips"], counts["human_version"]) == (8, version)
    named = train(
        RECIPE, db, finetune(human_version=version + 1), Folder.parse(tmp_path / "named"), should_stop=lambda: True,
        beside=resumed.data,
    )  # fmt: skip
    assert named.data.facts["counts"]["human_clips"] == 7


def test_encoders_of_init_choose_the_clips(db, first):
    new, learned = (RECIPE.data(db, finetune(init=init)) for init in ("", first.checkpoint))
    assert new.facts["counts"]["mean_similarity"] != learned.facts["counts"]["mean_similarity"]


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"where": "dataset = 'nobody'"}, "passes none of the 16 clips"),
        ({"where": "video_id = 'v15'"}, "no hand was seen in any of the 1 clips"),
        ({"steps": 60}, "the longest of"),
        ({"phases": 8}, "rate_hz 3.75 times phases 8 is 30, and the frames come at 15 Hz"),
        ({"stage": "finetune", "where": "dataset = 'nobody'"}, "none of the 6 robot episodes"),
        ({"stage": "finetune", "camera": "top"}, "6 episodes have no camera 'top', the first of them r:0"),
        ({"stage": "finetune", "topk": 15}, "topk is 15, but there are 14 human clips with hands"),
        ({"stage": "finetune", "human_where": "video_id = 'v15'"}, "no hand was seen in any of the 1 clips"),
        ({"stage": "finetune", "phases": 8}, "the frames come at 15 Hz"),
    ],
)
def test_a_table_that_cannot_be_trained_on_is_refused(db, values, words):
    """Before a cluster is joined, too, but for what is known of the retrieved clips alone."""
    for ask in (RECIPE.data, *(() if "topk" in values else (RECIPE.check,))):
        with pytest.raises(ConfigError, match=words) as caught:
            ask(db, pretrain(**values))
        assert caught.value.hint


def test_deleted_versions_and_missing_tables_are_refused(db, tmp_path):
    for values in ({}, {"stage": "finetune"}):
        with pytest.raises(StoreError, match="no version 99"):
            RECIPE.data(db, pretrain(**values), 99)
    with pytest.raises(StoreError, match="no version 98"):
        RECIPE.data(db, finetune(human_version=98))
    robots = robot_db(tmp_path, NAMES, num=5)
    with pytest.raises(ConfigError, match="no clips to train on"):
        RECIPE.data(robots, pretrain())
    for ask in (RECIPE.data, RECIPE.check):
        with pytest.raises(ConfigError, match="no clips to train on"):
            ask(robots, finetune())
    RECIPE.check(robots, finetune(retrieval=False))
    alone = RECIPE.data(robots, finetune(retrieval=False))  # needs no clips
    assert "retrieved" not in alone.train[0]
    empty = hand_db(tmp_path / "clips", [hand_row(1)], NAMES, 1)
    lance.dataset(empty.location.table_uri("robot_episodes")).delete("true")
    with pytest.raises(ConfigError, match="none of the 0 robot episodes"):
        RECIPE.data(empty, finetune())


def test_images_that_were_not_stored_are_an_error(tmp_path):
    db = hand_db(tmp_path, [hand_row(n, jpeg=False) for n in range(4)], NAMES)
    with pytest.raises(ConfigError, match=r"no clip of .* has stored images") as caught:
        RECIPE.data(db, pretrain())
    assert "image_encoder = none" in caught.value.hint
    lance.dataset(db.location.table_uri("robot_episodes")).update({"cameras": "make_array()"})
    with pytest.raises(ConfigError, match=r"no robot episode of .* has pictures") as caught:
        RECIPE.data(db, finetune())
    assert "image_encoder = none" in caught.value.hint
    blind = RECIPE.data(db, finetune(image_encoder="none"))
    net = RECIPE.network(finetune(image_encoder="none"), blind.facts)
    assert torch.isfinite(net(next(iter(blind.train.loader(2))))["loss"])
    assert "images" not in blind.train[0]


def test_states_that_differ_and_states_without_names(tmp_path):
    db = robot_db(tmp_path, NAMES, num=4)
    table = lance.dataset(db.location.table_uri("robot_episodes"))
    table.update({"state_names": "make_array('a', 'b', 'c', 'd', 'e')"}, where="episode_id = 'r:1'")
    with pytest.raises(ConfigError, match="the episodes' states differ"):
        RECIPE.data(db, finetune(retrieval=False))
    facts = RECIPE.data(db, finetune(retrieval=False, where="episode_id = 'r:1'")).facts
    assert facts["state_names"] == ["a", "b", "c", "d", "e"]
    assert facts["gripper"] == [4]  # the last, where no name says so


def test_numbers_that_hardly_change_are_not_scaled_up():
    """A thing that lay still in training, but for the simulator's 1e-6, may be pushed in the loop."""
    rng = np.random.default_rng(0)
    windows = [{"state": rng.normal(size=(6, 3)) * [0.1, 1e-6, 0.0], "things": np.ones((6, 1))} for _ in range(9)]
    facts = state_spread(windows, 3, 1) | plain_spread() | {"gripper": [2], "things": ["goal.x"]}
    assert facts["state_std"][0] == pytest.approx(0.1, rel=0.3)
    assert facts["state_std"][1:] + facts["things_std"] == [1.0] * 3
    net = RECIPE.network(finetune(retrieval=False, image_encoder="none", things=True), facts).eval()
    state = torch.zeros(1, 6, 3)
    state[:, 2:, 1] = 0.2
    found = net({"state": state, "things": torch.full((1, 6, 1), 3.0), "text": ["reach"]})
    assert found["prediction"][0, :, 1].sub(state[0, :-1, 1]).abs().max() < 1e-3
    assert found["loss"] < 1.0


def test_a_checkpoint_of_other_sizes_is_refused(db, first, tmp_path):
    with pytest.raises(ConfigError, match="does not hold the small encoder"):
        train(RECIPE, db, finetune(init=first.checkpoint, image_width=24), Folder.parse(tmp_path))
    with pytest.raises(ConfigError, match="does not fit this network"):
        train(RECIPE, db, finetune(init=first.checkpoint, layers=2), Folder.parse(tmp_path / "other"))


def test_no_window_to_train_on_is_an_error(tmp_path):
    db = hand_db(tmp_path, [hand_row(1)], NAMES, 1)
    for settings in (pretrain(batch_size=999), finetune(batch_size=999, topk=1)):
        with pytest.raises(ConfigError, match="windows to train on, but one step takes 999"):
            train(RECIPE, db, settings, Folder.parse(tmp_path / settings.stage))


def test_every_settings_file_can_be_loaded():
    for size in RECIPE.sizes:
        found = ArvrmSettings(**tomllib.loads((FOLDER / f"{size}.toml").read_text()))
        assert (found.stage == "finetune") == size.endswith(("finetune", "sim"))
        if size.startswith("full"):
            assert (found.dim, found.layers, found.heads, found.latents, found.steps) == (384, 12, 12, 9, 10)
            ours = (found.residual, found.standardise, found.motion, found.mirror, found.jitter)
            assert not any(ours)
    shared = SMALL.keys() & FINE.keys() - {"epochs", "lr", "warmup_epochs", "batch_size"}
    assert {name: SMALL[name] for name in shared} == {name: FINE[name] for name in shared}


def test_the_page_has_every_setting_with_its_default_and_meaning():
    page = (Path(__file__).parents[2] / "docs" / "arvrm.md").read_text()
    for name in ArvrmSettings.model_fields.keys() - TrainSettings.model_fields.keys():
        field = ArvrmSettings.model_fields[name]
        value = 10 / 3 if name == "rate_hz" else field.default
        default = "automatic" if value is None else "10/3" if name == "rate_hz" else f"`{json.dumps(value)}`"
        assert f"| `{name}` | {default} | {' '.join(field.description.split())} |" in page


def test_a_slow_clip_among_others_is_counted_and_its_empty_steps_are_masked(tmp_path):
    db = hand_db(tmp_path, [hand_row(n) for n in range(4)] + [hand_row(4, hz=HZ / 2)], NAMES, 1)
    data = RECIPE.data(db, pretrain(phases=1, rate_hz=HZ))
    assert data.facts["counts"]["slower"] == 1
    slow = [s["keypoints"] for part in (data.train, data.held_out) for s in part if s["clip_id"] == clip_id(4)]
    assert slow
    known = np.isfinite(slow[0][:, 1, 0, 0])
    assert known.any()
    assert not known.all()
