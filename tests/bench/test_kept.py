"""What benchmarks keep in `--data`: trials apart from the whole, and damaged files by name."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.hand_tables import hand_db, hand_row

pytest.importorskip("torch", reason="training is not installed: pip install '.[train]'")
pytest.importorskip("metaworld", reason="the simulator is not installed: pip install '.[sim]'")

from handloom.bench.catalogue import run_benchmark
from handloom.bench.kept import TRIAL, kept
from handloom.errors import StoreError

MEASURED = {
    "loop": "loop.measure._kept", "arvrm": "loop.arvrm.measured", "robomirror": "robomirror.measure._kept",
    "command": "command.measure._kept",
}  # fmt: skip
"""What measures or reads one cell of a benchmark, and is told its folder last."""


@pytest.mark.parametrize("name", MEASURED)
def test_a_trial_has_a_folder_of_its_own(name, tmp_path, monkeypatch):
    """It replaced finished cells of the whole benchmark, whose names are the same."""
    db = hand_db(tmp_path / "db", [hand_row(0)], [], 0)
    asked: list[Path] = []
    folders: list[Path] = []

    def one(*args):
        asked.append(args[-1])
        raise KeyboardInterrupt

    monkeypatch.setattr(f"handloom.bench.{MEASURED[name]}", one)
    monkeypatch.setattr("handloom.bench.command.measure._experts", lambda size: {})
    monkeypatch.setattr("handloom.bench.command.measure.robomirror", lambda db, clips, folder: folders.append(folder))
    for quick in (False, True):
        run_benchmark(name, None, None, lambda line: None, db=db.uri, quick=quick, data=tmp_path / "data")
    assert asked == [tmp_path / "data", tmp_path / "data" / TRIAL]
    assert asked[1].is_dir()
    assert set(folders) <= {tmp_path / "data"}, "runs of yours that `command` takes, and RoboMirror's of any size"


@pytest.mark.parametrize("content", [b"", b'{"key": ', b"\xff", b"[1]"])
def test_a_damaged_file_is_named(content, tmp_path):
    place = tmp_path / "cells" / "one.json"
    place.parent.mkdir()
    place.write_bytes(content)
    with pytest.raises(StoreError, match=r"one\.json is damaged: .*\nhint: remove it"):
        kept(place, {"key": "a"}, dict)
