"""Hands in metric camera space: one kinematic hand of constant size fitted to the 2D keypoints of a whole clip.

On five EgoDex clips (640 x 360, 15 Hz, offline hands, true intrinsics): PA-MPJPE 9.8 mm, root-relative 29 mm, jitter
4.3 mm; frame-by-frame PnP of the same keypoints 19.6, 62 and 41. What is left of the error is in the 2D keypoints: with
the projected truth instead, the fit is off by 11 mm from the wrist.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from handloom.geometry.camera.intrinsics import slopes
from handloom.geometry.hands import model
from handloom.geometry.hands.initial_pose import (
    EGO_OFFSET_M,
    EGO_OFFSET_SPREAD_M,
    candidate_turns,
    knuckle_depth_offset_m,
    likeliest_path,
    palm_frame,
)
from handloom.geometry.hands.solve import Problem, State, depth_spread, keypoints_of, solve
from handloom.geometry.metric.posterior import Posterior
from handloom.geometry.rotations import turn_to
from handloom.schemas.hand_topology import MIDDLE_JOINTS, THUMB, TIPS, WRIST
from handloom.schemas.values import LEFT, NUM_KEYPOINTS, Camera, HandPoints, Hands, VideoInfo

Array = NDArray[np.float64]

# MISFIT, weights and steps were set by hand, for a lower error, on rendered hands and on two of the five EgoDex clips
# of docs/benchmarks.md; the other three were looked at meanwhile.
GAP_S = 0.5  # a hand unseen for longer starts anew
MIN_KEYPOINTS = 12  # known keypoints that a hand must have to be placed
MIN_SIZE = 2e-3  # mean distance of keypoints from their middle, as a ray: a hand 25 m away
MISFIT = 0.16  # error of a 2D keypoint over the hand's size in the image
TRUST = np.ones(NUM_KEYPOINTS)
TRUST[[WRIST, THUMB[0]]] = 1.5  # they determine where the palm is and how it is turned
TRUST[list(TIPS)] = 0.6  # tips are hidden most often
OUTSIDE_TRUST = 0.4  # of a keypoint that the model places outside the image
INFILLED_TRUST = 0.5
START_MISFIT = 0.10
START_TURN_RAD, TURN_RAD_S = 0.15, 2.0
# MediaPipe's own tilt, seen from outside, has the right sign and is too large.
MODEL_OFFSET_SHARE, MODEL_OFFSET_SPREAD_M = 0.75, 0.015
STEPS = 20
WINDOW, OVERLAP = 450, 30  # frames: longer clips are fitted in pieces, all with one shape
_LENGTH = np.array([0.0, 1.0, 0.0, 0.0])  # of `posterior.UNKNOWNS`


def fit_hands(
    points: HandPoints,
    camera: Camera,
    info: VideoInfo,
    frame_s: NDArray[np.float64],
    *,
    hand_length_m: float = model.HAND_LENGTH_M,
    keypoint_scale: float,
    posterior: Posterior | None = None,
) -> Hands:
    """Both hands of a clip in the camera frame (x right, y down, z forward), as one person's: one size, constant bones.

    One camera does not show the size of a hand: distances are those of an adult hand of `hand_length_m` whose keypoints
    are `keypoint_scale` times as far apart as its joints. Against the device truth of EgoDex, MediaPipe's keypoints are
    too close together (0.75; also where the image is turned to have the hand in its middle); not those of rendered
    hands (1.0).

    Args:
        points: 2D keypoints; `model_m` gives the fingers' bend and, in a view from outside, the palm's tilt.
        frame_s: (T,) seconds.
        posterior: of lens and sizes; the camera has its focal length already. None: the prior.

    Returns:
        Hands; `sigma_m` combines the spread of the fit in each frame with that of the posterior, which all frames
        share. A hand with fewer than 12 known keypoints, or not in front of the camera, is NaN and stays `visible`.
    """
    known = posterior or Posterior.prior(camera.focal_sigma)
    lifted = np.full(points.model_m.shape, np.nan)
    sigma = np.full(points.visible.shape, np.nan)
    seen = SeenHands.of(points, camera, info, np.asarray(frame_s, np.float64))
    if len(seen.hand):
        state, good = likely_start(seen.problem)
        kept = np.flatnonzero(good)
        if len(kept):
            keypoints, spread = _fit(seen.problem.part(kept), part_of(state, kept), seen.frame[kept])
            scale = known.factor(_LENGTH) * hand_length_m / model.HAND_LENGTH_M
            size = known.factor(Posterior.SIZE - _LENGTH) * keypoint_scale
            keypoints = scale * _full_size(keypoints, size)
            spread = np.hypot(scale * size * spread, known.sigma(Posterior.HAND) * _distance(keypoints))
            keypoints[..., 0] *= seen.flip[kept, None]
            ahead = keypoints[..., 2].min(axis=1) > model.MIN_DEPTH_M
            at = seen.frame[kept[ahead]], seen.hand[kept[ahead]]
            lifted[at], sigma[at] = keypoints[ahead], spread[ahead]
    shown = (points.visible, points.infilled, points.confidence, points.keypoints_px)
    return Hands(*shown, lifted.astype(np.float32), sigma.astype(np.float32), points.view)


def resized(hands: Hands, before: Posterior, after: Posterior) -> Hands:
    """Hands that were placed with the posterior `before`, placed with `after` and the same lens."""
    if after is before or hands.sigma_m is None:
        return hands
    was = hands.keypoints_cam_m.astype(np.float64)
    length, size = (after.factor(of) / before.factor(of) for of in (_LENGTH, Posterior.SIZE - _LENGTH))
    keypoints = length * _full_size(was, size)
    of_fit = np.square(hands.sigma_m.astype(np.float64)) - np.square(before.sigma(Posterior.HAND) * _distance(was))
    shared = after.sigma(Posterior.HAND) * _distance(keypoints)
    sigma = np.sqrt(np.square(length * size) * np.maximum(of_fit, 0.0) + np.square(shared))
    return replace(hands, keypoints_cam_m=keypoints.astype(np.float32), sigma_m=sigma.astype(np.float32))


def _distance(keypoints: Array) -> Array:
    return np.linalg.norm(keypoints.mean(axis=-2), axis=-1)


def _full_size(keypoints: Array, keypoint_scale: float) -> Array:
    """Hands (..., 21, 3) fitted to keypoints that are too far apart by `keypoint_scale`, moved to their distance.

    The keypoints are those of the hand itself, scaled about its middle joints, whose place in the image stays.
    """
    return keypoints + (keypoint_scale - 1) * keypoints[..., MIDDLE_JOINTS, :].mean(axis=-2, keepdims=True)


@dataclass(frozen=True)
class SeenHands:
    """The hands that can be fitted, mirrored to right hands: sorted by hand (left first), then by frame.

    hand, frame: (N,) where each is in the clip. flip: (N,) -1 for left hands, else 1.
    """

    problem: Problem
    hand: NDArray[np.int64]
    frame: NDArray[np.int64]
    flip: Array

    @staticmethod
    def of(points: HandPoints, camera: Camera, info: VideoInfo, frame_s: Array) -> SeenHands:
        rays = slopes(points.keypoints_px, camera)
        known = np.isfinite(rays).all(axis=3)
        size = _size(rays, known)
        hand, frame = np.nonzero((points.visible & (known.sum(axis=2) >= MIN_KEYPOINTS) & (size > MIN_SIZE)).T)
        flip = np.where(hand == LEFT, -1.0, 1.0)
        mirror = np.stack([flip, np.ones_like(flip), np.ones_like(flip)], axis=1)[:, None]
        at = frame, hand
        weight = _weights(points, known, size, info)[at]
        own = np.where(known[at][..., None], rays[at], 0.0) * mirror[..., :2]
        model_m = points.model_m[at].astype(np.float64) * mirror
        rest = _articulation(model_m)
        offset, offset_spread = _knuckle_offset(points.view, own, model_m)
        dt_s = np.diff(frame_s[frame], prepend=np.nan)
        dt_s[1:][np.diff(hand) != 0] = np.nan
        dt_s[~((dt_s > 0) & (dt_s <= GAP_S))] = np.nan
        shape = np.zeros(model.NUM_SHAPE)
        problem = Problem(own, weight, rest, dt_s, offset, offset_spread, shape, model.SHAPE_SPREAD)
        return SeenHands(problem, hand, frame, flip)


def _size(rays: Array, known: NDArray[np.bool_]) -> Array:
    """(T, 2) mean distance of the known keypoints from their middle."""
    number = np.maximum(known.sum(axis=2), 1)
    filled = np.where(known[..., None], rays, 0.0)
    around = filled - filled.sum(axis=2, keepdims=True) / number[..., None, None]
    return (np.linalg.norm(around, axis=3) * known).sum(axis=2) / number


def _weights(points: HandPoints, known: NDArray[np.bool_], size: Array, info: VideoInfo) -> Array:
    """(T, 2, 21) one over the standard deviation of a ray."""
    confidence = np.nan_to_num(points.confidence.astype(np.float64), nan=0.5).clip(0.1, 1.0)
    trust = np.sqrt(confidence) * np.where(points.infilled, INFILLED_TRUST, 1.0) / (MISFIT * np.maximum(size, MIN_SIZE))
    px = points.keypoints_px
    with np.errstate(invalid="ignore"):
        inside = ((px > -0.5) & (px < np.array([info.width, info.height]) - 0.5)).all(axis=3)
    return trust[..., None] * TRUST * np.where(inside, 1.0, OUTSIDE_TRUST) * known


def _articulation(model_m: Array) -> Array:
    """Joint angles (N, 20) of the model's own keypoints (N, 21, 3), their tilt removed; NaN unknown."""
    known = np.isfinite(model_m).all(axis=(1, 2))
    angles = np.full((len(model_m), model.NUM_ANGLES), np.nan)
    if known.any():
        in_hand = np.einsum("nij,nkj->nki", palm_frame(model_m[known]), model_m[known])
        angles[known] = model.angles_of(in_hand)
    return angles


