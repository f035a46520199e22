"""An unknown focal length from the hands: from their perspective, and from a person's reach.

A hand has some centimetres of depth: seen from near it has more perspective than from afar, so with a wrong focal
length it fits the image worse. And one's own hands are within reach. Each gives the focal length to about a third only,
but also where the camera rests.

LOOKS was set by hand on six EgoDex clips and 17 rendered ones: the best focal length of a clip is then off by one
standard deviation (rms). Reach: medians of six EgoDex clips are 0.33 to 0.46 m, of one Ego4D clip 0.77, of rendered
ones 0.5 to 0.6.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from handloom.geometry.hands.fit import SeenHands, likely_start, part_of
from handloom.geometry.hands.model import HAND_LENGTH_M
from handloom.geometry.hands.solve import Problem, keypoints_of, misfit, solve
from handloom.geometry.metric.posterior import Posterior, without_prior
from handloom.schemas.values import Camera, HandPoints, VideoInfo

Floats = NDArray[np.float64]

REACH_M, REACH_SIGMA = 0.47, 0.28  # median distance of a clip's hands from the eyes; its relative standard deviation
LOOKS, LOOKS_A_S = 4.0, 0.6
"""Independent observations of a hand: at most in a clip, and in a second of a hand. Errors of keypoints last over
frames: 13 frames of an Ego4D clip, one hand far away, would give 1.8 times the right focal length, with a sigma
of 17 %."""
PERSPECTIVE_SIGMA = 0.12  # least sigma of what perspective gives
SHARES = np.exp(np.linspace(-0.9, 0.6, 5))  # of the assumed focal length
NUM_HANDS, MIN_HANDS = 16, 6  # hand-frames that are fitted
STEPS = 5
DIGITS = 4
MIN_FOCAL_SIGMA = 0.15  # hands do not improve a focal length that is known better than this


def focal_from_hands(
    known: Posterior,
    points: HandPoints,
    camera: Camera,
    info: VideoInfo,
    frame_s: Floats,
    *,
    hand_length_m: float = HAND_LENGTH_M,
    keypoint_scale: float,
) -> tuple[Posterior, Camera]:
    """The posterior with the evidence of first-person hands for an assumed focal length, and the camera that has it.

    Both are returned unchanged where the lens is known, in views from outside, and with fewer than `MIN_HANDS` hands.

    Args:
        known: before this evidence.
        points: 2D keypoints. frame_s: (T,) seconds.
        hand_length_m, keypoint_scale: as for `fit_hands`.
    """
    before = known.sigma(Posterior.FOCAL)
    if camera.source != "assumed" or points.view != "ego" or before < MIN_FOCAL_SIGMA:
        return known, camera
    fitted = []
    for share in SHARES:
        fit = _fitted(points, _longer(camera, share), info, frame_s)
        if fit is None:
            return known, camera
        fitted.append(fit)
    cost = np.array([one[0] for one in fitted])
    distance = np.interp(0.0, np.log(SHARES), [one[1] for one in fitted])
    distance = distance * keypoint_scale * hand_length_m / HAND_LENGTH_M
    found = _perspective(cost, before, min(LOOKS, LOOKS_A_S * _hand_seconds(points, frame_s)))
    if found is not None:
        known = known.updated(Posterior.FOCAL, found[0], float(np.hypot(found[1], PERSPECTIVE_SIGMA)))
    known = known.updated(Posterior.HAND, float(np.log(REACH_M / distance)), REACH_SIGMA)
    # Rounded: the last digits depend on the processor, and must not decide which views the camera's path begins with.
    changed = _longer(camera, round(known.factor(Posterior.FOCAL), DIGITS))
    return known, replace(changed, focal_sigma=round(known.sigma(Posterior.FOCAL), DIGITS))


def _longer(camera: Camera, share: float) -> Camera:
    """The camera with its focal length `share` times as long."""
    matrix = camera.camera_matrix.copy()
    matrix[[0, 1], [0, 1]] *= share
    return replace(camera, camera_matrix=matrix)


def _fitted(points: HandPoints, camera: Camera, info: VideoInfo, frame_s: Floats) -> tuple[float, float] | None:
    """Cost of some of the hands, each frame fitted by itself: minus twice the log likelihood of one; and their median
    distance at a keypoint scale of 1, metres. None where there are too few."""
    problem = SeenHands.of(points, camera, info, frame_s).problem
    num = len(problem.rays)
    if num < MIN_HANDS:
        return None
    index = np.unique(np.linspace(0, num - 1, NUM_HANDS).astype(np.int64))
    some = _unchained(problem.part(index))
    state, good = likely_start(some)
    kept = np.flatnonzero(good)
    if len(kept) < MIN_HANDS:
        return None
    some = some.part(kept)
    state = solve(some, part_of(state, kept), STEPS)
    distance = np.linalg.norm(keypoints_of(state).mean(axis=1), axis=1)
    return misfit(some, state) / len(kept), float(np.median(distance))


def _unchained(problem: Problem) -> Problem:
    return replace(problem, dt_s=np.full(len(problem.dt_s), np.nan))


def _hand_seconds(points: HandPoints, frame_s: Floats) -> float:
    """Seconds in which hands are visible, the two hands added up."""
    return float(points.visible.sum() * np.median(np.diff(frame_s))) if len(frame_s) > 1 else 0.0


def _perspective(cost: Floats, before: float, looks: float) -> tuple[float, float] | None:
    """Mean and spread of log(focal length / assumed) by the likelihood alone.

    Taken from the product with the prior (sigma `before`), which is nearly normal where the likelihood is not: that may
    fall off on one side only."""
    logs = np.linspace(np.log(SHARES[0]), np.log(SHARES[-1]), 200)
    log_likely = -0.5 * (looks * np.interp(logs, np.log(SHARES), cost) + (logs / before) ** 2)
    likely = np.exp(log_likely - log_likely.max())
    likely /= likely.sum()
    mean = float((likely * logs).sum())
    return without_prior(mean, float(np.sqrt((likely * (logs - mean) ** 2).sum())), 0.0, before)
