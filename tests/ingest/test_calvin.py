"""CALVIN's layout as robot episodes. The data is made after the format's description: no real data was available."""

import io
import os
import pickle
import tracemalloc

import numpy as np
import pytest
from support.calvin_data import WINDOWS, edit_frame, language, make_calvin, state_of
from support.lerobot_data import numbers_in

from handloom.api import Database
from handloom.errors import ConfigError
from handloom.ingest.robot.arrays_only import read_npy
from handloom.ingest.robot.calvin import read_language
from handloom.pipelines.ingest.robots import calvin
from handloom.schemas.tables.robot import episode_arrays
from handloom.store.clips.clip_list import read_clips
from handloom.store.episodes import read_episodes

POSE = ("x", "y", "z", "euler_x", "euler_y", "euler_z")


@pytest.fixture
def db(tmp_path):
    return Database.open(tmp_path / "db", create=True)


def rows_of(db: Database) -> dict[int, dict]:
    table = read_episodes(db)
    rows = [episode_arrays(table, n) for n in range(table.num_rows)]
    return {row["episode_index"]: row for row in sorted(rows, key=lambda row: row["episode_index"])}


def test_described_windows(tmp_path, db):
    root = make_calvin(tmp_path / "debug", splits=("training", "validation"))
    summary = calvin(db, str(root), licence="MIT")
    assert summary.counts["added"] == 4
    assert summary.problems == ()
    rows = rows_of(db)
    assert list(rows) == [0, 1, 10_000_000, 10_000_001]
    for number, ((first, end), text, _) in enumerate(WINDOWS):
        for row, split in ((rows[number], "training"), (rows[10_000_000 + number], "validation")):
            assert (row["task"], row["split"], row["fps"], row["robot_type"]) == (text, split, 30.0, "franka_panda")
            np.testing.assert_allclose(row["frame_s"], np.arange(end - first) / 30)
            np.testing.assert_allclose(row["state"], [state_of(f) for f in range(first, end)], rtol=1e-6)
            assert row["cameras"] == ["rgb_static", "rgb_gripper"]
            assert list(numbers_in(row["frame_jpeg"][0])) == list(range(first, end))
            assert list(numbers_in(row["frame_jpeg"][1])) == [f + 1000 for f in range(first, end)]
    row = rows[0]
    assert len(row["state_names"]) == len(row["state_units"]) == 15
    assert row["state_names"][:7] == [f"tcp_{n}" for n in POSE] + ["gripper_width"]
    assert row["state_units"][:7] == ["m", "m", "m", "rad", "rad", "rad", "m"]
    assert row["action_names"][0] == "rel_x"
    assert row["action_units"] == ["0.02 m"] * 3 + ["0.05 rad"] * 3 + ["1"]
    np.testing.assert_allclose(row["action"][3, :6], np.sin(103 + np.arange(6)), rtol=1e-5)
    clips = read_clips(db)
    assert len(clips) == 8
    assert all(
        clip.start_s == 0 and clip.end_s == pytest.approx(8 / 30) and os.path.exists(clip.video_uri) for clip in clips
    )
    assert calvin(db, str(root), licence="MIT").counts["already_there"] == 4


def test_whole_recordings_and_absolute_actions(tmp_path, db):
    root = make_calvin(tmp_path / "debug")
    summary = calvin(db, str(root / "training"), whole=True, action="actions")
    assert summary.counts["added"] == 1
    ((index, row),) = rows_of(db).items()
    assert index == 5_000_000
    assert row["num_frames"] == 15  # as CALVIN's own loader: without the last
    assert row["task"] is None
    np.testing.assert_allclose(row["action"][:, :6], row["state"][:, :6])
    assert row["action_names"][-1] == "gripper_action"
    both = calvin(db, str(root / "training"))
    assert (both.counts["added"], len(rows_of(db))) == (2, 3)
    assert rows_of(db)[0]["split"] == "training"


def remove(root, frame):
    (root / f"training/episode_{frame:07d}.npz").unlink()


def cut(root, frame):
    path = root / f"training/episode_{frame:07d}.npz"
    path.write_bytes(path.read_bytes()[:-200])


