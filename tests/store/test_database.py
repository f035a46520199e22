"""Folders and URIs that can be opened as a database, and the errors for others."""

import subprocess
import sys
import threading

import lance
import pyarrow as pa
import pytest
from support.rows import RUN_KEY, make_clip

import handloom
from handloom.api import Database
from handloom.errors import ConfigError, StoreError
from handloom.schemas.tables.arrow import CLIP_LIST, clips_schema
from handloom.store.clips.clip_list import add_clips
from handloom.store.clips.commit import Committer
from handloom.store.location import Location, storage_options_from


def test_create_then_open(tmp_path):
    db = Database.open(tmp_path / "a" / "db", create=True)
    assert handloom.open(str(tmp_path / "a" / "db")) == db
    assert db.version is None
    assert db.count("clips") == 0
    assert db.clips(["clip_id"]).num_rows == db.rejects().num_rows == db.runs().num_rows == 0


def test_it_is_a_lancedb_database(tmp_path):
    import lancedb  # two seconds, which every process of a test run would spend if it stood above

    db = Database.open(tmp_path, create=True)
    add_clips(db, [make_clip(0)])
    other = lancedb.connect(tmp_path)
    assert other.list_tables().tables == ["clip_list"]
    assert other.open_table("clip_list").count_rows() == 1


@pytest.mark.parametrize("create", [False, True])
def test_a_foreign_folder_is_refused_and_left_alone(tmp_path, create):
    (tmp_path / "thesis.tex").write_text("x")
    with pytest.raises(StoreError, match=r"not a handloom database: it holds thesis\.tex"):
        Database.open(tmp_path, create=create)
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.tex"]


def test_a_file_is_refused(tmp_path):
    (tmp_path / "db").write_text("x")
    with pytest.raises(StoreError, match="is a file"):
        Database.open(tmp_path / "db", create=True)


def test_the_error_for_a_missing_database_names_ingest(tmp_path):
    for path in (tmp_path / "none", tmp_path):
        with pytest.raises(StoreError, match="handloom ingest"):
            Database.open(path)


def test_an_unwritable_folder_is_refused(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(StoreError, match="cannot use"):  # a parent that can hold nothing, for root too
        Database.open(tmp_path / "file" / "db", create=True)


def test_another_tables_schema_is_refused(tmp_path):
    lance.write_dataset(pa.table({"a": [1]}), tmp_path / "clip_list.lance")
    with pytest.raises(StoreError, match="not a clip list of handloom"):
        Database.open(tmp_path)


def test_a_table_cut_short_at_its_creation_is_made_again(tmp_path):
    (tmp_path / "clip_list.lance" / "data").mkdir(parents=True)
    assert Database.open(tmp_path, create=True).table("clip_list").schema.names == CLIP_LIST.names


def test_other_columns_are_named(tmp_path):
    db = Database.open(tmp_path, create=True)
    Committer(db, RUN_KEY, clips_schema(4))
    with pytest.raises(StoreError, match="track_points_px, track_depth_m"):
        Committer(db, RUN_KEY, clips_schema(9))


def test_unknown_version_and_bad_filter(tmp_path):
    db = Database.open(tmp_path, create=True)
    with pytest.raises(StoreError, match="no version 99"):
        db.read("clip_list", version=99)
    for version in (-1, 1 << 64):
        with pytest.raises(StoreError, match=f"no version {version}"):
            db.read("clip_list", version=version)
    with pytest.raises(ConfigError, match="no column 'speed'"):
        db.read("clip_list", where="speed > 1")


@pytest.mark.parametrize("uri", ["", "gs://bucket/db", "https://example.org/db"])
def test_other_places_are_refused(uri):
    with pytest.raises(StoreError, match=r"database"):
        Location.parse(uri)


def test_storage_options_come_from_the_aws_variables():
    env = {
        "AWS_ACCESS_KEY_ID": "a",
        "AWS_SECRET_ACCESS_KEY": "b",
        "AWS_ENDPOINT_URL": "http://localhost:9000",
        "AWS_DEFAULT_REGION": "eu-west-1",
        "HOME": "/root",
    }
    assert storage_options_from(env) == {
        "aws_access_key_id": "a",
        "aws_secret_access_key": "b",
        "aws_endpoint": "http://localhost:9000",
        "aws_region": "eu-west-1",
        "allow_http": "true",
    }
    assert storage_options_from({}) == {}


def test_keys_are_not_printed(tmp_path):
    assert "secret" not in repr(Database.open(tmp_path, {"aws_secret_access_key": "secret"}, create=True))


def test_importing_handloom_is_light_and_opening_needs_no_batch_side(tmp_path):
    Database.open(tmp_path, create=True)
    code = (
        "import sys, handloom; assert 'lance' not in sys.modules; handloom.open(sys.argv[1]); "
        "assert not {'ray', 'mediapipe', 'torch', 'decord', 'cv2'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True)


def test_a_table_that_several_create_at_once_is_created_once(tmp_path):
    """Lance's own create tries again and overwrites what the faster one has made, with the rows that it has by then."""
    for number in range(15):
        db = Database.open(tmp_path / str(number), create=True)
        together = threading.Barrier(4)

        def create(db=db, together=together):
            together.wait()
            db.ensure_table("clips", clips_schema(4))

        threads = [threading.Thread(target=create) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert db.version == 1
