"""Embedding `motion`: what the hands and the surface points do, in 608 numbers, from a row's columns.

A function of the stored arrays, so that a search can compute it for the mirrored clip.

Steps: hands and tracks are interpolated to one time grid of about 7.5 Hz in real time (so the sampling rate hardly
matters) and measured in units of sqrt(width * height) (so the image size does not); the dominant camera motion of each
step is removed, hands left out of its estimate (Wang and Schmid, Improved trajectories, ICCV 2013, section 3.1); nine
blocks describe what is left, each normalised so that none dominates (see `descriptors.balance`).

| block | dims | what |
|---|---|---|
| `hand_path` | 96 | Fourier Temporal Pyramid (Wang et al., CVPR 2012) of each hand's palm x, y, log size, pinch |
| `hand_way` | 32 | the same signals' first four DCT coefficients, with sign: there and back, open and close differ |
| `hand_flow` | 54 | HOF of each hand's keypoints, over the clip and its two halves (Laptev et al., CVPR 2008) |
| `hand_shape` | 92 | 15 finger bends from 3D, mean and spread; 2D directions of palm and knuckles, each hand |
| `hand_place` | 35 | where each palm is (soft 4 x 3 grid), shares seen, sizes, speeds, one hand from the other |
| `rhythm` | 36 | autocorrelation of velocity at 12 lags, 0.13 to 1.6 s: left hand, right hand, tracks |
| `flow` | 135 | HOF with zero bin of the tracks: image and quarters x clip and halves (Laptev et al., CVPR 2008) |
| `flow_edges` | 80 | motion boundary histograms (Dalal et al., ECCV 2006) of the residual flow: image and quarters |
| `flow_time` | 48 | Fourier Temporal Pyramid of the strength of the residual flow in each quarter |

The block of something that is not seen (a hand, the tracks) is zero.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from handloom.errors import ShapeError
from handloom.models.embeddings.descriptors import (
    average_resample,
    balance,
    cosine_coefficients,
    direction_votes,
    fourier_pyramid,
    to_unit_float32,
)
from handloom.models.embeddings.motion_signals import FASTEST, NUM_LAGS, STILL, MotionSignals, measure
from handloom.schemas.hand_topology import CHAINS, INDEX, LITTLE, MIDDLE, PALM, THUMB, WRIST
from handloom.schemas.values import NUM_HANDS, NUM_KEYPOINTS, Hands, Tracks, VideoInfo

Floats = NDArray[np.float64]

DIRECTION_CAP = 3.0
"""Length of palm or knuckle row, in hand sizes, at which its vote for a direction is capped."""

WEIGHTS = {
    "hand_path": 0.7,
    "hand_way": 0.5,
    "hand_flow": 1.0,
    "hand_shape": 1.0,
    "hand_place": 1.0,
    "rhythm": 0.5,
    "flow": 1.2,
    "flow_edges": 1.0,
    "flow_time": 0.5,
}
FLOORS = {
    "hand_path": 0.1,
    "hand_way": 0.1,
    "hand_flow": 0.02,
    "hand_shape": 0.1,
    "hand_place": 0.1,
    "rhythm": 0.5,
    "flow": 0.02,
    "flow_edges": 0.01,
    "flow_time": 0.02,
}
"""Sum of absolute values at which a block counts for about 0.7 of its weight: little motion is mostly noise."""


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
    later = np.isfinite(frame_s)
    later[later] &= np.diff(np.maximum.accumulate(frame_s[later]), prepend=-np.inf) > 0
    if later.sum() < 2:
        return None
    motion = measure(hands, tracks, frame_s, np.flatnonzero(later), info)
    seen = np.isfinite(motion.hand_velocity[..., 0, 0]).any()
    if not seen and not motion.any_flow:
        return None
    vector = balance(_blocks(motion, hands, info), FLOORS, WEIGHTS)
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


def _blocks(motion: MotionSignals, hands: Hands, info: VideoInfo) -> dict[str, Floats]:
    """The named blocks, before they are balanced; dims as in the module's table."""
    halves = average_resample(motion.flow_hof.reshape(len(motion.flow_hof), -1), 2).reshape(2, 4, 9)
    flow = np.concatenate([halves.mean(0, keepdims=True), halves])
    flow = np.concatenate([flow.sum(1, keepdims=True), flow], axis=1)
    mbh = motion.flow_mbh.mean(0)
    mbh = np.concatenate([mbh.sum(1, keepdims=True), mbh], axis=1)
    velocity = np.nan_to_num(motion.hand_velocity)
    votes = direction_votes(motion.hand_velocity, still=STILL, cap=FASTEST).mean(2)
    hand_halves = average_resample(votes.reshape(len(votes), -1), 2)
    hand_flow = np.concatenate([hand_halves.mean(0, keepdims=True), hand_halves])
    signals = [_hand_signals(motion, h) for h in range(NUM_HANDS)]
    lags = [_autocorrelation(velocity[:, h, PALM].mean(1)) for h in range(NUM_HANDS)]
    return {
        "hand_path": np.concatenate([fourier_pyramid(s) for s in signals]),
        "hand_way": np.concatenate([cosine_coefficients(s) for s in signals]),
        "hand_flow": hand_flow.reshape(-1),
        "hand_shape": np.concatenate([_hand_shape(motion, hands, h) for h in range(NUM_HANDS)]),
        "hand_place": _hand_place(motion, info),
        "rhythm": np.concatenate([*lags, motion.flow_lags]),
        "flow": flow.reshape(-1),
        "flow_edges": mbh.reshape(-1),
        "flow_time": fourier_pyramid(motion.flow_strength),
    }


