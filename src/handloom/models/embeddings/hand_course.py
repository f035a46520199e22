"""The course of each hand through a clip, as 220 numbers: where it goes, how it is turned, how far it is open.

A part of the embedding `motion`. Three signals of a hand are its way in units of its own size (across the image,
without the camera's motion, and in depth), six are directions of the palm, six say how far fingers and pinch are open.
The first coefficients of their cosine transforms keep order and direction: there is not back, open is not close. How
long the clip is does not matter. Each hand counts by its share of the movement: a hand at rest says little.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from handloom.models.embeddings.descriptors import FASTEST, cosine_coefficients, hand_size
from handloom.schemas.hand_topology import INDEX, LITTLE, MIDDLE, PALM, THUMB, TIPS, WRIST
from handloom.schemas.values import LEFT, NUM_HANDS, Hands

if TYPE_CHECKING:  # it opens OpenCV, which a search does without
    from handloom.models.embeddings.motion_signals import MotionSignals

Floats = NDArray[np.float64]

WAY, TURN, BEND, PINCH = 3, 6, 5, 1
"""Signals of each kind."""
NUM_WAY, NUM_TURN, NUM_BEND, NUM_PINCH = 10, 7, 6, 8
"""Coefficients of each: of the way from the first on, of the others from their mean on."""
ACROSS = 2 * NUM_WAY  # the first coefficients: the way across the image
TURN_AT = WAY * NUM_WAY
OF_A_HAND = WAY * NUM_WAY + TURN * NUM_TURN + BEND * NUM_BEND + PINCH * NUM_PINCH
WAY_WEIGHT, TURN_WEIGHT, BEND_WEIGHT = 2.0, 1.0, 0.7
OPEN, PINCHED = 1.6, 0.6
"""A relaxed hand's distance of a fingertip from the wrist, and of thumb from index finger, in palm lengths."""
PALM_OF_SIZE = 1.6
"""Palm lengths in the root mean square distance of a hand's keypoints from its palm."""
FARTHEST_M = 1e3
FAR = 30.0
"""Palm lengths: a hand further away is a detection that failed."""
LEAST = 0.15
"""Palm lengths, root mean square of a hand's way: of hands that move less, the course is mostly noise."""


def hand_course(motion: MotionSignals, hands: Hands, times: Floats, frames: NDArray[np.int64]) -> Floats:
    """(2 * OF_A_HAND,): left and right hand; zeros for one that is not seen in two steps.

    Args:
        hands: over T frames. times: (F,) seconds of `frames`, which `motion` was measured in.
    """
    found = np.zeros((NUM_HANDS, OF_A_HAND))
    for hand in range(NUM_HANDS):
        way = _way(motion, hand)
        pose = _pose(hands, hand, times, frames, len(motion.hand))
        if way is not None and pose is not None:
            found[hand] = _coefficients(way, pose)
    moved = np.sqrt((found[:, :ACROSS] ** 2).sum(1)) / WAY_WEIGHT
    shares = moved / (moved.sum() + LEAST)
    return (shares[:, None] * found).reshape(-1)


def _way(motion: MotionSignals, hand: int) -> Floats | None:
    """(S+1, 2) palm lengths across the image, without the camera's motion; at rest while the hand is not seen."""
    size = hand_size(motion.hand[:, hand])
    if not np.isfinite(size).any():
        return None
    velocity = np.nan_to_num(motion.hand_velocity[:, hand][:, PALM].mean(1))
    velocity *= np.minimum(1, FASTEST / np.maximum(np.hypot(*velocity.T), FASTEST))[:, None]
    steps = velocity * (motion.step_s / (PALM_OF_SIZE * float(np.nanmedian(size))))
    return np.concatenate([np.zeros((1, 2)), np.cumsum(steps, axis=0)])


def _pose(hands: Hands, hand: int, times: Floats, frames: NDArray[np.int64], num: int) -> Floats | None:
    """(num, 13) on an even grid of times: depth of the palm, pointing direction, normal of the palm, five fingertips
    from the wrist, pinch. The last known value holds where the hand is not seen."""
    points = hands.keypoints_cam_m[frames, hand].astype(np.float64)
    seen = hands.visible[frames, hand] & (np.abs(np.nan_to_num(points, nan=np.inf)) < FARTHEST_M).all((1, 2))
    points, seen_s = points[seen], times[seen]
    along = points[:, MIDDLE[0]] - points[:, WRIST]
    length = np.sqrt((along**2).sum(1))
    if len(points) < 2 or not np.median(length) > 0:
        return None
    unit = float(np.median(length))
    normal = np.cross(points[:, INDEX[0]] - points[:, WRIST], points[:, LITTLE[0]] - points[:, WRIST])
    away = points[:, TIPS] - points[:, [WRIST]]
    pinch = points[:, THUMB[-1]] - points[:, INDEX[-1]]
    signals = np.concatenate(
        [
            points[:, PALM].mean(1)[:, 2:] / unit,
            _unit(along),
            _unit(-normal if hand == LEFT else normal),
            np.sqrt((away**2).sum(-1)) / unit - OPEN,
            np.sqrt((pinch**2).sum(-1, keepdims=True)) / unit - PINCHED,
        ],
        axis=1,
    )
    grid = np.linspace(times[0], times[-1], num)
    return np.stack([np.interp(grid, seen_s, np.clip(column, -FAR, FAR)) for column in signals.T], axis=1)


def _unit(vectors: Floats) -> Floats:
    return vectors / np.maximum(np.sqrt((vectors**2).sum(1, keepdims=True)), 1e-9)


def _coefficients(way: Floats, pose: Floats) -> Floats:
    """(OF_A_HAND,): the coefficients of each signal together."""
    depth = pose[:, :1] - pose[:, :1].mean()
    parts = [
        (WAY_WEIGHT, np.concatenate([way, depth], axis=1), 1, NUM_WAY),
        (TURN_WEIGHT, pose[:, 1 : 1 + TURN], 0, NUM_TURN),
        (BEND_WEIGHT, pose[:, 1 + TURN : 1 + TURN + BEND], 0, NUM_BEND),
        (BEND_WEIGHT, pose[:, 1 + TURN + BEND :], 0, NUM_PINCH),
    ]
    found = []
    for weight, signals, first, num in parts:
        found.append(weight * cosine_coefficients(signals, first, num))
    return np.concatenate(found)
