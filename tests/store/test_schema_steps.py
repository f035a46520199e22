"""Tables that earlier versions made (tests/data/tables): each is read, brought to today's columns, and goes on."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import lance
import pyarrow as pa
import pytest
from support.old_tables import NUM_TRACKS, NUMBER_OF, A, B, old_table
from support.rows import digests, make_clip, make_row

from handloom.api import Database
from handloom.errors import StoreError
from handloom.schemas.tables.arrow import TABLE_SCHEMA, clips_schema
from handloom.schemas.tables.row import row_arrays
from handloom.schemas.tables.stage_columns import COLUMNS_OF, key_column, stage_fields
from handloom.store.clips.commit import Committer
from handloom.store.columns import schema_number
from handloom.store.fragments import write_fragment
from handloom.store.stages.schema_steps import STEPS, to_newest

SCHEMA = clips_schema(NUM_TRACKS)
KEYS = {stage: f"key of {stage}" for stage in COLUMNS_OF if stage != "images"}


def recorded_keys(settings, versions):
    """As `handloom.stages.keys.recorded_keys`; here one stage is unknown."""
    assert settings["tracks"]["grid"] == 4
    assert versions["mediapipe"] == "0.10.21"
    return KEYS


@pytest.fixture
def old(request, tmp_path) -> Database:
    return old_table(request.param, tmp_path / "db")


all_versions = pytest.mark.parametrize("old", NUMBER_OF, indirect=True)


@all_versions
def test_a_table_of_an_earlier_version_is_read(old, request):
    assert schema_number(old.table("clips")) == NUMBER_OF[request.node.callspec.params["old"]]
    row = row_arrays(old.row(A))
    assert row["hand_visible"].shape == (6, 2)
    assert row["track_points_px"].shape == (6, NUM_TRACKS, 2)
    assert [hit.clip_id for hit in old.search(clip=A, by="appearance")] == [B]
    (reject,) = old.rejects().to_pylist()
    assert reject["reason"] == "video_unreadable"
    windows = old.windows(past=2, future=2, fields=["hand_keypoints_px", "track_points_px", "embedding_appearance"])
    assert sorted(windows.clip_ids) == [A, B]
    assert windows[0]["track_points_px"].shape == (4, NUM_TRACKS, 2)


@all_versions
def test_it_is_brought_to_todays_columns_without_a_change_of_its_rows(old, request):
    number = NUMBER_OF[request.node.callspec.params["old"]]
    before, version = old.clips(), old.version
    data = {path.name: path.stat().st_size for path in Path(old.uri, "clips.lance", "data").iterdir()}
    assert to_newest(old, SCHEMA, recorded_keys) == list(range(number + 1, TABLE_SCHEMA + 1))
    assert to_newest(old, SCHEMA, recorded_keys) == []
    after = old.clips()
    assert after.schema.metadata[b"handloom_schema"] == b"4"
    quality = [
        {name: value for name, value in cell.items() if name in before.schema.field("quality").type.names}
        for cell in after.column("quality").to_pylist()
    ]
    assert quality == before.column("quality").to_pylist()
    others = [name for name in before.schema.names if name != "quality"]
    assert digests(after.select(others)) == digests(before.select(others))
    assert set(SCHEMA.names) | set(pa.schema(stage_fields(COLUMNS_OF)).names) >= set(after.schema.names)
    for stage in COLUMNS_OF:
        assert after.column(key_column(stage)).to_pylist() == [KEYS.get(stage)] * 2
    written = {path.name: path.stat().st_size for path in Path(old.uri, "clips.lance", "data").iterdir()}
    assert written.items() > data.items()
    assert sum(written.values()) - sum(data.values()) < 12_000  # of 100 kB
    assert digests(old.clips(version=version)) == digests(before)


@all_versions
def test_new_clips_follow_the_old_ones(old):
    run_key = old.clips(["run_key"]).column(0)[0].as_py()
    to_newest(old, SCHEMA, recorded_keys)
    row = make_row(make_clip(1), grid=4, run_key=run_key)
    committer = Committer(old, run_key, SCHEMA)
    assert committer.done == {A, B}
    committer.commit([write_fragment(old.uri, [row], SCHEMA)])
    found = old.clips()
    assert found.column("clip_id").to_pylist()[2:] == [make_clip(1).clip_id]
    assert digests(found.select(SCHEMA.names).slice(2).cast(SCHEMA)) == digests(row)
    assert [row_arrays(found, i)["track_points_px"].shape for i in range(3)] == [(6, 16, 2), (6, 16, 2), (3, 16, 2)]
    fields = ["track_points_px", "track_kind", "hands"]
    assert old.windows(past=2, fields=fields, where="quality.hand_coverage >= 0").counts["clips"] == 3


@pytest.mark.parametrize("old", ["0.1.0", "0.4.dev1"], indirect=True)
def test_steps_that_were_stopped_are_finished(old):
    """Each step again on a table that already has its columns, and its number not yet written."""
    first = schema_number(old.table("clips"))
    for step in range(first + 1, TABLE_SCHEMA + 1):
        STEPS[step](old, SCHEMA, recorded_keys)
        before = old.table("clips").schema
        STEPS[step](old, SCHEMA, recorded_keys)
        assert old.table("clips").schema.equals(before)
    assert schema_number(old.table("clips")) == first
    to_newest(old, SCHEMA, recorded_keys)
    assert old.clips([key_column("lift")]).column(0).to_pylist() == [KEYS["lift"]] * 2


@pytest.mark.parametrize("old", ["0.3.0"], indirect=True)
def test_what_cannot_be_brought_to_todays_columns(old):
    before = old.version
    with pytest.raises(StoreError, match="other columns than this run writes: track_query_frame"):
        to_newest(old, clips_schema(25), recorded_keys)
    schema = pa.schema([*SCHEMA, *stage_fields(COLUMNS_OF)], SCHEMA.metadata)
    with pytest.raises(StoreError, match=r"is of schema 2, this version .* writes schema 4"):
        Committer(old, "k", schema)  # would add the keys as null
    assert old.version == before
    old.table("clips").update_schema_metadata({"handloom_schema": "5"})
    for write in (lambda: to_newest(old, SCHEMA, recorded_keys), lambda: Committer(old, "k", schema)):
        with pytest.raises(StoreError, match="is of schema 5"):
            write()


@pytest.mark.parametrize("old", ["0.4.dev2"], indirect=True)
def test_rows_of_runs_without_a_record_have_no_keys(old):
    lance.dataset(old.location.table_uri("runs")).delete("true")
    to_newest(old, SCHEMA, recorded_keys)
    assert old.count("clips", "stage_key('lift') IS NULL") == 2


@pytest.mark.parametrize("old", ["0.1.0"], indirect=True)
def test_two_drivers_may_take_the_steps_at_once(old):
    with ThreadPoolExecutor(3) as pool:
        list(pool.map(lambda _: to_newest(old, SCHEMA, recorded_keys), range(3)))
    assert schema_number(old.table("clips")) == TABLE_SCHEMA
    assert old.clips([key_column("lift")]).column(0).to_pylist() == [KEYS["lift"]] * 2
