"""`bench search` on a small table: every number and goal is in the report, and what it measures is right."""

import numpy as np
import pytest

from handloom.bench.catalogue import run_benchmark
from handloom.bench.search.measure import Size, bench_search
from handloom.bench.search.rows import clip_id_of
from handloom.bench.search.truth import recall
from handloom.bench.watch import Watch
from handloom.errors import ConfigError

SIZE = Size(rows=3000, dim=32, queries=40, threshold_rows=1000)


def test_a_small_report():
    report = bench_search(None, Watch([].append, quick=True), SIZE)
    results = report["results"]
    assert results["index"]["report"]["vectors"][0]["num_waiting"] == 0
    assert results["index"]["bytes_added"] > 0
    for found in results["ours"].values():
        assert found["vectors"]["recall"] == found["db_search"]["recall"] > 0.98
        assert 0 < found["vectors"]["p50_ms"] <= found["vectors"]["p99_ms"]
    new = results["new_rows"]
    assert new["waiting"]["found"] == new["indexed"]["found"] == 1
    assert new["index"]["report"]["vectors"][0]["parts"] == 2
    assert new["index"]["bytes_added"] < results["index"]["bytes_added"]
    assert isinstance(results["faiss"], str) or results["faiss"]["all"]["recall"] > 0.9
    assert len(report["goals"]) == 8
    assert all(goal["value"] is not None for goal in report["goals"])


def test_recall_counts_the_true_rows():
    assert recall([[1, 2], [3, 9]], np.array([[1, 2], [4, 3]])) == 0.75
    assert clip_id_of(35) == "bench:v2:3000-4000"


def test_what_it_does_not_take():
    for words, given in (("no --clips", {"num_clips": 3}), ("no --videos", {"videos": "x"})):
        asked = {"videos": None, "save": None, "say": lambda _: None} | given
        with pytest.raises(ConfigError, match=words):
            run_benchmark("search", **asked)
