"""Embedding `motion`: what the hands and the surface points do, in 608 numbers, from a row's columns.

A function of the stored arrays, so that a search can compute it for the mirrored clip.

Steps: hands and tracks are interpolated to one time grid of about 10 Hz in real time (so the sampling rate hardly
matters) and measured in units of sqrt(width * height) (so the image size does not); the dominant camera motion of each
step is removed, hands left out of its estimate (Wang and Schmid, Improved trajectories, ICCV 2013, section 3.1); six
blocks describe what is left, each normalised so that none dominates (see `descriptors.balance`).

| block | dims | what |
|---|---|---|
| `hand_course` | 220 | cosine coefficients of each hand's way, turns of the palm, bends and pinch (`hand_course`) |
| `hand_flow` | 54 | HOF of each hand's keypoints, over the clip and its two halves (Laptev et al., CVPR 2008) |
| `hand_place` | 35 | where each palm is (soft 4 x 3 grid), shares seen, sizes, speeds, one hand from the other |
| `rhythm` | 39 | autocorrelation of velocity at 13 lags, 0.1 to 1.3 s: left hand, right hand, tracks |
| `flow_edges` | 80 | motion boundary histograms (Dalal et al., ECCV 2006) of the residual flow: image and quarters |
| `flow_course` | 180 | in which directions and how far points move, in 18 parts of the clip (`flow_course`) |

The block of something that is not seen (a hand, the tracks) is zero. Most of the weight is on `flow_course`: the points
on an arm and on what it holds are followed where the detector loses the hand.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from handloom.errors import ShapeError
from handloom.models.embeddings.descriptors import (
    FASTEST,
    NUM_LAGS,
    average_resample,
    balance,
    direction_votes,
    hand_size,
    to_unit_float32,
)
from handloom.models.embeddings.flow_course import flow_course, increasing
from handloom.models.embeddings.hand_course import hand_course
from handloom.models.embeddings.motion_signals import (
    STILL,
    MotionSignals,
    measure,
)
from handloom.schemas.hand_topology import PALM
from handloom.schemas.values import NUM_HANDS, NUM_KEYPOINTS, Hands, Tracks, VideoInfo

Floats = NDArray[np.float64]

WEIGHTS = {
    "hand_course": 1.0,
    "hand_flow": 0.35,
    "hand_place": 0.2,
    "rhythm": 0.3,
    "flow_edges": 0.5,
    "flow_course": 4.0,
}
FLOORS = {
    "hand_course": 0.1,
    "hand_flow": 0.02,
    "hand_place": 0.1,
    "rhythm": 0.5,
    "flow_edges": 0.01,
    "flow_course": 0.01,
}
"""Sum of absolute values, of a course of squares, at which a block counts for about 0.7 of its weight: little motion is
mostly noise."""


def encode_motion(
    hands: Hands, tracks: Tracks, frame_s: NDArray[np.float64], info: VideoInfo, mirrored: bool = False
) -> NDArray[np.float32] | None:
    """The motion embedding of a clip: (608,) float32, unit norm, the same bytes for the same input.

    Args:
        hands, tracks: over T frames, in source pixels. Values not finite, or far outside the image, are not seen.
        frame_s: (T,) seconds, increasing; a frame that is not later than the one before is left out.
        info: gives the size of the source.
        mirrored: describe the left/right mirrored clip: equals `encode_motion` of `mirror_clip`.

    Returns:
        None if there is no motion to describe: fewer than two frames, or neither a hand nor a track that is seen in two
        consecutive frames. A clip in which nothing moves has an embedding (its zero bins).

    Raises:
        ShapeError: the arrays disagree in T or N.
    """
    _check(hands, tracks, frame_s)
    if mirrored:
        hands, tracks = mirror_clip(hands, tracks, info)
    frames = increasing(frame_s)
    if len(frames) < 2:
        return None
    motion = measure(hands, tracks, frame_s, frames, info)
    seen = np.isfinite(motion.hand_velocity[..., 0, 0]).any()
    if not seen and not motion.any_flow:
        return None
    course = hand_course(motion, hands, frame_s[frames], frames)
    blocks = {"hand_course": course} | _blocks(motion, info)
    vector = balance(blocks, FLOORS, WEIGHTS, plain=("hand_course", "flow_course"))
    return None if vector is None else to_unit_float32(vector)


def mirror_clip(hands: Hands, tracks: Tracks, info: VideoInfo) -> tuple[Hands, Tracks]:
    """The clip in a mirror: x reversed, left and right hand swapped."""
    turn_px = np.array([-1, 1], np.float32)
    shift_px = np.array([info.width - 1, 0], np.float32)
    mirrored_hands = Hands(
        visible=hands.visible[:, ::-1],
        infilled=hands.infilled[:, ::-1],
        confidence=hands.confidence[:, ::-1],
        keypoints_px=shift_px + turn_px * hands.keypoints_px[:, ::-1],
        keypoints_cam_m=np.array([-1, 1, 1], np.float32) * hands.keypoints_cam_m[:, ::-1],
    )
    return mirrored_hands, replace(tracks, points_px=shift_px + turn_px * tracks.points_px)


def _check(hands: Hands, tracks: Tracks, frame_s: NDArray[np.float64]) -> None:
    num_frames, num_tracks = len(frame_s), tracks.visible.shape[1]
    expected = {
        "hands.visible": (hands.visible, (num_frames, NUM_HANDS)),
        "hands.keypoints_px": (hands.keypoints_px, (num_frames, NUM_HANDS, NUM_KEYPOINTS, 2)),
        "hands.keypoints_cam_m": (hands.keypoints_cam_m, (num_frames, NUM_HANDS, NUM_KEYPOINTS, 3)),
        "tracks.points_px": (tracks.points_px, (num_frames, num_tracks, 2)),
        "tracks.visible": (tracks.visible, (num_frames, num_tracks)),
    }
    for name, (array, shape) in expected.items():
        if array.shape != shape:
            raise ShapeError(f"{name} has shape {array.shape}, expected {shape}")


def _blocks(motion: MotionSignals, info: VideoInfo) -> dict[str, Floats]:
    """The other blocks, before they are balanced; dims as in the module's table."""
    mbh = motion.flow_mbh.mean(0)
    mbh = np.concatenate([mbh.sum(1, keepdims=True), mbh], axis=1)
    velocity = np.nan_to_num(motion.hand_velocity)
    votes = direction_votes(motion.hand_velocity, still=STILL, cap=FASTEST).mean(2)
    hand_halves = average_resample(votes.reshape(len(votes), -1), 2)
    hand_flow = np.concatenate([hand_halves.mean(0, keepdims=True), hand_halves])
    lags = [_autocorrelation(velocity[:, h, PALM].mean(1)) for h in range(NUM_HANDS)]
    return {
        "hand_flow": hand_flow.reshape(-1),
        "hand_place": _hand_place(motion, info),
        "rhythm": np.concatenate([*lags, motion.flow_lags]),
        "flow_edges": mbh.reshape(-1),
        "flow_course": flow_course(motion).reshape(-1),
    }


