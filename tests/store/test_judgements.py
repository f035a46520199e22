"""Judgements of clips: written by several people, filtered by, and carried from one database to another."""

import csv
import json
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta, timezone

import pytest
from support.rows import RUN_KEY, make_clip, make_row
from support.window_tables import clip_row, write_clips, write_episodes
from typer.testing import CliRunner

from handloom.api import Database
from handloom.cli import app
from handloom.errors import ConfigError, StoreError
from handloom.pipelines.judgements import judgements_text, read_csv, write_csv
from handloom.schemas.tables.arrow import clips_schema
from handloom.store.clips import judgements as room
from handloom.store.clips.clip_list import add_clips
from handloom.store.clips.commit import Committer
from handloom.store.clips.judgements import MOST_NOTE, Judgement, judge, judgement_of
from handloom.store.clips.removal import remove_clips, remove_rows
from handloom.store.fragments import write_fragment

NUM = 6
IDS = [make_clip(n).clip_id for n in range(NUM)]


@pytest.fixture
def db(tmp_path):
    db = Database.open(tmp_path / "db", create=True)
    add_clips(db, [make_clip(n) for n in range(NUM)])
    schema = clips_schema(4)
    committer = Committer(db, RUN_KEY, schema)
    committer.commit([write_fragment(db.uri, [make_row(n) for n in range(NUM)], schema)], [])
    return db


def passing(db, where):
    return sorted(db.clips(["clip_id"], where).column("clip_id").to_pylist())


def test_a_filter_passes_the_judged_clips_in_every_reader(db):
    db.judge(IDS[0], "good")
    db.judge(IDS[1], "bad", "blurred", note="it shakes", who="ana", clips_version=db.version)
    db.judge(IDS[2], "bad", 'it\'s (very) "odd"')
    db.judge(IDS[3], "bad")
    db.judge(IDS[3], "good")  # takes the place of the first
    db.judge(IDS[4], "bad")
    db.judge(IDS[4], None)  # taken back
    assert passing(db, "judged('good')") == [IDS[0], IDS[3]] == db.judged("good")
    assert passing(db, "JUDGED ( 'bad' ) AND duration_s > 0") == IDS[1:3]
    assert passing(db, "judged('bad', 'blurred')") == [IDS[1]]
    assert passing(db, "judged('bad', 'it''s (very) \"odd\"')") == [IDS[2]]
    assert passing(db, "NOT judged()") == IDS[4:]
    assert passing(db, "clip_id = 'judged(''good'')'") == []  # a text
    assert passing(db, "true -- judged('good')") == IDS  # a comment
    assert db.count("clip_list", "NOT judged('bad')") == NUM - 2
    assert sum(batch.num_rows for batch in db.batches(["clip_id"], "judged('bad')")) == 2
    hits = db.search(clip=IDS[5], by="motion", where="judged('good')", k=NUM)
    assert sorted(hit.clip_id for hit in hits) == [IDS[0], IDS[3]]
    kept = judgement_of(db, IDS[1])
    assert kept["at"] <= datetime.now(UTC)
    assert kept | {"at": None} == {
        "clip_id": IDS[1],
        "verdict": "bad",
        "reason": "blurred",
        "note": "it shakes",
        "who": "ana",
        "at": None,
        "clips_version": db.version,
    }


def test_windows_of_judged_clips_stay_as_they_were_made(tmp_path):
    db = write_clips(tmp_path / "clips", [clip_row(n, 12) for n in range(3)])
    ids = sorted(db.clips(["clip_id"]).column("clip_id").to_pylist())
    db.judge(ids[1], "good")
    windows = db.windows(past=2, fields=["hand_visible"], where="judged('good') AND num_frames > 3")
    db.judge(ids[2], "good")
    assert windows.clip_ids == [ids[1]] == windows.at().clip_ids
    assert db.windows(past=2, fields=["hand_visible"], where="judged('good')").clip_ids == ids[1:]
    with pytest.raises(ConfigError, match=r"where = \"judged\('bad'\)\" passes no row: 2 clips of"):
        db.windows(past=2, fields=["hand_visible"], where="judged('bad')")
    episodes = write_episodes(tmp_path / "episodes", [3])
    with pytest.raises(ConfigError, match="clips are judged, and rows of this table have no `clip_id`"):
        episodes.windows(fields=["state"], table="robot_episodes", where="judged('good')")


