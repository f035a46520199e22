"""`NAME.camera.json` beside a video: its camera, as given."""

from __future__ import annotations

import bisect
import json
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import AfterValidator, Field, with_config
from typing_extensions import TypedDict

from handloom.errors import ConfigError
from handloom.geometry.camera.intrinsics import camera_of
from handloom.io.reading import read_json
from handloom.io.remote import Options
from handloom.schemas.bounded_json import CAMERA
from handloom.schemas.camera_presets import find_preset
from handloom.schemas.clip import STORED_SIZE, given_size
from handloom.schemas.json_format import STRICT, Entry, Expected, Form, Number, OneOf, Positive, expected, shown
from handloom.schemas.values import WORLD_SCALES, VideoInfo

SUFFIX = ".camera.json"
HINT = "correct the file, or leave it out"
OLD_SIZE = "`picture_size` is called `image_size` now; the old name is still read"
_NO_OTHERS = STRICT | {"extra": "forbid"}
_ROTATION_TOLERANCE = 1e-2  # poses are often written as float32, or with four digits


def _check_matrix(value: list[float]) -> list[float]:
    fx, skew, _, zero, fy, _, *last = value
    if fx <= 0 or fy <= 0:
        raise expected("focal lengths fx and fy above 0 (numbers 1 and 5)")
    if abs(skew) > 1e-6 * fx or zero != 0 or last != [0, 0, 1]:
        raise expected("fx 0 cx 0 fy cy 0 0 1, row by row, without skew")
    return value


def _check_pose(matrix: list[float]) -> list[float]:
    if matrix[12:] != [0, 0, 0, 1]:
        raise expected("16 finite numbers, row by row, the last row 0 0 0 1")
    # Floats: the products of huge integers would have no end.
    rows = [[float(x) for x in row] for row in (matrix[0:3], matrix[4:7], matrix[8:11])]
    (a, b, c), (d, e, f), (g, h, i) = rows
    determinant = a * (e * i - f * h) - b * (d * i - f * g) + c * (d * h - e * g)
    dots = (sum(x * y for x, y in zip(rows[j], rows[k], strict=True)) - (j == k) for j in range(3) for k in range(j, 3))
    if not (determinant > 0 and all(abs(dot) <= _ROTATION_TOLERANCE for dot in dots)):
        raise expected("a rotation in its upper left 3 x 3 numbers")
    return matrix


@with_config(_NO_OTHERS)
class _Pose(TypedDict):
    frame_s: Annotated[Number, Expected("a finite number of seconds")]
    matrix: Annotated[
        list[Number],
        Field(min_length=16, max_length=16),
        Expected("16 finite numbers, row by row, the last row 0 0 0 1"),
        AfterValidator(_check_pose),
    ]


@with_config(_NO_OTHERS)
class _Distortion(TypedDict):
    model: Annotated[str, Field(min_length=1), Expected("the name of a distortion model")]
    params: Annotated[list[Number], Expected("a list of finite numbers")]


_Size = Annotated[
    list[Annotated[Number, Field(ge=1)]], Field(min_length=2, max_length=2), Expected("[width, height] in pixels")
]


class _CameraFile(Entry):
    model_config = _NO_OTHERS
    camera_matrix: (
        Annotated[
            list[Number],
            Field(min_length=9, max_length=9),
            Expected("9 finite numbers in one list, row by row: fx 0 cx 0 fy cy 0 0 1"),
            AfterValidator(_check_matrix),
        ]
        | None
    ) = None
    fov_deg: Annotated[Positive, Expected("a number of degrees")] | None = None
    image_size: _Size | None = None
    picture_size: _Size | None = None
    distortion: _Distortion | None = None
    focal_sigma: Annotated[Positive, Expected("a share of the focal length")] | None = None
    source: Annotated[str, Field(min_length=1), Expected("a name")] | None = None
    preset: Annotated[str, Expected("the name of a lens: `handloom presets` lists them")] | None = None
    world_from_camera: Annotated[list[_Pose], Field(min_length=1, fail_fast=True)] | None = None
    world_scale: Annotated[str, OneOf(WORLD_SCALES)] | None = None


_FILE = Form(_CameraFile)


