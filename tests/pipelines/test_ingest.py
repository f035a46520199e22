"""Ingesting again: other cuts, other words, missing videos; and the messages about it."""

from __future__ import annotations

import json
import shutil

import pytest
from support.made_videos import encoded, lay
from support.rows import RUN_KEY, make_row
from support.tagged_video import gopro, iphone, tag

from handloom.api import Database
from handloom.pipelines.run.changed_videos import renew_changed_videos
from handloom.schemas.tables.arrow import clips_schema
from handloom.schemas.tables.reject import Reject
from handloom.store.clips.clip_list import read_clips
from handloom.store.clips.commit import Committer
from handloom.store.fragments import write_fragment
from handloom.store.runs.lease import leased
from handloom.store.runs.runs import end_run

SCHEMA = clips_schema(4)


@pytest.fixture
def videos(rendered, tmp_path):
    """Two videos of 2 s."""
    (tmp_path / "videos").mkdir()
    for name in ("video0.mp4", "video1.mp4"):
        shutil.copy(rendered / name, tmp_path / "videos")
    return tmp_path / "videos"


@pytest.fixture
def ingest(cli, tmp_path):
    """`ingest("folder", ...)` into one database: (exit code, summary, stderr)."""

    def call(*args):
        code, out, err = cli("ingest", *args, "--db", tmp_path / "db", "--json")
        return code, json.loads(out) if out else {}, err

    return call


def listed(tmp_path, *names):
    return {c.clip_id: [getattr(c, name) for name in names] for c in read_clips(Database.open(tmp_path / "db"))}


def finish(tmp_path, lost=()):
    """Every pending clip gets a row, those of the videos `lost` a reject."""
    db = Database.open(tmp_path / "db")
    clips = read_clips(db)
    rows = [make_row(clip) for clip in clips if clip.video_id not in lost]
    rejects = [Reject(c.clip_id, "fetch", "video_missing", "gone") for c in clips if c.video_id in lost]
    committer = Committer(db, RUN_KEY, SCHEMA)
    committer.commit([write_fragment(db.uri, rows, SCHEMA)] if rows else [], rejects)


def counts(tmp_path):
    db = Database.open(tmp_path / "db")
    return db.count("clip_list"), db.count("clips"), db.count("rejects")


def test_another_cut_is_added_or_replaces_the_first_but_never_silently(ingest, cli, videos, tmp_path):
    assert ingest("folder", videos)[1]["added"] == 2
    finish(tmp_path)
    code, _, err = ingest("folder", videos, "--clip-seconds", 1)
    assert code == 2
    assert "4 new clips overlap clips of the list" in err
    assert "for example folder:video0:0-1000 and folder:video0:0-2000" in err
    assert "--replace takes those out" in err
    assert counts(tmp_path) == (2, 2, 0)
    code, done, err = ingest("folder", videos, "--clip-seconds", 1, "--add")
    assert (code, done["added"], done["overlapping"], done["others"], done["num_clips"]) == (0, 4, 4, 2, 6)
    assert "4 new clips overlap" in err
    with leased(Database.open(tmp_path / "db"), RUN_KEY, settings={}, resources={}, versions={}) as lease:
        code, _, err = ingest("folder", videos, "--clip-seconds", 1, "--replace")
        assert (code, "nothing can be removed meanwhile" in err) == (1, True)
        code, done, _ = ingest("folder", videos, "--clip-seconds", 1)  # the same again is no other cut
        assert (code, done["already_there"], done["others"]) == (0, 4, 2)
        end_run(Database.open(tmp_path / "db"), lease.run, "done", num_clips=0, num_rejects=0, num_frames=0, stage_s={})
    code, done, _ = ingest("folder", videos, "--clip-seconds", 1, "--replace")
    assert (code, done["removed"], done["removed_rows"], done["others"]) == (0, 2, 2, 0)
    assert counts(tmp_path) == (4, 0, 0)
    code, out, _ = cli("ingest", "folder", videos, "--clip-seconds", 0, "--replace", "--db", tmp_path / "db")
    assert out.startswith("added 2, changed 0, already there 0, removed 4 (rows 0, rejects 0): 2 clips in the list\n")


def test_a_video_that_can_be_read_only_now_or_no_longer(ingest, videos, tmp_path):
    away = (videos / "video0.mp4").rename(tmp_path / "video0.mp4")
    (videos / "video0.mp4").symlink_to("nowhere.mp4")
    ingest("folder", videos, "--clip-seconds", 1)
    finish(tmp_path, lost=("video0",))
    assert counts(tmp_path) == (3, 2, 1)
    away.replace(videos / "video0.mp4")
    code, done, _ = ingest("folder", videos, "--clip-seconds", 1)
    assert (code, done["added"], done["removed"], done["removed_rejects"]) == (0, 2, 1, 1)
    assert counts(tmp_path) == (4, 2, 0)
    (videos / "video0.mp4").write_bytes(b"")
    code, done, err = ingest("folder", videos, "--clip-seconds", 1, "--replace")
    assert (done["added"], done["removed"], done["num_clips"]) == (0, 0, 4)
    assert "video0.mp4: video_unreadable" in err


