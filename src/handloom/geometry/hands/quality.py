"""Quality numbers of a clip's hands: the `hand_*` fields of the `quality` column."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from handloom.geometry.camera.intrinsics import project
from handloom.schemas.values import LEFT, RIGHT, Camera, Hands, VideoInfo


def hand_quality(hands: Hands, info: VideoInfo, camera: Camera) -> dict[str, float | None]:
    """The `hand_*` fields of `schemas.tables.arrow.QUALITY_FIELDS`, which has their meanings.

    None where there is nothing to measure: no frame, no visible hand, no hand in three consecutive frames, no 3D.
    Pixel fields are in source pixels, the pixels of `info` and `camera`.
    """
    visible = hands.visible
    if not len(visible):
        coverage = left = right = None
    else:
        coverage = float(visible.any(axis=1).mean())
        left, right = float(visible[:, LEFT].mean()), float(visible[:, RIGHT].mean())
    return {
        "hand_coverage": coverage,
        "hand_coverage_left": left,
        "hand_coverage_right": right,
        "hand_confidence": _over_known(np.mean, hands.confidence[visible]),
        "hand_jitter_px": _over_known(np.median, _second_differences_px(hands)),
        "hand_reprojection_px": _over_known(np.mean, _reprojection_px(hands, camera)),
    }


def _over_known(
    measure: Callable[[NDArray[np.float64]], np.floating[Any]], values: NDArray[np.floating[Any]]
) -> float | None:
    known = values[np.isfinite(values)]
    return float(measure(known.astype(np.float64))) if known.size else None


def _second_differences_px(hands: Hands) -> NDArray[np.float64]:
    """Lengths of x(t-1) - 2 x(t) + x(t+1) of each keypoint of a hand that is visible in all three frames."""
    points = hands.keypoints_px.astype(np.float64)
    bend = np.linalg.norm(points[:-2] - 2 * points[1:-1] + points[2:], axis=-1)
    seen = hands.visible[:-2] & hands.visible[1:-1] & hands.visible[2:]
    return bend[seen]


def _reprojection_px(hands: Hands, camera: Camera) -> NDArray[np.float64]:
    back_px = project(hands.keypoints_cam_m[hands.visible], camera)
    return np.linalg.norm(back_px - hands.keypoints_px[hands.visible], axis=-1)
