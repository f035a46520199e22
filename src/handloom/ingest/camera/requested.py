"""The camera and hands that the options of a command give: a preset, a field of view, a file, a hand's length.

The camera of a video is the first of these: the file beside the video; what `clips.csv` names; the command's options;
what the clip list has from an earlier command; the tags of the video file; the preset of the source (`epic`, `ego4d`).
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

from handloom.errors import ConfigError
from handloom.geometry.camera.intrinsics import FOV_SIGMA, MAX_STRETCH, camera_of, parse_camera
from handloom.ingest.camera.file import OLD_SIZE, GivenCamera, read_camera_file
from handloom.io.remote import Options
from handloom.schemas.calibrated import before_calibration, is_calibrated
from handloom.schemas.camera_presets import CameraPreset, find_preset
from handloom.schemas.clip import Clip
from handloom.schemas.hand_size import LENGTH_RANGE_M, with_names_of_today
from handloom.schemas.values import Camera, VideoInfo

FOV_RANGE_DEG = (1.0, 170.0)
LENGTH_SIGMA = 0.02  # of a hand that somebody has measured: 4 mm
MAX_SHOWN_SIZE = 1e5
SCALE = ("keypoint_scale", "keypoint_scale_sigma")
"""Of the `hand` JSON: what belongs to the lens, not to the person."""


@dataclass(frozen=True)
class RequestedCamera:
    """What one command gives for all its videos.

    camera, hand: JSON for its clips, None if the command gives none. description: for the summary. size: (width,
    height) of the image that the camera's matrix is for, None if the file does not give it. is_square: the lens is of
    a camera with square images.
    """

    camera: str | None = None
    hand: str | None = None
    description: str = ""
    size: tuple[int, int] | None = None
    is_square: bool = False

    def of_video(self, info: VideoInfo) -> Camera | None:
        """The camera of a video; None if the command gives none. Raises ValueError if it does not fit the video."""
        return None if self.camera is None else camera_of(self.camera, info)

    def is_scaled(self, info: VideoInfo) -> bool:
        """Whether the matrix is for an image of another size than the video's."""
        return self.size is not None and self.size != (info.width, info.height)

    def is_cut(self, info: VideoInfo) -> bool:
        """Whether the lens is of a camera with square images, and the video is not square."""
        sides = sorted((info.width, info.height))
        return self.is_square and sides[1] > sides[0] * (1 + MAX_STRETCH)


def requested_camera(
    preset: str | None = None,
    fov_deg: float | None = None,
    intrinsics: str | None = None,
    hand_length_m: float | None = None,
    options: Options = None,
) -> RequestedCamera:
    """What `--camera-preset`, `--fov-deg`, `--intrinsics` and `--hand-length-m` give; at most one of the first three.

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
        description = f"a field of view of {fov_deg:g} degrees, known to {FOV_SIGMA:.0%}"
        return _with_hand(RequestedCamera(_dump(camera), description=description), hand)
    if intrinsics is not None:
        return _with_hand(_of_file(intrinsics, options), hand)
    return _with_hand(RequestedCamera(), hand)


def _with_hand(found: RequestedCamera, hand: dict[str, Any] | None) -> RequestedCamera:
    """Adds the length of the person's hand to the scale of keypoints that the lens's preset gives."""
    return found if hand is None else replace(found, hand=_dump(json.loads(found.hand or "{}") | hand))


def of_preset(preset: CameraPreset) -> RequestedCamera:
    """The lens and the scale of keypoints of a preset."""
    hand = preset.hand()
    description = f"preset {preset.name}: {preset.fov_deg:g} degrees, focal length known to {preset.focal_sigma:.0%}"
    return RequestedCamera(
        _dump(preset.camera()), None if hand is None else _dump(hand), description, is_square=preset.is_square
    )


def named_camera(name: str, file: str | None, command: RequestedCamera, options: Options = None) -> RequestedCamera:
    """The lens that a list of videos names for one of them, with the length of hands that the command gives.

    name: of a preset, unless it ends in `.json`. file: then the intrinsics file (`--intrinsics`) that it names, None if
    there is none.

    Raises:
        ConfigError: there is no such preset or file, or the file cannot be used.
    """
    if name.lower().endswith(".json"):
        if file is None:
            raise ConfigError(f"there is no file {name}", "give its path below the folder")
        found = _of_file(file, options)
    else:
        found = of_preset(find_preset(name))
    given = json.loads(command.hand or "{}")
    length = {key: value for key, value in given.items() if key not in SCALE}
    return _with_hand(found, length or None)


def keep_listed(clip: Clip, before: Clip, requested: RequestedCamera, any_camera: bool = False) -> Clip:
    """The clip with the camera and hands of `before`, the clip in the list, if this command gives none.

    The listed camera stays if an earlier command gave it and neither this command nor a file beside the video gives
    one; with `any_camera` it stays whatever it came from. The scale of keypoints belongs to the camera, the length of
    the hand does not. What `calibrate` found stays until another camera or hand is given.
    """
    camera = clip.camera
    is_open = requested.camera is None and (camera is None or _is_from_device(camera))
    if is_open and before.camera is not None and (any_camera or _is_from_command(before.camera)):
        camera = before.camera
    if camera is not None and camera == before_calibration(before.camera):
        camera = before.camera  # the same that `calibrate` began with
    return replace(clip, camera=camera, hand=_keep_hand(clip.hand, before.hand, camera != before.camera))


def has_lost_its_file(clip: Clip, before: Clip) -> bool:
    """Whether the listed camera came from a file beside the video that is no longer there."""
    return _is_from_file(before.camera) and not _is_from_file(clip.camera)


def _is_from_file(camera: str | None) -> bool:
    return camera is not None and not _is_from_command(camera) and not _is_from_device(camera)


def _keep_hand(given: str | None, before: str | None, is_new_lens: bool) -> str | None:
    given_now = {} if given is None else json.loads(given)
    # What `calibrate` found about the hands holds for the lens and the length that it was found with.
    listed = before_calibration(before)
    hand = with_names_of_today({} if listed is None else json.loads(listed))
    if not is_new_lens and all(hand.get(name) == value for name, value in given_now.items()):
        return before
    if is_new_lens:
        for name in SCALE:
            hand.pop(name, None)
    hand |= given_now
    known = any(hand.get(name) is not None for name in ("length_m", "keypoint_scale"))
    return _dump(hand) if known else None


def fill_cameras(clips: Iterable[Clip], requested: RequestedCamera, own: RequestedCamera) -> tuple[list[Clip], int]:
    """All clips, those without a camera with the requested one, else the source's `own`; and how many those were."""
    source = own if requested.camera is None else requested
    clips = list(clips)
    complete = [clip if clip.camera is not None else replace(clip, camera=source.camera) for clip in clips]
    return complete, sum(clip.camera is None for clip in clips)


