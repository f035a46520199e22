"""A row comes back from a real Lance file as it was written, whatever its shape."""

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.rows import RUN_KEY, digests, make_clip, make_row

from handloom.api import Database
from handloom.errors import StoreError
from handloom.schemas.tables.arrow import clips_schema
from handloom.schemas.tables.embeddings import EMBEDDINGS
from handloom.schemas.tables.row import FRAME_SHAPES, row_arrays
from handloom.store.clips.commit import Committer
from handloom.store.fragments import write_fragment


@settings(max_examples=12, deadline=None)
@given(
    num_frames=st.integers(0, 7),
    grid=st.integers(1, 4),
    seed=st.integers(0, 2**31),
    hands_seen=st.tuples(st.booleans(), st.booleans()),
    text=st.one_of(st.none(), st.text(max_size=20)),
    with_jpeg=st.booleans(),
    with_motion=st.booleans(),
)
def test_round_trip(tmp_path_factory, num_frames, grid, seed, hands_seen, text, with_jpeg, with_motion):
    db = Database.open(tmp_path_factory.mktemp("db"), create=True)
    clip = make_clip(0, narration=text, end_s=None if seed % 2 else 1.0)
    row = make_row(
        clip,
        num_frames=num_frames,
        grid=grid,
        seed=seed,
        hands_seen=hands_seen,
        embeddings={} if with_motion else {"motion": None},
        frame_jpeg=[b"\xff\xd8%d" % i for i in range(num_frames)] if with_jpeg else None,
    )
    schema = clips_schema(grid**2)
    Committer(db, RUN_KEY, schema).commit([write_fragment(db.uri, [row], schema)])
    stored = db.row(clip.clip_id)
    assert stored.schema.equals(schema, check_metadata=True)
    expected, got = row_arrays(row), row_arrays(stored)
    assert expected.keys() == got.keys()
    for name, value in expected.items():
        if isinstance(value, np.ndarray):
            assert value.dtype == got[name].dtype
            np.testing.assert_array_equal(got[name], value, err_msg=name)
        else:
            assert got[name] == value, name
    assert got["hand_keypoints_px"].shape == (num_frames, *FRAME_SHAPES["hand_keypoints_px"])


def test_a_clip_longer_than_a_page_comes_back(tmp_path):
    db = Database.open(tmp_path, create=True)
    schema = clips_schema(16)
    row = make_row(0, num_frames=5000, grid=4)
    Committer(db, RUN_KEY, schema).commit([write_fragment(db.uri, [row], schema)])
    assert digests(db.row(make_clip(0).clip_id)) == digests(row)


def test_lance_sees_nothing_before_the_commit(tmp_path):
    db = Database.open(tmp_path, create=True)
    schema = clips_schema(4)
    Committer(db, RUN_KEY, schema)
    record = write_fragment(db.uri, [make_row(0), make_row(1)], schema)
    assert record.clip_ids == (make_clip(0).clip_id, make_clip(1).clip_id)
    assert db.count("clips") == 0


def test_embedding_columns_name_their_encoder(tmp_path):
    db = Database.open(tmp_path, create=True)
    Committer(db, RUN_KEY, clips_schema(4))
    schema = db.table("clips").schema
    for spec in EMBEDDINGS.values():
        assert schema.field(spec.column).metadata[b"model"].decode() == spec.model


def test_shards_are_written_without_opening_the_table_again(tmp_path):
    """Opening reads the manifest, with an entry for every fragment: at 100,000 half a second for each shard."""
    db = Database.open(tmp_path, create=True)
    schema = clips_schema(4)
    committer = Committer(db, RUN_KEY, schema)
    records = [write_fragment(db.uri, [make_row(0)], schema)]
    manifests = tmp_path / "clips.lance" / "_versions"
    manifests.rename(hidden := tmp_path / "hidden")
    manifests.mkdir()
    records.append(write_fragment(db.uri, [make_row(1)], schema))
    assert not list(manifests.iterdir())
    manifests.rmdir()
    hidden.rename(manifests)
    committer.commit(records)
    assert digests(db.clips()) == digests(make_row(0)) | digests(make_row(1))


def test_empty_fragment_is_refused(tmp_path):
    with pytest.raises(StoreError, match="without rows"):
        write_fragment(str(tmp_path), [], pa.schema([]))
