"""Stages with pools of their own: the rows of one actor, whatever dies."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pyarrow as pa
import pytest
from support.extraction import extracted, new_database, outcome, row_digests, rows_of
from support.in_process import HERE
from support.own_package import install
from support.rows import digests

from handloom.api import Database
from handloom.errors import ConfigError
from handloom.pipelines.run.run import run
from handloom.schemas.settings import Resources, RunConfig, Settings, StageConfig
from handloom.stages.registry import stage_graph
from handloom.store.clips.clip_list import add_clips
from handloom.store.runs.runs import latest_run

OWN = {
    "bright": {"class": "support.pool_stages:Brightness", "cpus": 0.2},
    "ratio": {"class": "support.pool_stages:Ratio", "cpus": 0.2},
}


def config(stages: dict, **resources) -> RunConfig:
    made = {name: StageConfig(**values) for name, values in stages.items()}
    return RunConfig(stages=made, resources=Resources(**({"shard_clips": 2} | resources)))


def plain(stages: dict) -> dict:
    """The same stages in the actors of all others."""
    return {name: {k: v for k, v in values.items() if k in ("class", "settings")} for name, values in stages.items()}


@pytest.fixture(scope="module")
def some(clips):
    """Of two videos, so that there are two shards."""
    return clips[:4]


@pytest.fixture(scope="module")
def fused(some) -> list[pa.RecordBatch]:
    """The rows of one process that computes all stages, one clip after the other."""
    return list(rows_of(some, config(plain(OWN)).settings()))


@pytest.mark.timeout(600)
def test_pools_make_the_rows_of_one_process_and_add_columns_to_rows_that_exist(tmp_path, some, ray_address, fused):
    """Half of the clips have rows without the stages' columns. One stage runs in an environment of its own: its package
    is in there only, and so are the variables of all workers.
    """
    site = install(tmp_path / "site", "tinypkg", {})
    (site / "tinypkg" / "__init__.py").write_text("import os\nWORD = 'threads ' + os.environ['OMP_NUM_THREADS']\n")
    env = {"env_vars": {"PYTHONPATH": f"{site}{os.pathsep}{Path(__file__).parents[1]}"}}
    stages = OWN | {"packaged": {"class": "support.pool_stages:Packaged", "env": env, "cpus": 0.2}}
    schema = stage_graph(Settings()).schema()
    rows = [pa.RecordBatch.from_arrays([row[name] for name in schema.names], schema=schema) for row in fused[::2]]
    db = extracted(tmp_path / "db", some[::2], Settings(), rows)
    add_clips(db, list(some))
    done = run(db, config(stages, num_actors=1, load_s=120.0), ray_address=ray_address, quiet=True)
    assert (done.num_clips, done.num_updates, done.num_rejects) == (2, 2, 0)
    assert json.loads(latest_run(db).stage_counts) == {"ratio": {"clips": 4}}  # of new clips and rows, of all workers
    rows = db.clips()
    assert digests(rows, ("packaged", "stage_key_packaged")) == digests(pa.Table.from_batches(fused))
    for row in rows.select(["clip_id", "packaged"]).to_pylist():
        assert row["packaged"] == f"threads 1 {row['clip_id']}"


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("kind", ["own", "hands", "split"])
def test_rows_of_pools_equal_those_of_one_process(tmp_path, some, ray_address, fused, kind):
    """`split` decodes in actors of its own, too, and sends all frames to the pool of the hands."""
    stages = OWN if kind == "own" else OWN | {"hands_2d": {"cpus": 0.3}}
    mode = {"mode": "split", "cpus_per_decode_actor": 0.2} if kind == "split" else {}
    db = new_database(tmp_path / "db", some)
    done = run(db, config(stages, **mode), ray_address=ray_address, quiet=True)
    assert (done.num_clips, done.num_rejects) == (len(some), 0)
    assert row_digests(db) == digests(pa.Table.from_batches(fused))


def stage_rejects(db: Database) -> dict[str, str]:
    """`{clip: reason}` of the stage `faulty`."""
    rows = db.read("stage_rejects", ["clip_id", "stage", "reason"]).to_pylist()
    assert {row["stage"] for row in rows} <= {"faulty"}
    return {row["clip_id"]: row["reason"] for row in rows}


# `raises` and `dies` in short in test_workers_of_a_pool_that_die; `few` in tests/stages/test_own_stages.py
FAULTS = {"few": "bad_output", "raises": "bug", "dies": "worker_died", "leaks": "out_of_memory", "hangs": "hung"}


LIMITS = {"stage_s": 25.0, "stage_frame_s": 0.2, "max_bug_share": 1.0, "num_actors": 1}


def failing(db: Database, clips, kinds, pool: dict, ray_address: str) -> dict:
    """Run a stage that fails so on each of the first clips; returns its settings."""
    faults = [(clip.clip_id, kind) for clip, kind in zip(clips, kinds, strict=False)]
    faulty = {"class": "support.pool_stages:Faulty", "settings": {"faults": faults}, **pool}
    done = run(db, config({"faulty": faulty}, **LIMITS), ray_address=ray_address, quiet=True)
    assert (done.num_clips, done.num_rejects, done.exit) == (len(clips), 0, "rejects")
    assert stage_rejects(db) == {clip_id: FAULTS[kind] for clip_id, kind in faults}
    made = db.clips(["clip_id", "faulty"]).to_pylist()
    assert {row["clip_id"] for row in made if row["faulty"] is None} == {clip_id for clip_id, _ in faults}
    return faulty


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("pool", [{"cpus": 0.2}, {}], ids=["pool", "with-others"])
def test_a_stage_may_fail_in_every_way(tmp_path, clips, ray_address, pool):
    """It raises, gives too few values, kills its worker, lacks memory, or hangs; then columns are added to the rows."""
    db = new_database(tmp_path / "db", clips)
    faulty = failing(db, clips, tuple(FAULTS), pool, ray_address)
    bright = OWN if pool else plain(OWN)
    added = run(db, config({"faulty": faulty} | bright, **LIMITS), ray_address=ray_address, quiet=True)
    assert (added.num_clips, added.num_updates) == (0, len(clips))
    made = {i: d for row in rows_of(clips, config(plain(OWN)).settings()) for i, d in digests(row).items()}
    assert digests(db.clips(), ("faulty", "stage_key_faulty")) == made
    assert set(outcome(db).values()) == {"row"}


def packaged(env: dict) -> RunConfig:
    return config({"packaged": {"class": "support.pool_stages:Packaged", "env": env}}, load_s=120.0)


@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    ("env", "words"),
    [
        ({"env_vars": {"PYTHONPATH": "/nowhere"}}, "cannot be used"),
        ({"working_dir": "/does/not/exist"}, "none that Ray can build"),
        pytest.param({"pip": ["no-such-package==99.99"]}, "cannot be built", marks=pytest.mark.slow),
    ],
    ids=["modules", "folder", "pip"],
)
def test_an_environment_that_cannot_be_built_ends_the_run(tmp_path, clips, ray_address, env, words):
    db = new_database(tmp_path / "db", clips[:1])
    with pytest.raises(ConfigError, match=rf"(?s)\[stages.packaged\].*{words}|{words}.*"):
        run(db, packaged(env), ray_address=ray_address, quiet=True)
    assert db.count("clips") == 0


@pytest.mark.timeout(300)
def test_pools_that_no_row_needs_are_not_made(tmp_path, some, ray_address, fused):
    """Here the environment cannot be built, and there is no GPU."""
    bright = OWN["bright"] | {"env": {"env_vars": {"PYTHONPATH": "/nowhere"}}, "gpus": 1}
    schema = stage_graph(config({"bright": OWN["bright"]}).settings()).schema()
    row = pa.RecordBatch.from_arrays([fused[0][name] for name in schema.names], schema=schema)
    db = extracted(tmp_path / "db", some[:1], config({"bright": bright}).settings(), [row])
    with_other = config({"bright": bright, "other": {"class": "support.pool_stages:Faulty"}})
    done = run(db, with_other, quiet=True, parts=HERE)
    assert (done.num_clips, done.num_updates, done.exit) == (0, 1, "done")


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_packages_of_pip_are_in_the_environment(tmp_path, clips, ray_address):
    project = tmp_path / "project"
    (project / "tinypkg").mkdir(parents=True)
    (project / "tinypkg" / "__init__.py").write_text("WORD = 'from a wheel'\n")
    (project / "pyproject.toml").write_text("[project]\nname = 'tinypkg'\nversion = '1.0'\n")
    db = new_database(tmp_path / "db", clips[:1])
    run(db, packaged({"pip": [str(project)]}), ray_address=ray_address, quiet=True)
    assert db.clips(["packaged"]).column("packaged").to_pylist() == [f"from a wheel {clips[0].clip_id}"]


@pytest.mark.timeout(400)
def test_workers_of_a_pool_that_die_lose_nothing_and_do_nothing_twice(tmp_path, some, ray_address, fused):
    """Clips come together, and are tried one by one after that. One kills its worker once; the stage gives up one that
    always does, and one of which it raises: those lack its columns and nothing else.
    """
    (tmp_path / "once").mkdir()
    once, always, raises, sound = (clip.clip_id for clip in some)
    faults = {"faults": [(once, "dies once"), (always, "dies"), (raises, "raises")], "once": str(tmp_path / "once")}
    faulty = {"class": "support.pool_stages:Faulty", "settings": faults, "cpus": 0.2, "batch_clips": 4}
    log = tmp_path / "log"
    bright = {"class": "support.pool_stages:Brightness", "settings": {"log": str(log)}, "cpus": 0.2, "batch_clips": 4}
    db = new_database(tmp_path / "db", some)
    both = config({"bright": bright, "faulty": faulty}, num_actors=1, max_bug_share=1.0)
    done = run(db, both, ray_address=ray_address, quiet=True)
    assert (done.num_clips, done.num_rejects, done.exit) == (4, 0, "rejects")
    assert stage_rejects(db) == {always: "worker_died", raises: "bug"}
    assert len(list((tmp_path / "once").iterdir())) == 1
    together = [int(line) for line in log.read_text().split()]
    assert min(together) == 1 < max(together) <= 4
    rows = db.clips()
    made = dict(zip(rows.column("clip_id").to_pylist(), rows.column("faulty").to_pylist(), strict=True))
    assert {clip_id for clip_id, frames in made.items() if frames is not None} == {once, sound}
    own = ("faulty", "stage_key_faulty", "ratio", "stage_key_ratio", "stage_key_bright")  # its settings are in its key
    of_one = digests(pa.Table.from_batches(fused), own)
    assert digests(rows, own) == of_one, "the same bytes, however many come together"
