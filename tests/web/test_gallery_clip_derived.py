"""What the clip page gets beside the row: the truth of a rendered clip, a body, points under a lens that distorts."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import lance
import numpy as np
import pyarrow as pa
import pytest
from support.gallery import client_of, gallery_clip, gallery_db, unpacked
from support.rows import FISHEYE, later_grid, make_row

import handloom.web
from handloom.draw.overlay import BODY_COLOR, HAND_COLORS, SKELETON
from handloom.geometry.bodies import BODY_BONES, NUM_BODY_KEYPOINTS
from handloom.geometry.camera.intrinsics import project
from handloom.geometry.tracks.stored_grids import StoredGrids
from handloom.schemas.settings import Settings
from handloom.schemas.tables.row import row_arrays, row_camera
from handloom.schemas.values import LEFT, RIGHT
from handloom.synth.render.render import render_clip
from handloom.synth.script.scene import SceneSpec
from handloom.web.clips.arrays import arrays_of

NUM = 6


def lensed_row(**cells) -> dict:
    """A row under a fisheye with a moving camera in metres, and a later grid; tracks with depth."""
    row = row_arrays(make_row(gallery_clip(0), num_frames=NUM, camera=FISHEYE, later=(later_grid(2, 1, 4),), grid=2))
    poses = np.tile(np.eye(4), (NUM, 1, 1))
    poses[:, 0, 3] = np.linspace(0, 0.2, NUM)
    rng = np.random.default_rng(0)
    depth = np.where(row["track_visible"], rng.uniform(0.5, 2, row["track_visible"].shape), np.nan)
    later = rng.uniform(0.5, 2, len(row["regrid_points_px"]))
    return (
        row | {"world_from_camera": poses, "world_unit_m": 1.0, "track_depth_m": depth, "regrid_depth_m": later} | cells
    )


def test_points_under_a_lens_that_distorts_are_lifted_as_windows_lift_them():
    row = lensed_row()
    found = {name: make() for name, make in arrays_of(row).items()}
    assert "track_points_cam_m" not in {name for name in arrays_of(lensed_row(track_points_world_m=np.zeros(1)))}
    camera = row_camera(row)
    seen = row["track_visible"]
    np.testing.assert_allclose(
        project(found["track_points_cam_m"][seen], camera), row["track_points_px"][seen], atol=0.05
    )
    np.testing.assert_allclose(found["track_points_cam_m"][seen][:, 2], row["track_depth_m"][seen], rtol=1e-5)
    grids = StoredGrids.of(row)
    frames = grids.frames(0)
    world = grids.take(0, "track_points_world_m", frames)[grids.visible]
    ours = found["regrid_points_cam_m"] + row["world_from_camera"][np.repeat(frames, grids.visible.sum(axis=1)), :3, 3]
    np.testing.assert_allclose(ours, world, rtol=1e-5)
    assert "regrid_points_cam_m" not in arrays_of(row | {"camera_distortion": None})


def test_directions_at_the_border_are_those_of_its_pixels():
    row = lensed_row()
    border = arrays_of(row)["image_border_rays"]()
    np.testing.assert_allclose(np.linalg.norm(border, axis=1), 1.0, rtol=1e-6)
    pixels = project(border, row_camera(row)) + 0.5
    corners = [[0, 0], [row["width"], 0], [row["width"], row["height"]], [0, row["height"]]]
    np.testing.assert_allclose(pixels[:: len(pixels) // 4], corners, atol=0.05)


def test_a_body_appears_where_it_was_seen():
    rng = np.random.default_rng(1)
    hip_m = rng.uniform(-0.5, 0.5, (NUM, NUM_BODY_KEYPOINTS, 3)).astype(np.float32)
    place = np.array([0.2, -0.1, 2.5])
    row = lensed_row()
    px = project(hip_m + place, row_camera(row))
    visibility = np.ones((NUM, NUM_BODY_KEYPOINTS))
    visibility[:, 3], visibility[4] = 0.2, np.nan  # guessed; no body
    flat = {"body_keypoints_px": px.reshape(NUM, -1), "body_keypoints_hip_m": hip_m.reshape(NUM, -1)}
    body = arrays_of(row | flat | {"body_keypoint_visibility": visibility})["body_keypoints_cam_m"]()
    expected = np.where((visibility >= 0.5)[..., None], hip_m + place, np.nan)
    np.testing.assert_allclose(body, expected, atol=2e-3)


def test_the_truth_beside_a_video_is_told_and_another_is_not(tmp_path):
    truth = render_clip(SceneSpec("wave", seed=2, duration_s=1.0, fps=15.0, width=640, height=360)).truth
    clips = [
        gallery_clip(number, clip_id=name, video_uri=str(tmp_path / f"{name}.mp4")) for number, name in enumerate("abc")
    ]
    clips.append(gallery_clip(3, clip_id="d", video_uri=str(tmp_path / "a.txt")))  # no video: nothing beside it is read
    for name in "ac":
        truth.save(tmp_path / f"{name}.truth.npz")
    (tmp_path / "c.truth.npz").write_bytes(b"no truth")
    db = gallery_db(tmp_path / "db", [])
    rows = [make_row(replace(clip, start_s=0.0, end_s=1.0), num_frames=5) for clip in clips]
    lance.write_dataset(pa.Table.from_batches(rows), str(tmp_path / "db" / "clips.lance"))
    with client_of(db) as client:
        told = {name: client.get(f"/api/clip?id={name}").json()["truth"] for name in "abcd"}
        assert told == {"a": "a.truth.npz", "b": None, "c": "c.truth.npz", "d": None}
        facts = client.get("/api/truth?id=a").json()
        arrays = unpacked(client.get("/api/truth_arrays?id=a").content)
        for name in "bcd":
            answer = client.get(f"/api/truth?id={name}")
            assert answer.status_code == 404
            assert answer.json()["error"]["hint"]
    assert list(arrays) == facts["arrays"]
    np.testing.assert_allclose(arrays["truth_keypoints_px"], truth.keypoints_px[:5], rtol=1e-5)
    assert np.isnan(arrays["error_px"]).sum() == arrays["error_px"].size - facts["num_found"]
    assert {one["name"] for one in facts["numbers"]} >= {"error_px", "camera_mm", "world_mm"}


def test_a_recording_without_its_package_is_501(tmp_path, monkeypatch):
    db = gallery_db(tmp_path / "db", [0])
    monkeypatch.setitem(sys.modules, "rerun", None)
    with client_of(db) as client:
        answer = client.get(f"/download/rrd?id={gallery_clip(0).clip_id}")
    assert answer.status_code == 501
    assert "rerun" in answer.json()["error"]["problem"]


def test_every_setting_of_a_run_has_a_meaning(tmp_path):
    with client_of(gallery_db(tmp_path / "db", [])) as client:
        told = client.get("/api/settings").json()["meanings"]
    settings = Settings().model_dump()
    names = {f"{section}.{name}" for section, part in settings.items() if isinstance(part, dict) for name in part}
    assert set(told) == names
    assert all(len(words) > 10 for words in told.values())


def test_pages_draw_the_figures_of_the_rows():
    """Bones and colours of the pages' scripts are those of `handloom show`."""
    if shutil.which("node") is None:
        pytest.skip("needs node")
    script = Path(handloom.web.__file__).parent / "static/js/overlay.js"
    say = "const say = m => console.log(JSON.stringify([m.SKELETON, m.BODY_BONES, m.HAND_COLORS, m.BODY_COLOR]));"
    code = f"{say} import({json.dumps(str(script))}).then(m => say(m))"
    done = subprocess.run(["node", "-e", code], capture_output=True, text=True, check=True)
    skeleton, body, hands, color = json.loads(done.stdout)
    assert {tuple(sorted(bone)) for bone in skeleton} == {tuple(sorted(bone)) for bone in SKELETON}
    assert [tuple(bone) for bone in body] == list(BODY_BONES)
    assert [*hands, color] == [
        f"rgb({' '.join(map(str, one))})" for one in (HAND_COLORS[LEFT], HAND_COLORS[RIGHT], BODY_COLOR)
    ]
