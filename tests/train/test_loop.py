"""The loop: a resumed job equals an undisturbed one, ranks agree, empty batches change nothing, NaN is an error."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.multiprocessing as mp
from support.s3_server import s3_server
from support.tiny_recipe import RECIPE, TinyNetwork, TinySettings
from support.training import curve, lines_of, training_db
from torch import nn

from handloom.api import Database
from handloom.errors import ConfigError, StoreError
from handloom.io.folder import Folder
from handloom.store.location import storage_options_from
from handloom.train import checkpoint as checkpoints
from handloom.train.history import loader_wait_share
from handloom.train.loop import train
from handloom.train.registry import network_of, open_network
from handloom.train.step import LossNotFinite, Stepper, end_position, lr_factor

SETTINGS = TinySettings(batch_size=4, epochs=3, lr=0.01, checkpoint_every=2, keep_checkpoints=2, log_every=1)


@pytest.fixture(scope="module")
def db(tmp_path_factory) -> Database:
    return training_db(tmp_path_factory.mktemp("training") / "db")


@pytest.fixture(scope="module")
def undisturbed(db, tmp_path_factory) -> Path:
    """The folder of a job that ran to its end."""
    folder = tmp_path_factory.mktemp("whole")
    train(RECIPE, db, SETTINGS, Folder.parse(folder))
    return folder


def stop_after(number: int):
    """A `should_stop` that is true at the given call."""
    calls = iter(range(1, 10**9))
    return lambda: next(calls) == number


def test_history_is_complete(undisturbed):
    lines = lines_of(undisturbed)
    steps = [line for line in lines if line["kind"] == "step"]
    held_out = [line for line in lines if line["kind"] == "held_out"]
    per_epoch = len(steps) // 3
    assert per_epoch > 5
    assert [line["step"] for line in steps] == list(range(1, 3 * per_epoch + 1))
    assert [line["epoch"] for line in held_out] == [0, 1, 2, 3]
    assert all(line["loader_wait_s"] <= line["step_s"] for line in steps)
    assert steps[-1]["at_s"] >= sum(line["step_s"] for line in steps)
    assert 0 <= loader_wait_share(lines) <= 1
    assert held_out[-1]["counts"]["l1"] == 63 * held_out[-1]["windows"]
    assert held_out[-1]["numbers"]["l1"] < held_out[0]["numbers"]["l1"]
    assert len({line["numbers"]["zero_motion"] for line in held_out}) == 1


@pytest.mark.parametrize("stops", [(1,), (4, 3), (7,), (8,)])
def test_a_stopped_job_resumes_to_the_same_bits(db, undisturbed, tmp_path, stops):
    """In the middle of an epoch, between checkpoints, at an epoch's end, and twice."""
    folder = Folder.parse(tmp_path / "out")
    for number in stops:
        outcome = train(RECIPE, db, SETTINGS, folder, should_stop=stop_after(number))
        assert outcome.stopped
        assert checkpoints.peek(folder)[0].finished is False
    outcome = train(RECIPE, db, SETTINGS, folder)
    assert not outcome.stopped
    assert curve(lines_of(tmp_path / "out")) == curve(lines_of(undisturbed))
    ends = [checkpoints.load(f, checkpoints.newest(f)) for f in (folder, Folder.parse(undisturbed))]
    assert all(torch.equal(ends[0].network[name], ends[1].network[name]) for name in ends[1].network)
    assert ends[0].facts.finished
    again = train(RECIPE, db, SETTINGS, folder)  # there is nothing left to do
    assert curve(again.history) == curve(lines_of(undisturbed))


class Killed(BaseException):
    pass


