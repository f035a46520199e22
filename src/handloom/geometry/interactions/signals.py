"""Signals of a hand's motion: smooth places, speed, path, how far it is open, and its own frame of reference."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from handloom.schemas.hand_topology import INDEX, KNUCKLES, LITTLE, TIPS, WRIST
from handloom.schemas.values import LEFT

Floats = NDArray[np.float64]

SMOOTH_S = 0.07
"""Standard deviation of the kernel over time. At 15 Hz it is one frame; a reach lasts 0.6 s or more."""
DEPTH_SHARE = 0.3
"""Weight of motion along the line of sight: on rendered clips velocities are off by 0.06 m/s along it, by 0.02 across.
With it a hand at rest has 0.03 m/s in place of 0.05; speeds correlate with the true ones by 0.95 in place of 0.91."""
REST_M_S = 0.075
"""A hand that is slower rests, or turns."""
_WIDTH = 3.0  # standard deviations on either side


@dataclass(frozen=True)
class HandMotion:
    """A hand over T frames, smoothed; NaN where unknown.

    keypoints_m: (T, 21, 3). velocity: (T, 21, 3) m/s. speed: (T,) root mean square over the keypoints, m/s; pace: (T,)
    of their middle; both with little weight on motion along the line of sight.
    grip_m: (T, 3) between the tips of thumb, index and middle finger. pinch_m: (T,) mean distance of the thumb's tip
    from the other two. frame: (T, 4, 4) world_from_hand (`hand_frames`).
    """

    keypoints_m: Floats
    velocity: Floats
    speed: Floats
    pace: Floats
    grip_m: Floats
    pinch_m: Floats
    frame: Floats


def hand_motion(keypoints_m: Floats, frame_s: Floats, shot: NDArray[np.int64], poses: Floats, hand: int) -> HandMotion:
    """keypoints_m: (T, 21, 3) in the world, NaN unknown. shot: (T,) nothing is smoothed over a cut. poses: (T, 4, 4)
    world_from_camera."""
    flat = keypoints_m.reshape(len(frame_s), -1)
    value, slope = local_lines(flat, frame_s, shot)
    points, velocity = value.reshape(keypoints_m.shape), slope.reshape(keypoints_m.shape)
    sight = _unit(points - poses[:, None, :3, 3])
    seen = velocity - (1 - DEPTH_SHARE) * (velocity * sight).sum(-1, keepdims=True) * sight
    speed, pace = np.sqrt((seen**2).sum(-1).mean(-1)), np.linalg.norm(seen.mean(axis=1), axis=-1)
    tips = points[:, [TIPS[0], TIPS[1], TIPS[2]]]
    pinch = np.linalg.norm(tips[:, 1:] - tips[:, :1], axis=-1).mean(axis=1)
    return HandMotion(points, velocity, speed, pace, tips.mean(axis=1), pinch, hand_frames(points, hand))


def local_lines(values: Floats, frame_s: Floats, shot: NDArray[np.int64]) -> tuple[Floats, Floats]:
    """(T, D) values and slopes per second of lines fitted around each time with a Gaussian kernel.

    A row with NaN is left out, and stays NaN. Lines need two known rows of the same shot within the kernel, else the
    slope is NaN.
    """
    known = np.isfinite(values).all(axis=1)
    out, slope = np.full(values.shape, np.nan), np.full(values.shape, np.nan)
    times = frame_s[known]
    if not len(times):
        return out, slope
    filled, shots = values[known], shot[known]
    for t in np.flatnonzero(known):
        low, high = np.searchsorted(times, frame_s[t] + np.array([-1, 1]) * _WIDTH * SMOOTH_S)
        low, high = min(low, np.searchsorted(times, frame_s[t])), max(high, low + 1)
        some = slice(low, high)
        since = times[some] - frame_s[t]
        weight = np.exp(-0.5 * (since / SMOOTH_S) ** 2) * (shots[some] == shot[t])
        total, first, second = weight.sum(), (weight * since).sum(), (weight * since**2).sum()
        spread = total * second - first**2
        sums = weight @ filled[some], (weight * since) @ filled[some]
        if spread <= 1e-9 * SMOOTH_S**2:
            out[t] = values[t]
            continue
        out[t] = (second * sums[0] - first * sums[1]) / spread
        slope[t] = (total * sums[1] - first * sums[0]) / spread
    return out, slope


def way_m(speed: Floats, frame_s: Floats, start: int, end: int) -> float:
    """Length of the way in frames [start, end), metres, from a speed (T,); unknown frames are passed over."""
    if end - start < 2:
        return 0.0
    some = slice(start, end)
    return float(np.nansum(speed[some] * np.gradient(frame_s[some])))


def hand_frames(keypoints_m: Floats, hand: int) -> Floats:
    """(..., 4, 4) world_from_hand of keypoints (..., 21, 3), NaN where one of the palm is unknown.

    Origin at the wrist, y to the middle of the knuckles, z out of the back of the hand (of a left one, too); x
    completes it.
    """
    wrist = keypoints_m[..., WRIST, :]
    along = _unit(keypoints_m[..., KNUCKLES, :].mean(axis=-2) - wrist)
    index, little = keypoints_m[..., INDEX[0], :] - wrist, keypoints_m[..., LITTLE[0], :] - wrist
    back = np.cross(index, little) if hand == LEFT else np.cross(little, index)
    back = _unit(back - along * (back * along).sum(-1, keepdims=True))
    out = np.full((*keypoints_m.shape[:-2], 4, 4), np.nan)
    out[..., :3, :3] = np.stack([np.cross(along, back), along, back], axis=-1)
    out[..., :3, 3] = wrist
    out[..., 3, :] = np.where(np.isfinite(out[..., :1, 0]), [0.0, 0.0, 0.0, 1.0], np.nan)
    return out


def _unit(vectors: Floats) -> Floats:
    return vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1e-12)