def _is_from_command(camera: str) -> bool:
    """Whether a command gave or found this camera, not a file beside the video or the video file."""
    is_option = '"source":' in camera and not _is_from_device(camera) and '"of":"file"' not in camera
    return is_calibrated(camera) or is_option


def _is_from_device(camera: str) -> bool:
    """Whether this camera comes from the tags of the video file."""
    return '"device":' in camera and not is_calibrated(camera)


def _check_fov(fov_deg: float) -> None:
    low, high = FOV_RANGE_DEG
    if not (math.isfinite(fov_deg) and low <= fov_deg <= high):
        wider = "; a wider lens is no pinhole: take a preset, or --intrinsics with a fisheye model"
        raise ConfigError(
            f"--fov-deg {fov_deg:g}, expected {low:g} to {high:g} degrees along the image's longer side",
            f"give the field of view that the camera's maker states for video{wider if fov_deg > high else ''}",
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


def _of_file(path: str, options: Options) -> RequestedCamera:
    given = read_camera_file(path, options)
    _check_file(path, given)
    content = {"source": "assumed" if given.content.get("camera_matrix") is None else "given"} | given.content
    shown = given.size
    try:
        parse_camera(_dump(content), *(shown or _size_of(content)))
    except ValueError as error:
        raise ConfigError(f"intrinsics file {path} cannot be used: {error}", "correct the file") from error
    description = f"the intrinsics of {path}{f' ({OLD_SIZE})' if given.is_old else ''}"
    return RequestedCamera(_dump(content), given.hand(), description, shown)


def _check_file(path: str, given: GivenCamera) -> None:
    if given.frame_s or given.content.get("world_scale") is not None:
        key = "world_from_camera" if given.frame_s else "world_scale"
        raise ConfigError(
            f"intrinsics file {path} has {key}, expected what holds for every video: camera_matrix, distortion, ...",
            "poses are one video's own: write them to its NAME.camera.json",
        )


def _size_of(content: dict[str, Any]) -> tuple[int, int]:
    """(width, height) of an image whose middle is the principal point: to check a lens before any video is known."""
    matrix = content.get("camera_matrix")
    if matrix is None:
        return 1920, 1080
    return tuple(round(min(max(2 * matrix[i] + 1, 16.0), MAX_SHOWN_SIZE)) for i in (2, 5))


def _dump(content: dict[str, Any]) -> str:
    return json.dumps(content, sort_keys=True, separators=(",", ":"))
