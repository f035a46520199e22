"""MANO's files: one made here in their format, with the pickled names of chumpy and scipy, read without either."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
from scipy.spatial.transform import Rotation
from support.mano_file import CHAIN_ENDS, JOINTS_M, PARENTS, write_mano

from handloom.bench.truth.files import files_below
from handloom.bench.truth.mano import left_mended, mano_folder, read_hands, read_mano
from handloom.errors import ConfigError
from handloom.schemas.hand_topology import TIPS


def test_rest_pose_in_mediapipe_order(tmp_path: Path):
    hand = read_mano(write_mano(tmp_path / "MANO_RIGHT.pkl"))
    assert hand.parents.tolist() == PARENTS
    zero = np.zeros((1, 3))
    points = hand.keypoints_m(np.zeros(10), zero, np.zeros((1, 45)), zero)[0]
    order = [0, 13, 14, 15, None, 1, 2, 3, None, 4, 5, 6, None, 10, 11, 12, None, 7, 8, 9, None]
    for k, joint in enumerate(order):
        if joint is not None:
            assert points[k] == pytest.approx(JOINTS_M[joint]), k
    assert points[list(TIPS)] == pytest.approx(JOINTS_M[list(CHAIN_ENDS)] - [0.02, 0, 0])


def test_shape_turn_bend_and_shift(tmp_path: Path):
    hand = read_mano(write_mano(tmp_path / "MANO_RIGHT.pkl"))
    turn, shift = Rotation.from_rotvec([0.2, 0.9, -0.4]), np.array([[0.1, 0.2, 0.3]])
    fingers = np.zeros((1, 45))
    fingers[0, 2] = np.pi / 2  # the index finger's first joint, about z
    shape = np.zeros(10)
    shape[0] = 0.01
    points = hand.keypoints_m(shape, turn.as_rotvec()[None], fingers, shift)[0]
    root = JOINTS_M[0] + [0.01, 0, 0]
    assert points[0] == pytest.approx(root + shift[0])
    straight = JOINTS_M[1] + [0.01, 0, 0] - root
    assert points[5] == pytest.approx(root + turn.apply(straight) + shift[0])
    beyond = straight + np.array([0, -0.08, 0])  # 60 mm of joints and 20 mm of tip along -x, turned about z to -y
    assert points[8] == pytest.approx(root + turn.apply(beyond) + shift[0])


def test_principal_components_are_as_many_as_are_given(tmp_path: Path):
    hand = read_mano(write_mano(tmp_path / "MANO_RIGHT.pkl"))
    assert hand.fingers(np.array([[1.0, 2.0]]))[0].tolist() == [1, 2] + 43 * [0]


def test_the_left_hands_shapes_are_mirrored_where_they_are_the_right_ones(tmp_path: Path):
    write_mano(tmp_path / "models/MANO_LEFT.pkl")
    write_mano(tmp_path / "models/MANO_RIGHT.pkl")
    assert mano_folder(files_below(tmp_path)) == tmp_path / "models"
    left, right = read_hands(tmp_path / "models")
    assert left.shape_m[0, 0, 0] == -1
    assert right.shape_m[0, 0, 0] == 1
    assert left_mended(left, right) is left
    (tmp_path / "models/MANO_LEFT.pkl").unlink()
    assert mano_folder(files_below(tmp_path)) is None


def test_a_file_that_would_run_code_is_refused(tmp_path: Path):
    class Evil:
        def __reduce__(self):
            return print, ("run",)

    path = tmp_path / "MANO_RIGHT.pkl"
    path.write_bytes(pickle.dumps({"v_template": Evil()}, protocol=2))
    with pytest.raises(ConfigError, match="it names "):
        read_mano(path)


@pytest.mark.parametrize("data", [b"", b"no pickle", pickle.dumps({"v_template": 1.0}, protocol=2), b"\x80\x02]q\x00."])
def test_a_file_that_is_not_manos_is_refused(tmp_path: Path, data: bytes):
    path = tmp_path / "MANO_RIGHT.pkl"
    path.write_bytes(data)
    with pytest.raises(ConfigError, match=r"MANO_RIGHT\.pkl is no MANO file"):
        read_mano(path)


def test_arrays_of_another_size_are_named(tmp_path: Path):
    path = write_mano(tmp_path / "MANO_RIGHT.pkl")
    path.write_bytes(path.read_bytes().replace(b"hands_mean", b"hands_gone"))
    with pytest.raises(ConfigError, match="hands_mean"):
        read_mano(path)


def test_folders_of_images_are_not_walked(tmp_path: Path):
    images = ("images/s01/a/0/1.jpg", "rec/frames/1.jpg")
    for name in (*images, "raw_seqs/s01/a.npy", "other/images/b.hdf5", "rec/headset_trajectory.csv"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "raw_seqs/loop").symlink_to(tmp_path)
    found = [path.relative_to(tmp_path).as_posix() for path in files_below(tmp_path)]
    assert found == ["other/images/b.hdf5", "raw_seqs/s01/a.npy", "rec/headset_trajectory.csv"]
