"""RoboMirror's second stage: latents from the intent by reconstruction and by alignment, and what it refuses."""

from __future__ import annotations

import tomllib
from pathlib import Path

import lance
import numpy as np
import pytest
import torch
from support.hand_tables import hand_db, hand_row, with_intents

import handloom.train.robomirror as package
from handloom.errors import ConfigError
from handloom.io.folder import Folder
from handloom.train.loop import train
from handloom.train.registry import open_network
from handloom.train.robomirror.data.motion import MOTION_DIM
from handloom.train.robomirror.measures import frechet_distance, recall_at
from handloom.train.robomirror.network.diffusion import PROCESSES, noise_of
from handloom.train.robomirror.network.errors import jerk_sums
from handloom.train.robomirror.network.understanding import slow_part
from handloom.train.robomirror.recipe import RECIPE
from handloom.train.robomirror.settings import RobomirrorSettings

FOLDER = Path(package.__file__).parent
SMALL = {name: tomllib.loads((FOLDER / f"{name}.toml").read_text()) for name in ("small", "small-understand")}
SIZES = {"vae_width": 16, "latent": 8, "steps": 12, "batch_size": 8, "num_examples": 1, "warmup_epochs": 0.2}
SIZES |= {
    "dim": 16,
    "heads": 2,
    "layers": 1,
    "adaptor_layers": 1,
    "intent_steps": 3,
    "stride": 4,
    "held_out_share": 0.4,
}
LOOK, OTHER = "image embedding (efficientnet-lite0)", "vlm:some/model"


def settings(size: str = "small-understand", **values) -> RobomirrorSettings:
    return RobomirrorSettings(**(SMALL[size] | SIZES | values))


@pytest.fixture(scope="module")
def db(tmp_path_factory):
    """Twelve clips with intents and one without."""
    return with_intents(tmp_path_factory.mktemp("intents"), [LOOK] * 12 + [None])


@pytest.fixture(scope="module")
def motion(db, tmp_path_factory):
    """Stage 1, trained a little."""
    return train(RECIPE, db, settings("small", epochs=2), Folder.parse(tmp_path_factory.mktemp("motion")))


def test_windows_hold_the_vectors_that_are_nearest_in_time(db):
    data = RECIPE.data(db, settings(init="x"))
    rows = {row["clip_id"]: row for row in db.read("clips", ["clip_id", "intent", "intent_s"]).to_pylist()}
    for sample in (data.train[0], data.train[len(data.train) - 1], data.held_out[0]):
        row, start_s = rows[sample["clip_id"]], sample["now_s"]
        times = np.array(row["intent_s"]) - start_s
        middle_s = 11 / 15 / 2
        near = sorted(np.argsort(np.abs(times - middle_s), kind="stable")[:3])
        np.testing.assert_allclose(sample["intent_s"], times[near], atol=1e-5)
        np.testing.assert_array_equal(sample["intent"], np.array(row["intent"], np.float32)[near])
        assert sample["intent_valid"].all()
    facts = data.facts
    assert (facts["intent_source"], facts["counts"]["without_intent"]) == (LOOK, 1)
    seen = np.concatenate([data.train[index]["intent"] for index in range(len(data.train))])
    values = (seen - facts["intent_mean"]) @ np.array(facts["intent_components"]).T
    np.testing.assert_allclose(values.mean(0), 0, atol=1e-4)
    np.testing.assert_allclose(values.std(0)[0], 1, rtol=1e-3)
    assert (np.diff(values.std(0)) < 0).all()
    few = RECIPE.data(db, settings(init="x", intent_components=2)).facts
    np.testing.assert_array_equal(few["intent_components"], facts["intent_components"][:2])
    longer = RECIPE.data(db, settings(init="x", intent_steps=9)).train[0]
    assert longer["intent_valid"].tolist() == [True] * 5 + [False] * 4
    assert not longer["intent"][5:].any()


@pytest.mark.parametrize("process", ["flow", "ddpm"])
def test_a_sampler_with_a_perfect_network_gives_the_data(process):
    way = PROCESSES[process]
    data, noise = torch.randn(3, 4, 2), torch.randn(3, 4, 2)
    for steps in (1, 3, 10):
        found = way.sample(lambda x, time: way.target(data, noise), noise, steps)
        torch.testing.assert_close(found, data, atol=1e-4, rtol=1e-4)
    at_end = way.noisy(data, noise, torch.ones(3))
    torch.testing.assert_close(at_end, data, atol=1e-2, rtol=1e-2)
    torch.testing.assert_close(way.noisy(data, noise, torch.zeros(3)), noise, atol=0.05, rtol=0.05)
    names = ["a:0.1", "b:0.2"]
    torch.testing.assert_close(noise_of(names, (4,), 0)[1], noise_of(names[1:], (4,), 0)[0])
    assert not torch.equal(noise_of(names, (4,), 0), noise_of(names, (4,), 0, 1))


