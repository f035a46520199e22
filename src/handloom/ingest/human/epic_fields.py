"""EPIC-Fields: the cameras of EPIC-KITCHENS videos, reconstructed with COLMAP.

Format: github.com/epic-kitchens/epic-fields-code. `{video_id}.json` holds

    camera: {"model": "OPENCV", "width": 456, "height": 256, "params": [fx, fy, cx, cy, k1, k2, p1, p2], ...}
    images: {"frame_0000000123.jpg": [qw, qx, qy, qz, tx, ty, tz], ...}, camera from world, COLMAP's axes (ours)
    points: [[x, y, z, r, g, b], ...], not read

Frame n of a video is at n / R seconds, R = 60 (PXX_YY) or 50 (PXX_1YY): the JPEGs are a resampling of the video. Each
video has its own unit of length (`arbitrary`), and some frames have no pose.

Source: Tschernezki et al., EPIC Fields: Marrying 3D Geometry and Video Understanding, NeurIPS 2023.
"""

from __future__ import annotations

import bisect
import json
import re
from dataclasses import dataclass
from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from handloom.errors import ConfigError
from handloom.ingest.names import AmbiguousName, Names
from handloom.io.addresses import join, normalise
from handloom.io.listing import list_files
from handloom.io.reading import read_json
from handloom.io.remote import Options
from handloom.schemas.clip import STORED_SIZE
from handloom.schemas.json_format import Entry, Expected, Form, Number, OneOf, shown

Floats = NDArray[np.float64]

HINT = "download the file again; expected {video_id}.json of EPIC-Fields"
NUM_PARAMS = {"OPENCV": 8, "PINHOLE": 4, "SIMPLE_PINHOLE": 3}
MIN_STEP_S = 1 / 30 - 1e-3
"""Poses closer than this are thinned out: 60 Hz doubles the clip list, and between poses 1/30 s apart the rotation of a
turning head (20 rad/s^2) is interpolated to 0.1 degrees."""
_FRAME = re.compile(r"frame_([0-9]{1,12})(?:\.[A-Za-z]{2,5})?")
_EXTENSION_VIDEO = re.compile(r"P[0-9]{2}_1[0-9]{2}")


_Pixels = Annotated[int, Field(ge=1, le=100_000), Expected("a number of pixels")]
_Pose = Annotated[list[Number], Field(min_length=7, max_length=7), Expected("7 finite numbers qw qx qy qz tx ty tz")]


class _Camera(Entry):
    model: Annotated[str, OneOf(tuple(NUM_PARAMS))]
    width: _Pixels
    height: _Pixels
    params: Annotated[list[Number], Expected("a list of finite numbers")]


class _File(Entry):
    camera: _Camera
    images: dict[str, _Pose]


_FILE = Form(_File)


@dataclass(frozen=True)
class FieldsCamera:
    """One video's camera. frame_s: (P,) rising; camera_from_world: (P, 7) qw qx qy qz tx ty tz."""

    camera_matrix: list[float]
    image_size: list[int]
    distortion: list[float]
    frame_s: Floats
    camera_from_world: Floats

    def text(self, start_s: float, end_s: float | None) -> str:
        """The camera JSON of a clip, with the poses between its ends and one on either side."""
        first = max(bisect.bisect_right(self.frame_s, start_s) - 1, 0)
        last = len(self.frame_s) if end_s is None else bisect.bisect_left(self.frame_s, end_s) + 1
        times, poses = self.frame_s[first:last], self.camera_from_world[first:last]
        matrices = _inverted(poses).round(7).reshape(-1, 16).tolist()
        listed = [{"frame_s": round(s, 6), "matrix": m} for s, m in zip(times.tolist(), matrices, strict=True)]
        content = {
            "camera_matrix": self.camera_matrix,
            STORED_SIZE: self.image_size,
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
        """A video's camera; None if the folder has none.

        Raises:
            ConfigError: the file is malformed; names the file, the key, the value and what was expected. Or two files
                match.
        """
        try:
            name = self._names.find(video_id)
        except AmbiguousName as error:
            raise ConfigError(f"EPIC-Fields file of video {error}", HINT) from error
        return None if name is None else read_fields(self._uris[name], video_id, self._options)


def frames_per_s(video_id: str) -> float:
    """Rate of a video's frame numbers in Hz: 50 for the extension of EPIC-KITCHENS-100, 60 for EPIC-KITCHENS-55."""
    return 50.0 if _EXTENSION_VIDEO.fullmatch(video_id) else 60.0


def read_fields(path: str, video_id: str, options: Options = None) -> FieldsCamera:
    """Read and check one file. Raises ConfigError naming the file, the key and the value."""
    content = _FILE.read_file(read_json(path, "EPIC-Fields file", options), f"EPIC-Fields file {path}", HINT)
    matrix, size, distortion = _intrinsics(path, content.camera)
    frame_s, poses = _poses(path, content.images, frames_per_s(video_id))
    return FieldsCamera(matrix, size, distortion, frame_s, poses)


def _intrinsics(path: str, camera: _Camera) -> tuple[list[float], list[int], list[float]]:
    params, num_params, size = camera.params, NUM_PARAMS[camera.model], [camera.width, camera.height]
    if len(params) != num_params:
        raise _wrong(path, "camera.params", params, f"{num_params} finite numbers")
    fx, fy, cx, cy, *distortion = params if num_params != 3 else [params[0], *params]
    if not (0 < fx < 100 * max(size) and 0 < fy < 100 * max(size)):
        raise _wrong(path, "camera.params", params, "focal lengths above 0 (numbers 1 and 2)")
    # COLMAP puts the corner of the top-left pixel at (0, 0), handloom its centre.
    return [fx, 0.0, cx - 0.5, 0.0, fy, cy - 0.5, 0.0, 0.0, 1.0], size, distortion or [0.0] * 4


def _poses(path: str, images: dict[str, list[float]], rate: float) -> tuple[Floats, Floats]:
    """Times (P,) rising, and (P, 7) with unit quaternions."""
    numbers = {}
    for name, pose in images.items():
        match = _FRAME.fullmatch(name.rpartition("/")[2])
        if match is None:
            raise _wrong(path, "images: the name of a frame", name, "a name such as frame_0000000123.jpg")
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
    """Mask of frames to keep: at least `MIN_STEP_S` after the kept frame before; also the last frame before a gap."""
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


def _wrong(path: str, key: str, value: object, words: str) -> ConfigError:
    return ConfigError(f"EPIC-Fields file {path}: {key} is {shown(value)}, expected {words}", HINT)