def _autocorrelation(velocity: Floats) -> Floats:
    """(13,) autocorrelation of a (S, 2) velocity at lags of 1 to 13 steps; zeros where unknown."""
    energy = np.sum(velocity**2) + 0.25 * STILL**2 * len(velocity)
    lags = [np.sum(velocity[:-lag] * velocity[lag:]) if lag < len(velocity) else 0.0 for lag in range(1, NUM_LAGS + 1)]
    return np.array(lags) / energy


def _hand_place(motion: MotionSignals, info: VideoInfo) -> Floats:
    """(35,): soft 4 x 3 occupancy of each palm, seen shares (left, right, both), log sizes, speeds, right from left."""
    unit = float(np.sqrt(info.width * info.height))
    palm = motion.hand[:, :, PALM].mean(2)  # (S+1, 2, 2)
    seen = np.isfinite(palm[..., 0])
    x = np.nan_to_num(palm[..., 0]) * unit / info.width
    y = np.nan_to_num(palm[..., 1]) * unit / info.height
    votes = _soft(x, 4)[..., :, None] * _soft(y, 3)[..., None, :] * seen[..., None, None]
    shares = np.array([*seen.mean(0), seen.all(1).mean()])
    size = np.array([_mean(np.log(hand_size(motion.hand[:, h]) / 0.1)) for h in range(NUM_HANDS)])
    speed = np.hypot(*np.moveaxis(motion.hand_velocity[:, :, PALM].mean(2), -1, 0))
    apart = (palm[:, 1] - palm[:, 0])[seen.all(1)]
    relation = np.concatenate([apart.mean(0), apart.std(0)]) if len(apart) else np.zeros(4)
    speeds = [_mean(speed[:, h]) for h in range(NUM_HANDS)]
    return np.concatenate([votes.mean(0).reshape(-1), shares, size * shares[:2], speeds, relation])


def _soft(position: Floats, bins: int) -> Floats:
    """Linear shares of a position in [0, 1] between the centres of `bins` equal intervals; ends are constant."""
    place = np.clip(position * bins - 0.5, 0, bins - 1)
    return np.maximum(0, 1 - np.abs(place[..., None] - np.arange(bins)))


def _mean(values: Floats) -> float:
    """Mean of the finite values, 0 without one."""
    finite = values[np.isfinite(values)]
    return float(finite.mean()) if len(finite) else 0.0
