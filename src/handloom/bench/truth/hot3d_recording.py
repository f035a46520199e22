"""A full recording of HOT3D: hands, headset and lenses in files of its folder, with extracted images.

The images are in a VRS file, which needs Meta's tools. They must be extracted to `frames/STREAM/TIMESTAMP.jpg` (or
.png), with the toolkit's timestamps in nanoseconds; docs/accuracy.md shows how. Timestamps of images and truth are
matched within `NEAR_NS`.

Source: Banerjee et al., HOT3D, CVPR 2025; file formats as in facebookresearch/hot3d, data_loaders.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from handloom.bench.truth.fisheye import Fisheye624
from handloom.bench.truth.hot3d import STREAMS, rigid, upright
from handloom.bench.truth.mano import HINT, Mano
from handloom.bench.truth.recorded import Recorded
from handloom.bench.truth.umetrack import UmeTrackHand
from handloom.errors import ConfigError

Array = NDArray[np.float64]

HEADSET, PROFILE = "headset_trajectory.csv", "umetrack_hand_user_profile.json"
UMETRACK, MANO = "umetrack_hand_pose_trajectory.jsonl", "mano_hand_pose_trajectory.jsonl"
BOXES, QUEST, ARIA = "box2d_hands.csv", "camera_models.json", "mps/slam/online_calibration.jsonl"
LABELS = {"214-1": "camera-rgb", "1201-1": "camera-slam-left"}
NEAR_NS = 5_000_000
EXPECTED = f"expected a recording's folder of HOT3D, with frames/STREAM/TIMESTAMP.jpg, {UMETRACK}, {PROFILE}, {HEADSET}"


def hot3d_recordings(files: Iterable[Path]) -> list[Path]:
    """Folders of a headset's trajectory, found among the files, that also have images."""
    return [path.parent for path in files if path.name == HEADSET and (path.parent / "frames").is_dir()]


def read_recording(path: Path, mano: tuple[Mano, Mano] | None = None) -> Recorded:
    """Read one recording by its folder, in the form of `read_hot3d`.

    Raises:
        ConfigError: a file is missing or has another format than HOT3D's, or keypoints need MANO's files.
    """
    stream = next((stream for stream in STREAMS if (path / "frames" / stream).is_dir()), None)
    if stream is None:
        raise ConfigError(f"{path}/frames has no folder {' or '.join(STREAMS)}", EXPECTED)
    images = {int(p.stem): p for p in (path / "frames" / stream).iterdir() if p.stem.isdigit()}
    try:
        hands, note = _hands(path, mano)
        headset = {
            int(row["timestamp[ns]"]): rigid(
                [float(row[f"q_wo_{c}"]) for c in "wxyz"], [float(row[f"t_wo_{c}[m]"]) for c in "xyz"]
            )
            for row in _rows(path / HEADSET)
        }
        stamps, found = _meeting(images, headset, hands)
        if len(stamps) < 2:
            problem = (
                f"{path}: {len(stamps)} of {len(images)} images of stream {stream} match hands and headset in time"
            )
            raise ConfigError(problem, "name images by the timestamps in nanoseconds that HOT3D's toolkit gives")
        rgb = _images([images[stamp] for stamp in stamps])
        height, width = rgb(0).shape[:2]
        lens, device_from_camera = _lens(path, stream, (width, height))
        shown = _shown(path, stream, [at[1] for at in found])
    except (OSError, KeyError, ValueError, TypeError, IndexError) as error:
        raise ConfigError(f"{path} cannot be read: {type(error).__name__}: {error}", EXPECTED) from error
    poses = np.stack([headset[at[0]] @ device_from_camera for at in found])
    world = np.stack([hands[at[1]] for at in found])
    frame_s = (np.array(stamps, np.int64) - stamps[0]) / 1e9
    return upright(lens, poses, world, f"{note}; stream {stream}", frame_s, shown, rgb)


