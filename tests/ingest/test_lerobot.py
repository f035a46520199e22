"""LeRobot datasets as robot episodes: every image at its step, in all versions; faults are named."""

import dataclasses
import json
import re
import shutil
from pathlib import Path

import av
import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from support.decoded import chunks_of
from support.lerobot_data import (
    CAMERA,
    FPS,
    TASKS,
    edit_info,
    edit_table,
    make_v3,
    make_v21,
    number,
    numbers_in,
    reencode,
    state_of,
)
from support.numbered_video import numbered_image

from handloom.api import Database
from handloom.cli import text
from handloom.errors import ConfigError
from handloom.ingest.robot.images import match_times
from handloom.ingest.robot.source import NOTES as REMARKS
from handloom.ingest.robot.source import SKIP_REASONS
from handloom.pipelines.ingest.robots import lerobot
from handloom.schemas.tables.reject import REASONS
from handloom.schemas.tables.robot import episode_arrays
from handloom.store.clips.clip_list import read_clips
from handloom.store.episodes import read_episodes
from handloom.video.decode.decoder import DecodeLimits, Decoder
from handloom.video.fetch.video_source import VideoSource
from handloom.video.write import write_video

LENGTHS = (6, 8, 5)
DATA = "data/chunk-000/file-000.parquet"
EPISODES = "meta/episodes/chunk-000/file-000.parquet"
VIDEO = f"videos/{CAMERA}/chunk-000/file-000.mp4"


@pytest.fixture
def db(tmp_path):
    return Database.open(tmp_path / "db", create=True)


def rows_of(db: Database) -> dict[int, dict]:
    table = read_episodes(db)
    rows = [episode_arrays(table, n) for n in range(table.num_rows)]
    return {row["episode_index"]: row for row in sorted(rows, key=lambda row: row["episode_index"])}


def check_rows(rows: dict[int, dict], lengths=LENGTHS) -> None:
    """States, times and images of generated datasets."""
    for e, row in rows.items():
        np.testing.assert_array_equal(row["frame_s"], np.arange(lengths[e]) / FPS)
        np.testing.assert_array_equal(row["state"], state_of(e, lengths[e]))
        np.testing.assert_array_equal(row["action"], state_of(e, lengths[e])[:, :2] + 0.5)
        for c, jpegs in enumerate(row["frame_jpeg"] or ()):
            assert list(numbers_in(jpegs)) == [number(e, i) + 2048 * c for i in range(lengths[e])]


def test_v3_every_image_is_at_its_step(tmp_path, db):
    cameras = (CAMERA, "observation.images.wrist")
    summary = lerobot(db, str(make_v3(tmp_path / "arm", LENGTHS, cameras=cameras)), licence="CC0")
    assert summary.counts == {"listed": 3, "added": 3, "replaced": 0, "already_there": 0, "skipped": 0}
    assert summary.problems == ()
    rows = rows_of(db)
    check_rows(rows)
    assert [rows[e]["task"] for e in rows] == [TASKS[0], TASKS[1], TASKS[0]]
    assert [rows[e]["split"] for e in rows] == ["train", "train", "test"]
    row = rows[1]
    assert row["episode_id"] == "arm:1"
    assert row["state_names"] == ["x", "y", "gripper"]
    assert row["action_names"] == ["pan", "grip"]
    assert row["state_units"] == [None, None, None]
    assert row["cameras"] == list(cameras)
    assert (row["robot_type"], row["source_version"], row["licence"]) == ("toy_arm", "lerobot v3.0", "CC0")
    clips = {clip.clip_id: clip for clip in read_clips(db)}
    assert set(clips) == {i for row in rows.values() for i in row["clip_ids"]}
    clip = clips[row["clip_ids"][0]]
    assert (clip.start_s, clip.narration, clip.view, clip.split, clip.licence) == (0.6, TASKS[1], "exo", "train", "CC0")
    assert clip.end_s == pytest.approx(1.4)
    assert clip.video_id == f"{CAMERA}~episode_000001"


def test_clips_decode_to_the_images_of_their_episode(tmp_path, db):
    """The frames of a clip at `start_s + frame_s` are the images that the row keeps."""
    lerobot(db, str(make_v3(tmp_path / "arm", LENGTHS)))
    clips = {clip.clip_id: clip for clip in read_clips(db)}
    decoder = Decoder(1000.0, 96, DecodeLimits(), VideoSource(str(tmp_path)))
    try:
        for e, row in rows_of(db).items():
            (clip_id,) = row["clip_ids"]
            for item in decoder.stream([clips[clip_id]]):
                np.testing.assert_allclose(item.header.frame_s, clips[clip_id].start_s + row["frame_s"], atol=1e-4)
                jpegs = [cv2.imencode(".png", f[..., ::-1])[1].tobytes() for part in chunks_of(item) for f in part]
            assert list(numbers_in(jpegs)) == [number(e, i) for i in range(LENGTHS[e])]
    finally:
        decoder.close()


