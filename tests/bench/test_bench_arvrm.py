"""`bench arvrm`: which cells there are, that stage 1 fits every variant, and finished cells that are kept."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("metaworld", reason="the simulator is not installed: pip install '.[sim]'")
pytest.importorskip("torch", reason="training is not installed: pip install '.[train]'")

import torch
from support.hand_tables import hand_db, hand_row

from handloom.bench.kept import TRIAL, identity_of
from handloom.bench.loop.arvrm import (
    SCRATCH,
    VARIANTS,
    WHOLE,
    Size,
    bench_arvrm,
    cells_of,
    copy_of,
    goals_of,
    settings_of,
    stage_1_of,
)
from handloom.bench.loop.compare import ALL
from handloom.bench.loop.measure import Cell
from handloom.bench.watch import Watch
from handloom.errors import ConfigError
from handloom.train.arvrm.data.hands import plain_spread
from handloom.train.arvrm.recipe import RECIPE
from handloom.train.arvrm.settings import ArvrmSettings

SPREAD = {f"state_{name}": [1.0] * 4 for name in ("mean", "std", "step_std")} | {"gripper": [3]}


def test_parts_are_taken_away_at_one_number_and_a_seed_is_finished_before_the_next():
    size = Size(("reach", "push"), (5, 1), 5, 2)
    cells = list(cells_of(size, list(VARIANTS)))
    assert len({cell.name for cell in cells}) == len(cells) == 2 * 2 * (len(VARIANTS) + 2)
    assert [cell.seed for cell in cells] == sorted(cell.seed for cell in cells)
    assert {cell.variant for cell in cells if cell.number == 1} == {WHOLE, SCRATCH}


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_weights_of_stage_one_fit(variant):
    """A setting that both must share, and that one file has otherwise, would end the bench after its first stage."""
    values = settings_of("small-sim") | VARIANTS[variant]
    fine = ArvrmSettings(**values | {"init": "x" if values.get("init") else "", "stage": "finetune"})
    first = RECIPE.network(ArvrmSettings(**stage_1_of(variant)), plain_spread())
    second = RECIPE.network(fine, plain_spread() | SPREAD)
    assert "map.m" in RECIPE.load_init(second, first.state_dict(), fine) or not fine.retrieval
    assert torch.equal(second.state_dict()["hand_place"], first.state_dict()["hand_place"])


def test_the_goal_is_one_interval_over_all_tasks_and_clips_are_needed(tmp_path: Path):
    """The best of several lower ends is above 0 by chance."""
    ends = {"reach": {"5": {"interval": [0.1, 0.3]}}, ALL: {"5": {"interval": [-0.05, 0.3]}}}
    assert [one["met"] for one in goals_of({WHOLE: ends}, 5)] == [False]
    assert [one["met"] for one in goals_of({WHOLE: ends}, 1)] == [None]
    assert [one["met"] for one in goals_of({}, 5)] == [None]
    with pytest.raises(ConfigError, match="clips of people are needed"):
        bench_arvrm(None, None, Watch(lambda line: None, quick=True))
    with pytest.raises(ConfigError, match="no variant 'half'"):
        bench_arvrm(str(tmp_path), None, Watch(lambda line: None, quick=True), ["half"])


def test_another_database_has_another_copy(tmp_path: Path, monkeypatch):
    """The first copy was trained on, whichever database was asked for."""
    for name in ("record", "lerobot"):
        monkeypatch.setattr(f"handloom.bench.loop.arvrm.{name}", lambda *args, **options: None)
    cell = Cell("reach", 1, 0, SCRATCH)
    for name in ("first", "other"):
        db = hand_db(tmp_path / name, [hand_row(0)], [], 0)
        clips = identity_of(db)
        copied = copy_of(cell, Size(), db.uri, clips, tmp_path / "data" / clips)
        assert identity_of(copied) == clips
    with pytest.raises(ConfigError, match="have changed since the benchmark began"):
        copy_of(cell, Size(), db.uri, "of before", tmp_path / "data" / "before")


@pytest.mark.slow
def test_finished_cells_are_kept(tmp_path: Path):
    hand_db(tmp_path / "human", [hand_row(n) for n in range(6)], ["x", "y", "z", "yaw", "gripper"], 1)
    human = str(tmp_path / "human")
    report = bench_arvrm(human, tmp_path / "data", Watch(lambda line: None, quick=True))
    cells = report["results"]["cells"]
    assert [one["steps"] for one in cells] == [10] * (len(VARIANTS) + 2)
    assert set(report["results"]["differences"]) == VARIANTS.keys() - {SCRATCH}
    kept = {place: place.stat().st_mtime_ns for place in (tmp_path / "data" / TRIAL / "cells").iterdir()}
    again = bench_arvrm(human, tmp_path / "data", Watch(lambda line: None, quick=True))
    assert again["results"]["cells"] == cells
    assert {place: place.stat().st_mtime_ns for place in (tmp_path / "data" / TRIAL / "cells").iterdir()} == kept
