"""Small ARCTIC folders: five images, a lens, poses, and hands from both sources."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
from support.mano_file import write_mano

from handloom.bench.truth.arctic import read_arctic
from handloom.bench.truth.cases import ARCTIC, load, real_cases
from handloom.bench.truth.mano import MEDIAPIPE, read_hands
from handloom.errors import ConfigError

FRAMES, OFFSET = 5, 3
MATRIX = np.array([[2400.0, 0, 1390], [0, 2390, 1010], [0, 0, 1]])
LENS = np.array([0.1, -0.2, 0.001, 0.002, 0.01, 0.02, -0.03, 0.004])
PROCESSED = "outputs/processed/seqs/s05/box_use_01.npy"
EGO = "raw_seqs/s05/box_use_01.egocam.dist.npy"


def joints() -> np.ndarray:
    """(T, 2, 21, 3) in MANO's order: number j lies 1 mm farther along x."""
    out = np.zeros((FRAMES, 2, 21, 3))
    out[..., 0] = 0.001 * np.arange(21) + np.array([-0.1, 0.1])[:, None]
    out[..., 2] = 0.5 + 0.001 * np.arange(FRAMES)[:, None, None]
    return out


@pytest.fixture
def release(tmp_path: Path) -> Path:
    """`arctic_data/data` with processed keypoints."""
    for folder in ("raw_seqs/s05", "meta", "images/s05/box_use_01/0", "outputs/processed/seqs/s05"):
        (tmp_path / folder).mkdir(parents=True)
    turn = np.tile(np.diag([-1.0, -1, 1]), (FRAMES, 1, 1))  # camera_from_world: half a turn about the axis
    shift = np.zeros((FRAMES, 3, 1))
    shift[:, 0, 0] = 0.01 * np.arange(FRAMES)
    ego = {"R_k_cam_np": turn, "T_k_cam_np": shift, "intrinsics": MATRIX, "dist8": LENS}
    np.save(tmp_path / EGO, ego, allow_pickle=True)
    (tmp_path / "meta/misc.json").write_text(json.dumps({"s05": {"ioi_offset": OFFSET}}))
    sides = {f"joints.{side}": joints()[:, h].astype(np.float32) for h, side in enumerate(("left", "right"))}
    np.save(tmp_path / PROCESSED, {"world_coord": sides}, allow_pickle=True)
    for number in range(1, FRAMES + OFFSET + 4):  # two before the truth begins, some after its end
        image = np.full((100, 140, 3), 10 * number, np.uint8)
        cv2.imwrite(str(tmp_path / f"images/s05/box_use_01/0/{number:05d}.jpg"), image)
    return tmp_path


def test_images_match_their_frames_and_the_lens_their_size(release: Path):
    truth = read_arctic(release / EGO, release / PROCESSED)
    np.testing.assert_allclose(truth.frame_s, np.arange(FRAMES) / 30)
    assert truth.rgb(0).mean() == pytest.approx(10 * OFFSET, abs=2)  # image `ioi_offset` is frame 0
    assert truth.size == (140, 100)
    np.testing.assert_allclose(truth.camera.camera_matrix[0], [120, 0, (1390 + 0.5) / 20 - 0.5])
    np.testing.assert_array_equal(truth.camera.distortion, LENS)
    np.testing.assert_allclose(truth.world_from_camera[2, :3, 3], [0.02, 0, 0])  # world to camera was stored
    np.testing.assert_allclose(truth.keypoints_world_m, joints()[:, :, MEDIAPIPE], atol=1e-7)
    assert "processed" in truth.note


def test_a_sequence_is_a_case_of_the_benchmark(release: Path):
    (case,) = real_cases(release)
    assert (case.name, case.source) == ("s05/box_use_01", ARCTIC)
    assert case.keypoints == release / PROCESSED
    loaded = load(case, sample_hz=15.0, short_side_px=50)
    assert loaded.index.tolist() == [0, 2, 4]
    assert loaded.frames.rgb(0).shape == (50, 70, 3)
    assert json.loads(loaded.clip.camera)["distortion"] == {"model": "opencv", "params": LENS.tolist()}
    loaded.frames.close()


def test_without_processed_keypoints_manos_files_are_required_and_used(release: Path):
    shutil.rmtree(release / "outputs")
    with pytest.raises(ConfigError, match=r"no s05/box_use_01\.npy with keypoints") as caught:
        read_arctic(release / EGO, None)
    assert "mano.is.tue.mpg.de" in caught.value.hint
    for name in ("MANO_LEFT.pkl", "MANO_RIGHT.pkl"):
        write_mano(release / "body_models/mano" / name)
    hand = {
        "rot": np.zeros((FRAMES, 3)), "pose": np.zeros((FRAMES, 45)), "shape": np.zeros(10),
        "trans": np.tile([0.0, 0, 0.5], (FRAMES, 1)), "fitting_err": np.zeros(FRAMES),
    }  # fmt: skip
    np.save(release / "raw_seqs/s05/box_use_01.mano.npy", {"right": hand, "left": hand}, allow_pickle=True)
    truth = read_arctic(release / EGO, None, read_hands(release / "body_models/mano"))
    assert truth.note.startswith("MANO's keypoints")
    np.testing.assert_allclose(truth.keypoints_world_m[:, :, 0], np.tile([0, 0, 0.5], (FRAMES, 2, 1)))


def test_smaller_images_replace_missing_large_ones(release: Path):
    (release / "images").rename(release / "cropped_images")
    assert read_arctic(release / EGO, release / PROCESSED).size == (140, 100)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda r: (r / "meta/misc.json").unlink(), r"misc\.json cannot be read"),
        (lambda r: (r / "meta/misc.json").write_text("{}"), "KeyError: 's05'"),
        (lambda r: (r / EGO).write_bytes(b"no npy"), "cannot be read"),
        (lambda r: np.save(r / EGO, {"R_k_cam_np": 1}, allow_pickle=True), "cannot be read"),
        (lambda r: (r / "meta/misc.json").write_text('{"s05": {"ioi_offset": 900}}'), "0 of 11 images"),
        (lambda r: np.save(r / PROCESSED, {}, allow_pickle=True), "joints.left"),
    ],
)
def test_errors_name_missing_and_damaged_files(release: Path, spoil, message: str):
    spoil(release)
    with pytest.raises(ConfigError, match=message):
        read_arctic(release / EGO, release / PROCESSED)


def test_a_folder_of_unknown_layout_lists_the_known_ones(tmp_path: Path):
    with pytest.raises(ConfigError, match="is in no known layout") as caught:
        real_cases(tmp_path)
    for word in ("egodex", "hot3d", "arctic"):
        assert word in caught.value.hint
