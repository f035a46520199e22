"""`NAME.camera.json` beside a video: its camera, as given."""

from __future__ import annotations

import bisect
import json
from dataclasses import dataclass
from typing import Any

from handloom.errors import ConfigError
from handloom.geometry.camera.intrinsics import camera_of
from handloom.ingest.files import Options, read_json
from handloom.ingest.json_shape import is_number
from handloom.schemas.bounded_json import CAMERA
from handloom.schemas.camera_presets import find_preset
from handloom.schemas.values import WORLD_SCALES, VideoInfo

SUFFIX = ".camera.json"
_KEYS = (
    "camera_matrix",
    "fov_deg",
    "picture_size",
    "distortion",
    "focal_sigma",
    "source",
    "preset",
    "world_from_camera",
    "world_scale",
)
_ROTATION_TOLERANCE = 1e-2  # poses are often written as float32, or with four digits


@dataclass(frozen=True)
class GivenCamera:
    """A camera file whose form was checked. `content` is its JSON; `frame_s` the times of its poses, rising; `seen`
    what the preset that its numbers are from says of hands."""

    content: dict[str, Any]
    frame_s: list[float]
    seen: dict[str, Any] | None = None

    def hand(self, said: str | None = None) -> str | None:
        """The `hand` JSON of its clips: what a command said of the person's hand, and how large hands are drawn."""
        return said if self.seen is None else _dump(json.loads(said or "{}") | self.seen)

    def check(self, info: VideoInfo) -> None:
        """Raises ValueError where the intrinsics cannot be used or do not fit the video."""
        camera_of(_dump({key: value for key, value in self.content.items() if key != "world_from_camera"}), info)

    @property
    def size(self) -> tuple[int, int] | None:
        """(width, height) of the picture that the matrix is for; None: the video's own."""
        size = self.content.get("picture_size")
        return None if size is None else (round(size[0]), round(size[1]))

    def text(self, start_s: float, end_s: float | None) -> str:
        """JSON for a clip: its poses, and one on either side so that any time of the clip can be interpolated.

        An hour of video has 100,000 poses: every clip carries its own only. A file that says its `source` could be
        taken for what a command said, which stays when the file goes: `of` tells them apart.
        """
        content = self.content | ({"of": "file"} if "source" in self.content else {})
        if not self.frame_s:
            return _dump(content)
        first = max(bisect.bisect_right(self.frame_s, start_s) - 1, 0)
        last = len(self.frame_s) if end_s is None else bisect.bisect_left(self.frame_s, end_s) + 1
        return _dump(content | {"world_from_camera": self.content["world_from_camera"][first:last]})


def _dump(content: dict[str, Any]) -> str:
    return json.dumps(content, sort_keys=True, separators=(",", ":"))


def read_camera_file(path: str, options: Options = None) -> GivenCamera:
    """Read and check a camera file.

    Its keys:
        camera_matrix: 9 numbers, row by row: fx 0 cx 0 fy cy 0 0 1, pixels of the video beside it. (0, 0) is the centre
            of the top-left pixel.
        fov_deg: in place of camera_matrix, the field of view along the video's longer side.
        picture_size (optional): [width, height] that camera_matrix is for, where that is not the video's own size.
        distortion (optional): `{"model": name, "params": [numbers]}`.
        focal_sigma (optional): relative standard deviation of the focal length.
        source (optional): `given`, `estimated` or `assumed`.
        preset (optional): the name of a lens that `schemas.camera_presets` knows, for what the file does not say. Alone
            it stands for all of its numbers, and stays as their name; with numbers of the file's own it goes.
        world_from_camera (optional): a list of `{"frame_s": seconds on the video's clock, "matrix": 16 numbers, row by
            row}`, times rising.
        world_scale (optional): `metric`, `arbitrary` or `none`.

    Raises:
        ConfigError: names the file, the key, the value and what was expected.
    """
    content = read_json(path, "camera file", options, CAMERA)
    if not isinstance(content, dict):
        raise _wrong(path, "the top level", content, "an object with camera_matrix")
    for key in content:
        if key not in _KEYS:
            raise _wrong(path, key, content[key], f"no other keys than {', '.join(_KEYS)}")
    seen = None
    if content.get("preset") is not None:
        content, seen = _of_preset(path, content)
    if all(content.get(key) is None for key in ("camera_matrix", "fov_deg", "preset")):
        raise _wrong(path, "camera_matrix", None, "9 numbers, or fov_deg or preset in its place")
    if content.get("fov_deg") is None:
        _check_matrix(path, content.get("camera_matrix"))
    elif content.get("camera_matrix") is not None:
        raise _wrong(path, "fov_deg", content["fov_deg"], "either camera_matrix or fov_deg")
    for key, expected in (("fov_deg", "a number of degrees"), ("focal_sigma", "a share of the focal length")):
        value = content.get(key)
        if value is not None and not (_are_numbers([value], 1) and value > 0):
            raise _wrong(path, key, value, expected)
    source = content.get("source")
    if source is not None and (not isinstance(source, str) or not source):
        raise _wrong(path, "source", source, "a name")
    size = content.get("picture_size")
    if size is not None and not (_are_numbers(size, 2) and min(size) >= 1):
        raise _wrong(path, "picture_size", size, "[width, height] in pixels")
    if content.get("distortion") is not None:
        _check_distortion(path, content["distortion"])
    if content.get("world_scale") is not None and content["world_scale"] not in WORLD_SCALES:
        raise _wrong(path, "world_scale", content["world_scale"], f"one of {', '.join(WORLD_SCALES)}")
    poses = content.get("world_from_camera")
    if poses is None:
        return GivenCamera(content, [], seen)
    if not isinstance(poses, list) or not poses:
        raise _wrong(path, "world_from_camera", poses, "a list of {frame_s, matrix}, not empty")
    frame_s = [_check_pose(path, f"world_from_camera[{i}]", pose) for i, pose in enumerate(poses)]
    for i in range(1, len(frame_s)):
        if frame_s[i] <= frame_s[i - 1]:
            key = f"world_from_camera[{i}].frame_s"
            raise _wrong(path, key, frame_s[i], f"more than the time before it, {frame_s[i - 1]}")
    return GivenCamera(content, frame_s, seen)


