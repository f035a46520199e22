"""Hands in metric camera space: one kinematic hand of constant size fitted to the 2D keypoints of a whole clip."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from handloom.geometry import hand_model as model
from handloom.geometry.camera import undistort
from handloom.geometry.hand_palm import EGO_DROP_M, EGO_DROP_SPREAD_M, candidate_turns, drop_m, likeliest_path, palm_frame, turn_to
from handloom.geometry.hand_solve import Problem, State, depth_spread, keypoints_of, solve
from handloom.schemas.values import LEFT, NUM_HANDS, NUM_KEYPOINTS, Camera, HandPoints, Hands, VideoInfo

Array = NDArray[np.float64]

GAP_S = 0.5  # a hand unseen for longer starts anew
MISFIT = 0.12  # error of a 2D keypoint as a share of the hand's size in the picture
POINT_TRUST = np.ones(NUM_KEYPOINTS)
POINT_TRUST[[0, 1, 2]] = 0.5  # where a wrist and the root of a thumb lie is a matter of definition
TURN_RAD_S = 2.0
MISFIT_SPREAD = 0.10
FOCAL_SPREAD = 0.12  # relative, of an assumed field of view
MODEL_TURN_SPREAD = 0.5
STEPS = 20


def fit_hands(points: HandPoints, camera: Camera, info: VideoInfo, frame_s: NDArray[np.float64]) -> Hands:
    """Whole-clip fit."""
    lifted = np.full(points.model_m.shape, np.nan, np.float32)
    sigma = np.full(points.visible.shape, np.nan, np.float32)
    seen = (points.visible, points.infilled, points.confidence, points.keypoints_px)
    matrix = camera.camera_matrix
    rays = (undistort(points.keypoints_px, camera) - matrix[:2, 2]) / [matrix[0, 0], matrix[1, 1]]
    usable = points.visible & (np.isfinite(rays).all(axis=3).sum(axis=2) == NUM_KEYPOINTS)
    hand, frame = np.nonzero(usable.T)
    if len(hand):
        keypoints, spread, good = _fit(rays, points, np.asarray(frame_s, np.float64), hand, frame)
        if camera.source == "assumed":
            spread = np.hypot(spread, FOCAL_SPREAD * keypoints[..., 2].mean(axis=1))
        lifted[frame[good], hand[good]] = keypoints[good]
        sigma[frame[good], hand[good]] = spread[good]
    return Hands(*seen, lifted, sigma, points.view)


def _fit(rays: Array, points: HandPoints, frame_s: Array, hand: Array, frame: Array) -> tuple[Array, Array, Array]:
    flip = np.where(hand == LEFT, -1.0, 1.0)
    own = rays[frame, hand] * np.stack([flip, np.ones_like(flip)], axis=1)[:, None]
    model_m = points.model_m[frame, hand].astype(np.float64)
    model_m[..., 0] *= flip[:, None]
    before = np.diff(frame_s[frame], prepend=np.nan)
    before[np.flatnonzero(np.diff(hand)) + 1] = np.nan
    before[~(before > 0) | (before > GAP_S)] = np.nan
    ego = points.view == "ego"
    confidence = np.nan_to_num(points.confidence[frame, hand].astype(np.float64), nan=0.5).clip(0.1, 1.0)
    size = np.linalg.norm(own - own.mean(axis=1, keepdims=True), axis=2).mean(axis=1)
    weight = (np.sqrt(confidence) / (MISFIT * np.maximum(size, 1e-4)))[:, None] * POINT_TRUST
    has_model = np.isfinite(model_m).all(axis=(1, 2))
    to_hand = np.tile(np.eye(3), (len(own), 1, 1))
    to_hand[has_model] = palm_frame(model_m[has_model])
    rest = np.full((len(own), model.NUM_ANGLES), np.nan)
    rest[has_model] = model.angles_of(np.einsum("nij,nkj->nki", to_hand, model_m)[has_model])
    problem = Problem(own, weight, rest, before, ego)
    start, good = _start(problem, to_hand, has_model)
    if not good.any():
        return np.full((len(own), NUM_KEYPOINTS, 3), np.nan), np.full(len(own), np.nan), good
    keep = np.flatnonzero(good)
    taken = np.where(np.diff(keep, prepend=keep[0]) == 1, before[keep], np.nan)
    taken[1:] = np.where(np.diff(keep) > 1, np.nan, taken[1:])
    problem = Problem(own[keep], weight[keep], rest[keep], taken, ego)
    start = replace(start, translation=start.translation[keep], rotation=start.rotation[keep], angles=start.angles[keep])
    state = solve(problem, start, STEPS)
    keypoints = np.full((len(own), NUM_KEYPOINTS, 3), np.nan)
    spread = np.full(len(own), np.nan)
    keypoints[keep] = keypoints_of(state)
    spread[keep] = depth_spread(problem, state)
    keypoints[..., 0] *= flip[:, None]
    return keypoints, spread, good


def _start(problem: Problem, to_hand: Array, has_model: NDArray[np.bool_]) -> tuple[State, NDArray[np.bool_]]:
    angles = np.where(np.isfinite(problem.rest), problem.rest, model.ANGLE_REST)
    posed = model.pose(angles, np.zeros(model.NUM_SHAPE), derivatives=False)
    points = posed.points_m
    found = candidate_turns(problem.rays, problem.weight, posed.seen_m)
    cost = (found.misfit / MISFIT_SPREAD) ** 2
    if problem.ego:
        drop = drop_m(np.einsum("ncij,nkj->ncki", found.rotation, points))
        cost = cost + np.minimum(((drop - EGO_DROP_M) / EGO_DROP_SPREAD_M) ** 2, 25.0)
    else:
        expected = turn_to(problem.rays.mean(axis=1)) @ to_hand.transpose(0, 2, 1)
        angle = np.arccos(np.clip((np.einsum("ncij,nij->nc", found.rotation, expected) - 1) / 2, -1, 1))
        cost = cost + np.where(has_model[:, None], (angle / MODEL_TURN_SPREAD) ** 2, 0.0)
    step = np.nan_to_num(problem.before, nan=1.0)
    starts = ~np.isfinite(problem.before)
    choice = likeliest_path(cost, found.rotation, found.translation, starts, 0.15 + TURN_RAD_S * step)
    index = np.arange(len(choice))
    good = np.isfinite(found.misfit[index, choice])
    return State(found.translation[index, choice], found.rotation[index, choice], angles, np.zeros(model.NUM_SHAPE)), good
