"""Copies of rows for searches: whatever happens to the table or to them, what is read is what the version holds."""

import errno
import gc
import itertools
import os
import random
from datetime import timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from handloom.api import Database
from handloom.bench.search.rows import COLUMN, Vectors, append, clip_id_of, schema_of
from handloom.errors import StoreError
from handloom.store.clips.upkeep import drop_old_versions
from handloom.store.filters import in_list
from handloom.store.search import copies
from handloom.store.search.copies import FOLDER, HIT_COLUMNS, bring_copies, copies_of, stored_rows, sweep_copies
from handloom.store.search.index import compact, ensure_text_indexes
from handloom.store.search.ranking import best_clips, by_text
from handloom.store.stages.staged import write_update
from handloom.store.stages.update import ColumnCommitter

DIM, STEP = 8, 24
COLUMNS = [*HIT_COLUMNS, COLUMN]


def make(folder) -> Database:
    db = Database.open(folder, create=True)
    grow(db, 0)
    return db


def grow(db, first):
    for _ in append(db, Vectors(STEP, DIM), first, STEP):
        pass


def folder_of(db) -> Path:
    return Path(db.location.table_uri("clips")) / FOLDER


def check(db, version=None, columns=COLUMNS):
    """Read all rows by their ids, in any order, and compare; returns how many came from copies."""
    table = db.table("clips", version)
    expected = {row["_rowid"]: row for row in table.to_table(columns=columns, with_row_id=True).to_pylist()}
    row_ids = random.Random(1).sample(sorted(expected), len(expected))
    found = stored_rows(table, row_ids, columns).to_pylist()
    assert len(found) == len(expected)
    assert {row["_rowid"]: row for row in found} == expected
    there = copies_of(table)
    return 0 if there is None else there.take(row_ids, columns)[0].num_rows


@pytest.mark.parametrize("seed", range(5))
def test_what_is_read_is_what_the_version_holds(tmp_path, monkeypatch, seed):
    """Any order of new rows, new values, removals, merges, copies, damaged and lost copies."""
    monkeypatch.setattr(copies, "BATCH_ROWS", 10)
    rng = random.Random(seed)
    db = make(tmp_path / "a b%20\u00fc")
    num, versions = STEP, []
    for step in range(16):
        ids = db.clips(["clip_id"]).column(0).to_pylist()
        action = rng.choice(["grow", "words", "vectors", "remove", "merge", "copy", "copy", "damage", "lose"])
        files = sorted(folder_of(db).glob("*.arrow")) if folder_of(db).is_dir() else []
        if action == "grow":
            grow(db, num)
            num += STEP
        elif action == "words":  # rows that move
            rows = pa.table({"clip_id": rng.sample(ids, 5), "narration": [f"{step}"] * 5})
            db.table("clips").merge_insert("clip_id").when_matched_update_all().execute(rows)
        elif action == "vectors":  # as a run writes them: a data file of its own, in the same fragments
            field = schema_of(DIM).field(COLUMN)
            rows = pa.table([pa.array(rng.sample(ids, 5)), vectors_of(step, 5)], ["clip_id", COLUMN])
            written = write_update(db.uri, rows, f"update-{step}")
            ColumnCommitter(db, "bench", [field]).commit([written])
        elif action == "remove":
            db.table("clips").delete(in_list("clip_id", rng.sample(ids, 3)))
        elif action == "merge":
            compact(db)
        elif action == "copy":
            bring_copies(db, COLUMNS)
            assert check(db) == db.count("clips")
        elif files:
            file = rng.choice(files)
            if action == "lose":
                file.unlink()
            else:
                file.write_bytes(file.read_bytes()[: rng.randrange(file.stat().st_size)])
        versions.append(db.version)
        check(db)
    for version in versions:
        check(db, version)


def vectors_of(seed, num):
    numbers = np.random.default_rng(seed).standard_normal(num * DIM).astype(np.float32)
    return pa.FixedSizeListArray.from_arrays(pa.array(numbers), DIM, mask=pa.array(np.arange(num) == 2))


