"""New columns of existing rows: any order, partition, kill and neighbour gives the same table as one update."""

import itertools
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import lance
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lance.file import LanceFileWriter
from support.column_tables import FIELDS, SCHEMA, STAGES, database, expected, new_columns
from support.rows import RUN_KEY, digests, make_clip, make_row, random_unit

from handloom.api import Database
from handloom.errors import CommitConflict, ShapeError, StoreError
from handloom.schemas.tables.stage_columns import key_column
from handloom.stages.stage import owned
from handloom.store.clips.commit import Committer
from handloom.store.fragments import write_fragment
from handloom.store.runs.lease import leased
from handloom.store.runs.runs import end_run, start_run
from handloom.store.search.index import build_indexes, compact
from handloom.store.stages import apply
from handloom.store.stages.apply import BATCH_BYTES, FragmentJob, apply_update
from handloom.store.stages.columns import add_columns_for
from handloom.store.stages.places import changes_columns_only
from handloom.store.stages.staged import ColumnUpdate, remove_leftovers, staged_files, unseen_updates, write_update
from handloom.store.stages.update import ColumnCommitter

SHARDS = ((0, 1, 2), (3, 4), (5,))
RUN = "run"
TESTS = Path(__file__).parents[1]


def ids(*numbers):
    return [make_clip(number).clip_id for number in numbers]


def stage(db, numbers, stages=STAGES, seed=1):
    return write_update(db.uri, new_columns(numbers, stages, seed), RUN)


def check(db, numbers, changes):
    assert digests(db.clips()) == expected(numbers, changes)


def all_of(numbers, seed=1, stages=STAGES):
    return {(number, name): seed for number in numbers for name in stages}


@pytest.fixture
def db(tmp_path):
    return database(tmp_path / "db", SHARDS)


def test_columns_and_keys_of_a_clip_change_together(db):
    before = db.version
    update = ColumnUpdate.from_json(stage(db, [4, 0, 5]).to_json())
    assert staged_files(db) == [update.file]
    assert unseen_updates(db.uri, [update, replace(update, file="run/elsewhere.lance")]) == ["run/elsewhere.lance"]
    result = ColumnCommitter(db, RUN_KEY, FIELDS).commit([update])
    assert (result.num_clips, result.gone, result.fragments, result.version) == (3, (), 3, before + 1)
    check(db, range(6), all_of([0, 4, 5]))
    assert staged_files(db) == []
    assert changes_columns_only(db.table("clips").read_transaction(db.version).operation)
    files = [json.loads(json.dumps(f.metadata.to_json()))["files"] for f in db.table("clips").get_fragments()]
    assert [len(each) for each in files] == [2, 2, 2]
    assert result.num_bytes == sum(each[-1]["file_size_bytes"] for each in files)


@settings(max_examples=12, deadline=None)
@given(
    steps=st.lists(
        st.one_of(
            st.lists(
                st.tuples(
                    st.lists(st.integers(0, 9), min_size=1, max_size=4, unique=True),
                    st.lists(st.sampled_from(STAGES), min_size=1, max_size=3, unique=True),
                    st.integers(1, 3),
                ),
                min_size=1,
                max_size=3,
            ),
            st.sampled_from(["compact", "index", "new committer", "remove 1", "append 8", "append 9"]),
        ),
        max_size=7,
    )
)
def test_any_order_and_partition_gives_the_same_table(tmp_path_factory, steps):
    db = database(tmp_path_factory.mktemp("db"), SHARDS)
    rows, columns = Committer(db, RUN_KEY, SCHEMA), ColumnCommitter(db, RUN_KEY, FIELDS)
    there, changes = set(range(6)), {}
    for step in steps:
        if step == "compact":
            compact(db, drop_versions_older_than=timedelta(0))
        elif step == "index":
            build_indexes(db, ann_threshold_rows=1)
        elif step == "new committer":
            columns = ColumnCommitter(db, RUN_KEY, FIELDS)
        elif step == "remove 1":
            db.table("clips").delete(f"clip_id = '{ids(1)[0]}'")
            there.discard(1)
        elif isinstance(step, str):
            number = int(step[-1])
            rows.commit([write_fragment(db.uri, [make_row(number)], SCHEMA)])
            there.add(number)
        else:
            updates = [stage(db, *update) for update in step]
            if step[0][2] == 3:  # a batch is one row where rows are large
                updates = [replace(update, num_bytes=1 << 40) for update in updates]
            result = columns.commit(updates)
            asked = {number for numbers, _, _ in step for number in numbers}
            assert result.num_clips == len(asked & there)
            assert set(result.gone) == set(ids(*asked - there))
            for numbers, stages, seed in step:
                changes |= all_of(set(numbers) & there, seed, stages)
    check(db, sorted(there), changes)
    assert staged_files(db) == []