def test_a_killed_job_resumes_from_the_last_checkpoint(db, undisturbed, tmp_path):
    """Steps after the checkpoint are repeated, and are in the history once."""
    folder = Folder.parse(tmp_path / "out")

    def killer(line, _):
        if line["kind"] == "step" and line["step"] == 6 and not killed:
            killed.append(line)
            raise Killed

    killed: list[object] = []
    with pytest.raises(Killed):
        train(RECIPE, db, SETTINGS, folder, report=killer)
    assert checkpoints.newest(folder) == "step-00000004"
    train(RECIPE, db, SETTINGS.model_copy(update={"loader_workers": 1}), folder, report=killer)
    assert curve(lines_of(tmp_path / "out")) == curve(lines_of(undisturbed))


def test_max_steps_ends_training_and_the_schedule_there(db, tmp_path):
    settings = SETTINGS.model_copy(update={"max_steps": 21, "checkpoint_every": None, "epochs": 99})
    whole = train(RECIPE, db, settings, Folder.parse(tmp_path / "whole"))
    folder = Folder.parse(tmp_path / "out")
    train(RECIPE, db, settings, folder, should_stop=stop_after(17))
    outcome = train(RECIPE, db, settings, folder)
    assert curve(outcome.history) == curve(whole.history)
    steps = [line for line in whole.history if line["kind"] == "step"]
    assert (len(steps), steps[-1]["epoch"]) == (21, 1)
    assert steps[-1]["lr"] < 0.01 * settings.lr
    assert whole.history[-1]["kind"] == "held_out"


def test_other_settings_are_refused_and_no_resume_starts_again(db, undisturbed, tmp_path):
    folder = Folder.parse(tmp_path / "out")
    train(RECIPE, db, SETTINGS, folder, should_stop=stop_after(3))
    other = SETTINGS.model_copy(update={"lr": 0.02})
    with pytest.raises(ConfigError, match=r"lr is 0\.01 in the checkpoint, 0\.02 now"):
        train(RECIPE, db, other, folder)
    train(RECIPE, db, SETTINGS, folder, resume=False)
    assert curve(lines_of(tmp_path / "out")) == curve(lines_of(undisturbed))


def test_a_clip_that_spoils_the_loss_is_named(db, tmp_path):
    clip = "test:v3:0-1000"
    assert clip in RECIPE.data(db, SETTINGS).train.clip_ids
    settings = SETTINGS.model_copy(update={"spoilt_clip": clip})
    with pytest.raises(LossNotFinite, match=f"the loss is not finite at step .*{clip}") as caught:
        train(RECIPE, db, settings, Folder.parse(tmp_path))
    assert "lower it" in caught.value.hint


def test_too_few_windows_say_how_many_a_step_takes(db, tmp_path):
    with pytest.raises(ConfigError, match="one step takes 5000"):
        train(RECIPE, db, SETTINGS.model_copy(update={"batch_size": 5000}), Folder.parse(tmp_path))


def test_a_deleted_version_is_an_error_that_names_those_that_exist(tmp_path):
    db = training_db(tmp_path / "db", range(8))
    folder = Folder.parse(tmp_path / "out")
    train(RECIPE, db, SETTINGS, folder, should_stop=stop_after(2))
    first = db.version
    training_db(tmp_path / "db", range(8, 12))
    train(RECIPE, db, SETTINGS, folder, should_stop=stop_after(2))  # the version of the start, not the newest
    assert checkpoints.peek(folder)[0].data_version == first
    clips = db.table("clips")
    clips.cleanup_old_versions(retain_versions=1)
    with pytest.raises(StoreError, match=f"version {first} of the table, which cannot be read") as caught:
        train(RECIPE, db, SETTINGS, folder)
    assert f"clips {db.version}" in caught.value.hint


