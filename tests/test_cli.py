"""The command line as a user meets it: what it prints, what it writes, how it ends."""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
from dataclasses import replace
from itertools import groupby

import pyarrow.parquet as pq
import pytest
import typer
from support.process import HANDLOOM

from handloom.api import Database
from handloom.cli import app, text
from handloom.cli.console import Counting, OneValue
from handloom.store.search.results import Hit, Hits, Part


@pytest.fixture(scope="module")
def videos(rendered, tmp_path_factory):
    """Two sound videos (four clips), and three files that are none."""
    folder = tmp_path_factory.mktemp("videos")
    for name in ("video0.mp4", "video1.mp4", "video1.camera.json"):
        shutil.copy(rendered / name, folder)
    (folder / "empty.mp4").write_bytes(b"")
    (folder / "letter.mp4").write_text("Dear reader\n" * 500)
    sound = (folder / "video0.mp4").read_bytes()
    (folder / "short.mp4").write_bytes(sound[: len(sound) // 2])
    return folder


def test_from_videos_to_search(cli, videos, tmp_path, ray_address):
    db = tmp_path / "db"
    ingest = ("ingest", "folder", videos, "--db", db, "--clip-seconds", 1, "--json")
    code, out, err = cli(*ingest)
    first = json.loads(out)
    assert (code, first["added"], first["num_clips"]) == (0, 7, 7), err
    code, out, _ = cli(*ingest)
    again = json.loads(out)
    assert (code, again["added"], again["changed"], again["already_there"]) == (0, 0, 0, 7)

    code, out, _ = cli("status", "--db", db, "--json")
    assert (code, json.loads(out)["pending"]) == (0, 7)
    code, out, err = cli("run", "--db", db, "--set=resources.shard_clips=2", "--set=resources.num_actors=1", "--json")
    summary = json.loads(out)
    assert code == 3, err
    counts = [summary[f"num_{name}"] for name in ("clips", "rejects", "frames")]
    assert (summary["exit"], *counts) == ("rejects", 4, 3, 40)
    assert set(summary["reasons"]) <= {"video_unreadable", "damaged"}
    code, out, _ = cli("run", "--db", db)
    assert (code, out.splitlines()[0][:24]) == (0, "0 clips, 0 rejects, 0 fr")

    code, out, _ = cli("status", "--db", db, "--json")
    status = json.loads(out)
    assert (code, status["clips"], status["rejects"], status["pending"], status["frames"]) == (0, 4, 3, 0, 40)
    assert sum(item["count"] for item in status["rejects_by_reason"]) == 3
    code, out, _ = cli("status", "--db", db)
    assert code == 0
    assert "rows 4, rejects 3, pending 0" in out
    assert "video_unreadable" in out

    code, out, _ = cli("index", "--db", db, "--json")
    assert (code, json.loads(out)["num_rows"]) == (0, 4)
    code, out, err = cli("search", "--db", db, "--where", "hand_left OR NOT hand_left", "-k", 3, "--json")
    listed = json.loads(out)
    assert (code, listed["scoring"], listed["num_with"], listed["hits"][0]["score"]) == (0, "listed", 4, None), err
    stored = Database.open(db).clips(["clip_id"]).column(0).to_pylist()
    assert [hit["clip_id"] for hit in listed["hits"]] == stored[:3]
    code, out, err = cli("search", "--db", db, "--where", "start_s >= 0", "-k", 1)
    assert "4 clips pass --where; the first 1 are listed" in err, (code, out)
    clip_id = "folder:video0:0-1000"
    part = ("--video", videos / "video0.mp4", "--end-s", 1)
    for query in (("--clip", clip_id), part, ("--clip", clip_id, "--mirror")):
        for by in ("motion", "appearance"):
            if "--mirror" in query and by == "appearance":
                continue
            code, out, err = cli("search", "--db", db, *query, "--by", by, "-k", 3, "--json")
            hits = json.loads(out)["hits"]
            assert code == 0, err
            scores = [hit["score"] for hit in hits]
            assert scores == sorted(scores, reverse=True)
            ids = [hit["clip_id"] for hit in hits]
            if query[0] == "--video":
                assert ids[0] == clip_id
                assert scores[0] == pytest.approx(1, abs=1e-5)
            else:
                assert clip_id not in ids
    code, out, err = cli("search", "--db", db, "--clip", clip_id, "--where", "video_id = 'video1'", "--json")
    assert {hit["clip_id"].split(":")[1] for hit in json.loads(out)["hits"]} == {"video1"}
    code, out, err = cli("search", "--db", db, "--text", "nothing says this")
    assert (code, out) == (0, "")
    assert err.startswith("nothing found: none of the 4 clips has words")
    code, out, err = cli("search", "--db", db, "--clip", "folder:video0:0-1001")
    assert (code, out) == (1, "")
    assert clip_id in err  # the nearest
    code, out, err = cli("search", "--db", db, "--clip", clip_id, "--where", "speed >")
    assert (code, out) == (2, "")
    assert "speed >" in err

    for name, least in (("sheet.png", 5_000), ("over.mp4", 5_000)):
        code, out, err = cli("show", clip_id, "--db", db, "--out", tmp_path / name)
        assert (code, out) == (0, f"{tmp_path / name}\n"), err
        assert (tmp_path / name).stat().st_size > least
    for form in ("parquet", "arrow"):
        where = ("--where", "video_id = 'video1'")
        code, out, err = cli("export", form, "--db", db, "--out", tmp_path / form, *where, "--json")
        assert code == 0, err
        assert sum(shard["num_rows"] for shard in json.loads(out)) == 2
    shard = next((tmp_path / "parquet").rglob("*.parquet"))
    assert set(pq.read_table(shard, columns=["clip_id"]).column(0).to_pylist()) == {
        "folder:video1:0-1000",
        "folder:video1:1000-2000",
    }

    # No reject is tried again for a reason that it does not have; that others are is in test_run.py and test_remote.py.
    code, out, err = cli("run", "--db", db, "--retry-rejects", "--reason", "hung", "--json")
    assert (code, json.loads(out)["num_clips"]) == (0, 0), err

    # Other settings are refused by name; the database's own are used when none are given.
    code, out, err = cli("run", "--db", db, "--set", "video.sample_hz=5")
    assert (code, out) == (2, "")
    assert "video.sample_hz is 15" in err
    assert "5.0 now" in err
    assert "another --db" in err


@pytest.mark.parametrize(
    ("args", "code", "says"),
    [
        (("ingest", "folder", "{tmp}/empty", "--db", "{tmp}/new"), 2, "video"),
        (("ingest", "folder", "{tmp}/absent", "--db", "{tmp}/new"), 2, "absent"),
        (("status", "--db", "{tmp}/absent"), 1, "there is no database at {tmp}/absent"),
        (("run", "--db", "{tmp}/foreign"), 1, "not a handloom database: it holds notes.txt"),
        (("run", "--db", "{tmp}/db", "--set", "video.sample=3"), 2, "there is no setting video.sample"),
        (("run", "--db", "{tmp}/db", "--set", "video.sample_hz=-3"), 2, "video.sample_hz = -3"),
        (("run", "--db", "{tmp}/db", "--set", "nonsense"), 2, "not an assignment"),
        (("run", "--db", "{tmp}/db", "--config", "{tmp}/absent.toml"), 2, "absent.toml cannot be read"),
        (("run", "--db", "{tmp}/db", "--set", "resources.cpus_per_actor=64"), 2, "resources.cpus_per_actor"),
        (("run",), 2, "missing option '--db'\nhint: --db: The database: a folder or an s3:// URI"),
        (("run", "--db", "{tmp}/db", "--limit", "none"), 2, "invalid value for '--limit'"),
        (("run", "--db", "{tmp}/db", "--set", "sample_hz=5"), 2, "did you mean video.sample_hz?"),
        (("run", "--db", "{tmp}/db", "--set", "video=3"), 2, "video = 3: it is a section of settings"),
        (("run", "--db", "{tmp}/db", "--reason", "damaged"), 2, "--reason damaged without --retry-rejects"),
        (("run", "--db", "{tmp}/db", "--retry-rejects", "--reason", "damagd"), 2, "did you mean damaged"),
        (("status", "--db", "{tmp}"), 1, "did you mean {tmp}/db?"),
        (("serch",), 2, "Did you mean 'search'"),
        (("export",), 2, "lerobot"),
        (("search", "--db", "{tmp}/db", "--clip", "folder:nobody:0-1"), 1, "no processed clips"),
        (("search", "--db", "{tmp}/db"), 2, "one or more of --text, --clip, --video"),
        (
            ("search", "--db", "{tmp}/db", "--clip", "A", "-k2", "--clip=B"),
            2,
            "search: invalid value for '--clip': takes one value, got 'A' and 'B'\n"
            "hint: --clip: Id of a processed clip; one: search once for each",
        ),
        (("search", "--db", "{tmp}/db", "--clip", "A", "-k", "2", "-k3"), 2, "'-k': takes one value, got '2' and '3'"),
        (
            ("export", "lerobot", "--out", "o", "--db", "{tmp}/db", "--db", "c"),
            2,
            "'--db': takes one value, got '{tmp}/db' and",
        ),
        (("skill", "list", "--db", "{tmp}/db", "--db=b", "--db=c"), 2, "got '{tmp}/db' and 'b' and 'c'"),
        (
            ("ingest", "folder", "{tmp}/one", "--view", "ego", "--view", "exo", "--db", "d"),
            2,
            "'--view': takes one value",
        ),
        (("run", "--db", "{tmp}/db", "--recompute", "--recompute", "look"), 2, "got 'all' and 'look'"),
        (("search", "--db", "{tmp}/db", "--mirror", "--no-mirror"), 2, "got --mirror and --no-mirror"),
        (("search", "--db", "{tmp}/db", "--text", "open", "--end-s", "3"), 2, "choose a part of a video"),
        (
            ("search", "--db", "{tmp}/db", "--where", "hand_left", "--by", "look"),
            2,
            "search with --by takes one or more",
        ),
        (("search", "--db", "{tmp}/db", "--text", "open", "--stage-key", "tracks"), 2, "expected STAGE=KEY"),
        (("export", "lerobot", "--db", "{tmp}/db", "--out", "{tmp}/o", "--size", "91x90"), 2, "a side is odd"),
        (("train", "arm4r", "--db", "{tmp}/db", "--out", "{tmp}/o", "--set", "epoch=2"), 2, "did you mean epochs"),
        (("train", "arm4r", "--db", "{tmp}/db", "--out", "{tmp}/foreign/notes.txt"), 2, "is a file, expected a folder"),
        (("train", "json:loads", "--db", "{tmp}/db", "--out", "{tmp}/o"), 2, "loads is a function, not a recipe"),
        (("bench", "extract", "--clips", "3"), 2, "takes no --clips"),
        (("show", "folder:nobody:0-1", "--db", "{tmp}/db", "--out", "{tmp}/a.png"), 1, "there is no clip"),
        (("ingest", "folder", "{tmp}/one", "--db", "/proc/none/db"), 1, "/proc/none/db"),
        (("export", "parquet", "--db", "{tmp}/db", "--out", "{tmp}/out"), 1, "no processed clips"),
    ],
)
def test_mistakes_are_answered_in_one_message(cli, tmp_path, clips, ray_address, args, code, says):
    from support.extraction import new_database

    (tmp_path / "empty").mkdir()
    (tmp_path / "one").mkdir()
    (tmp_path / "one" / "a.mp4").write_bytes(b"no video")
    (tmp_path / "foreign").mkdir()
    (tmp_path / "foreign" / "notes.txt").write_text("mine")
    new_database(tmp_path / "db", clips[:1])
    found, out, err = cli(*(arg.format(tmp=tmp_path) for arg in args))
    assert (found, out) == (code, ""), err
    assert says.format(tmp=tmp_path) in err
    assert "Traceback" not in err


@pytest.mark.parametrize(
    ("args", "name"),
    [
        (("status", "--db="), "--db"),
        (("bench", "feed", "--save", ""), "--save"),
        (("bench", "feed", "--data", "x", "--data", ""), "--data"),
        (("skill", "run", "push", "--db", "x", "--out", " "), "--out"),
        (("run", "--db", "x", "--set", "a=1", "--set", ""), "--set"),
        (("search", "--db", "x", "--text", "open", "--sheet", ""), "--sheet"),
        (("export", "parquet", "--db", "x", "--out", ""), "--out"),
        (("ingest", "folder", "", "--db", "x"), "DIRECTORY"),
    ],
)
def test_an_empty_value_is_refused(cli, tmp_path, monkeypatch, args, name):
    monkeypatch.chdir(tmp_path)
    code, out, err = cli(*args)
    assert (code, out) == (2, "")
    assert err.startswith(f"error: {name} is empty\nhint: give it a value")
    assert not list(tmp_path.iterdir())


def test_every_command_refuses_empty_values():
    def leaves(command):
        inner = getattr(command, "commands", None)
        return [command] if inner is None else [leaf for one in inner.values() for leaf in leaves(one)]

    found = leaves(typer.main.get_command(app))
    assert len(found) > 30
    assert all(isinstance(one, OneValue) for one in found)


def test_an_unwritable_database_is_named(cli, tmp_path, clips, ray_address):
    from support.extraction import new_database

    db = new_database(tmp_path / "db", clips[:1])
    if os.geteuid() == 0:
        pytest.skip("root may write anywhere")
    os.chmod(db.uri, 0o500)
    try:
        code, out, err = cli("run", "--db", db.uri)
    finally:
        os.chmod(db.uri, 0o700)
    assert (code, out) == (1, "")
    assert db.uri in err


def test_a_working_folder_that_is_gone_is_named(cli, tmp_path, monkeypatch):
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    code, _, said = cli("ingest", "folder", tmp_path, "--db", tmp_path / "db")
    assert code == 2
    assert "the folder that this command was started in is gone" in said
    assert not (tmp_path / "db").exists()


def test_help_answers_and_doctor_knows_this_machine(cli):
    """That it answers at once: what the command imports is in test_laws.py."""
    done = subprocess.run([*HANDLOOM, "--help"], capture_output=True, text=True, timeout=240, check=True)
    commands = ("demo", "ingest", "run", "status", "index", "search", "show", "export", "bench", "doctor")
    assert all(command in done.stdout for command in commands)
    code, out, err = cli("doctor", "--json")
    assert code == 0, err
    assert {"python", "machine", "ray", "mediapipe"} <= {finding["name"] for finding in json.loads(out)}


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_counts_are_rewritten_on_a_terminal_and_are_lines_elsewhere(monkeypatch):
    now_s = 1000.0
    monkeypatch.setattr("tqdm.std.time", lambda: now_s)  # on a busy machine a second is over before the next line

    out = Terminal()
    with Counting("episodes", out) as count:
        now_s += 0.25
        count(3, 40)
        count(5, 40)  # at once: shown at the end
    states = out.getvalue().split("\r")
    shown = [state.strip() for state in states if state.strip()]
    assert [state for state, _ in groupby(shown)] == ["3/40 episodes", "5/40 episodes"]
    assert out.getvalue().endswith("\n")

    out = io.StringIO()
    with Counting("rows", out, line_every_s=0.6) as count:
        for done in (1, 2, 3):
            count(done, None)  # at once: not shown
        now_s += 0.7
        count(4, None)
        count(5, 9)
        now_s += 0.7
        count(6, 9)
    assert out.getvalue().splitlines() == ["4 rows", "6/9 rows"]


def test_a_short_count_writes_nothing():
    out = io.StringIO()
    with Counting("files", out) as count:
        count(1, 1)
    assert out.getvalue() == ""


def test_a_list_of_hits_says_what_its_scores_are():
    """Reciprocal ranks and cosines are not comparable; a negative score is that of an opposite action."""
    parts = {"words": Part(1.215, 2), "meaning": Part(0.804, 1)}
    found = Hit("a:b:0-1000", -0.0004, "a", "b", "/b.mp4", 0.0, 1.0, "takes the lid off", "take", "lid", parts=parts)
    line = text.hit(found)
    assert "[words 1.215 #2, meaning 0.804 #1]" in line
    assert line.endswith("(an opposite action)")
    alone = replace(found, score=0.8, parts={"meaning": parts["meaning"]})
    assert text.hit(alone).endswith("[meaning 0.804 #1]")
    assert "[" not in text.hit(replace(found, score=-0.3, parts={"motion": Part(-0.3, 1)}))
    for scoring, words in (("rrf", "reciprocal ranks"), ("cosine", "cosine"), ("bm25", "BM25"), ("moment", "distance")):
        assert words in next(text.search_notes(Hits((found,), 1, scoring=scoring), None))
    assert not list(text.search_notes(Hits((), 1), None))


def test_an_option_given_twice_with_one_value_is_no_mistake(cli, tmp_path):
    """Nor are options that take several values, nor `--help` among options."""
    code, out, err = cli("status", "--db", tmp_path / "a", "--db", tmp_path / "a", "--json", "--json")
    assert (code, out) == (1, "")
    assert "there is no database at" in err
    code, out, _ = cli("run", "--db", "a", "--set", "a=1", "--set", "b=2", "--db", "b", "--help")
    assert code == 0
    assert "--recompute" in out
