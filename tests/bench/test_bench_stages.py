"""`bench stages`: a column is added and not the rows; an update is the rows of a fresh extraction."""

from __future__ import annotations

import shutil

import pytest

from handloom.bench.catalogue import run_benchmark
from handloom.bench.stages.measure import DIM, bench_stages
from handloom.bench.watch import Watch
from handloom.errors import ConfigError
from handloom.schemas.tables.stage_columns import COLUMNS_OF


def test_a_small_report(rendered, tmp_path):
    shutil.copy(rendered / "video1.mp4", tmp_path)
    report = bench_stages(tmp_path, Watch(print, quick=True), num_rows=20)
    results = report["results"]
    column, hands = results["add_column"], results["changed_hands"]
    assert (results["rows"], results["clips"]) == (20, 1)
    assert column["column_bytes"] == 20 * DIM * 4
    assert column["column_bytes"] < column["added"]["bytes"] < column["rewritten"]["bytes"] / 4
    assert results["extract_again"] == {"seconds": round(results["extract_cpu_s_per_clip"] * 20, 1), "measured": False}
    before = ("probe", "frames", "images")
    assert hands["stages_computed"] == {
        name: 1 for name in (*COLUMNS_OF, "segments", "motion_steps") if name not in before
    }
    assert hands["rows_differing"] == 0
    assert hands["update_bytes_per_clip"] > 0
    values = {goal["name"]: goal["value"] for goal in report["goals"]}
    assert None not in values.values()
    assert len(report["goals"]) == 5


def test_what_it_does_not_take():
    with pytest.raises(ConfigError, match="takes no --clips"):
        run_benchmark("stages", None, None, print, num_clips=3)
