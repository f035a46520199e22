"""What an ingest says of its videos' cameras and hands: a preset, a field of view, a file, a hand's length.

Of one video the file beside it goes first, then what the command says, then what the clip list has from an earlier
command, then what the video file says of itself, then the source's own preset (`epic`, `ego4d`).
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

from handloom.errors import ConfigError
from handloom.geometry.camera.intrinsics import FOV_SIGMA, MAX_STRETCH, camera_of, parse_camera
from handloom.ingest.camera.file import GivenCamera, read_camera_file
from handloom.ingest.files import Options
from handloom.schemas.calibrated import before_calibration, is_calibrated
from handloom.schemas.camera_presets import CameraPreset, find_preset
from handloom.schemas.clip import Clip
from handloom.schemas.hand_size import LENGTH_RANGE_M
from handloom.schemas.values import Camera, VideoInfo

FOV_RANGE_DEG = (1.0, 170.0)
LENGTH_SIGMA = 0.02  # of a hand that somebody has measured: 4 mm
MAX_SHOWN_SIZE = 1e5


@dataclass(frozen=True)
class Asked:
    """What one command says of all its videos. camera, hand: JSON of the clips, None: not said. said: for the summary;
    size: the picture that the camera's matrix is for, where the file says it. is_square: the camera is of square
    pictures."""

    camera: str | None = None
    hand: str | None = None
    said: str = ""
    size: tuple[int, int] | None = None
    is_square: bool = False

    def of_video(self, info: VideoInfo) -> Camera | None:
        """The camera of a video, where one is asked for. Raises ValueError where it does not fit the video."""
        return None if self.camera is None else camera_of(self.camera, info)

    def is_scaled(self, info: VideoInfo) -> bool:
        """Whether the matrix is for a picture of another size than the video's."""
        return self.size is not None and self.size != (info.width, info.height)

    def is_cut(self, info: VideoInfo) -> bool:
        """Whether the camera is of square pictures, and the video is not square."""
        sides = sorted((info.width, info.height))
        return self.is_square and sides[1] > sides[0] * (1 + MAX_STRETCH)


def asked_cameras(
    preset: str | None = None,
    fov_deg: float | None = None,
    intrinsics: str | None = None,
    hand_length_m: float | None = None,
    options: Options = None,
) -> Asked:
    """What `--camera-preset`, `--fov-deg`, `--intrinsics` and `--hand-length-m` say; at most one of the first three.

    Raises:
        ConfigError: two of them, a preset that does not exist, a number out of range, a file that cannot be used.
    """
    given = {"--camera-preset": preset, "--fov-deg": fov_deg, "--intrinsics": intrinsics}
    flags = [flag for flag, value in given.items() if value is not None]
    if len(flags) > 1:
        values = " and ".join(f"{flag} {given[flag]}" for flag in flags)
        raise ConfigError(f"{values} are given, expected one of them", "leave out all but the one that you know best")
    hand = _hand_of(hand_length_m)
    if preset is not None:
        return _with_hand(of_preset(find_preset(preset)), hand)
    if fov_deg is not None:
        _check_fov(fov_deg)
        camera = {"fov_deg": fov_deg, "focal_sigma": FOV_SIGMA, "source": "assumed"}
        return _with_hand(
            Asked(_dump(camera), said=f"a field of view of {fov_deg:g} degrees, known to {FOV_SIGMA:.0%}"), hand
        )
    if intrinsics is not None:
        return _with_hand(_of_file(intrinsics, options), hand)
    return _with_hand(Asked(), hand)


def _with_hand(found: Asked, hand: dict[str, Any] | None) -> Asked:
    """With the person's own hand, beside how large the lens's preset says that hands are drawn."""
    return found if hand is None else replace(found, hand=_dump(json.loads(found.hand or "{}") | hand))


def of_preset(preset: CameraPreset) -> Asked:
    """The lens of this name."""
    hand = preset.hand()
    said = f"preset {preset.name}: {preset.fov_deg:g} degrees, focal length known to {preset.focal_sigma:.0%}"
    return Asked(_dump(preset.camera()), None if hand is None else _dump(hand), said, is_square=preset.is_square)


def kept(clip: Clip, before: Clip, asked: Asked, any_camera: bool = False) -> Clip:
    """The clip; what this command does not say of its camera and hands is what `before` says, the clip in the list.

    A camera stays where an earlier command said it (any_camera: wherever it came from), and neither this one nor a file
    does. Of the hands, how large they are drawn goes with the camera, their length does not. What `calibrate` found
    stays until something else is said.
    """
    camera = clip.camera
    unsaid = asked.camera is None and (camera is None or _is_of_device(camera))
    if unsaid and before.camera is not None and (any_camera or _is_of_command(before.camera)):
        camera = before.camera
    if camera is not None and camera == before_calibration(before.camera):
        camera = before.camera  # it says again what `calibrate` began with
    return replace(clip, camera=camera, hand=_hand_kept(clip.hand, before.hand, camera != before.camera))


