"""Windows hold the values of their clip, and every clip has windows or is counted as left out."""

from __future__ import annotations

import pickle
from datetime import timedelta

import lance
import numpy as np
import pytest
from support.window_tables import HZ, clip_row, keypoints, write_clips, write_episodes

from handloom.errors import ConfigError, StoreError
from handloom.windows.neighbours import Neighbours
from handloom.windows.split import split_position

LENGTHS = (12, 5, 3, 20, 9, 2, 7)


@pytest.fixture(scope="module")
def db(tmp_path_factory):
    rows = [clip_row(n, length, world=n in (0, 3)) for n, length in enumerate(LENGTHS)]
    return write_clips(tmp_path_factory.mktemp("windows"), rows)


def number_of(clip_id: str) -> int:
    return int(clip_id.split(":")[1][1:])


@pytest.mark.parametrize("stride", [1, 2, 5])
@pytest.mark.parametrize(("past", "future"), [(1, 0), (2, 3), (4, 1)])
def test_every_window_holds_its_clips_frames(db, past, future, stride):
    windows = db.windows(past, future, ["hands"], stride=stride)
    seen = []
    for sample in windows:
        clip = number_of(sample["clip_id"])
        now = round(sample["now_s"] * HZ)
        frames = np.arange(now - past + 1, now + future + 1)
        expected = keypoints(clip, LENGTHS[clip])[frames]
        np.testing.assert_array_equal(sample["hand_keypoints_px"], expected)
        np.testing.assert_array_equal(sample["hand_visible"], np.isfinite(expected[:, :, 0, 0]))
        np.testing.assert_allclose(sample["frame_s"], frames / HZ)
        assert sample["valid"].all()
        seen.append((clip, now))
    assert seen == [
        (clip, now) for clip, n in enumerate(LENGTHS) for now in range(past - 1, n - future, stride)
    ]  # fmt: skip
    counts = windows.counts
    assert counts["clips"] + counts["too_short"] + counts["filtered"] == counts["rows"] == len(LENGTHS)
    assert len(windows) == counts["windows"] == len(seen)


def test_padding_marks_what_lies_outside(db):
    windows = db.windows(4, 3, ["hands", "images"], pad=True, where="video_id = 'v2'")
    assert len(windows) == LENGTHS[2]
    for now, sample in enumerate(windows):
        frames = np.arange(now - 3, now + 4)
        inside = (frames >= 0) & (frames < LENGTHS[2])
        np.testing.assert_array_equal(sample["valid"], inside)
        np.testing.assert_array_equal(sample["images_valid"], inside)
        assert np.isnan(sample["hand_keypoints_px"][~inside]).all()
        assert not sample["hand_visible"][~inside].any()
        assert not sample["images"][~inside].any()
        assert np.isnan(sample["frame_s"][~inside]).all()


def test_images_are_those_of_the_frames(db):
    sample = db.windows(2, 1, ["images"], where="video_id = 'v3'")[4]
    assert sample["images"].shape == (3, 16, 24, 3)
    found = sample["images"].mean((1, 2))
    np.testing.assert_allclose(found[:, 0], 60, atol=3)
    np.testing.assert_allclose(found[:, 1], [40, 50, 60], atol=3)
    assert db.windows(1, 0, ["images"], image_size=8)[0]["images"].shape == (1, 8, 8, 3)


@pytest.mark.parametrize("rate_hz", [2.0, 5.0, 10.0, 14.0])
def test_a_rate_takes_the_nearest_frame_or_none(db, rate_hz):
    windows = db.windows(2, 1, ["hands"], rate_hz=rate_hz, where="video_id = 'v3'")
    frame_s = np.arange(LENGTHS[3]) / HZ
    assert len(windows) == int((LENGTHS[3] - 1) / HZ * rate_hz + 0.5) + 1 - 2
    for number, sample in enumerate(windows):
        for step in range(3):
            off = np.abs(frame_s - (number + step) / rate_hz)
            assert sample["valid"][step] == (off.min() <= 0.5 / rate_hz + 1e-6)
            if sample["valid"][step]:
                assert np.abs(sample["frame_s"][step] - (number + step) / rate_hz) == pytest.approx(off.min(), abs=1e-9)


