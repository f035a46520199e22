"""Messages of `handloom ingest` for wrong paths: each names what is there, and what to do."""

from __future__ import annotations

import json

import pytest

HEADER = "narration_id,participant_id,video_id,start_timestamp,stop_timestamp"
UID = "0a8f6747-7f79-4176-85ca-f5ec01a15435"
ANNOTATED = ("ingest", "epic", "--annotations", "EPIC_train.csv")
EPIC = (*ANNOTATED, "--videos", "videos")
IN_FOLDER = ("ingest", "ego4d", "--videos", "videos")
EGO4D = (*IN_FOLDER, "--manifest", "ego4d.json")


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A working folder with a folder of one video, annotations, and a robot dataset."""
    (tmp_path / "videos").mkdir()
    (tmp_path / "videos/P01_01.mp4").touch()
    (tmp_path / "EPIC_train.csv").write_text(f"{HEADER}\nP01_01_0,P01,P01_01,00:00:01.00,00:00:02.00\n")
    (tmp_path / "ego4d.json").write_text(json.dumps({"videos": [{"video_uid": UID, "duration_sec": 30.0}]}))
    (tmp_path / "narration.json").write_text(json.dumps({"videos": {UID: {"narrations": [{"time": 3, "text": "x"}]}}}))
    (tmp_path / "empty.json").touch()
    (tmp_path / "arm/meta").mkdir(parents=True)
    (tmp_path / "arm/meta/info.json").write_text("{}")
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts/a.txt").touch()
    (tmp_path / "film.csv").write_bytes(b"\0\0\0 ftypisom\n")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (("ingest", "folder", "videos/P01_01.mp4"), ("is a file, expected a folder", "give the folder that it lies")),
        (("ingest", "folder", "video"), ("does not exist", "video is not in it; near: videos")),
        (("ingest", "folder", "videos/a/b"), ("does not exist", "a is not in it; it holds P01_01.mp4")),
        (("ingest", "folder", "texts"), ("holds no video: 1 files (.txt 1)", "videos end in 3gp, avi")),
        (("ingest", "folder", "arm"), ("holds no video: 1 files (.json 1)", "`handloom ingest lerobot`")),
        (("ingest", "folder", "videos", "--clip-seconds", "-3"), ("clip length -3.0 s", "`--clip-seconds 0` keeps")),
        ((*EPIC, "--annotations", "EPIC_tran.csv"), ("No such file", "near: EPIC_train.csv")),
        ((*EPIC, "--annotations", "videos"), ("Is a directory", "it is a folder: give the file")),
        ((*EPIC, "--annotations", "film.csv"), ("is no text, expected a CSV file",)),
        ((*EPIC, "--annotations", "ego4d.json"), ("lacks the columns narration_id", "EPIC_100_validation.csv")),
        ((*ANNOTATED, "--videos", "EPIC_train.csv"), ("is a file, expected a folder",)),
        ((*EPIC, "--participant", "P99"), ("of participant P99, expected some of P01", "check --participant and")),
        ((*ANNOTATED, "--videos", "texts", "--only-present"), ("none of the 1 videos is below", "nothing was changed")),
        ((*IN_FOLDER, "--manifest", "empty.json"), ("is empty, expected JSON", "download it again")),
        ((*IN_FOLDER, "--manifest", "narration.json"), ("expected a list", "it is ego4d.json; annotations go to")),
        ((*EGO4D, "--narrations", "ego4d.json"), ("nothing of narration file", "a video has narration_pass_1")),
        ((*EGO4D, "--fho", "narration.json"), ("expected a list", "fho_main.json; narrations go to --narrations")),
        ((*EGO4D, "--before-s", "0", "--after-s", "0"), ("expected 0.1 s or more", "give longer --before-s")),
        (("ingest", "lerobot", "arm/meta"), ("is no LeRobot dataset: it has no meta/info.json", "hint: give /")),
        (("ingest", "lerobot", "."), ("is no LeRobot dataset", "/arm\n")),
        (("ingest", "lerobot", "armm"), ("does not exist, expected a folder", "near: arm")),
        (("ingest", "calvin", "arm"), ("CALVIN dataset", "give the folder that was unpacked")),
    ],
)  # fmt: skip
def test_a_mistake_is_named_with_what_to_do(cli, here, args, says):
    code, out, err = cli(*args, "--db", "db")
    assert (code, out) == (2, "")
    assert all(words in err for words in says), err
    assert not (here / "db").exists()


def test_case_of_a_participant_does_not_matter(cli, here):
    assert cli(*EPIC, "--participant", "p01", "--db", "db")[0] == 0
    code, _, err = cli("ingest", "folder", "db", "--db", "other")
    assert "it is a database: give the folder of videos first" in err
    code, _, err = cli("ingest", "folder", "videos", "--db", "texts")
    assert (code, "it holds a.txt" in err) == (1, True)
    code, _, err = cli("ingest", "folder", "videos", "--db", "film.csv/db")
    assert (code, "film.csv/db as a database" in err) == (1, True)
