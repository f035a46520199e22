"""The error of hands' distance from the camera, and whether it fits the predicted standard deviation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from handloom.bench.metrics.hands import PredictedHands, TrueHands, match, of_truth

Floats = NDArray[np.floating]


@dataclass(frozen=True)
class Distances:
    """One value per visible hand-frame that was found and placed. relative: error over the true distance, positive is
    too far; sigmas: error over its predicted standard deviation, NaN without one."""

    relative: Floats
    sigmas: Floats


def distances(truth: TrueHands, predicted: PredictedHands, sigma_m: Floats | None) -> Distances:
    """Distances of hands (mean of their keypoints) from the camera. sigma_m: (T, D), of the predictions, or None."""
    found, _ = match(truth, predicted)
    at = np.nonzero(truth.visible & (found >= 0))
    ours, true = (
        np.linalg.norm(cam[at].mean(axis=1), axis=-1)
        for cam in (of_truth(predicted.keypoints_cam_m, found), truth.keypoints_cam_m)
    )
    off = ours - true
    sigma = np.full(len(off), np.nan) if sigma_m is None else sigma_m[at[0], found[at]].astype(float)
    placed = np.isfinite(off)
    return Distances((off / true)[placed], (off / sigma)[placed])


def distance_scores(clips: Sequence[Distances]) -> dict[str, float]:
    """All hand-frames together: medians of the absolute relative error and of the relative error, and the shares within
    one and two predicted standard deviations."""
    relative, sigmas = (np.concatenate([getattr(clip, name) for clip in clips]) for name in ("relative", "sigmas"))
    claimed = sigmas[np.isfinite(sigmas)]
    shares = {f"distance_within_{k}_sigma": _mean(np.abs(claimed) <= k) for k in (1, 2)}
    return {
        "distance_error": _median(np.abs(relative)),
        "distance_bias": _median(relative),
        "distance_bias_sigmas": _median(claimed),
        **shares,
    }


def _median(values: Floats) -> float:
    return float(np.median(values)) if len(values) else float("nan")


def _mean(values: NDArray[np.bool_]) -> float:
    return float(values.mean()) if len(values) else float("nan")