def is_file_gone(clip: Clip, before: Clip) -> bool:
    """Whether the camera in the list was that of a file beside the video, and the clip has none from a file now."""
    return _is_of_file(before.camera) and not _is_of_file(clip.camera)


def _is_of_file(camera: str | None) -> bool:
    return camera is not None and not _is_of_command(camera) and not _is_of_device(camera)


def _hand_kept(said: str | None, before: str | None, is_new_lens: bool) -> str | None:
    said_now = {} if said is None else json.loads(said)
    # What was found of the hands holds for the lens and the length that it was found with.
    listed = before_calibration(before)
    hand = {} if listed is None else json.loads(listed)
    if not is_new_lens and all(hand.get(name) == value for name, value in said_now.items()):
        return before
    if is_new_lens:
        for name in ("seen_size", "seen_sigma"):
            hand.pop(name, None)
    hand |= said_now
    known = any(hand.get(name) is not None for name in ("length_m", "seen_size"))
    return _dump(hand) if known else None


def filled(clips: Iterable[Clip], asked: Asked, own: Asked) -> tuple[list[Clip], int]:
    """The clips; those without a camera get the one asked for, else the source's `own`. And how many they were."""
    source = own if asked.camera is None else asked
    clips = list(clips)
    filled = [clip if clip.camera is not None else replace(clip, camera=source.camera) for clip in clips]
    return filled, sum(clip.camera is None for clip in clips)


def _is_of_command(camera: str) -> bool:
    """Whether a command said it, or found it: neither a file beside the video, nor the video file."""
    said = '"source":' in camera and not _is_of_device(camera) and '"of":"file"' not in camera
    return is_calibrated(camera) or said


def _is_of_device(camera: str) -> bool:
    """Whether it is what the video file says of itself."""
    return '"device":' in camera and not is_calibrated(camera)


def _check_fov(fov_deg: float) -> None:
    low, high = FOV_RANGE_DEG
    if not (math.isfinite(fov_deg) and low <= fov_deg <= high):
        wider = "; a wider lens is no pinhole: take a preset, or --intrinsics with a fisheye model"
        raise ConfigError(
            f"--fov-deg {fov_deg:g}, expected {low:g} to {high:g} degrees along the picture's longer side",
            f"give what the camera's maker says of its video{wider if fov_deg > high else ''}",
        )


def _hand_of(length_m: float | None) -> dict[str, Any] | None:
    if length_m is None:
        return None
    low, high = LENGTH_RANGE_M
    if not low <= length_m <= high:
        unit = "; is it in centimetres?" if low <= length_m / 100 <= high else ""
        raise ConfigError(
            f"--hand-length-m {length_m:g}, expected {low:g} to {high:g} metres{unit}",
            "measure from the crease of the wrist to the tip of the middle finger; adults have 0.16 to 0.21 m",
        )
    return {"length_m": length_m, "sigma": LENGTH_SIGMA, "source": "given"}


def _of_file(path: str, options: Options) -> Asked:
    given = read_camera_file(path, options)
    _check_file(path, given)
    content = {"source": "assumed" if given.content.get("camera_matrix") is None else "given"} | given.content
    shown = given.size
    try:
        parse_camera(_dump(content), *(shown or _size_of(content)))
    except ValueError as error:
        raise ConfigError(f"intrinsics file {path} cannot be used: {error}", "correct the file") from error
    return Asked(_dump(content), given.hand(), f"the intrinsics of {path}", shown)


def _check_file(path: str, given: GivenCamera) -> None:
    if given.frame_s or given.content.get("world_scale") is not None:
        key = "world_from_camera" if given.frame_s else "world_scale"
        raise ConfigError(
            f"intrinsics file {path} has {key}, expected what holds for every video: camera_matrix, distortion, ...",
            "poses are one video's own: write them to its NAME.camera.json",
        )


def _size_of(content: dict[str, Any]) -> tuple[int, int]:
    """The picture in whose middle the principal point lies: to look at a lens before any video is known."""
    matrix = content.get("camera_matrix")
    if matrix is None:
        return 1920, 1080
    return tuple(round(min(max(2 * matrix[i] + 1, 16.0), MAX_SHOWN_SIZE)) for i in (2, 5))


def _dump(content: dict[str, Any]) -> str:
    return json.dumps(content, sort_keys=True, separators=(",", ":"))
