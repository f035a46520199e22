"""EgoDex's files: a tiny one made here, and the real ones if they are there."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from handloom.bench.truth.egodex import egodex_pairs, read_egodex
from handloom.errors import ConfigError

h5py = pytest.importorskip("h5py")
FRAMES = 4
NAMES = """Hand ThumbKnuckle ThumbIntermediateBase ThumbIntermediateTip ThumbTip
    IndexFingerKnuckle IndexFingerIntermediateBase IndexFingerIntermediateTip IndexFingerTip
    MiddleFingerKnuckle MiddleFingerIntermediateBase MiddleFingerIntermediateTip MiddleFingerTip
    RingFingerKnuckle RingFingerIntermediateBase RingFingerIntermediateTip RingFingerTip
    LittleFingerKnuckle LittleFingerIntermediateBase LittleFingerIntermediateTip LittleFingerTip
    IndexFingerMetacarpal MiddleFingerMetacarpal RingFingerMetacarpal LittleFingerMetacarpal"""


def write(path: Path, without: str = "") -> None:
    """Joint number j of hand h in frame t lies at (t, h, j)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        file["camera/intrinsic"] = np.array([[700, 0, 960], [0, 700, 540], [0, 0, 1]], np.float32)
        poses = np.tile(np.eye(4, dtype=np.float32), (FRAMES, 1, 1))
        poses[:, 3, 1] = 4e-7  # as the real files
        file["transforms/camera"] = poses
        for h, hand in enumerate(("left", "right")):
            for j, name in enumerate(NAMES.split()):
                if hand + name != without:
                    joint = np.tile(np.eye(4), (FRAMES, 1, 1))
                    joint[:, :3, 3] = [(t, h, j) for t in range(FRAMES)]
                    file[f"transforms/{hand}{name}"] = joint


def test_joints_become_keypoints_in_mediapipe_order(tmp_path: Path):
    write(tmp_path / "0.hdf5")
    truth = read_egodex(tmp_path / "0.hdf5")
    assert truth.keypoints_world_m.shape == (FRAMES, 2, 21, 3)
    t, h, k = np.indices((FRAMES, 2, 21))
    np.testing.assert_array_equal(truth.keypoints_world_m, np.stack([t, h, k], axis=-1))
    assert truth.camera_matrix[0, 2] == 960
    np.testing.assert_array_equal(truth.world_from_camera[:, 3], np.tile([0, 0, 0, 1.0], (FRAMES, 1)))


def test_a_file_that_is_not_egodex_says_what_is_missing(tmp_path: Path):
    write(tmp_path / "0.hdf5", without="rightRingFingerTip")
    with pytest.raises(ConfigError, match="rightRingFingerTip"):
        read_egodex(tmp_path / "0.hdf5")
    (tmp_path / "1.hdf5").write_text("no HDF5")
    with pytest.raises(ConfigError, match=r"1\.hdf5 cannot be read"):
        read_egodex(tmp_path / "1.hdf5")


def test_egodex_layout_pairs_files_side_by_side(tmp_path: Path):
    for name in ("part1/pour/0", "part1/pour/1", "part2/fold/0"):
        write(tmp_path / f"{name}.hdf5")
        (tmp_path / f"{name}.mp4").touch()
    (tmp_path / "part2/fold/2.mp4").touch()
    pairs = egodex_pairs(tmp_path)
    assert [video.relative_to(tmp_path).as_posix() for video, _ in pairs] == [
        "part1/pour/0.mp4", "part1/pour/1.mp4", "part2/fold/0.mp4"
    ]  # fmt: skip
    assert all(video.with_suffix(".hdf5") == truth for video, truth in pairs)


def test_truth_may_be_in_a_separate_folder(tmp_path: Path):
    write(tmp_path / "gt/pour_0.hdf5")
    (tmp_path / "videos").mkdir()
    (tmp_path / "videos/pour_0.mp4").touch()
    assert egodex_pairs(tmp_path) == [(tmp_path / "videos/pour_0.mp4", tmp_path / "gt/pour_0.hdf5")]


def test_a_folder_without_pairs_is_refused(tmp_path: Path):
    (tmp_path / "0.mp4").touch()
    with pytest.raises(ConfigError, match=r"no video of .* has an \.hdf5 file"):
        egodex_pairs(tmp_path)
