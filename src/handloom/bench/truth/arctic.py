"""ARCTIC's own view: images of the head camera, its lens and pose, and the hands, in the folders of the release.

`images/s05/box_use_01/0/00001.jpg` (2800 x 2000; or `cropped_images`, the same view at a smaller size),
`meta/misc.json` (`ioi_offset`: the number of the first image), `raw_seqs/s05/box_use_01.egocam.dist.npy` and
`.mano.npy`. Keypoints are read from ARCTIC's processed files (`processed*/.../s05/box_use_01.npy`), or made with
MANO's.

Source: Fan et al., ARCTIC: A Dataset for Dexterous Bimanual Hand-Object Manipulation, CVPR 2023; docs/data/data_doc.md
of zc-alexfan/arctic. World-to-camera poses and OpenCV's distortion of eight numbers, as there.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from handloom.bench.truth.mano import HINT, MEDIAPIPE, Mano
from handloom.bench.truth.recorded import Recorded
from handloom.errors import ConfigError
from handloom.ingest.robot.arrays_only import READ_ERRORS, ForbiddenContent, read_npy
from handloom.schemas.values import Camera

Array = NDArray[np.float64]

RATE_HZ = 30.0
SIZE = (2800, 2000)  # of the head camera's images to which the intrinsics belong
EGO = ".egocam.dist.npy"
IMAGES = ("images", "cropped_images")
EXPECTED = "expected ARCTIC's folders: raw_seqs, meta and images (or cropped_images) side by side"


def arctic_sequences(files: Sequence[Path]) -> list[tuple[Path, Path | None]]:
    """`.egocam.dist.npy` files of sequences with images of the head camera, each with its processed keypoints or None.
    ARCTIC's scripts write these to another folder as `SUBJECT/NAME.npy`."""
    processed = {(path.parent.name, path.stem): path for path in files if path.suffix == ".npy"}
    ego = [path for path in files if path.name.endswith(EGO) and _images(path)]
    return [(path, processed.get((path.parent.name, path.name.removesuffix(EGO)))) for path in ego]


def read_arctic(path: Path, processed: Path | None, mano: tuple[Mano, Mano] | None = None) -> Recorded:
    """Read one sequence by its `.egocam.dist.npy`; keypoints are those of the processed sequence, else made with MANO.

    Raises:
        ConfigError: a file is missing or has another format than ARCTIC's, or keypoints need MANO's files.
    """
    root, subject = path.parents[2], path.parent.name
    ego = _read(path)
    try:
        camera_from_world = np.tile(np.eye(4), (len(ego["R_k_cam_np"]), 1, 1))
        camera_from_world[:, :3, :3] = ego["R_k_cam_np"]
        camera_from_world[:, :3, 3] = np.asarray(ego["T_k_cam_np"]).reshape(-1, 3)
        matrix, lens = np.array(ego["intrinsics"], np.float64), np.array(ego["dist8"], np.float64).reshape(8)
        offset = int(_misc(root)[subject]["ioi_offset"])
    except (KeyError, ValueError, TypeError) as error:
        raise ConfigError(f"{path} cannot be read: {type(error).__name__}: {error}", EXPECTED) from error
    world, note = _keypoints(path, processed, mano)
    num = min(len(world), len(camera_from_world))
    images = {int(p.stem) - offset: p for p in _images(path) if p.stem.isdigit()}
    at = np.array(sorted(t for t in images if 0 <= t < num), np.int64)
    if len(at) < 2:
        problem = f"{path}: {len(at)} of {len(images)} images belong to its {num} frames (ioi_offset {offset})"
        raise ConfigError(problem, EXPECTED)
    height, width = _image(images[int(at[0])]).shape[:2]
    scale = np.array([width, height]) / SIZE
    matrix[:2] *= scale[:, None]
    matrix[:2, 2] += 0.5 * scale - 0.5
    return Recorded(
        at / RATE_HZ,
        Camera(matrix, "given", lens if lens.any() else None),
        (width, height),
        np.linalg.inv(camera_from_world[at]),
        world[at],
        f"{note}; view 0, its own lens (OpenCV, 8 numbers)",
        rgb=lambda t: _image(images[int(at[t])]),
    )


def _keypoints(path: Path, processed: Path | None, mano: tuple[Mano, Mano] | None) -> tuple[Array, str]:
    """World keypoints (T, 2, 21, 3), and a note on their source."""
    if processed is not None:
        content = _read(processed)
        try:
            both = [np.asarray(content["world_coord"][f"joints.{side}"], np.float64) for side in ("left", "right")]
            return np.stack(both, axis=1)[:, :, MEDIAPIPE], "keypoints of ARCTIC's processed sequence (MANO)"
        except (KeyError, TypeError, ValueError, IndexError) as error:
            problem = f"{processed} has no world_coord with joints.left and joints.right of 21 joints: {error}"
            raise ConfigError(problem, "write it again with ARCTIC's scripts_data/process_seqs.py") from error
    name = path.name.removesuffix(EGO)
    file = path.with_name(f"{name}.mano.npy")
    if mano is None or not file.exists():
        missing = f"{file.name} is not beside it" if mano is not None else "no MANO files are below the folder"
        problem = f"{path}: no {path.parent.name}/{name}.npy with keypoints was found, and {missing}"
        raise ConfigError(problem, f"run ARCTIC's scripts_data/process_seqs.py, or {HINT}")
    content = _read(file)
    try:
        hands = []
        for h, side in enumerate(("left", "right")):
            one = {key: np.asarray(content[side][key], np.float64) for key in ("shape", "rot", "pose", "trans")}
            hands.append(mano[h].keypoints_m(one["shape"].reshape(-1)[:10], one["rot"], one["pose"], one["trans"]))
        return np.stack(hands, axis=1), "MANO's keypoints"
    except (KeyError, TypeError, ValueError) as error:
        raise ConfigError(f"{file} cannot be read: {type(error).__name__}: {error}", EXPECTED) from error


def _images(path: Path) -> list[Path]:
    """The head camera's images, from the first folder of `IMAGES` that has any."""
    root, subject, name = path.parents[2], path.parent.name, path.name.removesuffix(EGO)
    for kind in IMAGES:
        found = sorted((root / kind / subject / name / "0").glob("*.jpg"))
        if found:
            return found
    return []


def _image(path: Path) -> NDArray[np.uint8]:
    decoded = cv2.imread(str(path), cv2.IMREAD_COLOR)
    if decoded is None:
        raise ConfigError(f"{path} is missing or no image", EXPECTED)
    return cv2.cvtColor(decoded, cv2.COLOR_BGR2RGB)


def _misc(root: Path) -> dict[str, Any]:
    path = root / "meta" / "misc.json"
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path} cannot be read: {error}", EXPECTED) from error


def _read(path: Path) -> Any:
    """Read a pickled `.npy` of ARCTIC: dictionaries of arrays. No code in it is run."""
    try:
        return read_npy(path.read_bytes())
    except (OSError, ForbiddenContent, *READ_ERRORS) as error:
        raise ConfigError(f"{path} cannot be read: {error}", EXPECTED) from error