def test_the_same_updates_again_change_nothing(db):
    updates = [stage(db, [0, 1]), stage(db, [1, 3], ["motion"], 2)]
    columns = ColumnCommitter(db, RUN_KEY, FIELDS)
    columns.commit(updates)
    version = db.version
    assert columns.commit(updates).num_clips == 0
    assert db.version == version
    check(db, range(6), all_of([0, 1]) | all_of([1, 3], 2, ["motion"]))


class Killed(BaseException):
    """In place of the signal."""


def test_a_driver_killed_at_any_call_leaves_a_table_that_goes_on(tmp_path, monkeypatch):
    """Before the 1st, 2nd, ... call of what writes or deletes in Lance; then another driver does the rest."""
    calls = []

    def counted(kind, name):
        real = getattr(kind, name)

        def call(*args, **kwargs):
            calls.append(name)
            if len(calls) == kill_at:
                raise Killed
            return real(*args, **kwargs)

        monkeypatch.setattr(kind, name, staticmethod(call) if name == "commit" else call)

    def drive(db):
        committed = db.clips(["clip_id", key_column("motion")]).to_pylist()
        todo = [n for n in range(6) if {"clip_id": ids(n)[0], key_column("motion"): "motion-1"} not in committed]
        columns = ColumnCommitter(db, RUN_KEY, FIELDS)
        for shard in (todo[:4], todo[4:]):
            if shard:
                columns.commit([stage(db, shard[:2]), *([stage(db, shard[2:])] if shard[2:] else [])])

    db = database(tmp_path / "db", SHARDS)
    ColumnCommitter(db, RUN_KEY, FIELDS)  # makes `stage_rejects`
    kill_at = 0
    for kind, name in (
        (lance.LanceDataset, "commit"),
        (lance.file.LanceFileWriter, "write_batch"),
        (lance.file.LanceFileWriter, "close"),
        (lance.file.LanceFileSession, "delete_file"),
    ):
        counted(kind, name)
    clean = db.version
    drive(db)
    num_calls = len(calls)
    assert calls.count("commit") == 2
    assert calls.count("delete_file") == 3
    for kill_at in range(1, num_calls + 1):
        calls.clear()
        db.table("clips", clean).restore()
        with pytest.raises(Killed):
            drive(db)
        done = [row for row in db.clips(["clip_id", "stage_key_motion"]).to_pylist() if row["stage_key_motion"]]
        numbers = [n for n in range(6) if ids(n)[0] in {row["clip_id"] for row in done}]
        assert len(numbers) in (0, 4, 6)
        check(db, range(6), all_of(numbers))
        kill_at = 0
        remove_leftovers(db)
        drive(db)
        check(db, range(6), all_of(range(6)))
        assert staged_files(db) == []


def test_a_commit_whose_reply_was_lost_is_seen(db, monkeypatch):
    real, lost = lance.LanceDataset.commit, []

    def commit(*args, **kwargs):
        result = real(*args, **kwargs)
        if not lost:
            lost.append(True)
            raise OSError("error sending request: connection reset")
        return result

    monkeypatch.setattr(lance.LanceDataset, "commit", staticmethod(commit))
    before = db.version
    assert ColumnCommitter(db, RUN_KEY, FIELDS).commit([stage(db, [0, 4])]).num_clips == 2
    assert db.version == before + 1
    check(db, range(6), all_of([0, 4]))


def other_writer(db, what):
    """What another process commits between the reading and the commit of ours."""
    if what == "update":
        ColumnCommitter(db, RUN_KEY, FIELDS).commit([stage(db, [1, 4], ["motion"], 2)])
    elif what == "compact":
        compact(db)
    elif what == "remove":
        db.table("clips").delete(f"clip_id = '{ids(1)[0]}'")
    else:
        Committer(db, RUN_KEY, SCHEMA).commit([write_fragment(db.uri, [make_row(7)], SCHEMA)])


