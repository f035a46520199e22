"""Hands in the frames that a track skipped: interpolated in time, then corrected by optical flow or the network."""

from __future__ import annotations

import itertools
from dataclasses import replace

import cv2
import numpy as np
from numpy.typing import NDArray

from handloom.geometry.hands.tracklets import hand_size
from handloom.models.hands.detector import HandDetection, HandDetector, HandTrack

# Chosen by hand on two EgoDex clips and rendered scenes, not fitted.
WINDOW_PX, LEVELS = 15, 2
MARGIN_PX = 24
# The flows from both sides agree on a point if they end no farther apart than a share of the hand's size, plus pixels.
AGREE_SIZE, AGREE_PX = 0.02, 0.5
MIN_POINTS = 10
MAX_SPREAD = 0.025  # median distance of these points from their common motion, in hand sizes
CURVED = 0.015  # motion is even if it departs from a straight line by less than this share of the hand's size

HandInFrame = tuple[NDArray[np.uint8], NDArray[np.float64]]  # a frame (h, w, 3), and the hand's points in it (21, 2)


def carry_by_flow(
    before: HandInFrame, after: HandInFrame, middle: NDArray[np.uint8], guess: NDArray[np.float64]
) -> NDArray | None:
    """(21, 2) points of the hand in the middle frame, near `guess`; None where the flows from both sides disagree.

    The guess is moved, turned and scaled as a whole (a similarity) to the points on which the two flows agree; the pose
    of the fingers stays that of the guess.
    """
    size = float(hand_size(guess))
    low, high = _window(np.concatenate([before[1], after[1], guess]), middle.shape)
    if (high - low).min() < 2 * WINDOW_PX:
        return None
    now = _grey(middle, low, high)
    start = (guess - low).astype(np.float32)
    ends = []
    for image, points in (before, after):
        found, status, _ = cv2.calcOpticalFlowPyrLK(
            _grey(image, low, high),
            now,
            (points - low).astype(np.float32),
            start.copy(),
            winSize=(WINDOW_PX, WINDOW_PX),
            maxLevel=LEVELS,
            flags=cv2.OPTFLOW_USE_INITIAL_FLOW,
        )
        ends.append(np.where(status == 1, found, np.nan).astype(np.float64))
    apart = np.linalg.norm(ends[0] - ends[1], axis=1)
    agreed = apart < AGREE_SIZE * size + AGREE_PX
    if agreed.sum() < MIN_POINTS:
        return None
    target = ((ends[0] + ends[1]) / 2 + low)[agreed]
    moved = _similarity(guess[agreed], target, guess)
    spread = np.median(np.linalg.norm(moved[agreed] - target, axis=1))
    return moved if spread < MAX_SPREAD * size else None