@pytest.mark.parametrize("process", ["flow", "ddpm"])
def test_the_best_linear_guess_leaves_what_noisy_data_do_not_tell(process):
    way, spread = PROCESSES[process], torch.tensor([2.0, 0.5, 0.05])
    generator = torch.Generator().manual_seed(0)
    data, noise = (torch.randn(4000, 5, 3, generator=generator) for _ in range(2))
    data = data * spread
    for share in (0.1, 0.5, 0.8):
        time = torch.full((4000,), share)
        noisy = way.noisy(data, noise, time)
        into, linear, rest = way.best_linear(time, spread)
        torch.testing.assert_close((into * noisy).std((0, 1)), torch.ones(3), atol=0.03, rtol=0)
        left = (way.target(data, noise) - linear * noisy) / rest
        torch.testing.assert_close(left.std((0, 1)), torch.ones(3), atol=0.03, rtol=0)
        assert (left * into * noisy).mean((0, 1)).abs().max() < 0.03


def test_the_slow_part_keeps_slow_courses_alone():
    at_s = torch.arange(30) / 15
    slow = slow_part(30, 15.0, 1.75)
    torch.testing.assert_close(slow @ slow, slow, atol=1e-6, rtol=0)
    assert int(slow.trace().round()) == 8, "cosines of 0, 0.25, ... 1.75 Hz"
    for hz, left in ((0.5, 1.0), (1.75, 1.0), (3.0, 0.0)):
        course = torch.cos(2 * torch.pi * hz * (at_s + 0.5 / 15))
        torch.testing.assert_close(slow @ course, left * course, atol=1e-5, rtol=0)
    torch.testing.assert_close(slow_part(30, 15.0, 100.0), torch.eye(30), atol=1e-6, rtol=0)


def test_jerk_is_that_of_a_wrist_where_it_is_known():
    at_s = torch.arange(12) / 10
    motion = torch.zeros(1, 12, MOTION_DIM)
    motion[..., 3], motion[..., 7] = 1.0, 1.0  # columns of a rotation
    motion[0, :, 0] = 0.5 * at_s**3  # metres: jerk 3 m/s3
    motion[..., 69:] = torch.nan
    seen = motion.clone()
    seen[:, :4] = torch.nan
    sums = jerk_sums({"still": torch.zeros_like(motion), "same": motion}, seen, 10.0)
    assert {name: int(count) for name, (_, count) in sums.items()} == {"true": 5, "still": 5, "same": 5}
    assert [float(sums[name][0]) for name in ("true", "still", "same")] == pytest.approx([15, 0, 15], abs=0.02)


@torch.no_grad()
@pytest.mark.parametrize("process", ["flow", "ddpm"])
def test_what_is_understood_is_slow(db, motion, process):
    asked = settings(init="x", process=process, highest_hz=2.0)
    data = RECIPE.data(db, asked)
    network = RECIPE.network(asked, data.facts).eval()
    torch.nn.init.normal_(network.denoiser.last.weight)
    found = network.understood(next(iter(data.held_out.loader(2))), steps=3)
    torch.testing.assert_close(slow_part(12, 15.0, 2.0) @ found, found, atol=1e-3, rtol=1e-4)
    assert found.diff(dim=1).abs().max() > 0.01


@torch.no_grad()
def test_a_new_network_makes_the_mean_motion(db, motion):
    asked = settings(init="x")
    data = RECIPE.data(db, asked)
    network = RECIPE.network(asked, data.facts).eval()
    RECIPE.load_init(network, motion.network.state_dict(), asked)
    batch = next(iter(data.held_out.loader(2)))
    found = network.understood(batch, steps=1)
    torch.testing.assert_close(found, torch.zeros_like(found), atol=1e-5, rtol=0)
    assert network.understood(batch, steps=4).std() > 0.1
    mean = network.vae.decode(network.vae.latent_mean.expand(12, -1))
    torch.testing.assert_close(network.motion(found)[0], mean, atol=1e-4, rtol=1e-4)


def test_both_ways_train_report_and_come_back_without_any_pose(db, motion, tmp_path):
    asked = settings(init=motion.checkpoint, epochs=4, lr=3e-3)
    variants = RECIPE.variants(asked)
    assert list(variants) == ["reconstruction", "alignment"]
    for name, one in variants.items():
        outcome = train(RECIPE, db, one, Folder.parse(tmp_path / name))
        weights = motion.network.state_dict()
        found = outcome.network.state_dict()
        assert all(torch.equal(found[f"vae.{part}"], weights[part]) for part in weights)
        steps = [line["loss"] for line in outcome.history if line["kind"] == "step"]
        assert steps[-1] < steps[0]
        numbers = [line["numbers"] for line in outcome.history if line["kind"] == "held_out"][-1]
        assert {"error", "error_wrist", "mean_motion"} <= numbers.keys()
        report = RECIPE.report(outcome.network, outcome.data, one)
        assert report["data"] == {"intent": LOOK, "clips without intent": 1}
        told = {"error, nearest training motion", "error, auto-encoder", "R@1, motion from intent"}
        assert told | {"jerk of the wrists, true (m/s3)"} <= report["numbers"].keys()
        assert ("error, mean of 8 samples" in report["numbers"]) == (name == "reconstruction")
        assert len(report["examples"]) == 1
        network, _ = open_network(str(tmp_path / name))
        batch = next(iter(outcome.data.held_out.loader(2)))
        blind = batch | {"motion": torch.full_like(batch["motion"], torch.nan)}
        with torch.no_grad():
            first = network.understood(blind)
            torch.testing.assert_close(first, outcome.network.understood(batch))
            alone = {key: value[1:] for key, value in blind.items()}
            torch.testing.assert_close(network.understood(alone), first[1:], atol=1e-5, rtol=1e-4)
            seen = network.understood(blind | {"intent": batch["intent"] + 1})
        assert not torch.allclose(first, seen, atol=1e-4)
        assert network.motion(first).shape == batch["motion"].shape