@pytest.mark.parametrize("version", ["v2.1", "v2.0"])
def test_v2_gives_the_same_episodes(tmp_path, db, version):
    summary = lerobot(db, str(make_v21(tmp_path / "arm", LENGTHS, version)))
    assert summary.counts["added"] == 3
    rows = rows_of(db)
    check_rows(rows)
    assert rows[2]["source_version"] == f"lerobot {version}"
    assert [clip.start_s for clip in read_clips(db)] == [0.0, 0.0, 0.0]
    assert [rows[e]["task"] for e in rows] == [TASKS[0], TASKS[1], TASKS[0]]


def test_images_in_parquet_become_videos(tmp_path, db):
    """Stored near-lossless beside the database, at the data's times, and as JPEG in the row."""
    lerobot(db, str(make_v3(tmp_path / "arm", LENGTHS, images=True)))
    check_rows(rows_of(db))
    clips = sorted(read_clips(db), key=lambda clip: clip.clip_id)
    assert [clip.end_s for clip in clips] == pytest.approx([0.6, 0.8, 0.5])
    assert clips[1].video_uri == f"{db.uri}/videos/arm/{CAMERA}/episode_000001.mp4"
    video = cv2.VideoCapture(clips[1].video_uri)
    for step in range(8):
        ok, image = video.read()
        assert ok
        error = image[..., ::-1].astype(float) - numbered_image(number(1, step))
        assert 10 * np.log10(255**2 / (error**2).mean()) > 35  # 4:2:0 blurs the colour edges of these images
    assert lerobot(db, str(tmp_path / "arm")).counts["already_there"] == 3
    assert Database.open(db.uri).count("robot_episodes") == 3  # the folder of videos does not spoil the database


def drop_frames(path, keep):
    edit_table(path, lambda rows: [row for row in rows if keep(row)])


def in_episode(path, episode, **values):
    def change(rows):
        for row in rows:
            if row["episode_index"] == episode:
                row.update({key: value(row) if callable(value) else value for key, value in values.items()})

    edit_table(path, change)


def cut(path, share):
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])


def twice(root, **change):
    edit_table(root / EPISODES, lambda rows: [*rows, {**rows[1], **change}])


def wide(root):
    key = "observation.state"
    schema = pq.read_schema(root / DATA)
    at = schema.get_field_index(key)
    edit_table(
        root / DATA,
        lambda rows: [{**row, key: [*row[key], *[0.0] * (row["episode_index"] == 1)]} for row in rows],
        schema.set(at, pa.field(key, pa.list_(pa.float32()))),
    )


def edit_places(root, values, episode=1):
    """The list with all its numbers as floats, as tables with a missing number store them."""
    schema = pa.schema(
        [
            field.with_type(pa.float64()) if pa.types.is_integer(field.type) else field
            for field in pq.read_schema(root / EPISODES)
        ]
    )
    edit_table(
        root / EPISODES, lambda rows: [r | (values if r["episode_index"] == episode else {}) for r in rows], schema
    )


FAULTS = {
    "no data file": (lambda r: (r / DATA).unlink(), {"data_missing": 2}),
    "no footer": (lambda r: cut(r / DATA, 0.7), {"data_unreadable": 2}),
    "damaged names": (
        lambda r: (r / DATA).write_bytes((r / DATA).read_bytes().replace(b"frame_index", b"frame_ind\xb8x")),
        {"data_unreadable": 2},
    ),
    "not in its file": (lambda r: drop_frames(r / DATA, lambda row: row["episode_index"] != 1), {"not_in_data": 1}),
    "frames lost from the data": (
        lambda r: drop_frames(r / DATA, lambda row: (row["episode_index"], row["frame_index"]) != (1, 3)),
        {"length_differs": 1},
    ),
    "another length in the list": (lambda r: in_episode(r / EPISODES, 1, length=9), {"length_differs": 1}),
    "a place between two files": (
        lambda r: edit_places(r, {"data/file_index": 0.5}),
        {"bad_entry": 1},
    ),
    "a video's place between two files": (
        lambda r: edit_places(r, {f"videos/{CAMERA}/chunk_index": 0.5}),
        {"bad_entry": 1},
    ),
    "no length in the list": (lambda r: in_episode(r / EPISODES, 1, length=None), {"bad_entry": 1}),
    "no place in the list": (lambda r: in_episode(r / EPISODES, 1, **{"data/file_index": None}), {"bad_entry": 1}),
    "listed twice, differing": (lambda r: twice(r, length=7), {"duplicated": 1}),
    "in the data twice": (
        lambda r: edit_table(r / DATA, lambda rows: [*rows, *rows[:6]]),
        {"duplicated": 1},
    ),
    "not in the list": (lambda r: edit_table(r / EPISODES, lambda rows: rows[:1] + rows[2:]), {"not_in_meta": 1}),
    "times go back": (
        lambda r: in_episode(r / DATA, 1, timestamp=lambda row: 0.05 if row["frame_index"] == 4 else row["timestamp"]),
        {"bad_timestamps": 1},
    ),
    "times are NaN": (lambda r: in_episode(r / DATA, 1, timestamp=float("nan")), {"bad_timestamps": 1}),
    "another width": (wide, {"bad_values": 1}),
    "null states": (lambda r: in_episode(r / DATA, 1, action=None), {"bad_values": 1}),
    "begins elsewhere": (
        lambda r: in_episode(r / EPISODES, 1, **{f"videos/{CAMERA}/from_timestamp": 500.0}),
        {"outside_video": 1},
    ),
    "begins between two frames": (
        lambda r: in_episode(r / EPISODES, 1, **{f"videos/{CAMERA}/from_timestamp": 0.65}),
        {"frames_missing": 1},
    ),
    "ends after the video": (
        lambda r: in_episode(r / EPISODES, 2, **{f"videos/{CAMERA}/from_timestamp": 1.7}),
        {"frames_missing": 1},
    ),
}


