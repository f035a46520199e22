"""`handloom stages`: rows of every state are counted once, whatever version made the table."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import pyarrow as pa
import pytest
from support import column_tables
from support.rows import RUN_KEY, make_clip, make_row
from support.stage_keys import with_keys, with_own_column

from handloom.api import Database
from handloom.errors import ConfigError
from handloom.pipelines.stages import stage_states, stage_states_text
from handloom.pipelines.status.status import status, status_text
from handloom.schemas.settings import RunConfig
from handloom.schemas.tables.arrow import clips_schema
from handloom.schemas.tables.stage_columns import COLUMNS_OF
from handloom.stages.keys import recorded_keys
from handloom.stages.registry import stage_graph
from handloom.stages.versions import model_versions
from handloom.store.clips.clip_list import add_clips
from handloom.store.clips.commit import Committer
from handloom.store.fragments import write_fragment
from handloom.store.runs.runs import end_run, start_run
from handloom.store.stages.counts import RowCounts, count_rows, stage_sizes
from handloom.store.stages.rejects import StageReject, StageRejects
from handloom.store.stages.staged import write_update
from handloom.store.stages.update import ColumnCommitter

OLD_TABLES = Path(__file__).parents[1] / "data" / "tables"
SETTINGS = RunConfig().settings()


@pytest.fixture(scope="module")
def keys() -> dict[str, str]:
    return stage_graph(SETTINGS).keys(model_versions(SETTINGS))


def record(db: Database, keys: dict[str, str] | None, **end) -> None:
    settings, versions = SETTINGS.model_dump(mode="json"), model_versions(SETTINGS)
    run = start_run(db, RUN_KEY, settings=settings, resources={}, versions=versions, stage_keys=keys)
    if end:
        end_run(db, run, "done", **{"num_rejects": 0, "num_frames": 1, **end})


@pytest.fixture
def db(tmp_path, keys) -> Database:
    """Six rows: of `motion` two are current, two outdated, two missing; on one each of the last `motion` has failed."""
    db = Database.open(tmp_path / "db", create=True)
    add_clips(db, [make_clip(number) for number in range(7)])
    rows = pa.Table.from_batches([make_row(number) for number in range(6)])
    old, now = "0" * 16, keys["motion"]
    of_rows = {stage: [key] * 6 for stage, key in keys.items()} | {"motion": [now, now, old, old, None, None]}
    rows = with_keys(rows, of_rows | {"gone": [old] * 5 + [None]})
    rows = with_own_column(rows, "gone", "gone_number", pa.array([1.0] * 5 + [None]))
    schema = rows.schema.with_metadata(clips_schema(4).metadata)
    Committer(db, RUN_KEY, schema).commit([write_fragment(db.uri, rows.to_batches(), schema)])
    lost = [StageReject(make_clip(number).clip_id, "motion", now, "bug", "trace") for number in (3, 5)]
    other = StageReject(make_clip(2).clip_id, "motion", old[::-1] + "1", "bug", "of another key")
    StageRejects(db, RUN_KEY).write([*lost, other])
    record(db, {**keys, "motion": old}, num_clips=10, stage_s={"motion": 100.0, "tracks": 10.0})
    record(db, keys, num_clips=4, stage_s={"motion": 2.0, "tracks": 2.0})
    return db


def test_each_row_is_counted_once(db, keys):
    states = stage_states(db)
    assert [one.name for one in states.stages] == [*stage_graph(SETTINGS).names, "gone"]
    found = {one.name: one for one in states.stages}
    assert found["motion"].rows == RowCounts(current=2, outdated=1, missing=1, rejected=2)
    assert found["tracks"].rows == RowCounts(6, 0, 0, 0)
    assert found["gone"].rows == RowCounts(None, None, 1, 0), "there is nothing that its rows should be"
    assert {one.name: one.key for one in states.stages} == {**keys, "gone": None}
    assert not found["gone"].in_settings
    assert found["gone"].writes == ("gone_number",)
    assert found["tracks"].writes == COLUMNS_OF["tracks"]
    assert found["hands_2d"].clip_fields == ("view",)
    assert found["motion"].clip_s == 0.5, "of the run with this key"
    assert found["tracks"].clip_s == 12 / 14
    assert found["hands_3d"].clip_bytes > 100
    assert (states.num_rows, states.num_listed, states.keys_of) == (6, 7, "settings")


def test_other_settings_have_other_keys(db):
    config = RunConfig(**{"hands": {"min_detection_confidence": 0.9}})
    found = {one.name: one.rows for one in stage_states(db, config).stages}
    assert found["hands_2d"] == RowCounts(0, 6, 0, 0)
    assert found["frames"] == RowCounts(6, 0, 0, 0)
    assert found["motion"] == RowCounts(0, 4, 2, 0), "rejects of another key are none of these"


def test_the_command(db, cli):
    code, out, _ = cli("stages", "--db", db.uri, "--json")
    values = json.loads(out)
    assert code == 0
    assert [one["name"] for one in values["stages"]][-1] == "gone"
    assert values["stages"][0]["class"] is None
    code, out, _ = cli("stages", "--db", db.uri, "--set", "tracks.extra=0")
    assert code == 0
    assert out.count("columns are computed by:") == 1
    assert f"missing and outdated columns are computed by: handloom run --db {db.uri} --recompute" in out
    assert "(outdated: tracks, world, lift, quality, motion, " in out
    assert "(not in the settings any more)" in out
    code, _, err = cli("stages", "--db", db.uri, "--set", "stages.mine.class=nowhere:Mine")
    assert code == 2
    assert "nowhere cannot be imported" in err


def test_status_counts_stages(db):
    values = status(db)
    assert values["rows_without_stage"] == {"motion": 2, "gone": 1}
    assert set(values["stages_of_several_keys"]) == {"motion", "gone"}
    assert [(one["stage"], one["count"]) for one in values["stage_rejects_by_reason"]] == [("motion", 2)]
    text = status_text(values)
    assert "      2  motion/bug: " in text
    assert "of another key" not in text, "a run with --retry-rejects would not try it"
    assert "rows differ in the keys of motion, gone" in text


def test_an_empty_database(tmp_path, cli):
    db = Database.open(tmp_path, create=True)
    states = stage_states(db)
    assert {one.rows for one in states.stages} == {RowCounts(0, 0, 0, 0)}
    assert "0 rows of 0 clips" in stage_states_text(states)
    assert cli("stages", "--db", db.uri)[0] == 0


@pytest.mark.parametrize("version", ["0.1.0", "0.4.dev2"])
def test_a_table_without_keys_has_those_of_its_record(version, tmp_path):
    with zipfile.ZipFile(OLD_TABLES / f"{version}.zip") as archive:
        archive.extractall(tmp_path)
    db = Database.open(tmp_path)
    before = db.version
    rows = {one.name: one.rows for one in stage_states(db).stages}
    assert {counts.missing for counts in rows.values()} == {0}
    if version == "0.1.0":  # its rows have no flags, and its hands other versions
        assert rows["hands_2d"] == RowCounts(0, 2, 0, 0)
    assert db.version == before


def test_settings_that_cannot_be_used_here(tmp_path, cli):
    """The package of a stage is not installed where somebody looks at the table: the last run's keys are shown."""
    db = Database.open(tmp_path, create=True)
    rows = with_keys(pa.Table.from_batches([make_row(0)]), {"tracks": ["0" * 16], "mine": ["e" * 16]})
    schema = rows.schema.with_metadata(clips_schema(4).metadata)
    Committer(db, RUN_KEY, schema).commit([write_fragment(db.uri, rows.to_batches(), schema)])
    settings = SETTINGS.model_dump(mode="json") | {"stages": {"mine": {"class": "nowhere.stages:Mine"}}}
    of_last = {"tracks": "f" * 16, "mine": "e" * 16}
    start_run(db, RUN_KEY, settings=settings, resources={}, versions={}, stage_keys=of_last)
    states = stage_states(db)
    found = {one.name: one for one in states.stages}
    assert states.keys_of == "last run"
    assert "nowhere.stages cannot be imported" in stage_states_text(states)
    assert found["mine"].rows == RowCounts(1, 0, 0, 0)
    assert found["tracks"].rows == RowCounts(0, 1, 0, 0)
    assert found["probe"].key is None
    with pytest.raises(ConfigError, match="nowhere"):
        stage_states(db, RunConfig(**settings))
    code, _, err = cli("stages", "--db", db.uri, "--set", "tracks.extra=0")
    assert (code, "nowhere.stages cannot be imported" in err) == (2, True), "the database's own settings lie below"


