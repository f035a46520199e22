"""Several processes that write to one table at once: no row is lost, none is repeated."""

from dataclasses import dataclass

import lance
import pyarrow as pa
import pytest
from support.rows import digests, make_clip, make_row
from support.writers import NUM_CLIPS, writers

from handloom.api import Database
from handloom.schemas.clip import Clip
from handloom.schemas.tables.arrow import CLIP_LIST, KEY_MARK, REJECTS, RUNS
from handloom.store.clips.clip_list import add_clips, read_clips
from handloom.store.repeated import drop_repeated
from handloom.store.runs.runs import list_runs

NUM_WRITERS, NUM_ROUNDS = 4, 3
NUM_ALL = NUM_ROUNDS * NUM_CLIPS


@pytest.fixture(scope="module")
def at_once():
    with writers(NUM_WRITERS) as at_once:
        yield at_once


@pytest.fixture
def db(tmp_path):
    return Database.open(tmp_path / "db", create=True)


def make_unmarked(db, name, schema):
    """The table as older versions made it: Lance does not take a mark back."""
    plain = pa.schema([field.remove_metadata() for field in schema])
    lance.write_dataset(plain.empty_table(), db.location.table_uri(name))


def test_ingests_at_once_add_every_clip_once(at_once, db):
    """Without the check for other commits, 4 processes made 80 rows of 20 clips."""
    for number in range(NUM_ROUNDS):
        (said,) = at_once("ingest", db, number * NUM_CLIPS)
        assert all(words.startswith("added") for words in said)
    assert db.count("clip_list") == len(read_clips(db)) == NUM_ALL
    assert {clip.narration for clip in read_clips(db)} <= {f"of {n}" for n in range(NUM_WRITERS)}


@dataclass(frozen=True)
class Before(Database):
    """Another process adds clips when the list has been read, before this one writes."""

    others: list[Clip]

    def count(self, name, where=None):
        if name == "clip_list" and self.others:
            add_clips(Database(self.location), [self.others.pop() for _ in self.others[:]])
        return super().count(name, where)


def test_an_ingest_that_ends_between_the_reading_and_the_writing_of_another(db):
    """A whole ingest of the same clips left every clip in the list twice there: 80 rows of 60 clips, seen once."""
    add_clips(db, [make_clip(0)])
    clips = [make_clip(n) for n in range(5)]
    meanwhile = Before(db.location, list(clips))
    add_clips(meanwhile, clips)
    assert not meanwhile.others
    assert db.count("clip_list") == len(read_clips(db)) == len(clips)


def test_rows_of_drivers_at_once(at_once, db):
    """Leases keep drivers apart; if they meet all the same, a clip has one row."""
    for number in range(NUM_ROUNDS):
        _, said = at_once("commit", db, number * NUM_CLIPS)
        assert sum(int(words.removeprefix("committed ")) for words in said) == NUM_CLIPS
    expected = {}
    for number in range(NUM_ALL):
        expected |= digests(make_row(number))
    assert db.count("clips") == NUM_ALL
    assert digests(db.clips()) == expected


@pytest.mark.parametrize("num_rounds", [6, pytest.param(25, marks=pytest.mark.slow)])
def test_of_runs_that_begin_at_once_one_has_the_lease(at_once, db, num_rounds):
    for _ in range(num_rounds):
        began, left = at_once("lease", db)
        assert began.count("began") == 1, began
        assert sum(f"works on {db.uri} since" in words for words in began) == NUM_WRITERS - 1, began
        assert left == ["left"] * NUM_WRITERS
    assert [run.exit for run in list_runs(db)] == ["done"] * num_rounds


@pytest.mark.parametrize("marked", [True, False])
def test_rejects_and_runs_of_drivers_at_once(at_once, db, marked):
    """A table without the mark of its key, made by an older version, gets it when it is written."""
    if not marked:
        make_unmarked(db, "rejects", REJECTS)
        make_unmarked(db, "runs", RUNS)
    for number in range(NUM_ROUNDS):
        assert at_once("driver", db, number * NUM_CLIPS) == [["rejected"] * NUM_WRITERS]
    assert db.count("rejects") == NUM_ALL
    runs = list_runs(db)
    assert len(runs) == NUM_WRITERS * NUM_ROUNDS
    assert {run.exit for run in runs} == {"done"}
    assert db.table("rejects").schema.field("clip_id").metadata == {KEY_MARK.encode(): b"true"}


def test_clips_that_were_added_twice_are_deleted_at_the_next_ingest(db):
    """Two ingests at once, and the one that would have found it was killed."""
    add_clips(db, [make_clip(0, narration="first"), make_clip(1)])
    rows = db.read("clip_list", where="narration = 'first'").set_column(6, "narration", pa.array(["last"]))
    lance.write_dataset(rows.cast(CLIP_LIST), db.location.table_uri("clip_list"), mode="append")
    assert db.count("clip_list") == 3
    result = add_clips(db, [make_clip(0, narration="last")])
    assert (result.added, result.changed, result.already_there) == (0, 0, 1)
    assert db.count("clip_list") == 2
    assert {clip.clip_id: clip.narration for clip in read_clips(db)}[make_clip(0).clip_id] == "last"


def test_the_row_that_stays_is_the_first_or_the_last(db):
    add_clips(db, [make_clip(n) for n in range(3)])
    for uri in ("/b", "/c"):
        rows = db.read("clip_list", where="start_s < 2").to_pylist()
        again = pa.Table.from_pylist([row | {"video_uri": uri} for row in rows], CLIP_LIST)
        lance.write_dataset(again.slice(0, 2), db.location.table_uri("clip_list"), mode="append")
    whole = db.table("clip_list").version
    assert drop_repeated(db, "clip_list") == 4
    assert {clip.video_uri for clip in read_clips(db)} == {"/videos/v0.mp4"}
    db.table("clip_list").checkout_version(whole).restore()
    assert drop_repeated(db, "clip_list", keep_last=True) == 4
    assert sorted(clip.video_uri for clip in read_clips(db)) == ["/c", "/c", "/videos/v0.mp4"]
    assert drop_repeated(db, "clip_list") == 0
