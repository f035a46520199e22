"""A row against the exact truth of its clip: errors that are known, gaps, worlds that were estimated, other videos."""

from __future__ import annotations

import contextlib
import json
import zipfile
from typing import Any

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from handloom.bench.truth.rendered import NUMBERS, compare
from handloom.errors import ConfigError
from handloom.schemas.values import RIGHT
from handloom.synth.render.render import render_clip
from handloom.synth.script.scene import SceneSpec
from handloom.synth.truth import Truth

EVERY = 2  # frames of the truth for one of the row
SHIFT_PX, SHIFT_M = np.array([3.0, 4.0]), np.array([0.0, 0.03, 0.04])


@pytest.fixture(scope="module")
def truth() -> Truth:
    return render_clip(SceneSpec("wave", main_hand=RIGHT, seed=2, duration_s=1.0, fps=12.0)).truth


@pytest.fixture(scope="module")
def path(truth, tmp_path_factory):
    path = tmp_path_factory.mktemp("truth") / "a.truth.npz"
    truth.save(path)
    return path


def row_of(truth: Truth, **cells) -> dict:
    """A row whose hands are the true ones, all of them moved by the same way, in every second frame of the video."""
    at = slice(None, None, EVERY)
    return {
        "clip_id": "a",
        "width": int(truth.size[0]),
        "height": int(truth.size[1]),
        "frame_s": truth.frame_s[at] + 1e-3,  # as containers round them
        "hand_visible": np.isfinite(truth.keypoints_cam_m[at]).all(axis=(2, 3)),
        "hand_keypoints_px": truth.keypoints_px[at] + SHIFT_PX,
        "hand_keypoints_cam_m": truth.keypoints_cam_m[at] + SHIFT_M,
        "hand_keypoints_world_m": truth.keypoints_world_m[at] + SHIFT_M,
        "world_from_camera": truth.world_from_camera[at],
        "world_unit_m": 1.0,
        "camera_path_source": "given",
    } | cells


def test_errors_are_those_that_were_made(truth, path):
    found = compare(row_of(truth), path)
    seen = truth.hand_visible[::EVERY]
    assert seen.any()
    for errors, expected in ((found.error_px, 5.0), (found.error_camera_mm, 50.0), (found.error_world_mm, 50.0)):
        np.testing.assert_allclose(errors[seen], expected, rtol=1e-6)
        assert np.isnan(errors[~seen]).all()
    assert set(found.numbers) == set(NUMBERS)
    assert found.numbers["camera_mm"] == pytest.approx(50.0)
    assert (found.numbers["root_relative_mm"], found.numbers["pa_mm"]) == pytest.approx((0.0, 0.0), abs=1e-6)
    assert (found.numbers["coverage"], found.numbers["handedness"]) == (1.0, 1.0)
    assert np.isnan(found.numbers["camera_ate_m"]), "a given path is not measured"


def test_what_is_unknown_on_either_side_is_a_gap(truth, path):
    row = row_of(truth)
    row["hand_visible"] = row["hand_visible"].copy()
    row["hand_visible"][1] = False
    row["hand_keypoints_cam_m"] = row["hand_keypoints_cam_m"].copy()
    row["hand_keypoints_cam_m"][2] = np.nan
    row["frame_s"] = np.append(row["frame_s"][:-1], 99.0)  # a frame that the truth does not have
    found = compare(row, path)
    assert np.isnan(found.error_px[[1, -1]]).all()
    assert np.isnan(found.error_camera_mm[2]).all()
    assert np.isfinite(found.error_px[2]).any()
    assert np.isnan(found.keypoints_px[-1]).all()
    assert not found.visible[-1].any()
    nothing = compare({**row, "hand_visible": None, "world_from_camera": None}, path)
    assert np.isnan(nothing.error_px).all()
    assert nothing.keypoints_world_m is None
    assert nothing.numbers["coverage"] == 0.0
    assert np.isnan(nothing.numbers["error_px"])


def test_an_estimated_world_is_laid_on_the_truth_and_back(truth, path):
    """The same world turned and moved, in units of half a metre: no error of the hands, and the truth lies on them."""
    move = np.eye(4)
    move[:3, :3] = Rotation.from_rotvec([0.3, -0.8, 0.5]).as_matrix()
    move[:3, 3] = [2.0, -1.0, 0.5]
    row = row_of(truth, camera_path_source="estimated", world_unit_m=0.5)
    poses = move @ row["world_from_camera"]
    poses[:, :3, 3] /= 0.5
    hands = truth.keypoints_world_m[::EVERY] @ move[:3, :3].T + move[:3, 3]
    found = compare({**row, "world_from_camera": poses, "hand_keypoints_world_m": hands}, path)
    np.testing.assert_allclose(found.error_world_mm[np.isfinite(found.error_world_mm)], 0.0, atol=1e-6)
    assert np.isfinite(found.error_world_mm).sum() == np.isfinite(found.error_px).sum()
    np.testing.assert_allclose(found.keypoints_world_m, hands, atol=1e-9)
    np.testing.assert_allclose(found.world_from_camera[:, :3, 3], 0.5 * poses[:, :3, 3], atol=1e-9)
    assert found.numbers["camera_ate_m"] == pytest.approx(0.0, abs=1e-9)


def test_another_video_is_refused(truth, path, tmp_path):
    with pytest.raises(ConfigError, match=r"clip a has images of .* its video 64x64"):
        compare(row_of(truth, width=64, height=64), path)
    with pytest.raises(ConfigError, match="none of its"):
        compare(row_of(truth, frame_s=truth.frame_s[::EVERY] + 50.0), path)


def test_a_truth_that_is_broken_is_told_as_that(truth, path, tmp_path):
    """Cut anywhere, changed in any byte, with arrays that are no numbers, of other shapes, or of lengths nobody has."""
    broken, row, data = tmp_path / "b.truth.npz", row_of(truth), path.read_bytes()

    def refused() -> None:
        with pytest.raises(ConfigError, match=r"b\.truth\.npz cannot be read as a truth"):
            compare(row, broken)

    for kept in (0, 10, len(data) // 2, len(data) - 1):
        broken.write_bytes(data[:kept])
        refused()
    rng = np.random.default_rng(0)
    for place in rng.integers(len(data), size=60):
        broken.write_bytes(data[:place] + bytes([data[place] ^ rng.integers(1, 256)]) + data[place + 1 :])
        with contextlib.suppress(ConfigError):  # not every byte matters
            compare(row, broken)
    with np.load(path) as file:
        arrays = dict(file)
    texts = json.loads(str(arrays["texts"]))
    changes: list[dict[str, Any]] = [
        {"frame_s": np.array([{"a": 1}])},  # pickled: it is not run
        {"frame_s": np.array(["a", "b"])},
        {"frame_s": arrays["frame_s"][:0]},
        {"keypoints_px": arrays["keypoints_px"][:2]},
        {"camera_matrix": np.array(1.0)},
        {"size": np.array([640])},
        {"more": np.zeros(3)},
        {"texts": np.array("[" * 10**5)},
        {"texts": np.array(json.dumps(texts | {"camera_model": "glass"}))},
    ]
    for change in changes:
        np.savez(broken, **arrays | change)
        refused()
    header = np.lib.format.magic(1, 0) + (118).to_bytes(2, "little")
    shape = "{'descr': '<f8', 'fortran_order': False, 'shape': (1000000000000000,), }"
    with zipfile.ZipFile(broken, "w") as packed:
        packed.writestr("frame_s.npy", header + shape.ljust(117).encode() + b"\n")
    refused()