FAULTS = {
    "a frame is gone": (lambda r: remove(r, 101), "data_missing"),
    "a frame is cut": (lambda r: cut(r, 101), "data_unreadable"),
    "no state": (lambda r: edit_frame(r, 101, robot_obs=None), "bad_values"),
    "a narrow state": (lambda r: edit_frame(r, 101, robot_obs=np.zeros(14)), "bad_values"),
    "words for numbers": (lambda r: edit_frame(r, 101, rel_actions=np.array(["a"] * 7)), "bad_values"),
    "objects for numbers": (lambda r: edit_frame(r, 101, rel_actions=np.array([None] * 7)), "data_unreadable"),
    "no image": (lambda r: edit_frame(r, 101, rgb_gripper=None), "bad_values"),
    "a grey image": (lambda r: edit_frame(r, 101, rgb_static=np.zeros((96, 128), np.uint8)), "bad_pictures"),
    "a larger image": (lambda r: edit_frame(r, 101, rgb_static=np.zeros((98, 128, 3), np.uint8)), "bad_pictures"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_costs_only_its_own_windows(tmp_path, db, name):
    spoil, reason = FAULTS[name]
    root = make_calvin(tmp_path / "debug")
    spoil(root)
    summary = calvin(db, str(root))
    assert summary.skipped == {reason: 1}
    assert summary.skips[0]["episode_index"] == 0
    assert "training, frames 100 to 108" in summary.skips[0]["detail"] or reason == "bad_pictures"
    assert list(rows_of(db)) == [1]
    assert len(read_clips(db)) == 2


def test_values_that_are_not_finite_are_unknown(tmp_path, db):
    root = make_calvin(tmp_path / "debug")
    edit_frame(root, 101, robot_obs=np.r_[np.inf, np.nan, np.zeros(13)])
    summary = calvin(db, str(root), images=False)
    assert summary.notes == {"unknown_values": 1}
    assert np.isnan(rows_of(db)[0]["state"][1, :2]).all()
    assert rows_of(db)[0]["frame_jpeg"] is None


class Bomb:
    def __reduce__(self):
        return os.system, ("touch bombed",)


class Nested:
    def __reduce__(self):
        return eval, ("1",)


@pytest.mark.parametrize("payload", [Bomb(), [Nested()], {"language": Bomb()}, np.random.default_rng])
def test_nothing_in_a_file_is_executed(tmp_path, payload, monkeypatch):
    monkeypatch.chdir(tmp_path)
    np.save("bad.npy", np.array(payload, dtype=object), allow_pickle=True)
    with pytest.raises(ConfigError, match="only arrays and plain values"):
        read_language("bad.npy")
    assert not os.path.exists("bombed")


def test_arrays_and_scalars_are_read_as_they_were(tmp_path):
    content = {
        "spans": [(np.int64(3), np.int32(9))],
        "array": np.arange(6.0).reshape(2, 3),
        "fortran": np.asfortranarray(np.arange(6).reshape(2, 3)),
        "big": np.arange(3, dtype=">i4"),
        "words": np.array(["a", "bc"]),
        "objects": np.array(["x", None, 3], dtype=object),
        "word": np.str_("ü"),
        "flag": np.bool_(True),
    }
    np.save(tmp_path / "a.npy", content)
    found = read_npy((tmp_path / "a.npy").read_bytes())
    assert found["spans"] == [(3, 9)]
    assert type(found["spans"][0][0]) is int
    for name in ("array", "fortran", "big", "words"):
        np.testing.assert_array_equal(found[name], content[name])
    assert found["objects"] == ["x", None, 3]
    assert (found["word"], found["flag"]) == ("ü", True)
    np.save(tmp_path / "b.npy", content["array"])
    np.testing.assert_array_equal(read_npy((tmp_path / "b.npy").read_bytes()), content["array"])


def test_damaged_files_are_errors_not_crashes(tmp_path):
    """numpy's own unpickling of such bytes crashes."""
    path = tmp_path / "auto_lang_ann.npy"
    np.save(path, language())
    whole = path.read_bytes()
    rng = np.random.default_rng(0)
    num_errors = 0
    for _ in range(400):
        data = bytearray(whole[: rng.integers(len(whole) // 2, len(whole))] if rng.random() < 0.2 else whole)
        for at in rng.integers(0, min(len(data), 900), 3):
            data[at] = rng.integers(256)
        path.write_bytes(bytes(data))
        try:
            read_language(str(path))
        except ConfigError:
            num_errors += 1
    assert num_errors > 200


@pytest.mark.parametrize("size", [1 << 29, 1 << 62, (1 << 64) - 1])
@pytest.mark.parametrize("framed", [False, True])
def test_a_file_that_claims_more_bytes_than_it_holds_costs_no_memory(tmp_path, framed, size):
    """One changed byte of a length made Python's own unpickler fill all memory."""
    claim = pickle.BYTEARRAY8 + size.to_bytes(8, "little") + b"four" + pickle.STOP
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(file, np.lib.format.header_data_from_array_1_0(np.array({}, dtype=object)))
    frame = pickle.FRAME + len(claim).to_bytes(8, "little") if framed else b""
    (tmp_path / "auto_lang_ann.npy").write_bytes(file.getvalue() + pickle.PROTO + b"\x05" + frame + claim)
    tracemalloc.start()
    try:
        with pytest.raises(ConfigError, match=r"no whole \.npy file"):
            read_language(str(tmp_path / "auto_lang_ann.npy"))
        assert tracemalloc.get_traced_memory()[1] < 10 << 20
    finally:
        tracemalloc.stop()


def test_whole_byte_arrays_are_read():
    """From protocol 5 on, numpy writes the data of writable arrays like this."""
    values = np.arange(100_000.0)
    data = io.BytesIO()
    np.lib.format.write_array_header_1_0(data, np.lib.format.header_data_from_array_1_0(np.array({}, dtype=object)))
    whole = data.getvalue() + pickle.dumps(np.array({"a": values, "b": bytearray(b"ab")}, dtype=object), 5)
    assert pickle.BYTEARRAY8 in whole
    found = read_npy(whole)
    np.testing.assert_array_equal(found["a"], values)
    assert found["b"] == b"ab"


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_language_of_every_pickle_protocol(tmp_path, protocol):
    found = np.array(language(), dtype=object)
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(file, np.lib.format.header_data_from_array_1_0(found))
    path = tmp_path / "auto_lang_ann.npy"
    path.write_bytes(file.getvalue() + pickle.dumps(found, protocol))
    spans = read_language(str(path))
    assert [(s.first, s.end, s.text, s.task) for s in spans] == [(*span, text, task) for span, text, task in WINDOWS]
    renamed = path.read_bytes().replace(b"numpy.core.multiarray", b"numpy._core.multiarray")
    if protocol == 2:  # names as numpy 2 writes them; later protocols count the bytes
        path.write_bytes(renamed)
        assert read_language(str(path)) == spans


def without(key):
    content = language()
    del content[key]
    return content


BAD = {
    "cut": (lambda p: p.write_bytes(p.read_bytes()[:-50]), "no whole"),
    "no array": (lambda p: p.write_bytes(b"hello"), "no whole .npy"),
    "numbers": (lambda p: np.save(p, np.zeros(3)), "lacks language/ann"),
    "no language": (lambda p: np.save(p, without("language")), "lacks language/ann"),
    "no dictionary": (lambda p: np.save(p, np.array([None])), "lacks language/ann"),
    "lengths": (lambda p: np.save(p, {**language(), "info": {"indx": [(0, 1)]}}), "2 texts, 2 tasks and 1 windows"),
    "ranges": (lambda p: np.save(p, {**language(), "info": {"indx": [(0, 1), "x"]}}), "window 1 is 'x'"),
    "none at all": (lambda p: np.save(p, language(())), "lists no described window"),
    "gone": (lambda p: p.unlink(), "lists no described window"),
}


@pytest.mark.parametrize("name", BAD)
def test_language_that_cannot_be_used(tmp_path, db, name):
    spoil, message = BAD[name]
    root = make_calvin(tmp_path / "debug", end=101)
    spoil(root / "training/lang_annotations/auto_lang_ann.npy")
    with pytest.raises(ConfigError, match=message):
        calvin(db, str(root))


def test_other_mistakes(tmp_path, db):
    with pytest.raises(ConfigError, match="neither it nor training or validation"):
        calvin(db, str(tmp_path))
    root = make_calvin(tmp_path / "debug", windows=[((5, 5), "nothing", "t"), ((9, 4), "back", "t")])
    with pytest.raises(ConfigError, match="bad_entry 2"):
        calvin(db, str(root))
    np.save(root / "training/ep_start_end_ids.npy", np.zeros(3))
    with pytest.raises(ConfigError, match="expected whole numbers"):
        calvin(db, str(root), whole=True)
    with pytest.raises(ConfigError, match="--action 'both'"):
        calvin(db, str(root), action="both")


def test_the_same_frames_described_twice(tmp_path, db):
    """With different descriptions they are two episodes; with equal ones they are one, and a problem."""
    windows = [*WINDOWS, WINDOWS[0], ((100, 108), "pull the handle", "open_drawer")]
    summary = calvin(db, str(make_calvin(tmp_path / "debug", windows=windows)), images=False)
    assert [row["task"] for row in rows_of(db).values()] == ["open the drawer", "push the block", "pull the handle"]
    assert "1 windows are listed again" in summary.problems[0]
