"""Keys of stages: which rows have which, demands for one, and the warning for several."""

import logging

import lance
import pyarrow as pa
import pytest
from support.rows import RUN_KEY, make_clip, make_row
from support.stage_keys import with_keys, with_own_column

from handloom.api import Database
from handloom.errors import ConfigError
from handloom.store.clips.clip_list import add_clips
from handloom.store.runs.runs import start_run
from handloom.store.stages.row_keys import demanded, key_spread, mixed, note_mixed, stages_behind, with_demand

KEYS = {
    "hands_2d": ["old", "old", "new", None, "new", "new"],
    "tracks": ["t"] * 6,
    "gripper": [None, None, "g", "g", "g", None],
}


@pytest.fixture(scope="module")
def db(tmp_path_factory) -> Database:
    """Six clips in two fragments; hands in recompute, and a stage of the user's."""
    db = Database.open(tmp_path_factory.mktemp("keys"), create=True)
    add_clips(db, [make_clip(i) for i in range(6)])
    rows = with_keys(pa.Table.from_batches([make_row(i) for i in range(6)]), KEYS)
    rows = with_own_column(rows, "gripper", "jaw_open", pa.array([None, None, 0.1, 0.2, 0.3, None], pa.float32()))
    lance.write_dataset(rows, db.location.table_uri("clips"), max_rows_per_file=4)
    return db


@pytest.fixture
def table(db) -> lance.LanceDataset:
    return db.existing_table("clips")


def test_which_stages_write_the_columns_that_are_read(table):
    columns = ["clip_id", "narration", "jaw_open", "hand_visible", "hand_keypoints_cam_m", "nothing"]
    assert stages_behind(table.schema, columns) == ["hands_2d", "gripper"]  # the table has no key of hands_3d


def test_spread_is_that_of_the_rows_used(table):
    assert key_spread(table, ["hands_2d"])["hands_2d"] == {"new": 3, "old": 2, None: 1}
    assert key_spread(table, ["hands_2d", "gripper"], "stage_key('hands_2d') = 'new'") == {
        "hands_2d": {"new": 3},
        "gripper": {"g": 2, None: 1},
    }


def test_several_keys_are_said_once(table, caplog):
    spread = key_spread(table, KEYS)
    assert mixed(spread) == "hands_2d: 3 of new, 2 of old, 1 not computed; gripper: 3 of g, 3 not computed"
    with caplog.at_level(logging.WARNING):
        note_mixed(spread, "windows of this test")
        note_mixed(spread, "windows of this test")
        note_mixed(key_spread(table, ["tracks"]), "windows of this test")
    assert [record.getMessage().split(":")[0] for record in caplog.records] == ["windows of this test"]


def test_demands(db, table):
    columns = ["hand_visible", "jaw_open"]
    assert demanded(db, table.schema, None, columns) == {}
    assert demanded(db, table.schema, {"tracks": "t"}, columns) == {"tracks": "t"}
    with pytest.raises(ConfigError, match="the last run recorded no key of stage hands_2d, gripper"):
        demanded(db, table.schema, "current", columns)
    start_run(db, RUN_KEY, settings={}, resources={}, versions={}, stage_keys={"hands_2d": "new", "gripper": "g"})
    found = demanded(db, table.schema, "current", columns)
    assert found == {"gripper": "g", "hands_2d": "new"}
    assert demanded(db, table.schema, {"gripper": "current"}, []) == {"gripper": "g"}
    assert table.count_rows(with_demand("stage_key_tracks = 't'", found)) == 2


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ("newer", "stage keys 'newer'"),
        ({"hands": "x"}, "no such stage; near: hands_2d"),
        ({"hands_2d": ""}, "the key of stage 'hands_2d' is ''"),
    ],
)
def test_demands_that_cannot_be_used(db, table, asked, words):
    with pytest.raises(ConfigError, match=words):
        demanded(db, table.schema, asked, ["hand_visible"])
