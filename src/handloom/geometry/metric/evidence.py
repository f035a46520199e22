"""Evidence of a clip's metric scale: the lens by its motion, hands that rest in a metric world, measured depth;
and the row's numbers of how sure the scale is."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from handloom.geometry.metric.path_scale import GIVEN_DEPTH_SIGMA, by_rest
from handloom.geometry.metric.posterior import Posterior, trust, without_prior
from handloom.schemas.hand_topology import PALM
from handloom.schemas.values import Camera, CameraPath, DepthMaps, Hands, VideoInfo

Floats = NDArray[np.float64]

WORLD_SIGMA = 0.3
"""Added to the sigma of hands that rest in the world: with true poses the hands' size is 0.02 to 0.3 off in eleven
clips, with sigmas of 0.08 to 0.2, and always too small (0.3) where a hand only reaches for something."""
SURFACE_M = 0.01  # from the palm's keypoints to the surface that a depth sensor measures
MIN_SAMPLES = 20


@dataclass(frozen=True)
class Metres:
    """How large a clip's world is, and what the clip alone gave as evidence, without what was assumed.

    focal: focal length from the scene's motion alone, over the image's longer side, and its relative standard
    deviation. size: log of the true over the assumed size of the hands, from the world or from measured depth alone,
    and its standard deviation. None: no evidence.
    """

    known: Posterior
    focal: tuple[float, float] | None = None
    size: tuple[float, float] | None = None


def with_lens(metres: Metres, before: Camera, found: Camera, info: VideoInfo) -> Metres:
    """With the lens `found` from the motion of the scene, where `before` was assumed."""
    if found is before or not before.focal_sigma or not found.focal_sigma:
        return metres
    logs = [float(np.log(camera.camera_matrix[0, 0])) for camera in (before, found)]
    by_motion = without_prior(logs[1], found.focal_sigma, logs[0], before.focal_sigma)
    if by_motion is None:
        return metres
    at = float(metres.known.mean[0]) + by_motion[0] - logs[0]
    focal = (float(np.exp(by_motion[0])) / max(info.width, info.height), by_motion[1])
    known = metres.known.updated(Posterior.FOCAL, at, by_motion[1], surprise=math.inf)  # as the camera has it
    return replace(metres, known=known, focal=focal)


def with_world(
    metres: Metres,
    hands: Hands,
    path: CameraPath,
    camera: Camera,
    info: VideoInfo,
    frame_s: Floats,
    maps: DepthMaps | None = None,
) -> Metres:
    """With the evidence of a given metric path and of given depth maps for the hands' size.

    hands: placed with `metres.known`; unchanged where they have no `sigma_m`, since these were placed without it.
    frame_s: (T,) seconds.
    """
    known, evidence = metres.known, []
    seen = hands.visible & ~hands.infilled & np.isfinite(hands.keypoints_cam_m).all(axis=(2, 3))
    if hands.sigma_m is None or not seen.any():
        return metres
    keypoints = np.where(seen[..., None, None], hands.keypoints_cam_m.astype(np.float64), np.nan)
    if path.source == "given" and path.scale == "metric" and path.world_from_camera is not None:
        rest = by_rest(path.world_from_camera, keypoints, frame_s)
        if rest is not None:
            evidence.append(
                (Posterior.SIZE, -float(np.log(rest.metres)), float(np.hypot(rest.sigma, WORLD_SIGMA)), 0.0)
            )
    if maps is not None and maps.scale == "metric" and maps.source.startswith("given"):
        measured = _by_maps(keypoints, hands.keypoints_px, seen, maps, info)
        if measured is not None:
            evidence.append((Posterior.HAND, *measured, camera.focal_sigma or 0.0))
    if not evidence:
        return metres
    after = known
    for of, value, sigma, _ in evidence:
        after = after.updated(of, float(of @ known.mean) + value, sigma)
    values = np.array([float(Posterior.SIZE @ known.mean) + value for _, value, _, _ in evidence])
    weights = np.array([1 / (sigma**2 + lens**2) for _, _, sigma, lens in evidence])
    size = float((weights * values).sum() / weights.sum()), float(weights.sum() ** -0.5)
    return replace(metres, known=after, size=size)


def _by_maps(
    keypoints: Floats,
    keypoints_px: NDArray[np.floating[Any]],
    seen: NDArray[np.bool_],
    maps: DepthMaps,
    info: VideoInfo,
) -> tuple[float, float] | None:
    """Log of the measured depth of palms over that of their keypoints, and its spread; None from few samples."""
    height, width = maps.depth_m.shape[1:]
    frame, hand = np.nonzero(seen)
    px = keypoints_px[frame, hand][:, PALM].astype(np.float64)
    at = np.floor((px + 0.5) / [info.width, info.height] * [width, height]).astype(np.int64)
    inside = ((at >= 0) & (at < [width, height])).all(axis=2)
    column, row = np.where(inside[..., None], at, 0).transpose(2, 0, 1)
    depth = maps.depth_m[frame[:, None], row, column].astype(np.float64)
    good = inside & np.isfinite(depth) & (depth > 0)
    if good.sum() < MIN_SAMPLES:
        return None
    logs = np.log((depth[good] + SURFACE_M) / keypoints[frame, hand][:, PALM, 2][good])
    middle = float(np.median(logs))
    return middle, float(np.hypot(GIVEN_DEPTH_SIGMA, 1.48 * np.median(np.abs(logs - middle))))


def metric_numbers(
    metres: Metres, hands: Hands, path: CameraPath, scale_sigma: float | None, hand_length_m: float
) -> dict[str, float | None]:
    """The row's `quality` numbers of metric scale; None unknown. scale_sigma: of an estimated path's scale."""
    away = np.linalg.norm(hands.keypoints_cam_m.astype(np.float64).mean(axis=2), axis=-1)
    placed = hands.visible & np.isfinite(away)
    sigma = None
    if placed.any():
        share = np.full(away.shape, np.nan) if hands.sigma_m is None else hands.sigma_m / away
        known = share[placed & np.isfinite(share)]
        sigma = float(np.median(known)) if len(known) else metres.known.sigma(Posterior.HAND)
    elif path.source == "estimated" and path.scale == "metric":
        sigma = scale_sigma
    focal, size = metres.focal or (None, None), metres.size
    return {
        "metric_trust": None if sigma is None else trust(sigma),
        "hand_scale_sigma": metres.known.sigma(Posterior.HAND) if placed.any() else None,
        "focal_found": focal[0],
        "focal_found_sigma": focal[1],
        "hand_length_found_m": None if size is None else hand_length_m * float(np.exp(size[0])),
        "hand_length_found_sigma": None if size is None else size[1],
    }
