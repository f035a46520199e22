"""The baselines of `bench accuracy`: `mp.solutions.hands` frame by frame, and Lucas-Kanade at a constant depth."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import numpy as np

from handloom.bench.metrics.hands import PredictedHands
from handloom.bench.truth.cases import Loaded
from handloom.geometry.camera.intrinsics import undistort
from handloom.geometry.hands.pnp import lift_hands
from handloom.models.quiet import quiet_stderr
from handloom.models.tracks.lucas_kanade import LucasKanade
from handloom.schemas.settings import Settings
from handloom.schemas.values import LEFT, NUM_HANDS, NUM_KEYPOINTS, RIGHT, HandPoints, Tracks


def mediapipe_hands(case: Loaded) -> tuple[PredictedHands, float]:
    """MediaPipe's hands in tracking mode with its own left and right, placed by PnP; and the CPU seconds it took.

    It expects mirrored images, so its labels are swapped. World keypoints use the given poses.
    """
    import mediapipe

    found = []
    with quiet_stderr():
        hands = mediapipe.solutions.hands.Hands(static_image_mode=False, max_num_hands=2, model_complexity=1)
        hands.process(np.zeros_like(case.frames.rgb(0)))
        began = time.process_time()
        for t in range(len(case.frames)):
            found.append(hands.process(case.frames.rgb(t)))
        px, model_m, side = hands_as_arrays(found)
        px = px * [case.info.width, case.info.height] - 0.5
        cam_m = np.full(model_m.shape, np.nan)
        seen = np.isfinite(px).all(axis=(2, 3))
        cam_m[seen] = lift_hands(px[seen], model_m[seen], case.camera)
        spent = time.process_time() - began
        hands.close()
    pose = case.world_from_camera
    world_m = np.einsum("tij,tdkj->tdki", pose[:, :3, :3], cam_m) + pose[:, None, None, :3, 3]
    return PredictedHands(px, side, cam_m, world_m), spent


def hands_as_arrays(found: Sequence[Any]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """MediaPipe's results as (T, D, 21, 2) shares of the image, (T, D, 21, 3) metres and (T, D) handedness.

    D is at least two: in some frames MediaPipe returns more hands than `max_num_hands`, and all of them are scored.
    """
    marks = [frame.multi_hand_landmarks or [] for frame in found]
    shape = (len(found), max([NUM_HANDS, *map(len, marks)]))
    px, model_m = (np.full((*shape, NUM_KEYPOINTS, dims), np.nan) for dims in (2, 3))
    side = np.full(shape, LEFT)
    for t, frame in enumerate(found):
        worlds, labels = frame.multi_hand_world_landmarks or [], frame.multi_handedness or []
        for d, (mark, world, label) in enumerate(zip(marks[t], worlds, labels, strict=True)):
            px[t, d] = [(p.x, p.y) for p in mark.landmark]
            model_m[t, d] = [(p.x, p.y, p.z) for p in world.landmark]
            side[t, d] = RIGHT if label.classification[0].label == "Left" else LEFT
    return px, model_m, side


def lucas_kanade(case: Loaded) -> tuple[Tracks, float]:
    """The grid of the first frame, followed by Lucas-Kanade alone; and the CPU seconds it took."""
    tracker = LucasKanade(Settings().tracks)
    nothing = np.zeros((len(case.frames), NUM_HANDS), bool)
    px = np.full((*nothing.shape, NUM_KEYPOINTS, 2), np.nan, np.float32)
    model_m = np.full((*nothing.shape, NUM_KEYPOINTS, 3), np.nan, np.float32)
    hands = HandPoints(nothing, nothing, np.full(nothing.shape, np.nan, np.float32), px, model_m)
    began = time.process_time()
    tracks = tracker.track(case.clip, case.info, case.frames, hands)
    return tracks, time.process_time() - began


def at_depth(points_px: np.ndarray, depth_m: np.ndarray, case: Loaded) -> np.ndarray:
    """(T, N, 3) camera frame of pixels (T, N, 2) at depths (T, N) or (N,) along the optical axis; NaN where unknown."""
    matrix = case.camera.camera_matrix
    flat = undistort(points_px, case.camera)
    xy = (flat - matrix[:2, 2]) / [matrix[0, 0], matrix[1, 1]]
    depth = np.broadcast_to(np.asarray(depth_m, float), xy.shape[:-1])[..., None]
    return np.concatenate([xy * depth, depth], axis=-1)
