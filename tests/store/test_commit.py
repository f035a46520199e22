"""The commit: one row per clip, whatever is committed, repeated, lost or killed."""

import os
import signal
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import lance
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.rows import RUN_KEY, digests, make_clip, make_row

from handloom.api import Database
from handloom.errors import CommitConflict, StoreError
from handloom.schemas.tables.arrow import clips_schema
from handloom.schemas.tables.reject import Reject
from handloom.store.clips.clip_list import add_clips
from handloom.store.clips.commit import Committer, done_ids
from handloom.store.clips.upkeep import plan, put_in_place, rewrite
from handloom.store.fragments import write_fragment
from handloom.store.search.index import build_indexes, compact

SCHEMA = clips_schema(4)
TESTS = Path(__file__).parents[1]


@pytest.fixture
def db(tmp_path):
    return Database.open(tmp_path / "db", create=True)


def ids(*numbers):
    return {make_clip(n).clip_id for n in numbers}


def write(db, *numbers, **values):
    return write_fragment(db.uri, [make_row(n, **values) for n in numbers], SCHEMA)


class CountsReads(Committer):
    """Counts how often the ids of the whole table are read: once, at the start."""

    num_reads = 0

    def _load(self, table):
        self.num_reads += 1
        super()._load(table)


def append_behind_its_back(db, record):
    """Append with Lance alone, without a Committer."""
    append = lance.LanceOperation.Append(record.metadata())
    return lance.LanceDataset.commit(db.location.table_uri("clips"), append, read_version=db.version)


def reject(number, reason="damaged"):
    return Reject(make_clip(number).clip_id, "decode", reason, "cut short")


shards = st.lists(st.lists(st.integers(0, 8), min_size=1, max_size=4), max_size=6)


@settings(max_examples=15, deadline=None)
@given(commits=st.lists(shards, max_size=3), new_run=st.booleans())
def test_any_grouping_order_and_repetition_gives_the_same_rows(tmp_path_factory, commits, new_run):
    db = Database.open(tmp_path_factory.mktemp("db"), create=True)
    committer = Committer(db, RUN_KEY, SCHEMA)
    offered = set()
    for group in commits:
        if new_run:
            committer = Committer(db, RUN_KEY, SCHEMA)
        before = len(offered)
        result = committer.commit([write(db, *shard) for shard in group])
        offered |= {n for shard in group for n in shard}
        assert result.num_clips == len(offered) - before
        assert result.num_clips + result.num_dropped == sum(map(len, group))
        assert result.version == db.version
    expected = {}
    for number in offered:
        expected |= digests(make_row(number))
    assert digests(db.clips()) == expected
    assert committer.done == done_ids(db) == set(expected)


def test_the_same_fragment_twice_is_committed_once(db):
    committer = Committer(db, RUN_KEY, SCHEMA)
    record = write(db, 0, 1)
    committer.commit([record, record])
    assert committer.commit([record]).num_clips == 0
    assert Committer(db, RUN_KEY, SCHEMA).commit([record]).num_clips == 0
    assert done_ids(db) == ids(0, 1)
    assert db.count("clips") == 2


def test_an_append_whose_reply_was_lost_is_not_repeated(db):
    committer = Committer(db, RUN_KEY, SCHEMA)
    committer.commit([write(db, 0)])
    records = [write(db, 1, 2), write(db, 3)]
    append_behind_its_back(db, records[0])
    committer.commit(records)
    assert db.count("clips") == 4
    assert digests(db.clips()).keys() == ids(0, 1, 2, 3)


def test_rows_of_another_writer_are_not_written_again(db):
    committer = Committer(db, RUN_KEY, SCHEMA)
    committer.commit([write(db, 0)])
    append_behind_its_back(db, write(db, 1))
    result = committer.commit([write(db, 1, 2)])
    assert (result.num_clips, result.num_dropped) == (1, 1)
    assert digests(db.clips()).keys() == ids(0, 1, 2)
    assert db.count("clips") == 3


drivers = st.lists(st.tuples(st.integers(0, 2), st.lists(st.integers(0, 8), min_size=1, max_size=3)), max_size=8)


@settings(max_examples=10, deadline=None)
@given(commits=drivers, compact_after=st.integers(0, 8))
def test_several_drivers_in_any_order_give_each_clip_one_row(tmp_path_factory, commits, compact_after):
    db = Database.open(tmp_path_factory.mktemp("db"), create=True)
    committers = [Committer(db, RUN_KEY, SCHEMA) for _ in range(3)]
    offered, num_clips = set(), 0
    for number, (driver, shard) in enumerate(commits):
        num_clips += committers[driver].commit([write(db, *shard)]).num_clips
        offered |= ids(*shard)
        if number == compact_after:
            compact(db, drop_versions_older_than=timedelta(0))
        else:
            put_in_place(db, [rewrite(db.uri, task) for task in plan(db, max_small=1)])
    assert num_clips == db.count("clips") == len(offered)
    assert digests(db.clips()).keys() == offered


