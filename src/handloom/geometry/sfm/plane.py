"""Two views of a flat scene: a homography, and the two ways in which a camera may have moved between them.

Source: Faugeras and Lustman, Motion and structure from motion in a piecewise planar environment, 1988 (OpenCV's
`decomposeHomographyMat` follows Malis and Vargas, INRIA research report 6303, 2007).
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

FLAT = 0.7  # least share of two views' points on one plane
MIN_FLAT = 10
APART_RAD = np.radians(0.5)  # between the rotations of both: nearer ones grow into the same scene


def twin_pose(xy_a: Floats, xy_b: Floats, focal: float, max_error_px: float, pose: Floats) -> Floats | None:
    """The second pose (3, 4) of camera b in a's frame that shows a flat scene in the same way; None where it is not
    flat.

    xy_a, xy_b: (n, 2) pixels from the principal point. pose: the first one, from `relative_pose`.
    """
    rays = xy_a / focal
    homography, mask = cv2.findHomography(rays, xy_b / focal, _usac(max_error_px / focal))
    flat = np.zeros(len(rays), bool) if homography is None else mask.reshape(-1).astype(bool)
    if flat.sum() < MIN_FLAT or flat.mean() < FLAT:
        return None
    rays = np.column_stack([rays[flat], np.ones(flat.sum())])
    _, turns, ways, normals = cv2.decomposeHomographyMat(homography, np.eye(3))
    twin, furthest = None, APART_RAD
    for turn, way, normal in zip(turns, ways, normals, strict=True):
        length = float(np.linalg.norm(way))
        if length == 0 or np.median(rays @ normal) <= 0 or np.linalg.det(turn) < 0:
            continue
        cosine = (np.trace(turn @ pose[:, :3].T) - 1) / 2
        apart = float(np.arccos(np.clip(cosine, -1.0, 1.0)))
        if apart > furthest:
            twin, furthest = np.column_stack([turn, way / length]), apart
    return twin


def _usac(tolerance: float) -> cv2.UsacParams:
    params = cv2.UsacParams()
    params.threshold, params.confidence, params.maxIterations = tolerance, 0.999, 1000
    params.score, params.loMethod = cv2.SCORE_METHOD_MSAC, cv2.LOCAL_OPTIM_INNER_LO
    params.randomGeneratorState, params.isParallel = 0, False
    return params
