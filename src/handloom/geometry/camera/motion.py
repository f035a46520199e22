"""The camera's own movement in the image: one homography per step between frames, from point tracks.

As in Improved Dense Trajectories (Wang and Schmid, ICCV 2013, section 3.1): a homography is fitted robustly to the
matches of two frames, matches on people (here: near the hands) are left out, and what the homography does not explain
is motion of the scene. It is exact for a camera that only turns, or for a flat background; parallax stays in.

Everything is deterministic: OpenCV's USAC starts from a fixed state of its own generator (the global one is neither
read nor set) and runs on one thread; products of long matrices are written out, because a BLAS may sum in another order
with another number of threads.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from handloom.errors import ShapeError

Floats = NDArray[np.float64]

MIN_HOMOGRAPHY_POINTS = 24
MIN_SIMILARITY_POINTS = 8
MIN_TRANSLATION_POINTS = 4
MIN_INLIER_SHARE = 0.25
"""A homography or similarity that explains less than this share of the matches is not the dominant motion."""
TOLERANCE = 0.003
"""Reprojection error of an inlier, as a share of sqrt(width * height): 1.4 px at 640 x 360."""
_CANONICAL_PX = 512.0  # USAC computes in float32 and its code has pixel-sized constants: give it a usual image size


@dataclass(frozen=True)
class CameraMotion:
    """Dominant motion of the background over T frames.

    next_from_frame: (T-1, 3, 3) float64; maps a pixel of frame t to frame t+1, last entry 1. NaN where too few
    background tracks are seen in both frames. num_inliers: (T-1,) int64, the tracks that agree with it.
    """

    next_from_frame: Floats
    num_inliers: NDArray[np.int64]


def estimate_camera_motion(
    points_px: NDArray[np.floating],
    visible: NDArray[np.bool_],
    width: float,
    height: float,
    foreground: NDArray[np.bool_] | None = None,
) -> CameraMotion:
    """Dominant homography of every step from frame t to t+1.

    Args:
        points_px: (T, N, 2) tracks; NaN is the same as not visible.
        visible: (T, N).
        width, height: of the image the points are measured in.
        foreground: (T, N), True for points that must not vote (on or near a hand). None: all vote.

    Raises:
        ShapeError: the arrays disagree in T or N.
    """
    shape = points_px.shape[:2]
    masks = [visible] if foreground is None else [visible, foreground]
    if points_px.shape != (*shape, 2) or any(mask.shape != shape for mask in masks):
        got = f"points {points_px.shape}, visible {visible.shape}"
        raise ShapeError(f"{got}: expected (T, N, 2) and (T, N), and foreground like visible")
    usable = visible & np.isfinite(points_px).all(-1)
    if foreground is not None:
        usable = usable & ~foreground
    steps = max(len(points_px) - 1, 0)
    homographies = np.full((steps, 3, 3), np.nan)
    num_inliers = np.zeros(steps, np.int64)
    for t in range(steps):
        both = usable[t] & usable[t + 1]
        homographies[t], inliers = dominant_homography(points_px[t, both], points_px[t + 1, both], width, height)
        num_inliers[t] = inliers.sum()
    return CameraMotion(homographies, num_inliers)


def dominant_homography(
    from_px: NDArray[np.floating], to_px: NDArray[np.floating], width: float, height: float
) -> tuple[Floats, NDArray[np.bool_]]:
    """The homography most matches agree with; with few matches a similarity, with fewer a translation.

    Args:
        from_px, to_px: (N, 2) finite pixels of the same points in two images of `width` x `height`.

    Returns:
        (3, 3) float64 with last entry 1, and (N,) bool inliers. NaN and all False below 4 matches.
    """
    scale = _CANONICAL_PX / float(np.sqrt(width * height))
    centre = np.array([(width - 1) / 2, (height - 1) / 2])
    source = (from_px.astype(np.float64) - centre) * scale
    target = (to_px.astype(np.float64) - centre) * scale
    canonical = _fit(source, target, TOLERANCE * _CANONICAL_PX, np.array([width, height]) * scale)
    if canonical is None:
        return np.full((3, 3), np.nan), np.zeros(len(source), bool)
    inliers = np.linalg.norm(warp(canonical, source) - target, axis=1) <= TOLERANCE * _CANONICAL_PX
    into = np.array([[scale, 0, -scale * centre[0]], [0, scale, -scale * centre[1]], [0, 0, 1]])
    homography = np.linalg.inv(into) @ canonical @ into
    return homography / homography[2, 2], inliers


def warp(homography: Floats, points: NDArray[np.floating]) -> Floats:
    """(..., 2) points through a (3, 3) homography; float64. NaN stays NaN."""
    x, y = points[..., 0].astype(np.float64), points[..., 1].astype(np.float64)
    across, down, depth = (row[0] * x + row[1] * y + row[2] for row in homography.tolist())
    out = np.empty(points.shape)
    np.divide(across, depth, out=out[..., 0])
    np.divide(down, depth, out=out[..., 1])
    return out


def _fit(source: Floats, target: Floats, tolerance: float, size: Floats) -> Floats | None:
    """Homography, else similarity, else translation, in canonical pixels; None below four matches."""
    if len(source) >= MIN_HOMOGRAPHY_POINTS:
        found, mask = cv2.findHomography(source, target, _usac(tolerance))
        if found is not None and _trustworthy(found, mask, size):
            return found / found[2, 2]
    if len(source) >= MIN_SIMILARITY_POINTS:
        found, mask = cv2.estimateAffinePartial2D(source, target, ransacReprojThreshold=tolerance, maxIters=2000)
        if found is not None and _trustworthy(similarity := np.vstack([found, [0, 0, 1]]), mask, size):
            return similarity
    if len(source) >= MIN_TRANSLATION_POINTS:
        shift = np.median(target - source, axis=0)
        return np.array([[1, 0, shift[0]], [0, 1, shift[1]], [0, 0, 1]])
    return None


def _usac(tolerance: float) -> cv2.UsacParams:
    """MSAC with local optimisation (Chum et al., Locally Optimized RANSAC, DAGM 2003): OpenCV's default.

    Measured on 1296 matches with 0, 30 and 50 percent outliers: 0.3, 0.7 and 0.8 ms, corner error as small as after a
    further reweighted least squares; MAGSAC scoring took twice as long and was no better.
    """
    params = cv2.UsacParams()
    params.threshold = tolerance
    params.confidence = 0.999
    params.maxIterations = 1000
    params.score = cv2.SCORE_METHOD_MSAC
    params.loMethod = cv2.LOCAL_OPTIM_INNER_LO
    params.randomGeneratorState = 0
    params.isParallel = False
    return params


def _trustworthy(homography: Floats, mask: NDArray[np.uint8], size: Floats) -> bool:
    return bool(mask.mean() >= MIN_INLIER_SHARE and mask.sum() >= MIN_TRANSLATION_POINTS) and _is_sane(homography, size)


def _is_sane(homography: Floats, size: Floats) -> bool:
    """No camera step mirrors the image, more than doubles or halves it, or tilts its edge by more than 0.3.

    So the divisor of `warp` stays above 0.7 up to half an image size outside the image.
    """
    if not np.isfinite(homography).all() or abs(homography[2, 2]) < 1e-9:
        return False
    homography = homography / homography[2, 2]
    stretch = np.linalg.svd(homography[:2, :2], compute_uv=False)
    tilt = np.sum(np.abs(homography[2, :2]) * size)
    return bool(np.linalg.det(homography[:2, :2]) > 0 and stretch[0] < 2 and stretch[1] > 0.5 and tilt < 0.3)