def test_rows_that_were_removed_during_a_run_may_come_again(db):
    committer = Committer(db, RUN_KEY, SCHEMA)
    committer.commit([write(db, 0, 1)])
    db.table("clips").delete("start_s = 0")
    assert committer.commit([write(db, 0, 1, 2)]).num_clips == 2
    assert digests(db.clips()).keys() == ids(0, 1, 2)


def test_a_table_replaced_by_another_stops_the_run(db):
    committer = Committer(db, RUN_KEY, SCHEMA)
    committer.commit([write(db, 0)])
    lance.write_dataset(SCHEMA.empty_table(), db.location.table_uri("clips"), mode="overwrite")
    with pytest.raises(CommitConflict, match=r"version 6 is of Overwrite"):
        committer.commit([write(db, 1)])


def test_another_driver_with_other_settings_stops_the_run(db):
    committer = Committer(db, RUN_KEY, SCHEMA)
    append_behind_its_back(db, write(db, 0, run_key="another"))
    with pytest.raises(StoreError, match="holds clips of run key another"):
        committer.commit([write(db, 1)])


def test_a_driver_that_may_not_write_any_more_writes_nothing(db):
    def allowed():
        raise StoreError("another has it")

    committer = Committer(db, RUN_KEY, SCHEMA, allowed)
    with pytest.raises(StoreError, match="another has it"):
        committer.commit([write(db, 0)], [reject(1)])
    assert db.count("clips") == db.count("rejects") == 0


def test_indexing_during_a_run_is_no_second_writer(db):
    committer = Committer(db, RUN_KEY, SCHEMA)
    committer.commit([write(db, 0)])
    build_indexes(db, ann_threshold_rows=1)
    committer.commit([write(db, 1)])
    assert db.count("clips") == 2


def test_a_column_that_a_user_adds_during_a_run_stays_readable(db):
    """The worker has opened the table before: its rows lack the column, which may not hold null."""
    committer = Committer(db, RUN_KEY, SCHEMA)
    committer.commit([write(db, 0)])
    record = write(db, 1)
    db.table("clips").add_columns({"twice": "num_frames * 2"})
    committer.commit([record])
    committer.commit([write(db, 2)])
    assert digests(db.clips(), skip=("twice",)).keys() == ids(0, 1, 2)
    assert db.read("clips", ["twice"]).column("twice").to_pylist() == [6, None, None]


def test_values_of_a_column_that_was_dropped_and_added_again_are_kept(db):
    """Lance numbers columns: values under the number of the dropped column read as null, without an error."""
    committer = Committer(db, RUN_KEY, SCHEMA)
    committer.commit([write(db, 0)])
    record = write(db, 1)
    db.table("clips").drop_columns(["camera_source"])
    db.table("clips").add_columns(pa.schema([SCHEMA.field("camera_source")]))
    committer.commit([record])
    committer.commit([write(db, 2)])
    rows = db.read("clips", ["clip_id", "camera_source"]).to_pylist()
    assert {row["clip_id"]: row["camera_source"] for row in rows} == dict(
        zip((make_clip(n).clip_id for n in range(3)), (None, "assumed", "assumed"), strict=True)
    )


def test_new_values_in_a_column_are_no_second_writer(db):
    """A column update keeps every row: the driver does not read the table again."""
    committer = CountsReads(db, RUN_KEY, SCHEMA)
    committer.commit([write(db, 0, 1)])
    table = db.table("clips")
    rows = pa.table({"clip_id": [make_clip(0).clip_id], "verb": ["cut"]})
    changed, fields = table.get_fragments()[0].update_columns(rows, left_on="clip_id", right_on="clip_id")
    update = lance.LanceOperation.Update(updated_fragments=[changed], fields_modified=fields)
    lance.LanceDataset.commit(table, update, read_version=table.version)
    assert committer.commit([write(db, 1, 2)]).num_clips == 1
    assert committer.num_reads == 1
    assert db.read("clips", ["verb"], "verb = 'cut'").num_rows == 1
    assert db.count("clips") == 3


def test_rows_repeated_by_two_writers_are_deleted_at_the_next_start(db):
    committer = Committer(db, RUN_KEY, SCHEMA)
    record = write(db, 0, 1)
    committer.commit([record])
    append_behind_its_back(db, record)
    assert db.count("clips") == 4
    Committer(db, RUN_KEY, SCHEMA)
    assert digests(db.clips()).keys() == ids(0, 1)


def test_rows_of_other_settings_are_refused(db):
    Committer(db, RUN_KEY, SCHEMA).commit([write(db, 0)])
    with pytest.raises(StoreError, match=f"holds clips of run key {RUN_KEY}"):
        Committer(db, "another", SCHEMA)


