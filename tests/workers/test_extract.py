"""Extractor without Ray: a clip's row follows from the clip and the settings alone."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from support.extraction import rows_of
from support.rows import digests

from handloom.schemas.settings import Settings
from handloom.schemas.tables.row import row_arrays
from handloom.stages.registry import stage_graph


def test_a_row_does_not_depend_on_the_clips_before_it(clips, expected):
    shuffled = [clips[i] for i in (3, 0, 0, 1)]  # after another, after itself, and after one of another camera
    found = [digests(row) for row in rows_of(shuffled)]
    assert found == [{clip.clip_id: expected[clip.clip_id]} for clip in shuffled]


def test_rows_hold_what_the_settings_ask_for(clips):
    settings = Settings(
        video={"sample_hz": 5}, tracks={"grid": 6, "extra": 8}, frames={"store": False, "thumbnail_frames": 2}
    )
    two = [clips[0], replace(clips[3], dataset="epic")]
    assumed, given = (row_arrays(row) for row in rows_of(two, settings))
    for row in (assumed, given):
        assert len(row["frame_s"]) == row["num_frames"] == 5
        assert row["track_points_px"].shape == (5, 44, 2)
        assert row["frame_jpeg"] is None
        assert row["hand_keypoints_px"].shape == (5, 2, 21, 2)
        assert np.isnan(row["hand_keypoints_px"][~row["hand_visible"]]).all()
        for name in ("motion", "appearance"):
            assert np.linalg.norm(row[f"embedding_{name}"]) == pytest.approx(1, abs=1e-5)
    assert (assumed["camera_source"], given["camera_source"]) == ("assumed", "given")
    assert (given["camera_path_source"], given["world_scale"], given["world_unit_m"]) == ("given", "metric", 1.0)
    world, seen = given["hand_keypoints_world_m"], given["hand_visible"]
    assert np.isfinite(world[seen]).all(axis=(1, 2)).mean() > 0.9
    assert np.isnan(world[~seen]).all()
    assert np.isfinite(given["track_points_world_m"]).any()
    assert assumed["camera_path_source"] in ("estimated", "none")
    row = next(iter(rows_of(two[:1], settings)))
    assert row.schema.equals(stage_graph(settings).schema())


def test_a_given_path_of_unknown_unit_gets_its_unit_from_the_hands_or_none(clips):
    """The same poses in quarter metres: columns in metres where the hands give the unit, else none."""
    camera = json.loads(clips[3].camera)
    for pose in camera["world_from_camera"]:
        pose["matrix"] = [4 * x if i in (3, 7, 11) else x for i, x in enumerate(pose["matrix"])]
    clip = replace(clips[3], camera=json.dumps(camera | {"world_scale": "arbitrary"}))
    row = row_arrays(next(iter(rows_of([clip]))))
    assert (row["camera_path_source"], row["world_scale"]) == ("given", "arbitrary")
    if row["world_unit_m"] is None:
        assert row["hand_keypoints_world_m"] is None
        assert row["track_points_world_m"] is None
    else:
        assert row["world_unit_m"] == pytest.approx(0.25, rel=0.3)
        assert np.isfinite(row["hand_keypoints_world_m"][row["hand_visible"]]).any()