@pytest.mark.parametrize("what", ["update", "compact", "remove", "append"])
def test_a_neighbours_commit_in_between_is_kept(db, what):
    calls = []

    def apply(jobs):
        changes = [apply_update(job) for job in jobs]
        calls.append(len(jobs))
        if len(calls) == 1:
            other_writer(db, what)
        return changes

    result = ColumnCommitter(db, RUN_KEY, FIELDS, apply=apply).commit([stage(db, [1, 2, 5])])
    there = {*range(6)} - ({1} if what == "remove" else set()) | ({7} if what == "append" else set())
    changes = all_of([4], 2, ["motion"]) if what == "update" else {}
    check(db, sorted(there), changes | all_of({1, 2, 5} & there))
    assert set(result.gone) == ({ids(1)[0]} if what == "remove" else set())
    redone = {"update": [2, 1], "compact": [2, 1], "remove": [2, 1], "append": [2]}
    assert calls == redone[what]  # fragments that nobody has changed are not written again


def test_readers_of_a_version_are_undisturbed(db):
    version = db.version
    before = digests(db.clips(version=version))
    reader = db.batches(["clip_id", "hand_keypoints_px", "quality"], version=version, batch_size=1)
    read = [next(reader)]
    for seed in (1, 2):
        ColumnCommitter(db, RUN_KEY, FIELDS).commit([stage(db, range(6), STAGES, seed)])
    read += list(reader)
    same = pa.Table.from_batches([make_row(n) for n in range(6)]).select(read[0].schema.names)
    assert digests(pa.Table.from_batches(read)) == digests(same)
    assert digests(db.clips(version=version)) == before


def test_a_table_replaced_by_another_is_not_written_to(db):
    columns = ColumnCommitter(db, RUN_KEY, FIELDS)
    update = stage(db, [0])
    lance.LanceDataset.drop(db.location.table_uri("clips"))
    database(db.uri, [(0,)])
    with pytest.raises(CommitConflict, match="was replaced by another one"):
        columns.commit([update])


def test_a_driver_that_may_not_write_any_more_writes_nothing(db):
    def allowed():
        raise StoreError("another has it")

    before = db.version
    with pytest.raises(StoreError, match="another has it"):
        ColumnCommitter(db, RUN_KEY, FIELDS, allowed).commit([stage(db, [0])])
    assert db.version == before


def test_wrong_updates_are_refused(db):
    columns = ColumnCommitter(db, RUN_KEY, FIELDS)
    rows = new_columns([0], ["motion"], 1)
    wide = rows.set_column(1, "embedding_motion", pa.array([[0.5] * 5], pa.list_(pa.float32(), 5)))
    with pytest.raises(StoreError, match=r"embedding_motion of clips is .*608.*, the new values are .*5"):
        columns.commit([write_update(db.uri, wide, RUN)])
    with pytest.raises(StoreError, match=r"new columns mine are none that this run writes \(clip test:v0:0-1000"):
        columns.commit([write_update(db.uri, rows.append_column("mine", pa.array([1])), RUN)])
    with pytest.raises(StoreError, match=r"column mine of .* is not there, this run writes int32"):
        ColumnCommitter(db, RUN_KEY, [*FIELDS, pa.field("mine", pa.int32())])
    for bad in (rows.slice(1), rows.select(["clip_id"]), pa.concat_tables([rows, rows])):
        with pytest.raises(ShapeError, match="expected each clip once"):
            write_update(db.uri, bad, RUN)
    check(db, range(6), {})


def test_staged_files_of_ended_runs_are_deleted_and_of_others_kept(db):
    record = {"settings": {}, "resources": {}, "versions": {}}
    ended = start_run(db, RUN_KEY, **record)
    end_run(db, ended, "done", num_clips=0, num_rejects=0, num_frames=0, stage_s={})
    with leased(db, RUN_KEY, **record) as lease:
        runs = (ended.run_id, "unknown", lease.run.run_id, "mine")
        files = [write_update(db.uri, new_columns([0], ["motion"], 1), run).file for run in runs]
        compact(db, drop_versions_older_than=timedelta(0))
        assert staged_files(db) == sorted(files)
        assert remove_leftovers(db, keep=["mine"]) == 2
        assert staged_files(db) == sorted(files[2:])
    end_run(db, lease.run, "done", num_clips=0, num_rejects=0, num_frames=0, stage_s={})
    assert remove_leftovers(db) == 2
    assert not list(db.location.path.glob("clips.lance/_staged/*")), "nor are the folders left"