def test_a_job_switches_to_newer_versions_at_the_end_of_epochs(tmp_path):
    db = training_db(tmp_path / "db", range(8))
    first = db.version

    begins: list[object] = []

    def extraction(line, _):
        if line["kind"] == "begins":
            begins.append(line)
        if line["kind"] == "step" and line["step"] == 2:
            training_db(tmp_path / "db", range(8, 12))

    settings = SETTINGS.model_copy(update={"follow_versions": True})
    outcome = train(RECIPE, db, settings, Folder.parse(tmp_path / "out"), report=extraction)
    (line,) = begins
    assert line["train_rows"] + line["held_out_rows"] == 8
    assert line["train_windows"] == 6 * line["train_rows"]
    taken = [line for line in outcome.history if line["kind"] == "version"]
    assert [(line["epoch"], line["version"]) for line in taken] == [(1, db.version)]
    assert [line["version"] for line in outcome.history if line["kind"] == "held_out"] == [first] * 2 + [db.version] * 2
    assert checkpoints.peek(Folder.parse(tmp_path / "out"))[0].data_version == db.version
    sizes = [sum(line["kind"] == "step" and line["epoch"] == n for line in outcome.history) for n in range(3)]
    assert sizes[0] < sizes[1] == sizes[2]
    assert outcome.history[-2]["lr"] < 0.1 * settings.lr  # the schedule ends with the epochs, which have become longer

    whole = lines_of(tmp_path / "out")
    folder = Folder.parse(tmp_path / "again")
    train(RECIPE, db, settings.model_copy(update={"version": first}), folder, should_stop=stop_after(sizes[0] + 2))
    assert checkpoints.peek(folder)[0].data_version == db.version
    train(RECIPE, db, settings.model_copy(update={"version": first}), folder)
    assert curve(lines_of(tmp_path / "again")) == curve(whole)


def test_init_starts_from_another_jobs_weights(db, undisturbed, tmp_path):
    settings = SETTINGS.model_copy(update={"init": str(undisturbed), "max_steps": 1})
    outcome = train(RECIPE, db, settings, Folder.parse(tmp_path))
    first = next(line for line in outcome.history if line["kind"] == "held_out")
    last = [line for line in lines_of(undisturbed) if line["kind"] == "held_out"][-1]
    assert first["numbers"] == last["numbers"]
    assert [line["step"] for line in outcome.history if line["kind"] == "step"] == [1]
    assert checkpoints.peek(Folder.parse(tmp_path))[0].finished


def test_init_of_another_recipe_is_refused_by_its_name(db, undisturbed, tmp_path):
    class Other(type(RECIPE)):
        name = "other"

    settings = SETTINGS.model_copy(update={"init": str(undisturbed)})
    with pytest.raises(ConfigError, match="is a checkpoint of the recipe tiny, not of other"):
        train(Other(), db, settings, Folder.parse(tmp_path))


def test_a_trained_network_is_opened_from_its_folder(db, undisturbed):
    outcome = train(RECIPE, db, SETTINGS, Folder.parse(undisturbed))  # finished: nothing is done
    network, checkpoint = open_network(str(undisturbed), recipe=RECIPE)
    assert (checkpoint.facts.data_version, checkpoint.facts.finished) == (db.version, True)
    batch = next(iter(outcome.data.held_out.loader(batch_size=4)))
    assert torch.equal(network(batch)["loss"], outcome.network(batch)["loss"])
    with pytest.raises(ConfigError, match="is a checkpoint of tiny"):
        open_network(str(undisturbed))
    older = replace(checkpoint.facts, settings={**checkpoint.facts.settings, "width_of_before": 8})
    with pytest.raises(ConfigError, match=r"other settings: there is no setting width_of_before"):
        network_of(replace(checkpoint, facts=older), RECIPE)


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.needs_gpu)])
def test_bf16_learns_too(db, tmp_path, device):
    settings = SETTINGS.model_copy(update={"precision": "bf16", "compile": device == "cuda"})
    outcome = train(RECIPE, db, settings, Folder.parse(tmp_path), device=device)
    held_out = [line["numbers"]["l1"] for line in outcome.history if line["kind"] == "held_out"]
    assert held_out[-1] < held_out[0]
    assert all(p.dtype == torch.float32 for p in outcome.network.parameters())


