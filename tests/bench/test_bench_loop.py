"""`bench loop`: cells one seed after the other, curves over their seeds, and finished cells that are kept."""

from __future__ import annotations

import pytest

pytest.importorskip("metaworld", reason="the simulator is not installed: pip install '.[sim]'")
pytest.importorskip("torch", reason="training is not installed: pip install '.[train]'")

from handloom.bench.loop.measure import CELLS, PRE_TRAINED, SCRATCH, Size, bench_loop, cells_of, curves_of, goals_of
from handloom.bench.watch import Watch
from handloom.sim.scores import wilson


def test_a_seed_is_finished_before_the_next_and_variants_stand_side_by_side():
    size = Size(("reach", "push"), (5, 1), 2)
    cells = list(cells_of(size, True))
    assert len({cell.name for cell in cells}) == len(cells) == 16
    assert [cell.seed for cell in cells] == [0] * 8 + [1] * 8
    pairs = zip(cells[::2], cells[1::2], strict=True)
    for one, other in pairs:
        assert (one.variant, other.variant) == (SCRATCH, PRE_TRAINED)
        assert (one.task, one.number, one.seed) == (other.task, other.number, other.seed)
    assert {cell.variant for cell in cells_of(size, False)} == {SCRATCH}


def test_curves_are_over_all_seeds():
    size = Size(("reach", "push"), (5, 1), 2)
    cells = [
        {"task": one.task, "number": one.number, "seed": one.seed, "variant": one.variant}
        | {"episodes": 30, "successes": 10 * one.seed + one.number}
        for one in cells_of(size, False)
    ]
    found = curves_of(cells)["push"][SCRATCH]["5"]
    assert (found["episodes"], found["successes"]) == (60, 20)
    assert found["by_seed"] == {"0": 5 / 30, "1": 0.5}
    assert found["interval"] == list(wilson(20, 60))
    assert [one["met"] for one in goals_of(curves_of(cells), size)] == [False, False]
    assert [one["met"] for one in goals_of(curves_of(cells[:1]), size)] == [False, None], "push was not measured"


@pytest.mark.slow
def test_finished_cells_are_kept(tmp_path):
    report = bench_loop(None, tmp_path, Watch(lambda line: None, quick=True))
    assert [(one["task"], one["number"], one["steps"]) for one in report["results"]["cells"]] == [
        ("reach", 5, 20),
        ("reach", 1, 20),
    ]
    kept = (tmp_path / CELLS).stat()
    again = bench_loop(None, tmp_path, Watch(lambda line: None, quick=True))
    assert again["results"]["cells"] == report["results"]["cells"]
    assert (tmp_path / CELLS).stat() == kept