def test_splits_keep_videos_whole_and_do_not_move_when_clips_come(db, tmp_path):
    rows = [clip_row(n, 4 + n % 3, video=f"video{n // 2}") for n in range(40)]
    fewer = write_clips(tmp_path, rows[:20])
    for split in ("train", "held_out"):
        windows = fewer.windows(1, 1, split=split, held_out_share=0.4)
        videos = {split_position(f"d/video{number_of(i) // 2}", 0) < 0.4 for i in windows.clip_ids}
        assert videos == {split == "held_out"}
        before = set(windows.clip_ids)
    more = write_clips(tmp_path, rows[20:], mode="append")
    after = set(more.windows(1, 1, split="held_out", held_out_share=0.4).clip_ids)
    assert before < after
    train = set(more.windows(1, 1, split="train", held_out_share=0.4).clip_ids)
    assert not train & after
    assert len(train) + len(after) == 40


def test_a_version_is_pinned_and_a_removed_one_is_an_error(tmp_path):
    db = write_clips(tmp_path, [clip_row(0, 6)])
    windows = db.windows(1, 1)
    write_clips(tmp_path, [clip_row(1, 6)], mode="append")
    assert (windows.version, len(windows), len(windows.at())) == (1, 5, 10)
    assert windows.at(1).key == windows.at().key
    unread = db.windows(1, 1, version=1)
    lance.dataset(str(tmp_path / "clips.lance")).cleanup_old_versions(older_than=timedelta(0))
    for read in (lambda: unread[0], lambda: db.windows(1, 1, version=1)):
        with pytest.raises(StoreError, match="version 1") as caught:
            read()
        assert "the oldest version that still exists is 2, the newest 2" in caught.value.hint


def test_a_split_may_be_empty(db):
    windows = db.windows(1, 1, split="held_out", held_out_share=0.0)
    assert (len(windows), windows.clip_ids, windows.counts["other_split"]) == (0, [], len(LENGTHS))
    with pytest.raises(IndexError):
        windows[0]


def test_rows_are_found_after_others_were_deleted(tmp_path):
    db = write_clips(tmp_path, [clip_row(n, 3) for n in range(8)])
    lance.dataset(str(tmp_path / "clips.lance")).delete("video_id IN ('v0', 'v3', 'v4')")
    windows = db.windows(1, 0, where="video_id <> 'v6'")
    assert [number_of(sample["clip_id"]) for sample in windows] == [n for n in (1, 2, 5, 7) for _ in range(3)]
    assert windows[4]["hand_keypoints_px"][0, 1, 0, 0] == keypoints(2, 3)[1, 1, 0, 0]


def test_world_columns_leave_out_clips_without_poses(db):
    windows = db.windows(1, 1, ["tracks_world"])
    assert {number_of(i) for i in windows.clip_ids} == {0, 3}
    assert windows.counts["null_track_points_world_m"] == len(LENGTHS) - 2


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({"past": 30}, "longest of 7 rows has 20 steps as sampled, a window takes 30"),
        ({"fields": ["track_depth_m"]}, "track_depth_m is null in all 7 rows"),
        ({"fields": ["hand_keypoint_px"]}, "did you mean hand_keypoints_px"),
        ({"where": "hand_left AND false"}, "passes none of 7 rows"),
        ({"where": "hand_lef"}, "hand_lef"),
        ({"split": "test"}, "train, held_out"),
        ({"past": 0}, "past counts"),
        ({"rate_hz": -1.0}, "rate above 0"),
        ({"neighbours": Neighbours(7)}, r"7 neighbours of .* 6 allowed clips of other videos"),
        ({"neighbours": Neighbours(2, by="smell")}, "expected one of: motion, appearance"),
        ({"neighbours": {"d:v0:0-1200": ["d:gone:0-1"]}}, "has no row in version 1"),
        ({"fields": "hands"}, "expected a list"),
        ({"fields": ["images:left"]}, "a clip has one camera"),
    ],
)
def test_impossible_windows_are_refused_with_the_reason(db, asked, words):
    with pytest.raises(ConfigError, match=words):
        db.windows(**({"past": 1, "future": 0} | asked))


