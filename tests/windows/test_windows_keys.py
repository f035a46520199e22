"""Windows over rows of several stage keys: what is said, what can be demanded, and a recompute beside a reader."""

import logging
import threading

import numpy as np
import pyarrow as pa
import pytest
from support.rows import random_unit
from support.stage_keys import recompute_hands, with_keys, with_own_column
from support.window_tables import clip_row, write_clips, write_episodes

from handloom.errors import ConfigError, StoreError
from handloom.schemas.tables.stage_columns import key_column, state_column
from handloom.stages import frame_field
from handloom.store.runs.runs import start_run
from handloom.windows.neighbours import Neighbours

KEYS = {"hands_2d": ["old", "old", "new", None, "new", "new"], "tracks": ["t"] * 6}
FIELDS = ["hand_keypoints_px", "hand_visible"]


@pytest.fixture
def db(tmp_path):
    """Six clips; hands are being recomputed, the embedding of a stage of the user's is there for four."""
    rows = with_keys(
        pa.Table.from_batches([clip_row(n, 6 + n) for n in range(6)]), KEYS | {"grip": ["g"] * 4 + [None] * 2}
    )
    rng = np.random.default_rng(0)
    vectors = [random_unit(rng, 4).tolist() if n < 4 else None for n in range(6)]
    rows = with_own_column(rows, "grip", "embedding_grip", pa.array(vectors, pa.list_(pa.float32(), 4)))
    rows = rows.append_column(state_column("hands_2d"), pa.array([b"x"] * 6, pa.binary()))
    return write_clips(tmp_path, rows.to_batches())


def numbers(windows):
    return [int(clip_id.split(":")[1][1:]) for clip_id in windows.clip_ids]


def test_several_keys_are_said_once_and_counted(db, caplog):
    with caplog.at_level(logging.WARNING):
        windows = db.windows(past=2, fields=FIELDS)
        db.windows(past=2, fields=FIELDS)
        db.windows(past=2, fields=["track_points_px"])
        db.windows(past=2, fields=FIELDS, where="stage_key('hands_2d') = 'new'")
    (warning,) = caplog.records
    assert "(hands_2d: 3 of new, 2 of old, 1 not computed)" in warning.getMessage()
    assert "stage_keys='current'" in warning.getMessage()
    assert windows.stage_keys == {"hands_2d": {"new": 3, "old": 2, None: 1}}
    assert windows.describe()["stage_keys"] == {"hands_2d": {"new": 3, "old": 2, "": 1}}


def test_demanded_keys(db, caplog):
    start_run(
        db, "k", settings={}, resources={}, versions={}, stage_keys={"hands_2d": "new", "tracks": "t", "grip": "g"}
    )
    with caplog.at_level(logging.WARNING):
        windows = db.windows(past=2, fields=FIELDS, where="num_frames > 8", stage_keys="current")
    assert not caplog.records
    assert numbers(windows) == [4, 5]
    assert windows.counts == {"rows": 6, "filtered": 3, "other_stage_key": 1, "too_short": 0, "clips": 2, "windows": 19}
    assert windows.spec.stage_keys == (("hands_2d", "new"),)
    assert windows.key != db.windows(past=2, fields=FIELDS, where="num_frames > 8").key
    old = db.windows(past=2, fields=FIELDS, stage_keys={"hands_2d": "old"})
    assert (numbers(old), numbers(old.at())) == ([0, 1], [0, 1])
    with pytest.raises(
        ConfigError, match=r"no row has the stage keys hands_2d=gone\nhint: there are hands_2d: 3 of new"
    ):
        db.windows(past=2, fields=FIELDS, stage_keys={"hands_2d": "gone"})


def test_neighbours_follow_the_demand_and_take_any_embedding(db):
    near = Neighbours(k=1, by="grip")
    windows = db.windows(past=2, fields=FIELDS, where="embedding_grip IS NOT NULL", neighbours=near)
    assert numbers(windows) == [0, 1, 2, 3]
    assert len(windows[0]["neighbours"]) == 1
    demanded = {"stage_keys": {"hands_2d": "old", "grip": "g"}, "neighbours": near}
    windows = db.windows(past=2, fields=FIELDS, **demanded)
    assert [sample["clip_id"] for sample in windows[0]["neighbours"]] == [windows.clip_ids[1]]
    with pytest.raises(
        ConfigError, match="has no embedding 'gripp'; near: grip; expected one of: motion, appearance, grip"
    ):
        db.windows(past=2, fields=FIELDS, neighbours=Neighbours(k=1, by="gripp"))