@pytest.mark.parametrize(
    ("where", "said"),
    [
        ("judged('godo')", "no verdict 'godo'"),
        ("judged(good)", r"'judged\(good\)' holds something else than texts in quotes"),
        ("judged('good', 'a', 'b')", "at most a verdict and a reason"),
    ],
)
def test_filters_that_name_no_verdict_are_refused(db, where, said):
    with pytest.raises(ConfigError, match=said):
        db.count("clips", where)
    assert passing(db, "judged('bad')") == []  # no judgement yet


def test_what_cannot_be_judged_is_refused_and_nothing_is_written(db):
    with pytest.raises(StoreError, match="did you mean"):
        judge(db, [Judgement(IDS[0], "good"), Judgement(IDS[1] + "0", "good")])
    for wrong, said in (
        (Judgement(IDS[0], "fine"), "expected good or bad"),
        (Judgement(IDS[0], "bad", note="x" * (MOST_NOTE + 1)), "at most 10,000"),
        (Judgement(IDS[0], "bad", clips_version=10**19), "clips_version 10000000000000000000"),
        (Judgement(IDS[0], "bad", clips_version=-1), "number of a version"),
        # In UTC these are of the years 0 and 10000, which nothing reads
        (Judgement(IDS[0], "bad", at=datetime(1, 1, 1, tzinfo=timezone(timedelta(hours=9)))), "1970 or later"),
        (Judgement(IDS[0], "bad", at=datetime(9999, 12, 31, 23, tzinfo=timezone(-timedelta(hours=9)))), "is of 9999"),
    ):
        with pytest.raises(ConfigError, match=said):
            judge(db, [wrong])
    with pytest.raises(ConfigError, match="two judgements of clip"):
        judge(db, [Judgement(IDS[0], "good"), Judgement(IDS[0], "bad")])
    assert db.table("judgements") is None
    note = "<b>ä\n\u0000" + "x" * (MOST_NOTE - 7)
    judge(db, [Judgement(IDS[0], "bad", " ", note + "\ud800")])
    assert judgement_of(db, IDS[0])["note"] == note + "?"
    assert judgement_of(db, IDS[0])["reason"] is None


def test_people_who_judge_at_once_lose_nothing(db, monkeypatch):
    """Each clip has one judgement, the last that any of them wrote; many small files become few."""
    monkeypatch.setattr(room, "MAX_FRAGMENTS", 6)

    def judges(who):
        for n, clip_id in enumerate(IDS[:4]):
            Database(db.location).judge(clip_id, "good" if (n + who) % 2 else "bad", who=f"{who}")

    with ThreadPoolExecutor(3) as pool:
        list(pool.map(judges, range(3)))
    rows = db.judgements()
    assert sorted(rows.column("clip_id").to_pylist()) == IDS[:4]
    assert len(db.table("judgements").get_fragments()) <= 6 + 3
    for row in rows.to_pylist():
        expected = "good" if (IDS.index(row["clip_id"]) + int(row["who"])) % 2 else "bad"
        assert row["verdict"] == expected


def test_judgements_go_with_their_clips_and_stay_when_rows_are_made_anew(db):
    judge(db, [Judgement(id_, "good") for id_ in IDS[:3]])
    remove_rows(db, IDS[:1])
    remove_clips(db, IDS[1:2])
    assert db.judged() == [IDS[0], IDS[2]]