DATA_REASONS = set(list(SKIP_REASONS)[:9])  # found before any video is opened


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_costs_only_its_own_episodes(tmp_path, db, name):
    spoil, expected = FAULTS[name]
    root = make_v3(tmp_path / "arm", LENGTHS)
    spoil(root)
    summary = lerobot(db, str(root), images=not expected.keys() <= DATA_REASONS)
    assert summary.skipped == expected
    assert {skip["reason"] for skip in summary.skips} <= SKIP_REASONS.keys() | REASONS.keys()
    rows = rows_of(db)
    check_rows(rows)
    lost = {skip["episode_index"] for skip in summary.skips}
    assert set(rows) | lost >= {0, 1, 2}
    assert not set(rows) & lost
    for skip in summary.skips:
        assert any(f"episode {skip['episode_index']}: {skip['reason']}" in line for line in summary.problems)
        assert len(skip["detail"]) > 10


def test_every_reason_and_note_is_explained():
    page = (Path(__file__).parents[2] / "docs" / "robots.md").read_text()
    tables = re.split(r"^\| (?:reason|note) \|", page, flags=re.MULTILINE)[1:]
    for names, table in zip((SKIP_REASONS, REMARKS), tables, strict=True):
        rows = re.findall(r"^\| `(\w+)` \| (.+) \|$", table.split("\n\n")[0], flags=re.MULTILINE)
        assert [name for name, _ in rows] == list(names)


def test_tasks_of_another_type_are_not_read(tmp_path, db):
    root = make_v21(tmp_path / "arm", LENGTHS)
    path = root / "meta/episodes.jsonl"
    path.write_text(path.read_text().replace('["put it in"]', "7").replace('["take it out"]', '"alone"'))
    lerobot(db, str(root), images=False)
    assert [row["task"] for row in rows_of(db).values()] == [TASKS[0], "alone", TASKS[0]]  # those of the data


def test_v2_without_its_tasks_file_takes_those_of_the_list(tmp_path, db):
    root = make_v21(tmp_path / "arm", LENGTHS)
    (root / "meta/tasks.jsonl").unlink()
    summary = lerobot(db, str(root), images=False)
    assert [row["task"] for row in rows_of(db).values()] == [TASKS[0], TASKS[1], TASKS[0]]
    assert "tasks are those of the list" in summary.problems[0]


def test_lists_of_lines_are_read_as_they_are_written(tmp_path, db):
    """With a byte order mark, numbers as floats, separators that are none in JSON Lines, decomposed letters."""
    root = make_v21(tmp_path / "arm", LENGTHS)
    path = root / "meta/episodes.jsonl"
    text = path.read_text().replace('"length": 6', '"length": 6.0').replace("put it in", "put\u2028it in Ku\u0308che")
    path.write_text("\ufeff" + text.replace("\n", "\r\n"), newline="")
    lerobot(db, str(root), images=False)
    assert [row["task"] for row in rows_of(db).values()] == [
        "put\u2028it in K\u00fcche",
        TASKS[1],
        "put\u2028it in K\u00fcche",
    ]
    for line, says in (
        (b'{"length": 6, "tasks": ["caf\xe9"]}', "line 1 is no JSON"),
        (b"9" * 5000, "line 1 is no JSON"),
    ):
        path.write_bytes(line)
        with pytest.raises(ConfigError, match=says):
            lerobot(db, str(root), images=False)


def test_tasks_of_a_pandas_category(tmp_path, db):
    root = make_v3(tmp_path / "arm", LENGTHS)
    edit_table(root / EPISODES, lambda rows: [{**row, "tasks": []} for row in rows])
    tasks = pa.table({"task_index": [0.0, 1.0], "task": pa.array(TASKS).dictionary_encode()})
    pq.write_table(tasks, root / "meta/tasks.parquet")
    lerobot(db, str(root), images=False)
    assert [row["task"] for row in rows_of(db).values()] == [TASKS[0], TASKS[1], TASKS[0]]


def test_listed_twice_alike_is_one(tmp_path, db):
    root = make_v3(tmp_path / "arm", LENGTHS)
    twice(root)
    summary = lerobot(db, str(root))
    assert (summary.counts["added"], summary.skipped) == (3, {})
    assert any("announces 3 episodes, the list holds 4" in line for line in summary.problems)


NOTES = {
    "irregular_times": lambda r: in_episode(
        r / DATA, 1, timestamp=lambda row: row["timestamp"] + (0.005 if row["frame_index"] == 4 else 0)
    ),
    "unknown_values": lambda r: in_episode(r / DATA, 1, **{"observation.state": [1.0, float("nan"), float("inf")]}),
    "end_differs": lambda r: in_episode(r / EPISODES, 1, **{f"videos/{CAMERA}/to_timestamp": 1.0}),
    "no_task": lambda r: (
        in_episode(r / EPISODES, 1, tasks=[]),
        in_episode(r / DATA, 1, task_index=17),
    ),
}


