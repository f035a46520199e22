"""The lens that is assumed from the tags of a video file."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from handloom.geometry.camera.distortion import lens_of
from handloom.schemas.camera_presets import PRESETS
from handloom.schemas.values import VideoInfo
from handloom.video.container.camera_tags import CameraTags

DIAGONAL_35MM = 43.27  # mm, of a 36 x 24 mm image, to which "35 mm equivalent" focal lengths refer
# Phones write the focal length of the whole image and record a stabilised part of it: an iPhone 13 writes 27 mm, 70
# degrees of a 16:9 image, and 8 calibrations (`schemas.camera_presets`: lens_profiles) have a median of 60 degrees; an
# iPhone 13 mini writes 69.5 degrees, two calibrations have 58.
STABILISED = 1.22
STABILISED_SIGMA = 0.10
# Of the degrees from corner to corner that GoPro writes: a GoPro MAX writes 137.4, which is 124 along the side by the
# curve of gopro-wide; two calibrations of its 16:9 video have 119 and 121, that is focal lengths longer by 4 %.
CORNER_SIGMA = 0.05
# A GoPro MAX's view is 1.14 times that of gopro-wide; half or twice the view of a setting belongs to another lens.
PLAUSIBLE_VIEW = (0.6, 1.5)
_GOPRO_SETTINGS = {"W": "gopro-wide", "L": "gopro-linear", "N": "gopro-narrow"}
_STRETCHED = {"S": "SuperView", "H": "HyperView"}
_OTHER_LENSES = ("front", "ultra", "tele", "external")


@dataclass(frozen=True)
class DeviceCamera:
    """camera: the `camera` JSON, None if the tags give no lens. description: what was read, and what is assumed."""

    camera: str | None
    description: str


def device_camera(tags: CameraTags, info: VideoInfo) -> DeviceCamera | None:
    """The lens that a file's tags give; None if they name no camera."""
    device = tags.device
    if device is None:
        return None
    name = f"by {device}"
    if (tags.make or "").lower() == "gopro" or device.lower().startswith("gopro"):
        return _gopro(tags, info, device)
    is_phone = (tags.make or "").lower() == "apple" or (tags.is_android and not _is_no_phone(tags))
    if tags.focal_35mm is not None:
        long, diagonal = max(info.width, info.height), math.hypot(info.width, info.height)
        focal_35mm = tags.focal_35mm * (STABILISED if is_phone else 1.0)
        fov_deg = 2 * math.degrees(math.atan(DIAGONAL_35MM * long / diagonal / 2 / focal_35mm))
        values = {"fov_deg": round(fov_deg, 1), "focal_sigma": STABILISED_SIGMA}
        less = ", stabilised" if is_phone else ""
        return _assumed(values, device, f"{name}, {tags.focal_35mm:g} mm of a 35 mm camera{less}")
    other = next((word for word in _OTHER_LENSES if word in (tags.lens or "").lower()), None)
    if is_phone and other is None:
        preset = PRESETS["android-main" if tags.is_android else "iphone-main"]
        return _assumed(preset.camera(), device, name)
    return DeviceCamera(
        None, f"{name}: its field of view is not in the file; give it with --camera-preset or --fov-deg"
    )


def _gopro(tags: CameraTags, info: VideoInfo, device: str) -> DeviceCamera:
    setting = tags.fov_setting
    if setting in _STRETCHED:
        name = _STRETCHED[setting]
        why = f"field of view {name}: it stretches the image in a way that no lens model here describes"
        return DeviceCamera(None, f"by {device}: {why}; the default field of view is assumed")
    preset = PRESETS[_GOPRO_SETTINGS.get(setting or "", "gopro")]
    values = preset.camera()
    description = f"by {device}, field of view {preset.name[6:] if setting in _GOPRO_SETTINGS else 'unknown'}"
    fov_deg = None if tags.diagonal_fov_deg is None else _along_longer_side(tags.diagonal_fov_deg, values, info)
    low, high = (share * values["fov_deg"] for share in PLAUSIBLE_VIEW)
    if fov_deg is not None and setting in _GOPRO_SETTINGS and low <= fov_deg <= high:
        values |= {"fov_deg": round(fov_deg, 1), "focal_sigma": CORNER_SIGMA}
        description += f", {tags.diagonal_fov_deg:.1f} degrees from corner to corner"
    return _assumed(values, device, description)


def _along_longer_side(diagonal_fov_deg: float, values: dict[str, Any], info: VideoInfo) -> float | None:
    """Degrees along the longer side of a lens with `diagonal_fov_deg` from corner to corner; None if there is none."""
    distortion = values.get("distortion")
    half = math.radians(diagonal_fov_deg) / 2
    share = max(info.width, info.height) / math.hypot(info.width, info.height)
    lens = None if distortion is None else lens_of(distortion["model"], np.array(distortion["params"]))
    if lens is None:
        return 2 * math.degrees(math.atan(math.tan(half) * share)) if half < math.radians(85) else None
    at_side = lens.unbend(np.array([[lens.radius_of(half) * share, 0.0]]))[0, 0]
    return 2 * math.degrees(float(at_side)) if math.isfinite(at_side) else None


def _is_no_phone(tags: CameraTags) -> bool:
    """Some cameras that are no phones run Android."""
    return any(word in f"{tags.make} {tags.model}".lower() for word in ("dji", "insta360", "arashi"))


def _assumed(values: dict[str, Any], device: str, description: str) -> DeviceCamera:
    values = values | {"source": "assumed", "device": device}
    preset = f"preset {values['preset']}: " if "preset" in values else ""
    assumed = f"{preset}{values['fov_deg']:g} degrees, focal length known to {values['focal_sigma']:.0%}"
    return DeviceCamera(json.dumps(values, sort_keys=True, separators=(",", ":")), f"{description}; {assumed}")
