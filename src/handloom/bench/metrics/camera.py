"""How far an estimated camera path is from the true one. Poses are (T, 4, 4) world_from_camera, NaN where unknown."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

Floats = NDArray[np.floating]

MIN_TRAVEL_M = 0.02
"""A trajectory of a smaller rms spread has no scale or shape to compare: the head hardly moved."""


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
    travel = _travel_m(true)
    asked = travel >= MIN_TRAVEL_M and scale > 0
    angles = (_angle_deg(turn, ours, true), _angle_deg(first, ours, true))
    return dict(zip(names, (*angles, ate, rigid, 1 / scale if asked else float("nan"), travel), strict=True))


def relative_errors(estimated: Floats, truth: Floats, frame_s: Floats) -> dict[str, float]:
    """Errors from frame to frame and the path's length, over a whole clip, without alignment or a fitted scale.

    rpe_m, rpe_deg: rms of the translation, and of the angle, of (true motion)^-1 (estimated motion) from a frame to the
    next one; rpe_1s_m, rpe_1s_deg: to the frame one second later. Translations are in the first frame of each pair.
    length_ratio: length of the estimated path over the true one, NaN where the true centres' rms distance from their
    mean is below `MIN_TRAVEL_M`; jitter makes it larger, too small a scale smaller. path_m: the true length. Steps with
    an unknown frame are left out of both.

    Source: RPE: Sturm et al., IROS 2012, section V; ratio: MINT's Table 2.
    """
    out: dict[str, float] = {}
    step_s = float(np.median(np.diff(frame_s))) if len(frame_s) > 1 else float("inf")
    for name, ahead in (("", 1), ("_1s", max(round(1.0 / step_s), 1))):
        metres, degrees = _motion_errors(estimated, truth, ahead)
        out |= {f"rpe{name}_m": metres, f"rpe{name}_deg": degrees}
    known = np.isfinite(estimated).all(axis=(1, 2)) & np.isfinite(truth).all(axis=(1, 2))
    both = known[1:] & known[:-1]
    ours, true = (np.linalg.norm(np.diff(p[:, :3, 3], axis=0), axis=1)[both].sum() for p in (estimated, truth))
    asked = known.any() and _travel_m(truth[known]) >= MIN_TRAVEL_M
    out["length_ratio"] = float(ours / true) if asked and true > 0 else float("nan")
    return out | {"path_m": float(true) if both.any() else float("nan")}


def _travel_m(poses: Floats) -> float:
    centres = np.asarray(poses, float)[:, :3, 3]
    return float(np.sqrt(((centres - centres.mean(axis=0)) ** 2).sum(axis=1).mean()))


def _motion_errors(estimated: Floats, truth: Floats, ahead: int) -> tuple[float, float]:
    pairs = [_relative(np.asarray(p, float), ahead) for p in (estimated, truth)]
    known = np.isfinite(pairs[0]).all(axis=(1, 2)) & np.isfinite(pairs[1]).all(axis=(1, 2))
    if not known.any():
        return float("nan"), float("nan")
    ours, true = (p[known] for p in pairs)
    turns = np.einsum("tji,tjk->tik", true[:, :3, :3], ours[:, :3, :3])
    shift = np.linalg.norm(ours[:, :3, 3] - true[:, :3, 3], axis=1)
    degrees = np.degrees(Rotation.from_matrix(turns).magnitude())
    return float(np.sqrt((shift**2).mean())), float(np.sqrt((degrees**2).mean()))


def _relative(poses: Floats, ahead: int) -> Floats:
    """(T - ahead, 4, 4) of each frame to the one `ahead` of it: first_from_later."""
    first, later = poses[:-ahead], poses[ahead:]
    out = np.tile(np.eye(4), (len(first), 1, 1))
    out[:, :3, :3] = np.einsum("tji,tjk->tik", first[:, :3, :3], later[:, :3, :3])
    out[:, :3, 3] = np.einsum("tji,tj->ti", first[:, :3, :3], later[:, :3, 3] - first[:, :3, 3])
    return out


def windowed(estimated: Floats, truth: Floats, frame_s: Floats, seconds: float) -> list[dict[str, float]]:
    """`camera_errors` of consecutive stretches of `seconds`, the last one ending with the clip; a shorter clip is one
    stretch."""
    starts = np.arange(frame_s[0], max(frame_s[-1] - seconds, frame_s[0]) + 1e-9, seconds)
    if frame_s[-1] - starts[-1] > seconds + 1e-9:
        starts = np.append(starts, frame_s[-1] - seconds)
    out = []
    for start in starts:
        at = (frame_s >= start - 1e-9) & (frame_s <= start + seconds + 1e-9)
        out.append(camera_errors(estimated[at], truth[at]))
    return out


def align_world(estimated: Floats, truth: Floats) -> Floats:
    """The rigid motion (4, 4) from the estimated world to the true one: its rotation is fitted to the orientations, its
    translation to the centres. The scale is kept. NaN where no pose is known in both.

    Orientations determine the rotation also if the camera moved along a line, or hardly moved.
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
    """Umeyama's scale (1 if not `scaled`; 0 if `ours` does not move) and the rms distance that is left."""
    a, b = ours - ours.mean(axis=0), true - true.mean(axis=0)
    u, s, vt = np.linalg.svd(b.T @ a)
    s[2] *= np.sign(np.linalg.det(u @ vt))
    sign = np.diag([1, 1, np.sign(np.linalg.det(u @ vt))])
    spread = (a * a).sum()
    scale = (float(s.sum() / spread) if spread > 1e-18 else 0.0) if scaled else 1.0
    rest = b - scale * a @ (u @ sign @ vt).T
    return scale, float(np.sqrt((rest * rest).sum(axis=1).mean()))