def test_a_csv_file_carries_judgements_and_later_ones_win(db, tmp_path):
    old, new = (datetime(2026, 1, day, tzinfo=UTC) for day in (1, 2))
    first = [
        Judgement(IDS[0], "good", None, 'two\nlines, "quoted"; ünï', "ana", old, 3),
        Judgement(IDS[1], "bad", "blurred", at=new),
    ]
    judge(db, first)
    write_csv(db.judgements(), tmp_path / "kept.csv")
    with (tmp_path / "kept.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["clip_id"] for row in rows] == IDS[1::-1]  # newest first
    assert rows[1]["note"] == first[0].note
    judge(db, [Judgement(IDS[0], "bad", at=old - timedelta(days=1)), Judgement(IDS[1], "good", at=new)])
    assert read_csv(db, tmp_path / "kept.csv") == (1, 1, 0)
    assert (judgement_of(db, IDS[0])["verdict"], judgement_of(db, IDS[1])["verdict"]) == ("good", "good")
    assert judgement_of(db, IDS[0])["clips_version"] == 3
    assert judgement_of(db, IDS[0])["note"] == first[0].note
    (tmp_path / "wrong.csv").write_text(f"clip_id,verdict,at\n{IDS[2]},good,\n{IDS[3]},good,yesterday\n")
    with pytest.raises(ConfigError, match=r"row 2 \(line 3\).*yesterday"):
        read_csv(db, tmp_path / "wrong.csv")
    assert IDS[2] not in db.judged()


def test_judgements_of_clips_that_are_elsewhere_are_counted_and_left_out_when_asked(db, tmp_path, monkeypatch):
    """The error says how many, and comes before the first commit of a long file."""
    monkeypatch.setattr("handloom.pipelines.judgements.ROWS_PER_COMMIT", 1)
    path = tmp_path / "of-more.csv"
    path.write_text(f"clip_id,verdict\n{IDS[0]},good\nother:a:0-1000,bad\n{IDS[1]},bad\nother:b:0-1000,bad\n")
    with pytest.raises(
        StoreError, match=r"2 of 4 judgements are of clips without a row here.*'other:a:0-1000'"
    ) as told:
        read_csv(db, path)
    assert "--skip-missing" in told.value.hint
    assert not db.judgements().num_rows
    assert read_csv(db, path, skip_missing=True) == (2, 0, 2)
    assert db.judgements().num_rows == 2


def test_notes_of_many_lines_come_back_as_they_were(db, tmp_path):
    """A line of a note may look like a row, and hold any delimiter and half a quote."""
    notes = ["a\n" * 40 + "end", f'{IDS[2]},good\n"', 'one "\n\n;;;;;;;;\n\ttwo', "=1+1", "\u202eabc\n,,,,,,"]
    judge(db, [Judgement(id_, "good", note=note) for id_, note in zip(IDS, notes, strict=False)])
    before = db.judgements().to_pylist()
    write_csv(db.judgements(), tmp_path / "kept.csv")
    for id_ in IDS[: len(notes)]:
        db.judge(id_, None)
    assert read_csv(db, tmp_path / "kept.csv") == (len(notes), 0, 0)
    assert db.judgements().to_pylist() == before
    (tmp_path / "odd.csv").write_text(f'clip_id,verdict,note\n{IDS[0]},bad,"ends never\n{IDS[1]},bad,\n')
    with pytest.raises(ConfigError, match=r"row 1 \(line 2\): no CSV: unexpected end of data"):
        read_csv(db, tmp_path / "odd.csv")
    assert db.judgements().to_pylist() == before


def test_the_command_lists_and_exports(db, tmp_path):
    call = lambda *words: CliRunner().invoke(app, ["judgements", "--db", db.uri, *words])
    assert "no judgement yet" in call().output
    judge(db, [Judgement(IDS[0], "good", who="ana"), Judgement(IDS[1], "bad", "blurred", "x" * 80)])
    told = call().stdout
    assert told == judgements_text(db.judgements()) + "\n"
    assert "1 good, 1 bad" in told
    assert f"bad   {IDS[1]}  blurred - {'x' * 60}...  (" in told
    assert [row["clip_id"] for row in json.loads(call("--json", "--where", "who = 'ana'").stdout)] == IDS[:1]
    assert call("--csv", str(tmp_path / "out.csv")).exit_code == 0
    assert (tmp_path / "out.csv").read_text().startswith("clip_id,verdict,reason,note,who,at,clips_version\n")
