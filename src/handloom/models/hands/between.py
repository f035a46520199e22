"""The frames of a track between those that were measured: guessed from the motion around, carried there by flow."""

from __future__ import annotations

import itertools
from dataclasses import replace

import cv2
import numpy as np
from numpy.typing import NDArray

from handloom.geometry.hands.tracklets import hand_size
from handloom.models.hands.reader import HandDetection, HandReader, Track

# Chosen by hand on two EgoDex clips and rendered scenes, not fitted.
WINDOW_PX, LEVELS = 15, 2
MARGIN_PX = 24
AGREE_SIZE, AGREE_PX = 0.02, 0.5  # farthest that a point may land apart from the two sides: shares of the hand, pixels
MIN_POINTS = 10
MAX_SPREAD = 0.025  # median distance of the agreed points from the common motion, in hand sizes

Sight = tuple[NDArray[np.uint8], NDArray[np.float64]]  # a frame (h, w, 3), and the hand's points in it (21, 2)


def carry(before: Sight, after: Sight, middle: NDArray[np.uint8], guess: NDArray[np.float64]) -> NDArray | None:
    """(21, 2) points of the hand in the middle frame, near `guess`; None where the two sides disagree.

    The guess is moved, turned and scaled as a whole (a similarity), as most of the points that both sides carry to the
    same place moved; single fingers keep the guess.
    """
    size = float(hand_size(guess))
    low, high = _window(np.concatenate([before[1], after[1], guess]), middle.shape)
    if (high - low).min() < 2 * WINDOW_PX:
        return None
    now = _grey(middle, low, high)
    start = (guess - low).astype(np.float32)
    ends = []
    for picture, points in (before, after):
        found, status, _ = cv2.calcOpticalFlowPyrLK(
            _grey(picture, low, high),
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


def _grey(picture: NDArray[np.uint8], low: NDArray[np.int64], high: NDArray[np.int64]) -> NDArray[np.uint8]:
    return cv2.cvtColor(picture[low[1] : high[1], low[0] : high[0]], cv2.COLOR_RGB2GRAY)


def _similarity(
    source: NDArray[np.float64], target: NDArray[np.float64], points: NDArray[np.float64]
) -> NDArray[np.float64]:
    """`points` moved by the similarity that takes source to target, (n, 2) each; outliers lose weight."""
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


# Chosen by hand on two EgoDex clips and rendered scenes, not fitted.
CURVED = 0.015  # motion is even if its bend in a step is less than this share of the hand's size


def fill_steps(reader: HandReader, tracks: list[Track], min_presence: float) -> None:
    """Give every frame between a track's first and last a sighting, in place.

    The middle frame of each step first: flow from both sides; where that fails the guess, if the motion is even, or
    else the network, unless it sees no hand there.
    """
    while True:
        asked = [(track, frame) for track in tracks for frame in _middles(track)]
        if not asked:
            return
        guesses = [between(track, frame, reader.seconds) for track, frame in asked]
        filled = [_carried(reader, *question, guess) for question, guess in zip(asked, guesses, strict=True)]
        left = [at for at, sighting in enumerate(filled) if sighting is None]
        measured = reader.hands([(asked[at][1], guesses[at].points) for at in left])
        for at, found in zip(left, measured, strict=True):
            filled[at] = found if found.presence >= min_presence else guesses[at]
        for (track, frame), sighting in zip(asked, filled, strict=True):
            track.seen[frame] = sighting


def between(track: Track, frame: int, seconds: NDArray[np.float64]) -> HandDetection:
    """The hand in a frame that was passed over, from the sightings around; the lesser presence of the two."""
    known = sorted(track.seen)
    at = int(np.searchsorted(known, frame)) - 1
    first, last = track.seen[known[at]], track.seen[known[at + 1]]
    share = float((seconds[frame] - seconds[known[at]]) / (seconds[known[at + 1]] - seconds[known[at]]))
    bend = _bend(track, known, at, frame, seconds)
    longest = 2 * CURVED * hand_size(first.points)  # a wild cubic is no guess
    bend = bend * np.minimum(1, longest / np.maximum(np.linalg.norm(bend, axis=1, keepdims=True), 1e-9))
    return HandDetection(
        (1 - share) * first.points + share * last.points + bend,
        (1 - share) * first.metric_m + share * last.metric_m,
        min(first.presence, last.presence),
        (1 - share) * first.right + share * last.right,
    )


def _middles(track: Track) -> list[int]:
    """The middle frame of each step."""
    known = sorted(track.seen)
    return [(first + last) // 2 for first, last in itertools.pairwise(known) if last - first > 1]


def _carried(reader: HandReader, track: Track, frame: int, guess: HandDetection) -> HandDetection | None:
    known = sorted(track.seen)
    at = int(np.searchsorted(known, frame)) - 1
    sides = [(reader.frames.rgb(each), track.seen[each].points) for each in known[at : at + 2]]
    points = carry(*sides, reader.frames.rgb(frame), guess.points)
    if points is not None:
        return replace(guess, points=points)
    bend = np.abs(_bend(track, known, at, frame, reader.seconds)).mean()
    return guess if bend < CURVED * hand_size(track.seen[known[at]].points) else None


def _bend(track: Track, known: list[int], at: int, frame: int, seconds: NDArray[np.float64]) -> NDArray[np.float64]:
    """(21, 2): how far a cubic through four sightings departs from the straight line at a frame between two."""
    around = known[max(at - 1, 0) : at + 3]
    first, last = known[at], known[at + 1]
    share = (seconds[frame] - seconds[first]) / (seconds[last] - seconds[first])
    straight = (1 - share) * track.seen[first].points + share * track.seen[last].points
    weights = _lagrange(seconds[around], seconds[frame])
    return np.einsum("i,ikj->kj", weights, np.stack([track.seen[each].points for each in around])) - straight


def _lagrange(known: NDArray[np.float64], at: float) -> NDArray[np.float64]:
    """Weights of the polynomial through the known places."""
    weights = np.ones(len(known))
    for i in range(len(known)):
        for j in range(len(known)):
            if i != j:
                weights[i] *= (at - known[j]) / (known[i] - known[j])
    return weights
