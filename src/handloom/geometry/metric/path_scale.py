"""The unit of an estimated camera path in metres: from hands of known size, or from metric depth maps.

Three ways, each with its own uncertainty:

- *rest*: a hand rests in the world while the camera moves. The right scale is the one with which hands stand still most
  often. The camera must move by some centimetres.
- *touch*: fingertips touch the surface behind them now and then, and are never beyond it. So the ratio of their depth
  to the surface's is largest where they touch. Where nothing is touched it is too small: a larger *rest* overrules it.
- *depth*: metric depth maps against the depth of the scene's points.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from handloom.geometry.camera.intrinsics import project
from handloom.schemas.hand_topology import INDEX, LITTLE, MIDDLE, PALM_TRIANGLE, TIPS, WRIST
from handloom.schemas.values import Camera, DepthMaps, Hands, VideoInfo

Floats = NDArray[np.float64]

# Chosen by hand on six rendered clips and four EgoDex clips with their true hands, where scales were within 6 percent
# (12 with all hands 30 mm too far); not fitted.
MAX_SIGMA = 0.25  # relative; beyond it the scale counts as unknown
DEFAULT_HAND_SIGMA = 0.08  # of adults' hands (4 to 5 percent), and of placing them
FINGER_M = 0.012  # from a fingertip's keypoint to what it touches
LATERAL_M, DEPTH_M = 0.003, 0.010  # noise of a palm's displacement over STEP_S
STEP_S = 0.2
SCALE_RANGE = (0.02, 50.0)  # metres per unit: the unit is the scene's median distance
TOUCH_QUANTILE = 0.8
TOUCH_SIGMA = 0.12
REST_SIGMA = 0.05
REACH = 2.5  # palms around a hand in which the surface behind it is looked for
MIN_SURFACE_POINTS = 8
MAX_TOUCH_FRAMES = 48
DEPTH_SIGMA, GIVEN_DEPTH_SIGMA = 0.12, 0.03


@dataclass(frozen=True)
class Scale:
    """Metres per unit, its relative standard deviation, and the way it was found."""

    metres: float
    sigma: float
    way: str


def metric_scale(
    world_from_camera: Floats,
    points_world: Floats,
    hands: Hands | None,
    camera: Camera,
    frame_s: Floats,
    depth: DepthMaps | None = None,
    info: VideoInfo | None = None,
) -> Scale | None:
    """Metres per unit of the path; None where it is not known to `MAX_SIGMA`.

    Args:
        world_from_camera: (T, 4, 4), NaN unknown. points_world: (P, 3) still points of the scene, in the path's unit.
        hands: metric, in the camera frame; their own uncertainty adds to the scale's.
        frame_s: (T,) seconds.
        depth: maps of the same frames; used where their scale is metric (needs `info`).
    """
    if depth is not None and depth.scale == "metric" and info is not None:
        found = by_depth(world_from_camera, points_world, camera, depth, info)
        if found is not None and found.sigma <= MAX_SIGMA:
            return found
    if hands is None:
        return None
    seen = hands.visible & ~hands.infilled & np.isfinite(hands.keypoints_cam_m).all(axis=(2, 3))
    seen &= np.isfinite(world_from_camera).all(axis=(1, 2))[:, None]
    if not seen.any():
        return None
    keypoints = np.where(seen[..., None, None], hands.keypoints_cam_m.astype(np.float64), np.nan)
    rest = by_rest(world_from_camera, keypoints, frame_s)
    # In views from outside, what is behind a hand is seldom what it touches.
    touch = by_touch(world_from_camera, points_world, keypoints, camera) if hands.view != "exo" else None
    best = _weighed(rest, touch)
    if best is None:
        return None
    own = _hand_sigma(hands, seen)
    sigma = float(np.hypot(best.sigma, own))
    # A wrong focal length makes the whole world larger or smaller, its hands with it: it counts in the sigma, and is no
    # reason to leave the path without metres.
    known = sigma**2 - (camera.focal_sigma or 0.0) ** 2 <= MAX_SIGMA**2
    return Scale(best.metres, sigma, best.way) if known else None


def _weighed(rest: Scale | None, touch: Scale | None) -> Scale | None:
    """Both where they agree; else *rest* if it is larger (a hand above the surface), else *touch*."""
    if rest is None or touch is None:
        return rest or touch
    apart = np.log(rest.metres / touch.metres) / np.hypot(rest.sigma, touch.sigma)
    if abs(apart) <= 2:
        weights = np.array([rest.sigma, touch.sigma]) ** -2.0
        logs = np.log([rest.metres, touch.metres])
        mean = float(np.exp((weights * logs).sum() / weights.sum()))
        return Scale(mean, float(weights.sum() ** -0.5), "rest and touch")
    return rest if apart > 0 and rest.sigma < MAX_SIGMA else touch


def _hand_sigma(hands: Hands, seen: NDArray[np.bool_]) -> float:
    """Relative uncertainty of the hands' distance. It does not average out over frames: a clip has one hand size."""
    if hands.sigma_m is None:
        return DEFAULT_HAND_SIGMA
    away = np.linalg.norm(hands.keypoints_cam_m.mean(axis=2), axis=-1)
    share = (hands.sigma_m / away)[seen]
    share = share[np.isfinite(share)]
    return float(np.median(share)) if len(share) else DEFAULT_HAND_SIGMA


