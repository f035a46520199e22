"""What the commands make of databases of earlier versions: status, exports, and what a run would do with them."""

import json

import pyarrow.parquet as pq
import pytest
from support.old_tables import NUM_FRAMES, NUMBER_OF, A, B, old_table, recorded
from support.rows import digests, make_clip

from handloom.api import Database
from handloom.errors import ConfigError, HandloomError
from handloom.pipelines.export.lerobot import lerobot
from handloom.pipelines.export.parquet import export
from handloom.pipelines.export.webdataset import webdataset
from handloom.pipelines.run.run import stored_config
from handloom.pipelines.run.todo.plan import asked_of, plan_work
from handloom.pipelines.status.status import status
from handloom.schemas.tables.arrow import clips_schema
from handloom.schemas.tables.stage_columns import key_column, owner_of
from handloom.stages.keys import recorded_keys
from handloom.stages.registry import MORE, stage_graph
from handloom.store.clips.clip_list import add_clips
from handloom.store.runs.runs import list_runs, stage_seconds, start_run
from handloom.store.stages.columns import add_columns_for
from handloom.store.stages.schema_steps import to_newest

NEW = make_clip(1)
ROW = ["clip_id", "frame_s", "hand_visible", "track_points_px", "embedding_motion", "thumbnail", "run_key"]


@pytest.fixture
def old(request, tmp_path) -> Database:
    """With one clip more in the list."""
    db = old_table(request.param, tmp_path / "db")
    add_clips(db, [NEW])
    return db


all_versions = pytest.mark.parametrize("old", NUMBER_OF, indirect=True)


def asked(db, recompute=None):
    """A run with the database's settings, on a machine with the versions that made 0.4.dev2."""
    settings = stored_config(db).settings()
    newest = db.location.path.parent / "newest"
    versions = recorded(Database.open(newest) if newest.exists() else old_table("0.4.dev2", newest))[1]
    return asked_of(db, settings, versions, recompute, None), settings.run_key(versions)


def plan(db, recompute=None):
    """What that run would do."""
    return plan_work(db, *asked(db, recompute), lambda: None, retry_reasons=(), where=None, limit=None)


@all_versions
def test_status_and_exports(old, tmp_path):
    found = status(old)
    assert [found[name] for name in ("clip_list", "clips", "rejects", "pending")] == [4, 2, 1, 1]
    (shard,) = export(old, "parquet", str(tmp_path / "parquet"))
    assert pq.read_schema(tmp_path / "parquet" / shard.path).names == old.table("clips").schema.names
    assert webdataset(old, str(tmp_path / "webdataset")).num_samples == 2
    found = lerobot(old, str(tmp_path / "lerobot"))
    assert (found.num_episodes, found.num_frames, found.hz) == (2, 2 * NUM_FRAMES, 6)


@pytest.mark.parametrize("old", ["0.3.0"], indirect=True)
def test_an_upgrade_that_stopped_before_its_first_stage_leaves_a_table_that_reads(old, tmp_path):
    """The run has brought the columns of today, all null, and was killed."""
    graph = stage_graph(stored_config(old).settings())
    fields = [field for field in graph.schema() if owner_of(field) is not None]
    to_newest(old, graph.schema(), recorded_keys, replace=True)
    add_columns_for(old, fields, ours=clips_schema(1).names, replace=True)
    assert status(old)["clips"] == 2
    (shard,) = export(old, "parquet", str(tmp_path / "parquet"))
    assert shard.num_rows == 2
    assert lerobot(old, str(tmp_path / "lerobot")).num_episodes == 2
    assert [hit.clip_id for hit in old.search(text="open the drawer")] == [A]
    assert [hit.clip_id for hit in old.search(clip=A)] == [B]
    with pytest.raises(HandloomError, match="has no look embedding"):
        old.search(clip=A, by="look")


@pytest.mark.parametrize("old", ["0.4.dev2"], indirect=True)
def test_a_run_with_the_same_versions_goes_on_with_new_clips_and_stages_alone(old):
    todo = plan(old)
    assert [clip.clip_id for clip in todo.clips if clip.clip_id not in todo.targets] == [NEW.clip_id]
    assert {stage for stages in todo.targets.values() for stage in stages} == todo.rows.keys() == MORE.keys()
    assert old.count("clips", "stage_key('lift') IS NULL") == 0


@pytest.mark.parametrize("old", [version for version in NUMBER_OF if version != "0.4.dev2"], indirect=True)
def test_a_run_asks_before_it_computes_rows_of_other_versions_again(old):
    with pytest.raises(ConfigError, match="would be computed again"):
        plan(old)
    rates = stage_seconds(list_runs(old), {})
    num = json.loads(old.runs().column("stage_s")[0].as_py())
    del num["decode_wait"]
    assert sum(rates.values()) == pytest.approx(rates["decode_wait"] + sum(num.values()) / 2)
    assert rates.keys() >= {"probe", "frames", "images", "hands_2d", "tracks", "motion", "appearance"}
    todo = plan(old, ["all"])
    assert sorted(clip.clip_id for clip in todo.clips) == sorted([A, B, NEW.clip_id])
    assert todo.targets.keys() == {A, B}
    assert {"probe", "hands_2d", "quality", "appearance"} <= set(todo.targets[A])
    keys = old.clips([key_column(stage) for stage in ("probe", "quality")])
    assert keys.column(0).null_count == keys.column(1).null_count == 0  # from what its run recorded


@pytest.mark.parametrize("old", ["0.3.0", "0.4.dev1"], indirect=True)
def test_a_run_may_leave_older_rows_as_they_are(old, caplog):
    before = digests(old.clips(ROW))
    todo = plan(old, ["none"])
    assert sorted(clip.clip_id for clip in todo.clips) == sorted([A, B, NEW.clip_id])
    assert todo.targets == dict.fromkeys([A, B], ("text",))  # it reads no stage
    assert "2 rows of older stage keys stay as they are" in caplog.text
    assert digests(old.clips(ROW)) == before
    assert recorded_keys(*recorded(old))["hands_2d"] == old.clips([key_column("hands_2d")]).column(0)[0].as_py()
    (run, run_key), (settings, versions) = asked(old, ["none"]), recorded(old)
    facts = {"settings": settings, "versions": versions, "resources": {"recompute": ["none"]}}
    start_run(old, run_key, **facts, stage_keys=run.keys)
    assert plan(old).targets == todo.targets  # the next run does the same
    assert plan(old, ["all"]).targets.keys() == {A, B}
    with pytest.raises(ConfigError, match="none stands alone"):
        plan(old, ["none", "lift"])
