"""`handloom train` on a cluster: what it writes, what it refuses, and what it does when something dies."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import ray
import torch
from support.process import alive, descendants, handloom, is_agent, start
from support.s3_server import s3_server
from support.tiny_recipe import RECIPE, TinySettings
from support.training import curve, lines_of, training_db

from handloom.api import Database
from handloom.errors import ConfigError, StoreError
from handloom.io.folder import Folder
from handloom.pipelines.cluster.ray_private import free_by_node
from handloom.pipelines.train import attempts
from handloom.pipelines.train.attempts import WorkersDied
from handloom.pipelines.train.settings import TrainConfig, load_train_config
from handloom.pipelines.train.train import train, train_text
from handloom.schemas.training import TrainResources
from handloom.store.location import storage_options_from
from handloom.train import checkpoint as checkpoints
from handloom.train import loop
from handloom.train.registry import RECIPES, find_recipe
from handloom.train.step import LossNotFinite

TINY = "support.tiny_recipe:RECIPE"
TESTS = Path(__file__).parents[1]
BASE = {"batch_size": 4, "epochs": 2, "lr": 0.01, "log_every": 1, "checkpoint_every": 2, "compare": False}
pytestmark = pytest.mark.timeout(300)


@pytest.fixture(scope="module")
def db(tmp_path_factory) -> Database:
    return training_db(tmp_path_factory.mktemp("training") / "db")


def job(db: Database, out: Path | Folder, resources: dict | None = None, watch=None, resume: bool = True, **settings):
    config = TrainConfig(
        TinySettings(**BASE | settings), TrainResources(**{"cpus_per_worker": 0.5} | (resources or {}))
    )
    folder = out if isinstance(out, Folder) else Folder.parse(out)
    return train(db, RECIPE, TINY, config, folder, watch=watch, resume=resume, quiet=True)


def test_a_job_whose_worker_is_killed_leaves_checkpoints_curves_and_a_report(db, tmp_path, ray_address):
    """Those of a job that nobody disturbed: the short form of the slow tests below."""
    out = tmp_path / "out"
    summary = job(db, out, watch=suicide(out, after_steps=4), epochs=1, slow_s=0.1)
    assert (summary.exit, summary.deaths, list(summary.variants)) == ("done", 1, ["asked"])
    torch.set_num_threads(1)  # as Ray does for a worker of one CPU
    whole = loop.train(RECIPE, db, TinySettings(**BASE | {"epochs": 1}), Folder.parse(tmp_path / "whole"))
    history = lines_of(out / "asked")
    assert [line["kind"] for line in history].count("resumed") == 1
    assert curve(history) == curve(whole.history)
    asked = summary.variants["asked"]
    assert asked["numbers"]["l1"] > 0
    assert asked["finished"]
    assert Path(asked["checkpoint"]).is_dir()
    assert asked["data_version"] == db.version
    report = json.loads((out / "report.json").read_text())
    assert report["variants"]["asked"]["held_out"] == asked["numbers"]
    assert report["variants"]["asked"]["hardware"]["threads"] >= 1
    assert report["variants"]["asked"]["counts"]["windows"] > 0
    assert report["lr"] == 0.01
    assert "test:v0:0-1, 0.50 s. four points" in (out / "report.html").read_text()
    assert [line["epoch"] for line in history if line["kind"] == "held_out"] == [0, 1]
    assert any((out / "tensorboard" / "asked").glob("events.out.tfevents*"))
    assert not (out / ".ray").exists()
    assert "asked: " in train_text(summary)
    with pytest.raises(ConfigError, match="lr is"):  # before any worker starts
        job(db, out, epochs=1, lr=0.5, slow_s=0.1)
    with pytest.raises(ConfigError, match="made by 1 workers, 2 were asked for"):
        job(db, out, {"workers": 2}, epochs=1, slow_s=0.1)


@pytest.mark.slow
def test_variants_are_trained_one_after_the_other_and_stand_in_one_report(db, tmp_path, ray_address):
    out = tmp_path / "out"
    summary = job(db, out, epochs=1, compare=True)
    assert (summary.exit, list(summary.variants)) == ("done", ["asked", "half-the-rate"])
    assert "half-the-rate" in (out / "report.html").read_text()
    assert json.loads((out / "report.json").read_text())["variants"].keys() == {"asked", "half-the-rate"}
    for name in ("asked", "half-the-rate"):
        assert [line["epoch"] for line in lines_of(out / name) if line["kind"] == "held_out"] == [0, 1]
        assert any((out / "tensorboard" / name).glob("events.out.tfevents*"))


@pytest.mark.slow
def test_what_a_worker_finds_wrong_is_told_as_it_is(db, tmp_path, ray_address):
    """Once, and not after three starts."""
    began = time.monotonic()
    with pytest.raises(LossNotFinite, match=r"the loss is not finite at step .*test:v3:0-1000"):
        job(db, tmp_path / "out", spoilt_clip="test:v3:0-1000")
    assert time.monotonic() - began < 120


def test_refused_before_anything_starts(db, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letter.txt").write_text("dear reader")
    with pytest.raises(ConfigError, match=r"holds other files: letter\.txt"):
        job(db, tmp_path / "mine")
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="cannot write"):
        job(db, tmp_path / "file" / "out")
    with pytest.raises(ConfigError, match=r"no complete checkpoint at .*mine"):
        job(db, tmp_path / "started", init=str(tmp_path / "mine"))
    with pytest.raises(ConfigError, match="no recipe 'armr'") as caught:
        find_recipe("armr")
    assert "arm4r, arvrm" in caught.value.hint
    with pytest.raises(ConfigError, match=r"nowhere\.recipe cannot be imported: ModuleNotFoundError"):
        find_recipe("nowhere.recipe:RECIPE")
    with pytest.raises(ConfigError, match="has no OTHER"):
        find_recipe("support.tiny_recipe:OTHER")
    with pytest.raises(ConfigError, match="has no size 'huge'"):
        load_train_config(RECIPE, "huge", None, [])


def test_settings_come_from_file_and_assignments(tmp_path):
    file = tmp_path / "mine.toml"
    file.write_text("lr = 0.1\nepochs = 7\n[resources]\nworkers = 2\nwait_s = 9\n")
    config = load_train_config(RECIPE, None, file, ["lr=0.2", "resources.wait_s=5"], workers=3)
    assert (config.settings.lr, config.settings.epochs) == (0.2, 7)
    assert (config.resources.workers, config.resources.wait_s) == (3, 5)
    assert load_train_config(RECIPE, None, None, ["init=first"]).settings.init == str(Path("first").absolute())
    with pytest.raises(ConfigError, match="there is no setting lrr") as caught:
        load_train_config(RECIPE, None, None, ["lrr=1"])
    assert "did you mean lr?" in caught.value.hint
    with pytest.raises(ConfigError, match="workers = 0"):
        load_train_config(RECIPE, None, None, ["resources.workers=0"])


@pytest.mark.parametrize("name", RECIPES)
def test_published_recipes_have_settings_for_every_size(name):
    recipe = find_recipe(name)
    assert recipe.name == name
    for size in recipe.sizes:
        config = load_train_config(recipe, size, None, [])
        assert recipe.settings_type(**config.settings.model_dump()) == config.settings


def test_a_cluster_without_room_says_who_holds_it(db, tmp_path, ray_address):
    with pytest.raises(ConfigError, match="the cluster has 2 CPUs, but 3 workers of 1 CPUs were asked for"):
        job(db, tmp_path / "out", {"workers": 3, "cpus_per_worker": 1})

    class Hog:
        def wait(self) -> None:
            return None

    hog = ray.remote(num_cpus=2)(Hog).remote()
    try:
        ray.get(hog.wait.remote())
        until = time.monotonic() + 240
        while any(node.get("CPU") for node in free_by_node().values()) and time.monotonic() < until:
            time.sleep(0.1)  # Ray's numbers are late
        with pytest.raises(ConfigError, match=r" did not become free within 1 s: of 2 CPUs 0 CPUs are free; held by"):
            job(db, tmp_path / "out", {"wait_s": 1, "cpus_per_worker": 1})
    finally:
        ray.kill(hog)


def when_steps(path: Path, number: int, then) -> None:
    """Call `then` from a thread once the job's history has so many steps."""

    def wait() -> None:
        until = time.monotonic() + 200
        while time.monotonic() < until:
            if path.exists() and path.read_text().count('"kind": "step"') >= number:
                return then()
            time.sleep(0.05)
        return None

    threading.Thread(target=wait, daemon=True).start()


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_worker_that_dies_changes_nothing(db, tmp_path, ray_address):
    options = {"slow_s": 0.1, "resources": {"workers": 2}}
    job(db, tmp_path / "whole", **options)
    killed: list[int] = []

    def watch(ledger) -> None:
        def kill() -> None:
            killed.append(ray.get(ledger.pids.remote())[1])
            os.kill(killed[0], signal.SIGKILL)

        when_steps(tmp_path / "out" / "asked" / "history.jsonl", 3, kill)

    summary = job(db, tmp_path / "out", watch=watch, **options)
    assert (len(killed), summary.deaths, summary.exit) == (1, 1, "done")
    lines = lines_of(tmp_path / "out" / "asked")
    assert [line["workers"] for line in lines if line["kind"] == "resumed"] == [2]
    assert curve(lines) == curve(lines_of(tmp_path / "whole" / "asked"))
    with pytest.raises(WorkersDied, match="died 1 times"):
        job(db, tmp_path / "other", {"workers": 2, "max_failures": 0}, watch=suicide(tmp_path / "other"), slow_s=0.1)


