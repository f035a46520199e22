"""Exit codes of `handloom ingest` for all sources: 2 if nothing can be used, 3 if something could not."""

from __future__ import annotations

import json
import logging
import shutil
import sys

import pytest
from support.calvin_data import make_calvin
from support.lerobot_data import make_v3

from handloom.api import Database
from handloom.cli import main

HEADER = "narration_id,participant_id,video_id,start_timestamp,stop_timestamp"
GOOD, BAD = "P01_01_0,P01,P01_01,00:00:01.00,00:00:02.00", "P01_01_1,P01,P01_01,00:01.0,00:02.0"
UID = "0a8f6747-7f79-4176-85ca-f5ec01a15435"


@pytest.fixture
def ingest(capsys, monkeypatch, tmp_path):
    """`ingest("epic", ...)` into a database of its own: (exit code, number of clips in the list, stderr)."""

    def call(*args: object) -> tuple[int, int, str]:
        db = tmp_path / "db"
        capsys.readouterr()
        monkeypatch.setattr(sys, "argv", ["handloom", "ingest", *map(str, args), "--db", str(db), "--json"])
        with pytest.raises(SystemExit) as ended:
            main()
        out, err = capsys.readouterr()
        assert "Traceback" not in err
        if ended.value.code != 2:
            json.loads(out)
        assert db.exists() == (ended.value.code != 2)  # what fails leaves no empty database
        return ended.value.code or 0, Database.open_or_new(db).count("clip_list"), err

    yield call
    logging.getLogger("handloom").handlers = []


@pytest.mark.parametrize(("rows", "code"), [([GOOD], 0), ([GOOD, BAD], 3), ([BAD, BAD], 2), ([], 2)])
def test_epic(ingest, tmp_path, rows, code):
    (tmp_path / "labels.csv").write_text("\n".join([HEADER, *rows]))
    (tmp_path / "P01_01.MP4").touch()
    ended = ingest("epic", "--annotations", tmp_path / "labels.csv", "--videos", tmp_path)
    assert ended[:2] == (code, int(GOOD in rows))
    assert ("problem: " in ended[2] or "error: nothing of" in ended[2]) == (code > 0)


@pytest.mark.parametrize(
    ("narrations", "videos", "code"),
    [
        ([{"time": 3, "text": "x"}], [{}], 0),
        ([{"time": 3, "text": "x"}, {"time": 4}], [{}], 3),
        ([{"time": 3, "text": "x"}], [{}, {"video_uid": ""}], 3),
        ([{"time": 3}], [{}], 2),
        ([], [{}], 2),
    ],
)
def test_ego4d(ingest, tmp_path, narrations, videos, code):
    listed = [{"video_uid": UID, "duration_sec": 30.0} | video for video in videos]
    (tmp_path / "ego4d.json").write_text(json.dumps({"videos": listed}))
    (tmp_path / "told.json").write_text(json.dumps({"videos": {UID: {"narrations": narrations}}}))
    (tmp_path / f"{UID}.mp4").touch()
    files = ("--manifest", tmp_path / "ego4d.json", "--narrations", tmp_path / "told.json")
    assert ingest("ego4d", *files, "--videos", tmp_path)[:2] == (code, int(code != 2))


@pytest.mark.parametrize(
    ("labels", "code"),
    [
        ("video,narration\na.mp4,open", 0),
        ("video,narration\na.mp4,open\ngone.mp4,close", 3),
        ("video,narration\na.mp4,open\na.mp4", 3),
        ("start,end\n1,2", 2),
        ("video,start_s,end_s\na.mp4,0,1\na.mp4,1,99", 3),
        ("video,narration\ngone.mp4,close", 2),
        ("video,narration\na.mp4", 2),
        ("video,narration\n", 2),
    ],
)
def test_folder(ingest, rendered, tmp_path, labels, code):
    """`clips.csv` is an annotation file. A video that cannot be read is kept, and `run` will reject it."""
    folder = tmp_path / "videos"
    folder.mkdir()
    shutil.copy(rendered / "video0.mp4", folder / "a.mp4")
    (folder / "broken.mp4").write_bytes(b"")
    (folder / "clips.csv").write_text(labels)
    assert ingest("folder", folder)[:2] == (code, 0 if code == 2 else 2)


def test_a_folder_of_unreadable_videos(ingest, tmp_path):
    for name in "ab":
        (tmp_path / f"{name}.mp4").write_bytes(b"")
    code, num_clips, err = ingest("folder", tmp_path)
    assert (code, num_clips) == (3, 2)
    assert "none of the 2 videos" in err


@pytest.mark.parametrize(("lost", "code"), [((), 0), ((1,), 3), ((0, 1), 2)])
def test_robots(ingest, tmp_path, lost, code):
    make_v3(tmp_path / "arm", (4, 4, 4))
    for file in lost:
        (tmp_path / f"arm/data/chunk-000/file-{file:03d}.parquet").unlink()
    assert ingest("lerobot", tmp_path / "arm", "--no-pictures")[:2] == (code, 3 - len(lost) if code != 2 else 0)


def test_an_unreadable_list_of_episodes_is_a_loss(ingest, tmp_path):
    make_v3(tmp_path / "arm", (4, 4, 4))
    (tmp_path / "arm/meta/episodes/chunk-000/file-001.parquet").write_bytes(b"PAR1 cut short")
    code, num_clips, err = ingest("lerobot", tmp_path / "arm", "--no-pictures")
    assert (code, num_clips) == (3, 3)
    assert "file-001.parquet: it has no Parquet footer" in err


@pytest.mark.parametrize(("lost", "code"), [(0, 0), (1, 3), (99, 2)])
def test_calvin(ingest, tmp_path, lost, code):
    make_calvin(tmp_path / "calvin")
    for path in sorted((tmp_path / "calvin").rglob("episode_*.npz"))[:lost]:
        path.unlink()
    assert ingest("calvin", tmp_path / "calvin", "--no-pictures")[0] == code


@pytest.mark.parametrize("source", ["folder", "lerobot", "calvin"])
def test_help_lists_the_views(cli, source):
    code, out, _ = cli("ingest", source, "--help")
    assert (code, "--view <ego|exo>" in out) == (0, True)