def _window(points: NDArray[np.float64], shape: tuple[int, ...]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    limit = np.array([shape[1], shape[0]])
    low = np.clip(np.floor(points.min(axis=0)).astype(int) - MARGIN_PX, 0, limit)
    return low, np.clip(np.ceil(points.max(axis=0)).astype(int) + MARGIN_PX, 0, limit)


def _grey(image: NDArray[np.uint8], low: NDArray[np.int64], high: NDArray[np.int64]) -> NDArray[np.uint8]:
    return cv2.cvtColor(image[low[1] : high[1], low[0] : high[0]], cv2.COLOR_RGB2GRAY)


def _similarity(
    source: NDArray[np.float64], target: NDArray[np.float64], points: NDArray[np.float64]
) -> NDArray[np.float64]:
    """`points` moved by the similarity that best takes source to target, (n, 2) each; outliers lose weight."""
    weight = np.ones(len(source))
    moved = points
    for _ in range(3):
        total = weight.sum()
        a, b = weight @ source / total, weight @ target / total
        x, y = (source - a) @ [1, 1j], (target - b) @ [1, 1j]
        turn = (weight * y * x.conj()).sum() / max((weight * np.abs(x) ** 2).sum(), 1e-9)
        image = (points - a) @ [1, 1j] * turn
        moved = np.stack([image.real, image.imag], axis=1) + b
        residual = np.abs(y - turn * x)
        weight = 1 / (1 + (residual / max(float(np.median(residual)), 0.1)) ** 2)
    return moved


def fill_skipped(detector: HandDetector, tracks: list[HandTrack], min_presence: float) -> None:
    """Give every frame between a track's first and last a detection, in place.

    The middle frame of each step comes first. It is interpolated in time and corrected by optical flow from both sides.
    Where the flow fails and the motion is not even, the network measures it, if it finds a hand there.
    """
    while True:
        skipped = [(track, frame) for track in tracks for frame in _middle_frames(track)]
        if not skipped:
            return
        guesses = [interpolate(track, frame, detector.frame_s) for track, frame in skipped]
        filled = [_carried_by_flow(detector, *place, guess) for place, guess in zip(skipped, guesses, strict=True)]
        left = [at for at, detection in enumerate(filled) if detection is None]
        measured = detector.hands([(skipped[at][1], guesses[at].points) for at in left])
        for at, found in zip(left, measured, strict=True):
            filled[at] = found if found.presence >= min_presence else guesses[at]
        every = [detection for detection in filled if detection is not None]
        for (track, frame), detection in zip(skipped, every, strict=True):
            track.detections[frame] = detection


def interpolate(track: HandTrack, frame: int, frame_s: NDArray[np.float64]) -> HandDetection:
    """The hand in a skipped frame, from the detections around it; its presence is the lesser of the two nearest."""
    known = sorted(track.detections)
    at = int(np.searchsorted(known, frame)) - 1
    first, last = track.detections[known[at]], track.detections[known[at + 1]]
    share = float((frame_s[frame] - frame_s[known[at]]) / (frame_s[known[at + 1]] - frame_s[known[at]]))
    bend = _cubic_offset(track, known, at, frame, frame_s)
    longest = 2 * CURVED * hand_size(first.points)  # a large one comes from errors of the detections
    bend = bend * np.minimum(1, longest / np.maximum(np.linalg.norm(bend, axis=1, keepdims=True), 1e-9))
    return HandDetection(
        (1 - share) * first.points + share * last.points + bend,
        (1 - share) * first.metric_m + share * last.metric_m,
        min(first.presence, last.presence),
        (1 - share) * first.right + share * last.right,
    )


def _middle_frames(track: HandTrack) -> list[int]:
    """The middle frame of each step that skips frames."""
    known = sorted(track.detections)
    return [(first + last) // 2 for first, last in itertools.pairwise(known) if last - first > 1]


def _carried_by_flow(
    detector: HandDetector, track: HandTrack, frame: int, guess: HandDetection
) -> HandDetection | None:
    """The guess corrected by flow; as it is where flow fails and the motion is even, else None."""
    known = sorted(track.detections)
    at = int(np.searchsorted(known, frame)) - 1
    before, after = ((detector.frames.rgb(each), track.detections[each].points) for each in known[at : at + 2])
    points = carry_by_flow(before, after, detector.frames.rgb(frame), guess.points)
    if points is not None:
        return replace(guess, points=points)
    bend = np.abs(_cubic_offset(track, known, at, frame, detector.frame_s)).mean()
    return guess if bend < CURVED * hand_size(track.detections[known[at]].points) else None


def _cubic_offset(
    track: HandTrack, known: list[int], at: int, frame: int, frame_s: NDArray[np.float64]
) -> NDArray[np.float64]:
    """(21, 2): in a frame between two detections, how far a cubic through four departs from the straight line."""
    around = known[max(at - 1, 0) : at + 3]
    first, last = known[at], known[at + 1]
    share = (frame_s[frame] - frame_s[first]) / (frame_s[last] - frame_s[first])
    straight = (1 - share) * track.detections[first].points + share * track.detections[last].points
    weights = _lagrange(frame_s[around], frame_s[frame])
    return np.einsum("i,ikj->kj", weights, np.stack([track.detections[each].points for each in around])) - straight


def _lagrange(known: NDArray[np.float64], at: float) -> NDArray[np.float64]:
    """Weights of the values at the known times in the polynomial through them, at time `at`."""
    weights = np.ones(len(known))
    for i in range(len(known)):
        for j in range(len(known)):
            if i != j:
                weights[i] *= (at - known[j]) / (known[i] - known[j])
    return weights
