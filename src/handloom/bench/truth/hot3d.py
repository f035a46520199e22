"""HOT3D-Clips: one tar per clip, 150 frames at 30 Hz, with images, cameras and hands of every frame.

`000000.image_214-1.jpg`, `.cameras.json` (`calibration`, `T_world_from_camera` of every stream), `.hands.json` (poses
of UmeTrack's and MANO's hands), `__hand_shapes.json__`. Test clips have no `.hands.json`.

Source: Banerjee et al., HOT3D: Hand and Object Tracking in 3D from Egocentric Multi-View Videos, CVPR 2025; the clips'
README in facebookresearch/hot3d.
"""

from __future__ import annotations

import json
import tarfile
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from handloom.bench.truth.fisheye import Fisheye624, rectified
from handloom.bench.truth.mano import Mano
from handloom.bench.truth.recorded import Recorded
from handloom.bench.truth.umetrack import UmeTrackHand
from handloom.errors import ConfigError
from handloom.schemas.values import Camera

Array = NDArray[np.float64]

STREAMS = ("214-1", "1201-1")  # Aria's colour camera; else the left one of Quest 3, grey
RATE_HZ = 30.0
FISHEYE = "CameraModelType.FISHEYE624"
SHAPES, SIDES = "__hand_shapes.json__", ("left", "right")
EXPECTED = "expected a training clip of HOT3D-Clips (folders train_aria, train_quest3), unchanged"


def hot3d_clips(files: Iterable[Path]) -> list[Path]:
    """The clips among files: `clip-*.tar`."""
    return [path for path in files if path.match("clip-*.tar")]


def read_hot3d(path: Path, mano: tuple[Mano, Mano] | None = None) -> Recorded:
    """Read one clip: images rectified to a pinhole and turned upright; keypoints of MANO's hand if its files are given,
    as in published tables, else of UmeTrack's, which HOT3D calls more accurate.

    Raises:
        ConfigError: the file cannot be read, or has no truth.
    """
    try:
        with tarfile.open(path) as tar:
            opened = {member.name: tar.extractfile(member) for member in tar if member.isfile()}
            files = {name: file.read() for name, file in opened.items() if file is not None}
        names = sorted(name.partition(".")[0] for name in files if name.endswith(".cameras.json"))
        return _clip(path, files, names, mano)
    except (OSError, tarfile.TarError, KeyError, ValueError, TypeError, IndexError) as error:
        raise ConfigError(f"{path} cannot be read: {type(error).__name__}: {error}", EXPECTED) from error


def _clip(path: Path, files: dict[str, bytes], names: list[str], mano: tuple[Mano, Mano] | None) -> Recorded:
    if not names or not any(f"{name}.hands.json" in files for name in names):
        raise ConfigError(f"{path} has {len(names)} frames and no hands", f"{EXPECTED}: test clips come without truth")
    cameras = [json.loads(files[f"{name}.cameras.json"]) for name in names]
    stream = next((stream for stream in STREAMS if stream in cameras[0]), None)
    if stream is None:
        raise ConfigError(f"{path} has the streams {sorted(cameras[0])}", f"expected one of {', '.join(STREAMS)}")
    lens = _lens(path, cameras[0][stream]["calibration"])
    poses = np.stack([_matrix(camera[stream]["T_world_from_camera"]) for camera in cameras])
    hands = [json.loads(files.get(f"{name}.hands.json", b"{}")) for name in names]
    shapes = json.loads(files.get(SHAPES, b"{}"))
    world, truth = _keypoints(path, hands, shapes, mano)
    shown = np.array([[_shown(hand.get(side), stream) for side in SIDES] for hand in hands])
    rgb = _images(path, files, names, stream)
    return upright(lens, poses, world, f"{truth}; stream {stream}", _times(files, names, stream), shown, rgb)


def upright(
    lens: Fisheye624,
    poses: Array,
    world_m: Array,
    note: str,
    frame_s: Array,
    shown: Array,
    rgb: Callable[[int], NDArray[np.uint8]],
) -> Recorded:
    """A recording of HOT3D as seen by an upright pinhole camera. poses: (T, 4, 4) of the fisheye as mounted; rgb: its
    images; the others as in `Recorded`."""
    turns = upright_turns(world_m, poses)
    view = rectified(lens, turns)
    turned = poses.copy()
    turned[:, :3, :3] = poses[:, :3, :3] @ view.fisheye_from_view
    focal_px = view.camera_matrix[0, 0]
    how = f"FISHEYE624 rectified to a pinhole of {focal_px:.1f} px, turned by {90 * turns} degrees clockwise"
    return Recorded(
        frame_s,
        Camera(view.camera_matrix, "given"),
        view.size,
        turned,
        world_m,
        f"{note}, {how}",
        shown,
        lambda t: view.image(rgb(t)),
    )