def _hands(path: Path, mano: tuple[Mano, Mano] | None) -> tuple[dict[int, Array], str]:
    """World keypoints (2, 21, 3) by timestamp, NaN where there is no such hand; and a note on the hand model."""
    by_mano = mano if (path / MANO).exists() else None
    if by_mano is None and not (path / PROFILE).exists():
        raise ConfigError(f"{path} has no {PROFILE}, and no MANO files are below the folder", f"fetch it, or {HINT}")
    profile = None if by_mano is not None else UmeTrackHand.of_profile(json.loads((path / PROFILE).read_text()))
    out: dict[int, Array] = {}
    for line in (path / (UMETRACK if by_mano is None else MANO)).read_text().splitlines():
        record = json.loads(line)
        both = np.full((2, 21, 3), np.nan)
        for name, pose in record["hand_poses"].items():
            hand, wrist = int(name), rigid(pose["wrist_xform"]["q_wxyz"], pose["wrist_xform"]["t_xyz"])
            if by_mano is not None:
                turn = cv2.Rodrigues(wrist[:3, :3])[0].reshape(1, 3)
                fingers = by_mano[hand].fingers(np.array([pose["pose"]]))
                both[hand] = by_mano[hand].keypoints_m(np.array(pose["betas"]), turn, fingers, wrist[None, :3, 3])[0]
            elif profile is not None:
                both[hand] = profile.keypoints_m(np.array([pose["joint_angles"]]), wrist[None], hand == 1)[0]
        out[int(record["timestamp_ns"])] = both
    return out, "MANO's keypoints" if by_mano is not None else "UmeTrack's keypoints"


def _meeting(images: dict[int, Path], *truth: dict[int, Any]) -> tuple[list[int], list[tuple[int, ...]]]:
    """Timestamps of images that match one within `NEAR_NS` in every truth, and these matches."""
    sides = [np.array(sorted(one), np.int64) for one in truth]
    stamps, found = [], []
    for stamp in sorted(images) if all(map(len, sides)) else ():
        near = [int(side[np.abs(side - stamp).argmin()]) for side in sides]
        if all(abs(at - stamp) <= NEAR_NS for at in near):
            stamps.append(stamp)
            found.append(tuple(near))
    return stamps, found


def _lens(path: Path, stream: str, size: tuple[int, int]) -> tuple[Fisheye624, Array]:
    """The lens and device_from_camera (4, 4): Quest's from its file, Aria's from the middle of its online
    calibration."""
    if (path / QUEST).exists():
        for model in json.loads((path / QUEST).read_text()):
            if model["stream_id"] == stream:
                at = model["T_Device_Camera"]
                place = rigid(at["quaternion_wxyz"], at["translation_xyz"])
                return Fisheye624.of_params(model["projectionParams"], size), place
        raise ValueError(f"{QUEST} has no stream {stream}")
    lines = (path / ARIA).read_text().splitlines()
    for camera in json.loads(lines[len(lines) // 2])["CameraCalibrations"]:
        if camera["Label"] == LABELS[stream]:
            at = camera["T_Device_Camera"]
            real, imaginary = at["UnitQuaternion"]
            return Fisheye624.of_params(camera["Projection"]["Params"], size), rigid(
                [real, *imaginary], at["Translation"]
            )
    raise ValueError(f"{ARIA} has no {LABELS[stream]}")


def _shown(path: Path, stream: str, stamps: list[int]) -> Array:
    """(T, 2) visible shares of the hands, NaN where unknown."""
    out = np.full((len(stamps), 2), np.nan)
    if (path / BOXES).exists():
        row_of = {stamp: t for t, stamp in enumerate(stamps)}
        for row in _rows(path / BOXES):
            t = row_of.get(int(row["timestamp[ns]"]))
            if t is not None and row["stream_id"] == stream and row["visibility_ratio[%]"]:
                out[t, int(row["hand_index"])] = float(row["visibility_ratio[%]"])
    return out


def _rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def _images(paths: list[Path]) -> Callable[[int], NDArray[np.uint8]]:
    def rgb(t: int) -> NDArray[np.uint8]:
        decoded = cv2.imread(str(paths[t]), cv2.IMREAD_COLOR)
        if decoded is None:
            raise ConfigError(f"{paths[t]} is no image", EXPECTED)
        return cv2.cvtColor(decoded, cv2.COLOR_BGR2RGB)

    return rgb