@pytest.mark.parametrize("first", ["ingest", "run", "run that rejects"])
def test_a_video_that_is_shorter_now_leaves_the_same_clips_whoever_notices(ingest, videos, tmp_path, first):
    ingest("folder", videos, "--clip-seconds", 1)
    db = Database.open(tmp_path / "db")
    finish(tmp_path)
    lay(videos / "video0.mp4", encoded("h264"))
    if first != "ingest":
        assert renew_changed_videos(db).redone == 2
    if first == "run that rejects":
        reject = Reject("folder:video0:1000-2000", "decode", "outside_video", "no")
        Committer(db, RUN_KEY, SCHEMA).commit([], [reject])
    code, done, err = ingest("folder", videos, "--clip-seconds", 1)
    assert (code, done["added"], done["removed"] + done["dropped"]) == (0, 1, 1), err
    assert sorted(clip.end_s for clip in read_clips(db) if clip.video_id == "video0") == [1.0, 1.6]
    assert counts(tmp_path) == (4, 2, 0)


def test_words_arrive_and_only_what_is_said_changes(ingest, videos, tmp_path):
    labels = videos / "clips.csv"
    labels.write_text("video;narration;view\nvideo0.mp4;öffnet;exo\nvideo1.mp4;schließt;\n", encoding="utf-8-sig")
    ingest("folder", videos, "--view", "ego")
    told = {"folder:video0:0-2000": ["öffnet", None, "exo"], "folder:video1:0-2000": ["schließt", None, "ego"]}
    assert listed(tmp_path, "narration", "verb", "view") == told
    assert ingest("folder", videos, "--view", "ego")[1]["changed"] == 0, "the same again"
    labels.write_text("clip;text\nvideo0.mp4;x\n")
    code, _, err = ingest("folder", videos)
    assert code == 2
    assert "has the columns clip, text" in err
    assert listed(tmp_path, "narration", "verb", "view") == told
    labels.write_text("video,verb\nvideo0.mp4,open\n")
    assert ingest("folder", videos)[1]["changed"] == 1
    told["folder:video0:0-2000"][1] = "open"
    assert listed(tmp_path, "narration", "verb", "view") == told
    labels.unlink()
    assert ingest("folder", videos)[1]["changed"] == 0
    assert ingest("folder", videos, "--replace")[1]["changed"] == 2
    assert set(map(tuple, listed(tmp_path, "narration", "verb", "view").values())) == {(None, None, None)}


def test_words_that_come_after_the_run_reach_the_rows(ingest, cli, videos, tmp_path):
    ingest("folder", videos)
    finish(tmp_path)
    db = Database.open(tmp_path / "db")
    (videos / "clips.csv").write_text("video,narration,view\nvideo0.mp4,opens the drawer,\nvideo1.mp4,,ego\n")
    _, out, err = cli("ingest", "folder", videos, "--db", db.uri)
    assert "  1 row that was made before has its new words\n" in out
    assert "1 row was made with another view than the list has now, for example folder:video1:0-2000: `handloom" in err
    assert f"run --db {db.uri} --recompute` computes what depends on it again" in err
    assert [hit.clip_id for hit in db.search(text="drawer")] == ["folder:video0:0-2000"]
    assert db.count("clips") == 2
    code, out, err = cli("ingest", "folder", videos, "--db", db.uri, "--replace")
    assert (code, out.splitlines()[0]) == (
        0,
        "added 0, changed 0, already there 2, removed 0 (rows 1, rejects 0): 2 clips in the list",
    )
    assert "  1 row was made with another view, camera or hand size than the list has now: the next run makes it" in out
    assert db.clips(["video_id"]).column("video_id").to_pylist() == ["video0"]


def test_actions_take_the_place_of_pieces(ingest, cli, videos, tmp_path):
    ingest("folder", videos)
    lines = ("video,start_s,end_s,verb,noun", "video0.mp4,0,0.5,reach,", "video0.mp4,0.5,2,grasp,cup")
    (videos / "clips.csv").write_text("\n".join(lines))
    assert ingest("folder", videos)[0] == 2
    assert ingest("folder", videos, "--replace")[1]["removed"] == 1
    assert listed(tmp_path, "verb") == {
        "folder:video0:0-500": ["reach"], "folder:video0:500-2000": ["grasp"], "folder:video1:0-2000": [None],
    }  # fmt: skip
    _, out, _ = cli("status", "--db", tmp_path / "db", "--clips")
    assert sorted(line.split(" s  ")[1] for line in out.splitlines()) == ["-", "grasp cup", "reach"]


EPIC = "narration_id,participant_id,video_id,start_timestamp,stop_timestamp"