def _knuckle_offset(view: str | None, rays: Array, model_m: Array) -> tuple[Array, Array]:
    """(N,) how much farther from the camera the knuckles are than the wrist, metres, and its spread: a fixed rule in
    first-person views, else from the model's own keypoints.
    """
    if view == "ego":
        return np.full(len(rays), EGO_OFFSET_M), np.full(len(rays), EGO_OFFSET_SPREAD_M)
    offset = MODEL_OFFSET_SHARE * knuckle_depth_offset_m(np.einsum("nij,nkj->nki", turn_to(rays.mean(axis=1)), model_m))
    known = np.isfinite(offset)
    return np.where(known, offset, 0.0), np.where(known, MODEL_OFFSET_SPREAD_M, np.inf)


def likely_start(problem: Problem) -> tuple[State, NDArray[np.bool_]]:
    """The likeliest pose of each hand, and (N,) whether one in front of the camera was found."""
    angles = np.where(np.isfinite(problem.rest), problem.rest, model.ANGLE_REST)
    posed = model.pose(angles, problem.shape, derivatives=False)
    found = candidate_turns(problem.rays, problem.weight, posed.seen_m)
    cost = (found.misfit / START_MISFIT) ** 2
    offset = knuckle_depth_offset_m(np.einsum("ncij,nkj->ncki", found.rotation, posed.points_m))
    off = (offset - problem.knuckle_offset_m[:, None]) / problem.knuckle_offset_spread_m[:, None]
    cost = cost + np.minimum(off**2, 25.0)
    spread = START_TURN_RAD + TURN_RAD_S * np.nan_to_num(problem.dt_s, nan=1.0)
    choice = likeliest_path(cost, found.rotation, found.translation, ~np.isfinite(problem.dt_s), spread)
    index = np.arange(len(choice))
    good = np.isfinite(found.misfit[index, choice])
    return State(found.translation[index, choice], found.rotation[index, choice], angles, problem.shape), good