def test_the_hint_for_short_clips_helps(db):
    """A higher rate: as many steps take less time."""
    with pytest.raises(ConfigError, match="7 rows has 11 steps at 5 Hz") as refused:
        db.windows(18, 0, rate_hz=5)
    assert "a higher rate_hz, " in (refused.value.hint or "")
    assert len(db.windows(18, 0, rate_hz=HZ)) > 0
    assert len(db.windows(18, 0, rate_hz=5, pad=True)) > 0


def test_images_that_were_not_kept_or_are_damaged(tmp_path):
    (tmp_path / "bare").mkdir()
    bare = write_clips(tmp_path / "bare", [clip_row(0, 3, jpeg=False)])
    with pytest.raises(ConfigError, match="frame_jpeg is null in every row"):
        bare.windows(1, 0, ["images"])
    (tmp_path / "mixed").mkdir()
    mixed = write_clips(tmp_path / "mixed", [clip_row(0, 3, jpeg=False), clip_row(1, 3)])
    first, last = mixed.windows(1, 0, ["images"], image_size=8)[0], mixed.windows(1, 0, ["images"], image_size=8)[5]
    assert not first["images_valid"].any()
    assert last["images_valid"].all()
    row = clip_row(2, 2)
    at = row.schema.get_field_index("frame_jpeg")
    row = row.set_column(at, "frame_jpeg", type(row.column(at)).from_arrays([0, 2], [b"\xff\xd8 not an image", b""]))
    (tmp_path / "damaged").mkdir()
    damaged = write_clips(tmp_path / "damaged", [row.cast(clip_row(2, 2).schema)])
    with pytest.raises(StoreError, match="d:v2:0-200, frame 0 cannot be decoded"):
        damaged.windows(1, 0, ["images"])[0]


def test_neighbours_are_the_nearest_of_other_videos(tmp_path):
    rows = [clip_row(n, 6, video=f"video{n // 2}") for n in range(8)]
    db = write_clips(tmp_path, rows)
    windows = db.windows(2, 1, ["hands"], neighbours=Neighbours(3))
    vectors = np.stack(db.clips(["embedding_motion"]).column(0).to_pylist())
    for sample in (windows[0], windows[9]):
        own = number_of(sample["clip_id"])
        score = vectors @ vectors[own]
        score[[own - own % 2, own - own % 2 + 1]] = -np.inf
        assert [number_of(n["clip_id"]) for n in sample["neighbours"]] == np.argsort(-score)[:3].tolist()
        near = sample["neighbours"][0]
        np.testing.assert_allclose(near["frame_s"], [0.0, 0.2, 0.5])  # three steps over six frames
    named = db.windows(1, 0, ["hands"], neighbours={f"d:v{n}:0-600": ["d:v7:0-600"] for n in range(8)})
    assert named[3]["neighbours"][0]["clip_id"] == "d:v7:0-600"


