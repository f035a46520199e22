"""Parts of windows: cells of columns, statistics of fields, and neighbours."""

from __future__ import annotations

import pickle

import numpy as np
import pyarrow as pa
import pytest
from support.rows import make_row
from support.window_tables import clip_row, keypoints, write_clips, write_episodes

from handloom.errors import ConfigError, StoreError
from handloom.schemas.tables.row import row_arrays
from handloom.windows.neighbours import Neighbours
from handloom.windows.rows.decode import cells_of
from handloom.windows.statistics import compute_statistics

LENGTHS = (6, 4, 9, 5)


@pytest.fixture(scope="module")
def db(tmp_path_factory):
    rows = [clip_row(n, length, world=n == 2) for n, length in enumerate(LENGTHS)]
    return write_clips(tmp_path_factory.mktemp("parts"), rows)


def test_cells_are_what_the_row_says():
    rows = [make_row(n, num_frames=frames, seed=n) for n, frames in enumerate((3, 0, 5))]
    whole = pa.concat_tables([pa.Table.from_batches([row]) for row in rows])
    for table in (whole, whole.combine_chunks(), whole.slice(1)):
        for name in set(table.column_names) - {"frame_jpeg"}:
            cells = cells_of(table.column(name), table.schema.field(name), "clips")
            for index in range(table.num_rows):
                expected, found = row_arrays(table, index)[name], cells.value(index)
                np.testing.assert_array_equal(found, expected, err_msg=name)
                if isinstance(expected, np.ndarray):
                    assert found.dtype == expected.dtype
                    assert not found.flags.writeable


def test_a_frame_of_null_is_a_frame_without_numbers():
    kind = pa.list_(pa.list_(pa.float32(), 2))
    inner = pa.FixedSizeListArray.from_arrays(
        pa.array(np.arange(6, dtype=np.float32)), 2, mask=pa.array([False, True, False])
    )
    column = pa.chunked_array([pa.ListArray.from_arrays(pa.array([0, 2, 3], pa.int32()), inner).cast(kind)])
    cells = cells_of(column, pa.field("hand_sigma_m", kind), "clips")
    np.testing.assert_array_equal(cells.value(0), [[0, 1], [np.nan, np.nan]])
    np.testing.assert_array_equal(cells.value(1), [[4, 5]])
    kind = pa.list_(pa.list_(pa.float32()))
    states = pa.chunked_array([pa.array([[[1.0, 2.0], [], [3.0, 4.0]], [[5.0]], None], kind)])
    cells = cells_of(states, pa.field("state", kind), "robot_episodes")
    np.testing.assert_array_equal(cells.value(0), [[1, 2], [np.nan, np.nan], [3, 4]])
    assert (cells.value(1).shape, cells.value(2)) == ((1, 1), None)
    ragged = pa.chunked_array([pa.array([[[1.0, 2.0], [3.0]]], kind)])
    with pytest.raises(StoreError, match=r"state has frames of \[1, 2\] numbers"):
        cells_of(ragged, pa.field("state", kind), "robot_episodes").value(0)


def test_samples_are_copies(db):
    windows = db.windows(2, 1, ["hands", "track_kind"])
    first = windows[0]
    first["hand_keypoints_px"][:] = -1
    first["track_kind"][:] = -1
    np.testing.assert_array_equal(windows[0]["hand_keypoints_px"], keypoints(0, 6)[:3])
    assert (windows[0]["track_kind"] == 0).all()


def test_a_column_that_a_clip_lacks_is_nan_in_its_windows(db):
    sample = db.windows(2, 1, ["hand_confidence", "hand_infilled", "frame_flags"])[0]
    assert np.isnan(sample["hand_confidence"]).all()
    assert sample["hand_confidence"].shape == (3, 2)
    assert not sample["hand_infilled"].any()
    assert sample["frame_flags"].tolist() == [0, 0, 0]