def test_each_kind_of_note_is_one_line_and_left_out_episodes_have_their_own(tmp_path, db):
    root = make_v3(tmp_path / "arm", [8] * 6)
    for index in range(1, 6):
        in_episode(
            root / f"data/chunk-000/file-{index // 2:03d}.parquet",
            index,
            **{"observation.state": [1.0, float("nan"), float("inf")]},
        )
    in_episode(root / DATA, 0, timestamp=lambda row: 0.0)
    lines = list(text.robot_problems(lerobot(db, str(root))))
    assert [line.split(": ")[:2] for line in lines] == [["problem", "episode 0"], ["note", "unknown_values"]]
    assert "noted 5 times: states or actions that are not finite; they are NaN" in lines[1]
    assert "first: episode 1: 16 values of the state and 0 of the action" in lines[1]


@pytest.mark.parametrize("name", NOTES)
def test_unusual_episodes_are_kept_with_a_note(tmp_path, db, name):
    root = make_v3(tmp_path / "arm", LENGTHS)
    NOTES[name](root)
    summary = lerobot(db, str(root))
    assert summary.notes == {name: 1}
    assert summary.counts["added"] == 3
    row = rows_of(db)[1]
    assert list(numbers_in(row["frame_jpeg"][0])) == [number(1, i) for i in range(8)]
    if name == "unknown_values":
        np.testing.assert_array_equal(row["state"][3], np.float32([1, np.nan, np.nan]))
    if name == "irregular_times":
        assert row["frame_s"][4] == pytest.approx(0.405, abs=1e-6)
    if name == "no_task":
        assert row["task"] is None


def test_the_last_frames_time_as_the_end_is_no_difference(tmp_path, db):
    """A real dataset gives 14.2 s for 427 frames at 30 Hz: the last frame's time."""
    root = make_v3(tmp_path / "arm", LENGTHS)
    in_episode(root / EPISODES, 1, **{f"videos/{CAMERA}/to_timestamp": 1.3})
    assert lerobot(db, str(root)).notes == {}
    (clip,) = [clip for clip in read_clips(db) if "episode_000001" in clip.clip_id]
    assert clip.end_s == pytest.approx(1.4)


def test_one_image_of_many_may_be_missing(tmp_path, db):
    root = make_v3(tmp_path / "arm", (40,), images=True)
    edit_table(root / DATA, lambda rows: [{**rows[0], CAMERA: {"bytes": None, "path": "0.png"}}, *rows[1:]])
    summary = lerobot(db, str(root))
    assert summary.notes == {"frames_missing": 1}
    assert list(numbers_in(rows_of(db)[0]["frame_jpeg"][0])) == [None, *(number(0, i) for i in range(1, 40))]


@pytest.mark.parametrize(
    ("codec", "options"), [("mpeg4", {"q": "2"}), ("libsvtav1", {"crf": "5", "preset": "8", "g": "2"})]
)
def test_the_codec_that_the_file_has_counts(tmp_path, db, codec, options):
    """info.json may say h264 of MPEG-4; LeRobot's own default is AV1."""
    root = make_v3(tmp_path / "arm", LENGTHS)
    reencode(root / VIDEO, codec, options)
    edit_info(root, lambda info: info["features"][CAMERA].update(info={"video.codec": "h264"}))
    assert lerobot(db, str(root)).skipped == {}
    check_rows(rows_of(db))


@pytest.mark.parametrize("content", [None, b"no video at all", b""])
def test_without_any_video_nothing_can_be_used(tmp_path, db, content):
    root = make_v3(tmp_path / "arm", LENGTHS)
    (root / VIDEO).unlink()
    if content is not None:
        (root / VIDEO).write_bytes(content)
    with pytest.raises(ConfigError, match=f"nothing of .*{'video_missing' if content is None else 'unreadable'} 3"):
        lerobot(db, str(root))
    assert db.count("robot_episodes") == 0
    summary = lerobot(db, str(root), images=False)
    assert summary.counts["added"] == 3
    rows = rows_of(db)
    assert rows[0]["frame_jpeg"] is None
    assert rows[0]["clip_ids"] == ([None] if content is None else [f"arm:{CAMERA}~episode_000000:0-600"])
    assert summary.notes == ({"video_missing": 3} if content is None else {})


def test_one_camera_of_two_missing_costs_the_episode(tmp_path, db):
    """In v2.1 a single video can be lost."""
    root = make_v21(tmp_path / "arm", LENGTHS)
    (root / f"videos/chunk-000/{CAMERA}/episode_000001.mp4").unlink()
    summary = lerobot(db, str(root))
    assert summary.skipped == {"video_missing": 1}
    assert set(rows_of(db)) == {0, 2}


def broken(root, change):
    edit_info(root, change)