def test_words_find_the_first_of_equal_clips_with_copies_and_without(tmp_path):
    """Many clips of few words have one score: the best k are those of all of them in order, whatever is read."""
    db = make(tmp_path / "db")
    for first in range(STEP, 16 * STEP, STEP):
        grow(db, first)
    ensure_text_indexes(db)
    moved = pa.table({"clip_id": [clip_id_of(3)], "narration": ["take the cup"]})
    db.table("clips").merge_insert("clip_id").when_matched_update_all().execute(moved)
    texts, numbers = ("take the cup", "take", "put the plate", "wash plate and take"), (1, 3, 10, 40)
    table = db.table("clips")
    everything = {text: by_text(table, text, 10_000, None) for text in texts}
    num_cut = 0
    for copied in (False, True):
        if copied:
            bring_copies(db, COLUMNS)
        for text, k in itertools.product(texts, numbers):
            best = best_clips(by_text(table := db.table("clips"), text, k, None), k)
            assert best == sorted(everything[text], key=lambda one: (-one.score, one.clip_id))[:k]
            num_cut += sum(one.score == best[-1].score for one in everything[text]) > k
    assert num_cut > 5, "equal scores were cut"


def test_copies_go_with_their_data_files(tmp_path):
    """Those of removed rows, too; a younger draft may be another process's."""
    db = make(tmp_path / "db")
    grow(db, STEP)
    copied = bring_copies(db, COLUMNS)
    assert (copied.num_rows, len(list(folder_of(db).iterdir()))) == (2 * STEP, 2)
    assert copied.num_bytes == sum(path.stat().st_size for path in folder_of(db).iterdir())
    young, old = (folder_of(db) / f".{age}.arrow" for age in ("young", "old"))
    for draft in (young, old):
        draft.touch()
    os.utime(old, (0, 0))
    before = {path: path.stat().st_mtime_ns for path in folder_of(db).glob("[!.]*")}
    db.table("clips").delete(in_list("clip_id", [clip_id_of(3)]))
    compact(db)
    bring_copies(db, COLUMNS)
    assert before.items() <= {path: path.stat().st_mtime_ns for path in folder_of(db).iterdir()}.items()
    assert check(db) == 2 * STEP - 1
    drop_old_versions(db, timedelta(0))
    assert {path.name for path in folder_of(db).iterdir()} - {young.name} == {
        f"{Path(file.path).stem}.arrow" for f in db.table("clips").get_fragments() for file in f.data_files()
    }
    assert check(db) == 2 * STEP - 1


def test_a_killed_copy_is_not_seen_and_a_full_disk_is_named(tmp_path, monkeypatch):
    db = make(tmp_path / "db")
    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", killed)
        with pytest.raises(KeyboardInterrupt):
            bring_copies(db, COLUMNS)
    assert list(folder_of(db).iterdir()) == []
    assert check(db) == 0
    folder_of(db).rmdir()
    folder_of(db).write_text("in the way")
    with pytest.raises(StoreError, match=r"could not copy what searches read to .*_search"):
        bring_copies(db, COLUMNS)
    assert check(db) == 0


def test_a_copy_that_vanishes_meanwhile_is_no_error(tmp_path, monkeypatch):
    """Another process renames its draft, or removes old copies, between the listing and the look at the file."""
    db = make(tmp_path / "db")
    bring_copies(db, COLUMNS)
    draft, (copy,) = folder_of(db) / ".other.arrow", folder_of(db).glob("*.arrow")
    draft.touch()
    looks, stat = [], Path.stat

    def gone_at_the_second_look(path, **more):
        looks.append(path)
        if looks.count(path) > 1 and path == draft:
            draft.unlink(missing_ok=True)
        return stat(path, **more)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "stat", gone_at_the_second_look)
        sweep_copies(db.table("clips"))
        draft.unlink(missing_ok=True)
        draft.symlink_to("nowhere")
        assert bring_copies(db, COLUMNS).num_bytes == copy.lstat().st_size


def test_a_folder_that_may_not_be_written_is_named_as_that(tmp_path, monkeypatch):
    db = make(tmp_path / "db")

    def refuse(*_):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(os, "replace", refuse)
    with pytest.raises(StoreError, match=r"Permission denied\nhint: check who may read and write") as caught:
        bring_copies(db, COLUMNS)
    assert "space" not in caught.value.hint


def killed(*_):
    raise KeyboardInterrupt


def test_copies_keep_no_table_open(tmp_path):
    db = make(tmp_path / "db")
    bring_copies(db, COLUMNS)
    gc.collect()
    before = len(copies._opened)
    assert check(db) == STEP
    gc.collect()
    assert len(copies._opened) == before


def test_lists_are_read_from_the_table(tmp_path):
    db = make(tmp_path / "db")
    bring_copies(db, COLUMNS)
    assert check(db, columns=["clip_id", "frame_s"]) == 0
