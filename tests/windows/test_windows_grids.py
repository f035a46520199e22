"""Windows take the grid that shows most in them; loaders, older tables and ARM4R's own rule."""

from __future__ import annotations

import numpy as np
import pytest
from support.track_tables import GRID, room_db, room_row

from handloom.api import Database
from handloom.errors import ConfigError
from handloom.geometry.tracks.stored_grids import window_tracks
from handloom.schemas.tables.later_grids import GRID_INDEX, GRID_SHAPES
from handloom.schemas.tables.row import row_arrays

NUM = GRID**2
BEGUN = (6, 18)  # the first grid is seen until frame 10, the second until 26
FIELDS = ["tracks", "tracks_world"]


@pytest.fixture(scope="module")
def db(tmp_path_factory) -> Database:
    rows = [room_row(0, later=BEGUN), room_row(1, later=()), room_row(2), room_row(3, later=BEGUN, world=False)]
    return room_db(tmp_path_factory.mktemp("grids"), rows)


def of_clip(windows, number: int) -> list[dict]:
    return [windows[i] for i in range(len(windows)) if windows[i]["clip_id"] == windows.clip_ids[number]]


def test_every_window_sees_a_grid_that_began_by_its_first_frame(db):
    windows = db.windows(past=1, future=4, fields=["tracks"])
    for first, sample in enumerate(of_clip(windows, 0)):
        begun = set(sample["track_query_frame"][:NUM].tolist())
        assert begun == {0 if first < 6 else 6 if first < 18 else 18}, first
        assert sample["track_points_px"].shape == (5, NUM + 8, 2)
        if first >= 6:
            assert sample["track_visible"][:, :NUM].all()
            assert np.isfinite(sample["track_depth_m"][:, :NUM]).all()
    later = [s["track_query_frame"][NUM:].tolist() for s in of_clip(windows, 0)]
    assert later == [later[0]] * len(later)


def test_windows_of_rows_without_later_grids_are_as_they_were(db):
    for number in (1, 2):
        near, first = (of_clip(db.windows(1, 4, FIELDS, track_grid=grid), number) for grid in ("nearest", "first"))
        for a, b in zip(near, first, strict=True):
            for name in a:
                np.testing.assert_equal(a[name], b[name])


def test_arm4r_s_rule_can_be_chosen(db):
    windows = db.windows(1, 4, ["tracks"], track_grid="first")
    row = row_arrays(db.read("clips", None).to_batches()[0], 0)
    for first, sample in enumerate(of_clip(windows, 0)):
        np.testing.assert_array_equal(sample["track_points_px"], row["track_points_px"][first : first + 5])
        assert (sample["track_query_frame"][:NUM] == 0).all()
    assert windows.key != db.windows(1, 4, ["tracks"]).key
    with pytest.raises(ConfigError, match="'all'"):
        db.windows(1, 4, ["tracks"], track_grid="all")


def test_a_window_is_what_its_row_gives(db):
    row = row_arrays(db.read("clips", None).to_batches()[0], 0)
    windows = db.windows(past=2, future=3, fields=[*FIELDS, "track_sigma_px"], pad=True)
    for sample in of_clip(windows, 0):
        there = sample["valid"]
        expected = window_tracks(row, sample["frame_index"][there])
        for name in ("track_points_px", "track_visible", "track_depth_m", "track_points_world_m"):
            np.testing.assert_array_equal(sample[name][there], expected[name], err_msg=name)
        assert not sample["track_visible"][~there].any()
        assert np.isnan(sample["track_points_px"][~there]).all()
        assert np.isnan(sample["track_sigma_px"][:, :NUM]).all()


def test_later_grids_have_the_places_that_the_first_has(db):
    """The room's points rest, and every grid of it is the same points: in the world they stay where they are."""
    windows = db.windows(1, 2, ["tracks_world"])
    start = of_clip(windows, 0)[0]["track_points_world_m"][0, :NUM]
    for sample in of_clip(windows, 0):
        off = sample["track_points_world_m"][:, :NUM] - start
        seen = sample["track_visible"][:, :NUM]
        assert np.abs(off[seen]).max() < 5e-3  # noise of the tracks, and depth to 0.05 %
    flat = db.windows(1, 2, ["tracks"], where="world_scale = 'none'")
    assert all(np.isfinite(sample["track_depth_m"][:, :NUM]).any() for sample in of_clip(flat, 0))


def test_one_column_alone_is_of_the_same_grid(db):
    both = db.windows(1, 4, ["tracks"])
    for name in ("track_points_px", "track_depth_m"):
        alone = db.windows(1, 4, [name])
        for a, b in zip(of_clip(alone, 0), of_clip(both, 0), strict=True):
            np.testing.assert_array_equal(a[name], b[name])
            assert not {"track_visible", *GRID_INDEX, *GRID_SHAPES} & a.keys()


def test_steps_further_apart_and_long_windows(db):
    for sample in of_clip(db.windows(1, 4, ["tracks"], rate_hz=5), 0):
        row = row_arrays(db.read("clips", None).to_batches()[0], 0)
        expected = window_tracks(row, sample["frame_index"])
        np.testing.assert_array_equal(sample["track_points_px"], expected["track_points_px"])
    long = of_clip(db.windows(1, 25, ["tracks"]), 0)
    assert {tuple(np.unique(s["track_query_frame"][:NUM])) for s in long} == {(6,)}  # it shows most


def test_loaders_give_the_same_with_and_without_processes(db):
    torch = pytest.importorskip("torch")
    windows = db.windows(1, 3, FIELDS)
    found = []
    for workers in (0, 2):
        loader = windows.loader(5, seed=3, num_workers=workers)
        found.append(list(loader))
    for a, b in zip(*found, strict=True):
        assert a["clip_id"] == b["clip_id"]
        for name in ("track_points_px", "track_points_world_m", "track_query_frame"):
            torch.testing.assert_close(a[name], b[name], rtol=0, atol=0, equal_nan=True)
    index = {(s["clip_id"], round(s["now_s"], 3)): s for s in (windows[i] for i in range(len(windows)))}
    batch = found[0][0]
    for i, (clip, now) in enumerate(zip(batch["clip_id"], batch["now_s"].tolist(), strict=True)):
        np.testing.assert_array_equal(
            batch["track_points_px"][i].numpy(), index[clip, round(now, 3)]["track_points_px"]
        )


def test_tables_older_than_later_grids(db, tmp_path):
    rows = db.read("clips", None).drop_columns([*GRID_INDEX, *GRID_SHAPES])
    old = room_db(tmp_path, rows.to_batches())
    near, first = old.windows(1, 4, FIELDS), db.windows(1, 4, FIELDS, track_grid="first")
    assert len(near) == len(first)
    for i in range(len(near)):
        for name in ("track_points_px", "track_points_world_m", "track_query_frame"):
            np.testing.assert_array_equal(near[i][name], first[i][name])