BAD = {
    "v1.6": (lambda r: broken(r, lambda i: i.update(codebase_version="v1.6")), "v1.6.*expected one of v3.0.*convert"),
    "v4.0": (lambda r: broken(r, lambda i: i.update(codebase_version="v4.0")), "v4.0"),
    "no version": (lambda r: broken(r, lambda i: i.pop("codebase_version")), "codebase_version is missing"),
    "no fps": (lambda r: broken(r, lambda i: i.update(fps=0)), "fps is 0, expected a number above 0"),
    "no features": (lambda r: broken(r, lambda i: i.update(features={})), "features"),
    "no width": (lambda r: broken(r, lambda i: i["features"]["action"].update(shape=[0])), "no action under.*--action"),
    "bad shape": (lambda r: broken(r, lambda i: i["features"]["action"].update(shape=[-2])), "action.*shape"),
    "path leaves": (lambda r: broken(r, lambda i: i.update(data_path="../{chunk_index}.parquet")), "cannot be used"),
    "strange place": (
        lambda r: broken(r, lambda i: i.update(data_path="data/{robot}.parquet")),
        "robot.*expected only",
    ),
    "attribute": (lambda r: broken(r, lambda i: i.update(data_path="d/{chunk_index.real}")), "cannot be used"),
    "no info": (lambda r: (r / "meta/info.json").unlink(), "no LeRobot dataset: it has no meta.info.json"),
    "info cut": (lambda r: cut(r / "meta/info.json", 0.5), "no valid JSON"),
    "no list": (lambda r: (r / EPISODES).unlink(), "lists no episode"),
    "never closed": (lambda r: shutil.rmtree(r / "meta/episodes"), "does not exist.*finalize"),
    "list without footer": (lambda r: cut(r / EPISODES, 0.5), "footer.*finalize"),
    "empty list": (lambda r: edit_table(r / EPISODES, lambda rows: rows.clear()), "lists no episode"),
    "no state": (lambda r: broken(r, lambda i: i["features"].pop("observation.state")), "no state.*--state KEY"),
    "all data gone": (lambda r: [p.unlink() for p in (r / "data").rglob("*.parquet")], "data_missing 3"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_cannot_be_used_at_all_is_an_error(tmp_path, db, name):
    spoil, message = BAD[name]
    root = make_v3(tmp_path / "arm", LENGTHS)
    spoil(root)
    with pytest.raises(ConfigError) as caught:
        lerobot(db, str(root))
    assert re.search(message, str(caught.value), 16)
    assert db.count("robot_episodes") == 0


def test_features_can_be_named_joined_and_left_out(tmp_path, db):
    root = make_v3(tmp_path / "arm", LENGTHS)
    lerobot(db, str(root), state=["observation.state", "action"], action=["none"])
    row = rows_of(db)[0]
    assert row["state"].shape == (6, 5)
    assert row["state_names"] == [
        *(f"observation.state.{n}" for n in ["x", "y", "gripper"]),
        "action.pan",
        "action.grip",
    ]
    assert row["action"] is None
    with pytest.raises(ConfigError, match=r"--state 'nope' is no feature.*\n.*observation.state, *action|action, obs"):
        lerobot(db, str(root), state=["nope"])
    with pytest.raises(ConfigError, match="is of type video"):
        lerobot(db, str(root), state=[CAMERA])


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (None, None),
        (["a", "b"], ["a", "b"]),
        ({"motors": ["a", "b"]}, ["a", "b"]),
        ({"b": 1, "a": 0}, ["a", "b"]),
        ([["a"], ["b"]], ["a", "b"]),
        (["a"], None),
        ([], None),
    ],
)
def test_names_in_every_form(tmp_path, db, names, expected):
    root = make_v3(tmp_path / "arm", (6,))
    edit_info(root, lambda info: info["features"]["action"].update(names=names))
    summary = lerobot(db, str(root), images=False)
    assert rows_of(db)[0]["action_names"] == expected
    assert len(summary.problems) == (names == ["a"])


def test_a_camera_file_beside_the_video_is_its_camera(tmp_path, db):
    root = make_v3(tmp_path / "arm", LENGTHS)
    path = root / VIDEO.replace(".mp4", ".camera.json")
    matrix = [100.0, 0, 64, 0, 100.0, 48, 0, 0, 1]
    path.write_text(json.dumps({"camera_matrix": matrix}))
    lerobot(db, str(root), images=False)
    assert [json.loads(clip.camera)["camera_matrix"] for clip in read_clips(db)] == [matrix] * 3
    path.write_text("{}")
    with pytest.raises(ConfigError, match="camera_matrix"):
        lerobot(db, str(root), images=False)


def test_a_video_that_lost_a_frame_is_noted_for_all_its_episodes(tmp_path, db):
    """19 frames in the file, 20 listed: the times do not show whose images are shifted."""
    root = make_v3(tmp_path / "arm", (*LENGTHS, 6))
    numbers = [number(e, i) for e, length in enumerate((*LENGTHS, 6)) for i in range(length)]
    write_video(root / VIDEO, (numbered_image(n) for n in numbers if n != number(0, 3)), np.arange(24) / FPS)
    summary = lerobot(db, str(root))
    assert summary.notes == {"video_count": 3}
    assert summary.skipped == {"frames_missing": 1}  # the last one
    assert "holds 24 frames, the episodes in it 25" in summary.problems[0]