def test_statistics_count_what_is_missing_and_are_kept(db):
    windows = db.windows(1, 1, ["hands"])
    found = windows.statistics(["hand_keypoints_px"])["hand_keypoints_px"]
    used = [n for n in range(len(LENGTHS)) if LENGTHS[n] >= 2]
    every = np.concatenate([keypoints(n, LENGTHS[n]) for n in used]).astype(np.float64)
    np.testing.assert_allclose(found["mean"], np.nanmean(every, 0))
    np.testing.assert_allclose(found["std"], np.nanstd(every, 0))
    np.testing.assert_allclose(found["q99"], np.nanquantile(every, 0.99, axis=0))
    np.testing.assert_array_equal(found["min"], np.nanmin(every, 0))
    np.testing.assert_array_equal(found["num_missing"], np.isnan(every).sum(0))
    np.testing.assert_array_equal(found["count"], np.isfinite(every).sum(0))
    assert db.count("window_statistics") == 1
    again = db.windows(1, 1, ["hands"]).statistics(["hand_keypoints_px"])["hand_keypoints_px"]
    np.testing.assert_array_equal(again["mean"], found["mean"])
    assert db.count("window_statistics") == 1
    with pytest.raises(ConfigError, match="no column of clips with numbers for each frame"):
        windows.statistics(["narration"])


def test_windows_can_be_pickled(db):
    windows = db.windows(2, 0, ["hands", "images"], neighbours=Neighbours(1))
    windows[0]
    there = pickle.loads(pickle.dumps(windows))
    np.testing.assert_array_equal(there[3]["images"], windows[3]["images"])
    assert there.key == windows.key


def test_robot_episodes_have_windows_too(tmp_path):
    db = write_episodes(tmp_path, [4, 4])
    windows = db.windows(2, 2, ["state", "action", "images", "images:wrist", "task"], table="robot_episodes")
    assert len(windows) == 2 * (12 - 3)
    sample = windows[9 + 2]
    assert (sample["episode_id"], sample["task"]) == ("r:1", "task 1")
    np.testing.assert_array_equal(sample["state"][:, 0], 100 + np.arange(2, 6))
    np.testing.assert_array_equal(sample["action"], sample["state"] + 1)
    assert sample["images"][0].mean((0, 1))[0] == pytest.approx(20, abs=3)
    assert sample["images:wrist"][0].mean((0, 1))[0] == pytest.approx(120, abs=3)
    with pytest.raises(ConfigError, match="no camera 'top'"):
        db.windows(1, 0, ["images:top"], table="robot_episodes")[0]
    (tmp_path / "mixed").mkdir()
    with pytest.raises(ConfigError, match=r"state has 4 numbers in dataset .* and 6"):
        write_episodes(tmp_path / "mixed", [4, 6]).windows(1, 0, ["state"], table="robot_episodes")
    with pytest.raises(StoreError, match="no table robot_episodes"):
        write_clips_only(tmp_path).windows(1, 0, ["state"], table="robot_episodes")


def write_clips_only(tmp_path):
    (tmp_path / "clips_only").mkdir()
    return write_clips(tmp_path / "clips_only", [clip_row(0, 3)])


def test_clips_that_lack_an_optional_column_have_windows_too(db):
    strict = db.windows(1, 1, ["hands", "hands_world"])
    windows = db.windows(1, 1, ["hands", "hands_world"], optional=["hand_keypoints_world_m"])
    assert {number_of(clip) for clip in strict.clip_ids} == {0, 3}
    assert {number_of(clip) for clip in windows.clip_ids} == set(range(len(LENGTHS)))
    there = {(sample["clip_id"], sample["now_s"]): sample["hand_keypoints_world_m"] for sample in strict}
    assert len(there) == len(strict)
    for sample in windows:
        expected = there.pop((sample["clip_id"], sample["now_s"]), np.float32("nan"))
        np.testing.assert_array_equal(sample["hand_keypoints_world_m"], np.broadcast_to(expected, (2, 2, 21, 3)))
    assert not there
    assert db.windows(1, 1, ["hands"], optional=[]).spec.key() == db.windows(1, 1, ["hands"]).spec.key()
    assert windows.spec.key() != strict.spec.key()
    with pytest.raises(ConfigError, match="optional names track_points_px"):
        db.windows(1, 1, ["hands"], optional=["track_points_px"])