def by_rest(world_from_camera: Floats, keypoints_cam_m: Floats, frame_s: Floats) -> Scale | None:
    """The scale with which hands stand still most often: Cauchy likelihood of the palms' displacements over `STEP_S`.

    Displacements along the line of sight count less, since the hand's own depth is uncertain.

    Args:
        world_from_camera: (T, 4, 4), NaN unknown. keypoints_cam_m: (T, 2, 21, 3), NaN unknown. frame_s: (T,).

    Returns:
        None where hands and camera move too little, or the likelihood has no clear maximum.
    """
    gap = max(round(STEP_S / float(np.median(np.diff(frame_s)))), 1) if len(frame_s) > 1 else 1
    if len(frame_s) <= 2 * gap:
        return None
    turn, place = world_from_camera[:, :3, :3], world_from_camera[:, :3, 3]
    palm = keypoints_cam_m[:, :, PALM_TRIANGLE].mean(axis=2)
    turned = np.einsum("tij,thj->thi", turn, palm)
    sight = turned / np.linalg.norm(turned, axis=-1, keepdims=True)
    camera_way = np.broadcast_to((place[gap:] - place[:-gap])[:, None], turned[gap:].shape)
    hand_way, sight = turned[gap:] - turned[:-gap], sight[gap:]
    known = np.isfinite(hand_way).all(axis=-1) & np.isfinite(camera_way).all(axis=-1)
    if known.sum() < 2 * gap:
        return None
    camera_way, hand_way = (_whitened(way[known], sight[known]) for way in (camera_way, hand_way))
    low, high = np.log(SCALE_RANGE).tolist()
    logs = np.linspace(low, high, 400)
    ways = np.exp(logs)[:, None, None] * camera_way + hand_way
    cost = np.log1p((ways**2).sum(axis=-1)).sum(axis=1) * 2 / gap  # of overlapping displacements one in `gap` is new
    best = int(cost.argmin())
    likely = np.exp(-0.5 * (cost - cost[best]))
    likely /= likely.sum()
    mean = float((likely * logs).sum())
    sigma = float(np.sqrt((likely * (logs - mean) ** 2).sum()))
    if best in (0, len(logs) - 1) or sigma > MAX_SIGMA:
        return None
    return Scale(float(np.exp(logs[best])), max(sigma, REST_SIGMA), "rest")


def _whitened(ways: Floats, sight: Floats) -> Floats:
    along = (ways * sight).sum(axis=-1, keepdims=True) * sight
    return (ways - along) / LATERAL_M + along / DEPTH_M