def test_units_from_names(tmp_path, db):
    root = make_v3(tmp_path / "arm", (6,))
    names = ["joint_1_rad", "slide_mm", "gripper"]
    edit_info(root, lambda info: info["features"]["observation.state"].update(names=names))
    edit_info(root, lambda info: info.update(discarded_episode_indices=[4]))
    summary = lerobot(db, str(root), images=False)
    assert rows_of(db)[0]["state_units"] == ["rad", "mm", None]
    assert "discarded episodes, [4]" in summary.problems[0]


def test_units_that_a_dataset_states(tmp_path, db):
    """As our exports do, beside the names; what is no list of that many texts is told, and the names count."""
    root = make_v3(tmp_path / "arm", (6,))
    names = ["joint_1_rad", "y", "gripper"]
    edit_info(root, lambda info: info["features"]["observation.state"].update(names=names, units=["rad", "m", None]))
    edit_info(root, lambda info: info["features"]["action"].update(names=names[:2], units=["m"]))
    summary = lerobot(db, str(root), images=False)
    assert rows_of(db)[0]["state_units"] == ["rad", "m", None]
    assert rows_of(db)[0]["action_units"] == ["rad", None]
    assert "feature action: units is ['m'], expected 2 texts or nulls" in summary.problems[0]


def test_depth_is_no_camera(tmp_path, db):
    root = make_v3(tmp_path / "arm", (6,), cameras=(CAMERA, "depth"))
    edit_info(root, lambda info: info["features"]["depth"].update(info={"video.is_depth_map": True}))
    summary = lerobot(db, str(root))
    assert rows_of(db)[0]["cameras"] == [CAMERA]
    assert "camera depth holds depth" in summary.problems[0]


def deep(value: float, dtype=np.uint16, channels: int = 1, kind: str = ".png") -> bytes:
    shape = (24, 32) if channels == 1 else (24, 32, channels)
    return cv2.imencode(kind, np.full(shape, value, dtype))[1].tobytes()


@pytest.mark.parametrize(
    ("image", "is_depth"),
    [
        (deep(900), True),
        (deep(900, kind=".tiff"), True),
        (deep(0.9, np.float32, kind=".tiff"), True),
        (deep(900, channels=3), False),
        (deep(90, np.uint8), None),
    ],
    ids=["png", "tiff", "metres", "deep colour", "grey"],
)
def test_depth_without_a_flag_is_no_camera(tmp_path, db, image, is_depth):
    """Recordings of 2024 and 2025 store depth as 16-bit images in millimetres, without a flag."""
    root = make_v3(tmp_path / "arm", (3, 3), images=True, cameras=(CAMERA, "top"))
    edit_table(root / DATA, lambda rows: [{**row, "top": {"bytes": image, "path": ""}} for row in rows])
    if is_depth is False:
        with pytest.raises(ConfigError, match=r"bad_pictures 2; .*uint16 and 3 channels, expected 8 bits"):
            lerobot(db, str(root))
        return
    summary = lerobot(db, str(root))
    assert summary.skipped == {}
    assert rows_of(db)[1]["cameras"] == ([CAMERA] if is_depth else [CAMERA, "top"])
    assert [line.partition(" (an image of")[0] for line in summary.problems] == (
        ["camera top holds depth, not images"] if is_depth else []
    )


def test_a_video_of_depth_is_no_camera(tmp_path, db):
    """Whether info.json gives its pixel format, or only the file does."""
    root = make_v3(tmp_path / "arm", LENGTHS, cameras=(CAMERA, "top"))
    path = root / "videos/top/chunk-000/file-000.mp4"
    with av.open(str(path), "w") as target:
        stream = target.add_stream("ffv1", rate=FPS, width=32, height=24, pix_fmt="gray16le")
        for _ in range(sum(LENGTHS)):
            target.mux(stream.encode(av.VideoFrame.from_ndarray(np.full((24, 32), 900, np.uint16), "gray16le")))
        target.mux(stream.encode())
    summary = lerobot(db, str(root))
    assert (summary.skipped, summary.notes) == ({}, {"depth_camera": 3})
    rows = rows_of(db)
    check_rows(rows)
    assert [row["cameras"] for row in rows.values()] == [[CAMERA]] * 3
    assert not [clip for clip in read_clips(db) if "top" in clip.clip_id]
    assert lerobot(db, str(root)).counts["already_there"] == 3
    edit_info(root, lambda info: info["features"]["top"].update(info={"video.pix_fmt": "gray16le"}))
    assert any("camera top holds depth" in line for line in lerobot(db, str(root)).problems)