@pytest.fixture
def epic(ingest, tmp_path):
    """Two actions of each of three videos, of which P01_02 is there."""
    lines = [f"P01_0{v}_{n},P01,P01_0{v},00:00:0{n}.00,00:00:0{n + 1}.00" for v in (1, 2, 3) for n in (1, 2)]
    (tmp_path / "train.csv").write_text("\n".join([EPIC, *lines]))
    (tmp_path / "epic").mkdir()
    (tmp_path / "epic" / "P01_02.MP4").touch()

    def call(*args, videos=tmp_path / "epic"):
        return ingest("epic", "--annotations", tmp_path / "train.csv", "--videos", videos, *args)

    return call


def test_only_present_takes_the_absent_out_of_a_list(epic, cli, tmp_path):
    code, done, _ = epic()
    assert (code, done["added"], done["counts"]["videos"], done["counts"]["videos_missing"]) == (0, 6, 3, 2)
    finish(tmp_path, lost=("P01_01",))  # rows of P01_02 and P01_03, whose video went afterwards
    code, done, _ = epic("--only-present")
    assert (code, done["removed"], done["removed_rows"], done["removed_rejects"]) == (0, 2, 0, 2)
    assert {clip_id.split(":")[1] for clip_id in listed(tmp_path)} == {"P01_02", "P01_03"}
    _, out, _ = cli(
        "ingest",
        "epic",
        "--annotations",
        tmp_path / "train.csv",
        "--videos",
        tmp_path / "epic",
        "--db",
        tmp_path / "db",
    )
    assert "videos 3, there 1" in out


def test_where_no_video_is_there_it_is_said_loudly(epic, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    code, _, err = epic("--only-present", videos=tmp_path / "elsewhere")
    assert code == 2
    assert "none of the 3 videos is below" in err
    assert not (tmp_path / "db").exists()
    code, done, err = epic(videos=tmp_path / "elsewhere")
    assert (code, done["added"]) == (3, 6)
    assert err.startswith("problem: none of the 3 videos exists, for example ")
    epic()
    assert epic("--only-present", videos=tmp_path / "elsewhere")[0] == 2
    assert counts(tmp_path)[0] == 6


def test_corrected_times_are_named_and_replaced_where_that_is_asked_for(epic, tmp_path):
    epic()
    text = (tmp_path / "train.csv").read_text().replace("00:00:01.00", "00:00:01.50")
    (tmp_path / "train.csv").write_text(text)
    code, done, err = epic()
    assert (code, done["added"], done["overlapping"]) == (0, 3, 3)
    assert "both are kept (--replace removes those)" in err
    code, done, _ = epic("--replace")
    assert (code, done["removed"], done["num_clips"]) == (0, 3, 6)


def test_a_videos_own_words_are_its_camera_until_a_command_says_more(ingest, videos, tmp_path):
    """Values given on the command line stay when files are ingested again; `--replace` clears them."""
    tag(videos / "video0.mp4", gopro(setting=b"L"))
    tag(videos / "video1.mp4", iphone(model="iPhone 13", focal_mm=27))

    def presets():
        return [json.loads(camera or "{}").get("preset") for (camera,) in listed(tmp_path, "camera").values()]

    code, done, err = ingest("folder", videos)
    assert (code, done["counts"]["cameras_of_device"]) == (0, 2)
    assert "note: 1 video by GoPro HERO7 Black, field of view linear; preset gopro-linear: 87.3 degrees" in err
    assert "note: 1 video by Apple iPhone 13, 27 mm of a 35 mm camera, stabilised; 55.4 degrees" in err
    assert presets() == ["gopro-linear", None]
    finish(tmp_path)
    code, done, err = ingest("folder", videos, "--camera-preset", "egodex", "--hand-length-m", "0.17")
    assert (code, done["changed"], done["outdated"]) == (0, 2, 2)
    shown = {(change["before"], change["now"]) for change in done["shown"] if change["field"] == "camera"}
    assert shown == {("preset gopro-linear", "preset egodex"), ("55.4 degrees", "preset egodex")}
    assert "2 rows were made with another camera and hand size than the list has now" in err
    assert presets() == ["egodex", "egodex"]
    assert ingest("folder", videos)[1]["changed"] == 0
    assert presets() == ["egodex", "egodex"]
    assert [json.loads(hand)["length_m"] for (hand,) in listed(tmp_path, "hand").values()] == [0.17, 0.17]
    assert ingest("folder", videos, "--replace")[0] == 0
    assert presets() == ["gopro-linear", None]
    assert list(listed(tmp_path, "hand").values()) == [[None], [None]]


def test_two_cameras_at_once_change_nothing(ingest, videos, tmp_path):
    code, done, err = ingest("folder", videos, "--camera-preset", "aria", "--fov-deg", "90")
    assert (code, done) == (2, {})
    assert "--camera-preset aria and --fov-deg 90.0 are given, expected one of them" in err
    assert not (tmp_path / "db").exists()