def upright_turns(world_m: Array, poses: Array) -> int:
    """Clockwise quarter turns (0 to 3) after which the hands point up in the images, as a wearer's hands do: the
    cameras of both headsets are mounted on their side. 0 if no hand is known. world_m: (T, 2, 21, 3); poses: (T, 4, 4)
    of the camera as mounted."""
    along = np.einsum("tji,thj->thi", poses[:, :3, :3], world_m[:, :, 9] - world_m[:, :, 0])[..., :2]
    known = along[np.isfinite(along).all(axis=-1)]
    if not len(known):
        return 0
    x, y = known.mean(axis=0)
    return int(np.argmax([-y, -x, y, x]))


def _lens(path: Path, calibration: dict[str, Any]) -> Fisheye624:
    model = calibration["projection_model_type"]
    if model != FISHEYE:
        raise ConfigError(f"{path}: projection model {model!r}", f"expected {FISHEYE!r}")
    return Fisheye624.of_params(
        calibration["projection_params"], (int(calibration["image_width"]), int(calibration["image_height"]))
    )


def _keypoints(
    path: Path, hands: list[dict[str, Any]], shapes: dict[str, Any], mano: tuple[Mano, Mano] | None
) -> tuple[Array, str]:
    """World keypoints (T, 2, 21, 3), NaN where a frame has no such hand; and a note on the hand model."""
    by_mano = mano if "mano" in shapes else None
    kind = "umetrack" if by_mano is None else "mano"
    if kind not in shapes:
        raise ConfigError(f"{path}: {SHAPES} holds {sorted(shapes)}", f"{EXPECTED}: umetrack or mano is needed there")
    profile = UmeTrackHand.of_profile(shapes["umetrack"]) if by_mano is None else None
    out = np.full((len(hands), 2, 21, 3), np.nan)
    for h, side in enumerate(SIDES):
        every = [(hand.get(side) or {}).get(f"{kind}_pose") for hand in hands]
        at = [t for t, pose in enumerate(every) if pose]
        poses = [pose for pose in every if pose]
        if not at:
            continue
        if profile is not None:
            wrists = np.stack([_wrist(pose) for pose in poses])
            angles = np.array([pose["joint_angles"] for pose in poses], np.float64)
            out[at, h] = profile.keypoints_m(angles, wrists, h == 1)
        elif by_mano is not None:
            wrists = np.array([pose["wrist_xform"] for pose in poses], np.float64)
            fingers = by_mano[h].fingers(np.array([pose["thetas"] for pose in poses]))
            out[at, h] = by_mano[h].keypoints_m(np.array(shapes["mano"]), wrists[:, :3], fingers, wrists[:, 3:])
    return out, {"mano": "MANO's keypoints", "umetrack": "UmeTrack's keypoints"}[kind]


def _wrist(pose: dict[str, Any]) -> Array:
    """(4, 4), from a quaternion and a translation, or from a matrix: the README and the files differ."""
    if "T_world_from_wrist" in pose:
        return _matrix(pose["T_world_from_wrist"])
    return np.array(pose["wrist_xform"], np.float64).reshape(4, 4)


def _matrix(transform: dict[str, Any]) -> Array:
    return rigid(transform["quaternion_wxyz"], transform["translation_xyz"])


def rigid(quaternion_wxyz: Sequence[float], shift_m: Sequence[float]) -> Array:
    """(4, 4) of a rotation and a translation."""
    w, x, y, z = quaternion_wxyz
    out = np.eye(4)
    out[:3, :3] = Rotation.from_quat([x, y, z, w]).as_matrix()
    out[:3, 3] = shift_m
    return out


def _shown(hand: dict[str, Any] | None, stream: str) -> float:
    share = (hand or {}).get("visibilities_modeled", {}).get(stream)
    return float("nan") if share is None else float(share)


def _times(files: dict[str, bytes], names: list[str], stream: str) -> Array:
    """Seconds from the first image: from `.info.json` if it has them, else at 30 Hz."""
    info = [json.loads(files.get(f"{name}.info.json", b"{}")) for name in names]
    stamps = [one.get("image_timestamps_ns", {}).get(stream) for one in info]
    if all(stamp is not None for stamp in stamps):
        times = (np.array(stamps, np.int64) - stamps[0]) / 1e9
        if (np.diff(times) > 0).all():
            return times
    return np.arange(len(names)) / RATE_HZ


def _images(path: Path, files: dict[str, bytes], names: list[str], stream: str) -> Callable[[int], NDArray[np.uint8]]:
    def rgb(t: int) -> NDArray[np.uint8]:
        name = f"{names[t]}.image_{stream}.jpg"
        decoded = cv2.imdecode(np.frombuffer(files[name], np.uint8), cv2.IMREAD_COLOR) if name in files else None
        if decoded is None:
            raise ConfigError(f"{path}: {name} is missing or no image", EXPECTED)
        return cv2.cvtColor(decoded, cv2.COLOR_BGR2RGB)

    return rgb