def test_indices_as_floats_and_a_missing_camera(tmp_path, db):
    """pandas stores a column with one missing number as doubles."""
    wrist = "observation.images.wrist"
    root = make_v3(tmp_path / "arm", LENGTHS, cameras=(CAMERA, wrist))
    edit_places(root, {f"videos/{wrist}/{n}": None for n in ("chunk_index", "file_index", "from_timestamp")}, episode=2)
    in_episode(root / EPISODES, 1, **{f"videos/{wrist}/file_index": float("nan")})
    as_float = pq.read_table(root / DATA)
    at = as_float.schema.get_field_index("episode_index")
    column = as_float.column("episode_index").cast(pa.float64())
    pq.write_table(as_float.set_column(at, "episode_index", column), root / DATA)
    summary = lerobot(db, str(root))
    assert (summary.counts["added"], summary.skipped, summary.notes) == (3, {}, {"no_camera": 2, "video_count": 1})
    assert [row["cameras"] for row in rows_of(db).values()] == [[CAMERA, wrist], [CAMERA], [CAMERA]]
    lines = [line for line in summary.problems if "no_camera" in line]
    assert f"gives no video of {wrist} (file_index missing)" in lines[0]
    assert lines[1].endswith(f"gives no video of {wrist}")
    check_rows(rows_of(db))


def test_features_that_are_not_used_refuse_nothing(tmp_path, db):
    root = make_v3(tmp_path / "arm", LENGTHS)
    strange = {
        "empty": {"dtype": "float32", "shape": [0], "names": None},
        "none": 3,
        "bad": {"dtype": "x", "shape": [-1]},
    }
    edit_info(root, lambda info: info["features"].update(strange, number={"dtype": "int64", "shape": 1.0}))
    summary = lerobot(db, str(root), images=False)
    assert summary.counts["added"] == 3
    assert [line.partition("; not used")[0].partition(": ")[2] for line in summary.problems] == [
        "features.none is 3, expected an object with dtype",
        "features.bad.shape[0] is -1, expected a whole number, none below 0",
    ]
    with pytest.raises(ConfigError, match="'empty' has a width of 0"):
        lerobot(db, str(root), state=["empty"])
    with pytest.raises(ConfigError, match=r"features\.bad\.shape\[0\] is -1"):
        lerobot(db, str(root), action=["bad"])


OTHER = "data/chunk-000/file-001.parquet"


def test_an_episode_in_another_file_is_found(tmp_path, db):
    """lerobot's converter from v2.1 wrote the previous file for the first episode of each new file."""
    root = make_v3(tmp_path / "arm", LENGTHS)
    in_episode(root / EPISODES, 2, **{"data/file_index": 0})
    summary = lerobot(db, str(root))
    assert (summary.skipped, summary.notes) == ({}, {"other_file": 1})
    assert f"its frames lie in {OTHER}, the list says {DATA}" in summary.problems[0]
    check_rows(rows_of(db))
    in_episode(root / EPISODES, 2, **{"data/file_index": 7})  # a file that is not there at all
    assert lerobot(db, str(root)).counts["already_there"] == 3


def test_frames_that_only_look_like_the_episode_are_not_taken(tmp_path, db):
    root = make_v3(tmp_path / "arm", LENGTHS)
    in_episode(root / EPISODES, 2, dataset_from_index=3, **{"data/file_index": 0})
    assert lerobot(db, str(root)).skipped == {"not_in_data": 1}
    shutil.copy(root / OTHER, root / OTHER.replace("1.parquet", "2.parquet"))
    summary = lerobot(db, str(root))
    assert summary.skipped == {"duplicated": 1}


def test_tasks_in_a_column_or_only_in_the_data(tmp_path, db):
    root = make_v3(tmp_path / "arm", LENGTHS)
    edit_table(root / EPISODES, lambda rows: [{**row, "tasks": []} for row in rows])
    pq.write_table(pa.table({"task": ["one", "two"], "task_index": [0, 1]}), root / "meta/tasks.parquet")
    lerobot(db, str(root), images=False)
    assert [row["task"] for row in rows_of(db).values()] == ["one", "two", "one"]


def test_again_reads_nothing_and_what_changed_is_replaced(tmp_path, db):
    root = make_v3(tmp_path / "arm", LENGTHS)
    lerobot(db, str(root))
    version = db.table("robot_episodes").version
    again = lerobot(db, str(root))
    assert again.counts == {"listed": 3, "added": 0, "replaced": 0, "already_there": 3, "skipped": 0}
    assert db.table("robot_episodes").version == version
    in_episode(root / DATA, 1, action=[5.0, 6.0])
    changed = lerobot(db, str(root))
    assert (changed.counts["replaced"], changed.counts["already_there"], changed.counts["added"]) == (1, 2, 0)
    assert rows_of(db)[1]["action"].tolist() == [[5.0, 6.0]] * 8
    assert len(rows_of(db)) == 3
    other = lerobot(db, str(root), view="ego")  # a setting that clips carry
    assert (other.counts["replaced"], other.clips["changed"]) == (3, 3)


def test_success_is_that_of_any_step(tmp_path, db):
    """Null where the data does not say; episodes that were ingested without it get it by the next ingest."""
    root = make_v3(tmp_path / "arm", LENGTHS)
    lerobot(db, str(root), images=False)
    assert [row["success"] for row in rows_of(db).values()] == [None] * 3
    kinds = {"bool": (pa.bool_(), True, False), "list": (pa.list_(pa.float32(), 1), [1.0], [0.0])}
    for kind, yes, no in kinds.values():
        for file, told in (("000", {0: [no, yes, no, no, no, no], 1: [no] * 8}), ("001", {2: [None] * 5})):
            table = pq.read_table(root / f"data/chunk-000/file-{file}.parquet")
            values = pa.array([value for one in told.values() for value in one], kind)
            table = table.select([name for name in table.column_names if name != "next.success"])
            pq.write_table(table.append_column("next.success", values), root / f"data/chunk-000/file-{file}.parquet")
        counts = lerobot(db, str(root), images=False).counts
        assert [row["success"] for row in rows_of(db).values()] == [True, False, None]
        assert counts["replaced"] == (2 if kind == pa.bool_() else 0), "an unknown one is the row of before"