def test_what_does_not_fit_together_is_refused(db, motion, tmp_path):
    for ask in (RECIPE.data, RECIPE.check):
        with pytest.raises(ConfigError, match="`init` names none"):
            ask(db, settings())
    two = with_intents(tmp_path / "two", [LOOK, OTHER, LOOK, None])
    for ask in (RECIPE.data, RECIPE.check):
        with pytest.raises(ConfigError, match="several encoders") as caught:
            ask(two, settings(init="x"))
    assert f"where=intent_source = '{LOOK}'" in caught.value.hint
    assert RECIPE.data(two, settings(init="x", where=f"intent_source = '{LOOK}'")).facts["intent_source"] == LOOK
    with pytest.raises(ConfigError, match="no column my_intent") as caught:
        RECIPE.data(db, settings(init="x", intent="my_intent"))
    assert "RuleCaption" in caught.value.hint
    facts = RECIPE.data(db, settings(init="x")).facts
    weights = motion.network.state_dict()
    for other, problem in (({"vae_width": 32}, "does not fit"), ({"rate_hz": 10.0}, "has 15 frames a second")):
        asked = settings(init="x", **other)
        with pytest.raises(ConfigError, match=problem):
            RECIPE.load_init(RECIPE.network(asked, facts), weights, asked)
    RECIPE.check(db, settings(init=motion.checkpoint))
    with pytest.raises(ConfigError, match="has 15 frames a second"):
        RECIPE.check(db, settings(init=motion.checkpoint, rate_hz=10.0))
    second = RECIPE.network(settings(init="x"), facts).state_dict()
    with pytest.raises(ConfigError, match="of stage understand"):
        RECIPE.load_init(motion.network, second, settings("small"))


def test_people_can_be_held_out(db, tmp_path):
    with pytest.raises(ConfigError, match="0 known participants"):
        RECIPE.data(db, settings("small", held_out_by="participant"))
    named = hand_db(tmp_path, [hand_row(n, 24) for n in range(8)], [])
    lance.dataset(named.location.table_uri("clips")).update(
        {"participant": "concat('p', cast(num_frames as string), substring(video_id, 2, 1))"}
    )
    data = RECIPE.data(named, settings("small", held_out_by="participant"))
    people = dict(
        zip(*(named.read("clips", ["clip_id", "participant"]).column(n).to_pylist() for n in (0, 1)), strict=True)
    )
    sides = [{people[clip] for clip in windows.clip_ids} for windows in (data.train, data.held_out)]
    assert all(sides)
    assert not sides[0] & sides[1]
    assert sides[0] | sides[1] == set(people.values())


@pytest.mark.parametrize(
    ("where", "note"), [("narration = 'pour'", "of one task (pour)"), ("narration IS NULL", "words")]
)
def test_clips_of_one_task_are_not_judged_by_retrieval(db, motion, where, note):
    asked = settings(init="x", where=where, seed=1)
    data = RECIPE.data(db, asked)
    network = RECIPE.network(asked, data.facts)
    RECIPE.load_init(network, motion.network.state_dict(), asked)
    report = RECIPE.report(network, data, asked)
    assert any(name.startswith("clips in the") for name in report["numbers"]) == (note == "words")
    assert any("retrieval" in text and note in text for text in report["notes"])
    assert any("to train on are of one task (pour)" in text for text in report["notes"]) == (note != "words")


def test_measures_are_those_of_their_sources():
    rng = np.random.default_rng(0)
    a = rng.normal(size=(4000, 3))
    assert frechet_distance(a, a) == pytest.approx(0, abs=1e-9)
    assert frechet_distance(2 * a + [3, 0, 0], a) == pytest.approx(9 + 3, rel=0.1)
    assert frechet_distance(a[:3], a) is None
    own = np.eye(4)
    assert recall_at(own, 1) == 1
    assert recall_at(np.ones((4, 4)), 1) == pytest.approx(1 / 4)  # all equal: as by chance
    assert recall_at(-own, 3) == 0
    assert recall_at(-own, 4) == 1