def _autocorrelation(velocity: Floats) -> Floats:
    """(12,) autocorrelation of a (S, 2) velocity at lags of 1 to 12 steps; zeros where unknown."""
    energy = np.sum(velocity**2) + 0.25 * STILL**2 * len(velocity)
    lags = [np.sum(velocity[:-lag] * velocity[lag:]) if lag < len(velocity) else 0.0 for lag in range(1, NUM_LAGS + 1)]
    return np.array(lags) / energy


def _hand_signals(motion: MotionSignals, hand: int) -> Floats:
    """(S+1, 4) of one hand: its palm's path (x, y) without the camera's motion, its log size and its pinch.

    While the hand is not seen its palm rests and the others are interpolated; zeros if it is never seen.
    """
    keypoints = motion.hand[:, hand]
    seen = np.isfinite(keypoints[:, 0, 0])
    if not seen.any():
        return np.zeros((len(keypoints), 4))
    steps = np.nan_to_num(motion.hand_velocity[:, hand][:, PALM].mean(1)) * motion.step_s
    path = np.concatenate([np.zeros((1, 2)), np.cumsum(steps, axis=0)])
    size = _size(keypoints)
    pinch = np.hypot(*(keypoints[:, THUMB[-1]] - keypoints[:, INDEX[-1]]).T) / size
    moments = np.arange(len(seen))
    filled = [np.interp(moments, moments[seen], column[seen]) for column in (np.log(size), pinch)]
    return np.concatenate([path, np.stack(filled, axis=1)], axis=1)


def _size(keypoints: Floats) -> Floats:
    """Root mean square distance of a hand's keypoints from its palm; (S, 21, 2) to (S,). NaN where not seen."""
    palm = keypoints[:, PALM].mean(1, keepdims=True)
    return np.maximum(np.sqrt(np.sum((keypoints - palm) ** 2, axis=-1).mean(-1)), 1e-3)


def _hand_shape(motion: MotionSignals, hands: Hands, hand: int) -> Floats:
    """(46,) of one hand: mean (from 0.5 rad) and spread of 15 finger bends; 2D directions of palm and knuckles."""
    points = hands.keypoints_cam_m[:, hand].astype(np.float64)
    seen = hands.visible[:, hand] & (np.abs(np.nan_to_num(points, nan=np.inf)) < 1e3).all((1, 2))
    bones = np.diff(points[seen][:, CHAINS], axis=2)  # (seen, 5, 4, 3)
    length = np.maximum(np.sqrt(np.sum(bones**2, axis=-1)), 1e-9)
    cosine = np.sum(bones[:, :, :-1] * bones[:, :, 1:], axis=-1) / (length[..., :-1] * length[..., 1:])
    bends = np.arccos(np.clip(cosine, -1, 1)).reshape(-1, 15)
    mean = bends.mean(0) - 0.5 if len(bends) else np.zeros(15)
    spread = bends.std(0) if len(bends) else np.zeros(15)
    keypoints = motion.hand[:, hand]
    size = _size(keypoints)[:, None]
    palm = (keypoints[:, MIDDLE[0]] - keypoints[:, WRIST]) / size
    knuckles = (keypoints[:, LITTLE[0]] - keypoints[:, INDEX[0]]) / size
    share = max(int(np.isfinite(size).sum()), 1)
    directions = [direction_votes(v, still=None, cap=DIRECTION_CAP).sum(0) / share for v in (palm, knuckles)]
    return np.concatenate([mean, spread, *directions])


def _hand_place(motion: MotionSignals, info: VideoInfo) -> Floats:
    """(35,): soft 4 x 3 occupancy of each palm, seen shares (left, right, both), log sizes, speeds, right from left."""
    unit = float(np.sqrt(info.width * info.height))
    palm = motion.hand[:, :, PALM].mean(2)  # (S+1, 2, 2)
    seen = np.isfinite(palm[..., 0])
    x = np.nan_to_num(palm[..., 0]) * unit / info.width
    y = np.nan_to_num(palm[..., 1]) * unit / info.height
    votes = _soft(x, 4)[..., :, None] * _soft(y, 3)[..., None, :] * seen[..., None, None]
    shares = np.array([*seen.mean(0), seen.all(1).mean()])
    size = np.array([_mean(np.log(_size(motion.hand[:, h]) / 0.1)) for h in range(NUM_HANDS)])
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
