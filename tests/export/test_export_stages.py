"""Exports of a table with columns of a stage of one's own, stages' keys, and a recompute that was stopped."""

import base64
import io
import json
import tarfile
import threading

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from support.stage_keys import recompute_hands, with_keys, with_own_column
from support.window_tables import clip_row, write_clips

from handloom.api import Database
from handloom.errors import ConfigError
from handloom.pipelines.export.lerobot import lerobot
from handloom.pipelines.export.parquet import export
from handloom.pipelines.export.webdataset import webdataset
from handloom.schemas.tables.stage_columns import key_column, state_column
from handloom.store.runs.runs import start_run

NUM_FRAMES = 5
OPEN = [[0.1, 0.2, 0.3, 0.4, 0.5], None, [0.5, 0.4, 0.3, 0.2, 0.1]]
LONG = "jaw_" + "x" * 40


@pytest.fixture(scope="module")
def db(tmp_path_factory) -> Database:
    """Three clips; the second has no grip yet, and older hands."""
    rows = pa.Table.from_batches([clip_row(n, NUM_FRAMES) for n in range(3)])
    rows = with_keys(rows, {"hands_2d": ["new", "old", "new"], "grip": ["g", None, "g"]})
    at = [None if cell is None else [[x, 2 * x] for x in cell] for cell in OPEN]
    columns = {
        "jaw_open": pa.array(OPEN, pa.list_(pa.float32())),
        "jaw_at_m": pa.array(at, pa.list_(pa.list_(pa.float32(), 2))),
        "jaw_kind": pa.array(["pinch", None, "power"]),
        "embedding_grip": pa.array([[1, 0], None, [0, 1]], pa.list_(pa.float32(), 2)),
        LONG: pa.array([[1], None, [2]], pa.list_(pa.int32())),
        "jaw_mask": pa.array([b"\x00\xff", None, b""], pa.binary()),
    }
    for name, values in columns.items():
        rows = with_own_column(rows, "grip", name, values)
    rows = rows.append_column(state_column("hands_2d"), pa.array([b"private"] * 3, pa.binary()))
    db = write_clips(tmp_path_factory.mktemp("stages"), rows.to_batches())
    start_run(
        db,
        "k",
        settings={"video": {"sample_hz": 10}},
        resources={},
        versions={},
        stage_keys={"hands_2d": "new", "grip": "g"},
    )
    return db


@pytest.mark.parametrize("form", ["parquet", "arrow"])
def test_tables_hold_keys_and_own_columns_and_no_state(db, tmp_path, form):
    (shard,) = export(db, form, str(tmp_path))
    path = tmp_path / shard.path
    rows = pq.read_table(path) if form == "parquet" else pa.ipc.open_file(path).read_all()
    stored = db.clips()
    assert rows.schema.names == [name for name in stored.schema.names if name != state_column("hands_2d")]
    for name in (key_column("grip"), "jaw_open", "jaw_at_m", "jaw_kind", "embedding_grip", LONG):
        assert rows.column(name).to_pylist() == stored.column(name).to_pylist()
    card = (tmp_path / "README.md").read_text()
    assert "| grip | `g` | 2 |" in card
    assert "| grip | not computed | 1 |" in card
    assert "Rows were made by different settings or models: hands_2d, grip with several keys" in card


def test_webdataset_has_a_file_for_each_list_and_embedding(db, tmp_path):
    found = webdataset(db, str(tmp_path), stage_keys="current")
    assert found.num_samples == 2
    with tarfile.open(tmp_path / found.shards[0].path) as tar:
        files = {
            member.name.partition(".")[2]: tar.extractfile(member).read()
            for member in tar.getmembers()[: len(tar.getmembers()) // 2]
        }
    facts = json.loads(files["json"])
    assert (facts["jaw_kind"], facts[key_column("grip")], facts[LONG]) == ("pinch", "g", [1])
    assert base64.b64decode(facts["jaw_mask"]) == b"\x00\xff"
    assert state_column("hands_2d") not in facts
    assert np.load(io.BytesIO(files["jaw_open.npy"])).tolist() == np.float32(OPEN[0]).tolist()
    assert np.load(io.BytesIO(files["jaw_at_m.npy"])).shape == (NUM_FRAMES, 2)
    assert np.load(io.BytesIO(files["embedding_grip.npy"])).tolist() == [1, 0]
    assert "1 clips of other stage keys than grip g, hands_2d new were left out" in (tmp_path / "README.md").read_text()
    source = json.loads((tmp_path / "index.json").read_text())["source"]
    assert (source["stage_keys"], source["other_stage_key"]) == ({"grip": "g", "hands_2d": "new"}, 1)


def test_lerobot_lists_own_values_with_the_episodes(db, tmp_path):
    lerobot(db, str(tmp_path), hz=10.0)
    (path,) = (tmp_path / "meta" / "episodes").rglob("*.parquet")
    rows = pq.read_table(path).to_pylist()
    assert [row["jaw_kind"] for row in rows] == ["pinch", None, "power"]
    assert [row["embedding_grip"] for row in rows] == [[1, 0], None, [0, 1]]
    assert rows[2]["jaw_open"] == np.float32(OPEN[2]).tolist()
    assert rows[0]["jaw_at_m"][1] == np.float32([0.2, 0.4]).tolist()
    assert state_column("hands_2d") not in rows[0]
    (path,) = (tmp_path / "data").rglob("*.parquet")
    steps = pq.read_table(path, columns=["camera_matrix", "observation.hand_visible"]).to_pylist()
    assert np.isnan([step["camera_matrix"] for step in steps]).all()  # a stage that was not computed: unknown


def test_demands_that_no_row_meets(db, tmp_path):
    with pytest.raises(
        ConfigError, match=r"no row has the stage keys hands_2d=x\nhint: there are hands_2d: 2 of new, 1 of"
    ):
        export(db, "parquet", str(tmp_path / "a"), stage_keys={"hands_2d": "x"})
    assert not (tmp_path / "a").exists()
    with pytest.raises(ConfigError, match="no such stage; near: grip"):
        lerobot(db, str(tmp_path / "b"), stage_keys={"grips": "g"})


def test_a_recompute_beside_exports_tears_nothing(tmp_path):
    """Each export is of one version: for every clip it holds the old values and key, or the new ones."""
    rows = with_keys(pa.Table.from_batches([clip_row(n, NUM_FRAMES) for n in range(6)]), {"hands_2d": ["x"] * 6})
    db = write_clips(tmp_path, rows.to_batches())
    recompute_hands(db, 0.0, "0")
    done, found = threading.Event(), []

    def write() -> None:
        try:
            for number in range(1, 5):
                recompute_hands(db, float(number), str(number))
        finally:
            done.set()  # else the readers would go on for ever

    writer = threading.Thread(target=write)
    writer.start()
    while not done.is_set() or len(found) < 12:
        out = tmp_path / f"out{len(found)}"
        (shard,) = export(db, "parquet", str(out))
        exported = pq.read_table(out / shard.path, columns=["hand_keypoints_px", key_column("hands_2d")])
        for points, key in zip(*(column.to_pylist() for column in exported.columns), strict=True):
            found.append({value for frame in points for value in frame} == {float(key)})
    writer.join()
    assert all(found)
