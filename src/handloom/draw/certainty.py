"""The uncertainty of a clip's metres and of its lens, in numbers and in words."""

from __future__ import annotations

from typing import Any

import numpy as np

from handloom.plural import plural
from handloom.schemas.calibrated import read_calibrated

SCALES = {
    "metric": "world in metres, to scale",
    "arbitrary": "path's scale unknown: its shape is right, its metres are not known",
    "none": "no world: the camera's path is not known",
}
STILL = {"static": "camera did not move", "pure_rotation": "camera turned, did not move"}
SOURCES = {"given": "lens given", "estimated": "lens estimated from the video", "assumed": "lens assumed"}


def scale_sigma(row: dict[str, Any]) -> float | None:
    """Relative standard deviation of a clip's metres: of the path's scale if it was found, else of the distance of the
    hands (the path of a camera at rest has no scale); None where neither is known.
    """
    quality = row.get("quality") or {}
    if quality.get("camera_scale_sigma") is not None:
        return float(quality["camera_scale_sigma"])
    sigma, hands = row.get("hand_sigma_m"), row.get("hand_keypoints_cam_m")
    if sigma is None or hands is None:
        return None
    with np.errstate(invalid="ignore", divide="ignore"):
        share = sigma / np.linalg.norm(hands.mean(axis=2), axis=-1)
    return float(np.median(share[np.isfinite(share)])) if np.isfinite(share).any() else None


def scale_text(row: dict[str, Any]) -> str:
    """The unit of the clip's world, in words; without a world, the reason."""
    scale, reason = row.get("world_scale") or "none", row.get("camera_path_reason")
    sigma = scale_sigma(row) if scale == "metric" else None
    if scale == "metric" and sigma is None and reason in STILL:
        return f"{STILL[reason]}: nothing to be measured"
    sure = "" if sigma is None else f", known to {sigma:.0%}"
    share = (row.get("quality") or {}).get("camera_coverage")
    part = "" if share is None or share == 1 else f", in {share:.1%} of the frames"
    return SCALES[scale] + sure + part + (f" ({reason})" if scale == "none" and reason else "")


def lens_text(row: dict[str, Any]) -> str:
    """Source of the clip's intrinsics and uncertainty of the focal length, in words; empty where they are unknown."""
    source, preset, sigma = (row.get(f"camera_{name}") for name in ("source", "preset", "focal_sigma"))
    if source not in SOURCES:
        return ""
    shared = read_calibrated(row.get("camera")) if source == "estimated" else None
    words = SOURCES[source] + (f" ({preset})" if preset else "")
    if shared is not None:
        words = f"lens estimated from {plural(shared.num_clips, 'clip')} together"
    return words if sigma is None else f"{words}, focal length known to {sigma:.0%}"


def trust_text(row: dict[str, Any]) -> str:
    """Probability that distances are right within 20 %, in words: those of hands, without hands those along the path;
    empty where nothing is in metres. Hands may have metres although the path's scale is unknown.
    """
    quality = row.get("quality") or {}
    trust, whose = quality.get("metric_trust"), "of hands" if quality.get("hand_coverage") else "along the path"
    return "" if trust is None else f"distances {whose} within 20 % of the truth: probability {trust:.0%}"


def short_words(row: dict[str, Any]) -> list[str]:
    """Lens, metres and trust in a few words each, for a line of numbers; words for unknown values are left out."""
    words = []
    if row.get("camera_source") in SOURCES:
        words.append(f"lens {row['camera_source']}{_plus_minus(row.get('camera_focal_sigma'))}")
    if row.get("world_scale") == "metric":
        sigma, still = scale_sigma(row), STILL.get(row.get("camera_path_reason") or "")
        words.append(still if still and sigma is None else f"metres{_plus_minus(sigma)}")
    elif row.get("world_scale") is not None:
        words.append("path's scale unknown" if row["world_scale"] == "arbitrary" else "no camera path")
    trust = (row.get("quality") or {}).get("metric_trust")
    return words if trust is None else [*words, f"trust {trust:.0%}"]


def _plus_minus(sigma: float | None) -> str:
    return "" if sigma is None else f" ± {sigma:.0%}"
