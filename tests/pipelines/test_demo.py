"""The demo, called again on what another version of handloom has made."""

from __future__ import annotations

import numpy as np
import pytest
from support.in_process import HERE

from handloom.api import Database
from handloom.pipelines.demo import demo
from handloom.pipelines.run.run import run
from handloom.schemas.settings import RunConfig


def points_of(db: Database) -> dict[str, bytes]:
    rows = db.clips(["clip_id", "track_points_px"]).to_pylist()
    return {row["clip_id"]: np.float32(row["track_points_px"]).tobytes() for row in rows}


@pytest.mark.slow
@pytest.mark.usefixtures("ray_address")
def test_a_folder_with_rows_of_other_settings_is_computed_again(tmp_path):
    """As a folder of an older version: `make demo` has no option `--recompute`."""
    told: list[str] = []
    first = demo(tmp_path, 2, told.append, HERE)
    assert "2 clips processed" in first
    db = Database.open(tmp_path / "db")
    grid = points_of(db)
    run(db, RunConfig(tracks={"grid": 2, "extra": 0}), recompute=("tracks",), parts=HERE)
    assert points_of(db) != grid
    again = demo(tmp_path, 2, told.append, HERE)
    assert "2 rows of an older version or of other settings computed again" in again
    assert points_of(db) == grid
    assert "computed again" not in demo(tmp_path, 2, told.append, HERE)
