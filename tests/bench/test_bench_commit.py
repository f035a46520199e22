"""`bench commit`: commits that merge, the same without, and reads; every goal is in the report."""

import pytest

from handloom.api import Database
from handloom.bench.catalogue import run_benchmark
from handloom.bench.commit.measure import COMMIT_SHARDS, bench_commit
from handloom.bench.commit.shards import RUN_KEY, SCHEMA, SHARD_CLIPS, clips, written
from handloom.bench.watch import Watch
from handloom.errors import ConfigError
from handloom.store.clips.commit import Committer


def test_a_small_report(tmp_path):
    told = []
    report = bench_commit(None, Watch(told.append, quick=True), sizes=(130, 600), read_shards=3)
    results = report["results"]
    merged, unmerged = results["merged"], results["unmerged"]
    grown = merged["grown"]
    assert (grown["commits"], grown["merges"]) == (13, 1)  # 62 shards in each
    assert grown["fragments"] == 4 * COMMIT_SHARDS + 1  # of 558 shards one, and four commits
    assert merged["sizes"]["600"]["manifest_bytes"] < unmerged["600"]["manifest_bytes"]
    for size in (merged["sizes"], unmerged):
        assert set(size) == {"130", "600"}
        assert all(numbers["seconds"] > 0 and numbers["commits"] > 0 for numbers in size.values())
    assert set(results["reads"]) == {"clips", "unmerged", "merged", "indexed"}
    assert [goal["goal"] for goal in report["goals"]] == [2.0, 2.0, 5.0]
    assert all(goal["value"] is not None for goal in report["goals"])
    assert report["goals"][2]["met"]


def test_synthetic_shards_are_rows_like_others(tmp_path):
    db = Database.open(tmp_path / "db", create=True)
    listed = clips(range(SHARD_CLIPS + 4))
    Committer(db, RUN_KEY, SCHEMA).commit(list(written(db, listed)))
    assert db.table("clips").schema.equals(SCHEMA, check_metadata=True)
    assert db.clips(["clip_id"]).column(0).to_pylist() == [clip.clip_id for clip in listed]
    assert len(db.windows(1, 0, ["hands"])) == len(listed)


def test_what_it_does_not_take():
    for words, given in (("no --clips", {"num_clips": 3}), ("no --videos", {"videos": "x"})):
        asked = {"videos": None, "save": None, "say": lambda _: None} | given
        with pytest.raises(ConfigError, match=words):
            run_benchmark("commit", **asked)
