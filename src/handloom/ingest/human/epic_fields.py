"""EPIC-Fields: the cameras of EPIC-KITCHENS videos, reconstructed with COLMAP.

Format: github.com/epic-kitchens/epic-fields-code. `{video_id}.json` holds

    camera: {"model": "OPENCV", "width": 456, "height": 256, "params": [fx, fy, cx, cy, k1, k2, p1, p2], ...}
    images: {"frame_0000000123.jpg": [qw, qx, qy, qz, tx, ty, tz], ...}, camera from world, COLMAP's axes (ours)
    points: [[x, y, z, r, g, b], ...], not read

Frame n of a video stands at n / R seconds, R = 60 (PXX_YY) or 50 (PXX_1YY): the JPEGs are a resampling of the video.
The unit of length is each video's own (`arbitrary`), and not every frame is there.

Source: Tschernezki et al., EPIC Fields: Marrying 3D Geometry and Video Understanding, NeurIPS 2023.
"""

from __future__ import annotations

import bisect
import json
import re
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from handloom.errors import ConfigError
from handloom.ingest.files import Options, join, list_files, normalise, read_json
from handloom.ingest.json_shape import is_number
from handloom.ingest.names import AmbiguousName, Names

Floats = NDArray[np.float64]

HINT = "download the file again; expected {video_id}.json of EPIC-Fields"
NUM_PARAMS = {"OPENCV": 8, "PINHOLE": 4, "SIMPLE_PINHOLE": 3}
MIN_STEP_S = 1 / 30 - 1e-3
"""Poses closer than this are thinned out: 60 Hz doubles the clip list, and between poses 1/30 s apart a turning head
(20 rad/s^2) strays 0.1 degrees from the arc."""
_FRAME = re.compile(r"frame_([0-9]{1,12})(?:\.[A-Za-z]{2,5})?")
_EXTENSION_VIDEO = re.compile(r"P[0-9]{2}_1[0-9]{2}")


@dataclass(frozen=True)
class FieldsCamera:
    """One video's camera. frame_s: (P,) rising; camera_from_world: (P, 7) qw qx qy qz tx ty tz."""

    camera_matrix: list[float]
    picture_size: list[int]
    distortion: list[float]
    frame_s: Floats
    camera_from_world: Floats

    def text(self, start_s: float, end_s: float | None) -> str:
        """The camera JSON of a clip (DESIGN, section 2): the poses between its ends and one on either side."""
        first = max(bisect.bisect_right(self.frame_s, start_s) - 1, 0)
        last = len(self.frame_s) if end_s is None else bisect.bisect_left(self.frame_s, end_s) + 1
        times, poses = self.frame_s[first:last], self.camera_from_world[first:last]
        matrices = _inverted(poses).round(7).reshape(-1, 16).tolist()
        listed = [{"frame_s": round(s, 6), "matrix": m} for s, m in zip(times.tolist(), matrices, strict=True)]
        content = {
            "camera_matrix": self.camera_matrix,
            "picture_size": self.picture_size,
            "distortion": {"model": "OPENCV", "params": self.distortion},
            "world_from_camera": listed or None,
            "world_scale": "arbitrary",
        }
        return json.dumps(content, sort_keys=True, separators=(",", ":"))


class Fields:
    """A folder of EPIC-Fields files: `{video_id}.json`, in it or in one of its folders.

    Raises:
        ConfigError: there is no such folder, or no JSON file in it.
    """

    def __init__(self, directory: str, options: Options = None) -> None:
        root, self._options = normalise(directory), options
        listing = list_files(root, "EPIC-Fields folder", options=options)
        found = sorted(
            (f for f in listing.files if f.name.lower().endswith(".json")), key=lambda f: (f.path.count("/"), f.path)
        )
        self._uris: dict[str, str] = {}
        for file in found:
            self._uris.setdefault(file.name[: -len(".json")], file.uri)
        self._names = Names(self._uris)
        if not self._uris:
            problem = f"EPIC-Fields folder {root} holds no JSON file, expected {join(root, 'P01_01.json')} and the like"
            raise ConfigError(problem, "check the path; the files must be unpacked")

    def camera(self, video_id: str) -> FieldsCamera | None:
        """A video's camera, or None where the folder has none.

        Raises:
            ConfigError: the file is malformed; names the file, the key, the value and what was expected. Or two files
                may be meant.
        """
        try:
            name = self._names.find(video_id)
        except AmbiguousName as error:
            raise ConfigError(f"EPIC-Fields file of video {error}", HINT) from error
        return None if name is None else read_fields(self._uris[name], video_id, self._options)


def frames_per_s(video_id: str) -> float:
    """Rate of the frame numbers of a video: 50 for the extension of EPIC-KITCHENS-100, 60 for EPIC-KITCHENS-55."""
    return 50.0 if _EXTENSION_VIDEO.fullmatch(video_id) else 60.0