def _fit(problem: Problem, start: State, frame: NDArray[np.int64]) -> tuple[Array, Array]:
    """Keypoints (N, 21, 3) of right hands, metres, and the spread (N,) of their depth by the fit alone."""
    last = int(frame.max()) + 1
    if last <= WINDOW:
        state = solve(problem, start, STEPS)
        return keypoints_of(state), depth_spread(problem, state)
    looks = np.arange(4) * (last - WINDOW // 4) // 3
    index = np.flatnonzero(((frame[:, None] >= looks) & (frame[:, None] < looks + WINDOW // 4)).any(axis=1))
    shape = solve(problem.part(index), part_of(start, index), STEPS).shape if len(index) else start.shape
    problem = replace(problem, shape=shape, shape_spread=np.full(model.NUM_SHAPE, 1e-7))
    start = replace(start, shape=shape)
    keypoints, spread = np.zeros((len(frame), NUM_KEYPOINTS, 3)), np.zeros(len(frame))
    for first in range(0, last, WINDOW):
        around = np.flatnonzero((frame >= first - OVERLAP) & (frame < first + WINDOW + OVERLAP))
        if not len(around):
            continue
        piece = problem.part(around)
        state = replace(solve(piece, part_of(start, around), STEPS), shape=shape)
        own = (frame[around] >= first) & (frame[around] < first + WINDOW)
        keypoints[around[own]] = keypoints_of(state)[own]
        spread[around[own]] = depth_spread(piece, state)[own]
    return keypoints, spread


def part_of(state: State, index: NDArray[np.int64]) -> State:
    """Some of the hands, with the shape of all."""
    return State(state.translation[index], state.rotation[index], state.angles[index], state.shape)