@dataclass(frozen=True)
class GivenCamera:
    """A camera file whose form was checked.

    content: its JSON, as clips store it. frame_s: times of its poses in seconds, rising. preset_hand: the scale of
    keypoints, if the preset that it names has one. is_old: it has `picture_size`, the name of `image_size` before 0.4.
    """

    content: dict[str, Any]
    frame_s: list[float]
    preset_hand: dict[str, Any] | None = None
    is_old: bool = False

    def hand(self, requested: str | None = None) -> str | None:
        """The `hand` JSON of its clips: `requested` by the command, with the preset's scale of keypoints."""
        return requested if self.preset_hand is None else _dump(json.loads(requested or "{}") | self.preset_hand)

    def check(self, info: VideoInfo) -> None:
        """Raises ValueError if the intrinsics cannot be used or do not fit the video."""
        camera_of(_dump({key: value for key, value in self.content.items() if key != "world_from_camera"}), info)

    @property
    def size(self) -> tuple[int, int] | None:
        """(width, height) of the image that the matrix is for; None if that is the video."""
        size = given_size(self.content)
        return None if size is None else (round(size[0]), round(size[1]))

    def text(self, start_s: float, end_s: float | None) -> str:
        """JSON for a clip: its poses, and one on either side so that every time of the clip can be interpolated.

        An hour of video has 100,000 poses: a clip carries only its own. A camera with a `source` may be a file's or a
        command's, and a command's stays in the list when the file is gone: `"of": "file"` marks those of files.
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
        image_size (optional): [width, height] that camera_matrix is for, where that is not the video's own size;
            `picture_size` before version 0.4.
        distortion (optional): `{"model": name, "params": [numbers]}`.
        focal_sigma (optional): relative standard deviation of the focal length.
        source (optional): `given`, `estimated` or `assumed`.
        preset (optional): the name of a lens of `schemas.camera_presets`, for the numbers that the file does not have.
            Alone it gives all numbers, and the name is kept; beside numbers of the file the name is dropped.
        world_from_camera (optional): a list of `{"frame_s": seconds on the video's clock, "matrix": 16 numbers, row by
            row}`, times rising.
        world_scale (optional): `metric`, `arbitrary` or `none`.

    Raises:
        ConfigError: names the file, the key, the value and what was expected.
    """
    content = read_json(path, "camera file", options, CAMERA)
    poses = _FILE.read_file(content, f"camera file {path}", HINT).world_from_camera or []
    frame_s = [float(pose["frame_s"]) for pose in poses]
    for i in range(1, len(frame_s)):
        if frame_s[i] <= frame_s[i - 1]:
            problem = f"world_from_camera[{i}].frame_s is {frame_s[i]}, expected more than {frame_s[i - 1]} before it"
            raise ConfigError(f"camera file {path}: {problem}", HINT)
    is_old, size = content.get("picture_size") is not None, content.pop("image_size", None)
    if is_old and size is not None:
        both = f"image_size {shown(size)} and picture_size {shown(content['picture_size'])}"
        raise ConfigError(f"camera file {path} has {both}, expected image_size alone", HINT)
    if size is not None:
        content[STORED_SIZE] = size
    preset_hand = None
    if content.get("preset") is not None:
        content, preset_hand = _of_preset(path, content)
    if all(content.get(key) is None for key in ("camera_matrix", "fov_deg", "preset")):
        problem = "camera_matrix is missing, expected 9 numbers, or fov_deg or preset in its place"
        raise ConfigError(f"camera file {path}: {problem}", HINT)
    if content.get("fov_deg") is not None and content.get("camera_matrix") is not None:
        problem = f"fov_deg is {shown(content['fov_deg'])}, expected either camera_matrix or fov_deg"
        raise ConfigError(f"camera file {path}: {problem}", HINT)
    return GivenCamera(content, frame_s, preset_hand, is_old)


def _of_preset(path: str, content: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any] | None]:
    """The content, completed with the numbers of the preset that it names; and the preset's scale of keypoints."""
    try:
        preset = find_preset(content["preset"])
    except ConfigError as error:
        raise ConfigError(f"camera file {path}: {error.problem}", error.hint) from None
    own = {key for key in ("camera_matrix", "fov_deg", "distortion") if content.get(key) is not None}
    values = preset.camera()
    if own:
        content = {key: value for key, value in content.items() if key != "preset"}
        del values["preset"]
    if own & {"camera_matrix", "fov_deg"}:  # another focal length than the preset's, and another sigma
        values = {key: value for key, value in values.items() if key == "distortion"}
    return values | {key: value for key, value in content.items() if value is not None}, preset.hand()