def _of_preset(path: str, content: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any] | None]:
    """With the numbers of the preset that it names where it has none of its own, and what that says of hands."""
    if not isinstance(content["preset"], str):
        raise _wrong(path, "preset", content["preset"], "the name of a lens: `handloom presets` lists them")
    try:
        preset = find_preset(content["preset"])
    except ConfigError as error:
        raise ConfigError(f"camera file {path}: {error.problem}", error.hint) from None
    own = {key for key in ("camera_matrix", "fov_deg", "distortion") if content.get(key) is not None}
    values = preset.camera()
    if own:
        content = {key: value for key, value in content.items() if key != "preset"}
        del values["preset"]
    if own & {"camera_matrix", "fov_deg"}:  # then the preset's focal length is another one, and so is how sure it is
        values = {key: value for key, value in values.items() if key == "distortion"}
    return values | {key: value for key, value in content.items() if value is not None}, preset.hand()


def _check_matrix(path: str, value: Any) -> None:
    if not _are_numbers(value, 9):
        raise _wrong(path, "camera_matrix", value, "9 finite numbers in one list, row by row: fx 0 cx 0 fy cy 0 0 1")
    fx, skew, _, zero, fy, _, *last = value
    if fx <= 0 or fy <= 0:
        raise _wrong(path, "camera_matrix", value, "focal lengths fx and fy above 0 (numbers 1 and 5)")
    if abs(skew) > 1e-6 * fx or zero != 0 or last != [0, 0, 1]:
        raise _wrong(path, "camera_matrix", value, "fx 0 cx 0 fy cy 0 0 1, row by row, without skew")


def _check_distortion(path: str, value: Any) -> None:
    if not isinstance(value, dict) or set(value) != {"model", "params"}:
        raise _wrong(path, "distortion", value, "an object with the two keys model and params")
    if not isinstance(value["model"], str) or not value["model"]:
        raise _wrong(path, "distortion.model", value["model"], "the name of a distortion model")
    if not isinstance(value["params"], list) or not _are_numbers(value["params"], len(value["params"])):
        raise _wrong(path, "distortion.params", value["params"], "a list of finite numbers")


def _check_pose(path: str, key: str, pose: Any) -> float:
    if not isinstance(pose, dict) or set(pose) != {"frame_s", "matrix"}:
        raise _wrong(path, key, pose, "an object with the two keys frame_s and matrix")
    if not _are_numbers([pose["frame_s"]], 1):
        raise _wrong(path, f"{key}.frame_s", pose["frame_s"], "a finite number of seconds")
    matrix = pose["matrix"]
    if not _are_numbers(matrix, 16) or matrix[12:] != [0, 0, 0, 1]:
        raise _wrong(path, f"{key}.matrix", matrix, "16 finite numbers, row by row, the last row 0 0 0 1")
    if not _is_rotation([matrix[0:3], matrix[4:7], matrix[8:11]]):
        raise _wrong(path, f"{key}.matrix", matrix, "a rotation in its upper left 3 x 3 numbers")
    return float(pose["frame_s"])


def _is_rotation(rows: list[list[float]]) -> bool:
    # Floats: the products of huge integers would have no end.
    (a, b, c), (d, e, f), (g, h, i) = rows = [[float(x) for x in row] for row in rows]
    determinant = a * (e * i - f * h) - b * (d * i - f * g) + c * (d * h - e * g)
    dots = (sum(x * y for x, y in zip(rows[j], rows[k], strict=True)) - (j == k) for j in range(3) for k in range(j, 3))
    return determinant > 0 and all(abs(dot) <= _ROTATION_TOLERANCE for dot in dots)


def _are_numbers(value: Any, count: int) -> bool:
    return isinstance(value, list) and len(value) == count and all(is_number(x) for x in value)


def _wrong(path: str, key: str, value: Any, expected: str) -> ConfigError:
    shown = json.dumps(value)
    shown = shown if len(shown) <= 120 else shown[:117] + "..."
    return ConfigError(
        f"camera file {path}: {key} is {shown}, expected {expected}", "correct the file, or leave it out"
    )