def test_statistics_of_many_numbers_keep_every_nth_frame(db):
    windows = db.windows(1, 0, ["hands"], where="num_frames > 4")
    exact = windows.statistics()["hand_keypoints_px"]
    rough = compute_statistics(windows, ["hand_keypoints_px"], quantile_values=84 * 5)["hand_keypoints_px"]
    for name in ("mean", "std", "min", "max", "count", "num_missing"):
        np.testing.assert_array_equal(rough[name], exact[name])
    every = np.concatenate([keypoints(n, length) for n, length in enumerate(LENGTHS) if length > 4])[::4]
    np.testing.assert_allclose(rough["q99"], np.nanquantile(every, 0.99, axis=0))


def test_statistics_that_cannot_be_stored_are_returned(tmp_path, caplog):
    db = write_clips(tmp_path, [clip_row(0, 6)])
    (tmp_path / "window_statistics.lance").mkdir()
    (tmp_path / "window_statistics.lance" / "data").write_text("in the way")
    found = db.windows(1, 0).statistics(["hand_keypoints_px"])["hand_keypoints_px"]
    assert found["count"].max() == 6
    assert "statistics are not kept" in caplog.text


def test_statistics_of_a_field_that_is_never_known_are_refused(db):
    with pytest.raises(ConfigError, match="hand_confidence is not known in any of 24 frames"):
        db.windows(1, 0).statistics(["hand_confidence"])


def test_neighbours_are_of_the_training_split_and_of_the_filter(tmp_path):
    db = write_clips(tmp_path, [clip_row(n, 4) for n in range(30)])
    held_out = db.windows(1, 0, split="held_out", neighbours=Neighbours(5), where="clip_id <> 'd:v3:0-400'")
    train = db.windows(1, 0, split="train", neighbours=Neighbours(5))
    allowed = set(train.clip_ids)
    assert held_out.clip_ids
    for windows in (held_out, train):
        found = {near["clip_id"] for sample in windows for near in sample["neighbours"]}
        assert found <= allowed
    assert "d:v3:0-400" not in {near["clip_id"] for sample in held_out for near in sample["neighbours"]}
    assert train.key != db.windows(1, 0, split="train", neighbours=Neighbours(4)).key


def test_equal_neighbours_go_by_their_ids(tmp_path):
    rows = [clip_row(n, 4) for n in range(6)]
    at = rows[0].schema.get_field_index("embedding_motion")
    same = [row.set_column(at, rows[0].schema.field(at), rows[0].column(at)) for row in rows]
    windows = write_clips(tmp_path, same[::-1]).windows(1, 0, neighbours=Neighbours(3))
    near = {s["clip_id"]: [n["clip_id"] for n in s["neighbours"]] for s in windows}
    assert near["d:v2:0-400"] == ["d:v0:0-400", "d:v1:0-400", "d:v3:0-400"]
    assert near["d:v5:0-400"] == ["d:v0:0-400", "d:v1:0-400", "d:v2:0-400"]


def test_episodes_have_clips_as_neighbours(tmp_path):
    episodes = write_episodes(tmp_path, [4])
    with pytest.raises(StoreError, match="no clips to be neighbours"):
        episodes.windows(2, 1, ["state"], table="robot_episodes", neighbours=Neighbours(1, ids={}, fields=["hands"]))
    import lance

    lance.write_dataset(pa.Table.from_batches([clip_row(n, 6) for n in range(3)]), str(tmp_path / "clips.lance"))
    beside = Neighbours(2, ids={"r:0": ["d:v2:0-600", "d:v0:0-600", "d:v1:0-600"]}, fields=["hands"])
    windows = episodes.windows(2, 1, ["state"], table="robot_episodes", neighbours=beside)
    near = pickle.loads(pickle.dumps(windows))[3]["neighbours"]
    assert [n["clip_id"] for n in near] == ["d:v2:0-600", "d:v0:0-600"]
    np.testing.assert_array_equal(near[0]["frame_index"], [0, 2, 5])
    np.testing.assert_array_equal(near[0]["hand_keypoints_px"], keypoints(2, 6)[[0, 2, 5]])
    with pytest.raises(ConfigError, match="fields of the clips"):
        episodes.windows(1, 0, ["state"], table="robot_episodes", neighbours={"r:0": ["d:v2:0-600"]})