# Steps


class Plain(nn.Module):
    """Predicts y from x; rows where y is NaN are not valid."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 1)

    def forward(self, batch):
        y = batch["y"]
        valid = y.isfinite()
        error = torch.where(valid, (self.layer(batch["x"])[:, 0] - torch.nan_to_num(y)) ** 2, 0)
        count = valid.sum()
        sums = {"loss": torch.stack([error.detach().sum().double(), count.double()])}
        return {"loss": error.sum() / count.clamp(min=1), "sums": sums}


def plain_batches(sizes, seed=0):
    rng = np.random.default_rng(seed)
    out = []
    for size, num_valid in sizes:
        x, y = rng.normal(size=(size, 3)).astype(np.float32), rng.normal(size=size).astype(np.float32)
        y[num_valid:] = np.nan
        out.append({"x": torch.from_numpy(x), "y": torch.from_numpy(y), "clip_id": [f"c{n}" for n in range(size)]})
    return out


def stepper(settings: TinySettings = SETTINGS) -> Stepper:
    torch.manual_seed(0)
    network = Plain()
    return Stepper(network, torch.optim.AdamW(network.parameters(), lr=0.1), settings, torch.device("cpu"))


def together(batches):
    joined = {name: torch.cat([batch[name] for batch in batches]) for name in ("x", "y")}
    return joined | {"clip_id": [name for batch in batches for name in batch["clip_id"]]}


def weights_of(made: Stepper) -> list[np.ndarray]:
    return [p.detach().numpy().copy() for p in made._parameters]


def test_accumulated_batches_weigh_as_one():
    """Also if some of them have fewer valid elements, or none."""
    batches = plain_batches([(4, 4), (4, 1), (4, 0), (4, 3)])
    parts, whole = stepper(), stepper()
    apart = parts.step(batches, 0.1, 1)
    at_once = whole.step([together(batches)], 0.1, 1)
    assert apart.loss == pytest.approx(at_once.loss, rel=1e-6)
    assert apart.grad_norm == pytest.approx(at_once.grad_norm, rel=1e-5)
    assert apart.windows == at_once.windows == 16
    for a, b in zip(weights_of(parts), weights_of(whole), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5)


def test_a_step_without_a_valid_element_changes_nothing():
    made = stepper()
    before = weights_of(made)
    numbers = made.step(plain_batches([(4, 0)]), 0.1, 1)
    assert numbers.loss is None
    assert all(np.array_equal(a, b) for a, b in zip(before, weights_of(made), strict=True))


def test_gradients_are_clipped_and_measured_before():
    clipped = stepper(SETTINGS.model_copy(update={"clip_grad_norm": 1e-3}))
    numbers = clipped.step(plain_batches([(8, 8)]), 0.1, 1)
    assert numbers.grad_norm > 1e-3
    norm = math.sqrt(sum(float((p.grad**2).sum()) for p in clipped._parameters))
    assert norm == pytest.approx(1e-3, rel=1e-3)


def test_a_gradient_that_overflows_is_an_error():
    batches = plain_batches([(2, 2)])
    batches[0]["y"] = batches[0]["y"] * 0 + 1e19
    with pytest.raises(LossNotFinite, match="step 7; the batch held c0, c1"):
        stepper().step(batches, 0.1, 7)


@pytest.mark.parametrize("world_size", [1, 2, 3, 5])
def test_ranks_share_the_held_out_windows_without_repeating(db, world_size):
    windows = RECIPE.data(db, SETTINGS).held_out
    seen = []
    for rank in range(world_size):
        loader = windows.loader(batch_size=4, shuffle=False, drop_last=False, rank=rank, world_size=world_size)
        for batch in loader:
            seen += zip(batch["clip_id"], batch["now_s"].tolist(), strict=True)
    assert len(seen) == len(set(seen)) == len(windows)


def rank_of_two(rank: int, db: Database, out: str, settings: TinySettings, store: str) -> None:
    """One of two processes of a data-parallel job over gloo."""
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=2)
    outcome = train(RECIPE, db, settings, Folder.parse(out))
    torch.save({n: p.detach() for n, p in outcome.network.named_parameters()}, f"{out}/rank{rank}.pt")
    torch.distributed.destroy_process_group()


def test_two_workers_do_what_one_does_with_twice_the_batch(db, tmp_path, monkeypatch):
    """Same windows, same weights on both ranks, and the numbers of one worker up to rounding."""
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "lo")
    settings = SETTINGS.model_copy(update={"epochs": 1, "drop": 0.0})
    mp.start_processes(
        rank_of_two, (db, str(tmp_path / "two"), settings, str(tmp_path / "store")), 2, start_method="spawn"
    )
    two = lines_of(tmp_path / "two")
    weights = [torch.load(tmp_path / "two" / f"rank{rank}.pt", weights_only=True) for rank in range(2)]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
    held_out = [line for line in two if line["kind"] == "held_out"]
    assert [line["windows"] for line in held_out] == [len(RECIPE.data(db, settings).held_out)] * 2

    folder = Folder.parse(tmp_path / "one")
    one = train(RECIPE, db, settings.model_copy(update={"batch_size": 8}), folder)
    ones = [line for line in one.history if line["kind"] == "held_out"]
    assert held_out[0]["counts"] == ones[0]["counts"]
    for name, value in ones[0]["numbers"].items():  # before the first step: the same network
        assert held_out[0]["numbers"][name] == pytest.approx(value, rel=1e-6)
    for name, value in ones[1]["numbers"].items():  # after an epoch of other batches
        assert held_out[1]["numbers"][name] == pytest.approx(value, rel=0.1)
    with pytest.raises(ConfigError, match="made by 2 workers, 1 were asked for"):
        train(RECIPE, db, settings, Folder.parse(tmp_path / "two"))


# The schedule


def test_schedule_rises_then_falls_to_zero():
    values = [lr_factor(n / 100, 10, 1.25) for n in range(1001)]
    top = values.index(max(values))
    assert values[top] == pytest.approx(1)
    assert top == pytest.approx(125, abs=1)
    assert values[:125] == sorted(values[:125])
    assert values[126:] == sorted(values[126:], reverse=True)
    assert values[-1] == 0
    assert lr_factor(0.5, 1, 5) == 1  # a warm-up longer than half of training is cut to that


def test_max_steps_moves_the_end():
    assert end_position(10, None, 0, 0, 100) == 10
    assert end_position(10, 250, 0, 0, 100) == 2.5
    assert end_position(2, 250, 0, 0, 100) == 2
    assert end_position(10, 250, 200, 2, 25) == 4  # 50 steps left, of epochs that have become shorter


def test_training_into_a_bucket(db, tmp_path):
    settings = SETTINGS.model_copy(update={"epochs": 1, "checkpoint_every": None})
    with s3_server() as env:
        options = storage_options_from(env)
        with pytest.raises(StoreError, match="cannot write"):
            train(RECIPE, db, settings, Folder.parse("s3://absent/run", options))
        out = Folder.parse("s3://bucket/run", options)
        train(RECIPE, db, settings, out, tensorboard=out.sub("board"), should_stop=stop_after(3))
        outcome = train(RECIPE, db, settings, out, tensorboard=out.sub("board"))
        whole = train(RECIPE, db, settings, Folder.parse(tmp_path))
        assert curve(outcome.history) == curve(whole.history)
        assert out.read("history.jsonl").count(b'"step"') >= len(whole.history)
        assert any(name.startswith("events.out.tfevents") for name in out.names("board"))


def test_network_of_the_tests_hides_its_frozen_part():
    assert checkpoints.frozen_parts(TinyNetwork(SETTINGS)) == {"frozen": "Linear"}