def by_touch(world_from_camera: Floats, points_world: Floats, keypoints_cam_m: Floats, camera: Camera) -> Scale | None:
    """The largest ratio of fingertip depth (metres) to that of the surface behind it (units), as a high quantile.

    Args: as of `metric_scale`; keypoints_cam_m (T, 2, 21, 3). None from fewer than eight hands.
    """
    frames = np.flatnonzero(np.isfinite(keypoints_cam_m).all(axis=(2, 3)).any(axis=1))
    frames = frames[:: max(1, -(-len(frames) // MAX_TOUCH_FRAMES))]
    ratios, misfits = [], []
    for frame in frames.tolist():
        pose = world_from_camera[frame]
        local = (points_world - pose[:3, 3]) @ pose[:3, :3]
        pixels = project(local, camera)
        for keypoints in keypoints_cam_m[frame]:
            if np.isfinite(keypoints).all():
                found = _over_surface(local[:, 2], pixels, keypoints, project(keypoints, camera))
                if found is not None:
                    ratios.append(found[0])
                    misfits.append(found[1])
    if len(ratios) < 8:
        return None
    logs = np.log(ratios)
    ceiling = float(np.quantile(logs, TOUCH_QUANTILE))
    # Many ratios end near the ceiling: what lies above it is noise.
    above = float(np.quantile(logs, 0.95)) - ceiling
    sigma = float(np.sqrt(TOUCH_SIGMA**2 + np.median(misfits) ** 2 + above**2))
    return Scale(float(np.exp(ceiling)), sigma, "touch") if sigma <= MAX_SIGMA else None


def _over_surface(depth: Floats, pixels: Floats, keypoints: Floats, keypoints_px: Floats) -> tuple[float, float] | None:
    """The largest ratio (metres per unit) of a fingertip to the surface behind it, and how badly the surface fits.

    The surface is a plane: in the image its inverse depth is linear. Robust and local, from the scene's points.
    """
    middle = keypoints_px.mean(axis=0)
    across, along = keypoints_px[INDEX[0]] - keypoints_px[LITTLE[0]], keypoints_px[MIDDLE[0]] - keypoints_px[WRIST]
    palm = float(np.linalg.norm(across) + np.linalg.norm(along))
    offset = (pixels - middle) / max(palm / 2, 1e-6)
    away = np.linalg.norm(offset, axis=1)
    near = (depth > 1e-3) & (away < REACH)  # NaN behind the camera: not near
    if near.sum() < MIN_SURFACE_POINTS:
        return None
    base = np.exp(-0.5 * (away[near] / 1.5) ** 2)
    system, wanted, weight = np.column_stack([offset[near], np.ones(near.sum())]), 1 / depth[near], base
    for _ in range(5):
        root = np.sqrt(weight)
        plane = np.linalg.lstsq(system * root[:, None], wanted * root, rcond=None)[0]
        left = np.abs(system @ plane - wanted)
        weight = base / (1 + (left / max(1.5 * float(np.median(left)), 1e-9)) ** 2)
    tips = (keypoints_px[list(TIPS)] - middle) / max(palm / 2, 1e-6)
    inverse = np.column_stack([tips, np.ones(len(tips))]) @ plane
    if (inverse <= 0).any():
        return None
    ratio = float(((keypoints[list(TIPS), 2] + FINGER_M) * inverse).max())
    return ratio, float(np.median(left) / np.median(wanted))


def by_depth(
    world_from_camera: Floats, points_world: Floats, camera: Camera, depth: DepthMaps, info: VideoInfo
) -> Scale | None:
    """Median ratio of metric depth maps to the depth of the scene's points that lie in the image."""
    ratios = []
    height, width = depth.depth_m.shape[1:]
    size = np.array([info.width, info.height], np.float64)
    known = np.flatnonzero(np.isfinite(world_from_camera).all(axis=(1, 2)))
    for frame in known[:: max(1, -(-len(known) // MAX_TOUCH_FRAMES))].tolist():
        pose = world_from_camera[frame]
        local = (points_world - pose[:3, 3]) @ pose[:3, :3]
        pixels = np.nan_to_num((project(local, camera) + 0.5) / size * [width, height], nan=-1.0)
        inside = (pixels >= 0).all(axis=1) & (pixels < [width, height]).all(axis=1) & (local[:, 2] > 1e-3)
        column, row = pixels[inside].astype(int).T
        metres = depth.depth_m[frame][row, column].astype(np.float64)
        good = np.isfinite(metres) & (metres > 0)
        if good.sum() >= MIN_SURFACE_POINTS:
            ratios.append(float(np.median(metres[good] / local[inside, 2][good])))
    if len(ratios) < 3:
        return None
    logs = np.log(ratios)
    middle = float(np.median(logs))
    floor = GIVEN_DEPTH_SIGMA if depth.source.startswith("given") else DEPTH_SIGMA
    return Scale(float(np.exp(middle)), float(np.hypot(floor, 1.48 * np.median(np.abs(logs - middle)))), "depth")