@pytest.mark.parametrize("data_format", ["2.0", "2.1", "2.2"])
def test_a_fragment_is_described_as_lance_describes_it(tmp_path, data_format):
    """Its own `update_columns` joins in memory, but knows how a data file of each format is described."""
    uri = f"{tmp_path}/clips.lance"
    table = lance.write_dataset(
        pa.Table.from_batches([make_row(n) for n in range(5)]), uri, data_storage_version=data_format
    )
    table.add_columns(pa.schema([field for field in FIELDS if field.name not in SCHEMA.names]))
    table = lance.dataset(uri)
    table.delete(f"clip_id = '{ids(1)[0]}'")
    table = lance.dataset(uri)
    rows = new_columns([4, 0, 2], STAGES, 1)
    theirs, fields = table.get_fragments()[0].update_columns(rows, left_on="clip_id")
    change = apply_update(FragmentJob(uri, table.version, 0, (write_update(str(tmp_path), rows, RUN),)))
    ours = json.loads(change.metadata)

    def described(metadata):
        new = metadata["files"][1]
        same = {name: new[name] for name in ("column_indices", "file_major_version", "file_minor_version", "base_id")}
        return {**metadata, "files": [metadata["files"][0], sorted(new["fields"]), same]}

    assert described(ours) == described(theirs.to_json())
    assert set(change.fields) >= set(fields)


def test_an_index_of_a_list_column_finds_the_new_values_and_not_the_old(tmp_path):
    """Lance's own `update_columns` names the list's items alone, and the list's index then answers with old rows."""
    db = database(tmp_path / "db", ((0, 1, 2), (3,)))
    tags = owned(pa.field("tags", pa.list_(pa.string())), "tags", ())
    fields = [tags, pa.field(key_column("tags"), pa.string())]
    add_columns_for(db, fields)
    columns = ColumnCommitter(db, RUN_KEY, fields)

    def give(numbers, tag):
        values = {"clip_id": ids(*numbers), "tags": [[tag]] * len(numbers), key_column("tags"): ["k"] * len(numbers)}
        columns.commit([write_update(db.uri, pa.table(values), RUN)])

    give(range(4), "red")
    db.table("clips").create_scalar_index("tags", "LABEL_LIST")
    give([1, 3], "blue")
    found = [db.count("clips", f"array_has(tags, '{tag}')") for tag in ("red", "blue")]
    assert found == [2, 2]


def test_members_of_a_struct_may_be_in_another_order(tmp_path):
    """`quality` of a table of 0.2: later members were added behind the others."""
    kind = SCHEMA.field("quality").type
    turned = pa.struct([kind.field(i) for i in reversed(range(kind.num_fields))])
    rows = pa.Table.from_batches([make_row(n) for n in range(3)])
    values = [pa.array(rows.column("quality").to_pylist(), turned)]
    rows = rows.set_column(rows.schema.get_field_index("quality"), pa.field("quality", turned), values)
    lance.write_dataset(rows, f"{tmp_path}/clips.lance")
    db = Database.open_or_new(tmp_path)
    add_columns_for(db, FIELDS, ours=SCHEMA.names)
    columns = ColumnCommitter(db, RUN_KEY, FIELDS)
    new = new_columns([0, 2], ["quality"], 1)
    columns.commit([write_update(db.uri, new, RUN)])
    found = {row["clip_id"]: row["quality"] for row in db.clips(["clip_id", "quality"]).to_pylist()}
    wanted = dict(zip(ids(0, 2), new.column("quality").to_pylist(), strict=True))
    assert found == wanted | {ids(1)[0]: make_row(1).column("quality")[0].as_py()}