def suicide(out: Path, after_steps: int = 2):
    def watch(ledger) -> None:
        path = out / "asked" / "history.jsonl"
        when_steps(path, after_steps, lambda: os.kill(ray.get(ledger.pids.remote())[0], signal.SIGKILL))

    return watch


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_driver_that_dies_or_is_stopped_goes_on(db, tmp_path):
    """SIGKILL, then SIGTERM, then to the end: the curve of an undisturbed job, and no process left behind."""
    env = {"PYTHONPATH": str(TESTS)}
    settings = [f"--set={name}={json.dumps(value)}" for name, value in {**BASE, "slow_s": 0.3}.items()]
    out = tmp_path / "out"
    command = ("train", TINY, "--db", db.uri, "--out", out, "--set=resources.cpus_per_worker=1", *settings)
    history = out / "asked" / "history.jsonl"
    for number, waits_for, times in ((signal.SIGKILL, '"kind": "step"', 3), (signal.SIGTERM, '"kind": "resumed"', 1)):
        driver = start(*command, env=env)
        until = time.monotonic() + 200
        while not (history.exists() and history.read_text().count(waits_for) >= times):
            assert driver.poll() is None, driver.communicate()
            assert time.monotonic() < until
            time.sleep(0.05)
        family = descendants(driver.pid)
        os.kill(driver.pid, number)
        _, err = driver.communicate(timeout=120)
        wait_until_gone(family)
        if number == signal.SIGTERM:
            assert driver.returncode == 1
            assert "Traceback" not in err
            assert "stopping: the workers write a checkpoint first" in err
            assert "error" not in err
            newest, _ = checkpoints.peek(Folder.parse(out / "asked"))
            assert not newest.finished
            steps = [line["step"] for line in lines_of(out / "asked") if line["kind"] == "step"]
            assert newest.step == max(steps)  # where it stopped
    last = handloom(*command, "--json", env=env, timeout_s=250)
    assert last.returncode == 0, last.stderr
    assert json.loads(last.stdout)["exit"] == "done"
    assert "Traceback" not in last.stderr
    assert all(line.startswith(TINY) for line in last.stderr.splitlines()), last.stderr  # Ray keeps quiet
    torch.set_num_threads(1)  # as Ray does for a worker of one CPU
    whole = loop.train(RECIPE, db, TinySettings(**BASE), Folder.parse(tmp_path / "whole"))
    assert curve(lines_of(out / "asked")) == curve(whole.history)


