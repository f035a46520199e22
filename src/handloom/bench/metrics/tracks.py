"""How far tracks are from true ones: TAP-Vid in the image, TAPVid-3D in the camera frame. T frames, N points."""

from __future__ import annotations

import warnings

import numpy as np
from numpy.typing import NDArray

from handloom.geometry.camera.intrinsics import slope_per_pixel
from handloom.schemas.values import Camera

Floats = NDArray[np.floating]
Bools = NDArray[np.bool_]

THRESHOLDS_PX = (1, 2, 4, 8, 16)
SWAP_PX = 4
SIDE_PX = 256  # TAP-Vid measures in an image of 256 x 256, whatever the video's size


def evaluated(query_frame: NDArray[np.integer], num_frames: int) -> Bools:
    """(T, N): the frames after a point's query, TAP-Vid's mode `first`."""
    return np.arange(num_frames)[:, None] > np.asarray(query_frame)[None]


def tapvid(
    truth_px: Floats, truth_visible: Bools, px: Floats, visible: Bools, where: Bools, size: tuple[int, int]
) -> dict[str, float]:
    """Occlusion accuracy, delta_avg and average Jaccard of tracks (T, N, 2) over the frames and points of `where`.

    A NaN prediction is within no threshold. size: width, height of the image.

    Source: Doersch et al., TAP-Vid: A Benchmark for Tracking Any Point in a Video, NeurIPS 2022.
    """
    error = np.linalg.norm((np.asarray(px, float) - truth_px) * SIDE_PX / np.asarray(size, float), axis=-1)
    within = [error < threshold for threshold in THRESHOLDS_PX]
    accuracy, delta, jaccard = _scores(within, truth_visible, visible, where)
    return {"oa": accuracy, "delta_avg": delta, "aj": jaccard}


def tapvid_3d(
    truth_cam_m: Floats,
    truth_visible: Bools,
    cam_m: Floats,
    visible: Bools,
    where: Bools,
    camera: Camera,
    scaling: str = "none",
) -> dict[str, float]:
    """OA, APD_3D and 3D-AJ of tracks (T, N, 3) in the camera frame, over the frames and points of `where`.

    A threshold of n px is n z / sqrt(fx fy) metres at the true depth z of a pinhole; for a lens with distortion, the
    width of n of its pixels there. scaling: `none` takes predictions as they are; `median` first scales them by the
    ratio of median distances over points that both see.

    Source: Koppula et al., TAPVid-3D: A Benchmark for Tracking Any Point in 3D, NeurIPS 2024.
    """  # fmt: skip
    cam = np.asarray(cam_m, float)
    if scaling == "median":
        cam = cam * _median_scale(truth_cam_m, cam, truth_visible & visible & where)
    error = np.linalg.norm(cam - truth_cam_m, axis=-1)
    matrix, depth_m = camera.camera_matrix, truth_cam_m[..., 2]
    metres_per_px = depth_m / np.sqrt(matrix[0, 0] * matrix[1, 1])
    if camera.distortion is not None:
        ahead = np.where(depth_m > 1e-6, depth_m, np.nan)[..., None]
        metres_per_px = metres_per_px * slope_per_pixel(truth_cam_m[..., :2] / ahead, camera)
    within = [error < threshold * metres_per_px for threshold in THRESHOLDS_PX]
    accuracy, apd, jaccard = _scores(within, truth_visible, visible, where)
    return {"oa": accuracy, "apd_3d": apd, "aj_3d": jaccard}


def swapped(
    ids: NDArray[np.integer],
    kind: NDArray[np.integer],
    px: Floats,
    visible: Bools,
    where: Bools,
    size: tuple[int, int],
) -> tuple[Bools, Bools]:
    """Tracks that end on another object than they began on (N,), and tracks that were followed at all (N,).

    A track is followed if it is visible in a frame of `where`. It is swapped if, in the last such frame, no pixel
    within `SWAP_PX` (of TAP-Vid's image, 256 wide) shows the object of its query; not if it is outside the image. ids:
    (T, h, w), the object at each pixel; kind: (N,) the object of each query.

    Source: ours; occlusion swaps are counted by hand elsewhere.
    """
    claimed = np.asarray(visible, bool) & where & np.isfinite(px).all(axis=-1)
    followed = claimed.any(axis=0) & (kind >= 0)
    out = np.zeros(len(kind), bool)
    reach = round(SWAP_PX * size[0] / SIDE_PX)
    for n in np.flatnonzero(followed):
        t = int(np.flatnonzero(claimed[:, n])[-1])
        x, y = np.rint(px[t, n]).astype(int)
        if 0 <= x < ids.shape[2] and 0 <= y < ids.shape[1]:
            around = ids[t, max(y - reach, 0) : y + reach + 1, max(x - reach, 0) : x + reach + 1]
            out[n] = not (around == kind[n]).any()
    return out, followed


def mean_scores(clips: list[dict[str, float]]) -> dict[str, float]:
    """Mean over clips of every number, as TAP-Vid's tables; clips where it is NaN are left out."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # nothing was measured: the result is NaN
        return {name: float(np.nanmean([clip[name] for clip in clips])) for name in (clips[0] if clips else ())}


def _scores(within: list[Bools], truth_visible: Bools, visible: Bools, where: Bools) -> tuple[float, float, float]:
    seen, claimed = truth_visible & where, visible & where
    num = int(seen.sum())
    accuracy = float((truth_visible == visible)[where].mean()) if where.any() else float("nan")
    if not num:
        return accuracy, float("nan"), float("nan")
    shares, jaccards = [], []
    for near in within:
        hits = int((near & seen & claimed).sum())
        wrong = int((claimed & ~(near & seen)).sum())
        shares.append(int((near & seen).sum()) / num)
        jaccards.append(hits / (num + wrong))
    return accuracy, float(np.mean(shares)), float(np.mean(jaccards))


def _median_scale(truth: Floats, predicted: Floats, both: Bools) -> float:
    known = both & np.isfinite(predicted).all(axis=-1)
    if not known.any():
        return 1.0
    return float(
        np.median(np.linalg.norm(truth[known], axis=-1)) / np.median(np.linalg.norm(predicted[known], axis=-1))
    )
