"""Checkpoints are there whole or not at all, fit or are refused, and hold no frozen weights."""

from __future__ import annotations

import itertools
import json
import pickle
import resource
from pathlib import Path

import pytest
import torch
from support.dying_filesystem import DyingFilesystem, Killed
from support.s3_server import s3_server
from support.tiny_recipe import TinyNetwork, TinySettings

from handloom.errors import ConfigError, StoreError
from handloom.io.folder import Folder
from handloom.store.location import storage_options_from
from handloom.train import checkpoint as checkpoints
from handloom.train.checkpoint import CheckpointFacts
from handloom.train.parts.acting import checkpoint_to_act
from handloom.train.registry import network_of
from handloom.train.robomirror.data.motion import MOTION_DIM
from handloom.train.robomirror.network.motion_vae import MotionVae
from handloom.train.robomirror.recipe import RECIPE
from handloom.train.robomirror.settings import RobomirrorSettings

SETTINGS = TinySettings()
MOTION = RobomirrorSettings(latent=8, vae_width=16)


def facts(step: int, **values: object) -> CheckpointFacts:
    fields = {"recipe": "tiny", "settings": SETTINGS.model_dump(mode="json"), "settings_key": SETTINGS.settings_key()}
    fields |= {"step": step, "epoch": 1, "batches": 2, "finished": False, "data_version": 3, "windows_key": "k"}
    fields |= {"workers": 1, "facts": {"width": 63}, "frozen": {}, "train_s": 1.5}
    return CheckpointFacts(**fields | values)


def save(folder: Folder, step: int, network: torch.nn.Module, keep: int = 2, **values: object) -> str:
    training = {"optimizer": {"state": {}}, "random": [{"torch": torch.get_rng_state(), "python": [3, [1, 2], None]}]}
    return checkpoints.save(folder, facts(step, **values), network, training, '{"kind": "step", "step": 1}\n', keep)


@pytest.fixture(scope="module")
def bucket():
    with s3_server() as env:
        yield storage_options_from(env)


@pytest.fixture(params=["disk", "s3"])
def folder(request, tmp_path: Path) -> Folder:
    if request.param == "disk":
        return Folder.parse(tmp_path / "out")
    return Folder.parse(f"s3://bucket/{tmp_path.name}", request.getfixturevalue("bucket"))


def test_what_is_saved_is_read_and_the_oldest_go(folder):
    network = TinyNetwork(SETTINGS)
    for step in (5, 10, 15):
        uri = save(folder, step, network)
    assert folder.names(checkpoints.FOLDER) == ["step-00000010", "step-00000015"]
    name = checkpoints.newest(folder)
    assert uri.endswith(f"/{name}")
    found = checkpoints.load(folder, name)
    assert (found.facts.step, found.facts.data_version, found.facts.facts) == (15, 3, {"width": 63})
    assert found.history == [{"kind": "step", "step": 1}]
    assert found.training["random"][0]["python"] == [3, [1, 2], None]
    assert set(found.network) == {"step.weight", "step.bias"}  # not those of `frozen`
    other = TinyNetwork(SETTINGS)
    checkpoints.put_weights(other, found.network, uri)
    assert torch.equal(other.step.weight, network.step.weight)
    for place in (uri, folder.uri):
        assert checkpoints.load_weights(place, folder.storage_options).facts.step == 15
    with pytest.raises(ConfigError, match="no complete checkpoint"):
        checkpoints.load_weights(f"{folder.uri}/nowhere", folder.storage_options)


def test_damaged_and_unfinished_ones_are_passed_over(folder, caplog):
    network = TinyNetwork(SETTINGS)
    for step in (1, 2, 3, 4):
        save(folder, step, network, keep=9)
    place = f"{checkpoints.FOLDER}/step-0000000"
    weights = bytearray(folder.read(f"{place}4/network.pt"))
    weights[len(weights) // 2] ^= 1
    folder.write(f"{place}4/network.pt", bytes(weights))
    folder.remove(f"{place}3/checkpoint.json")
    folder.write(f"{place}2/training.pt", folder.read(f"{place}2/training.pt")[:-10])
    assert checkpoints.newest(folder) == "step-00000001"
    assert [name in caplog.text for name in ("step-00000004", "step-00000003", "step-00000002")] == [True] * 3
    with pytest.raises(StoreError, match=r"network\.pt is not what was written"):
        checkpoints.load(folder, "step-00000004")


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda facts: {}, "checkpoint.json has no recipe, settings, "),
        (lambda facts: facts | {"settings": {}}, "checkpoint.json has no settings"),
        (lambda facts: [], "checkpoint.json is no JSON object"),
        (lambda facts: facts | {"facts": None}, "facts in checkpoint.json is None, no JSON object"),
    ],
)
def test_a_start_whose_facts_are_damaged_says_so(tmp_path, damage, said):
    folder = Folder.parse(tmp_path)
    older, uri = (save(folder, step, TinyNetwork(SETTINGS)) for step in (1, 2))
    place = Folder.parse(uri)
    place.write_json("checkpoint.json", damage(place.read_json("checkpoint.json")))
    for read in (checkpoints.find_start, checkpoints.load_start):
        with pytest.raises(StoreError, match=f"the checkpoint {uri} is damaged: {said}") as caught:
            read(uri, {}, "tiny")
        assert "older" in caught.value.hint
    assert checkpoints.find_start(str(tmp_path), {}, "tiny")[1] == older


