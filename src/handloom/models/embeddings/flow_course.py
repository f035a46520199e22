"""The course of what moves, as 18 steps of 10 numbers: in which directions, and how far, whatever the detector finds.

A part of the embedding `motion`: a clip in 18 parts of equal length, each described by the points that move in it
without the camera. Eight numbers of a step say in which directions, as roots of shares, so that slow movements count
beside fast ones; two say how far, x and y, in sqrt(width * height). An arm is seen where its hand is not, and what it
holds moves as the hand does. `courses_of` reads them back from embeddings, to align them in time.

Source: HOF, Laptev et al., Learning realistic human actions from movies, CVPR 2008, with finer cells in time alone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from handloom.models.embeddings.descriptors import NUM_DIRECTIONS, NUM_FLOW, average_resample

if TYPE_CHECKING:  # it opens OpenCV, which a search does without
    from handloom.models.embeddings.motion_signals import MotionSignals

Floats = NDArray[np.float64]

STEPS = 18
ROOT = 0.35
WAY = 3.0
"""Weight of the way. It is not divided by its length: to carry far is another movement than to carry a little."""
LEAST = 0.05  # of the directions' length: less is mostly noise
STILL_SHARE = 1e-14  # of every direction: a clip in which nothing moves has a course as well, a weak one
LENGTH = STEPS * NUM_FLOW
_X_TURNED = (NUM_DIRECTIONS // 2 - np.arange(NUM_DIRECTIONS)) % NUM_DIRECTIONS


def flow_course(motion: MotionSignals) -> Floats:
    """(18, 10): directions, their length over the clip about 1, and ways. Nearly zero where nothing moves, zeros
    where no point is seen twice."""
    if not motion.any_flow:
        return np.zeros((STEPS, NUM_FLOW))
    even = average_resample(motion.flow, STEPS)
    directions = (even[:, :NUM_DIRECTIONS] + STILL_SHARE) ** ROOT
    directions /= np.sqrt((directions**2).sum()) + LEAST
    way = even[:, NUM_DIRECTIONS:] * (motion.step_s * len(motion.flow) / STEPS)
    return np.concatenate([directions, WAY * way], axis=1)


def courses_of(vectors: NDArray[np.floating]) -> NDArray[np.float32]:
    """(n, 608) embeddings `motion` of version 3 to (n, 18, 10): courses in which a step's directions have about length
    1; shorter where they are a small part of the embedding."""
    courses = np.asarray(vectors, np.float64)[:, -LENGTH:].reshape(-1, STEPS, NUM_FLOW)
    length = np.sqrt((courses[..., :NUM_DIRECTIONS] ** 2).sum((1, 2), keepdims=True))
    return (courses * (np.sqrt(STEPS) / (length + LEAST))).astype(np.float32)


def increasing(frame_s: NDArray[np.float64]) -> NDArray[np.int64]:
    """The frames whose times are known and later than all before."""
    later = np.isfinite(frame_s)
    later[later] &= np.diff(np.maximum.accumulate(frame_s[later]), prepend=-np.inf) > 0
    return np.flatnonzero(later)


def step_ends(num: int, frame_s: NDArray[np.float64]) -> NDArray[np.float64]:
    """(num + 1,) seconds at which the steps of a clip with these frames begin and end."""
    frames = increasing(frame_s)
    return np.linspace(frame_s[frames[0]], frame_s[frames[-1]], num + 1)


def mirrored_steps(steps: NDArray[np.floating]) -> NDArray[np.floating]:
    """(..., 10) steps of the clip in a mirror."""
    turned = steps[..., [*_X_TURNED, *range(NUM_DIRECTIONS, NUM_FLOW)]].copy()
    turned[..., NUM_DIRECTIONS] *= -1
    return turned