def test_a_name_belongs_to_one_place(tmp_path, db):
    root = make_v3(tmp_path / "arm", LENGTHS)
    lerobot(db, str(root))
    moved = tmp_path / "elsewhere" / "arm"
    moved.parent.mkdir()
    root.rename(moved)
    with pytest.raises(ConfigError, match="already holds 3 robot episodes from") as caught:
        lerobot(db, str(moved))
    assert "--replace" in str(caught.value)
    summary = lerobot(db, str(moved), replace=True)
    assert (summary.counts["replaced"], summary.clips["changed"]) == (3, 3)
    assert {clip.video_uri for clip in read_clips(db)} == {str(moved / VIDEO)}


@pytest.mark.parametrize("seed", range(20))
def test_matching_times_is_nearest_and_never_twice(seed):
    rng = np.random.default_rng(seed)
    frame_s = np.cumsum(rng.uniform(0.02, 0.05, rng.integers(0, 30)))
    wanted = np.sort(rng.uniform(-0.1, 1.2, rng.integers(1, 30)))
    chosen, off = match_times(frame_s, wanted, 0.02)
    found = chosen[chosen >= 0]
    assert (np.diff(found) > 0).all()
    if len(found):
        distances = np.abs(frame_s[found] - wanted[chosen >= 0])
        assert off == distances.max() <= 0.02
        for step, frame in zip(np.flatnonzero(chosen >= 0), found, strict=True):
            assert np.abs(frame_s - wanted[step]).min() == abs(frame_s[frame] - wanted[step])
    for step in np.flatnonzero(chosen < 0):
        near = np.flatnonzero(np.abs(frame_s - wanted[step]) <= 0.02)
        best = near[np.argmin(np.abs(frame_s[near] - wanted[step]))] if len(near) else None
        assert best is None or best in found  # it is nearer to another time


def test_half_a_frame_late_is_another_image(tmp_path, db):
    """A shift of 0.03 s at 10 Hz is still this image, with a note; of 0.05 s it may be the next one."""
    root = make_v3(tmp_path / "arm", (6,))
    in_episode(root / EPISODES, 0, **{f"videos/{CAMERA}/from_timestamp": 0.03})
    summary = lerobot(db, str(root))
    assert summary.notes == {"video_clock": 1}
    assert list(numbers_in(rows_of(db)[0]["frame_jpeg"][0])) == [number(0, i) for i in range(6)]


def test_summary_is_json(tmp_path, db):
    root = make_v3(tmp_path / "arm", LENGTHS)
    (root / "data/chunk-000/file-001.parquet").unlink()
    summary = json.loads(json.dumps(dataclasses.asdict(lerobot(db, str(root)))))
    assert summary["skips"] == [
        {
            "episode_index": 2,
            "reason": "data_missing",
            "detail": "there is no file data/chunk-000/file-001.parquet",
        }
    ]


def test_bytes_that_are_no_image(tmp_path, db):
    root = make_v3(tmp_path / "arm", LENGTHS, images=True)
    in_episode(root / DATA, 1, **{CAMERA: {"bytes": b"GIF89a", "path": ""}})
    assert lerobot(db, str(root)).skipped == {"bad_pictures": 1}
    assert set(rows_of(db)) == {0, 2}
    assert not list(Path(db.uri).rglob(".episode*"))


def test_a_part_of_a_dataset_whose_features_have_the_other_usual_names(tmp_path, db):
    """`state` and `actions`; one of three data files was fetched, and no video."""
    root = make_v3(tmp_path / "arm", (6, 8, 5, 6, 4))
    names = {"observation.state": "state", "action": "actions"}

    def rename(info):
        info["features"] = {names.get(key, key): value for key, value in info["features"].items()}

    edit_info(root, rename)
    table = pq.read_table(root / DATA)
    pq.write_table(table.rename_columns([names.get(name, name) for name in table.column_names]), root / DATA)
    for file in (*(root / "data/chunk-000").glob("file-00[12].parquet"), root / VIDEO):
        file.unlink()
    with pytest.raises(ConfigError, match=r"nothing of .* can be used: data_missing 3, video_missing 2"):
        lerobot(db, str(root))
    summary = lerobot(db, str(root), images=False)
    assert (summary.skipped, summary.notes) == ({"data_missing": 3}, {"video_missing": 2})
    rows = rows_of(db)
    assert {e: row["state"].shape for e, row in rows.items()} == {0: (6, 3), 1: (8, 3)}
    assert rows[0]["state_names"][-1] == "gripper"
    np.testing.assert_array_equal(rows[1]["state"], state_of(1, 8))