def test_a_name_that_settings_or_facts_lack_is_told_where_it_is_needed(tmp_path, caplog):
    network = MotionVae(MOTION, dict.fromkeys(("motion_components", "motion_mean", "motion_scale"), [0.0] * MOTION_DIM))
    values = {"settings": MOTION.model_dump(mode="json"), "settings_key": MOTION.settings_key()}
    uri = save(Folder.parse(tmp_path), 1, network, recipe="robomirror", **values)
    place, start = Folder.parse(uri), MOTION.model_copy(update={"init": uri})
    kept = place.read_json("checkpoint.json")
    whole = checkpoints.load_weights(uri, {})
    RECIPE.load_init(network, whole.network, start, whole.facts)

    def without(name: str) -> None:
        settings = {key: value for key, value in kept["settings"].items() if key != name}
        place.write_json("checkpoint.json", kept | {"settings": settings, "facts": {}})

    without("rate_hz")
    found, facts = checkpoints.load_weights(uri, {}), checkpoints.find_start(uri, {}, "robomirror")[0]
    for use in (
        lambda: RECIPE.load_init(network, found.network, start, found.facts),
        lambda: RECIPE.load_init(network, found.network, start, pickle.loads(pickle.dumps(facts))),
    ):
        with pytest.raises(StoreError, match=rf"^{uri}/checkpoint.json, of handloom \S+, has no settings.rate_hz\n"):
            use()
    with pytest.raises(
        StoreError, match=r"has no facts\.motion_components\nhint: it is damaged, or of another version"
    ):
        network_of(found)
    without("stage")
    with pytest.raises(StoreError, match=r"has no settings\.stage"):
        checkpoint_to_act(uri, "robomirror", "motion", "")
    assert "defaults" not in caplog.text
    assert checkpoints.load_weights(uri, {}).settings_as(RobomirrorSettings) == MOTION
    assert "defaults" not in caplog.text  # they are what it was trained with
    without("latent")
    assert checkpoints.load_weights(uri, {}).settings_as(RobomirrorSettings) != MOTION
    assert f"{uri}/checkpoint.json has no settings latent: defaults are taken" in caplog.text


def test_a_killed_write_leaves_no_checkpoint(tmp_path):
    folder = Folder.parse(tmp_path)
    save(folder, 1, TinyNetwork(SETTINGS))
    for end in itertools.count():
        try:
            save(Folder(folder.uri, opened=DyingFilesystem(end)), 2, TinyNetwork(SETTINGS))
            break
        except Killed:
            name = checkpoints.newest(folder)
            assert checkpoints.load(folder, name).facts.name == name
            assert end > 10 or name == "step-00000001"
    assert end > 10
    assert checkpoints.newest(folder) == "step-00000002"
    save(folder, 3, TinyNetwork(SETTINGS))
    assert folder.names(checkpoints.FOLDER) == ["step-00000002", "step-00000003"]  # what kills left is gone


def test_a_full_disk_says_so(tmp_path):
    """torch said `unexpected pos 64 vs 0`."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        with pytest.raises(StoreError, match=r"cannot write network.pt in .*(too large|space)"):
            save(Folder.parse(tmp_path), 1, TinyNetwork(SETTINGS))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert Folder.parse(tmp_path).names(checkpoints.FOLDER) == []


@pytest.mark.parametrize(
    ("settings", "recipe", "workers", "said"),
    [
        (TinySettings(lr=0.1, slow_s=2), "tiny", 1, "lr is 0.0005 in the checkpoint, 0.1 now; slow_s is 0.0"),
        (SETTINGS, "other", 1, "recipe tiny, not of other"),
        (SETTINGS, "tiny", 2, "made by 1 workers, 2 were asked for"),
    ],
)
def test_what_does_not_fit_is_refused_with_the_difference(settings, recipe, workers, said):
    with pytest.raises(ConfigError, match=said) as caught:
        checkpoints.check_fits(facts(1), "out/step", recipe, settings, workers)
    assert "--no-resume" in caught.value.hint


def test_costs_may_differ():
    cheaper = TinySettings(loader_workers=3, log_every=7, checkpoint_every=11, keep_checkpoints=5, compare=False)
    checkpoints.check_fits(facts(1), "out/step", "tiny", cheaper, 1)


def test_weights_of_another_network_are_refused():
    with pytest.raises(ConfigError, match="do not fit"):
        checkpoints.put_weights(TinyNetwork(SETTINGS), {"step.weight": torch.zeros(2, 2)}, "out/step")


def test_checkpoint_json_is_json(tmp_path):
    save(Folder.parse(tmp_path), 1, TinyNetwork(SETTINGS))
    content = json.loads((tmp_path / "checkpoints" / "step-00000001" / "checkpoint.json").read_text())
    assert set(content["files"]) == {"network.pt", "training.pt", "history.jsonl"}
    assert content["at"].startswith("20")
