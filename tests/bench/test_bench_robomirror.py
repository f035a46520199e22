"""`bench robomirror`: cells one seed after the other, means over seeds, and finished cells that are kept."""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict

import numpy as np
import pytest
from support.hand_tables import hand_db, hand_row, with_intents

pytest.importorskip("torch", reason="training is not installed: pip install '.[train]'")

from handloom.api import Database
from handloom.bench.kept import TRIAL, identity_of, init_of, kept
from handloom.bench.robomirror.measure import (
    ALIGNMENT,
    CELLS,
    FLOW,
    MOTION,
    Size,
    bench_robomirror,
    cells_of,
    goals_of,
    over_seeds,
)
from handloom.bench.watch import Watch
from handloom.errors import ConfigError
from handloom.io.folder import Folder
from handloom.train import checkpoint as checkpoints


def test_the_auto_encoder_comes_before_what_is_trained_on_it():
    cells = list(cells_of(Size(seeds=(4, 5))))
    assert [cell.seed for cell in cells] == [4] * 4 + [5] * 4
    assert [cell.what for cell in cells[::4]] == [MOTION] * 2
    assert len({cell.name for cell in cells}) == 8


def test_numbers_are_means_over_seeds_with_their_interval():
    rng = np.random.default_rng(0)
    values = rng.normal(5, 2, (4000, 3))
    cells = [[{"what": FLOW, "seed": n, "numbers": {"error": v}} for n, v in enumerate(row)] for row in values]
    found = [over_seeds(three)[FLOW]["error"] for three in cells]
    assert found[0]["mean"] == pytest.approx(values[0].mean())
    assert found[0]["by_seed"] == {"0": values[0, 0], "1": values[0, 1], "2": values[0, 2]}
    holds = np.mean([one["interval"][0] <= 5 <= one["interval"][1] for one in found])
    assert holds == pytest.approx(0.95, abs=0.015)
    assert over_seeds(cells[0][:1])[FLOW]["error"]["interval"] is None
    assert "error" not in over_seeds([{"what": FLOW, "seed": 0, "numbers": {"error": None}}]).get(FLOW, {})


def test_goals_compare_the_same_seeds_and_tell_the_worst():
    def cell(what, seed, error):
        return {"what": what, "seed": seed, "numbers": {"error": error, "mean_motion": 100.0}}

    cells = [cell(FLOW, 1, 80.0), cell(FLOW, 2, 120.0), cell(ALIGNMENT, 1, 160.0)]
    goals = goals_of(over_seeds(cells))
    assert [one["value"] for one in goals] == [0.5, 1.2]
    assert [one["met"] for one in goals] == [True, False]
    assert [one["met"] for one in goals_of({})] == [None, None]


def test_a_part_is_measured_once_and_again_when_it_is_asked_otherwise(tmp_path):
    calls = []

    def measure():
        calls.append(1)
        return {"value": len(calls)}

    place = tmp_path / "kept.json"
    for asked, value in (({"key": "a"}, 1), ({"key": "a"}, 1), ({"key": "b"}, 2), ({"key": "b"}, 2)):
        assert kept(place, asked, measure) == {**asked, "value": value}
    assert json.loads(place.read_text()) == {"key": "b", "value": 2}


def test_a_database_is_told_by_its_clips_wherever_it_is(tmp_path):
    first, other = (hand_db(tmp_path / name, [hand_row(0)], [], 0) for name in ("first", "other"))
    assert (first.version, first.count("clips")) == (other.version, other.count("clips"))
    assert identity_of(first) != identity_of(other)
    before = identity_of(first)
    shutil.copytree(tmp_path / "first", tmp_path / "copy")
    assert identity_of(Database.open(tmp_path / "copy")) == before
    first.table("clips").delete("true")
    with pytest.raises(ConfigError, match="first has no clips of people"):
        identity_of(first)


def test_a_training_goes_on_where_its_folder_was_copied_to(tmp_path):
    init, place = tmp_path / "here" / "motion-7", tmp_path / "here" / "flow-7"
    assert init_of(place, init) == str(init)
    facts = checkpoints.CheckpointFacts(
        recipe="robomirror", stage="understand", settings={"init": "/there/motion-7"}, settings_key="", step=1,
        epoch=1, batches=0, finished=False, data_version=1, windows_key="", workers=1, facts={}, frozen={}, train_s=0.0,
    )  # fmt: skip
    name = f"{checkpoints.FOLDER}/step-1/{checkpoints.FACTS}"
    Folder.parse(place).write(name, json.dumps(asdict(facts)).encode())
    assert init_of(place, init) == "/there/motion-7"
    assert init_of(place, tmp_path / "motion-8") == str(tmp_path / "motion-8"), "of another network"


@pytest.mark.slow
def test_finished_cells_are_kept(tmp_path):
    db = with_intents(tmp_path / "db", ["image embedding (x)"] * 12, num_frames=48)
    quick = Watch(lambda line: None, quick=True)
    report = bench_robomirror(db.uri, tmp_path / "data", quick)
    assert [one["what"] for one in report["results"]["cells"]] == [cell.what for cell in cells_of(Size(seeds=(1,)))]
    assert all(np.isfinite(one["numbers"]["error"]) for one in report["results"]["cells"])
    assert [place.name for place in (tmp_path / "data").iterdir()] == [TRIAL], "the whole benchmark has its own"
    state = [place.stat().st_mtime_ns for place in sorted((tmp_path / "data" / TRIAL / CELLS).iterdir())]
    again = bench_robomirror(db.uri, tmp_path / "data", quick)
    assert again["results"]["cells"] == report["results"]["cells"]
    assert [place.stat().st_mtime_ns for place in sorted((tmp_path / "data" / TRIAL / CELLS).iterdir())] == state