def test_a_clip_is_a_row_or_a_reject_never_both(db):
    committer = Committer(db, RUN_KEY, SCHEMA)
    committer.commit([write(db, 0)], [reject(0), reject(1), reject(2)])
    assert {r["clip_id"] for r in db.rejects().to_pylist()} == ids(1, 2)
    committer.commit([write(db, 1)])
    assert {r["clip_id"] for r in db.rejects().to_pylist()} == ids(2)
    assert db.count("rejects") == 1


def test_a_second_reject_replaces_the_first_and_adds_attempts(db):
    committer = Committer(db, RUN_KEY, SCHEMA)
    committer.commit([], [reject(0, "decode_timeout")])
    assert committer.commit([], [reject(0)]).num_rejects == 1
    Committer(db, RUN_KEY, SCHEMA).commit([], [reject(0), reject(1)])
    rows = {r["clip_id"]: r for r in db.rejects().to_pylist()}
    assert [rows[i]["attempts"] for i in sorted(rows)] == [3, 1]
    assert {r["reason"] for r in rows.values()} == {"damaged"}
    assert {r["run_key"] for r in rows.values()} == {RUN_KEY}


def test_a_kill_between_rows_and_rejects_is_repaired(db):
    committer = Committer(db, RUN_KEY, SCHEMA)
    committer.commit([], [reject(0), reject(1)])
    append_behind_its_back(db, write(db, 0))  # the rows landed, the driver died before it removed the reject
    assert {r["clip_id"] for r in db.rejects().to_pylist()} == ids(1)
    committer = Committer(db, RUN_KEY, SCHEMA)
    assert db.count("rejects") == 1
    assert committer.attempts.keys() == ids(1)


def test_ids_may_hold_any_character(db):
    clip = make_clip(0, clip_id='it\'s "odd":ü/\\%:0-1000')
    committer = Committer(db, RUN_KEY, SCHEMA)
    committer.commit([], [Reject(clip.clip_id, "decode", "damaged", "x")])
    committer.commit([write_fragment(db.uri, [make_row(clip)], SCHEMA)])
    assert db.count("rejects") == 0
    assert db.row(clip.clip_id, ["clip_id"]).num_rows == 1


def run_writers(uri, stops):
    """Writers that work side by side and are killed after the steps `stops`; what each ended with."""
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(TESTS), str(TESTS.parent)])}
    command = [sys.executable, "-m", "support.store_writer", str(uri)]
    writers = [subprocess.Popen([*command, str(stop)], env=env, stdout=subprocess.PIPE, text=True) for stop in stops]
    for writer in writers:
        with writer:
            if writer.stdout.readline() == "ready\n":
                writer.send_signal(signal.SIGKILL)
            writer.wait(240)
    return [writer.returncode for writer in writers]


def test_kill_after_every_step_and_resume(db):
    """One database, its drivers killed at later and later steps, ends as one of an undisturbed driver does.

    Two drivers at once work on the same clips: no lease keeps these apart.
    """
    clips = [make_clip(n, video_id="lost") if n % 3 == 1 else make_clip(n) for n in range(8)]
    add_clips(db, clips)
    committer = Committer(db, RUN_KEY, SCHEMA)
    committer.commit([], [Reject(clips[0].clip_id, "fetch", "fetch_failed", "no network")])
    assert run_writers(db.uri, [1]) == [-signal.SIGKILL]
    for stops in ((2, 4), (5, 3), (0, 0)):
        assert set(run_writers(db.uri, stops)) <= {0, -signal.SIGKILL}
    lost = {c.clip_id for c in clips if c.video_id == "lost"}
    expected = {}
    for clip in clips:
        expected |= {} if clip.clip_id in lost else digests(make_row(clip))
    assert digests(db.clips()) == expected
    assert {r["clip_id"]: r["attempts"] for r in db.read("rejects").to_pylist()} == dict.fromkeys(lost, 1)


FULL_DISK = """
import resource, sys
from support.rows import RUN_KEY, make_row
from handloom.errors import StoreError
from handloom.schemas.tables.arrow import clips_schema
from handloom.store.clips.commit import Committer
from handloom.api import Database
from handloom.store.fragments import write_fragment
db, schema = Database.open(sys.argv[1]), clips_schema(4)
committer = Committer(db, RUN_KEY, schema)
record = write_fragment(db.uri, [make_row(1)], schema)
resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))  # every file ends after 100 bytes
for job in (lambda: write_fragment(db.uri, [make_row(2)], schema), lambda: committer.commit([record])):
    try:
        job()
        sys.exit("no error")
    except StoreError as error:
        print(error)
"""


def test_a_full_disk_is_reported_and_loses_nothing(db):
    Committer(db, RUN_KEY, SCHEMA).commit([write(db, 0)])
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(TESTS), str(TESTS.parent)])}
    command = [sys.executable, "-c", FULL_DISK, db.uri]
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "could not write 1 rows" in done.stdout
    assert "could not commit finished clips" in done.stdout
    assert done.stdout.count("the disk is full: free some space") == 2
    Committer(db, RUN_KEY, SCHEMA).commit([write(db, 1)])
    assert digests(db.clips()).keys() == ids(0, 1)