def read_fields(path: str, video_id: str, options: Options = None) -> FieldsCamera:
    """Read and check one file. Raises ConfigError naming the file, the key and the value."""
    content = read_json(path, "EPIC-Fields file", options)
    if not isinstance(content, dict):
        raise _wrong(path, "the top level", content, "an object with camera and images")
    matrix, size, distortion = _camera(path, content.get("camera"))
    frame_s, poses = _poses(path, content.get("images"), frames_per_s(video_id))
    return FieldsCamera(matrix, size, distortion, frame_s, poses)


def _camera(path: str, camera: Any) -> tuple[list[float], list[int], list[float]]:
    if not isinstance(camera, dict):
        raise _wrong(path, "camera", camera, "an object with model, width, height and params")
    num_params = NUM_PARAMS.get(camera.get("model"))
    if num_params is None:
        raise _wrong(path, "camera.model", camera.get("model"), f"one of {', '.join(NUM_PARAMS)}")
    size = [camera.get("width"), camera.get("height")]
    for name, value in zip(("width", "height"), size, strict=True):
        if not (isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= 100_000):
            raise _wrong(path, f"camera.{name}", value, "a number of pixels")
    params = camera.get("params")
    if not (isinstance(params, list) and len(params) == num_params and all(is_number(p) for p in params)):
        raise _wrong(path, "camera.params", params, f"{num_params} finite numbers")
    fx, fy, cx, cy, *distortion = params if num_params != 3 else [params[0], *params]
    if not (0 < fx < 100 * max(size) and 0 < fy < 100 * max(size)):
        raise _wrong(path, "camera.params", params, "focal lengths above 0 (numbers 1 and 2)")
    # COLMAP puts the corner of the top-left pixel at (0, 0), handloom its centre.
    return [fx, 0.0, cx - 0.5, 0.0, fy, cy - 0.5, 0.0, 0.0, 1.0], size, distortion or [0.0] * 4


def _poses(path: str, images: Any, rate: float) -> tuple[Floats, Floats]:
    """Times (P,) rising, and (P, 7) with unit quaternions."""
    if not isinstance(images, dict):
        raise _wrong(path, "images", images, "an object of frame names and poses")
    numbers = {}
    for name, pose in images.items():
        match = _FRAME.fullmatch(name.rpartition("/")[2])
        if match is None:
            raise _wrong(path, f"images: the frame name {name[:60]}", name, "a name such as frame_0000000123.jpg")
        if not (isinstance(pose, list) and len(pose) == 7 and all(is_number(x) for x in pose)):
            raise _wrong(path, f"images.{name}", pose, "7 finite numbers qw qx qy qz tx ty tz")
        numbers[int(match[1])] = pose
    frames = np.array(sorted(numbers), np.float64)
    poses = np.array([numbers[int(frame)] for frame in frames], np.float64).reshape(-1, 7)
    length = np.linalg.norm(poses[:, :4], axis=1)
    if (off := np.flatnonzero(np.abs(length - 1) > 1e-2)).size:
        at = int(off[0])
        raise _wrong(path, f"images, frame {int(frames[at])}", poses[at].tolist(), "a quaternion of length 1 first")
    poses[:, :4] /= length[:, None]
    keep = _thinned(frames / rate)
    return frames[keep] / rate, poses[keep]


def _thinned(frame_s: Floats) -> NDArray[np.bool_]:
    """Frames kept: none nearer to the kept one before it than `MIN_STEP_S`, unless the next comes after a gap."""
    keep = np.zeros(len(frame_s), bool)
    last = -np.inf
    for index, time in enumerate(frame_s):
        before_gap = index + 1 == len(frame_s) or frame_s[index + 1] - time > MIN_STEP_S
        if time - last >= MIN_STEP_S or before_gap:
            keep[index], last = True, time
    return keep


def _inverted(camera_from_world: Floats) -> Floats:
    """(P, 7) camera from world to (P, 4, 4) world from camera."""
    w, x, y, z = camera_from_world[:, :4].T
    rows = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
        [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
        [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
    ]
    world_from_camera = np.tile(np.eye(4), (len(camera_from_world), 1, 1))
    rotation = np.moveaxis(np.array(rows).reshape(3, 3, -1), -1, 0).transpose(0, 2, 1)
    world_from_camera[:, :3, :3] = rotation
    world_from_camera[:, :3, 3] = -np.einsum("pij,pj->pi", rotation, camera_from_world[:, 4:])
    return world_from_camera


def _wrong(path: str, key: str, value: Any, expected: str) -> ConfigError:
    shown = "missing" if value is None else json.dumps(value)
    shown = shown if len(shown) <= 120 else shown[:117] + "..."
    return ConfigError(f"EPIC-Fields file {path}: {key} is {shown}, expected {expected}", HINT)
