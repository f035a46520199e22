"""How far an estimated camera path is from the true one. Poses are (T, 4, 4) world_from_camera, NaN where unknown."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

Floats = NDArray[np.floating]

MIN_TRAVEL_M = 0.02
"""Spread (rms) of a trajectory below which its scale and its shape are not asked for: the head hardly moved."""


def camera_errors(estimated: Floats, truth: Floats) -> dict[str, float]:
    """One stretch of path against the truth, over the frames where both are known.

    rotation_deg: mean angle between orientations after the one turn of the world that fits them best.
    rotation_first_deg: the same after aligning the first frame instead. ate_m: rms distance of the camera centres after
    the best similarity; ate_rigid_m: after the best rigid motion, so an error of scale counts. scale: estimated over
    true size of the trajectory (1 is right), NaN where the camera moved less than `MIN_TRAVEL_M`. travel_m: the true
    centres' rms distance from their mean.

    Source: Sturm et al., A Benchmark for the Evaluation of RGB-D SLAM Systems, IROS 2012; Umeyama, PAMI 1991.
    """
    known = np.isfinite(estimated).all(axis=(1, 2)) & np.isfinite(truth).all(axis=(1, 2))
    names = ("rotation_deg", "rotation_first_deg", "ate_m", "ate_rigid_m", "scale", "travel_m")
    if known.sum() < 3:
        return dict.fromkeys(names, float("nan"))
    ours, true = np.asarray(estimated, float)[known], np.asarray(truth, float)[known]
    turn = mean_turn(ours, true)
    first = true[0, :3, :3] @ ours[0, :3, :3].T
    scale, ate = _fit(ours[:, :3, 3], true[:, :3, 3], scaled=True)
    _, rigid = _fit(ours[:, :3, 3], true[:, :3, 3], scaled=False)
    travel = float(np.sqrt(((true[:, :3, 3] - true[:, :3, 3].mean(axis=0)) ** 2).sum(axis=1).mean()))
    asked = travel >= MIN_TRAVEL_M and scale > 0
    angles = (_angle_deg(turn, ours, true), _angle_deg(first, ours, true))
    return dict(zip(names, (*angles, ate, rigid, 1 / scale if asked else float("nan"), travel), strict=True))


def windowed(estimated: Floats, truth: Floats, frame_s: Floats, seconds: float) -> list[dict[str, float]]:
    """`camera_errors` of stretches of `seconds` one after another, the last one ending with the clip; a shorter clip is
    one stretch."""
    starts = np.arange(frame_s[0], max(frame_s[-1] - seconds, frame_s[0]) + 1e-9, seconds)
    if frame_s[-1] - starts[-1] > seconds + 1e-9:
        starts = np.append(starts, frame_s[-1] - seconds)
    out = []
    for start in starts:
        at = (frame_s >= start - 1e-9) & (frame_s <= start + seconds + 1e-9)
        out.append(camera_errors(estimated[at], truth[at]))
    return out


def align_world(estimated: Floats, truth: Floats) -> Floats:
    """The rigid motion (4, 4) that takes the estimated world to the true one: its turn fits the orientations, its shift
    the centres. The scale is kept. NaN where no pose is known in both.

    Orientations settle the turn also where the camera moved along a line, or hardly at all.
    """
    known = np.isfinite(estimated).all(axis=(1, 2)) & np.isfinite(truth).all(axis=(1, 2))
    out = np.full((4, 4), np.nan)
    if known.any():
        ours, true = np.asarray(estimated, float)[known], np.asarray(truth, float)[known]
        out = np.eye(4)
        out[:3, :3] = mean_turn(ours, true)
        out[:3, 3] = (true[:, :3, 3] - ours[:, :3, 3] @ out[:3, :3].T).mean(axis=0)
    return out


def mean_turn(ours: Floats, true: Floats) -> Floats:
    """(3, 3): the rotation R with R ours = true in the least squares of matrix entries (chordal mean).

    Source: Hartley et al., Rotation Averaging, IJCV 2013.
    """
    u, _, vt = np.linalg.svd(np.einsum("tij,tkj->ik", true[:, :3, :3], ours[:, :3, :3]))
    return u @ np.diag([1, 1, np.sign(np.linalg.det(u @ vt))]) @ vt


def _angle_deg(turn: Floats, ours: Floats, true: Floats) -> float:
    rest = np.einsum("ij,tjk,tlk->til", turn, ours[:, :3, :3], true[:, :3, :3])
    return float(np.degrees(Rotation.from_matrix(rest).magnitude()).mean())


def _fit(ours: Floats, true: Floats, scaled: bool) -> tuple[float, float]:
    """Umeyama's scale (1 where not asked for; 0 where `ours` stands still) and the rms distance that stays."""
    a, b = ours - ours.mean(axis=0), true - true.mean(axis=0)
    u, s, vt = np.linalg.svd(b.T @ a)
    s[2] *= np.sign(np.linalg.det(u @ vt))
    sign = np.diag([1, 1, np.sign(np.linalg.det(u @ vt))])
    spread = (a * a).sum()
    scale = (float(s.sum() / spread) if spread > 1e-18 else 0.0) if scaled else 1.0
    rest = b - scale * a @ (u @ sign @ vt).T
    return scale, float(np.sqrt((rest * rest).sum(axis=1).mean()))