def wait_until_gone(pids: set[int], limit_s: float = 240) -> None:
    until = time.monotonic() + limit_s
    while left := {pid for pid in pids if alive(pid) and not is_agent(pid)}:
        assert time.monotonic() < until, f"still there: {left}"
        time.sleep(0.1)


@pytest.mark.slow
def test_database_and_checkpoints_in_a_bucket(tmp_path, ray_address):
    with s3_server() as env:
        options = storage_options_from(env)
        db = training_db("s3://bucket/db", options=options)
        out = Folder.parse("s3://bucket/runs/tiny", options)
        with pytest.raises(StoreError, match="cannot write"):
            job(db, Folder.parse("s3://absent/runs/tiny", options))
        summary = job(db, out, epochs=1)
        assert summary.exit == "done"
        assert out.names() == ["asked", "job.json", "report.html", "report.json", "tensorboard"]
        assert out.names("asked") == ["checkpoints", "examples.npz", "history.jsonl", "result.json"]
        assert out.read_json("report.json")["variants"]["asked"]["held_out"] == summary.variants["asked"]["numbers"]
        assert out.names("tensorboard/asked")


def test_an_interrupted_job_waits_for_its_workers(monkeypatch):
    """Ctrl-C asks the workers to stop, and the job ends when they have: not before they have written a checkpoint."""
    stopped, written = threading.Event(), []

    class Trainer:
        def fit(self):
            assert stopped.wait(20)
            time.sleep(0.2)
            written.append("checkpoint")

    monkeypatch.setattr(attempts, "_trainer", lambda *_: Trainer())
    monkeypatch.setattr(attempts.ray, "get", lambda value: value)
    ledger = SimpleNamespace(stop=SimpleNamespace(remote=stopped.set), pids=SimpleNamespace(remote=lambda: [1]))
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # Ray leaves its own after other tests
    try:
        threading.Timer(0.2, lambda: os.kill(os.getpid(), signal.SIGINT)).start()
        assert attempts._attempt(None, TrainResources(), ledger, SimpleNamespace(show=lambda: None)) is None
    finally:
        signal.signal(signal.SIGINT, before)
    assert written