def test_a_stage_that_no_row_has(db):
    assert count_rows(db, {"mine": "a" * 16}, recorded_keys) == {"mine": RowCounts(0, 0, 6, 0)}


def test_sizes_after_columns_were_replaced(tmp_path):
    """Lance counts replaced columns as other ones; their bytes must not appear in stages that were not touched."""
    db = column_tables.database(tmp_path / "db", [range(40), range(40, 60)])
    before = stage_sizes(db)
    news = [column_tables.new_columns(range(60), [stage], seed=1) for stage in ("hands_2d", "motion")]
    ColumnCommitter(db, RUN_KEY, column_tables.FIELDS).commit([write_update(db.uri, rows, "run") for rows in news])
    after = stage_sizes(db)
    untouched = ("probe", "frames", "tracks", "camera", "quality", "appearance")
    assert {stage: after[stage] for stage in untouched} == {stage: before[stage] for stage in untouched}
    assert 60 * 608 * 4 <= after["motion"] < 1.2 * 60 * 608 * 4
    assert stage_sizes(Database.open(tmp_path / "empty", create=True)) == {}


def test_a_run_that_only_updated_rows_is_the_last_one(db, keys):
    only = {"num_clips": 0, "num_frames": 0, "stage_s": {"motion": 3.0}, "stage_clips": {"motion": 3}}
    record(db, keys, **only)
    db.table("runs").update({"wall_s": "6.0"}, "num_clips = 0")
    run = status(db)["last_run"]
    assert (run["clips"], run["stage_clips"], run["frames_per_s"]) == (0, {"motion": 3}, None)
    text = status_text(status(db))
    assert "  0 clips, 0 rejects in 6.0 s\n" in text
    assert "  new columns of rows that existed before: motion 3 (0.5 rows/s)\n" in text
    assert "frames/s" not in text
