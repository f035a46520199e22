"""Lenses by name, for videos without intrinsics: the field of view, and how much it varies among such cameras.

Numbers marked with lens_profiles were computed from the calibrations of github.com/gyroflow/lens_profiles (CC0, commit
886fc616 of July 2026), 16:9 video without attachments: the median of the field of view, and the spread of the focal
length's logarithm. Most of them were made by users with a chessboard on a screen.
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from typing import Any

from handloom.errors import ConfigError


@dataclass(frozen=True)
class CameraPreset:
    """A lens by name.

    fov_deg: field of view along the longer side through the middle of the image, as the lens shows it. focal_sigma:
    relative standard deviation of the focal length among cameras of this name. origin: where the numbers come from.
    distortion: `{"model", "params"}`, None for a pinhole. keypoint_scale: size of hands as MediaPipe's keypoints show
    it in these images, over their own size (`hands.keypoint_scale`); None where it was not measured. is_square: the
    numbers are of square images.
    """

    name: str
    meaning: str
    fov_deg: float
    focal_sigma: float
    origin: str
    distortion: dict[str, Any] | None = None
    keypoint_scale: float | None = None
    is_square: bool = False

    def camera(self) -> dict[str, Any]:
        """The `camera` JSON of clips with this lens, of any image size."""
        lens = {} if self.distortion is None else {"distortion": self.distortion}
        values = {"fov_deg": self.fov_deg, "focal_sigma": self.focal_sigma, "source": "assumed", "preset": self.name}
        return values | lens

    def hand(self) -> dict[str, Any] | None:
        """The `hand` JSON of clips with this lens; None where nothing is known of hands in its images."""
        if self.keypoint_scale is None:
            return None
        return {"keypoint_scale": self.keypoint_scale, "source": f"preset {self.name}"}


_WIDE = {"model": "fisheye", "params": [0.104, -0.0702, 0.0414, 0.0006]}
# Radial part of a calibration; the tangential and thin-prism numbers, which turn with the image, move nothing by more
# than 2 px of 1408.
_ARIA = {
    "model": "fisheye624",
    "params": [0.38424, -0.38064, -0.12208, 1.55552, -1.98919, 0.72516, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0],
}

PRESETS = {
    preset.name: preset
    for preset in (
        CameraPreset(
            "gopro-wide",
            "GoPro HERO3 to HERO11, field of view Wide",
            108.7,
            0.08,
            "lens_profiles: median curve of 67 calibrations of 19 models",
            _WIDE,
        ),
        CameraPreset(
            "gopro-linear",
            "GoPro HERO5 to HERO11, field of view Linear",
            87.3,
            0.10,
            "lens_profiles: 25 calibrations; a pinhole follows their median curve to 0.5 % of half the width",
        ),
        CameraPreset(
            "gopro-narrow",
            "GoPro HERO5 to HERO11, field of view Narrow",
            67.5,
            0.10,
            "lens_profiles: 9 calibrations; a pinhole follows their median curve to 0.2 % of half the width",
        ),
        CameraPreset(
            "gopro",
            "GoPro, field of view unknown",
            89.0,
            0.15,
            "a pinhole with the mean focal length of gopro-wide (0.494 of the width) and gopro-linear (0.524)",
        ),
        CameraPreset(
            "iphone-main",
            "iPhone 6s to 15, main camera, 16:9 video",
            60.9,
            0.09,
            "lens_profiles: 149 calibrations, stabilised as iPhones record",
        ),
        CameraPreset(
            "android-main",
            "Android phone, main camera, 16:9 video",
            65.0,
            0.15,
            "lens_profiles: 438 calibrations of Samsung, Xiaomi, Google, OnePlus, Huawei, Oppo and Motorola",
        ),
        CameraPreset(
            "webcam",
            "webcam on a desk, 16:9 video",
            70.4,
            0.20,
            "Logitech C920's product page, 78 degrees from corner to corner; the spread is a guess",
        ),
        CameraPreset(
            "aria",
            "Project Aria glasses, colour camera, square images as recorded or turned upright",
            112.5,
            0.01,
            "online calibration of HOT3D's sample P0003_c701bd11: 609.36 px of 1408, radial numbers of FISHEYE624",
            _ARIA,
            is_square=True,
        ),
        CameraPreset(
            "egodex",
            "EgoDex, Apple Vision Pro",
            105.0,
            0.01,
            "the matrix in EgoDex's HDF5 files, 736.6 px of 1920, equal in all six that were looked at; keypoint_scale "
            "against the headset's own skeleton, found on two clips, confirmed on three",
            keypoint_scale=0.75,
        ),
        CameraPreset(
            "epic",
            "EPIC-KITCHENS, GoPro HERO5 and HERO7, Linear",
            85.0,
            0.04,
            "EPIC-Fields' focal length for 456 x 256; lens_profiles: HERO5 Linear 85.3 degrees, HERO7's 87.5",
        ),
        CameraPreset(
            "ego4d",
            "Ego4D, seven kinds of head cameras",
            90.0,
            0.25,
            "a wide prior: the motion of four clips tells 82 to 113 degrees; GoPro's are 87 to 109",
        ),
    )
}


def find_preset(name: str) -> CameraPreset:
    """The preset of this name, in any case. Raises ConfigError that names the nearest ones."""
    found = PRESETS.get(name.strip().lower())
    if found is not None:
        return found
    near = difflib.get_close_matches(name.lower(), PRESETS, 3, 0.5) or [p for p in PRESETS if name.lower() in p]
    meant = f"did you mean {' or '.join(near)}? " if near and name else ""
    raise ConfigError(
        f"there is no camera preset {name[:80]!r}, expected one of {', '.join(PRESETS)}",
        f"{meant}`handloom presets` shows what each stands for; --fov-deg and --intrinsics take numbers of your own",
    )
