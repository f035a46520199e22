"""Evidence of a clip's metres: the lens that its motion shows, hands that rest in a world of known metres, measured
depth; and the row's numbers that say how sure the metres are."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from handloom.geometry.metric.path_scale import GIVEN_DEPTH_SIGMA, by_rest
from handloom.geometry.metric.posterior import Posterior, alone, trust
from handloom.schemas.values import Camera, CameraPath, DepthMaps, Hands, VideoInfo

Floats = NDArray[np.float64]

WORLD_SIGMA = 0.3
"""Of a hand that rests in the world, beside what its ways say: with true poses the hands' size comes out 0.02 to 0.3
off in eleven clips, with 0.08 to 0.2 said, and always too small (0.3) where a hand only reaches for something."""
SURFACE_M = 0.01  # from the palm's keypoints to what a depth sensor sees of it
ON_MAPS = (0, 5, 9, 13, 17)
MIN_SAMPLES = 20


@dataclass(frozen=True)
class Metres:
    """What is known of a clip's metres, and what the clip alone said.

    focal: the focal length that the scene's motion says alone, over the picture's longer side, and its relative
    standard deviation. size: log of the true size of the hands over the assumed one, and its standard deviation, by the
    world or by measured depth alone. None: nothing said it.
    """

    known: Posterior
    focal: tuple[float, float] | None = None
    size: tuple[float, float] | None = None


def with_lens(metres: Metres, before: Camera, found: Camera, info: VideoInfo) -> Metres:
    """With the lens that the motion of the scene showed: `found`, where `before` was assumed."""
    if found is before or not before.focal_sigma or not found.focal_sigma:
        return metres
    logs = [float(np.log(camera.camera_matrix[0, 0])) for camera in (before, found)]
    said = alone(logs[1], found.focal_sigma, logs[0], before.focal_sigma)
    if said is None:
        return metres
    at = float(metres.known.mean[0]) + said[0] - logs[0]
    focal = (float(np.exp(said[0])) / max(info.width, info.height), said[1])
    known = metres.known.told(Posterior.FOCAL, at, said[1], surprise=math.inf)  # as the camera has it
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
    """With what a given metric path and given depth maps say of the hands' size. hands: as placed with `metres`; those
    placed without it, which say no `sigma_m`, stay as they are."""
    known, told = metres.known, []
    seen = hands.visible & ~hands.infilled & np.isfinite(hands.keypoints_cam_m).all(axis=(2, 3))
    if hands.sigma_m is None or not seen.any():
        return metres
    keypoints = np.where(seen[..., None, None], hands.keypoints_cam_m.astype(np.float64), np.nan)
    if path.source == "given" and path.scale == "metric":
        rest = by_rest(path.world_from_camera, keypoints, frame_s)
        if rest is not None:
            told.append((Posterior.SIZE, -float(np.log(rest.metres)), float(np.hypot(rest.sigma, WORLD_SIGMA)), 0.0))
    if maps is not None and maps.scale == "metric" and maps.source.startswith("given"):
        measured = _by_maps(keypoints, hands.keypoints_px, seen, maps, info)
        if measured is not None:
            told.append((Posterior.HAND, *measured, camera.focal_sigma or 0.0))
    if not told:
        return metres
    after = known
    for of, value, sigma, _ in told:
        after = after.told(of, float(of @ known.mean) + value, sigma)
    values = np.array([float(Posterior.SIZE @ known.mean) + value for _, value, _, _ in told])
    weights = np.array([1 / (sigma**2 + lens**2) for _, _, sigma, lens in told])
    size = float((weights * values).sum() / weights.sum()), float(weights.sum() ** -0.5)
    return replace(metres, known=after, size=size)


def _by_maps(
    keypoints: Floats, keypoints_px: NDArray[np.floating], seen: NDArray[np.bool_], maps: DepthMaps, info: VideoInfo
) -> tuple[float, float] | None:
    """Log of the measured depth of palms over that of their keypoints, and its spread; None with few samples."""
    height, width = maps.depth_m.shape[1:]
    frame, hand = np.nonzero(seen)
    px = keypoints_px[frame, hand][:, ON_MAPS].astype(np.float64)
    at = np.floor((px + 0.5) / [info.width, info.height] * [width, height]).astype(np.int64)
    inside = ((at >= 0) & (at < [width, height])).all(axis=2)
    column, row = np.where(inside[..., None], at, 0).transpose(2, 0, 1)
    depth = maps.depth_m[frame[:, None], row, column].astype(np.float64)
    good = inside & np.isfinite(depth) & (depth > 0)
    if good.sum() < MIN_SAMPLES:
        return None
    logs = np.log((depth[good] + SURFACE_M) / keypoints[frame, hand][:, ON_MAPS, 2][good])
    middle = float(np.median(logs))
    return middle, float(np.hypot(GIVEN_DEPTH_SIGMA, 1.48 * np.median(np.abs(logs - middle))))


def metric_numbers(
    metres: Metres, hands: Hands, path: CameraPath, scale_sigma: float | None, hand_length_m: float
) -> dict[str, float | None]:
    """The row's `quality` numbers of its metres. scale_sigma: of an estimated path's scale, None unknown."""
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
