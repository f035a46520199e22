"""Search by embeddings of stages of one's own, of rows with several keys, with and without an index."""

import json
import logging

import lance
import numpy as np
import pyarrow as pa
import pytest
from support.rows import make_clip, make_row, random_unit
from support.stage_keys import with_keys, with_own_column

from handloom.api import Database
from handloom.errors import ConfigError, StoreError
from handloom.pipelines.search import search_clips
from handloom.store.clips.clip_list import add_clips
from handloom.store.runs.runs import start_run
from handloom.store.search.index import build_indexes

NUM_CLIPS, DIM = 12, 4
KEYS = ["new"] * 6 + ["old"] * 3 + [None] * 3


@pytest.fixture(scope="module", params=["scan", "index"])
def db(request, tmp_path_factory) -> Database:
    """Twelve clips; nine have the embedding `gripper`, six of them of the last run's key."""
    db = Database.open(tmp_path_factory.mktemp("own"), create=True)
    add_clips(db, [make_clip(n) for n in range(NUM_CLIPS)])
    rng = np.random.default_rng(0)
    vectors = [random_unit(rng, DIM).tolist() if key else None for key in KEYS]
    rows = with_keys(pa.Table.from_batches([make_row(n) for n in range(NUM_CLIPS)]), {"gripper": KEYS})
    rows = with_own_column(rows, "gripper", "embedding_gripper", pa.array(vectors, pa.list_(pa.float32(), DIM)))
    rows = with_own_column(rows, "empty", "embedding_empty", pa.nulls(NUM_CLIPS, pa.list_(pa.float32(), DIM)))
    rows = rows.append_column("embedding_text", pa.array(["a model's name"] * NUM_CLIPS))  # a user's, no embedding
    lance.write_dataset(rows, db.location.table_uri("clips"))
    start_run(db, "k", settings={}, resources={}, versions={}, stage_keys={"gripper": "new"})
    if request.param == "index":
        report = build_indexes(db, ann_threshold_rows=1)
        assert "embedding_gripper_cosine" in report.created
        assert report.exact == ("embedding_empty",)  # no row to index
    return db


def ids(*numbers):
    return [make_clip(n).clip_id for n in numbers]


def nearest(db, query, allowed):
    rows = db.clips(["clip_id", "embedding_gripper"]).to_pylist()
    vectors = {row["clip_id"]: np.array(row["embedding_gripper"]) for row in rows if row["embedding_gripper"]}
    scores = {name: float(vectors[name] @ vectors[query]) for name in allowed if name != query}
    return sorted(scores, key=lambda name: (-round(scores[name], 6), name))


def test_search_by_an_own_embedding_leaves_out_and_counts_rows_without(db, caplog):
    with caplog.at_level(logging.WARNING):
        hits = db.search(clip=ids(2)[0], by="gripper", k=20)
    assert [hit.clip_id for hit in hits] == nearest(db, ids(2)[0], ids(*range(9)))
    assert (hits.num_with, hits.num_without) == ((9, 3) if hits.exact else (None, None))
    (warning,) = caplog.records
    assert "(gripper: 6 of new, 3 of old, 3 not computed)" in warning.getMessage()


def test_demanded_keys(db, caplog):
    with caplog.at_level(logging.WARNING):
        hits = db.search(clip=ids(7)[0], by="gripper", k=20, stage_keys="current")
        again = db.search(clip=ids(7)[0], by="gripper", k=20, where="stage_key('gripper') = 'new'")
    assert not caplog.records
    assert [hit.clip_id for hit in hits] == [hit.clip_id for hit in again] == nearest(db, ids(7)[0], ids(*range(6)))
    with pytest.raises(
        ConfigError, match=r"no row has the stage keys gripper=x\nhint: there are gripper: 6 of new, 3 of"
    ):
        db.search(clip=ids(7)[0], by="gripper", stage_keys={"gripper": "x"})


def test_an_embedding_of_words_that_have_changed_since_is_refused_and_not_compared(tmp_path):
    """An ingest has removed the key of row 3."""
    db = Database.open(tmp_path, create=True)
    rows = with_keys(pa.Table.from_batches([make_row(n) for n in range(4)]), {"said": ["k"] * 3 + [None]})
    vectors = pa.array([[1.0, 0], [0.8, 0.6], [0.6, 0.8], [1.0, 0]], pa.list_(pa.float32(), 2))
    rows = with_own_column(rows, "said", "embedding_said", vectors, handloom_reads="narration")
    lance.write_dataset(rows, db.location.table_uri("clips"))
    assert [hit.clip_id for hit in db.search(clip=ids(0)[0], by="said")] == ids(1, 2)
    with pytest.raises(StoreError, match="has other words now than those of its said embedding\nhint: `handloom run"):
        db.search(clip=ids(3)[0], by="said")


def test_what_cannot_be_searched(db):
    with pytest.raises(
        ConfigError, match="no embedding 'griper'; near: gripper; expected one of: motion, appearance, gri"
    ):
        db.search(clip=ids(0)[0], by="griper")
    with pytest.raises(ConfigError, match="no embedding 'text'"):
        db.search(clip=ids(0)[0], by="text")
    with pytest.raises(StoreError, match="has no gripper embedding"):
        db.search(clip=ids(11)[0], by="gripper")
    with pytest.raises(
        ConfigError,
        match=r"a video cannot be compared by gripper: no stage of the database.s settings writes embedding_gripper",
    ):
        search_clips(db, video="/nowhere.mp4", by="gripper")
    with pytest.raises(ConfigError, match="no embedding 'griper'"):
        search_clips(db, video="/nowhere.mp4", by="griper")


def test_on_the_command_line(db, cli):
    call = ("search", "--db", db.uri, "--by", "gripper", "--clip", ids(2)[0])
    code, out, _ = cli(*call, "--stage-key", "gripper=current", "--json", "-k", 20)
    found = json.loads(out)
    assert (code, len(found["hits"])) == (0, 5)
    if found["exact"]:
        assert (found["num_with"], found["num_without"]) == (6, 0)
        _, _, err = cli(*call)
        assert "3 of 12 clips have no gripper embedding" in err
    code, _, err = cli(*call, "--stage-key", "gripper")
    assert code == 2
    assert "--stage-key 'gripper'" in err