def test_what_is_not_for_windows(db, tmp_path):
    with pytest.raises(ConfigError, match="'stage_state_hands_2d', which only handloom's own stages read"):
        db.windows(past=2, fields=["stage_state_hands_2d"])
    robots = write_episodes(tmp_path / "robots", [2])
    with pytest.raises(ConfigError, match="the table has no keys of stages"):
        robots.windows(past=2, fields=["state"], table="robot_episodes", stage_keys="current")
    assert robots.windows(past=2, fields=["state"], table="robot_episodes").stage_keys == {}


def test_a_recompute_beside_readers_tears_nothing(db):
    """A pinned version keeps its bytes; newer ones hold for each clip either its old values and key or the new ones."""
    pinned = db.windows(past=2, fields=FIELDS)
    before = [sample["hand_keypoints_px"] for sample in pinned.loader(8, shuffle=False)]
    recompute_hands(db, 0.0, "0")
    done, torn, reads = threading.Event(), [], 0

    def write() -> None:
        try:
            for number in range(1, 6):
                recompute_hands(db, float(number), str(number))
        finally:
            done.set()  # else the readers would go on for ever

    writer = threading.Thread(target=write)
    writer.start()
    while not done.is_set() or reads < 3:
        windows = db.windows(past=1, fields=["hand_keypoints_px", key_column("hands_2d")])
        for place in windows.plan.starts[:-1]:
            sample = windows[int(place)]
            values = set(np.unique(sample["hand_keypoints_px"]).tolist())
            torn += [] if values == {float(sample[key_column("hands_2d")])} else [sample]
        reads += 1
    writer.join()
    assert torn == []
    assert set(windows.stage_keys["hands_2d"]) <= set("012345")
    after = [sample["hand_keypoints_px"] for sample in pinned.loader(8, shuffle=False)]
    assert all(np.array_equal(a, b, equal_nan=True) for a, b in zip(before, after, strict=True))


def test_an_own_column_with_a_value_for_each_frame_is_cut_like_the_hands(tmp_path):
    jaw = [[float(t) for t in range(6)], None]
    at = [None if cell is None else [[t, -t] for t in cell] for cell in jaw]
    rows = pa.Table.from_batches([clip_row(n, 6) for n in range(2)])
    for field, values in ((frame_field("jaw", pa.float32()), jaw), (frame_field("jaw_at", pa.float32(), 2), at)):
        column = pa.array(values, field.type)
        rows = with_own_column(rows, "grip", field.name, column, handloom_per_frame="true")
    rows = with_own_column(
        rows, "grip", "few", pa.array([[1.0], [2.0]], pa.list_(pa.float32())), handloom_per_frame="true"
    )
    db = write_clips(tmp_path, rows.to_batches())
    windows = db.windows(past=2, future=1, fields=["jaw", "jaw_at"])
    assert windows[1]["jaw"].tolist() == [1, 2, 3]
    assert windows[1]["jaw_at"].tolist() == [[1, -1], [2, -2], [3, -3]]
    assert np.isnan(windows[4]["jaw"]).all()
    assert np.isnan(windows[4]["jaw_at"]).all()
    batch = next(iter(windows.loader(8, shuffle=False)))
    assert batch["jaw_at"].shape == (8, 3, 2)
    stats = windows.statistics()
    assert (stats["jaw"]["mean"], stats["jaw"]["max"], stats["jaw"]["num_missing"]) == (2.5, 5, 6)
    assert stats["jaw_at"]["min"].tolist() == [0, -5]
    with pytest.raises(StoreError, match="column few of d:v0:0-600 has 1 values for 6 frames"):
        db.windows(past=1, fields=["few"])[0]


def test_a_row_without_a_stage_is_unknown_in_windows_or_left_out(tmp_path):
    """A stage that failed on a clip, or was not computed yet: its columns are null."""
    rows = pa.Table.from_batches([clip_row(n, 6, world=True) for n in range(2)])
    for name in ("hand_visible", "hand_keypoints_px", "world_scale", "track_points_world_m", "track_visible"):
        field, first = rows.schema.field(name), rows.column(name)[0].as_py()
        rows = rows.set_column(rows.schema.names.index(name), field, pa.array([first, None], field.type))
    db = write_clips(tmp_path, rows.to_batches())
    windows = db.windows(past=2, fields=FIELDS)
    assert numbers(windows) == [0, 1]
    assert np.isnan(windows[5]["hand_keypoints_px"]).all()
    assert not windows[5]["hand_visible"].any()
    world = db.windows(past=2, fields=["track_points_world_m", "track_visible"])
    assert (numbers(world), world.counts["null_track_points_world_m"]) == ([0], 1)
