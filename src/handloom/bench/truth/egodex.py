"""EgoDex's files: a video and, in an HDF5 file of the same name, ARKit's joints and camera.

`transforms/<joint>` (T, 4, 4), joint to world, metres; `transforms/camera`, camera to world, x right, y down, z
forward; `camera/intrinsic` (3, 3). Row i is the video's frame i.

Source: Hoque et al., EgoDex: Learning Dexterous Manipulation from Large-Scale Egocentric Video, 2025.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from handloom.errors import ConfigError

_FINGER = ("Knuckle", "IntermediateBase", "IntermediateTip", "Tip")
KEYPOINTS = (
    "Hand",
    *(f"Thumb{part}" for part in _FINGER),
    *(f"{name}Finger{part}" for name in ("Index", "Middle", "Ring", "Little") for part in _FINGER),
)
"""MediaPipe's 21 keypoints among the 25 joints, in its order; without the metacarpals of the fingers."""


@dataclass(frozen=True)
class EgoDexTruth:
    """camera_matrix: (3, 3); world_from_camera: (T, 4, 4); keypoints_world_m: (T, 2, 21, 3), axis 1 left, right."""

    camera_matrix: NDArray[np.float64]
    world_from_camera: NDArray[np.float64]
    keypoints_world_m: NDArray[np.float64]


def read_egodex(path: Path | str) -> EgoDexTruth:
    """Read one HDF5 file.

    Raises:
        ConfigError: h5py is not installed, or the file has another format than EgoDex's.
    """
    try:
        import h5py
    except ImportError as error:
        raise ConfigError("h5py is not installed: EgoDex's files are HDF5", "pip install h5py") from error
    try:
        with h5py.File(path) as file:
            matrix = np.array(file["camera/intrinsic"], np.float64)
            poses = np.array(file["transforms/camera"], np.float64)
            joints = [[file[f"transforms/{hand}{name}"][:, :3, 3] for name in KEYPOINTS] for hand in ("left", "right")]
            keypoints = np.array(joints, np.float64).transpose(2, 0, 1, 3)
    except (OSError, KeyError, ValueError) as error:
        expected = "EgoDex's HDF5 has camera/intrinsic and transforms/<joint> of every hand joint"
        raise ConfigError(f"{path} cannot be read: {error}", expected) from error
    if matrix.shape != (3, 3) or poses.shape != (len(keypoints), 4, 4):
        raise ConfigError(f"{path}: intrinsic {matrix.shape}, camera {poses.shape}", "expected (3, 3) and (T, 4, 4)")
    poses[:, 3] = [0, 0, 0, 1]  # exact: single precision leaves 4e-7
    return EgoDexTruth(matrix, poses, keypoints)


def egodex_pairs(folder: Path | str) -> list[tuple[Path, Path]]:
    """Videos below `folder`, each with its HDF5 file: beside it, else the only one of its name below `folder`.

    Raises:
        ConfigError: there is no such pair.
    """
    folder = Path(folder)
    by_name: dict[str, list[Path]] = {}
    for truth in sorted(folder.rglob("*.hdf5")):
        by_name.setdefault(truth.stem, []).append(truth)
    pairs = []
    for video in sorted(folder.rglob("*.mp4")):
        beside = video.with_suffix(".hdf5")
        same = by_name.get(video.stem, [])
        if beside in same:
            pairs.append((video, beside))
        elif len(same) == 1 and not same[0].with_suffix(".mp4").exists():
            pairs.append((video, same[0]))
    if not pairs:
        raise ConfigError(
            f"no video of {folder} has an .hdf5 file of its name", "expected EgoDex's {task}/{i}.mp4, .hdf5"
        )
    return pairs