def test_large_values_that_rows_keep_are_copied_a_few_at_a_time(tmp_path, monkeypatch):
    """The new value has 5 bytes: with batches by its size 400 rows of 2 MB took 4.5 GB of memory, in place of 0.4."""
    large = SCHEMA.get_field_index("thumbnail")
    images = [bytes([number]) * (BATCH_BYTES // 2) for number in range(4)]
    rows = [make_row(n).set_column(large, SCHEMA.field(large), pa.array([images[n]])) for n in range(4)]
    db = Database.open(tmp_path, create=True)
    Committer(db, RUN_KEY, SCHEMA).commit([write_fragment(db.uri, rows, SCHEMA)])
    add_columns_for(db, FIELDS, ours=SCHEMA.names)
    written = []

    class Writer(LanceFileWriter):
        def write_batch(self, batch):
            written.append(batch.num_rows)
            super().write_batch(batch)

    monkeypatch.setattr(apply, "LanceFileWriter", Writer)
    ColumnCommitter(db, RUN_KEY, FIELDS).commit([stage(db, [2], ["hands_2d"])])
    (new,) = new_columns([2], ["hands_2d"], 1).column("thumbnail").to_pylist()
    assert db.clips(["thumbnail"]).column("thumbnail").to_pylist() == [*images[:2], new, images[3]]
    assert sum(written) == 4
    assert max(written) <= 2


def test_of_a_repeated_clip_the_row_that_stays_is_changed(db):
    """Two drivers have appended it; when it is found, all but its first row are deleted."""
    columns = ColumnCommitter(db, RUN_KEY, FIELDS)
    again = write_fragment(db.uri, [make_row(n) for n in (7, 7, 0)], SCHEMA)
    lance.LanceDataset.commit(
        db.location.table_uri("clips"), lance.LanceOperation.Append(again.metadata()), read_version=db.version
    )
    assert columns.commit([stage(db, [0, 7])]).num_clips == 2
    Committer(db, RUN_KEY, SCHEMA)
    check(db, [*range(6), 7], all_of([0, 7]))


def test_files_that_no_column_is_read_from_are_left_out(db):
    columns = ColumnCommitter(db, RUN_KEY, FIELDS)
    for seed in (1, 2, 3):
        columns.commit([stage(db, [0, 1], ["motion"], seed)])
    assert len(db.table("clips").get_fragments()[0].metadata.files) == 2


def test_search_finds_new_vectors_through_the_index(tmp_path):
    """Lance takes changed fragments out of the indexes of changed columns; the other indexes stay complete."""
    db = database(tmp_path / "db", [range(20), range(20, 30)])
    build_indexes(db, ann_threshold_rows=1)

    def covered(name):
        return db.table("clips").stats.index_stats(name)["num_indexed_rows"]

    rng = np.random.default_rng(0)
    new = {number: random_unit(rng, 608) for number in (3, 25)}

    def nearest(vector, k=1):
        query = {"column": "embedding_motion", "q": vector, "k": k, "metric": "cosine"}
        return db.table("clips").to_table(columns=["clip_id"], nearest=query).column("clip_id").to_pylist()

    old = db.clips(["embedding_motion"], f"clip_id = '{ids(3)[0]}'").column(0)[0].values.to_numpy()
    assert nearest(old) == ids(3)
    columns = ColumnCommitter(db, RUN_KEY, FIELDS)
    for number, vector in new.items():
        rows = pa.table(
            {"clip_id": ids(number), "embedding_motion": pa.array([vector], SCHEMA.field("embedding_motion").type)}
        )
        columns.commit([write_update(db.uri, rows, RUN)])
        assert nearest(vector) == ids(number)
    assert covered("embedding_motion_cosine") == 0
    assert covered("clip_id_scalar") == covered("embedding_appearance_cosine") == 30
    for _ in range(2):
        assert nearest(old) != ids(3)
        assert all(nearest(vector) == ids(number) for number, vector in new.items())
        assert sorted(nearest(old, 40)) == sorted(ids(*range(30)))  # no clip twice, none missing
        assert [db.row(id_, ["clip_id"]).num_rows for id_ in ids(3, 25, 0)] == [1, 1, 1]
        build_indexes(db, ann_threshold_rows=1)
    assert covered("embedding_motion_cosine") == 30


def test_killed_processes_and_appended_rows_beside_them(tmp_path):
    """A process that updates columns is killed at three moments while this one appends rows; another does the rest."""
    db = database(tmp_path / "db", [range(5), range(5, 10)])
    rows = Committer(db, RUN_KEY, SCHEMA)
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(TESTS), str(TESTS.parent)])}
    command = [sys.executable, "-m", "support.column_writer", db.uri, "1"]
    numbers = iter(range(10, 16))
    for wait_s in (0.05, 0.15, 0.3, None):
        with subprocess.Popen(command, env=env, stdout=subprocess.PIPE, text=True) as writer:
            assert writer.stdout.readline() == "ready\n"
            for number in itertools.islice(numbers, 2):
                rows.commit([write_fragment(db.uri, [make_row(number)], SCHEMA)])
            if wait_s is not None:
                time.sleep(wait_s)
                writer.kill()
            assert writer.wait(240) in (0, -signal.SIGKILL)
    check(db, range(16), all_of(range(16)))
    remove_leftovers(db)
    assert staged_files(db) == []
